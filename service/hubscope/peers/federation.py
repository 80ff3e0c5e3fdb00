"""The MCP servers of the hub, whole: what the other rooms call, and what the federation API asks for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
import structlog

from hubscope.access import Principal, Vault, vault_of
from hubscope.access import Scope as Right
from hubscope.errors import (
    HubscopeError,
    InvalidParameter,
    UnknownServer,
    UnknownTool,
    UpstreamFailed,
    UpstreamTimeout,
)
from hubscope.ids import uuid7
from hubscope.instruments import Instruments
from hubscope.model import CallStatus, HubEvent, ServerEvent, ToolCall
from hubscope.peers import registry
from hubscope.peers.config import Configured, read
from hubscope.peers.contract import CallResult, Progress, ToolInfo
from hubscope.peers.guard import GuardedBackend, check_endpoint, networks_of
from hubscope.peers.http import Trouble
from hubscope.peers.invocation import METHODS, Answer, Invocation
from hubscope.peers.outbox import Outbox, Record
from hubscope.peers.prober import Prober, list_tools, probe
from hubscope.peers.registration import HealthCheck, Registration, registration
from hubscope.peers.registry import Server, Window, opened
from hubscope.peers.sessions import Key, RpcError, Sessions
from hubscope.settings import Settings
from hubscope.store import AWAY_OR_TOLD, Pool, away, borrowed, db_errors

log = structlog.get_logger("hubscope.peers")

TOOLS_KEPT_S: Final = 60.0
"""How long what a server lists is believed; a server may say earlier that it has changed."""
ROW_KEPT_S: Final = 1.0
"""How long a row is believed: another replica may have deleted the server."""
ROWS_KEPT: Final = 10_000
FILE_RETRY_S: Final = 5.0
HOUSEKEEPING_S: Final = 5.0
NAMES_MAX: Final = 50
NAME_CHARS: Final = 200
"""How many names an event holds, and how much of each: a server may offer what it likes."""
COMPLETE: Final = "complete"


@dataclass(slots=True)
class Counts:
    """What this process did for one tenant."""

    total: int = 0
    failed: int = 0
    seconds: float = 0.0
    checks: int = 0
    checks_failed: int = 0


class Federation:
    """Registered servers and those of the operator's file: called, watched, recorded. The `Peers` of this process.

    Args:
        settings: limits, the operator's file.
        pool: under the writer role, its own: nothing of ingest waits for it.
        record: commits events in somebody's name.
        instruments: of this process.

    Raises:
        InvalidSetting: the operator's file or the networks will not do.
    """

    def __init__(self, settings: Settings, pool: Pool, record: Record, instruments: Instruments) -> None:
        self._settings = settings
        self._pool = pool
        self._instruments = instruments
        self._networks = networks_of(settings.peer_networks)
        self.defaults = HealthCheck(
            interval_s=settings.probe_interval_ms / 1000,
            timeout_s=min(settings.probe_timeout_ms, settings.probe_interval_ms) / 1000,
            slow_s=settings.probe_slow_ms / 1000,
        )
        configured = read(settings.servers_file, self.defaults) if settings.servers_file is not None else []
        self._file: dict[Key, Configured] = {(one.tenant, one.registration.id): one for one in configured}
        self._outbox = Outbox(record, instruments)
        self._sessions = Sessions(settings, GuardedBackend(self._networks), lambda key, why: self._ended(key, why))
        self._turns = asyncio.Semaphore(settings.peer_max_calls)
        self._rows: dict[Key, tuple[float, Server]] = {}
        self._tools: dict[Key, tuple[float, list[ToolInfo]]] = {}
        self._offered: dict[Key, frozenset[str]] = {}
        self._counts: dict[str, Counts] = {}
        self._vault: Vault | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.prober = Prober(
            settings,
            pool,
            self._sessions,
            instruments,
            defaults=self.defaults,
            opened=self._opened,
            of_file=lambda: list(self._file),
            tell=self._tell,
            learn=self._probed,
        )

    async def start(self) -> None:
        """Begin to watch. The database may be away."""
        self._outbox.start()
        self._tasks.append(asyncio.create_task(self._put_file(), name="servers of the file"))
        self._tasks.append(asyncio.create_task(self._keep_house(), name="sessions"))
        if self._settings.enable_probes:
            self.prober.start()

    async def close(self, timeout_s: float) -> None:
        """End sessions, hand the watch over, record what waits; in bounded time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(self.prober.close(), self._sessions.close())
        self._sessions.kill()
        await self._outbox.close(max(0.1, deadline - time.monotonic()))

    async def flushed(self) -> None:
        """Wait until everything that happened is recorded."""
        await self._outbox.flushed()

    # For the other rooms

    async def call(
        self,
        principal: Principal,
        server: str,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float,
        chain_id: str | None = None,
        step_index: int | None = None,
        progress: Progress | None = None,
    ) -> CallResult:
        """Call a tool, and record the call; see `Peers.call`."""
        one = await self._registered(principal, server)
        try:
            result, took_ms = await self._call(
                principal, one, tool, arguments, timeout_s, progress, chain_id=chain_id, step_index=step_index
            )
        except RpcError as error:
            if not await self._has_tool(one, tool, timeout_s):
                raise UnknownTool(f"the server {server!r} has no tool {tool[:200]!r}") from None
            raise UpstreamFailed(
                f"{server}: the server answers with error {error.code}: {error.message[:500]}",
                sent=True,
                error_type=str(error.code),
            ) from None
        failed = result.get("isError") is True
        if failed and not await self._has_tool(one, tool, timeout_s):  # servers of older SDKs say it this way
            raise UnknownTool(f"the server {server!r} has no tool {tool[:200]!r}")
        content = result.get("content")
        blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
        return CallResult(
            failed,
            blocks,
            result.get("structuredContent"),
            took_ms,
            "tool_error" if failed else None,
            _first_text(blocks) if failed else None,
        )

    async def tools(self, principal: Principal, server: str) -> list[ToolInfo]:
        """The tools of a server; see `Peers.tools`."""
        one = await self._registered(principal, server)
        return await self._tools_of(one, self._settings.peer_timeout_ms / 1000)

    # The federation API

    async def invoke(self, principal: Principal, server: str, request: Invocation) -> Answer:
        """Send an MCP request to a server.

        Raises:
            UnknownServer, UpstreamTimeout, UpstreamFailed, Overloaded.
        """
        return await self._invoke(principal, await self._registered(principal, server), request)

    async def broadcast(self, principal: Principal, request: Invocation) -> list[Answer]:
        """Send an MCP request to every server of the tenant that is up or degraded, side by side.

        Raises:
            UpstreamFailed: there is none, or none of them answered.
        """
        servers = [one for one in await self.servers(principal) if one.state in ("up", "degraded")]
        if not servers:
            raise UpstreamFailed("no server of the tenant is known to be up", sent=False, error_type="no_server")

        async def one(server: Server) -> Answer:
            try:
                return await self._invoke(principal, server, request)
            except HubscopeError as error:
                failure = {"code": -32000, "message": error.detail, "data": {"code": error.code}}
                return Answer(request.id, server.registration.id, error=failure)

        answers = await asyncio.gather(*(one(server) for server in servers))
        if all(answer.error is not None for answer in answers):
            raise UpstreamFailed(
                f"none of {len(answers)} servers answered",
                sent=True,
                error_type="all_failed",
                responses=[answer.shown() for answer in answers],
            )
        return list(answers)

    async def servers(self, principal: Principal, *, category: str | None = None) -> list[Server]:
        """The servers of a tenant, by id."""
        async with self._connection() as connection:
            return await registry.select_servers(connection, principal.tenant, self.defaults, category=category)

    async def server(self, principal: Principal, server: str) -> Server:
        """One server.

        Raises:
            UnknownServer.
        """
        async with self._connection() as connection:
            return await registry.select_server(connection, principal.tenant, server, self.defaults)

    async def register(self, principal: Principal, body: Mapping[str, Any]) -> Server:
        """Register a server.

        Raises:
            InvalidParameter, ServerTaken, TooManyServers, NoEncryptionKey.
        """
        one = registration(body, self.defaults)
        await check_endpoint(one.endpoint, self._networks)
        if "token_url" in one.auth.config:
            await check_endpoint(one.auth.config["token_url"], self._networks, field="auth.config.token_url")
        async with self._connection() as connection:
            await registry.insert_server(
                connection,
                principal.tenant,
                one,
                most=self._settings.max_registrations,
                seal=lambda: self._the_vault(make=True),
            )
        self._audit(principal, "server_registered", server=one.id, protocol=one.protocol, auth=one.auth.type)
        self._forget((principal.tenant, one.id))
        self.prober.wake()
        return await self.server(principal, one.id)

    async def unregister(self, principal: Principal, server: str) -> None:
        """Take a server out.

        Raises:
            UnknownServer, ServerIsTheOperators.
        """
        async with self._connection() as connection:
            await registry.delete_server(connection, principal.tenant, server, self.defaults)
        self._audit(principal, "server_unregistered", server=server)
        key = (principal.tenant, server)
        self._forget(key)
        self._offered.pop(key, None)
        self._sessions.forget(key)
        self.prober.wake()

    async def health(self, principal: Principal, server: str) -> tuple[Server, str | None]:
        """How a server is now, and what is wrong with it. One that nobody watches is asked at once.

        Raises:
            UnknownServer.
        """
        one = await self.server(principal, server)
        if one.state != "unknown":
            return one, None if one.state in ("up", "maintenance") else one.error_message
        async with self._turns:
            finding = await probe(one.key, self._opened(one), self._sessions)
        if finding.starting:
            return one, "it is starting"
        counts = self._counts_of(principal.tenant)
        counts.checks += 1
        counts.checks_failed += finding.error is not None
        state: Literal["down", "up"] = "down" if finding.error is not None else "up"
        known = replace(one.health, state=state, since=finding.began)
        return (
            replace(one, health=known, checked_at=finding.began, latency_ms=finding.latency_ms),
            finding.error.message if finding.error is not None else None,
        )

    async def metrics(self, principal: Principal) -> dict[str, Any]:
        """What this process did for the tenant, in the federation API's words."""
        servers = await self.servers(principal)
        counts = self._counts_of(principal.tenant)
        return {
            "servers_registered": len(servers),
            "servers_active": sum(one.state in ("up", "degraded") for one in servers),
            "requests_total": counts.total,
            "requests_successful": counts.total - counts.failed,
            "requests_failed": counts.failed,
            "health_checks_total": counts.checks,
            "health_checks_failed": counts.checks_failed,
            "average_response_time_ms": round(counts.seconds * 1000 / counts.total, 3) if counts.total else 0,
        }

    async def plan_window(
        self, principal: Principal, server: str, *, starts_at: datetime, ends_at: datetime, reason: str
    ) -> UUID:
        """Plan a maintenance window.

        Raises:
            UnknownServer, InvalidParameter.
        """
        async with self._connection() as connection:
            window_id = await registry.insert_window(
                connection,
                principal.tenant,
                server,
                starts_at=starts_at,
                ends_at=ends_at,
                reason=reason,
                source="api",
                defaults=self.defaults,
            )
        self._outbox.put(principal, registry.window_planned(server, window_id, starts_at, ends_at, reason, "api"))
        self._forget((principal.tenant, server))
        self.prober.wake()
        return window_id

    async def cancel_window(self, principal: Principal, server: str, window_id: UUID) -> None:
        """End a maintenance window, or call it off.

        Raises:
            UnknownWindow.
        """
        async with self._connection() as connection:
            await registry.cancel_window(connection, principal.tenant, server, window_id)
        self._outbox.put(principal, registry.window_cancelled(server, window_id, "api"))
        self._forget((principal.tenant, server))
        self.prober.wake()

    async def windows(self, principal: Principal, server: str | None, *, every: bool) -> list[Window]:
        """The maintenance windows of a tenant."""
        async with self._connection() as connection:
            return await registry.select_windows(connection, principal.tenant, server, every=every)

    # Requests

    async def _invoke(self, principal: Principal, one: Server, request: Invocation) -> Answer:
        timeout_s = request.timeout_s or self._settings.peer_timeout_ms / 1000
        method, params = request.method, request.params
        started = time.perf_counter()
        try:
            if method == "tools/call" or method not in METHODS:
                name = params.get("name") if method == "tools/call" else method
                arguments = params.get("arguments") or {} if method == "tools/call" else params
                if not isinstance(name, str) or not isinstance(arguments, Mapping):
                    raise InvalidParameter("params: tools/call needs a name (a text) and arguments (an object)")
                result, took_ms = await self._call(principal, one, name, arguments, timeout_s, None)
            else:
                result, took_ms = await self._ask(principal, one, method, params, timeout_s)
        except RpcError as error:
            failure = {"code": error.code, "message": error.message}
            if error.data is not None:
                failure["data"] = error.data
            took_ms = (time.perf_counter() - started) * 1000
            return Answer(request.id, one.registration.id, error=failure, duration_ms=took_ms)
        return Answer(request.id, one.registration.id, result=result, duration_ms=took_ms)

    async def _call(
        self,
        principal: Principal,
        one: Server,
        tool: str,
        arguments: Mapping[str, Any],
        timeout_s: float,
        progress: Progress | None,
        *,
        chain_id: str | None = None,
        step_index: int | None = None,
    ) -> tuple[dict[str, Any], float]:
        """One tools/call: its raw result and how long it took. Recorded, whatever becomes of it."""
        if not 1 <= len(tool) <= 200 or "\0" in tool:
            raise InvalidParameter("the name of a tool has 1 to 200 characters")
        params = {"name": tool, "arguments": dict(arguments)}
        status: CallStatus = "error"
        error_type: str | None = None
        message: str | None = None
        result: dict[str, Any] | None = None
        at, started = datetime.now(UTC), time.perf_counter()
        try:
            result = await self._request(one, "tools/call", params, timeout_s, progress)
            blocks = result.get("content")
            if result.get("resultType", COMPLETE) != COMPLETE:
                result = None
                raise Trouble("input_required", "the tool asks for input, which nobody here can give", sent=True)
            if result.get("isError") is True:
                error_type = "tool_error"
                message = _first_text(blocks if isinstance(blocks, list) else [])
            else:
                status = "ok"
        except RpcError as error:
            error_type, message = str(error.code), error.message
            raise
        except Trouble as trouble:
            error_type, message = trouble.error_type, trouble.message
            raise self._failed(one, trouble) from None
        except UpstreamTimeout as error:
            status, error_type, message = "timeout", "timeout", error.detail
            raise
        except UpstreamFailed as error:
            error_type, message = error.error_type, error.detail
            raise
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        except HubscopeError as error:
            status, error_type, message = "denied", error.code, error.detail
            raise
        finally:
            took_ms = (time.perf_counter() - started) * 1000
            self._count(principal.tenant, took_ms, failed=status != "ok")
            if self._settings.enable_auto_persistence:
                self._outbox.put(
                    principal,
                    ToolCall(
                        time=at,
                        event_id=uuid7(),
                        server=one.registration.id,
                        tool=tool,
                        status=status,
                        duration_ms=took_ms,
                        error_type=error_type,
                        error_message=message[:8_000].replace("\0", "") if message is not None else None,
                        client="hubscope",
                        transport=one.registration.transport,
                        chain_id=chain_id,
                        step_index=step_index,
                        request_bytes=_size(params["arguments"]),
                        response_bytes=_size(result) if result is not None else None,
                        vantage="own",
                    ),
                )
        return result, took_ms

    async def _ask(
        self, principal: Principal, one: Server, method: str, params: Mapping[str, Any], timeout_s: float
    ) -> tuple[dict[str, Any], float]:
        """One MCP request that calls no tool. Recorded as a hub event."""
        at, started = datetime.now(UTC), time.perf_counter()
        status = "error"
        try:
            result = await self._request(one, method, params, timeout_s, None)
            status = "ok"
        except Trouble as trouble:
            raise self._failed(one, trouble) from None
        finally:
            took_ms = (time.perf_counter() - started) * 1000
            self._count(principal.tenant, took_ms, failed=status != "ok")
            if self._settings.enable_auto_persistence:
                payload = {"server": one.registration.id, "method": method, "status": status, "duration_ms": took_ms}
                self._outbox.put(
                    principal,
                    HubEvent(
                        time=at,
                        event_id=uuid7(),
                        name="mcp_request",
                        payload=msgspec.Raw(msgspec.json.encode(payload)),
                    ),
                )
        return result, took_ms

    async def _request(
        self, one: Server, method: str, params: Mapping[str, Any], timeout_s: float, progress: Progress | None
    ) -> dict[str, Any]:
        """A request in its turn, within its time.

        Raises:
            RpcError, Trouble, UpstreamTimeout, Overloaded, CannotUnseal.
        """
        sent = False
        try:
            async with asyncio.timeout(timeout_s):
                async with self._turns:
                    ready = self._opened(one)
                    await self._sessions.get(one.key, ready)
                    sent = True
                    return await self._sessions.request(one.key, ready, method, params, progress=progress)
        except TimeoutError:
            raise UpstreamTimeout(
                f"{one.registration.id}: no answer to {method} within {timeout_s:g} s",
                sent=sent,
                error_type="timeout",
                server_id=one.registration.id,
            ) from None
        except Trouble as trouble:
            if trouble.error_type in ("timeout", "connect_timeout"):
                raise UpstreamTimeout(
                    f"{one.registration.id}: {trouble.message}",
                    sent=trouble.sent,
                    error_type="timeout",
                    server_id=one.registration.id,
                ) from None
            raise

    @staticmethod
    def _failed(one: Server, trouble: Trouble) -> UpstreamFailed:
        return UpstreamFailed(
            f"{one.registration.id}: {trouble.message}",
            sent=trouble.sent,
            error_type=trouble.error_type,
            server_id=one.registration.id,
            reason=trouble.error_type,
        )

    async def _tools_of(self, one: Server, timeout_s: float) -> list[ToolInfo]:
        kept = self._tools.get(one.key)
        session = self._sessions.peek(one.key)
        if kept is not None and time.monotonic() - kept[0] < TOOLS_KEPT_S and not (session and session.lists_changed):
            return kept[1]
        if session is not None:
            session.lists_changed = False
        try:
            async with asyncio.timeout(timeout_s), self._turns:
                found = await list_tools(one.key, self._opened(one), self._sessions)
        except TimeoutError:
            raise UpstreamTimeout(
                f"{one.registration.id}: it does not list its tools within {timeout_s:g} s", sent=True
            ) from None
        except Trouble as trouble:
            raise self._failed(one, trouble) from None
        except RpcError as error:
            raise UpstreamFailed(
                f"{one.registration.id}: it does not list its tools: {error.message[:500]}", sent=True
            ) from None
        self._learn(one.key, found)
        return found

    async def _has_tool(self, one: Server, tool: str, timeout_s: float) -> bool:
        """Whether a server lists a tool; one that cannot be asked is believed to."""
        try:
            if any(info.name == tool for info in await self._tools_of(one, timeout_s)):
                return True
            self._tools.pop(one.key, None)  # it may be newer than what we know
            return any(info.name == tool for info in await self._tools_of(one, timeout_s))
        except HubscopeError:
            return True

    # Rows, secrets, events

    async def _registered(self, principal: Principal, server: str) -> Server:
        """A server of the principal's tenant, from memory if it was read just now.

        Raises:
            UnknownServer.
        """
        key = (principal.tenant, server)
        kept = self._rows.get(key)
        if kept is not None and time.monotonic() - kept[0] < ROW_KEPT_S:
            return kept[1]
        try:
            one = await self.server(principal, server)
        except UnknownServer:
            self._forget(key)
            raise
        if one.source == "file" and key not in self._file:
            raise UnknownServer(f"the server {server!r} stands in another process's file, and cannot be called here")
        if len(self._rows) >= ROWS_KEPT:
            self._rows.clear()
        self._rows[key] = (time.monotonic(), one)
        return one

    def _opened(self, one: Server) -> Registration:
        """A registration with its secrets: the operator's file knows its own.

        Raises:
            CannotUnseal, NoEncryptionKey.
        """
        entry = self._file.get(one.key)
        if entry is not None:
            return entry.registration
        return opened(one, self._the_vault() if one.sealed is not None else None)

    def _the_vault(self, *, make: bool = False) -> Vault:
        if self._vault is None:
            self._vault = vault_of(self._settings, make=make)
        return self._vault

    def _forget(self, key: Key) -> None:
        self._rows.pop(key, None)
        self._tools.pop(key, None)

    def _learn(self, key: Key, tools: list[ToolInfo]) -> None:
        if len(self._tools) >= ROWS_KEPT:
            self._tools.clear()
        self._tools[key] = (time.monotonic(), tools)

    def _probed(self, key: Key, tools: list[ToolInfo]) -> None:
        """What a probe was told that a server offers. A change is told in the words that the bridge has for it; of a
        server with so many tools that it gives them in parts, the first part is what is compared."""
        self._learn(key, tools)
        now = frozenset(tool.name for tool in tools)
        if len(self._offered) >= ROWS_KEPT:
            self._offered.clear()
        before, self._offered[key] = self._offered.get(key, now), now
        if before == now:
            return
        tenant, server = key
        about: dict[str, Any] = {"server": server, "count": len(now), "count_before": len(before), "announced": False}
        for word, names in (("added", now - before), ("removed", before - now)):
            if names:
                about[word] = [name[:NAME_CHARS] for name in sorted(names)[:NAMES_MAX]]
        payload = msgspec.Raw(msgspec.json.encode(about))
        event = HubEvent(time=datetime.now(UTC), event_id=uuid7(), name="tools_list_changed", payload=payload)
        self._outbox.put(Principal(tenant, frozenset({Right.INGEST})), event)

    def _ended(self, key: Key, trouble: Trouble) -> None:
        log.warning("a session has ended", tenant=key[0], server=key[1], error=trouble.message)
        self.prober.ended(key, trouble)

    def _tell(self, tenant: str, event: ServerEvent) -> None:
        if event.source == "probe":
            counts = self._counts_of(tenant)
            counts.checks += event.outcome != "restated"
            counts.checks_failed += event.error_type is not None and event.outcome != "restated"
        self._outbox.put(Principal(tenant, frozenset({Right.INGEST})), event)

    def _audit(self, principal: Principal, name: str, **payload: Any) -> None:
        self._outbox.put(principal, registry.audited(name, payload))

    def _count(self, tenant: str, took_ms: float, *, failed: bool) -> None:
        counts = self._counts_of(tenant)
        counts.total += 1
        counts.failed += failed
        counts.seconds += took_ms / 1000
        self._instruments.peer_requests.labels("failed" if failed else "ok").inc()

    def _counts_of(self, tenant: str) -> Counts:
        return self._counts.setdefault(tenant, Counts())

    def _connection(self) -> Any:
        return borrowed(self._pool, self._settings)

    # Tasks

    async def _put_file(self) -> None:
        """The operator's servers into the store, once it is there."""
        while self._file:
            try:
                async with self._connection() as connection:
                    await registry.put_file_servers(connection, list(self._file.values()))
                self.prober.wake()
                return
            except (*AWAY_OR_TOLD, HubscopeError, db_errors.PostgresError) as error:
                log.warning("the servers of the operator's file are not in the store yet", error=away(error).detail)
            await asyncio.sleep(FILE_RETRY_S)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(min(HOUSEKEEPING_S, self._settings.peer_idle_timeout_ms / 1000))
            self._sessions.close_idle(self._settings.peer_idle_timeout_ms / 1000)
            self._instruments.peer_sessions.set(len(self._sessions))


def _first_text(blocks: list[Any]) -> str | None:
    for block in blocks:
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            return str(block["text"])
    return None


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))
