"""The pump: bytes unchanged and at once, backpressure, and ends that are passed on."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubscope.wrap.pump import Moment, Progress, copy, write_all

Pipes = tuple[int, int, int, int]


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    """Ends of two pipes: what a pump reads, the end that feeds it, the end that it fills, what it writes."""
    source, feed = os.pipe()
    drain, sink = os.pipe()
    yield source, feed, drain, sink
    for fd in (source, feed, drain, sink):
        with suppress(OSError):
            os.close(fd)


def read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 100_000):
        parts.append(part)
    return b"".join(parts)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200_000), max_size=8), st.booleans(), st.booleans())
def test_any_bytes_chopped_anywhere_arrive_as_they_were(chunks: list[bytes], first: bool, nonblocking: bool) -> None:
    source, feed = os.pipe()
    drain, sink = os.pipe()
    if nonblocking:
        for fd in (source, sink):
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
    seen: list[bytes] = []
    ends: list[str] = []

    def pump() -> None:
        ends.append(copy(source, sink, lambda chunk, _: seen.append(chunk), watch_first=first))
        os.close(sink)

    def give() -> None:
        for chunk in chunks:
            write_all(feed, chunk)
        os.close(feed)

    threads = [threading.Thread(target=pump), threading.Thread(target=give)]
    for thread in threads:
        thread.start()
    arrived = read_all(drain)
    for thread in threads:
        thread.join()
    os.close(source)
    os.close(drain)
    assert arrived == b"".join(chunks) == b"".join(seen)
    assert ends == ["source"]


def test_a_request_is_seen_before_it_is_passed_on_and_an_answer_after(pipes: Pipes) -> None:
    source, feed, drain, sink = pipes
    os.set_blocking(drain, False)

    def there(_chunk: bytes, _at: Moment) -> None:
        try:
            arrived.append(os.read(drain, 10))
        except BlockingIOError:
            arrived.append(b"")

    for watch_first, expected in ((True, b""), (False, b"hello")):
        source, feed = os.pipe()
        arrived: list[bytes] = []
        os.write(feed, b"hello")
        os.close(feed)
        copy(source, sink, there, watch_first=watch_first)
        assert arrived == [expected]
        os.close(source)
        with suppress(BlockingIOError):
            os.read(drain, 10)


def test_a_reader_who_is_gone_ends_the_copy(pipes: Pipes) -> None:
    source, feed, drain, sink = pipes
    os.close(drain)
    os.write(feed, b"x")
    assert copy(source, sink, lambda *_: None, watch_first=False) == "sink"


def test_a_reader_who_is_slow_slows_the_writer_down(pipes: Pipes) -> None:
    source, feed, drain, sink = pipes
    progress = Progress()
    threading.Thread(
        target=copy,
        args=(source, sink, lambda *_: None),
        kwargs={"watch_first": False, "progress": progress},
        daemon=True,
    ).start()
    os.set_blocking(feed, False)
    given = 0
    idle = threading.Event()
    for _ in range(200):  # until nothing is taken any more
        try:
            given += os.write(feed, b"x" * 65_536)
        except BlockingIOError:
            if idle.wait(0.005) or progress.writing:
                break
    # Two pipes and the chunk in between, not the memory of the machine.
    for _ in range(50):
        with suppress(BlockingIOError):
            given += os.write(feed, b"x" * 65_536)
        idle.wait(0.001)
    assert progress.writing
    assert given <= 4 * 65_536 + 65_536
    received = 0
    while received < given:
        received += len(os.read(drain, 65_536))
