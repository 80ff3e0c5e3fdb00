"""Audit events as JSON lines, for the SQL server by itself. A reader who does not read never keeps a query waiting."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

from hubscope.entrypoints.sql_server import Caller
from hubscope.errors import AuditAway

LAST_LINES_S: Final = 1.0
PAUSE_S: Final = 0.01
"""Between two writes, unless half of the places are taken: to wake the thread for each line takes a tenth of the time
of the call that it is about."""
AT_ONCE: Final = 100


def _as_line(event: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode(event).decode() + "\n"
    except UnicodeEncodeError:  # half a surrogate pair, in a text that was refused for it
        return json.dumps(event) + "\n"


class Lines:
    """One JSON line an event, written at once.

    Args:
        stream: where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def check(self) -> None:
        """There is always a place."""

    async def record(self, caller: Caller, event: Mapping[str, Any]) -> None:
        """Write the line."""
        known = {"user_agent": caller.user_agent, "address": caller.address, "request_id": caller.request_id}
        line = {"audit": "sql", "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **event}
        line |= {name: value[:300] for name, value in known.items() if value}
        self._write(_as_line(line))

    def _write(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()

    def close(self) -> None:
        """All is written."""


class LinesBehind(Lines):
    """The same from a thread, over a bounded queue: a pipe that nobody empties fills up, and writing to it waits.

    Args:
        stream: where they go.
        most: lines that may wait.
        refuse: what finds no place is refused (HUBSCOPE_AUDIT_ON_FAILURE); else it is counted, and the number is told
            in a line as soon as there is room.
    """

    def __init__(self, stream: TextIO, most: int, *, refuse: bool = False) -> None:
        super().__init__(stream)
        self._waiting: queue.Queue[str] = queue.Queue(most)
        self._refuse = refuse
        self._lost = 0
        self._half_full = threading.Event()
        threading.Thread(target=self._run, name="audit lines", daemon=True).start()

    def check(self) -> None:
        """Before a call.

        Raises:
            AuditAway: there is no place for its line, and nothing is answered without one.
        """
        if self._refuse and self._waiting.full():
            raise AuditAway("no answer is given without an audit line, and nobody takes them from standard error")

    def _write(self, line: str) -> None:
        if self._lost:
            told = _as_line({"audit": "sql", "event": "lines_lost", "lines": self._lost})
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(told)
                self._lost = 0
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lost += 1
            self.check()
        if self._waiting.qsize() * 2 >= self._waiting.maxsize:
            self._half_full.set()

    def _run(self) -> None:
        while True:
            lines = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(lines) < AT_ONCE:
                    lines.append(self._waiting.get_nowait())
            with contextlib.suppress(OSError, ValueError):  # nobody is there any more
                super()._write("".join(lines))
            for _ in lines:
                self._waiting.task_done()
            self._half_full.wait(PAUSE_S)
            self._half_full.clear()

    def close(self) -> None:
        """Wait a moment for what is not written yet."""
        give_up = time.monotonic() + LAST_LINES_S
        while self._waiting.unfinished_tasks and time.monotonic() < give_up:
            time.sleep(0.005)
