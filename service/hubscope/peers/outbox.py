"""What happened to servers, on its way into the store: bounded, in order, never in the way of what it tells about."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog

from hubscope.access import Principal
from hubscope.delivery import pause_seconds
from hubscope.errors import HubscopeError, TooManyRequests, Unavailable
from hubscope.instruments import Instruments
from hubscope.model import Event

log = structlog.get_logger("hubscope.peers")

Record = Callable[[Principal, Sequence[Event]], Awaitable[Any]]
"""Commits events in somebody's name; raises Unavailable or TooManyRequests when the same should be tried again."""

MAX_EVENTS: Final = 20_000
GROUP: Final = 500


class Outbox:
    """Events that wait to be recorded. When it is full the oldest go, and are counted.

    Args:
        record: commits them.
        instruments: where lost ones are counted.
    """

    def __init__(self, record: Record, instruments: Instruments) -> None:
        self._record = record
        self._instruments = instruments
        self._waiting: deque[tuple[Principal, Event]] = deque()
        self._some = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._send(), name="peers outbox")

    def put(self, principal: Principal, *events: Event) -> None:
        """Record events soon."""
        if self._closed:
            self._instruments.peer_events_lost.inc(len(events))
            return
        for event in events:
            if len(self._waiting) >= MAX_EVENTS:
                self._waiting.popleft()
                self._instruments.peer_events_lost.inc()
            self._waiting.append((principal, event))
        if self._waiting:
            self._empty.clear()
            self._some.set()

    async def flushed(self) -> None:
        """Wait until everything is recorded."""
        await self._empty.wait()

    async def close(self, timeout_s: float) -> None:
        """Record what waits, within so many seconds."""
        if not self._closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.flushed()
        self._closed = True
        if self._waiting:
            self._instruments.peer_events_lost.inc(len(self._waiting))
            log.warning("events of servers were not recorded", events=len(self._waiting))
            self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _send(self) -> None:
        tries = 0
        while True:
            await self._some.wait()
            principal = self._waiting[0][0]
            group: list[Event] = []
            for waiting_principal, event in self._waiting:
                if waiting_principal != principal or len(group) == GROUP:
                    break
                group.append(event)
            try:
                await self._record(principal, group)
            except (Unavailable, TooManyRequests) as error:
                tries += 1
                if tries == 1:
                    log.warning(
                        "events of servers cannot be recorded now", error=error.detail, waiting=len(self._waiting)
                    )
                await asyncio.sleep(pause_seconds(tries, error.retry_after_seconds))
                continue
            except HubscopeError as error:
                log.error("events of servers were refused", error=error.detail, events=len(group))
                self._instruments.peer_events_lost.inc(len(group))
            except Exception:  # nothing of these may keep the next ones from being recorded
                log.exception("events of servers were refused", events=len(group))
                self._instruments.peer_events_lost.inc(len(group))
            tries = 0
            sent = {id(event) for event in group}
            while self._waiting and id(self._waiting[0][1]) in sent:  # some may have made room meanwhile
                self._waiting.popleft()
            if not self._waiting:
                self._some.clear()
                self._empty.set()
