"""Lines out of chunks: whatever way a stream is chopped, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubscope.wrap.lines import END_BYTES, Line, Lines

CHUNKS = st.lists(st.binary(max_size=40) | st.sampled_from([b"\n", b"{}\n", b"a\nb", b"\n\n", b" \r\n"]), max_size=30)


def fed(lines: Lines, chunks: list[bytes]) -> list[Line]:
    return [line for chunk in chunks for line in lines.feed(chunk)]


@given(CHUNKS)
def test_however_a_stream_is_chopped_its_lines_are_the_same(chunks: list[bytes]) -> None:
    expected = [line for line in b"".join(chunks).split(b"\n")[:-1] if line.strip()]
    assert [line.whole for line in fed(Lines(10_000), chunks)] == expected


@given(CHUNKS, st.integers(1, 20))
def test_short_lines_are_whole_and_long_ones_are_not(chunks: list[bytes], limit: int) -> None:
    expected = [line for line in b"".join(chunks).split(b"\n")[:-1] if line.strip() or len(line) > limit]
    for line, bytes_of_it in zip(fed(Lines(limit), chunks), expected, strict=True):
        assert line.size == len(bytes_of_it)
        assert line.whole == (bytes_of_it if line.size <= limit else None)
        if line.whole is None:
            assert (line.head, line.tail) == (bytes_of_it[:END_BYTES], bytes_of_it[-END_BYTES:])


def test_a_line_over_the_limit_keeps_its_ends_only() -> None:
    lines = Lines(1_000)
    chunk = bytes(range(97, 122)) * 400
    for _ in range(1_000):
        assert list(lines.feed(chunk)) == []
        assert sum(map(len, lines._parts)) + len(lines._head or b"") + len(lines._tail) <= 2 * END_BYTES
    (line,) = lines.feed(b"the end\n")
    assert (line.size, line.whole) == (10_000_000 + 7, None)
    assert (line.head, line.tail[-7:], len(line.tail)) == (chunk[:END_BYTES], b"the end", END_BYTES)
    assert [line.whole for line in lines.feed(b"next\n")] == [b"next"]


def test_after_a_gap_reading_goes_on_with_the_next_whole_line() -> None:
    lines = Lines(1_000)
    assert fed(lines, [b'{"begun": ']) == []
    lines.gap()
    assert [line.whole for line in fed(lines, [b"the rest of some line}\nwhole\nha", b"lf\n"])] == [b"whole", b"half"]
