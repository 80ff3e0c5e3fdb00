"""The bench's own HTTP client reads answers as they come, in whatever pieces."""

from __future__ import annotations

import pytest

from tests.bench.drive import answer, request

WHOLE = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"accepted":1}'


def test_an_answer_is_read_when_it_is_whole() -> None:
    for cut in range(len(WHOLE)):
        assert answer(WHOLE[:cut]) is None
    assert answer(WHOLE) == (200, b'{"accepted":1}')


@pytest.mark.parametrize("status", [200, 401, 503])
def test_the_status_is_read(status: int) -> None:
    assert answer(b"HTTP/1.1 %d x\r\ncontent-length:0\r\n\r\n" % status) == (status, b"")


def test_a_request_tells_its_length_and_its_key() -> None:
    whole = request("é\n".encode(), "hsk_x_y")
    head, _, body = whole.partition(b"\r\n\r\n")
    assert body == "é\n".encode()
    assert b"content-length: 3" in head
    assert b"authorization: Bearer hsk_x_y" in head
