"""Where events wait until hubscope has them: files of one event a line, shared by all wrappers of an account.

A file ("segment") belongs to whoever holds its lock (flock), which the kernel lets go of when a process dies, however
it dies. A living wrapper holds the one it writes to; every other one may be sent and removed by any wrapper. An event
is in the file, and so in the kernel, before anything is sent: a killed wrapper loses none of them, a power cut may.

What was sent is not marked anywhere: a wrapper that dies between an answer and the removal leaves events that are sent
twice, with the same ids and times, and counted once.

Segments are named after the time they were begun (UUIDv7), so that names sort by age. All of them together take at most
`max_bytes`: room for a segment is made, under a lock of the directory, before it is begun, by removing the oldest.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hubscope.ids import uuid7

SUFFIX: Final = ".ndjson"
DIRECTORY_LOCK: Final = "directory.lock"
DIRECTORY_LOCK_TIMEOUT_S: Final = 1.0
SEGMENTS: Final = 256
"""A segment takes this part of the whole, and so many wrappers can write at once."""
SEGMENT_LEAST_BYTES: Final = 16 * 1024
SEGMENT_MOST_BYTES: Final = 256 * 1024

Say = Callable[[str, str], None]
"""Tell the person in front of it: what it is about (said once each) and one sentence."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to send: one JSON text each, where they end in their segment, and whether that is the one written to."""

    lines: list[bytes]
    segment: _Segment
    end: int
    new: bool


class _Segment:
    """Lines in the order written, and how far they are sent. `fd` is None for one in memory."""

    def __init__(self, path: Path | None, fd: int | None, *, size: int = 0, sent: int = 0) -> None:
        self.path = path
        self.size = size
        self.sent = sent
        self._fd = fd
        self._memory = bytearray()

    def append(self, line: bytes) -> None:
        """Write one line at the end.

        Raises:
            OSError: the disk is full or gone. What was written of the line has no end, and is left out by who reads.
        """
        if self._fd is None:
            self._memory += line
        elif os.pwrite(self._fd, line, self.size) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += len(line)

    def unsent(self, most_bytes: int) -> bytes:
        """Whole lines that are not sent yet, at least one if there is one."""
        while True:
            most = min(most_bytes, self.size - self.sent)
            data = (
                bytes(self._memory[self.sent : self.sent + most])
                if self._fd is None
                else os.pread(self._fd, most, self.sent)
            )
            end = data.rfind(b"\n") + 1
            if end or len(data) < most_bytes:
                return data[:end]
            most_bytes *= 2

    def empty(self) -> None:
        """Begin again from nothing."""
        if self._fd is None:
            self._memory.clear()
        else:
            os.ftruncate(self._fd, 0)
        self.size = self.sent = 0

    def close(self) -> None:
        """Let go of the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def remove(self) -> None:
        """Remove it, then let go of the lock."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.close()


class Spool:
    """The waiting events of one hubscope. For one thread that appends and one that takes.

    Args:
        directory: is made when it is missing, for this account only.
        max_bytes: of all segments together, whoever wrote them.
        say: told when events are lost or the disk cannot be used.
    """

    def __init__(self, directory: Path, *, max_bytes: int, say: Say, segment_bytes: int | None = None) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes or min(max(max_bytes // SEGMENTS, SEGMENT_LEAST_BYTES), SEGMENT_MOST_BYTES)
        self._say = say
        self._lock = threading.Lock()
        self._current: _Segment | None = None
        self._leftover: _Segment | None = None
        self._full: dict[Path, int] = {}  # own segments that are not written to any more, and how far they are sent
        self.dropped = 0

    def append(self, event: bytes) -> None:
        """Keep one event, a JSON text without a newline. Never raises: what cannot be kept is counted in `dropped`."""
        line = event + b"\n"
        with self._lock:
            if self._current is None or self._current.size + len(line) > self._segment_bytes:
                self._begin(len(line))
            try:
                assert self._current is not None
                self._current.append(line)
            except OSError as error:
                self._say("spool", f"events cannot be kept on disk ({error.strerror}); they wait in memory")
                self._retire()
                self._current = _Segment(None, None)
                self._current.append(line)

    def take(self, *, max_events: int, max_bytes: int, leftovers: bool, new: bool = True) -> Batch | None:
        """Events that are not sent yet; the same ones again until `done` is told. None when there are none.

        Args:
            leftovers: look for those that other wrappers left, too.
            new: take them from the segment that is written to, too.
        """
        while (segment := self._leftover or self._reopen()) is not None:
            if (batch := self._rest_of(segment, max_events, max_bytes)) is not None:
                return batch
        with self._lock:
            if new and self._current is not None and self._current.sent < self._current.size:
                return _batch(self._current, max_events, max_bytes, new=True)
        while leftovers and (segment := self._adopt()) is not None:
            if (batch := self._rest_of(segment, max_events, max_bytes)) is not None:
                return batch
        return None

    def done(self, batch: Batch) -> None:
        """These events are sent, or never will be."""
        with self._lock:
            segment = batch.segment
            segment.sent = max(segment.sent, batch.end)
            if segment is self._current:
                if segment.sent == segment.size:
                    with suppress(OSError):
                        segment.empty()
            elif segment.path in self._full:  # it was filled while these were on their way
                self._full[segment.path] = segment.sent

    def close(self) -> None:
        """Leave what is not sent to the next wrapper, and nothing else."""
        with self._lock:
            if self._current is not None:
                if self._current.path is None:
                    self.dropped += self._current.unsent(self._current.size + 1).count(b"\n")
                self._retire()
            if self._leftover is not None:
                self._leftover.close()
                self._leftover = None

    # Segments

    def _retire(self) -> None:
        """Let go of the current segment; remove it if all of it is sent."""
        segment, self._current = self._current, None
        if segment is None or segment.path is None:
            return
        if segment.sent >= segment.size:
            segment.remove()
            return
        self._full[segment.path] = segment.sent
        segment.close()

    def _begin(self, needed: int) -> None:
        """A new current segment: on disk if possible, else in memory, where it is only as large as one on disk."""
        waited = b""
        if self._current is not None and self._current.path is None:
            waited = self._current.unsent(self._current.size + 1)
        self._retire()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._directory.stat().st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "the directory belongs to another account")
            with self._directory_locked():
                if self._make_room(max(self._segment_bytes, needed)):
                    self._current = self._create()
                    if waited:
                        self._current.append(waited)
                        waited = b""
        except OSError as error:
            self._say("spool", f"events cannot be kept on disk ({error.strerror}); they wait in memory")
        if self._current is None:
            self._current = _Segment(None, None)
        if waited:
            lost = waited.count(b"\n")
            self.dropped += lost
            self._say("dropped", f"{lost} events are lost: hubscope is away, and there is nowhere left to keep them")

    def _create(self) -> _Segment:
        while True:
            path = self._directory / f"{uuid7()}{SUFFIX}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if _owned(fd):
                return _Segment(path, fd)
            os.close(fd)  # somebody who looks for leftovers had it for a moment

    def _reopen(self) -> _Segment | None:
        """The oldest own segment that is full and not sent, unless another wrapper has taken it on."""
        with self._lock:
            while self._full:
                path = next(iter(self._full))
                segment, sent = _open(path), self._full.pop(path)
                if segment is not None:
                    segment.sent = sent
                    return segment
        return None

    def _adopt(self) -> _Segment | None:
        """The oldest segment that nobody holds."""
        for path in self._segments():
            segment = _open(path)
            if segment is not None:
                segment.sent = self._full.pop(path, 0)
                return segment
        return None

    def _rest_of(self, segment: _Segment, max_events: int, max_bytes: int) -> Batch | None:
        """The next events of a segment that is not written to; None, and it is removed, when there are no more."""
        self._leftover = segment
        batch = _batch(segment, max_events, max_bytes, new=False)
        if batch.lines:
            return batch
        # What is left, if anything, is a line that its writer did not finish: a machine that went down.
        segment.remove()
        self._leftover = None
        return None

    def _segments(self) -> list[Path]:
        try:
            return sorted(path for path in self._directory.iterdir() if path.suffix == SUFFIX)
        except OSError:
            return []

    def _make_room(self, needed: int) -> bool:
        """Remove the oldest segments until another fits. One that is being written counts as full."""
        free: list[tuple[_Segment, int]] = []
        total = needed
        for path in self._segments():
            segment = _open(path)
            if segment is not None:
                free.append((segment, segment.size))
            with suppress(OSError):
                total += segment.size if segment is not None else max(path.stat().st_size, self._segment_bytes)
        lost = 0
        for segment, size in free:
            if total > self._max_bytes:
                segment.sent = self._full.pop(segment.path, 0) if segment.path else 0
                lost += segment.unsent(size + 1).count(b"\n")
                segment.remove()
                total -= size
            else:
                segment.close()
        if lost:
            self.dropped += lost
            self._say(
                "dropped",
                f"hubscope is away and HUBSCOPE_SPOOL_MAX_BYTES ({self._max_bytes}) are waiting: the oldest events"
                f" are dropped, {lost} so far",
            )
        return total <= self._max_bytes

    @contextmanager
    def _directory_locked(self) -> Iterator[None]:
        """Hold the directory's lock. One that is not to be had in a second is a stopped process: go on without."""
        fd = os.open(self._directory / DIRECTORY_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + DIRECTORY_LOCK_TIMEOUT_S
            while not _locked(fd) and time.monotonic() < deadline:
                time.sleep(0.01)
            yield
        finally:
            os.close(fd)


def _batch(segment: _Segment, max_events: int, max_bytes: int, *, new: bool) -> Batch:
    lines = segment.unsent(max_bytes).split(b"\n")[:-1][:max_events]
    return Batch(lines, segment, segment.sent + sum(map(len, lines)) + len(lines), new)


def _open(path: Path) -> _Segment | None:
    """A segment that nobody holds, held; None for one that is held, or gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _owned(fd):
            return _Segment(path, fd, size=os.fstat(fd).st_size)
    except OSError:
        pass
    os.close(fd)
    return None


def _owned(fd: int) -> bool:
    """Lock a file; False where another holds it, or has removed it meanwhile."""
    return _locked(fd) and os.fstat(fd).st_nlink > 0


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
