"""A store of any earlier release, brought up to date, is the same as a new one; and a store can be moved."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Final

import pytest

from hubscope.app import migrate_store
from hubscope.settings import Settings
from hubscope.store import connect
from tests.conftest import ROLE_PREFIX
from tools.release_dump import PG_DUMP, RELEASES, dump

pytestmark = [pytest.mark.store, pytest.mark.integration]

PSQL: Final = PG_DUMP.with_name("psql")
RELEASED: Final = sorted(RELEASES.glob("*.sql"))


PENDING: Final = """
INSERT INTO rollup.pending (tenant_id, batch_id, tool_calls) VALUES ('default', gen_random_uuid(), ARRAY[
    (date_trunc('hour', now()), '', 's', 't', '', '', 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, now())::rollup.tool_calls_delta
])
"""
WAITING: Final = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"


def restore(dsn: str, path: Path) -> None:
    command = [str(PSQL), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", dsn, "--file", str(path)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("release", RELEASED, ids=lambda path: path.stem)
async def test_an_earlier_release_brought_up_to_date_has_the_schema_of_a_new_store(
    release: Path, empty_database: str, database: str
) -> None:
    restore(empty_database, release)
    told: list[str] = []
    await migrate_store(
        Settings.load(database_url=empty_database, role_prefix=ROLE_PREFIX), empty_database, told.append
    )
    assert [line for line in told if line.startswith("migration ")]
    upgraded, fresh = (dump(dsn, "--schema-only") for dsn in (empty_database, database))
    assert upgraded == fresh
    connection = await connect(empty_database, name="tests")
    try:
        assert await connection.fetchval(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'raw.tool_calls'::regclass"
        )
    finally:
        await connection.close()


async def test_calls_that_wait_to_be_folded_are_kept_also_while_a_worker_of_before_folds(empty_database: str) -> None:
    restore(empty_database, RELEASED[0])
    worker, admin = await connect(empty_database, name="tests"), await connect(empty_database, name="tests")
    try:
        await admin.execute(PENDING)
        folding = worker.transaction()
        await folding.start()
        await worker.execute("SELECT pg_advisory_xact_lock(hashtextextended('hubscope.rollup.fold', 0))")
        settings = Settings.load(database_url=empty_database, role_prefix=ROLE_PREFIX)
        migrating = asyncio.create_task(migrate_store(settings, empty_database))
        while not migrating.done() and not await admin.fetchval(WAITING):  # noqa: ASYNC110 (in the database)
            await asyncio.sleep(0.01)
        await worker.execute("LOCK TABLE rollup.pending IN ROW EXCLUSIVE MODE")  # as the DELETE of a fold does
        await folding.commit()
        await migrating
        assert await admin.fetchval("SELECT sum(calls) FROM rollup.tool_calls_hourly") == 3
        assert await admin.fetchval("SELECT count(*) FROM rollup.pending") == 0
    finally:
        await worker.close()
        await admin.close()


def test_there_is_a_release_to_come_from() -> None:
    assert RELEASED
