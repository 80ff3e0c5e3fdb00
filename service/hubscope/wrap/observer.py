"""The thread that reads copies of what went by, and turns them into events in the spool."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty

import msgspec

from hubscope.model import Event
from hubscope.wrap.lines import Lines
from hubscope.wrap.protocol import Session
from hubscope.wrap.pump import Moment
from hubscope.wrap.tap import Ending, Side, Tap


class Observer:
    """Reads until the connection has ended.

    Args:
        keep: takes the JSON text of each event.
        trouble: told of what went wrong in here.
        heartbeat_s: how often a connected server is reported alive; 0 for never.
    """

    def __init__(
        self,
        session: Session,
        tap: Tap,
        *,
        max_message_bytes: int,
        heartbeat_s: float,
        keep: Callable[[bytes], None],
        trouble: Callable[[str], None],
    ) -> None:
        self._session = session
        self._tap = tap
        self._lines: dict[Side, Lines] = {"client": Lines(max_message_bytes), "server": Lines(max_message_bytes)}
        self._heartbeat_s = heartbeat_s
        self._keep = keep
        self._trouble = trouble
        self._encode = msgspec.json.Encoder().encode

    def run(self) -> None:
        """Return when an `Ending` has come and is reported."""
        next_pulse = time.monotonic() + self._heartbeat_s
        while True:
            left = max(next_pulse - time.monotonic(), 0) if self._heartbeat_s else None
            if left == 0:
                self._report(self._session.pulse(Moment.now()))
                next_pulse = time.monotonic() + self._heartbeat_s
                continue
            try:
                item = self._tap.items.get(timeout=left)
            except Empty:
                continue
            if isinstance(item, Ending):
                for side, size in self._tap.missed_at_the_end().items():
                    self._gap(side, size)
                self._report(self._session.ended(item, Moment.now()))
                return
            self._read(*item)

    def _read(self, side: Side, chunk: bytes | int, at: Moment | None) -> None:
        """Read one chunk, or note that so many bytes are missing here."""
        if at is None or isinstance(chunk, int):
            self._gap(side, chunk if isinstance(chunk, int) else len(chunk))
            return
        if self._tap.hurry:
            self._gap(side, len(chunk))
            return
        read = self._session.sent if side == "client" else self._session.received
        for line in self._lines[side].feed(chunk):
            try:
                self._report(read(line, at))
            except Exception as error:  # ours to be ashamed of; the lines after it are still worth reading
                self._trouble(f"a message could not be read: {type(error).__name__}: {error}")
        self._tap.took(chunk)

    def _gap(self, side: Side, size: int) -> None:
        if size:
            self._lines[side].gap()
            self._session.missed(size, answers=side == "server")

    def _report(self, events: list[Event]) -> None:
        for event in events:
            self._keep(self._encode(event))
