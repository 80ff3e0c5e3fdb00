"""Progress of a chain for the one who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from hubscope.chains.state import Counts

Progress = Callable[[float, float, str], Awaitable[None]]
"""Told how many steps are settled, of how many, and what happened last."""

log = structlog.get_logger("hubscope.chains")


class News:
    """Tells the newest progress at the listener's own pace: a slow one misses some, and holds nothing up."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._latest: tuple[Counts, str] | None = None
        self._fresh = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def say(self, counts: Counts, words: str) -> None:
        """There is something new."""
        self._latest = (counts, words)
        self._fresh.set()

    async def __aenter__(self) -> None:
        if self._progress is not None:
            self._task = asyncio.create_task(self._send(self._progress), name="chain progress")

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _send(self, progress: Progress) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            assert self._latest is not None
            counts, words = self._latest
            try:
                await progress(counts.settled, counts.total, words)
            except Exception:  # a client that is gone or slow hears no more; its chain goes on
                log.debug("progress could not be told", exc_info=True)
                return
