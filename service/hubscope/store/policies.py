"""What the timescale engine has registered in TimescaleDB: columnstore on old chunks, and retention.

Policies are kept as the settings say and shown in timescaledb_information.jobs, but TimescaleDB does not schedule them:
hubscope's own timetable runs each by `CALL run_job`, after it settled what must not be lost, and records how that went.
(The scheduler can fail silently, and it would drop raw hours that no rollup has taken in yet.) Aggregates take no
columnstore policy without a refresh policy, so their chunks are converted one by one.
"""

from __future__ import annotations

from typing import Final

from hubscope.settings import Settings
from hubscope.store.pool import Connection
from hubscope.store.roles import Roles, quote

# Conflict checks and exact refreshes look for single events and hours: the keys stand in the order, time first.
COLUMNSTORE_RAW: Final = {
    "raw.tool_calls": ("tenant_id, server", "time DESC, event_id"),
    "raw.server_events": ("tenant_id, server", "time DESC, event_id"),
    "raw.hub_events": ("tenant_id, type", "time DESC, event_id"),
}
COLUMNSTORE_ROLLUPS: Final = {
    "rollup.cagg_tool_calls_hourly": ("tenant_id, server", "hour DESC, tool, hub, transport, client"),
    "rollup.cagg_server_checks_hourly": ("tenant_id, server", "hour DESC, source, hub"),
    "rollup.cagg_tool_calls_daily": ("tenant_id, server", "day DESC, tool, hub, transport, client"),
    "rollup.cagg_tool_latency_daily": ("tenant_id, server", "day DESC, tool, hub, bucket"),
}
"""Relation -> segment by, order by. Hourly latency goes before it would be worth it."""
DAY_CHUNKS: Final = (
    "rollup.cagg_tool_calls_hourly",
    "rollup.cagg_tool_latency_hourly",
    "rollup.cagg_server_checks_hourly",
)
"""Aggregates whose chunks hold one day (TimescaleDB would make them ten), so that retention takes whole days."""

_KEPT: Final = "SELECT checksum FROM ops.definitions WHERE name = $1"
_KEEP: Final = """
INSERT INTO ops.definitions (name, checksum) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, replayed_at = clock_timestamp()
"""


async def sync_policies(connection: Connection, roles: Roles, settings: Settings) -> list[str]:
    """Make TimescaleDB's policies what the settings say. Names of the relations whose policies changed.

    Args:
        connection: the store's user, who may act as the owner role and change it.
    """
    schema = await timescaledb_schema(connection)
    if not await connection.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", roles.owner):
        # TimescaleDB takes no policy from an owner who may not log in. There is no password, so nobody can by one.
        await connection.execute(f"ALTER ROLE {quote(roles.owner)} LOGIN")
    changed = []
    await connection.execute(f"SET ROLE {quote(roles.owner)}")
    try:
        for relation, statements in _wanted(schema, settings).items():
            name, text = f"policy:{relation}", "; ".join(statements)
            if await connection.fetchval(_KEPT, name) == text:
                continue
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement)
                await connection.execute(_KEEP, name, text)
            changed.append(relation)
        await connection.execute(
            f"SELECT {schema}.alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs"
            " WHERE owner::text = current_user::text AND scheduled"
        )
    finally:
        await connection.execute("RESET ROLE")
    return changed


def _wanted(schema: str, settings: Settings) -> dict[str, list[str]]:
    """Relation -> the statements that bring its policies to what the settings say, whatever they were before."""
    wanted: dict[str, list[str]] = {}
    after = settings.compress_after_days
    for relation, (segment_by, order_by) in COLUMNSTORE_RAW.items():
        wanted[relation] = [
            *_columnstore("TABLE", relation, segment_by, order_by),
            f"SELECT {schema}.remove_compression_policy('{relation}', if_exists => true)",
            *(
                [f"SELECT {schema}.add_compression_policy('{relation}', compress_after => INTERVAL '{after} days')"]
                if after
                else []
            ),
            *_retention(schema, relation, settings.retention_raw_days),
        ]
    for relation, (segment_by, order_by) in COLUMNSTORE_ROLLUPS.items():
        wanted[relation] = _columnstore("MATERIALIZED VIEW", relation, segment_by, order_by)
    for relation in DAY_CHUNKS:
        days = settings.retention_hourly_latency_days if "latency" in relation else settings.retention_hourly_days
        wanted.setdefault(relation, []).extend(
            [
                f"SELECT {schema}.set_chunk_time_interval('{relation}', INTERVAL '1 day')",
                *_retention(schema, relation, days),
            ]
        )
    return wanted


def _columnstore(kind: str, relation: str, segment_by: str, order_by: str) -> list[str]:
    return [
        f"ALTER {kind} {relation} SET (timescaledb.compress = true,"
        f" timescaledb.compress_segmentby = '{segment_by}', timescaledb.compress_orderby = '{order_by}')"
    ]


def _retention(schema: str, relation: str, days: int) -> list[str]:
    return [
        f"SELECT {schema}.remove_retention_policy('{relation}', if_exists => true)",
        f"SELECT {schema}.add_retention_policy('{relation}', drop_after => INTERVAL '{days} days')",
    ]


async def run_policies(connection: Connection, kind: str) -> int:
    """Run every policy of a kind (policy_retention, policy_compression) that belongs to the current role; how many."""
    schema = await timescaledb_schema(connection)
    jobs = await connection.fetch(
        "SELECT job_id FROM timescaledb_information.jobs"
        " WHERE proc_name = $1 AND owner::text = current_user::text ORDER BY job_id",
        kind,
    )
    for job in jobs:
        await connection.execute(f"CALL {schema}.run_job({job['job_id']})")
    return len(jobs)


async def to_columnstore(connection: Connection, settings: Settings) -> int:
    """Turn old chunks into columnstore. How many chunks were turned.

    Args:
        connection: under the owner role, outside a transaction.
    """
    if not settings.compress_after_days:
        return 0
    schema = await timescaledb_schema(connection)
    count = "SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed AND hypertable_schema = 'raw'"
    before = await connection.fetchval(count)
    await run_policies(connection, "policy_compression")
    turned: int = await connection.fetchval(count) - before
    for relation in COLUMNSTORE_ROLLUPS:
        chunks = await connection.fetch(
            "SELECT format('%I.%I', chunk.chunk_schema, chunk.chunk_name) AS name"
            " FROM timescaledb_information.chunks AS chunk"
            " INNER JOIN timescaledb_information.continuous_aggregates AS aggregate"
            " ON aggregate.materialization_hypertable_schema = chunk.hypertable_schema"
            " AND aggregate.materialization_hypertable_name = chunk.hypertable_name"
            " WHERE aggregate.view_schema || '.' || aggregate.view_name = $1 AND NOT chunk.is_compressed"
            " AND chunk.range_end <= now() - make_interval(days => $2) ORDER BY chunk.range_end",
            relation,
            settings.compress_after_days,
        )
        for chunk in chunks:
            await connection.execute(f"SELECT {schema}.compress_chunk('{chunk['name']}', if_not_compressed => true)")
        turned += len(chunks)
    return turned


async def timescaledb_schema(connection: Connection) -> str:
    """Where TimescaleDB's functions stand, quoted."""
    schema: str = await connection.fetchval(
        "SELECT quote_ident(nspname) FROM pg_extension INNER JOIN pg_namespace ON pg_namespace.oid = extnamespace"
        " WHERE extname = 'timescaledb'"
    )
    return schema
