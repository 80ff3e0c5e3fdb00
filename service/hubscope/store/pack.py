"""Packing, on the postgres engine: days of latency that change no more take a tenth of the room (migration 0006)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hubscope.settings import Settings
from hubscope.store.pool import Connection


async def pack(connection: Connection, settings: Settings) -> int:
    """Pack every day older than HUBSCOPE_PACK_AFTER_DAYS, one transaction each. How many rows were packed away.

    Args:
        connection: under the owner role, outside a transaction.
    """
    if not settings.pack_after_days:
        return 0
    before = (datetime.now(UTC) - timedelta(days=settings.pack_after_days)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    days = await connection.fetch(
        "SELECT DISTINCT day FROM rollup.stored_tool_latency_daily WHERE day < $1 ORDER BY day", before
    )
    return sum([await connection.fetchval("SELECT rollup.pack_day($1)", row["day"]) for row in days])
