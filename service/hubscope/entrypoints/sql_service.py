"""/sql/mcp inside the service: the databases that are named, or else hubscope's own marts, to each tenant its own rows.

It has connections, turns and limits of its own: whatever is asked here, ingest and the meta-tools keep theirs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from hubscope.access.principal import DEFAULT_TENANT
from hubscope.app import App
from hubscope.entrypoints.events import Receive, Scope, Send
from hubscope.entrypoints.sql_mcp import endpoint, opened
from hubscope.entrypoints.sql_server import Caller, SqlServer
from hubscope.entrypoints.sql_tools import load
from hubscope.journal import AuditRecord, Journal, Severity
from hubscope.marts import TENANT_SCHEMA, TENANT_SETTING
from hubscope.settings import SqlSettings
from hubscope.sqlgate import Gate, Policy, Served, databases, limits_of

PATH: Final = "/sql/mcp"
OWN: Final = "hubscope"
"""What hubscope's own marts are called among databases."""

OWN_POLICY: Final = Policy(
    allowed_schemas=(TENANT_SCHEMA,),
    view_schemas=frozenset({"raw", "rollup", "ops"}),  # what the views stand on; a query cannot name it
    # They compute: what the views call, and what makes percentiles of buckets.
    allowed_functions=frozenset({"rollup.latency_bucket", "rollup.latency_value", "rollup.latency_percentile"}),
    # They read what waits to be folded, of the tenants that a view asks them for.
    view_functions=frozenset({"raw.pending_calls", "raw.pending_latency", "raw.pending_checks"}),
)
SEVERITY: Final[Mapping[str, Severity]] = {
    "success": "info",
    "clean": "info",
    "cancelled": "info",
    "error": "low",
    "timeout": "low",
    "refused": "medium",
    "findings": "medium",
}


class Journaled:
    """Audit events of the SQL server as rows of the audit log."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def check(self) -> None:
        """See `Journal.check`."""
        self._journal.check()

    async def record(self, caller: Caller, event: Mapping[str, Any]) -> None:
        """See `Journal.append`."""
        await self._journal.append(record_of(caller, event))


def record_of(caller: Caller, event: Mapping[str, Any]) -> AuditRecord:
    """The row that an event becomes: sql_query for what was asked in SQL, sql_catalogue for what there is."""
    more = dict(event)
    outcome, served = str(more.pop("outcome")), str(more.pop("served"))
    action, principal = str(more.pop("event", None) or more.pop("tool")), caller.principal
    return AuditRecord(
        tenant=principal.tenant if principal is not None and principal.tenant else DEFAULT_TENANT,
        event_type="sql_query" if "params" in more else "sql_role" if action == "role_audit" else "sql_catalogue",
        severity=SEVERITY.get(outcome, "low"),
        resource_type="database",
        resource_id=served,
        action=action,
        status=outcome,
        actor=principal.actor if principal is not None else "hubscope",
        owner=principal.owner if principal is not None else "",
        user_agent=caller.user_agent,
        request_id=caller.request_id,
        address=caller.address,
        permissions=tuple(sorted(principal.scopes)) if principal is not None else (),
        description=str(more.pop("reason", "")),
        details={name: value for name, value in more.items() if value is not None},
    )


@dataclass(frozen=True, slots=True)
class SqlService:
    """The SQL server of a service.

    Attributes:
        server: the databases.
        answer: the ASGI application at PATH.
    """

    server: SqlServer
    answer: Callable[[Scope, Receive, Send], Awaitable[None]]


def own_marts(app: App, settings: SqlSettings) -> Served:
    """hubscope's own marts, as the role that sees one tenant's rows."""
    session = {
        "role": app.roles.tenant,
        "application_name": "hubscope sql",
        "max_parallel_workers_per_gather": "0",  # the cores are for ingest
        TENANT_SETTING: "",
    }
    limits = replace(limits_of(settings), connections=settings.store_connections)
    return Served(app.dsn, OWN_POLICY, limits, session=tuple(session.items()))


@asynccontextmanager
async def mounted(app: App) -> AsyncIterator[SqlService | None]:
    """The SQL server for as long as the block runs; None where HUBSCOPE_SQL_IN_SERVICE is false.

    Raises:
        InvalidSetting: of the SQL server's settings, or of a tool of the operator's own.
    """
    settings = SqlSettings.load()
    if not settings.in_service:
        yield None
        return
    named = databases(settings)
    gates = {name: Gate(served) for name, served in (named or {OWN: own_marts(app, settings)}).items()}
    server = SqlServer(
        gates,
        Journaled(app.journal),
        tenant_setting=None if named else TENANT_SETTING,
        audit_chars=settings.audit_chars,
    )
    async with opened(server), endpoint(server, load(gates), PATH) as answer:
        yield SqlService(server, answer)
