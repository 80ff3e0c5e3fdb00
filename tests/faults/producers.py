"""Producers: HTTP clients that post events, note what is acknowledged, and send all else again until it is."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import httpx2

from tests.faults.ledger import Event, Ledger, made_up

PRODUCERS: Final = 4
BATCH_MAX: Final = 40
REQUEST_TIMEOUT_S: Final = 2.5
"""Longer than the service waits for its database, so that it has time to say what is wrong."""
PATIENCE_S: Final = 60.0
TEMPORARY: Final = frozenset({408, 429, 503})
"""What a producer may be told; anything else is a mistake of the service."""

Make = Callable[[random.Random], list[list[Event]]]
"""Makes the posts that one producer sends at once."""


class NeverAcknowledged(AssertionError):
    """The service did not take a post for as long as anybody would wait."""


def ordinary(dice: random.Random) -> list[list[Event]]:
    """One post of new events."""
    now = datetime.now(UTC)
    return [[made_up(dice, now) for _ in range(dice.randint(1, BATCH_MAX))]]


class Load:
    """Producers at work for as long as the block runs; its end waits until everything that was sent is acknowledged.

    Args:
        url: of the service.
        ledger: where everything is noted.
        make: what is sent.
    """

    def __init__(self, url: str, ledger: Ledger, *, make: Make = ordinary, seed: int = 0) -> None:
        self._url = f"{url}/v1/events"
        self._ledger = ledger
        self._make = make
        self._seed = seed
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._produce(number)) for number in range(PRODUCERS)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if error is None and isinstance(result, BaseException):
                raise result

    async def progress(self, events: int = 200) -> None:
        """Wait until so many more events are acknowledged."""
        goal = self._ledger.acknowledged + events
        await self.until(lambda: self._ledger.acknowledged >= goal, f"{events} more events are acknowledged")

    async def failures(self, posts: int = 4) -> None:
        """Wait until so many more posts were not acknowledged."""
        goal = self._ledger.failures + posts
        await self.until(lambda: self._ledger.failures >= goal, f"{posts} more posts fail")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that happens while producers work."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not condition():
            for task in self._tasks:
                if task.done():
                    task.result()
            assert asyncio.get_running_loop().time() < deadline, f"still waiting: {what} ({self._ledger.answers})"
            await asyncio.sleep(0.01)

    async def _produce(self, number: int) -> None:
        dice = random.Random(f"{self._seed} {number}")
        limits = httpx2.Limits(max_connections=8, max_keepalive_connections=4)
        async with httpx2.AsyncClient(timeout=REQUEST_TIMEOUT_S, trust_env=False, limits=limits) as http:
            while not self._stopping:
                posts = self._make(dice)
                await asyncio.gather(*(self.deliver(http, post) for post in posts))
                await asyncio.sleep(0.002)

    async def deliver(self, http: httpx2.AsyncClient, events: Sequence[Event]) -> None:
        """Send one post until it is acknowledged, with the same ids and times."""
        body = json.dumps(events).encode()
        give_up = asyncio.get_running_loop().time() + PATIENCE_S
        for attempt in itertools.count():
            if await self._post(http, events, body):
                return
            if asyncio.get_running_loop().time() > give_up:
                raise NeverAcknowledged(f"{attempt + 1} tries: {self._ledger.answers}")
            await asyncio.sleep(min(0.02 * 2**attempt, 0.3))

    async def _post(self, http: httpx2.AsyncClient, events: Sequence[Event], body: bytes) -> bool:
        ledger = self._ledger
        unknown = ledger.send(events)
        try:
            answer = await http.post(self._url, content=body, headers={"content-type": "application/json"})
        except httpx2.HTTPError as error:
            ledger.answers[type(error).__name__] += 1
            return False
        ledger.answers[str(answer.status_code)] += 1
        if answer.status_code == 200:
            ledger.acknowledge(events, unknown, answer.json())
            return True
        if answer.status_code not in TEMPORARY:
            ledger.wrong.append(f"{answer.status_code}: {answer.text[:300]}")
        return False
