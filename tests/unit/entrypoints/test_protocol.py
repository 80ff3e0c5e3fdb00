"""An answer that is whole goes out in one piece; any other as uvicorn sends it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from hubscope.entrypoints.protocol import _Cycle

pytestmark = pytest.mark.bridge

DATE = (b"date", b"today")
PLAIN = (b"content-type", b"text/plain")


class Wire:
    """What a transport is told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return "close" in self.told


def cycle(wire: Wire, *, method: str = "GET", keep_alive: bool = True, answered: Any = lambda: None) -> _Cycle:
    transport = cast(asyncio.Transport, wire)
    log = logging.getLogger("tests")
    scope: Any = {"type": "http", "method": method}
    return _Cycle(
        scope, transport, FlowControl(transport), log, log, False, [DATE], asyncio.Event(), False, keep_alive, answered
    )


async def answer(one: _Cycle, *parts: bytes, told: int | None = None, headers: Any = (), status: int = 200) -> None:
    length = () if told is None else ((b"content-length", b"%d" % told),)
    await one.send({"type": "http.response.start", "status": status, "headers": [PLAIN, *length, *headers]})
    for place, part in enumerate(parts, 1):
        await one.send({"type": "http.response.body", "body": part, "more_body": place < len(parts)})


async def test_a_whole_answer_is_one_send() -> None:
    wire, answered = Wire(), []
    one = cycle(wire, answered=lambda: answered.append(True))
    await answer(one, b"{}", told=2)
    head = b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n"
    assert wire.told == [head + b"{}"]
    assert one.response_complete
    assert answered == [True]


@pytest.mark.parametrize("headers", [(), ((b"connection", b"close"),)])
async def test_the_last_answer_of_a_connection_says_so_and_hangs_up(headers: Any) -> None:
    wire = Wire()
    await answer(cycle(wire, keep_alive=bool(headers)), b"", told=0, headers=headers)
    assert wire.told[0].count(b"connection: close\r\n") == 1
    assert wire.told[1:] == ["close"]


async def test_an_answer_in_parts_is_sent_in_parts_and_its_head_does_not_wait() -> None:
    wire = Wire()
    await answer(cycle(wire), b"one", b"two", told=6)
    assert [data.partition(b"\r\n\r\n")[2] for data in wire.told[:1]] == [b""]
    assert wire.told[1:] == [b"one", b"two"]
    wire = Wire()
    await answer(cycle(wire), told=None)
    assert len(wire.told) == 1
    assert b"transfer-encoding: chunked" in wire.told[0]


async def test_a_head_is_answered_without_a_body() -> None:
    wire = Wire()
    await answer(cycle(wire, method="HEAD"), b"four", told=4)
    assert b"content-length: 4" in wire.told[0]
    assert not any(data.endswith(b"four") for data in wire.told)


@pytest.mark.parametrize("length", [1, 3])
async def test_a_wrong_length_is_an_error_and_not_a_wrong_answer(length: int) -> None:
    with pytest.raises(RuntimeError, match="Content-Length"):
        await answer(cycle(Wire()), b"{}", told=length)


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_no_value_of_a_header_begins_another_line(value: bytes) -> None:
    wire = Wire()
    with pytest.raises(RuntimeError):
        await answer(cycle(wire), b"", told=0, headers=[(b"x", value)])
    assert wire.told == []


async def test_nothing_is_said_to_who_has_hung_up() -> None:
    wire = Wire()
    one = cycle(wire)
    one.disconnected = True
    await answer(one, b"{}", told=2)
    assert wire.told == []


async def test_an_answer_waits_for_a_client_that_does_not_read() -> None:
    wire = Wire()
    one = cycle(wire)
    one.flow.pause_writing()
    sending = asyncio.create_task(answer(one, b"{}", told=2))
    await asyncio.sleep(0)
    assert wire.told == []
    one.flow.resume_writing()
    await sending
    assert len(wire.told) == 1
