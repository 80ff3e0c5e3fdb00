"""A store of any earlier release, brought up to date, is the same as a new one; and a store can be moved."""

from __future__ import annotations

import asyncio
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from hubscope.access import LOCAL
from hubscope.app import App, migrate_store
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from tests.conftest import ROLE_PREFIX, ROLES
from tests.events import server_event, tool_call
from tests.integration.store.test_rollups import RECOUNTS
from tools.release_dump import PG_DUMP, RELEASES, dump

pytestmark = [pytest.mark.store, pytest.mark.integration]

PSQL: Final = PG_DUMP.with_name("psql")
RELEASED: Final = sorted(RELEASES.glob("*.sql"))


PENDING: Final = """
INSERT INTO rollup.pending (tenant_id, batch_id, tool_calls) VALUES ('default', gen_random_uuid(), ARRAY[
    (date_trunc('hour', now()), '', 's', 't', '', '', 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, now())::rollup.tool_calls_delta
])
"""
LISTED: Final = """
INSERT INTO rollup.pending (
    tenant_id, batch_id, call_hours, call_times, call_hubs, call_servers, call_tools, call_statuses, call_durations_ms,
    call_clients, call_transports, call_request_bytes, call_response_bytes, check_hours, check_times, check_hubs,
    check_servers, check_sources, check_states, check_latencies_ms
)
VALUES (
    'default', gen_random_uuid(), ARRAY[date_trunc('hour', now())], ARRAY[now(), now(), now()], '{"","",""}',
    '{s,s,s}', '{t,t,t}', '{ok,ok,error}', '{1.5,NULL,2}', '{"","",""}', '{"","",""}', '{NULL,NULL,1}',
    '{NULL,NULL,NULL}', ARRAY[date_trunc('hour', now())], ARRAY[now()], '{""}', '{s}', '{probe}', '{up}', '{7}'
)
"""
"""What the writer of migrations 0009 to 0013 appends: the calls and checks themselves."""
CALL: Final = """
INSERT INTO raw.tool_calls (event_id, time, server, tool, status) VALUES (gen_random_uuid(), now(), 's', 't', 'ok')
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


@pytest.mark.usefixtures("database")  # makes the roles that a dump names
@pytest.mark.parametrize(
    ("release", "pending"), [("0.1.0", PENDING), ("0.2.0.dev0", LISTED)], ids=["added up", "listed"]
)
async def test_calls_that_wait_to_be_folded_are_kept_also_while_a_worker_of_before_folds(
    release: str, pending: str, empty_database: str
) -> None:
    restore(empty_database, RELEASES / f"{release}.sql")
    worker, admin = await connect(empty_database, name="tests"), await connect(empty_database, name="tests")
    try:
        await admin.execute(pending)
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


@pytest.mark.usefixtures("database")
async def test_a_writer_of_before_is_refused_as_a_whole_and_nothing_of_it_is_kept_without_being_counted(
    empty_database: str,
) -> None:
    restore(empty_database, RELEASES / "0.2.0.dev0.sql")
    writer = await connect(empty_database, role=ROLES.writer, name="tests")
    try:
        await writer.execute("SELECT ops.ensure_partitions(current_date, current_date + 1)")
        await migrate_store(Settings.load(database_url=empty_database, role_prefix=ROLE_PREFIX), empty_database)
        committing = writer.transaction()
        await committing.start()
        await writer.execute(CALL)
        with pytest.raises(asyncpg.UndefinedColumnError):  # nothing that says the events were bad: they are sent again
            await writer.execute(LISTED)
        await committing.rollback()
        assert await writer.fetchval("SELECT count(*) FROM raw.tool_calls") == 0
    finally:
        await writer.close()


async def test_a_store_restored_from_a_dump_counts_what_was_pending_once(
    app: App, admin: Connection, database: str, empty_database: str
) -> None:
    events = [tool_call(duration_ms=3), server_event(), tool_call(status="error")]
    await app.ingest.post(LOCAL, json.dumps(events).encode(), "application/json")
    await admin.execute("SELECT rollup.fold()")
    late = [tool_call(duration_ms=7, time=(datetime.now(UTC) - timedelta(days=1)).isoformat())]
    for more in (events[:1] + late, [tool_call()]):
        await app.ingest.post(LOCAL, json.dumps(more).encode(), "application/json")

    async def counted(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
        return {
            name: sorted(tuple(row) for row in await connection.fetch(f"SELECT * FROM rollup.{name}"))
            for name in RECOUNTS
        }

    before = await counted(admin)
    command = [str(PG_DUMP), "--dbname", database, "--format", "custom"]
    dumped = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    command = [str(PG_DUMP.with_name("pg_restore")), "--dbname", empty_database, "--exit-on-error"]
    subprocess.run(command, input=dumped, check=True, capture_output=True, timeout=60)
    restored = await connect(empty_database, name="tests")
    try:
        assert await counted(restored) == before
        # A transaction of this cluster with the number of one of the other: received_at tells them apart.
        await restored.execute(
            "INSERT INTO rollup.pending (xact, call_hours, check_hours)"
            " SELECT xact, call_hours, check_hours FROM rollup.pending"
        )
        assert await counted(restored) == before
        assert await restored.fetchval("SELECT rollup.fold()") == 4
        assert await counted(restored) == before
    finally:
        await restored.close()


def test_there_is_a_release_to_come_from() -> None:
    assert RELEASED
