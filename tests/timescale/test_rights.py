"""Each role may do the same on both engines."""

from __future__ import annotations

import re
from typing import Final

import pytest

from hubscope.app import migrate_store
from hubscope.settings import Settings
from tests.conftest import ROLE_PREFIX, ROLES
from tests.integration.store.test_roles import EVERYTHING, allowed, connected

pytestmark = [pytest.mark.timescale, pytest.mark.store]

OF_POSTGRES: Final = re.compile(r"rollup\.(pending|stored_|packed_|fold|check_|pack_)|raw\.(tool_calls_p|pending_)")
SHARED: Final = {statement: kinds for statement, kinds in EVERYTHING.items() if not OF_POSTGRES.search(statement)}
OWN: Final = {
    "SELECT FROM rollup.late_marks": {"worker"},
    "INSERT INTO rollup.late_marks (hour, mark_id) VALUES (now(), gen_random_uuid())": {"writer"},
    "DELETE FROM rollup.late_marks": {"worker"},
    "SELECT FROM rollup.refreshed": {"worker"},
    "UPDATE rollup.refreshed SET until = now()": set(),
    "SELECT FROM rollup.cagg_tool_calls_hourly": {"worker"},
    "SELECT public.drop_chunks('raw.tool_calls', older_than => now())": set(),
    "SELECT public.remove_retention_policy('raw.tool_calls')": set(),
}


@pytest.mark.parametrize("kind", ["writer", "reader", "worker", "grafana", "tenant"])
async def test_each_role_may_do_what_its_work_needs_and_nothing_else(kind: str, timescale_database: str) -> None:
    await migrate_store(Settings.load(database_url=timescale_database, role_prefix=ROLE_PREFIX), timescale_database)
    expected = SHARED | OWN
    async with connected(timescale_database, getattr(ROLES, kind)) as connection:
        may = {statement: await allowed(connection, statement) for statement in expected}
    assert may == {statement: kind in kinds for statement, kinds in expected.items()}
