"""The event stream's bytes: every way of cutting them gives the same events, and nobody's storm is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.bridge.sse import LINE_HEAD_BYTES, Splitter

WANTED = frozenset({b"hub_state", b"subscription_event"})
LIMIT = 200


def splitter() -> Splitter:
    return Splitter(WANTED, LIMIT)


def frame(name: bytes, *data: bytes, end: bytes = b"\n") -> bytes:
    return b"event: " + name + end + b"".join(b"data: " + line + end for line in data) + end


NAMES = st.sampled_from([b"hub_state", b"subscription_event", b"log", b"heartbeat"])
DATA = st.binary(max_size=2 * LIMIT).map(lambda data: data.replace(b"\n", b"").strip(b" \r"))


@given(st.lists(st.tuples(NAMES, DATA)), st.lists(st.integers(1, 700)), st.sampled_from([b"\n", b"\r\n"]))
def test_however_the_stream_is_cut_the_events_are_the_same(
    events: list[tuple[bytes, bytes]], cuts: list[int], end: bytes
) -> None:
    stream = b"".join(frame(name, data, end=end) for name, data in events)
    reader, found = splitter(), []
    for size in [*cuts, len(stream)]:
        part, stream = stream[:size], stream[size:]
        found += reader.feed(part)
        assert len(reader._partial) <= LIMIT + LINE_HEAD_BYTES
    assert found == [(name, data if len(data) <= LIMIT else None) for name, data in events if name in WANTED]
    assert reader.skipped == sum(name not in WANTED for name, _ in events)


def test_an_event_of_several_lines_is_one() -> None:
    assert splitter().feed(frame(b"hub_state", b"{", b"}")) == [(b"hub_state", b"{\n}")]


def test_an_event_over_the_limit_is_counted_and_not_kept() -> None:
    reader = splitter()
    assert reader.feed(b"event: hub_state\ndata: ") == []
    for _ in range(1_000):
        assert reader.feed(b"x" * 1_000) == []
        assert len(reader._partial) <= LIMIT + LINE_HEAD_BYTES
    assert reader.feed(b"\n\n" + frame(b"hub_state", b"{}")) == [(b"hub_state", None), (b"hub_state", b"{}")]
    assert reader.oversized == 1


def test_an_event_that_nobody_reads_is_never_put_together() -> None:
    reader = splitter()
    reader.feed(b"event: log\ndata: ")
    for _ in range(1_000):
        reader.feed(b"x" * 1_000)
        assert len(reader._partial) <= LINE_HEAD_BYTES
    assert reader.feed(b"\n\n") == []
    assert (reader.skipped, reader.oversized) == (1, 0)


@pytest.mark.parametrize("noise", [b": a comment\n\n", b"\n\n\n", b"retry: 5\n\n", b"data: of no event\n\n"])
def test_what_is_no_event_is_none(noise: bytes) -> None:
    assert splitter().feed(noise + frame(b"hub_state", b"{}")) == [(b"hub_state", b"{}")]


def test_another_stream_begins_afresh() -> None:
    reader = splitter()
    reader.feed(b"event: hub_state\ndata: half of")
    reader.reset()
    assert reader.feed(frame(b"hub_state", b"{}")) == [(b"hub_state", b"{}")]
