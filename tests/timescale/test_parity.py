"""Both engines show the same store: what stands above them must not care which one it is."""

from __future__ import annotations

import pytest

from hubscope.app import migrate_store
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from tests.conftest import ROLE_PREFIX

pytestmark = [pytest.mark.timescale, pytest.mark.store]

SHARED = "('raw', 'hub', 'ops', 'analytics', 'health', 'uptime', 'audit')"
OWN = {
    "postgres": {"rollup.pending"},
    "timescale": {"rollup.late_marks", "rollup.refreshed"},
}
"""Tables that only one engine needs (beside stored_*, packed_*, pending_* and cagg_*, behind the relations of both)."""

COLUMNS = f"""
SELECT
    class.relnamespace::regnamespace || '.' || class.relname AS relation,
    array_agg(attribute.attname || ' ' || format_type(attribute.atttypid, attribute.atttypmod)
        ORDER BY attribute.attnum) AS columns
FROM pg_class AS class
INNER JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid AND attribute.attnum > 0
WHERE
    class.relkind IN ('r', 'p', 'v')
    AND NOT class.relispartition
    AND NOT attribute.attisdropped
    AND (class.relnamespace::regnamespace::text IN {SHARED} OR class.relnamespace = 'rollup'::regnamespace)
    AND class.relname !~ '^(stored|packed|pending|cagg)_'
GROUP BY 1
"""
FUNCTIONS = f"""
SELECT oid::regprocedure::text || ' ' || format_type(prorettype, NULL) AS name
FROM pg_proc
WHERE (pronamespace::regnamespace::text IN {SHARED} OR pronamespace = 'rollup'::regnamespace)
AND proname !~ '^(fold|recount_|check_|pack_|pending_)'
"""


async def columns_of(connection: Connection, engine: str) -> dict[str, list[str]]:
    rows = await connection.fetch(COLUMNS)
    return {row["relation"]: row["columns"] for row in rows if row["relation"] not in OWN[engine]}


async def test_both_engines_have_the_same_relations_columns_and_functions(
    timescale_database: str, admin: Connection
) -> None:
    await migrate_store(Settings.load(database_url=timescale_database, role_prefix=ROLE_PREFIX), timescale_database)
    other = await connect(timescale_database, name="tests")
    try:
        assert await columns_of(other, "timescale") == await columns_of(admin, "postgres")
        names = [{row["name"] for row in await one.fetch(FUNCTIONS)} for one in (other, admin)]
        assert names[0] == names[1]
        assert "rollup.tool_latency_daily" in await columns_of(admin, "postgres")
    finally:
        await other.close()
