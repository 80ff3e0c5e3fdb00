"""Retention: what is past its days goes, whole days (UTC) at a time, and what stands on it stays true.

Before anything is deleted, what waits is settled (pending calls folded, late hours refreshed) and the new horizon is
written to ops.retained; nothing refreshes or recounts below it. Every function wants a connection under the owner role,
outside a transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Literal

import asyncpg

from hubscope.errors import JobFailed
from hubscope.settings import Settings
from hubscope.store.aggregates import DAILY, HOURLY, refresh_forward, settle_late
from hubscope.store.capabilities import Engine
from hubscope.store.policies import run_policies, timescaledb_schema
from hubscope.store.pool import Connection

Relation = Literal["raw", "hourly", "hourly_latency", "daily", "audit"]
DAY: Final = timedelta(days=1)
RAW: Final = ("tool_calls", "server_events", "hub_events")
FOLD_BATCHES: Final = 2000
FOLD_TRIES: Final = 50
FOLD_PAUSE_S: Final = 0.1
LOCK_TIMEOUT: Final = "5s"

ROLLUPS: Final[dict[Relation, tuple[str, ...]]] = {
    "hourly": ("tool_calls_hourly", "server_checks_hourly"),
    "hourly_latency": ("tool_latency_hourly",),
    "daily": ("tool_calls_daily", "tool_latency_daily"),
}
"""What is kept as long -> rollup.<name>."""

_PARTITIONS: Final = r"""
SELECT
    child.relname::text AS name,
    parent.relname::text AS parent,
    coalesce(inherits.inhdetachpending, false) AS half_detached,
    to_date(right(child.relname, 8), 'YYYYMMDD') AS day,
    greatest(child.reltuples, 0)::bigint AS rows,
    pg_total_relation_size(child.oid) AS bytes
FROM pg_class AS child
LEFT JOIN pg_inherits AS inherits ON inherits.inhrelid = child.oid
LEFT JOIN pg_class AS parent ON parent.oid = inherits.inhparent
WHERE
    child.relnamespace = 'raw'::regnamespace
    AND child.relkind = 'r'
    AND child.relname ~ '^(tool_calls|server_events|hub_events)_p\d{8}$'
    AND to_date(right(child.relname, 8), 'YYYYMMDD') < $1
ORDER BY day, name
"""
# Months of the audit log that end before a time.
_AUDIT_PARTITIONS: Final = r"""
SELECT
    child.relname::text AS name,
    parent.relname::text AS parent,
    coalesce(inherits.inhdetachpending, false) AS half_detached,
    greatest(child.reltuples, 0)::bigint AS rows,
    pg_total_relation_size(child.oid) AS bytes
FROM pg_class AS child
LEFT JOIN pg_inherits AS inherits ON inherits.inhrelid = child.oid
LEFT JOIN pg_class AS parent ON parent.oid = inherits.inhparent
WHERE
    child.relnamespace = 'hub'::regnamespace
    AND child.relkind = 'r'
    AND child.relname ~ '^security_audit_log_p\d{6}$'
    AND to_date(right(child.relname, 6), 'YYYYMM') + interval '1 month' <= $1::date
ORDER BY name
"""
_STORED_ROWS: Final = """
SELECT count(*) AS rows, coalesce(sum(pg_column_size(stored.*) + 28), 0)::bigint AS bytes
FROM rollup.{table} AS stored WHERE stored.{unit} < $1
"""
_MARKED_BEFORE: Final = "SELECT count(*) FROM rollup.late_marks WHERE hour < $1"
_PENDING_BEFORE: Final = """
SELECT EXISTS (SELECT FROM rollup.pending, unnest(call_hours || check_hours) AS d (hour) WHERE d.hour < $1)
"""
_RAISE: Final = """
INSERT INTO ops.retained (relation, since) VALUES ($1, $2)
ON CONFLICT (relation) DO UPDATE SET since = greatest(retained.since, excluded.since)
"""
# Counters stand on days: what goes is added to what is kept for ever, in the transaction that deletes it.
_ARCHIVE: Final = """
INSERT INTO rollup.archived_tool_calls AS kept (
    tenant_id, server, tool, ok_calls, error_calls, timeout_calls, cancelled_calls, denied_calls
)
SELECT
    tenant_id, server, tool, sum(ok_calls), sum(error_calls), sum(timeout_calls), sum(cancelled_calls),
    sum(denied_calls)
FROM rollup.{table}
WHERE day < $1
GROUP BY tenant_id, server, tool
ORDER BY tenant_id, server, tool
ON CONFLICT (tenant_id, server, tool) DO UPDATE SET
    ok_calls = kept.ok_calls + excluded.ok_calls,
    error_calls = kept.error_calls + excluded.error_calls,
    timeout_calls = kept.timeout_calls + excluded.timeout_calls,
    cancelled_calls = kept.cancelled_calls + excluded.cancelled_calls,
    denied_calls = kept.denied_calls + excluded.denied_calls
"""


@dataclass(frozen=True, slots=True)
class Horizons:
    """From when on (midnight, UTC) each relation is kept. daily and audit are None where they are kept for ever."""

    raw: datetime
    hourly: datetime
    hourly_latency: datetime
    daily: datetime | None
    audit: datetime | None = None

    def of(self, relation: Relation) -> datetime | None:
        """The horizon of one relation."""
        horizon: datetime | None = getattr(self, relation)
        return horizon


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is past its days.

    Attributes:
        relation: raw, hourly, hourly_latency, daily or audit.
        table: the table it is of.
        name: the partition or chunk; the table itself where rows of it go.
        before: everything before this goes.
        rows: about how many.
        bytes: about how much room they take, indexes included.
    """

    relation: Relation
    table: str
    name: str
    before: datetime
    rows: int
    bytes: int


def midnight(time: datetime) -> datetime:
    """The start of a day (UTC)."""
    return time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def kept_from(now: datetime, days: int) -> datetime:
    """The oldest moment of what is kept for so many days: retention takes whole days (UTC)."""
    return midnight(now - timedelta(days=days))


def horizons(settings: Settings, now: datetime) -> Horizons:
    """What the settings say at a time."""
    return Horizons(
        raw=kept_from(now, settings.retention_raw_days),
        hourly=kept_from(now, settings.retention_hourly_days),
        hourly_latency=kept_from(now, settings.retention_hourly_latency_days),
        daily=kept_from(now, settings.retention_daily_days) if settings.retention_daily_days else None,
        audit=kept_from(now, settings.retention_audit_days) if settings.retention_audit_days else None,
    )


async def importable_from(connection: Connection, settings: Settings, now: datetime) -> datetime:
    """From when on history may come in: what is older, retention would take again, or has taken the neighbours of.

    One day younger than the horizon of raw, so that a horizon that moves meanwhile passes nothing that comes.
    """
    taken: datetime | None = await connection.fetchval("SELECT since FROM ops.retained WHERE relation = 'raw'")
    oldest = horizons(settings, now).raw + DAY
    return oldest if taken is None else max(oldest, taken)


async def plan(connection: Connection, engine: Engine, wanted: Horizons) -> list[Part]:
    """What `retain` would take now."""
    parts = await (_plan_timescale if engine == "timescale" else _plan_postgres)(connection, wanted)
    return parts + await _plan_audit(connection, wanted)


async def retain(connection: Connection, engine: Engine, wanted: Horizons) -> list[Part]:
    """Take what is past its days.

    Returns:
        What went.

    Raises:
        JobFailed: something could not be settled first; nothing is taken then.
    """
    await _settle(connection, engine, wanted)
    parts = await plan(connection, engine, wanted)
    for relation in sorted({part.relation for part in parts} - {"audit"}):  # nothing else is made of audit records
        await connection.execute(_RAISE, relation, wanted.of(relation))
    await (_take_timescale if engine == "timescale" else _take_postgres)(connection, parts, wanted)
    if wanted.audit is not None:
        await _drop_partitions(connection, "hub", await connection.fetch(_AUDIT_PARTITIONS, wanted.audit.date()))
    return parts


async def _settle(connection: Connection, engine: Engine, wanted: Horizons) -> None:
    if engine == "postgres":
        await _fold_before(connection, wanted.raw)
        return
    await refresh_forward(connection)
    await settle_late(connection)
    # What was never refreshed stands in raw alone.
    if await connection.fetchval("SELECT NOT EXISTS (SELECT 1 FROM rollup.refreshed)"):
        return  # nothing is older than two hours
    for names, above in ((HOURLY, wanted.raw), (DAILY, max(wanted.hourly, wanted.hourly_latency))):
        behind = await connection.fetch(
            "SELECT name FROM unnest($1::text[]) AS wanted (name) WHERE NOT EXISTS ("
            " SELECT 1 FROM rollup.refreshed WHERE refreshed.aggregate = wanted.name AND refreshed.until >= $2)",
            names,
            above,
        )
        if behind:
            raise JobFailed(f"retention waits: {', '.join(row[0] for row in behind)} is not refreshed up to {above}")
    if await connection.fetchval(_MARKED_BEFORE, wanted.raw):
        raise JobFailed(f"retention waits: late hours before {wanted.raw} are not settled")


# Plain PostgreSQL: day partitions and rows.


async def _fold_before(connection: Connection, day: datetime) -> None:
    """Fold until nothing that is pending happened before a day: it is read from the partitions that are to go.

    Raises:
        JobFailed: other folds, or a repair, hold fold's lock for too long.
    """
    for _ in range(FOLD_TRIES):
        while await connection.fetchval("SELECT rollup.fold($1)", FOLD_BATCHES) == FOLD_BATCHES:
            pass
        if not await connection.fetchval(_PENDING_BEFORE, day):
            return
        await asyncio.sleep(FOLD_PAUSE_S)  # another fold is at work
    raise JobFailed(f"retention waits: calls before {day} are not folded into the rollups; the next run goes on")


async def _plan_postgres(connection: Connection, wanted: Horizons) -> list[Part]:
    parts = [
        Part(
            "raw", f"raw.{row['name'].rpartition('_')[0]}", f"raw.{row['name']}", wanted.raw, row["rows"], row["bytes"]
        )
        for row in await connection.fetch(_PARTITIONS, wanted.raw.date())
    ]
    for relation, name, unit in _stored():
        before = wanted.of(relation)
        if before is None:
            continue
        found = await connection.fetchrow(_STORED_ROWS.format(table=name, unit=unit), before)
        assert found is not None
        if found["rows"]:
            parts.append(Part(relation, f"rollup.{name}", f"rollup.{name}", before, found["rows"], found["bytes"]))
    return parts


def _stored() -> list[tuple[Relation, str, str]]:
    """(relation, table of rollup, column of time) of everything that is stored."""
    stored: list[tuple[Relation, str, str]] = [
        (relation, f"stored_{name}", "day" if relation == "daily" else "hour")
        for relation, names in ROLLUPS.items()
        for name in names
    ]
    return [*stored, ("daily", "packed_tool_latency_daily", "day")]


async def _take_postgres(connection: Connection, parts: list[Part], wanted: Horizons) -> None:
    # What was committed since `_settle` looked is read from a detached partition all the same; more comes no longer.
    await _drop_partitions(
        connection,
        "raw",
        await connection.fetch(_PARTITIONS, wanted.raw.date()),
        detached=partial(_fold_before, connection, wanted.raw),
    )
    gone = {part.name for part in parts}
    for relation, name, unit in _stored():
        before = wanted.of(relation)
        if f"rollup.{name}" not in gone or before is None:
            continue
        async with connection.transaction():
            if name == "stored_tool_calls_daily":
                await connection.execute(_ARCHIVE.format(table=name), before)
            await connection.execute(f"DELETE FROM rollup.{name} WHERE {unit} < $1", before)
        # The room is for new rows, now and not when autovacuum comes by.
        await connection.execute(f"VACUUM (ANALYZE) rollup.{name}")


async def _nothing() -> None:
    """What there is to do between detaching and dropping, unless told otherwise."""


async def _drop_partitions(
    connection: Connection,
    schema: str,
    rows: Sequence[asyncpg.Record],
    detached: Callable[[], Awaitable[None]] = _nothing,
) -> None:
    """Detach and drop partitions; what an earlier run has left half done is finished.

    Args:
        detached: called when all are detached, before the first is dropped.

    Raises:
        JobFailed: one is in use.
    """
    if not rows:
        return
    await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    try:
        for row in rows:
            child = f'{schema}."{row["name"]}"'
            if row["parent"] is not None:
                # Concurrently: writers and readers of the other partitions never wait for it.
                how = "FINALIZE" if row["half_detached"] else "CONCURRENTLY"
                await connection.execute(f'ALTER TABLE {schema}."{row["parent"]}" DETACH PARTITION {child} {how}')
        await detached()
        for row in rows:
            await connection.execute(f'DROP TABLE {schema}."{row["name"]}"')
    except (asyncpg.LockNotAvailableError, asyncpg.ObjectInUseError) as error:
        raise JobFailed(
            f"retention waits: a partition of {schema} is in use ({error}); the next run goes on"
        ) from error
    finally:
        await connection.execute("RESET lock_timeout")


# The audit log: months, on both engines.


async def _plan_audit(connection: Connection, wanted: Horizons) -> list[Part]:
    if wanted.audit is None:
        return []
    return [
        Part("audit", "hub.security_audit_log", f"hub.{row['name']}", wanted.audit, row["rows"], row["bytes"])
        for row in await connection.fetch(_AUDIT_PARTITIONS, wanted.audit.date())
    ]


# TimescaleDB: chunks.

# Whole chunks before a time, with their size; {ts} is where TimescaleDB's functions stand.
_CHUNKS: Final = """
SELECT
    format('%I.%I', chunk.chunk_schema, chunk.chunk_name) AS name,
    chunk.range_end,
    sizes.total_bytes AS bytes,
    {ts}.approximate_row_count(format('%I.%I', chunk.chunk_schema, chunk.chunk_name)::regclass) AS rows
FROM timescaledb_information.chunks AS chunk
INNER JOIN {ts}.chunks_detailed_size($1::text::regclass) AS sizes
    ON sizes.chunk_schema = chunk.chunk_schema AND sizes.chunk_name = chunk.chunk_name
WHERE chunk.range_end <= $2
ORDER BY chunk.range_end
"""


def _hypertables() -> list[tuple[Relation, str]]:
    rollups = [(relation, f"rollup.cagg_{name}") for relation, names in ROLLUPS.items() for name in names]
    return [*(("raw", f"raw.{name}") for name in RAW), *rollups]


async def _plan_timescale(connection: Connection, wanted: Horizons) -> list[Part]:
    chunks = _CHUNKS.format(ts=await timescaledb_schema(connection))
    parts = []
    for relation, name in _hypertables():
        before = wanted.of(relation)
        if before is None:
            continue
        for chunk in await connection.fetch(chunks, name, before):
            table, rows = name.replace("cagg_", ""), max(chunk["rows"] or 0, 0)
            parts.append(Part(relation, table, chunk["name"], before, rows, chunk["bytes"]))
    return parts


async def _take_timescale(connection: Connection, parts: list[Part], wanted: Horizons) -> None:
    await run_policies(connection, "policy_retention")
    if wanted.daily is None or not any(part.relation == "daily" for part in parts):
        return
    # Days carry the counters: a chunk goes in one transaction with what is added to the archive, oldest first.
    schema = await timescaledb_schema(connection)
    chunks = _CHUNKS.format(ts=schema)
    for name in ROLLUPS["daily"]:
        for chunk in await connection.fetch(chunks, f"rollup.cagg_{name}", wanted.daily):
            async with connection.transaction():
                if name == "tool_calls_daily":
                    await connection.execute(_ARCHIVE.format(table=f"cagg_{name}"), chunk["range_end"])
                await connection.execute(
                    f"SELECT {schema}.drop_chunks('rollup.cagg_{name}', older_than => $1::timestamptz)",
                    chunk["range_end"],
                )
