"""Connections: how many, under which role, for how long, and what a database that is away looks like."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx2
import msgspec
import psutil
import pytest

from hubscope.access import LOCAL
from hubscope.app import opened
from hubscope.embedded import EmbeddedDatabase
from hubscope.entrypoints.http import asgi
from hubscope.errors import DatabaseAway, Unavailable
from hubscope.settings import Settings
from hubscope.store import Connection, Pool, borrowed, connect, open_pool
from hubscope.store.pool import retrying
from tests.conftest import ROLES, held
from tests.events import tool_call

pytestmark = [pytest.mark.store, pytest.mark.integration]

DEADLINE_S = 20.0


def changed(settings: Settings, **changes: int) -> Settings:
    return settings.model_copy(update=changes)


def reading_pool(dsn: str, settings: Settings, *, size: int = 2) -> Awaitable[Pool]:
    return open_pool(
        dsn,
        role=ROLES.reader,
        size=size,
        name="reader",
        settings=settings,
        statement_timeout_ms=settings.query_timeout_ms,
        read_only=True,
    )


async def answer_of(pool: Pool, settings: Settings, statement: str) -> object:
    """What one statement gives over a connection of the pool."""
    async with borrowed(pool, settings) as connection:
        return await connection.fetchval(statement)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for something that happens elsewhere."""
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline, f"still waiting after {DEADLINE_S:.0f} s: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# How many, for how long


async def test_the_pools_together_never_exceed_pool_max(settings: Settings, database: str, admin: Connection) -> None:
    settings = changed(settings, pool_max=9, writers=2, pool_connection_timeout_ms=10_000)
    most = 0

    async def open_now() -> int:
        nonlocal most
        count: int = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database()"
            " AND application_name IN ('hubscope reader', 'hubscope writer', 'hubscope keys', 'hubscope audit',"
            " 'hubscope peers', 'hubscope stream')"
        )
        most = max(most, count)
        return count

    async def all_in_use() -> bool:
        # All but those of the partition check, the keys, the audit log, the registry of servers and live updates.
        return await open_now() >= settings.pool_max - 6

    locking = await connect(database, name="tests")
    async with opened(settings, database) as app, asyncio.TaskGroup() as tasks:
        async with locking.transaction():
            await locking.execute("LOCK TABLE raw.tool_calls IN ACCESS EXCLUSIVE MODE")  # writers have to wait here
            for _ in range(20):
                tasks.create_task(answer_of(app.readers, settings, "SELECT pg_sleep(0.1)"))
                tasks.create_task(app.ingest.post(LOCAL, msgspec.json.encode([tool_call()]), "application/json"))
                await open_now()
            await until(all_in_use, "every connection is in use")
        for _ in range(20):
            await open_now()
    assert settings.pool_max - 6 <= most <= settings.pool_max
    await locking.close()


async def test_who_finds_no_free_connection_waits_and_is_told_in_time(settings: Settings, database: str) -> None:
    settings = changed(settings, pool_connection_timeout_ms=200)
    pool = await reading_pool(database, settings, size=1)
    async with borrowed(pool, settings):
        started = time.monotonic()
        with pytest.raises(DatabaseAway):
            await answer_of(pool, settings, "SELECT 1")
        assert 0.2 <= time.monotonic() - started < 10
    assert await answer_of(pool, settings, "SELECT 1") == 1
    await pool.close()


async def test_an_idle_connection_is_closed(settings: Settings, database: str, admin: Connection) -> None:
    settings = changed(settings, pool_idle_timeout_ms=100)
    pool = await reading_pool(database, settings)
    pid = await answer_of(pool, settings, "SELECT pg_backend_pid()")

    async def gone() -> bool:
        return not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid)

    assert not await gone()
    await until(gone, "the idle connection is closed")
    assert pool.get_size() == 0
    assert await answer_of(pool, settings, "SELECT pg_backend_pid()") != pid  # and the next one is new
    await pool.close()


# A database that is away


async def test_a_silent_database_counts_as_away_after_the_timeout(settings: Settings, silent_port: int) -> None:
    settings = changed(settings, pool_connection_timeout_ms=300)
    dsn = f"postgresql://me@127.0.0.1:{silent_port}/store"
    pool = await reading_pool(dsn, settings)

    for attempt in (answer_of(pool, settings, "SELECT 1"), connect(dsn, name="tests", timeout_s=0.3)):
        started = time.monotonic()
        with pytest.raises(DatabaseAway, match="TimeoutError"):
            await attempt
        assert 0.3 <= time.monotonic() - started < 10
    await pool.close()


async def test_health_says_503_in_time_while_the_database_is_silent(settings: Settings, silent_port: int) -> None:
    settings = changed(settings, pool_connection_timeout_ms=300, drain_timeout_ms=200)
    async with (
        opened(settings, f"postgresql://me@127.0.0.1:{silent_port}/hubscope_test") as app,
        held(asgi(app)) as application,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=application), base_url="http://127.0.0.1") as client,
    ):
        started = time.monotonic()
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["database"]) == (503, "disconnected")
        assert time.monotonic() - started < 10
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200


async def test_a_database_that_falls_silent_in_the_middle_of_a_statement_is_not_waited_for_for_ever(
    settings: Settings, database: str
) -> None:
    settings = changed(settings, query_timeout_ms=100, pool_connection_timeout_ms=200)
    pool = await reading_pool(database, settings, size=1)
    pid = await answer_of(pool, settings, "SELECT pg_backend_pid()")
    assert isinstance(pid, int)
    backend = psutil.Process(pid)
    backend.suspend()
    started = time.monotonic()
    try:
        with pytest.raises(DatabaseAway):
            await answer_of(pool, settings, "SELECT 1")
        assert time.monotonic() - started < 10
        assert await answer_of(pool, settings, "SELECT 1") == 1  # over another connection: the silent one is given up
    finally:
        backend.resume()
    await pool.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"port": "1"}, "FileNotFoundError"),
        ({"host": "/nowhere"}, "FileNotFoundError"),
        ({"host": "127.0.0.1", "port": "1"}, "ConnectionRefusedError"),
        ({"database": "no_such_database"}, "InvalidCatalogNameError"),
        ({"user": "no_such_user"}, "InvalidAuthorizationSpecificationError"),
    ],
)
async def test_a_database_that_cannot_be_reached_is_away_and_its_address_is_not_shown(
    changes: dict[str, str], said: str, settings: Settings, database: str
) -> None:
    query = parse_qs(urlsplit(database).query)
    now = {"user": "postgres", "host": query["host"][0], "port": query["port"][0], "database": "postgres"} | changes
    dsn = f"postgresql://{now['user']}@/{now['database']}?host={now['host']}&port={now['port']}"
    pool = await reading_pool(dsn, settings)  # opening asks for nothing: a service starts before its database
    with pytest.raises(DatabaseAway) as from_the_pool:
        await answer_of(pool, settings, "SELECT 1")
    with pytest.raises(DatabaseAway) as directly:
        await connect(dsn, name="tests")
    for away in (from_the_pool, directly):
        assert away.value.detail == f"the database cannot be used now ({said})"
    await pool.close()


async def test_a_connection_that_breaks_while_it_is_used_means_away(
    settings: Settings, database: str, admin: Connection
) -> None:
    pool = await reading_pool(database, settings, size=1)
    pid = await answer_of(pool, settings, "SELECT pg_backend_pid()")
    sleeping = asyncio.create_task(answer_of(pool, settings, "SELECT pg_sleep(60)"))

    async def asleep() -> bool:
        return bool(await admin.fetchval("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1", pid))

    await until(asleep, "the statement runs")
    await admin.execute("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(DatabaseAway):
        await sleeping
    assert await answer_of(pool, settings, "SELECT 1") == 1
    await pool.close()


async def test_a_store_that_was_never_migrated_is_away_and_names_the_way_out(
    settings: Settings, empty_database: str
) -> None:
    settings = settings.model_copy(update={"role_prefix": "never_made", "drain_timeout_ms": 200})
    async with (
        opened(settings, empty_database) as app,
        held(asgi(app)) as application,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=application), base_url="http://127.0.0.1") as client,
    ):
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert 'role "never_made_reader" does not exist (`hubscope migrate`' in ready.json()["detail"]
        assert (await client.get("/health")).status_code == 503
        assert (await client.get("/metrics")).status_code == 200
        posted = await client.post("/v1/events", json=[tool_call()])
        assert (posted.status_code, "retry-after" in posted.headers) == (503, True)


async def test_the_postgres_variables_name_the_same_database_as_its_url(database: str) -> None:
    url = urlsplit(database)
    query = parse_qs(url.query)
    named = Settings.load(
        postgres_host=query["host"][0], postgres_port=int(query["port"][0]), postgres_db=url.path.lstrip("/")
    )
    connection = await connect(named.external_dsn(), name="tests")
    assert await connection.fetchval("SELECT current_database()") == url.path.lstrip("/")
    await connection.close()


# What a reader may do


async def test_a_reading_statement_is_stopped_at_the_query_timeout(settings: Settings, database: str) -> None:
    async with opened(changed(settings, query_timeout_ms=200), database) as app:
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"took longer than 200 ms \(HUBSCOPE_QUERY_TIMEOUT\)") as stopped:
            await answer_of(app.readers, app.settings, "SELECT pg_sleep(30)")
        assert not isinstance(stopped.value, DatabaseAway)
        assert 0.2 <= time.monotonic() - started < 10
        assert await answer_of(app.readers, app.settings, "SELECT 1") == 1


async def test_a_question_that_runs_into_the_timeout_is_answered_503(
    settings: Settings, database: str, admin: Connection
) -> None:
    async with (
        opened(changed(settings, query_timeout_ms=200), database) as app,
        held(asgi(app)) as application,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=application), base_url="http://127.0.0.1") as client,
    ):
        async with admin.transaction():
            await admin.execute("LOCK TABLE rollup.stored_tool_calls_hourly IN ACCESS EXCLUSIVE MODE")
            answer = await client.get("/api/v1/analytics")
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert "HUBSCOPE_QUERY_TIMEOUT" in answer.json()["detail"]
        assert (await client.get("/api/v1/analytics")).status_code == 200


async def test_a_connection_comes_back_to_the_pool_as_it_was_opened(settings: Settings, database: str) -> None:
    pool = await reading_pool(database, settings, size=1)
    state = (
        "SELECT concat_ws(' ', current_user, current_setting('timezone'),"
        " current_setting('default_transaction_read_only'), current_setting('statement_timeout'),"
        " current_setting('search_path'), current_setting('application_name'))"
    )
    pid = await answer_of(pool, settings, "SELECT pg_backend_pid()")
    async with borrowed(pool, settings) as connection:
        first = await connection.fetchval(state)
        for name, value in {
            "timezone": "Asia/Tokyo",
            "default_transaction_read_only": "off",
            "statement_timeout": "0",
            "search_path": "public",
        }.items():
            await connection.execute("SELECT set_config($1, $2, false)", name, value)
        assert await connection.fetchval(state) != first
    async with borrowed(pool, settings) as connection:
        assert await connection.fetchval(state) == first
        await connection.execute("RESET ALL")
        assert await connection.fetchval(state) == first
    assert first == f"{ROLES.reader} UTC on 30s  hubscope reader"
    assert await answer_of(pool, settings, "SELECT pg_backend_pid()") == pid
    await pool.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP TABLE t (i integer)",
        "DELETE FROM ops.migrations",
        "SELECT ops.ensure_partitions('2020-01-01', '2020-01-01')",
    ],
)
async def test_a_reader_cannot_write(statement: str, settings: Settings, database: str) -> None:
    pool = await reading_pool(database, settings)
    with pytest.raises((DatabaseAway, asyncpg.InsufficientPrivilegeError)):
        await answer_of(pool, settings, statement)
    await pool.close()


async def test_a_writer_has_no_reading_timeout_and_may_write(settings: Settings, database: str) -> None:
    async with opened(settings, database) as app:
        await app.ingest.post(LOCAL, msgspec.json.encode([tool_call()]), "application/json")
        connection = await connect(database, role=ROLES.writer, name="writer")
        assert await connection.fetchval("SELECT current_setting('statement_timeout')") == "0"
        assert await connection.fetchval("SELECT count(*) FROM raw.tool_calls") == 1
        await connection.close()


# Trying again


@pytest.mark.parametrize(("failures", "tries", "outcome"), [(0, 3, "done"), (2, 3, "done"), (3, 3, "KeyError")])
async def test_an_attempt_is_made_again_after_the_named_errors_only_so_often(
    failures: int, tries: int, outcome: str
) -> None:
    made = 0

    async def attempt() -> str:
        nonlocal made
        made += 1
        if made <= failures:
            raise KeyError
        return "done"

    try:
        result = await retrying(attempt, tries=tries, pause_s=0, when=(KeyError,))
    except KeyError:
        result = "KeyError"
    assert result == outcome
    assert made == min(failures + 1, tries)


async def test_another_error_is_not_tried_again() -> None:
    made = 0

    async def attempt() -> None:
        nonlocal made
        made += 1
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await retrying(attempt, tries=3, pause_s=0, when=(KeyError,))
    assert made == 1


def test_the_server_of_the_tests_takes_no_connection_over_tcp(server: EmbeddedDatabase) -> None:
    postmaster = psutil.Process(int((server.data_dir / "postgres" / "postmaster.pid").read_text().split()[0]))
    assert [one for one in postmaster.net_connections("inet") if one.status == psutil.CONN_LISTEN] == []


async def test_what_a_client_has_given_up_its_server_gives_up_too(database: str, admin: Connection) -> None:
    """Although it never hears that the client is gone."""
    lost = await connect(database, role=ROLES.writer, name="writer", give_up_ms=100)
    await lost.execute("BEGIN; SELECT pg_advisory_xact_lock(1)")
    await admin.execute("SELECT pg_advisory_lock(1)", timeout=DEADLINE_S)
    lost.terminate()
    waiting = await connect(database, role=ROLES.writer, name="writer", give_up_ms=100)
    with pytest.raises(asyncpg.QueryCanceledError):
        await waiting.execute("SELECT pg_advisory_lock(1)", timeout=DEADLINE_S)
    await waiting.close()
