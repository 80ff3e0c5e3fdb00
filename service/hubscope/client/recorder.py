"""The client itself: events gather in bounded memory and are posted in batches until they are acknowledged.

Recording never waits and never raises for hubscope's sake, and a retry sends the same ids. What a process may not lose
when it is killed goes through the stdio wrapper, which keeps events on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import httpx2
import msgspec

from hubscope.delivery import Outcome, Verdict, judge, pause_seconds
from hubscope.ids import uuid7
from hubscope.model import CallStatus, Event, ToolCall

DEFAULT_URL: Final = "http://127.0.0.1:3401"
PATH: Final = "/v1/events"
BATCH_MAX_EVENTS: Final = 500
BATCH_MAX_BYTES: Final = 1024 * 1024
REQUEST_TIMEOUT_S: Final = 15.0
MESSAGE_CHARS: Final = 500

log = logging.getLogger("hubscope.client")


@dataclass(slots=True)
class Totals:
    """What became of the events of a client so far, in events. `recorded` is the sum of the others and what waits."""

    recorded: int = 0
    acknowledged: int = 0
    refused: int = 0
    dropped: int = 0


@dataclass(slots=True)
class Call:
    """A tool call that is under way; set what is not known by itself before the block ends.

    Attributes:
        status: how it ended; by default ok, or what the exception that left the block says.
        fields: more fields of the `tool_call` event (docs/reference/events).
    """

    status: CallStatus | None
    error_type: str | None
    error_message: str | None
    fields: dict[str, Any]


class Client:
    """Posts events to one hubscope. Use it as an async context manager; leaving it sends what waits.

    Args:
        url: where hubscope is.
        api_key: sent as a bearer token.
        hub: which hub reports, in every event that does not say.
        max_bytes: most bytes of events that wait; past it the oldest are dropped and counted.
        linger_s: how long an event waits for others.
        close_timeout_s: how long leaving the block may take.
        http: an HTTP client of your own; it is not closed.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        hub: str = "",
        max_bytes: int = 8 * 1024 * 1024,
        linger_s: float = 0.1,
        close_timeout_s: float = 5.0,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self.totals = Totals()
        self._url = httpx2.URL(url.rstrip("/") + PATH)
        here = self._url.host in ("127.0.0.1", "::1", "localhost")  # where a proxy would only be in the way
        self._headers = {"Content-Type": "application/x-ndjson"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._hub = hub
        self._max_bytes = max_bytes
        self._linger_s = linger_s
        self._close_timeout_s = close_timeout_s
        self._own_http = http is None
        self._http = http or httpx2.AsyncClient(timeout=REQUEST_TIMEOUT_S, trust_env=not here)
        self._encode = msgspec.json.Encoder().encode
        self._waiting: deque[bytes] = deque()
        self._under_way: list[bytes] = []
        self._bytes = 0
        self._news = asyncio.Event()
        self._closing = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._said: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="hubscope-client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._closing.set()
        self._news.set()
        try:
            await self.flush(self._close_timeout_s)
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            left = len(self._waiting) + len(self._under_way)
            if left:
                self.totals.dropped += left
                self._say("left", "%d events are lost: hubscope did not take them in time", left)
            if self._own_http:
                await self._http.aclose()

    def record(self, event: Event) -> UUID:
        """Queue one event; it gets an id if it has none. From the event loop's thread.

        Returns:
            The id, which is the same in every try.
        """
        event_id = event.event_id or uuid7()
        event = msgspec.structs.replace(event, event_id=event_id, hub=event.hub or self._hub)
        encoded = self._encode(event)
        self.totals.recorded += 1
        self._waiting.append(encoded)
        self._bytes += len(encoded)
        lost = 0
        while self._bytes > self._max_bytes and self._waiting:
            self._bytes -= len(self._waiting.popleft())
            lost += 1
        if lost:
            self.totals.dropped += lost
            self._say("full", "hubscope is away and %d bytes of events wait: the oldest are dropped", self._max_bytes)
        self._idle.clear()
        self._news.set()
        return event_id

    @contextmanager
    def call(self, server: str, tool: str, **fields: Any) -> Iterator[Call]:
        """Record the tool call that the block makes: its time, its duration, and how it ends.

        An exception that leaves the block makes it an error, a TimeoutError a timeout, a cancellation cancelled.
        """
        call = Call(None, None, None, fields)
        at, began = datetime.now(UTC), time.monotonic_ns()
        try:
            yield call
        except BaseException as error:
            if call.status is None:
                call.status = _status_of(error)
                call.error_type = call.error_type or type(error).__name__
                call.error_message = call.error_message or str(error)[:MESSAGE_CHARS] or None
            raise
        finally:
            self.record(
                ToolCall(
                    time=at,
                    server=server,
                    tool=tool,
                    status=call.status or "ok",
                    duration_ms=(time.monotonic_ns() - began) / 1e6,
                    error_type=call.error_type,
                    error_message=call.error_message,
                    **call.fields,
                )
            )

    async def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all that was recorded is acknowledged or refused; False if that takes longer than this."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    # The task that posts

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._news.wait()
            await self._pause(self._linger_s)
            self._news.clear()
            while self._under_way or self._waiting:
                self._take()
                outcome = await self._deliver(list(self._under_way))
                if outcome is not None:
                    failures += 1
                    await self._pause(pause_seconds(failures, outcome.retry_after_seconds), also_at_the_end=True)
                    continue
                failures = 0
            self._idle.set()

    def _take(self) -> None:
        """Fill the batch under way. After a failure it is the same again, plus what has come since."""
        size = sum(map(len, self._under_way))
        while self._waiting and len(self._under_way) < BATCH_MAX_EVENTS and size < BATCH_MAX_BYTES:
            self._under_way.append(self._waiting.popleft())
            size += len(self._under_way[-1])

    async def _deliver(self, lines: list[bytes]) -> Outcome | None:
        """Post some events, in pieces where they are too many; what stood in the way, if they are not through."""
        outcome = await self._post(lines)
        if outcome.verdict is Verdict.TAKEN:
            self.totals.acknowledged += len(lines) - outcome.rejected
            self._refused(outcome.rejected, outcome.reason)
        elif outcome.verdict is Verdict.SPLIT and len(lines) > 1:
            half = len(lines) // 2
            return await self._deliver(lines[:half]) or await self._deliver(lines[half:])
        elif outcome.verdict in (Verdict.SPLIT, Verdict.REFUSED):
            self._refused(len(lines), outcome.reason)
        else:
            if outcome.verdict is Verdict.HELD:
                self._say("held", "hubscope does not take events (%s); they wait", outcome.reason)
            return outcome
        # These are dealt with, whatever becomes of the pieces after them.
        self._bytes -= sum(map(len, lines))
        del self._under_way[: len(lines)]
        return None

    async def _post(self, lines: list[bytes]) -> Outcome:
        try:
            answer = await self._http.post(self._url, content=b"\n".join(lines) + b"\n", headers=self._headers)
        except httpx2.HTTPError as error:
            return Outcome(Verdict.LATER, type(error).__name__)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return judge(answer.status_code, headers, answer.content, len(lines))

    def _refused(self, count: int, reason: str) -> None:
        if count:
            self.totals.refused += count
            self._say("refused", "%d events were refused by hubscope and are dropped, the first: %s", count, reason)

    async def _pause(self, seconds: float, *, also_at_the_end: bool = False) -> None:
        if also_at_the_end and self._closing.is_set():
            await asyncio.sleep(seconds)
            return
        # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with what it waits for.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _say(self, about: str, sentence: str, *values: object) -> None:
        """One warning for each kind of trouble."""
        if about not in self._said:
            self._said.add(about)
            log.warning(sentence, *values)


def _status_of(error: BaseException) -> CallStatus:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return "timeout" if isinstance(error, TimeoutError) else "error"
