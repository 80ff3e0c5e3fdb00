"""The SQL server's calls, whatever carries them: which database, in whose name, audited, measured, given up in time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import psutil
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from prometheus_client import generate_latest

import hubscope
from hubscope.access import Principal, Scope
from hubscope.entrypoints.admission import PRINCIPAL
from hubscope.errors import AuditAway, HubscopeError, QueryRefused, QueryTimedOut
from hubscope.instruments import SqlInstruments
from hubscope.redact import redact_text
from hubscope.sqlgate import Gate, Narrowed, Result
from hubscope.sqlgate.config import MAIN
from hubscope.sqlgate.roles import Audit as RoleAudit
from hubscope.sqlgate.roles import audit_role

SERVICE: Final = "postgres-mcp-server"
ROLE_CHECK_INTERVAL_S: Final = 5
LONGEST_READ: Final = 20_000
"""Characters of a text that are looked through for secrets: longer queries are refused unread."""
_MEGABYTE: Final = 1024 * 1024

T = TypeVar("T")

GONE_KEY: Final = "hubscope.gone"
GONE: ContextVar[asyncio.Event | None] = ContextVar("gone", default=None)
"""Set while a tool answers an HTTP request; the event says that its client went away."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, as far as it is known; for turns, rows and the audit.

    Attributes:
        turn: calls of the same one wait behind each other.
        principal: whom the door let in; None where there is no door (stdio, the server by itself).
        user_agent, request_id, address: where it came from.
    """

    turn: str = ""
    principal: Principal | None = None
    user_agent: str = ""
    request_id: str = ""
    address: str = ""

    @staticmethod
    def of(context: Context[Any]) -> Caller:
        """The caller of the tool or resource that this context is of. Notes how its leaving is told."""
        request = context.request_context.request
        if request is None:
            GONE.set(None)
            return Caller(turn=str(id(context.session)), request_id=context.request_id)
        scope = request.scope
        GONE.set(scope.get(GONE_KEY))
        principal = scope.get(PRINCIPAL)
        agent = next((value for name, value in scope["headers"] if name == b"user-agent"), b"")
        # Over stateless HTTP each request is a session of its own.
        turn = str(id(context.session)) if principal is None else f"{principal.tenant}/{principal.actor}"
        return Caller(turn, principal, agent.decode("latin-1"), context.request_id, (scope.get("client") or ("",))[0])


class Recorder(Protocol):
    """Where audit events go."""

    def check(self) -> None:
        """Before a call: would its event have a place?

        Raises:
            AuditAway: it would not, and nothing is answered without one.
        """

    async def record(self, caller: Caller, event: Mapping[str, Any]) -> None:
        """Take one event.

        Raises:
            AuditAway: it is not kept, and nothing is answered without it.
        """


class SqlServer:
    """The served databases with their audit and metrics.

    Args:
        gates: what asks each database, by name; the first one is the default.
        recorder: where audit events go.
        tenant_setting: the setting that views ask whose rows a session sees; None where databases know no tenants.
        audit_chars: how much of a query's text is audited.

    Attributes:
        instruments: postgres_mcp_* metrics.
        roles: what was found about the role in each database, once it was reached.
    """

    def __init__(
        self,
        gates: Mapping[str, Gate],
        recorder: Recorder,
        *,
        tenant_setting: str | None = None,
        audit_chars: int = 2_000,
    ) -> None:
        self.gates = dict(gates)
        self.default = next(iter(self.gates))
        self.instruments = SqlInstruments(self.gates)
        self.roles: dict[str, RoleAudit] = {}
        self.tenant_setting = tenant_setting
        self.started = time.monotonic()
        self._recorder = recorder
        self._audit_chars = audit_chars

    # Calls

    def gate(self, database: str | None, caller: Caller) -> Gate:
        """What this caller asks that database through.

        Raises:
            QueryRefused: there is no such database, or nobody knows whose rows the caller may see.
        """
        gate = self.gates.get(database or self.default)
        if gate is None:
            raise QueryRefused(f"there is no database {str(database)[:100]}; there are: {', '.join(self.gates)}")
        if self.tenant_setting is None:
            return gate
        if caller.principal is None or not caller.principal.tenant:
            raise QueryRefused("whose rows these are is told by an API key")
        return Narrowed(gate, self.tenant_setting, caller.principal.tenant)

    def refuse_plans(self, caller: Caller) -> None:
        """A plan tells how much there is of all tenants.

        Raises:
            QueryRefused: it is not for this caller.
        """
        principal = caller.principal
        if self.tenant_setting is not None and (principal is None or Scope.ADMIN not in principal.scopes):
            raise QueryRefused(
                "analyze_query is for operators here (scope admin): plans tell how many rows other tenants have"
            )

    async def call(
        self,
        tool: str,
        caller: Caller,
        database: str | None,
        asked: Mapping[str, Any],
        answer: Callable[[Gate], Awaitable[T]],
    ) -> T:
        """Run one call: audited, measured, its errors as the client may see them.

        Raises:
            ToolError: whatever went wrong, in one line.
        """
        started = time.perf_counter()
        outcome, more = "success", dict[str, Any]()
        name = database or self.default
        recorded = True
        try:
            self._recorder.check()
            gate = self.gate(database, caller)
            answered = await _unless_gone(lambda: answer(gate))
            if isinstance(answered, Result):
                more = {"rows": len(answered.rows), "truncated": answered.truncated is not None}
                more["reads"] = answered.reads
        except AuditAway as error:
            outcome, recorded = "error", False
            raise ToolError(error.detail) from error
        except HubscopeError as error:
            outcome = (
                "timeout"
                if isinstance(error, QueryTimedOut)
                else "refused"
                if isinstance(error, QueryRefused)
                else "error"
            )
            more = {"code": error.code, "reason": redact_text(error.detail[:LONGEST_READ])[:1_000]}
            raise ToolError(error.detail) from error
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except BaseException:
            outcome = "error"
            raise
        finally:
            elapsed = time.perf_counter() - started
            self.instruments.count(name, tool, outcome, elapsed)
            if recorded:
                known = self.gates[name].database if name in self.gates else None
                event = {
                    "tool": tool,
                    "outcome": outcome,
                    "duration_ms": round(elapsed * 1000, 3),
                    "served": name[:100],
                    "database": known.name if known else None,
                    "role": known.role if known else None,
                    **self._shown(asked),
                    **more,
                }
                try:
                    await self._recorder.record(caller, event)
                except AuditAway as error:
                    raise ToolError(error.detail) from error
        return answered

    def _shown(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What was asked, without secrets, cut."""
        shown = dict(asked)
        for name, value in asked.items():
            if isinstance(value, str):
                longest = self._audit_chars if name == "sql" else 200
                shown[name] = redact_text(value[:LONGEST_READ])[:longest]
        if not self._audit_chars:
            shown.pop("sql", None)
        return shown

    # State

    async def check_roles(self) -> None:
        """Audit the role in each database as soon as it can be reached; what was found is recorded and in /health."""
        async with asyncio.TaskGroup() as group:
            for name in self.gates:
                group.create_task(self._check_role(name), name=f"role audit of {name}")

    async def _check_role(self, name: str) -> None:
        gate, told = self.gates[name], None
        while name not in self.roles:
            try:
                async with gate.borrowed() as connection:
                    self.roles[name] = await audit_role(connection, gate.served.policy)
            except HubscopeError as error:
                if error.detail != told:
                    told = error.detail
                    await self._record_role(name, "error", reason=told)
                await asyncio.sleep(ROLE_CHECK_INTERVAL_S)
        found = self.roles[name]
        await self._record_role(
            name,
            "findings" if found.findings else "clean",
            role=found.role,
            findings=[asdict(finding) for finding in found.findings],
        )

    async def _record_role(self, name: str, outcome: str, **more: Any) -> None:
        with contextlib.suppress(AuditAway):  # counted and logged there; nobody waits for an answer
            await self._recorder.record(Caller(), {"event": "role_audit", "outcome": outcome, "served": name, **more})

    async def reachable(self) -> dict[str, bool]:
        """Which databases answer now."""
        answers = await asyncio.gather(*(gate.reachable() for gate in self.gates.values()))
        found = dict(zip(self.gates, answers, strict=True))
        for name, connected in found.items():
            self.instruments.connected.labels(name).set(connected)
        return found

    async def databases(self) -> dict[str, Any]:
        """State of each database, for /health."""
        return {name: self._state(name, connected) for name, connected in (await self.reachable()).items()}

    def _state(self, name: str, connected: bool) -> dict[str, Any]:
        size, idle = self.gates[name].connections()
        role = self.roles.get(name)
        return {
            "status": "connected" if connected else "disconnected",
            "connection_pool": {"total": size, "active": size - idle, "idle": idle},
            "role": None if role is None else asdict(role),
        }

    async def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body of /health, in the shape of the specification; 503 when no database answers."""
        databases = await self.databases()
        there = [name for name, state in databases.items() if state["status"] == "connected"]
        pools = [state["connection_pool"] for state in databases.values()]
        memory = _memory()
        return (200 if there else 503), {
            "status": "healthy" if len(there) == len(databases) else "degraded" if there else "unhealthy",
            "service": SERVICE,
            "version": hubscope.__version__,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "database": databases[self.default]["status"],
            "connection_pool": {part: sum(pool[part] for pool in pools) for part in ("total", "active", "idle")},
            "uptime": int(time.monotonic() - self.started),
            "memory_usage": {name: f"{value / _MEGABYTE:.1f}MB" for name, value in memory.items()},
            "role_findings": sum(len(role.findings) for role in self.roles.values()) if self.roles else None,
            "databases": databases,
        }

    async def metrics(self) -> bytes:
        """The text of /metrics."""
        meters = self.instruments
        await self.reachable()
        for name, gate in self.gates.items():
            size, idle = gate.connections()
            meters.active.labels(name).set(size - idle)
            meters.idle.labels(name).set(idle)
            meters.waiting.labels(name).set(gate.turns.waiting)
        for kind, value in _memory().items():
            meters.memory.labels(kind).set(value)
        meters.memory_limit.set(_memory_limit())
        return generate_latest(meters.registry)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(gate.close() for gate in self.gates.values()))


async def _unless_gone(answer: Callable[[], Awaitable[T]]) -> T:
    """The answer; given up, and with it the query on the server, when nobody is there any more to take it."""
    gone = GONE.get()
    if gone is None:
        return await answer()
    asking, leaving = asyncio.ensure_future(answer()), asyncio.ensure_future(gone.wait())
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise asyncio.CancelledError
        return await asking
    finally:
        leaving.cancel()
        if not asking.done():
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, HubscopeError):
                await asking


def _memory() -> dict[str, int]:
    process = psutil.Process()
    with process.oneshot():
        memory = process.memory_info()
        unique = process.memory_full_info().uss
    return {
        "rss": memory.rss,
        "heap_used": min(unique, memory.rss),
        "heap_total": memory.rss - getattr(memory, "shared", 0),
    }


def _memory_limit() -> int:
    total = psutil.virtual_memory().total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            return min(total, int(Path(path).read_text()))
    return total


__all__ = ["GONE_KEY", "MAIN", "SERVICE", "Caller", "Recorder", "SqlServer"]
