"""What the database can do, and which engine keeps the rollups because of it.

Two engines give the same relations: `timescale` (TimescaleDB Community: hypertables, continuous aggregates) and
`postgres` (everything else). The engine is chosen once, when the store is made, and kept in ops.store: moving a store
to TimescaleDB is a backup and a restore, never a silent change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from hubscope.errors import MigrationFailed
from hubscope.store.pool import Connection

Engine = Literal["postgres", "timescale"]
OLDEST_SERVER: Final = 15
TIMESCALE_OLDEST: Final = (2, 14)

_ASK: Final = """
SELECT
    current_setting('server_version') AS server_version,
    current_setting('server_version_num')::integer / 10000 AS major,
    (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescaledb,
    (SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'timescaledb') AS timescaledb_schema,
    current_setting('timescaledb.license', true) AS licence,
    (SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'timescaledb') AS timescaledb_available,
    to_regclass('ops.store') IS NOT NULL AS made
"""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a database can do.

    Attributes:
        server_version: such as 18.6.
        timescaledb: version of the extension in this database, or None.
        timescaledb_schema: where its functions stand.
        licence: `timescale` (Community) or `apache`, with the extension.
        engine: which engine keeps, or would keep, the rollups.
        reason: one sentence on why.
    """

    server_version: str
    timescaledb: str | None
    timescaledb_schema: str | None
    licence: str | None
    engine: Engine
    reason: str


async def detect(connection: Connection, *, enable_timeseries: bool = True) -> Capabilities:
    """Look at a database, under any role; see `choose`."""
    row = await connection.fetchrow(_ASK)
    assert row is not None
    kept = await connection.fetchrow("SELECT engine, reason FROM ops.store") if row["made"] else None
    engine, why = (kept["engine"], kept["reason"]) if kept else (None, None)
    return choose(row, engine, why, enable_timeseries=enable_timeseries)


def choose(
    found: Mapping[str, Any], kept: Engine | None, kept_because: str | None = None, *, enable_timeseries: bool
) -> Capabilities:
    """The engine for a database.

    Args:
        found: what was seen there (the columns of the question above).
        kept: the engine that the store was made with, or None for a new one.
        kept_because: the reason at that time.
        enable_timeseries: HUBSCOPE_ENABLE_TIMESERIES; false chooses the postgres engine for a new store.

    Raises:
        MigrationFailed: the server is too old, or a store made on TimescaleDB Community has lost it.
    """
    if found["major"] < OLDEST_SERVER:
        raise MigrationFailed(
            f"PostgreSQL {found['server_version']} is too old: hubscope needs {OLDEST_SERVER} or newer"
        )
    able, why_not = _timescale(found, enable_timeseries or kept == "timescale")
    if kept == "timescale" and found["timescaledb"] is None:
        raise MigrationFailed("this store was made on TimescaleDB, and the extension is gone: install it again")
    if kept == "timescale" and not able:
        raise MigrationFailed(f"this store was made on TimescaleDB Community, but {why_not}")
    if kept is not None:
        engine, reason = kept, f"the store was made with the {kept} engine"
        if kept_because:
            reason += f" (the reason then: {kept_because})"
        if kept == "postgres" and able:
            reason += "; TimescaleDB is here by now: back up and restore into a new database to use it"
    elif able:
        engine, reason = "timescale", f"TimescaleDB {found['timescaledb']} Community is installed"
    else:
        engine, reason = "postgres", why_not
    return Capabilities(
        server_version=found["server_version"],
        timescaledb=found["timescaledb"],
        timescaledb_schema=found["timescaledb_schema"],
        licence=found["licence"] if found["timescaledb"] else None,
        engine=engine,
        reason=reason,
    )


def _timescale(found: Mapping[str, Any], enable_timeseries: bool) -> tuple[bool, str]:
    """Whether the timescale engine can be used, and if not, why."""
    if not enable_timeseries:
        return False, "HUBSCOPE_ENABLE_TIMESERIES is false"
    if found["timescaledb"] is None:
        here = "available but not installed in this database" if found["timescaledb_available"] else "not installed"
        return False, f"TimescaleDB is {here}"
    if found["licence"] != "timescale":
        return False, "this TimescaleDB is the Apache edition, which has no continuous aggregates"
    version = tuple(int(part) for part in found["timescaledb"].split("-")[0].split(".")[:2])
    if version < TIMESCALE_OLDEST:
        oldest = ".".join(str(part) for part in TIMESCALE_OLDEST)
        return False, f"TimescaleDB {found['timescaledb']} is too old: {oldest} or newer is needed"
    return True, ""
