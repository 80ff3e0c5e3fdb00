"""Continuous aggregates of the timescale engine: refreshed forward, and again where late rows were marked.

Every function needs a connection of its own outside a transaction, under the owner role: a refresh commits by itself
and belongs to the owner of the aggregate.

What keeps the rollups equal to a recount at any instant (migration 0004 and the views):
- no refresh goes past two hours ago, and ingest marks every hour older than one hour, so between the two there is an
  hour for transactions that began before;
- a mark makes the views read its hour from raw; it is deleted only after a refresh that began after it was read.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from hubscope.store.policies import timescaledb_schema
from hubscope.store.pool import Connection

HOURLY: Final = ("cagg_tool_calls_hourly", "cagg_tool_latency_hourly", "cagg_server_checks_hourly")
DAILY: Final = ("cagg_tool_calls_daily", "cagg_tool_latency_daily")
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)

_BOUND: Final = "SELECT date_trunc('hour', now() - interval '2 hours', 'UTC')"
_FIRST_HOUR: Final = """
SELECT greatest(
    date_trunc(
        'hour', least((SELECT min(time) FROM raw.tool_calls), (SELECT min(time) FROM raw.server_events)), 'UTC'
    ),
    (SELECT since FROM ops.retained WHERE relation = 'raw')
)
"""
# Below the horizon of raw a refresh would cut away what the aggregate still knows.
_MARKS: Final = """
SELECT tenant_id, hour, mark_id FROM rollup.late_marks
WHERE hour < $1 AND hour >= coalesce((SELECT since FROM ops.retained WHERE relation = 'raw'), '-infinity')
"""
_REACHED: Final = """
INSERT INTO rollup.refreshed (aggregate, until) VALUES ($1, $2)
ON CONFLICT (aggregate) DO UPDATE SET until = greatest(refreshed.until, excluded.until)
"""
# Marks that are gone are hours that changed: the incremental marts are told in the same statement.
_SETTLED: Final = """
WITH settled AS (
    DELETE FROM rollup.late_marks
    WHERE (tenant_id, hour, mark_id) IN (SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::uuid[]))
    RETURNING tenant_id, hour
)
INSERT INTO ops.touched_hours (tenant_id, hour) SELECT DISTINCT tenant_id, hour FROM settled ON CONFLICT DO NOTHING
"""


async def refresh_forward(connection: Connection) -> int:
    """Refresh every aggregate from where it got to up to two hours ago (whole days for the daily ones).

    Returns:
        How many aggregates had something to refresh.
    """
    bound: datetime = await connection.fetchval(_BOUND)
    first: datetime | None = await connection.fetchval(_FIRST_HOUR)
    if first is None:
        return 0
    midnight = bound.replace(hour=0)
    done = 0
    for aggregate, start, end in (
        *((name, first, bound) for name in HOURLY),
        *((name, first.replace(hour=0), midnight) for name in DAILY),
    ):
        until = await connection.fetchval("SELECT until FROM rollup.refreshed WHERE aggregate = $1", aggregate)
        if (until or start) < end:
            await _refresh(connection, aggregate, until or start, end)
            await connection.execute(_REACHED, aggregate, end)
            done += 1
        elif until is None:
            # There is nothing yet that old; what comes late for it is marked.
            await connection.execute(_REACHED, aggregate, end)
    return done


async def settle_late(connection: Connection) -> int:
    """Refresh just the hours that late rows were marked for, then delete the marks that were read before.

    Returns:
        How many marks were settled. Marks younger than the bound wait: their hours are read from raw meanwhile.
    """
    bound: datetime = await connection.fetchval(_BOUND)
    marks = await connection.fetch(_MARKS, bound)
    if not marks:
        return 0
    hours = {mark["hour"] for mark in marks}
    for start, end in _spans(hours, HOUR):
        for aggregate in HOURLY:
            await _refresh(connection, aggregate, start, end)
    days = {hour.replace(hour=0) for hour in hours}
    for aggregate in DAILY:
        until = await connection.fetchval("SELECT until FROM rollup.refreshed WHERE aggregate = $1", aggregate)
        # Days that were never refreshed are added up from the hours on the fly.
        for start, end in _spans({day for day in days if until is not None and day < until}, DAY):
            await _refresh(connection, aggregate, start, end)
    await connection.execute(
        _SETTLED,
        [mark["tenant_id"] for mark in marks],
        [mark["hour"] for mark in marks],
        [mark["mark_id"] for mark in marks],
    )
    return len(marks)


async def _refresh(connection: Connection, aggregate: str, start: datetime, end: datetime) -> None:
    schema = await timescaledb_schema(connection)
    await connection.execute(f"CALL {schema}.refresh_continuous_aggregate('rollup.{aggregate}', '{start}', '{end}')")


def _spans(starts: set[datetime], length: timedelta) -> list[tuple[datetime, datetime]]:
    """Neighbouring hours or days put together: [start, end) each."""
    spans: list[tuple[datetime, datetime]] = []
    for start in sorted(starts):
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], start + length)
        else:
            spans.append((start, start + length))
    return spans
