"""From chunks of a byte stream to lines, in bounded memory. A line too long to parse keeps its two ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

END_BYTES: Final = 4_096
"""How much of either end of a line that is too long is kept."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its newline.

    Attributes:
        size: its length in bytes.
        whole: its bytes; None where it was too long to keep.
        head: its first bytes, where it was too long.
        tail: its last bytes, where it was too long.
    """

    size: int
    whole: bytes | None
    head: bytes = b""
    tail: bytes = b""


class Lines:
    """Cuts one direction of a connection into lines.

    Holds at most `limit` bytes and one chunk; a line longer than that is passed on by its ends.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._head: bytes | None = None  # set while the line under way is too long
        self._tail = b""
        self._lost = False

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The lines that end in this chunk; empty ones are left out."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = self._end(chunk[start:end])
            if line is not None:
                yield line
            start = end + 1
        self._add(chunk[start:])

    def gap(self) -> None:
        """Bytes are missing here: what was begun, and what goes on until the next newline, is no line."""
        self._forget()
        self._lost = True

    def _end(self, last: bytes) -> Line | None:
        if self._lost:
            self._lost = False
            return None
        self._add(last)
        size, head, tail, parts = self._size, self._head, self._tail, self._parts
        self._forget()
        if head is not None:
            return Line(size, None, head, tail)
        whole = b"".join(parts)
        return Line(size, whole) if whole.strip() else None

    def _add(self, piece: bytes) -> None:
        if not piece or self._lost:
            return
        self._size += len(piece)
        if self._head is not None:
            self._head += piece[: END_BYTES - len(self._head)]
            self._tail = (self._tail + piece[-END_BYTES:])[-END_BYTES:]
            return
        self._parts.append(piece)
        if self._size > self._limit:
            long = b"".join(self._parts)
            self._head, self._tail = long[:END_BYTES], long[-END_BYTES:]
            self._parts = []

    def _forget(self) -> None:
        self._parts, self._size, self._head, self._tail = [], 0, None, b""
