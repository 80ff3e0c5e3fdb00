"""Watching servers: which of them are ours to watch, when each is asked, and what its answer means.

One process of all replicas probes a server: the one whose lease stands in its row. A lease is renewed three times while
it lasts, so that a process that dies leaves its servers to another within HUBSCOPE_PROBE_LEASE, and what is written
under a lease that was lost meanwhile is dropped.

A probe is an MCP request on the long-lived session (`tools/list`, which also counts the tools; `ping` where there are
none), or a GET on the health check's path. Every probe and every change of a connection is one server_event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import msgspec
import structlog

from hubscope.delivery import pause_seconds
from hubscope.errors import HubscopeError
from hubscope.ids import uuid7
from hubscope.instruments import Instruments
from hubscope.model import ServerEvent
from hubscope.peers import health as machine
from hubscope.peers.contract import ToolInfo
from hubscope.peers.health import Health, Thresholds, Verdict
from hubscope.peers.http import Trouble
from hubscope.peers.registration import HealthCheck, Registration
from hubscope.peers.registry import QUERIES, Server, server_of
from hubscope.peers.sessions import Key, RpcError, Sessions
from hubscope.redact import redact_text
from hubscope.settings import Settings
from hubscope.store import AWAY_OR_TOLD, Pool, away, borrowed, db_errors

log = structlog.get_logger("hubscope.peers")

TURNS_PER_LEASE: Final = 3
RESTATED: Final = timedelta(microseconds=1)
"""How much later than the probe itself its restatement stands, so that the newest row of a moment is the right one."""
METHOD_NOT_FOUND: Final = -32601
TOOLS_MAX: Final = 10_000
"""Tools of one server that are looked at."""

Tell = Callable[[str, ServerEvent], None]
"""Takes an event of a tenant on its way."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found.

    Attributes:
        began: when it was begun.
        error: why the server did not answer; None if it did.
        tools: what it lists, if it was asked.
        starting: its process is still on its way to the first handshake, which has a limit of its own
            (HUBSCOPE_PEER_CONNECT_TIMEOUT): npx and uvx download first.
    """

    began: datetime
    latency_ms: float
    error: Trouble | None = None
    tools: list[ToolInfo] | None = None
    starting: bool = False

    def verdict(self, check: HealthCheck) -> Verdict:
        """What it counts as."""
        if self.error is not None:
            return "failed"
        return "slow" if self.latency_ms > check.slow_s * 1000 else "ok"


@dataclass(slots=True)
class _Watched:
    """A server whose lease we hold. `due` and `again`: when to probe it next, and soon, on the loop's clock."""

    server: Server
    registration: Registration
    health: Health
    due: float
    lease_until: float
    probing: asyncio.Task[None] | None = None
    connected: bool = False
    paused_until: datetime | None = None
    again: float = 0.0
    failures: int = 0


class Prober:
    """Probes the servers whose leases this process holds.

    Args:
        pool: under the writer role.
        sessions: of this process; a probe uses the one that calls use.
        opened: the registration of a row with its secrets (or the one of the operator's file).
        of_file: tenants and ids of the operator's file.
        tell: takes events on their way.
        learn: takes the tools that a probe saw.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        sessions: Sessions,
        instruments: Instruments,
        *,
        defaults: HealthCheck,
        opened: Callable[[Server], Registration],
        of_file: Callable[[], list[Key]],
        tell: Tell,
        learn: Callable[[Key, list[ToolInfo]], None] = lambda _key, _tools: None,
    ) -> None:
        self.holder = uuid4()
        self._settings = settings
        self._pool = pool
        self._sessions = sessions
        self._instruments = instruments
        self._defaults = defaults
        self._opened = opened
        self._of_file = of_file
        self._tell = tell
        self._learn = learn
        self._watched: dict[Key, _Watched] = {}
        self._free = asyncio.Semaphore(settings.probe_concurrency)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._away = False
        self._changed = True
        self._background: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="prober")

    def wake(self) -> None:
        """The registry has changed: look at once."""
        self._changed = True
        self._wake.set()

    @property
    def watched(self) -> list[Key]:
        """The servers whose leases we hold."""
        return sorted(self._watched)

    async def close(self) -> None:
        """Stop probing and let others take over at once."""
        tasks = [one.probing for one in self._watched.values() if one.probing is not None]
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._task is not None:
            with contextlib.suppress(*AWAY_OR_TOLD, HubscopeError, db_errors.PostgresError):
                async with borrowed(self._pool, self._settings) as connection:
                    await connection.execute(QUERIES["release_leases"], self.holder)

    def ended(self, key: Key, trouble: Trouble) -> None:
        """A session ended without us. The end of a process is proof; that of a connection is reason to look."""
        one = self._watched.get(key)
        if one is None or one.paused_until is not None:
            return
        one.connected = False
        at = datetime.now(UTC)
        if trouble.error_type == "transport_closed":
            step = machine.seen(one.health, "dead", at, self._thresholds(one))
            self._moved(one, step.health)
            self._put(one, at, "connection", "transport_closed", trouble=trouble)
            self._keep_soon(one, Finding(at, 0.0, trouble))
        else:
            self._put(one, at, "connection", trouble.error_type, trouble=trouble)
        # Look again soon, but do not start a server over and over that ends each time.
        one.failures += 1
        one.again = asyncio.get_running_loop().time() + pause_seconds(one.failures, None)
        one.due = min(one.due, one.again)
        self._wake.set()

    # The loop

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        turn_s = self._settings.probe_lease_ms / 1000 / TURNS_PER_LEASE
        next_turn = 0.0
        while True:
            self._wake.clear()
            if self._changed or loop.time() >= next_turn:
                self._changed = False
                next_turn = loop.time() + turn_s
                await self._take_leases()
            now = loop.time()
            for one in self._watched.values():
                if one.probing is None and one.paused_until is None and now >= one.due:
                    one.probing = asyncio.create_task(self._probe(one), name=f"probe {one.server.key[1]}")
            due = [one.due for one in self._watched.values() if one.probing is None and one.paused_until is None]
            pause = max(0.0, min([next_turn, *due]) - loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _take_leases(self) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        files = self._of_file()
        try:
            async with borrowed(self._pool, self._settings) as connection:
                rows = await connection.fetch(
                    QUERIES["hold_leases"],
                    self.holder,
                    self._settings.probe_lease_ms,
                    [tenant for tenant, _ in files],
                    [server_id for _, server_id in files],
                )
        except (*AWAY_OR_TOLD, HubscopeError, db_errors.PostgresError) as error:
            if not self._away:
                self._away = True
                log.warning("servers cannot be watched", error=away(error).detail)
            # Without the database nobody can tell whose servers these are: go on as long as the leases last.
            for key in [key for key, one in self._watched.items() if one.lease_until < loop.time()]:
                self._lose(key)
            return
        self._away = False
        until = asked + self._settings.probe_lease_ms / 1000
        held: set[Key] = set()
        for row in rows:
            held.add((row["tenant_id"], row["server_id"]))
            try:
                self._hold(server_of(row, self._defaults), until)
            except HubscopeError as error:
                log.error("a server cannot be watched", server=row["server_id"], error=error.detail)
            except Exception:  # one row's surprise must not end the watch over the others
                log.exception("a server cannot be watched", server=row["server_id"])
        for key in self._watched.keys() - held:
            self._lose(key)
        self._instruments.peers_watched.set(len(self._watched))

    def _hold(self, server: Server, until: float) -> None:
        one = self._watched.get(server.key)
        now = asyncio.get_running_loop().time()
        if one is None:
            one = self._watched[server.key] = _Watched(server, self._opened(server), server.health, now, until)
            # Many servers at once, after a start or a takeover, are not asked all in one moment.
            if server.checked_at is not None:
                one.due += random.random() * min(1.0, server.registration.health_check.interval_s / 10)
        elif one.server.updated_at != server.updated_at or one.server.sealed != server.sealed:
            one.registration = self._opened(server)
        one.server, one.lease_until = server, until
        window = server.maintenance_until
        if window == one.paused_until:
            return
        at = datetime.now(UTC)
        if window is not None:
            if one.probing is not None:
                one.probing.cancel()
            self._moved(one, machine.paused(one.health, at))
            self._put(one, at, "probe", "maintenance", holds_until=window)
            self._keep_soon(one, None, until=window)
        else:
            self._moved(one, machine.resumed(one.health, at))
            self._put(one, at, "probe", "maintenance_over", holds_until=at)
            one.due = now
        one.paused_until = window

    def _lose(self, key: Key) -> None:
        one = self._watched.pop(key)
        if one.probing is not None:
            one.probing.cancel()

    # One probe

    async def _probe(self, one: _Watched) -> None:
        check = one.registration.health_check
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with self._free:
                begun = loop.time()
                finding = await probe(one.server.key, one.registration, self._sessions)
            if finding.starting:
                self._put(one, finding.began, "probe", "starting")
                return
            self._instruments.peer_probes.labels("ok" if finding.error is None else "failed").inc()
            step = machine.seen(one.health, finding.verdict(check), finding.began, self._thresholds(one))
            self._moved(one, step.health)
            if finding.error is None:
                one.failures = 0
                if not one.connected:
                    one.connected = True
                    self._put(one, finding.began, "connection", "connected")
            for at in step.restated:
                self._put(one, at + RESTATED, "probe", "restated", trouble=finding.error)
            self._put(
                one,
                finding.began,
                "probe",
                finding.error.error_type if finding.error is not None else finding.verdict(check),
                trouble=finding.error,
                latency_ms=finding.latency_ms if finding.error is None else None,
                tools=len(finding.tools) if finding.tools is not None else None,
            )
            if finding.tools is not None:
                self._learn(one.server.key, finding.tools)
            self._start_over(one, finding)
            await self._keep(one, finding, machine.valid_until(finding.began, check.interval_s))
        except asyncio.CancelledError:
            raise
        except Exception:  # one server's surprise must not end the watch over the others
            log.exception("a probe failed", server=one.server.key[1])
        finally:
            one.probing = None
            one.due = begun + check.interval_s
            if one.again > begun:
                one.due = min(one.due, one.again)
            self._wake.set()

    def _start_over(self, one: _Watched, finding: Finding) -> None:
        """A server that is down and still connected hangs: the next probe begins with a new session, unless calls are
        under way, which are not ours to end."""
        session = self._sessions.peek(one.server.key)
        if one.health.state == "down" and session is not None and finding.error is not None and not session.in_flight:
            self._sessions.drop(one.server.key)
            one.connected = False

    def _thresholds(self, one: _Watched) -> Thresholds:
        check = one.registration.health_check
        return Thresholds(check.healthy_threshold, check.unhealthy_threshold)

    def _moved(self, one: _Watched, health: Health) -> None:
        if health.state != one.health.state:
            log.info(
                "server state",
                tenant=one.server.tenant,
                server=one.server.key[1],
                before=one.health.state,
                state=health.state,
                since=health.since.isoformat() if health.since else None,
            )
        one.health = health

    # What is told, and what is kept

    def _put(
        self,
        one: _Watched,
        at: datetime,
        source: Any,
        outcome: str,
        *,
        trouble: Trouble | None = None,
        latency_ms: float | None = None,
        tools: int | None = None,
        holds_until: datetime | None = None,
    ) -> None:
        check = one.registration.health_check
        since = one.health.since
        attrs = {"since": since.isoformat()} if since is not None else {}
        self._tell(
            one.server.tenant,
            ServerEvent(
                time=at,
                event_id=uuid7(),
                server=one.server.key[1],
                source=source,
                outcome=outcome,
                state=one.health.state,
                valid_until=holds_until or machine.valid_until(at, check.interval_s),
                latency_ms=latency_ms,
                transport=one.registration.transport,
                tools=tools,
                error_type=trouble.error_type if trouble is not None else None,
                error_message=trouble.message if trouble is not None else None,
                attrs=msgspec.Raw(msgspec.json.encode(attrs)),
            ),
        )

    def _keep_soon(self, one: _Watched, finding: Finding | None, *, until: datetime | None = None) -> None:
        at = finding.began if finding is not None else datetime.now(UTC)
        holds = until or machine.valid_until(at, one.registration.health_check.interval_s)
        task = asyncio.create_task(self._keep(one, finding, holds))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _keep(self, one: _Watched, finding: Finding | None, until: datetime) -> None:
        """The newest state into the server's row. Events are the history; this is for those who ask how it is now."""
        error = finding.error if finding is not None else None
        try:
            async with borrowed(self._pool, self._settings) as connection:
                await connection.fetchval(
                    QUERIES["record_health"],
                    self.holder,
                    one.server.tenant,
                    one.server.key[1],
                    one.health.state,
                    one.health.since,
                    finding.began if finding is not None else one.server.checked_at,
                    until,
                    finding.latency_ms if finding is not None and error is None else None,
                    error.error_type if error is not None else None,
                    redact_text(error.message)[:1000] if error is not None else None,
                    json.dumps(machine.as_json(one.health)),
                )
        except (*AWAY_OR_TOLD, HubscopeError, db_errors.PostgresError) as problem:
            log.warning("a server's state could not be kept", server=one.server.key[1], error=away(problem).detail)


async def probe(key: Key, registration: Registration, sessions: Sessions) -> Finding:
    """Ask a server once, within its health check's timeout. Never raises for what is the server's fault."""
    check = registration.health_check
    began, started = datetime.now(UTC), time.perf_counter()
    tools: list[ToolInfo] | None = None
    error: Trouble | None = None
    try:
        async with asyncio.timeout(check.timeout_s):
            url = registration.health_url
            if url is not None:
                status = await sessions.status(registration, url)
                if not 200 <= status < 300:
                    error = Trouble("http_status", f"{check.path} answers with status {status}", True, status)
            else:
                session = await sessions.get(key, registration, eager=True)
                started = time.perf_counter()  # connecting is not what the server takes to answer
                if session.offers_tools:
                    tools = await list_tools(key, registration, sessions, most=1)
                else:
                    await sessions.request(key, registration, "ping", None)
    except TimeoutError:
        if registration.command is not None and sessions.opening(key):
            return Finding(began, 0.0, starting=True)
        error = Trouble("timeout", f"no answer within {check.timeout_s:g} s", sent=True)
    except Trouble as trouble:
        error = trouble
    except RpcError as answer:
        if answer.code != METHOD_NOT_FOUND:  # a server without ping has answered, too
            error = Trouble("rpc_error", f"the server answers with error {answer.code}: {answer.message[:300]}", True)
    return Finding(began, (time.perf_counter() - started) * 1000, error, tools)


async def list_tools(key: Key, registration: Registration, sessions: Sessions, *, most: int = 100) -> list[ToolInfo]:
    """The tools of a server, of at most so many pages.

    Raises:
        Trouble, RpcError.
    """
    found: list[ToolInfo] = []
    cursor: str | None = None
    for _ in range(most):
        params = {"cursor": cursor} if cursor is not None else None
        answer = await sessions.request(key, registration, "tools/list", params)
        for tool in answer.get("tools") or ():
            if isinstance(tool, dict) and isinstance(tool.get("name"), str):
                found.append(
                    ToolInfo(
                        tool["name"],
                        str(tool.get("description") or ""),
                        tool.get("annotations") or {},
                        tool.get("inputSchema") or {},
                    )
                )
        cursor = answer.get("nextCursor")
        if not isinstance(cursor, str) or len(found) >= TOOLS_MAX:
            break
    return found
