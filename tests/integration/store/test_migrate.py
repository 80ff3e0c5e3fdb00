"""Migrations: once each, in order, whole or not at all, one process at a time; and what the schema promises."""

from __future__ import annotations

import asyncio
import importlib
import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import asyncpg
import pytest

from hubscope.app import migrate_store
from hubscope.errors import HubscopeError, MigrationFailed
from hubscope.marts import live_marts, project_dir
from hubscope.settings import Settings
from hubscope.store import Connection, connect, migrate
from hubscope.store.migrate import HERE, LOCK_KEY, Outcome, newest_version, scripts
from tests.conftest import ROLE_PREFIX, ROLES

pytestmark = [pytest.mark.store, pytest.mark.integration]

MODULE = importlib.import_module("hubscope.store.migrate")
SHIPPED = tuple(script.name for script in scripts(HERE / "migrations", "postgres"))
DEFINITIONS = tuple(script.name for script in scripts(HERE / "definitions", "postgres"))
NEXT = newest_version() + 1
DEADLINE_S = 20.0


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for something that happens elsewhere."""
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline, f"still waiting after {DEADLINE_S:.0f} s: {what}"
        await asyncio.sleep(0.005)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped files, to change."""
    for name in ("migrations", "definitions"):
        shutil.copytree(HERE / name, tmp_path / name)
    return tmp_path


@pytest.fixture
async def empty(empty_database: str, template: str) -> AsyncIterator[Connection]:
    """The store's user in an empty database, in a cluster that has the roles."""
    connection = await connect(empty_database, name="tests")
    yield connection
    await connection.close()


@pytest.fixture
async def other(admin: Connection, database: str) -> AsyncIterator[Connection]:
    """A second connection of the store's user to `database`."""
    connection = await connect(database, name="tests")
    yield connection
    await connection.close()


def add(folder: Path, version: int, name: str, sql: str) -> None:
    (folder / "migrations" / f"{version:04}_{name}.sql").write_text(sql)


async def applied(connection: Connection) -> list[str]:
    """Names of the applied migrations, in order."""
    return [row["name"] for row in await connection.fetch("SELECT name FROM ops.migrations ORDER BY version")]


async def exists(connection: Connection, relation: str) -> bool:
    return bool(await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", relation))


# Once each


async def test_a_fresh_database_gets_everything_and_a_second_run_does_nothing(empty: Connection) -> None:
    steps: list[str] = []
    assert await migrate(empty, ROLES, tell=steps.append) == Outcome(SHIPPED, DEFINITIONS)
    assert [step.split()[0] for step in steps] == ["migration"] * len(SHIPPED) + ["definitions:"]
    assert await applied(empty) == list(SHIPPED)
    steps.clear()
    assert await migrate(empty, ROLES, tell=steps.append) == Outcome((), ())
    assert steps == []


async def test_what_is_applied_is_remembered_with_checksum_version_and_duration(admin: Connection) -> None:
    rows = await admin.fetch("SELECT * FROM ops.migrations ORDER BY version")
    for row, script in zip(rows, scripts(HERE / "migrations", "postgres"), strict=True):
        assert (row["version"], row["checksum"]) == (script.version, script.checksum)
        assert re.match(r"\d+\.\d+", row["hubscope_version"])
        assert row["duration_ms"] > 0
        assert abs(row["applied_at"] - datetime.now(UTC)) < timedelta(hours=1)


async def test_a_new_migration_is_applied_to_an_existing_store_and_the_grants_are_stated_again(
    admin: Connection, database: str, folder: Path
) -> None:
    add(folder, NEXT, "create_notes", "CREATE TABLE hub.notes (tenant_id text PRIMARY KEY);")
    assert await migrate(admin, ROLES, folder=folder) == Outcome(("create_notes",), ("grants", "engine_grants"))
    assert await admin.fetchval("SELECT relowner::regrole::text FROM pg_class WHERE oid = 'hub.notes'::regclass") == (
        ROLES.owner
    )
    worker = await connect(database, role=ROLES.worker, name="tests")
    assert await worker.fetch("SELECT FROM hub.notes") == []
    await worker.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("edit", rf"migration {NEXT - 1:04} {SHIPPED[-1]} was changed .* put the change into a new one"),
        ("remove", rf"database has migration {NEXT - 1:04} {SHIPPED[-1]}, .*newer version; install that one"),
        ("gap", rf"migration {NEXT:04} fill_gap comes before {NEXT + 1:04}, which is applied"),
    ],
)
async def test_files_that_do_not_fit_what_is_applied_are_refused_before_anything_is_done(
    change: str, said: str, admin: Connection, folder: Path
) -> None:
    found = (folder / "migrations").glob(f"{NEXT - 1:04}_*.sql")
    (newest,) = (path for path in found if not path.name.endswith(".timescale.sql"))
    if change == "edit":
        newest.write_text(newest.read_text() + "\n-- a harmless comment\n")
    elif change == "remove":
        newest.unlink()
    else:
        add(folder, NEXT + 1, "come_early", "SELECT 1;")
        await migrate(admin, ROLES, folder=folder)
        add(folder, NEXT, "fill_gap", "CREATE TABLE hub.gap ();")
    add(folder, NEXT + 2, "create_late", "CREATE TABLE hub.late ();")
    before = await applied(admin)
    with pytest.raises(MigrationFailed, match=said):
        await migrate(admin, ROLES, folder=folder)
    assert await applied(admin) == before
    assert not await exists(admin, "hub.gap")
    assert not await exists(admin, "hub.late")


# Files


@pytest.mark.parametrize(
    ("names", "engine", "expected"),
    [
        (["0002_b.sql", "0001_a.sql"], "postgres", [(1, "a"), (2, "b")]),
        (["0001_a.postgres.sql", "0001_b.timescale.sql"], "postgres", [(1, "a")]),
        (["0001_a.postgres.sql", "0001_b.timescale.sql"], "timescale", [(1, "b")]),
        (["010_a_b2.sql"], "timescale", [(10, "a_b2")]),
        (["0001_a.sql", "notes.txt"], "postgres", [(1, "a")]),
    ],
)
def test_files_are_taken_in_order_and_by_engine(
    names: list[str], engine: str, expected: list[tuple[int, str]], tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    assert [(script.version, script.name) for script in scripts(tmp_path, engine)] == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["1_a.sql"], "1_a.sql: expected NNNN_verb_noun"),
        (["0001-a.sql"], "0001-a.sql: expected"),
        (["0001_A.sql"], "0001_A.sql: expected"),
        (["0001_a.mysql.sql"], "0001_a.mysql.sql: expected"),
        (["0001_a.sql", "0001_b.sql"], "0001_b.sql: number 1 is taken by a"),
        (["0001_a.sql", "0001_b.postgres.sql"], "number 1 is taken by"),
    ],
)
def test_a_file_name_that_does_not_fit_is_refused(names: list[str], said: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(MigrationFailed, match=re.escape(said)):
        scripts(tmp_path, "postgres")


# Whole or not at all


async def test_a_failing_migration_leaves_nothing_of_itself_and_keeps_what_came_before(
    admin: Connection, other: Connection, folder: Path
) -> None:
    add(folder, NEXT, "create_fine", "CREATE TABLE hub.fine (tenant_id text PRIMARY KEY);")
    add(folder, NEXT + 1, "create_broken", "CREATE TABLE hub.broken ();\nSELECT 1 / 0;")
    with pytest.raises(MigrationFailed, match=rf"^migration {NEXT + 1:04} create_broken: division by zero$"):
        await migrate(admin, ROLES, folder=folder)
    assert await applied(admin) == [*SHIPPED, "create_fine"]
    assert await exists(admin, "hub.fine")
    assert not await exists(admin, "hub.broken")
    assert await admin.fetchval("SELECT current_user") == "postgres"
    add(folder, NEXT + 1, "create_broken", "CREATE TABLE hub.broken (tenant_id text PRIMARY KEY);")
    assert (await migrate(other, ROLES, folder=folder)).applied == ("create_broken",)  # the lock was let go of, too


async def test_a_connection_that_breaks_in_the_middle_leaves_nothing_half_done(
    admin: Connection, other: Connection, folder: Path
) -> None:
    add(folder, NEXT, "take_long", "CREATE TABLE hub.half ();\nSELECT pg_sleep(60);")
    pid = other.get_server_pid()
    running = asyncio.create_task(migrate(other, ROLES, folder=folder))

    async def asleep() -> bool:
        return bool(await admin.fetchval("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1", pid))

    await until(asleep, "the migration runs")
    await admin.execute("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(HubscopeError, match="take_long"):
        await running
    assert await applied(admin) == list(SHIPPED)
    assert not await exists(admin, "hub.half")
    add(folder, NEXT, "take_long", "SELECT 1;")
    assert (await migrate(admin, ROLES, folder=folder)).applied == ("take_long",)


# One at a time, beside a service at work


async def test_two_runs_at_once_on_a_fresh_database_go_one_after_the_other(
    empty: Connection, empty_database: str
) -> None:
    second = await connect(empty_database, name="tests")
    steps: list[str] = []

    async def run(connection: Connection) -> Outcome:
        outcome = await migrate(connection, ROLES, tell=steps.append)
        await connection.close()  # until then nobody else migrates
        return outcome

    outcomes = await asyncio.gather(run(empty), run(second))
    assert sorted(outcomes, key=lambda one: len(one.applied)) == [Outcome((), ()), Outcome(SHIPPED, DEFINITIONS)]
    assert steps.count("waiting for another process that is migrating this database") == 1


async def test_two_services_that_start_at_once_on_a_fresh_database_both_get_a_whole_store(
    empty_database: str, template: str
) -> None:
    settings = Settings.load(database_url=empty_database, role_prefix=ROLE_PREFIX)
    await asyncio.gather(*(migrate_store(settings, empty_database) for _ in range(3)))
    connection = await connect(empty_database, role=ROLES.reader, name="tests")
    for mart in live_marts():
        await connection.fetch(f"SELECT FROM {mart.schema}.{mart.name}")
    await connection.close()


async def test_who_waits_too_long_for_another_run_is_told(
    admin: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "LOCK_WAIT_S", 0.2)
    await other.fetchval("SELECT pg_advisory_lock($1)", LOCK_KEY)
    with pytest.raises(MigrationFailed, match="another process has been migrating this database"):
        await migrate(admin, ROLES)


async def test_a_table_in_use_is_tried_again_until_it_is_free(
    database: str, admin: Connection, other: Connection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "STATEMENT_LOCK_TIMEOUT", "100ms")
    add(folder, NEXT, "add_note", "ALTER TABLE raw.tool_calls ADD COLUMN note text;")
    third = await connect(database, name="tests")

    async def waits() -> bool:
        return bool(await third.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1)", pid))

    async def waits_no_more() -> bool:
        return not await waits()

    pid = admin.get_server_pid()
    reading = other.transaction()
    await reading.start()
    await other.execute("SELECT FROM raw.tool_calls")
    running = asyncio.create_task(migrate(admin, ROLES, folder=folder))
    await until(waits, "the migration waits for the table")
    await until(waits_no_more, "the migration lets others pass")
    assert not running.done()
    await reading.rollback()
    assert (await running).applied == ("add_note",)
    await third.close()


async def test_a_table_that_stays_in_use_is_given_up_with_the_reason(
    admin: Connection, other: Connection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "STATEMENT_LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(MODULE, "LOCK_TRIES", 2)
    add(folder, NEXT, "add_note", "ALTER TABLE raw.tool_calls ADD COLUMN note text;")
    async with other.transaction():
        await other.execute("SELECT FROM raw.tool_calls")
        with pytest.raises(MigrationFailed, match=rf"^migration {NEXT:04} add_note: .*lock timeout"):
            await migrate(admin, ROLES, folder=folder)
    assert await applied(admin) == list(SHIPPED)
    assert (await migrate(admin, ROLES, folder=folder)).applied == ("add_note",)


# Definitions


async def test_a_changed_definition_is_replayed_with_the_grants_and_nothing_else_is(
    admin: Connection, folder: Path
) -> None:
    path = folder / "definitions" / "040_fold.postgres.sql"
    path.write_text(path.read_text() + "\nCOMMENT ON FUNCTION rollup.fold(integer) IS 'changed';\n")
    assert await migrate(admin, ROLES, folder=folder) == Outcome((), ("fold", "grants", "engine_grants"))
    assert await admin.fetchval("SELECT obj_description('rollup.fold(integer)'::regprocedure)") == "changed"
    assert await migrate(admin, ROLES, folder=folder) == Outcome((), ())


async def test_definitions_are_replayed_together_or_not_at_all(admin: Connection, folder: Path) -> None:
    path = folder / "definitions" / "040_fold.postgres.sql"
    path.write_text(path.read_text() + "\nCOMMENT ON FUNCTION rollup.fold(integer) IS 'changed';\n")
    (folder / "definitions" / "950_broken.sql").write_text("SELECT no_such_function();")
    with pytest.raises(
        MigrationFailed, match=r"^definitions \(fold, grants, engine_grants, broken\): .*no_such_function"
    ):
        await migrate(admin, ROLES, folder=folder)
    assert await admin.fetchval("SELECT obj_description('rollup.fold(integer)'::regprocedure)") is None
    (folder / "definitions" / "950_broken.sql").unlink()
    assert (await migrate(admin, ROLES, folder=folder)).replayed == ("fold", "grants", "engine_grants")


# What the schema promises


async def test_every_key_of_every_table_begins_with_the_tenant(admin: Connection) -> None:
    """Partitions included: each has the key, too, which PostgreSQL makes when it is attached."""
    schemas = ["raw", "rollup", "hub", *sorted({mart.schema for mart in live_marts()}), "health", "uptime", "audit"]
    rows = await admin.fetch(
        """
        SELECT c.oid::regclass::text AS name,
            (SELECT a.attname FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
             WHERE i.indrelid = c.oid AND i.indisprimary) AS first,
            array(SELECT DISTINCT a.attname::text FROM pg_index AS i
                  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
                  WHERE i.indrelid = c.oid) AS firsts
        FROM pg_class AS c
        WHERE c.relkind IN ('r', 'p') AND c.relnamespace::regnamespace::text = ANY($1)
        """,
        schemas,
    )
    assert len(rows) > 6
    assert {row["name"]: (row["first"], row["firsts"]) for row in rows} == {
        row["name"]: ("tenant_id", ["tenant_id"]) for row in rows
    }


async def test_every_live_mart_but_the_one_about_the_store_begins_with_the_tenant(admin: Connection) -> None:
    rows = await admin.fetch(
        "SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = 1"
        " WHERE c.relkind = 'v' AND c.relnamespace::regnamespace::text = ANY($1)",
        ["analytics", "health", "uptime", "audit"],
    )
    first = {row["relname"]: row["attname"] for row in rows}
    assert first.keys() == {mart.name for mart in live_marts()}
    assert {name for name, column in first.items() if column != "tenant_id"} == {"mart_status"}


def test_every_mart_that_dbt_keeps_as_a_table_has_a_key_that_begins_with_the_tenant() -> None:
    live = {mart.name for mart in live_marts()}
    tables = [path for path in (project_dir() / "models" / "marts").glob("*/*.sql") if path.stem not in live]
    assert tables
    for path in tables:
        text = path.read_text()
        assert re.search(r"unique_key=\['tenant_id', ", text), path.name
        assert re.findall(r"'columns': \['(\w+)'", text) == ["tenant_id"] * text.count("'columns'"), path.name


@pytest.mark.parametrize("age_days", [1, 7, 60])
async def test_there_is_a_partition_for_every_moment_that_an_event_may_have(
    age_days: int, empty_database: str, template: str
) -> None:
    settings = Settings.load(
        database_url=empty_database, role_prefix=ROLE_PREFIX, max_event_age_days=age_days, max_clock_skew_seconds=86_400
    )
    await migrate_store(settings, empty_database)
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    moments = [
        now - timedelta(days=age_days, hours=12),  # a service that started half a day ago still has its partition
        *(midnight - timedelta(days=day) for day in range(age_days)),
        midnight - timedelta(microseconds=1),
        now,
        now + timedelta(seconds=settings.max_clock_skew_seconds),
        now + timedelta(days=6),
    ]
    writer = await connect(empty_database, role=ROLES.writer, name="tests")
    for table, columns, values in (
        ("tool_calls", "server, tool, status", ("s", "t", "ok")),
        ("server_events", "server, source, outcome, state", ("s", "probe", "o", "up")),
        ("hub_events", "type, name", ("audit", "n")),
    ):
        marks = ", ".join(f"${number}" for number in range(3, 3 + len(values)))
        for moment in moments:
            place = await writer.fetchval(
                f"INSERT INTO raw.{table} (event_id, time, {columns}) VALUES ($1, $2, {marks})"
                " RETURNING tableoid::regclass::text",
                uuid.uuid4(),
                moment,
                *values,
            )
            assert place == f"raw.{table}_p{moment:%Y%m%d}"
    with pytest.raises(asyncpg.CheckViolationError, match="no partition"):
        await writer.execute(
            "INSERT INTO raw.hub_events (event_id, time, type, name) VALUES (gen_random_uuid(), $1, 'audit', 'n')",
            now - timedelta(days=age_days + 3),
        )
    await writer.close()


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles", "Europe/Berlin"])
async def test_days_are_utc_days_whatever_the_time_zone_of_who_asks(zone: str, admin: Connection) -> None:
    # Days in which each of these zones changes its clocks.
    first, last = datetime(2027, 3, 10, tzinfo=UTC).date(), datetime(2027, 4, 10, tzinfo=UTC).date()
    await admin.execute("SELECT set_config('timezone', $1, false)", zone)
    await admin.execute("SELECT ops.ensure_partitions($1, $2)", first, last)
    await admin.execute("SET timezone = 'UTC'")
    bounds = await admin.fetch(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_class AS c"
        " WHERE c.relispartition AND c.relkind = 'r' AND c.relname ~ '^tool_calls_p20270[34]'"
    )
    days = [first + timedelta(days=number) for number in range((last - first).days + 2)]
    assert {row["relname"]: row["bound"] for row in bounds} == {
        f"tool_calls_p{day:%Y%m%d}": f"FOR VALUES FROM ('{day} 00:00:00+00') TO ('{after} 00:00:00+00')"
        for day, after in pairwise(days)
    }
