"""The registered servers in the store: functions over a connection under the writer role."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from hubscope.access import Vault
from hubscope.errors import HubscopeError, InvalidParameter, UnknownServer
from hubscope.ids import uuid7
from hubscope.model import AuditEvent, ServerState
from hubscope.peers import health as machine
from hubscope.peers.config import Configured
from hubscope.peers.health import Health
from hubscope.peers.registration import Auth, HealthCheck, Registration, as_json, health_check
from hubscope.store import Connection, load

QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
PURPOSE: Final = "authentication of an upstream server"
WINDOWS_MAX: Final = 100
"""Windows of one server that are open or to come."""
Source = Literal["api", "cli", "file"]

Status = Literal["unknown", "healthy", "unhealthy", "maintenance"]
STATUS_OF: Final[Mapping[ServerState, Status]] = {
    "up": "healthy",
    "degraded": "healthy",
    "down": "unhealthy",
    "maintenance": "maintenance",
    "unknown": "unknown",
}
"""Our states in the words of the federation API."""


class ServerTaken(HubscopeError):
    """A server with this id is registered already."""

    status = 409
    code = "server_taken"


class TooManyServers(HubscopeError):
    """The tenant has registered as many servers as it may (HUBSCOPE_MAX_REGISTRATIONS)."""

    status = 409
    code = "too_many_servers"


class ServerIsTheOperators(HubscopeError):
    """This server stands in the operator's own file, and is changed there."""

    status = 409
    code = "server_of_the_operator"


class UnknownWindow(HubscopeError):
    """There is no such maintenance window, or it is over."""

    status = 404
    code = "unknown_window"


@dataclass(frozen=True, slots=True)
class Server:
    """A registered server, and how it is.

    Attributes:
        registration: as registered; without secrets, headers and command, which are no rows.
        sealed: its secrets.
        health: what the state machine knows, as far as it is still valid.
        maintenance_until: the end of the window that is open now.
    """

    tenant: str
    registration: Registration
    source: Literal["api", "file"]
    auth_type: str
    sealed: bytes | None
    created_at: datetime
    updated_at: datetime
    health: Health
    checked_at: datetime | None
    valid_until: datetime | None
    latency_ms: float | None
    error_type: str | None
    error_message: str | None
    maintenance_until: datetime | None

    @property
    def key(self) -> tuple[str, str]:
        return self.tenant, self.registration.id

    @property
    def state(self) -> ServerState:
        """How it is now."""
        return "maintenance" if self.maintenance_until is not None else self.health.state

    def shown(self) -> dict[str, Any]:
        """As the federation API shows it (MCPServer), and what we know beyond that. Never a secret."""
        one = self.registration
        return {
            "id": one.id,
            "name": one.name,
            "description": one.description,
            "version": one.version,
            "category": one.category,
            "endpoint": one.endpoint,
            "protocol": one.protocol,
            "auth": {"type": self.auth_type},
            "capabilities": list(one.capabilities),
            "tags": list(one.tags),
            "metadata": dict(one.metadata),
            "status": STATUS_OF[self.state],
            "health_check": as_json(one.health_check),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "source": self.source,
            "health": {
                "state": self.state,
                "since": self.health.since,
                "checked_at": self.checked_at,
                "valid_until": self.maintenance_until or self.valid_until,
                "latency_ms": self.latency_ms,
                "error_type": self.error_type,
                "error": self.error_message,
            },
        }


def server_of(row: Mapping[str, Any], defaults: HealthCheck) -> Server:
    """A row of `servers_of` or `hold_leases`."""
    known = machine.from_json(json.loads(row["memory"]) if row["memory"] else None)
    valid_until, now = row["valid_until"], row["read_at"]
    if known.state == "maintenance":
        if row["maintenance_until"] is None:
            known = machine.resumed(known, min(valid_until or now, now))
    elif valid_until is not None and valid_until < now:
        known = machine.lapsed(known, valid_until)
    return Server(
        tenant=row["tenant_id"],
        registration=Registration(
            id=row["server_id"],
            name=row["name"],
            description=row["description"],
            version=row["version"],
            category=row["category"],
            endpoint=row["endpoint"],
            protocol=row["protocol"],
            capabilities=tuple(row["capabilities"]),
            tags=tuple(row["tags"]),
            metadata=json.loads(row["metadata"]),
            health_check=_kept_check(json.loads(row["health_check"]), defaults),
        ),
        source=row["source"],
        auth_type=row["auth_type"],
        sealed=row["sealed"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        health=known,
        checked_at=row["checked_at"],
        valid_until=valid_until,
        latency_ms=row["latency_ms"],
        error_type=row["error_type"],
        error_message=row["error_message"],
        maintenance_until=row["maintenance_until"],
    )


def _kept_check(value: dict[str, Any], defaults: HealthCheck) -> HealthCheck:
    """A health check as it was kept; one that a later version does not allow any more is the default."""
    try:
        return health_check(value, defaults)
    except InvalidParameter:
        return defaults


def opened(server: Server, vault: Vault | None) -> Registration:
    """The registration of a server with its secrets, ready to connect.

    Raises:
        CannotUnseal: they were sealed under another key.
    """
    if server.sealed is None:
        return server.registration
    assert vault is not None
    config = msgspec.json.decode(vault.open(server.sealed, tenant=server.tenant, purpose=_purpose(server.key[1])))
    return replace(server.registration, auth=Auth(server.auth_type, config))  # type: ignore[arg-type]


def _purpose(server_id: str) -> str:
    return f"{PURPOSE} ({server_id})"


async def select_servers(
    connection: Connection, tenant: str, defaults: HealthCheck, *, category: str | None = None
) -> list[Server]:
    """The servers of a tenant, by id."""
    rows = await connection.fetch(QUERIES["servers_of"], tenant, None, category)
    return [server_of(row, defaults) for row in rows]


async def select_server(connection: Connection, tenant: str, server_id: str, defaults: HealthCheck) -> Server:
    """One server.

    Raises:
        UnknownServer.
    """
    row = await connection.fetchrow(QUERIES["servers_of"], tenant, server_id, None)
    if row is None:
        raise UnknownServer(f"there is no server {server_id[:200]!r}", server_id=server_id[:200])
    return server_of(row, defaults)


async def insert_server(
    connection: Connection, tenant: str, one: Registration, *, most: int, seal: Any = None
) -> datetime:
    """Register a server.

    Args:
        most: servers that the tenant may have.
        seal: makes what is kept of its secrets; called if it has any.

    Raises:
        ServerTaken, TooManyServers, NoEncryptionKey.
    """
    async with connection.transaction():
        await connection.execute(QUERIES["lock_tenant"], tenant)
        count = await connection.fetchval(QUERIES["count_servers"], tenant)
        created_at: datetime | None = await connection.fetchval(QUERIES["insert_server"], *_columns(tenant, one))
        if created_at is None:
            raise ServerTaken(f"a server with the id {one.id!r} is registered already: delete it first")
        if count >= most:
            raise TooManyServers(
                f"the tenant has {count} servers; at most {most} may be registered (HUBSCOPE_MAX_REGISTRATIONS)"
            )
        if one.auth.config:
            vault: Vault = seal()
            sealed = vault.seal(msgspec.json.encode(dict(one.auth.config)), tenant=tenant, purpose=_purpose(one.id))
            await connection.execute(QUERIES["put_secret"], tenant, one.id, sealed)
    return created_at


async def put_file_servers(connection: Connection, configured: Sequence[Configured]) -> None:
    """Make the store show the operator's file: its servers, its windows, and none that no file has any more."""
    async with connection.transaction():
        for entry in configured:
            await connection.execute(QUERIES["put_file_server"], *_columns(entry.tenant, entry.registration))
            for window in entry.maintenance:
                await connection.fetchval(
                    QUERIES["insert_window"],
                    entry.tenant,
                    _window_id(entry, window.starts_at, window.ends_at),
                    entry.registration.id,
                    window.starts_at,
                    window.ends_at,
                    window.reason,
                    "file",
                )
        await connection.execute(
            QUERIES["forget_file_servers"],
            [entry.tenant for entry in configured],
            [entry.registration.id for entry in configured],
        )


def _window_id(entry: Configured, starts_at: datetime, ends_at: datetime) -> UUID:
    """The same window of a file is one window, however often it is read."""
    said = f"{entry.tenant}/{entry.registration.id}/{starts_at.timestamp()}/{ends_at.timestamp()}"
    return uuid5(NAMESPACE_URL, f"urn:hubscope:maintenance:{said}")


def _columns(tenant: str, one: Registration) -> tuple[Any, ...]:
    return (
        tenant,
        one.id,
        one.name,
        one.description,
        one.version,
        one.category,
        one.endpoint,
        one.protocol,
        one.auth.type,
        list(one.capabilities),
        list(one.tags),
        json.dumps(one.metadata),
        json.dumps(as_json(one.health_check)),
    )


async def delete_server(connection: Connection, tenant: str, server_id: str, defaults: HealthCheck) -> None:
    """Take a server out.

    Raises:
        UnknownServer, ServerIsTheOperators.
    """
    if await connection.fetchval(QUERIES["delete_server"], tenant, server_id) is None:
        await select_server(connection, tenant, server_id, defaults)
        raise ServerIsTheOperators(
            f"the server {server_id!r} stands in the operator's file (HUBSCOPE_SERVERS_FILE), and is changed there"
        )


@dataclass(frozen=True, slots=True)
class Window:
    """A maintenance window: [starts_at, ends_at)."""

    id: UUID
    server_id: str
    starts_at: datetime
    ends_at: datetime
    reason: str
    source: Source
    created_at: datetime
    cancelled_at: datetime | None = None

    def shown(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "id": str(self.id),
            "server_id": self.server_id,
            "from": self.starts_at,
            "until": self.ends_at,
            "reason": self.reason,
            "source": self.source,
            "created_at": self.created_at,
            "cancelled_at": self.cancelled_at,
        }


async def insert_window(
    connection: Connection,
    tenant: str,
    server_id: str,
    *,
    starts_at: datetime,
    ends_at: datetime,
    reason: str,
    source: Source,
    defaults: HealthCheck,
) -> UUID:
    """Plan a window.

    Raises:
        UnknownServer, InvalidParameter.
    """
    await select_server(connection, tenant, server_id, defaults)
    if await connection.fetchval(QUERIES["count_windows"], tenant, server_id) >= WINDOWS_MAX:
        raise InvalidParameter(f"the server {server_id!r} has {WINDOWS_MAX} windows to come already: cancel some")
    window_id = uuid7()
    await connection.fetchval(
        QUERIES["insert_window"], tenant, window_id, server_id, starts_at, ends_at, reason, source
    )
    return window_id


async def cancel_window(connection: Connection, tenant: str, server_id: str, window_id: UUID) -> None:
    """End a window, or call it off.

    Raises:
        UnknownWindow.
    """
    if await connection.fetchval(QUERIES["cancel_window"], tenant, server_id, window_id) is None:
        raise UnknownWindow


async def select_windows(
    connection: Connection, tenant: str, server_id: str | None = None, *, every: bool = False
) -> list[Window]:
    """The windows of a tenant that are open or to come; `every`: those that are over, too (the first thousand)."""
    rows = await connection.fetch(QUERIES["windows_of"], tenant, server_id, every)
    return [
        Window(
            row["window_id"],
            row["server_id"],
            row["starts_at"],
            row["ends_at"],
            row["reason"],
            row["source"],
            row["created_at"],
            row["cancelled_at"],
        )
        for row in rows
    ]


# Who changed what: audited


def audited(name: str, payload: Mapping[str, Any]) -> AuditEvent:
    """Something that somebody did to the registry."""
    return AuditEvent(
        time=datetime.now(UTC), event_id=uuid7(), name=name, payload=msgspec.Raw(msgspec.json.encode(payload))
    )


def window_planned(
    server_id: str, window_id: UUID, starts_at: datetime, ends_at: datetime, reason: str, source: Source
) -> AuditEvent:
    """A maintenance window was planned."""
    return audited(
        "maintenance_planned",
        {
            "server": server_id,
            "window": str(window_id),
            "from": starts_at,
            "until": ends_at,
            "reason": reason,
            "by": source,
        },
    )


def window_cancelled(server_id: str, window_id: UUID, source: Source) -> AuditEvent:
    """A maintenance window was called off, or ended early."""
    return audited("maintenance_cancelled", {"server": server_id, "window": str(window_id), "by": source})
