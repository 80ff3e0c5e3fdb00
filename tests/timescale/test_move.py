"""A store on plain PostgreSQL comes to TimescaleDB."""

from __future__ import annotations

import pytest

from hubscope.app import App, migrate_store
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from hubscope.store.aggregates import refresh_forward, settle_late
from hubscope.store.move import move
from hubscope.worker import Worker
from tests.conftest import ROLE_PREFIX, ROLES
from tests.integration.store.test_move import everything

pytestmark = [pytest.mark.timescale, pytest.mark.store]


async def test_a_store_comes_to_timescaledb_whole_also_what_raw_no_longer_has(
    aged: App,
    narrow_worker: Worker,
    admin: Connection,
    timescale_database: str,
) -> None:
    await narrow_worker.fold()
    await narrow_worker.retention()
    expected = await everything(admin)
    await migrate_store(Settings.load(database_url=timescale_database, role_prefix=ROLE_PREFIX), timescale_database)
    new = await connect(timescale_database, role=ROLES.owner, name="tests")
    try:
        await move(admin, new)
        assert await everything(new) == expected
        # Later refreshes leave alone what only the rollups know.
        await refresh_forward(new)
        await settle_late(new)
        assert await everything(new) == expected
    finally:
        await new.close()
