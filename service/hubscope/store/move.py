"""Move a store into a new one of either engine: how it comes to TimescaleDB, or from the embedded database to a server.

Everything is read in one snapshot of the old store and streamed; nothing there is changed. Single events and state are
copied. Rollups of the time that raw still covers follow from raw on TimescaleDB (they are refreshed) and are copied on
plain PostgreSQL; older ones are copied on both, into the tables behind the relations.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from hubscope.errors import InvalidRequest
from hubscope.store.aggregates import refresh_forward
from hubscope.store.capabilities import Engine
from hubscope.store.migrate import newest_version
from hubscope.store.pool import Connection
from hubscope.store.retention import RAW, ROLLUPS

CHUNKS_IN_FLIGHT: Final = 16
"""Blocks of the copy protocol (about 64 KiB each) between reading and writing."""

_COLUMNS: Final = """
SELECT array_agg(quote_ident(attname) ORDER BY attnum)
FROM pg_attribute
WHERE
    attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
    -- The transaction that stored a row is one of the old cluster's. It may be pending there; here nothing is.
    AND atttypid <> 'xid8'::regtype
"""
_BEHIND: Final = """
SELECT materialization_hypertable_schema AS schema, materialization_hypertable_name AS name
FROM timescaledb_information.continuous_aggregates WHERE view_schema = 'rollup' AND view_name = $1
"""
_STATE: Final = """
SELECT relname::text FROM pg_class
WHERE relnamespace = 'hub'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname
"""

_GO_ON: Final = """
SELECT setval(pg_get_serial_sequence('hub.stream_outbox', 'id'), max(id))
FROM hub.stream_outbox HAVING max(id) IS NOT NULL
"""


async def move(old: Connection, new: Connection, *, tell: Callable[[str], None] = lambda _: None) -> int:
    """Copy everything from one store into a new one.

    Args:
        old: the old store, under its worker role or as its user; only read.
        new: the new store, migrated and empty, under the owner role, outside a transaction.
        tell: called with one line per step.

    Returns:
        How many single events were copied.

    Raises:
        InvalidRequest: a store is of another version, or the new one is not empty; nothing was copied then.
    """
    engine = await _ready(old, new)
    events = 0
    async with old.transaction(isolation="repeatable_read", readonly=True):
        horizon = await old.fetchval("SELECT since FROM ops.retained WHERE relation = 'raw'")
        async with new.transaction():
            await new.execute("SET LOCAL hubscope.quiet = 'on'")  # what is copied was told when it happened
            await _make_room(old, new)
            for table in RAW:
                count = await _copy(old, new, f"raw.{table}", "raw", table)
                tell(f"raw.{table}: {count:,} events")
                events += count
            for names in ROLLUPS.values():
                for name in names:
                    unit = "day" if name.endswith("_daily") else "hour"
                    schema, table = await _behind(new, engine, name)
                    older = f" WHERE {unit} < '{horizon}'" if horizon is not None else " WHERE false"
                    where = older if engine == "timescale" else ""
                    count = await _copy(old, new, f"rollup.{name}", schema, table, where)
                    tell(f"rollup.{name}: {count:,} rows")
            await new.execute("DELETE FROM ops.retained")
            await _copy(old, new, "ops.retained", "ops", "retained")
            await _copy(old, new, "rollup.archived_tool_calls", "rollup", "archived_tool_calls")
            for row in await old.fetch(_STATE):
                count = await _copy(old, new, f"hub.{row['relname']}", "hub", row["relname"])
                tell(f"hub.{row['relname']}: {count:,} rows")
            await new.execute(_GO_ON)
    if engine == "timescale":
        tell("refreshing the aggregates from raw")
        await refresh_forward(new)
    return events


async def _ready(old: Connection, new: Connection) -> Engine:
    """The engine of the new store, once both can be used."""
    for which, store in (("old", old), ("new", new)):
        if await store.fetchval("SELECT to_regclass('ops.store') IS NULL"):
            raise InvalidRequest(f"the {which} store is no hubscope store: run `hubscope migrate` on it")
        kept: Engine = await store.fetchval("SELECT engine FROM ops.store")
        version, newest = await store.fetchval("SELECT max(version) FROM ops.migrations"), newest_version(engine=kept)
        if version != newest:
            raise InvalidRequest(
                f"the {which} store is at migration {version}, not {newest}: run `hubscope migrate` on it"
            )
    for table in RAW:
        if await new.fetchval(f"SELECT EXISTS (SELECT FROM raw.{table})"):
            raise InvalidRequest(f"the new store is not empty: raw.{table} has events; move into a new database")
    return kept


async def _make_room(old: Connection, new: Connection) -> None:
    """Partitions for everything that comes."""
    for table in RAW:
        span = await old.fetchrow(f"SELECT min(time) AS first, max(time) AS last FROM raw.{table}")
        if span is not None and span["first"] is not None:
            await new.execute(
                "SELECT ops.ensure_partitions($1::date, $2::date)", span["first"].date(), span["last"].date()
            )
    span = await old.fetchrow("SELECT min(recorded_at) AS first, max(recorded_at) AS last FROM hub.security_audit_log")
    if span is not None and span["first"] is not None:
        await new.execute(
            "SELECT ops.ensure_audit_partitions($1::date, $2::date)", span["first"].date(), span["last"].date()
        )


async def _behind(new: Connection, engine: Engine, name: str) -> tuple[str, str]:
    """The table that keeps the rows of a rollup."""
    if engine == "postgres":
        return "rollup", f"stored_{name}"
    row = await new.fetchrow(_BEHIND, f"cagg_{name}")
    assert row is not None
    return row["schema"], row["name"]


async def _copy(old: Connection, new: Connection, relation: str, schema: str, table: str, where: str = "") -> int:
    """Stream rows from one database to the other; how many."""
    columns: list[str] = await old.fetchval(_COLUMNS, relation)
    blocks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_IN_FLIGHT)

    async def read() -> None:
        try:
            await old.copy_from_query(
                f"SELECT {', '.join(columns)} FROM {relation}{where}", output=blocks.put, format="binary"
            )
        finally:
            await blocks.put(None)

    async def received() -> AsyncIterator[bytes]:
        while (block := await blocks.get()) is not None:
            yield block

    reading = asyncio.create_task(read())
    try:
        done = await new.copy_to_table(
            table, schema_name=schema, columns=[name.strip('"') for name in columns], source=received(), format="binary"
        )
        await reading
    finally:
        reading.cancel()
    return int(done.split()[-1])
