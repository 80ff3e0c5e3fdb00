"""Bytes from one file descriptor to another, unchanged and at once, with a copy for whoever watches."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

CHUNK_BYTES: Final = 64 * 1024
"""Most bytes of one read: what a pipe holds by default."""
End = Literal["source", "sink"]


class Moment(NamedTuple):
    """One instant on two clocks, nanoseconds: one that only goes forward, for durations, and Unix time."""

    steady_ns: int
    unix_ns: int

    @classmethod
    def now(cls) -> Moment:
        return cls(time.monotonic_ns(), time.time_ns())


Watch = Callable[[bytes, Moment], None]


@dataclass(slots=True)
class Progress:
    """What a copying thread is doing, for another to see: True while the sink does not take what it is given."""

    writing: bool = False


def copy(source: int, sink: int, watch: Watch, *, watch_first: bool, progress: Progress | None = None) -> End:
    """Copy until one side ends.

    A chunk is written before the next one is read, so a reader that is slow slows the writer down, as without us.

    Args:
        watch: is given every chunk; must neither block nor raise.
        watch_first: show a chunk before it is passed on. Requests are, so that no answer is ever seen before them.
        progress: kept up to date while this runs.

    Returns:
        "source" when there is no more to read, "sink" when nobody reads any more.
    """
    progress = progress or Progress()
    while True:
        try:
            chunk = os.read(source, CHUNK_BYTES)
        except BlockingIOError:
            _wait(source, select.POLLIN)
            continue
        except OSError:  # a terminal or socket that is gone
            return "source"
        if not chunk:
            return "source"
        at = Moment.now()
        if watch_first:
            watch(chunk, at)
        progress.writing = True
        try:
            write_all(sink, chunk)
        except OSError:
            return "sink"
        progress.writing = False
        if not watch_first:
            watch(chunk, at)


def write_all(sink: int, data: bytes) -> None:
    """Write every byte, however often it takes.

    Raises:
        OSError: nobody reads any more.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(sink, left) :]
        except BlockingIOError:
            _wait(sink, select.POLLOUT)


def _wait(fd: int, event: int) -> None:
    """A descriptor that the other side has set to not blocking: wait until it can go on."""
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()
