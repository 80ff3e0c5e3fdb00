"""Pools of connections, each under the role its work needs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg

from hubscope.errors import DatabaseAway, Unavailable
from hubscope.settings import Settings

Connection: TypeAlias = asyncpg.Connection
Pool: TypeAlias = asyncpg.Pool

AWAY: tuple[type[Exception], ...] = (
    OSError,
    ssl.SSLError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection gives that was cut while it was idle
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.PostgresSystemError,
)
"""What a database that is away, starting, stopping, read-only, full or out of connections looks like."""


AWAY_OR_TOLD: tuple[type[Exception], ...] = (DatabaseAway, *AWAY)
"""The same, also where it was put into words already."""


def away(error: BaseException) -> DatabaseAway:
    """The one error that callers see for all of those. The driver's message may name hosts: only its class is told."""
    if isinstance(error, DatabaseAway):
        return error
    return DatabaseAway(f"the database cannot be used now ({type(error).__name__})")


# Answers take tens of milliseconds; compiling them takes longer (a month of latency: 256 ms with jit, 146 without).
# Values that stand in a statement's text (`copying.spelled`) are quoted for standard strings.
SESSION: Final = {"search_path": "", "timezone": "UTC", "jit": "off", "standard_conforming_strings": "on"}


GIVEN_UP: Final = ("statement_timeout", "idle_in_transaction_session_timeout")
"""Without them a server that never hears of a client's end keeps its locks: the same events, sent again, would wait for
the ones that were given up, and sessions that wait for a locked table would add up to all there may be."""

KEEPALIVE: Final = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""The same for a COPY that is cut off in its middle, which no timeout of a statement ends. In seconds."""


# Many short answers at once: starting parallel workers for each costs more than they bring, and answers would take each
# other's cores. A plan made for other values of a range reads too much.
READING: Final = {
    "default_transaction_read_only": "on",
    "max_parallel_workers_per_gather": "0",
    "plan_cache_mode": "force_custom_plan",
}


async def open_pool(
    dsn: str,
    *,
    role: str,
    size: int,
    name: str,
    settings: Settings,
    statement_timeout_ms: int | None = None,
    read_only: bool = False,
) -> Pool:
    """A pool that opens its connections when they are first needed, so that a database that is away stops no start.

    Args:
        dsn: the store's URL.
        role: the role that each connection takes on; it stays in force after RESET ALL.
        size: most connections.
        name: application_name, as pg_stat_activity shows it.
        settings: timeouts.
        statement_timeout_ms: longest run of one statement; the server stops it, or, if the server says nothing, we do.
        read_only: every transaction is READ ONLY.
    """
    server_settings = {**SESSION, "role": role, "application_name": f"hubscope {name}"}
    if statement_timeout_ms is not None:
        server_settings["statement_timeout"] = str(statement_timeout_ms)
    if read_only:
        server_settings |= READING
    grace_ms = settings.pool_connection_timeout_ms
    return await asyncpg.create_pool(
        dsn,
        connect=_connect,
        min_size=0,
        max_size=size,
        max_inactive_connection_lifetime=settings.pool_idle_timeout_ms / 1000,
        timeout=settings.pool_connection_timeout_ms / 1000,
        command_timeout=None if statement_timeout_ms is None else (statement_timeout_ms + grace_ms) / 1000,
        server_settings=server_settings,
    )


async def _connect(*arguments: Any, **options: Any) -> Connection:
    try:
        return await asyncpg.connect(*arguments, **options)
    except (
        asyncpg.InvalidParameterValueError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.UndefinedObjectError,
    ) as error:
        # Roles are taken on while connecting: before the first migration there are none.
        raise DatabaseAway(f"the database refuses us: {error} (`hubscope migrate` makes roles and schema)") from error


@asynccontextmanager
async def borrowed(pool: Pool, settings: Settings) -> AsyncIterator[Connection]:
    """A connection from the pool.

    Raises:
        DatabaseAway: none within HUBSCOPE_POOL_CONNECTION_TIMEOUT, or it broke while in use.
        Unavailable: a statement ran into HUBSCOPE_QUERY_TIMEOUT.
    """
    try:
        async with pool.acquire(timeout=settings.pool_connection_timeout_ms / 1000) as connection:
            yield connection
    except asyncpg.QueryCanceledError as error:
        raise Unavailable(
            f"the answer took longer than {settings.query_timeout_ms} ms (HUBSCOPE_QUERY_TIMEOUT); ask for less"
        ) from error
    except AWAY as error:
        raise away(error) from error


async def connect(
    dsn: str, *, role: str | None = None, name: str, timeout_s: float = 10, give_up_ms: int | None = None
) -> Connection:
    """One direct connection (migrations, jobs).

    Args:
        give_up_ms: after this time the client gives a transaction up, so the server gives it up, too.

    Raises:
        DatabaseAway: it cannot be made.
    """
    server_settings = {**SESSION, "application_name": f"hubscope {name}"}
    if give_up_ms is not None:
        server_settings |= dict.fromkeys(GIVEN_UP, str(give_up_ms)) | KEEPALIVE
    if role is not None:
        server_settings["role"] = role
    try:
        return await _connect(dsn, timeout=timeout_s, server_settings=server_settings)
    except AWAY as error:
        raise away(error) from error


async def retrying(
    attempt: Callable[[], Any], *, tries: int, pause_s: float, when: tuple[type[BaseException], ...]
) -> Any:
    """Await `attempt()` again after each of the named errors, with a growing pause; the last error is raised."""
    for number in range(1, tries + 1):
        try:
            return await attempt()
        except when:
            if number == tries:
                raise
            await asyncio.sleep(pause_s * number)
