"""The demo's hub: real MCP servers, real tool calls, every one recorded in hubscope and in a ledger of its own.

`demo_hub` runs it: first a `burst` of calls, then `ask` for the answer, then a `trickle` for as long as one likes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from hubscope.entrypoints.demo_places import Places, make_places
from hubscope.entrypoints.demo_poster import EventPoster, bearer
from hubscope.entrypoints.demo_servers import CLIENT, HUB, DemoFailed, DemoServer, first_cause, shipped_specs
from hubscope.entrypoints.demo_traffic import SEED, Step, a_step, judge, plan
from hubscope.ids import uuid7
from hubscope.model import CallStatus, ToolCall

NEEDED: Final = ("time", "fetch")
CALLS_AT_ONCE: Final = 4
CALL_TIMEOUT_SECONDS: Final = 15.0
STOPPED_TIMEOUT_SECONDS: Final = 0.5
TRICKLE_PAUSE_SECONDS: Final = 1.0
TRICKLE_STOPS_EVERY: Final = 45
ANSWER_TIMEOUT_SECONDS: Final = 60.0
QUESTION: Final[dict[str, Any]] = {"timeRange": "1 hour", "groupBy": "minute", "format": "detailed"}


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call as the demo itself saw it."""

    server: str
    tool: str
    status: CallStatus
    duration_ms: float


@dataclass(slots=True)
class Ledger:
    """What was really done: the count that hubscope's answers are held against."""

    calls: list[CallRecord] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """`calls`, and counts of calls `by_status`, `by_server` and `by_tool` (`server/tool`)."""
        return {
            "calls": len(self.calls),
            "by_status": dict(Counter(call.status for call in self.calls)),
            "by_server": dict(Counter(call.server for call in self.calls)),
            "by_tool": dict(Counter(f"{call.server}/{call.tool}" for call in self.calls)),
        }


class DemoHub:
    """The running servers and what is called on them. Made by `demo_hub`."""

    def __init__(
        self,
        servers: Collection[DemoServer],
        poster: EventPoster,
        places: Places,
        progress: Callable[[int, int], None],
    ) -> None:
        self.ledger = Ledger()
        self._servers = {server.name: server for server in servers}
        self._poster = poster
        self._places = places
        self._progress = progress

    @property
    def servers(self) -> list[dict[str, Any]]:
        """Every server that was tried: `name`, `transport`, `state` (up or down) and the number of its `tools`."""
        return [
            {"name": server.name, "transport": "stdio", "state": server.state, "tools": server.tools}
            for server in self._servers.values()
        ]

    async def burst(self, calls: int = 240) -> None:
        """Make exactly `calls` calls, up to four at once per server, and return when all are acknowledged.

        Progress is told as (done, calls). A server that goes away takes the rest of its calls with it.

        Raises:
            DemoFailed: no server is up, or the service did not take an event.
        """
        steps = plan(self._up(), calls, self._places)
        done = count(1)

        async def make(step: Step) -> None:
            await self._make(step)
            self._progress(next(done), calls)

        async def work(steady: Iterator[Step]) -> None:
            for step in steady:
                await make(step)

        async def play(planned: list[Step]) -> None:
            steady = iter([step for step in planned if not step.while_stopped])
            async with asyncio.TaskGroup() as workers:
                for _ in range(CALLS_AT_ONCE):
                    workers.create_task(work(steady))
            # A server that stands still answers nobody, so its other calls come first.
            for step in planned:
                if step.while_stopped:
                    await make(step)

        async with asyncio.TaskGroup() as group:
            for planned in steps.values():
                group.create_task(play(planned))
        await self.flush()

    async def trickle(self, stop: asyncio.Event) -> None:
        """About one call a second on one server or another, now and then a failing one, until `stop` is set.

        Raises:
            DemoFailed: no server is left, or the service did not take an event.
        """
        rng = Random(SEED + 1)
        for n in count(1):
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TRICKLE_PAUSE_SECONDS)
            if stop.is_set():
                break
            self._poster.check()
            stopped = n % TRICKLE_STOPS_EVERY == 0
            await self._make(a_step(rng.choice(self._up()), n, rng, self._places, stopped=stopped))
        await self.flush()

    async def flush(self) -> None:
        """Return when every call made so far is committed in the service.

        Raises:
            DemoFailed: the service rejected an event, or did not acknowledge it in time.
        """
        await self._poster.flush()

    def _up(self) -> list[str]:
        names = [name for name, server in self._servers.items() if server.state == "up"]
        if not names:
            raise DemoFailed("every server of the demo has gone away")
        return names

    async def _make(self, step: Step) -> None:
        """Make one call and record it, whatever becomes of it; a server that is gone is not called."""
        server = self._servers[step.server]
        if server.state != "up":
            return
        timeout_seconds = STOPPED_TIMEOUT_SECONDS if step.while_stopped else CALL_TIMEOUT_SECONDS
        at, clock = datetime.now(UTC), time.perf_counter()
        try:
            with server.stopped() if step.while_stopped else nullcontext():
                outcome: Any = await server.call(step.tool, step.arguments, timeout_seconds)
        except (Exception, asyncio.CancelledError) as error:
            outcome = error
        self._record(server, step, outcome, at, (time.perf_counter() - clock) * 1000)
        if isinstance(outcome, asyncio.CancelledError):
            raise outcome

    def _record(self, server: DemoServer, step: Step, outcome: Any, at: datetime, duration_ms: float) -> None:
        verdict = judge(outcome)
        self.ledger.calls.append(CallRecord(step.server, step.tool, verdict.status, duration_ms))
        self._poster.put(
            ToolCall(
                event_id=uuid7(),
                time=at,
                hub=HUB,
                server=step.server,
                tool=step.tool,
                status=verdict.status,
                duration_ms=duration_ms,
                error_type=verdict.error_type,
                error_message=verdict.error_message,
                session_id=server.session_id,
                client=CLIENT,
                transport="stdio",
                request_bytes=len(json.dumps(step.arguments).encode()),
                response_bytes=verdict.response_bytes,
            )
        )


@asynccontextmanager
async def demo_hub(
    service_url: str,
    workdir: Path,
    tell: Callable[[str], None],
    progress: Callable[[int, int], None],
    key: str | None = None,
) -> AsyncIterator[DemoHub]:
    """Start the servers of the shipped declaration; on the way out stop them all, then flush what they did.

    Args:
        service_url: where the service answers, such as http://127.0.0.1:3401. It must outlive the block.
        workdir: an empty folder for what the servers work on and for their logs.
        tell: gets one line per server that is connected, left out, failed or gone.
        progress: gets (done, total) after each call of a burst.
        key: an API key for the service, where it wants one.

    Raises:
        DemoFailed: `time` or `fetch` could not start, or the service did not take an event.
    """
    service_url = service_url.rstrip("/")
    places = await asyncio.to_thread(make_places, workdir, service_url)
    spawning = asyncio.Lock()
    servers = []
    async with EventPoster(service_url, key) as poster:
        for spec in shipped_specs(places.files.parent, service_url):
            if missing := spec.missing():
                tell(f"{spec.name}: left out, it needs {' and '.join(missing)}")
            else:
                servers.append(DemoServer(spec, workdir / f"{spec.name}.log", spawning, poster.put, tell))
        # Not a TaskGroup: it would cancel these tasks, and a client that is cancelled while it closes loses its server.
        tasks = [asyncio.create_task(server.run(), name=f"demo-{server.name}") for server in servers]
        try:
            for server in servers:
                await server.ready.wait()
            down = [server.name for server in servers if server.name in NEEDED and server.state != "up"]
            if down:
                raise DemoFailed(f"the demo needs the MCP servers {' and '.join(NEEDED)}; see {', '.join(down)} above")
            yield DemoHub(servers, poster, places, progress)
        finally:
            for server in servers:
                server.stop()
            await _all_of(tasks)


async def _all_of(tasks: Collection[asyncio.Task[None]]) -> None:
    """Wait for all tasks, however often this one is cancelled meanwhile. A server closes in at most about 7 s."""
    cancelled: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def ask(service_url: str, key: str | None = None, **arguments: Any) -> tuple[dict[str, Any], str]:
    """The answer of `hub__analytics_advanced`, asked for by a real MCP client: (structured content, markdown).

    `arguments` go over the demo's question: the last hour by minute, in detail.

    Raises:
        DemoFailed: the service could not be reached, or the tool answered with an error.
    """
    # The service is on this machine: a proxy from the environment would only be in the way.
    try:
        async with httpx2.AsyncClient(trust_env=False, timeout=ANSWER_TIMEOUT_SECONDS, headers=bearer(key)) as http:
            url = f"{service_url.rstrip('/')}/mcp"
            async with Client(streamable_http_client(url, http_client=http)) as client:
                result = await client.call_tool(
                    "hub__analytics_advanced", QUESTION | arguments, read_timeout_seconds=ANSWER_TIMEOUT_SECONDS
                )
    except Exception as error:
        raise DemoFailed(f"hub__analytics_advanced could not be called: {first_cause(error)}") from error
    text = next((part.text for part in result.content if isinstance(part, TextContent)), "")
    if result.is_error or not isinstance(result.structured_content, dict):
        raise DemoFailed(f"hub__analytics_advanced answered with an error: {text[:500]}")
    return result.structured_content, text
