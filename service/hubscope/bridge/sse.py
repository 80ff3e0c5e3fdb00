"""Server-sent events out of a stream of bytes, in bounded memory. No I/O.

Source: WHATWG HTML, section 9.2.6 (event stream interpretation), without `id` and `retry`, which mcp-hub never sends.
"""

from __future__ import annotations

from typing import Final

LINE_HEAD_BYTES: Final = 64
"""What is kept of a line that will not be read: enough to see that it is a field and which."""


class Splitter:
    """Cuts a stream into events.

    The bytes of an event that nobody wants are counted and forgotten as they come, so a storm of them costs a search
    for line ends; so are those of an event that is too long.

    Args:
        wanted: names of the events that are read.
        max_event_bytes: longest data of an event that is read.

    Attributes:
        skipped: events that nobody wants, so far.
        oversized: wanted events that were too long to be read, so far.
    """

    def __init__(self, wanted: frozenset[bytes], max_event_bytes: int) -> None:
        self.skipped = 0
        self.oversized = 0
        self._wanted = wanted
        self._max = max_event_bytes
        self._partial = bytearray()
        self._begin()

    def reset(self) -> None:
        """Begin with another stream."""
        self._partial.clear()
        self._begin()

    def feed(self, chunk: bytes) -> list[tuple[bytes, bytes | None]]:
        """The events that these bytes complete: (name, data). Data is None where there was too much of it."""
        found: list[tuple[bytes, bytes | None]] = []
        lines = chunk.split(b"\n")
        rest = lines.pop()
        for line in lines:
            if self._partial:
                self._keep(line)
                line = bytes(self._partial)
                self._partial.clear()
            if line and line != b"\r":
                self._line(line)
                continue
            if self._name in self._wanted and (self._data or self._too_long):
                self.oversized += self._too_long
                found.append((self._name, None if self._too_long else b"\n".join(self._data)))
            elif self._name:
                self.skipped += 1
            self._begin()
        self._keep(rest)
        return found

    def _begin(self) -> None:
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._too_long = False

    @property
    def _unread(self) -> bool:
        return self._too_long or (self._name != b"" and self._name not in self._wanted)

    def _keep(self, part: bytes) -> None:
        """Add to a line whose end has not come yet, as much of it as may be needed."""
        most = LINE_HEAD_BYTES if self._unread else self._max + LINE_HEAD_BYTES
        room = most - len(self._partial)
        if room > 0:
            self._partial += part[:room]
        if len(part) > room and not self._unread:
            self._too_long = True
            del self._partial[LINE_HEAD_BYTES:]

    def _line(self, line: bytes) -> None:
        if line.startswith(b"event:"):
            self._name = line[6:].strip()
        elif line.startswith(b"data:") and not self._unread:
            data = line[5:].strip(b" \r")
            self._size += len(data)
            if self._size > self._max:
                self._too_long = True
                self._data.clear()
            else:
                self._data.append(data)
