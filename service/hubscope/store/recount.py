"""The nightly recount of the postgres engine: does every rollup equal a recount of raw? What does not is repaired.

A check is one statement per relation and day, so it sees one instant and stops nobody. Only a day that differs is
repaired, under fold's lock and in one REPEATABLE READ transaction, while ingest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from hubscope.store.pool import Connection
from hubscope.store.retention import ROLLUPS, Horizons, midnight

REPAIR_TRIES: Final = 5

_FOLD_LOCK: Final = "hashtextextended('hubscope.rollup.fold', 0)"
_RAW_SINCE: Final = """
SELECT greatest(
    (SELECT date_trunc('day', least(min(t.time), (SELECT min(e.time) FROM raw.server_events AS e)), 'UTC')
     FROM raw.tool_calls AS t),
    (SELECT since FROM ops.retained WHERE relation = 'raw')
)
"""
_NOTE: Final = """
INSERT INTO ops.touched_hours (tenant_id, hour)
SELECT DISTINCT tenant_id, day FROM rollup.tool_calls_daily WHERE day = $1 ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Repair:
    """One relation and day that differed from raw.

    Attributes:
        relation: rollup.<relation>.
        day: the day (UTC), at midnight.
        rows: how many rows were wrong, missing or too many.
    """

    relation: str
    day: datetime
    rows: int


async def recount(connection: Connection, horizons: Horizons, now: datetime) -> tuple[int, list[Repair]]:
    """Check every day that raw still covers, up to today, and repair what differs.

    Args:
        connection: under the owner role, outside a transaction.
        horizons: how far back each relation is whole by the settings.
        now: the present.

    Returns:
        How many days were checked, and what was repaired.
    """
    since: datetime | None = await connection.fetchval(_RAW_SINCE)
    if since is None:
        return 0, []
    repairs = []
    days = 0
    for day in _days(max(since, horizons.raw), now):
        days += 1
        for relation in _relations(day, horizons):
            if await connection.fetchval(f"SELECT rollup.check_{relation}($1, false)", day):
                repairs.append(Repair(relation, day, await _repair(connection, relation, day)))
    return days, repairs


def _days(since: datetime, now: datetime) -> Iterator[datetime]:
    day = midnight(since)
    while day <= now:
        yield day
        day += timedelta(days=1)


def _relations(day: datetime, horizons: Horizons) -> list[str]:
    """What must be whole for a day: hours that retention may have taken are not recounted."""
    return [name for relation, names in ROLLUPS.items() if day >= (horizons.of(relation) or day) for name in names]


async def _repair(connection: Connection, relation: str, day: datetime) -> int:
    # The lock comes before the snapshot: what a fold moved in between would be counted twice.
    await connection.execute(f"SELECT pg_advisory_lock({_FOLD_LOCK})")
    try:
        for attempt in range(1, REPAIR_TRIES + 1):
            try:
                async with connection.transaction(isolation="repeatable_read"):
                    rows: int = await connection.fetchval(f"SELECT rollup.check_{relation}($1, true)", day)
                    await connection.execute(_NOTE, day)
                return rows
            except asyncpg.SerializationError:
                if attempt == REPAIR_TRIES:
                    raise
    finally:
        await connection.execute(f"SELECT pg_advisory_unlock({_FOLD_LOCK})")
    raise AssertionError("unreachable")
