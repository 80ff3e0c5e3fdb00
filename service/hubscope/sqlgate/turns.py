"""Who may run a query now: at most so many at once, and those who wait are served in turn, client by client."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hubscope.errors import QueryQueueFull


class Turns:
    """A concurrency limit with a fair queue: one client's hundred waiting calls do not stand before another's one.

    Attributes:
        running, waiting: calls now.
    """

    def __init__(self, at_once: int, most_waiting: int) -> None:
        self._at_once = at_once
        self._most_waiting = most_waiting
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a place and hold it while the block runs.

        Raises:
            QueryQueueFull: too many wait already.
        """
        if self.running < self._at_once and self.waiting == 0:
            self.running += 1
        else:
            await self._wait(client)
        try:
            yield
        finally:
            self._give_away()

    async def _wait(self, client: str) -> None:
        if self.waiting >= self._most_waiting:
            raise QueryQueueFull(
                f"{self.waiting} queries are waiting, which is the most allowed (HUBSCOPE_SQL_MAX_WAITING);"
                " ask again in a moment"
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(place)
        self.waiting += 1
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._give_away()  # the place came in the same moment; it is the next one's
            else:
                self.waiting -= 1
                self._forget(client, place)
            raise

    def _forget(self, client: str, place: asyncio.Future[None]) -> None:
        queue = self._queues.get(client)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._queues[client]

    def _give_away(self) -> None:
        """Hand the place to the client who was served longest ago, else free it."""
        while self._queues:
            client, queue = next(iter(self._queues.items()))
            place = queue.popleft()
            if queue:
                self._queues.move_to_end(client)
            else:
                del self._queues[client]
            if not place.done():
                self.waiting -= 1
                place.set_result(None)
                return
        self.running -= 1
