"""Work on a store that belongs to its owner and that one process at a time does: refreshing, packing, retention."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from hubscope.store.pool import Connection, connect
from hubscope.store.roles import Roles

_LOCK: Final = "SELECT pg_advisory_lock(hashtextextended('hubscope.maintenance', 0))"


@asynccontextmanager
async def maintaining(dsn: str, roles: Roles, name: str) -> AsyncIterator[Connection]:
    """A direct connection under the owner role, once nobody else maintains the store.

    Raises:
        DatabaseAway.
    """
    connection = await connect(dsn, role=roles.owner, name=name)
    try:
        await connection.execute(_LOCK)  # given back with the connection
        yield connection
    finally:
        await connection.close()


AUDIT_DAYS_AHEAD: Final = 35


async def make_audit_partitions(connection: Connection) -> int:
    """Make the month partitions of the audit log that records of the next weeks need; how many were made."""
    made: int = await connection.fetchval(
        "SELECT ops.ensure_audit_partitions(current_date - 1, current_date + $1::integer)", AUDIT_DAYS_AHEAD
    )
    return made
