"""Packing, on the postgres engine: days of latency that change no more take a tenth of the room (migration 0006)."""

from __future__ import annotations

from datetime import datetime

from hubscope.settings import Settings
from hubscope.store.pool import Connection
from hubscope.store.retention import kept_from


async def pack(connection: Connection, settings: Settings, now: datetime) -> int:
    """Pack every day older than HUBSCOPE_PACK_AFTER_DAYS, one transaction each. How many rows were packed away.

    Args:
        connection: under the owner role, outside a transaction.
        now: the present.
    """
    if not settings.pack_after_days:
        return 0
    before = kept_from(now, settings.pack_after_days)
    days = await connection.fetch(
        "SELECT DISTINCT day FROM rollup.stored_tool_latency_daily WHERE day < $1 ORDER BY day", before
    )
    packed: int = sum([await connection.fetchval("SELECT rollup.pack_day($1)", row["day"]) for row in days])
    if packed:
        # The room of what was packed away is for tomorrow's rows, now and not when autovacuum comes by.
        await connection.execute("VACUUM (ANALYZE) rollup.stored_tool_latency_daily, rollup.packed_tool_latency_daily")
    return packed
