"""Between the pumps and the observer: copies of what went by, in bounded memory, and the word that it is over."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final, Literal

from hubscope.wrap.pump import Moment, Watch

Side = Literal["client", "server"]
ITEM_BYTES: Final = 200
"""What a queued chunk takes besides its bytes, about."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended.

    Attributes:
        exit_code: of the server; None where a signal ended it.
        signal: that ended the server.
        by_client: the client closed its side first, or a signal of its asked for the end.
    """

    exit_code: int | None = None
    signal: int | None = None
    by_client: bool = False

    @property
    def in_words(self) -> str:
        if self.signal is not None:
            return f"was ended by {signal_name(self.signal)}"
        return f"exited with code {self.exit_code}"


Item = tuple[Side, bytes, Moment] | tuple[Side, int, None] | Ending


class Tap:
    """Copies on their way from the pumps to the observer, bounded in bytes. What does not fit is a gap.

    Each side is written by one thread only; nobody ever waits for anybody.
    """

    def __init__(self, max_bytes: int) -> None:
        self.items: SimpleQueue[Item] = SimpleQueue()
        self.closed = False
        """Nobody reads any more."""
        self.hurry = False
        """There is no time left to read: what is queued counts as missed."""
        self._max_bytes = max_bytes
        self._put: dict[Side, int] = {"client": 0, "server": 0}
        self._missed: dict[Side, int] = {"client": 0, "server": 0}
        self._taken = 0

    def of(self, side: Side) -> Watch:
        """What a pump shows the bytes of one side to."""

        def watch(chunk: bytes, at: Moment) -> None:
            if self.closed:
                return
            waiting = self._put["client"] + self._put["server"] - self._taken
            if waiting + len(chunk) + ITEM_BYTES > self._max_bytes:
                self._missed[side] += len(chunk)
                return
            if self._missed[side]:
                self.items.put((side, self._missed[side], None))
                self._missed[side] = 0
            self._put[side] += len(chunk) + ITEM_BYTES
            self.items.put((side, chunk, at))

        return watch

    def took(self, chunk: bytes) -> None:
        """The observer is through with a chunk."""
        self._taken += len(chunk) + ITEM_BYTES

    def missed_at_the_end(self) -> dict[Side, int]:
        """Bytes that were missed and not told of yet, once nothing goes by any more."""
        return self._missed


def signal_name(number: int) -> str:
    """SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
