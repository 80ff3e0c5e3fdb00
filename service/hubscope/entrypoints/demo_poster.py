"""Posts the demo's events to the service, with the same ids until they are acknowledged."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import httpx2
import msgspec

from hubscope.entrypoints.demo_servers import DemoFailed
from hubscope.model import Receipt, ServerEvent, ToolCall

TRIES: Final = 8
LONGEST_PAUSE_SECONDS: Final = 5.0
MOST_EVENTS_PER_POST: Final = 500
LAST_CHANCE_SECONDS: Final = 3.0


def pause_seconds(tries: int, retry_after: str | None) -> float:
    """How long to wait after the given number of tries: what the service asks for, else 0.1 s doubling, at most 5 s."""
    wanted = 0.1 * 2 ** (tries - 1)
    if retry_after is not None:
        with suppress(ValueError):
            wanted = float(retry_after)
    return min(wanted, LONGEST_PAUSE_SECONDS) if math.isfinite(wanted) and wanted >= 0 else LONGEST_PAUSE_SECONDS


def bearer(key: str | None) -> dict[str, str]:
    """The header that shows a key, if there is one."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


class EventPoster:
    """A queue of events and the task that posts it: while one post is under way, what comes next gathers for another.

    Leaving the block normally waits until all is acknowledged; leaving it by an exception tries for 3 s.
    """

    def __init__(self, service_url: str, key: str | None = None) -> None:
        self._url = f"{service_url}/v1/events"
        # The service is on this machine: a proxy from the environment would only be in the way.
        self._http = httpx2.AsyncClient(trust_env=False, timeout=30, headers=bearer(key))
        self._waiting: list[ToolCall | ServerEvent] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="demo-poster")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.flush()
            else:
                with suppress(Exception):
                    await asyncio.wait_for(self.flush(), LAST_CHANCE_SECONDS)
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._http.aclose()

    def put(self, event: ToolCall | ServerEvent) -> None:
        """Queue one event that has an id."""
        self._waiting.append(event)
        self._idle.clear()
        self._wake.set()

    async def flush(self) -> None:
        """Return when every event put so far is committed.

        Raises:
            DemoFailed: the service rejected an event, or did not acknowledge it in all tries.
        """
        self.check()
        await self._idle.wait()
        self.check()

    def check(self) -> None:
        """Raise what ended the posting, if anything did."""
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        try:
            while await self._wake.wait():
                self._wake.clear()
                while batch := self._waiting[:MOST_EVENTS_PER_POST]:
                    await self._deliver(batch)
                    del self._waiting[: len(batch)]
                self._idle.set()
        except Exception as error:
            self._failure = error
        finally:
            self._idle.set()

    async def _deliver(self, batch: list[ToolCall | ServerEvent]) -> None:
        body = msgspec.json.encode({"events": batch})
        trouble = ""
        for tries in range(1, TRIES + 1):
            retry_after = None
            try:
                answer = await self._http.post(self._url, content=body, headers={"Content-Type": "application/json"})
            except httpx2.TransportError as error:
                trouble = f"{type(error).__name__} {error}".strip()
            else:
                if answer.status_code == 200:
                    return _acknowledged(answer.content, len(batch))
                trouble = f"status {answer.status_code}: {answer.text[:300]}"
                if answer.status_code not in (429, 503):
                    raise DemoFailed(f"the service refused {len(batch)} events: {trouble}")
                retry_after = answer.headers.get("Retry-After")
            if tries < TRIES:
                await asyncio.sleep(pause_seconds(tries, retry_after))
        raise DemoFailed(f"{len(batch)} events were not acknowledged in {TRIES} tries: {trouble}")


def _acknowledged(answer: bytes, sent: int) -> None:
    receipt = msgspec.json.decode(answer, type=Receipt)
    if receipt.rejected:
        first = receipt.rejected[0]
        raise DemoFailed(f"the service rejected {len(receipt.rejected)} events, first: {first.code}: {first.detail}")
    if receipt.accepted + receipt.duplicates != sent:
        raise DemoFailed(f"of {sent} events, {receipt.accepted} were accepted and {receipt.duplicates} known before")
