"""The oldest PostgreSQL that is supported, a real one with TLS: every way to connect, and the same corpora as on 18."""

from __future__ import annotations

import asyncio
import io
import json
import platform
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from mcp import Client

from hubscope.entrypoints.loop import run_on_loop
from hubscope.entrypoints.sql_lines import Lines
from hubscope.entrypoints.sql_mcp import build, opened
from hubscope.entrypoints.sql_server import SqlServer
from hubscope.errors import DatabaseAway, HubscopeError, QueryFailed
from hubscope.settings import SqlSettings
from hubscope.sqlgate import Gate, Policy, served
from hubscope.sqlgate.roles import audit_role, grants
from tests.conftest import held
from tests.integration.sqlgate import test_ahead as ahead
from tests.integration.sqlgate import test_attacks as attacks
from tests.integration.sqlgate import test_plans as plans
from tests.integration.sqlgate import test_run as running
from tests.integration.sqlgate.conftest import Canary, eventually, gate_to
from tests.postgres15.server import Postgres15
from tests.sql_corpus import LEGITIMATE, SAMPLE

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the package is for Linux on x86-64 (npm)"),
]


@pytest.fixture(scope="session")
def postgres15() -> Iterator[Postgres15]:
    """The server of this process."""
    with Postgres15() as server:
        yield server


@pytest.fixture
async def admin15(postgres15: Postgres15) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres15.admin())
    for user in ("plain", "certificate", "password", "anybody"):
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", user):
            await connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'pass of {user}'")
    yield connection
    await connection.close()


@pytest.fixture
async def sample(postgres15: Postgres15, admin15: asyncpg.Connection) -> AsyncIterator[str]:
    """The sample schema on PostgreSQL 15: what `sample` is elsewhere is this here."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    await admin15.execute(f"CREATE DATABASE {name}")
    dsn = postgres15.admin(name)
    connection = await asyncpg.connect(dsn)
    await connection.execute("SET search_path = public; " + SAMPLE)
    await connection.close()
    yield dsn
    await admin15.execute(f"DROP DATABASE {name} WITH (FORCE)")


# The same as on 18


async def test_it_is_15(gate: Gate) -> None:
    await gate.query("SELECT 1")
    assert gate.database is not None
    assert gate.database.version // 10_000 == 15


async def test_analytical_sql_is_answered_on_15(gate: Gate) -> None:
    failures = []
    for sql in LEGITIMATE:
        try:
            await gate.query(sql)
        except HubscopeError as error:
            failures.append((sql, error.detail))
    assert failures == []


async def test_every_attack_is_refused_on_15(gate: Gate, canary: Canary) -> None:
    await attacks.test_every_attack_is_refused_and_nothing_moves(gate, canary)


async def test_the_transaction_and_the_protocol_hold_by_themselves_on_15(sample: str, canary: Canary) -> None:
    await attacks.test_without_the_gates_the_transaction_and_the_protocol_hold_by_themselves(sample, canary)


async def test_what_15_understood_is_what_was_approved(sample: str) -> None:
    await attacks.understood_is_approved(sample, LEGITIMATE)


async def test_a_resource_bomb_leaves_memory_flat_on_15(sample: str) -> None:
    await running.test_a_resource_bomb_leaves_memory_flat(sample)


@pytest.mark.parametrize(("sql", "change", "after"), plans.CHANGES)
async def test_a_plan_is_not_told_from_when_it_would_be_another_on_15(
    sample: str, canary: Canary, sql: str, change: str, after: Any
) -> None:
    await canary.connection.execute(plans.TABLES)
    await plans.test_a_plan_is_not_told_from_when_it_would_be_another_now(sample, canary, sql, change, after, 0)


# TLS


async def test_what_travels_together_does_so_on_15(
    sample: str, canary: Canary, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    await canary.connection.execute("DROP CAST (perch AS int)")
    await ahead.test_no_attack_passes_where_the_policy_is_asked_ahead(gate, canary, monkeypatch)
    await ahead.test_the_second_and_third_answer_are_the_first_one(sample, ahead.noting(monkeypatch))
    await ahead.test_the_server_parses_nothing_that_the_policy_did_not_let_through(gate, canary, monkeypatch)


@pytest.mark.parametrize("run", [asyncio.run, run_on_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
def test_what_travels_together_does_so_with_and_without_tls(postgres15: Postgres15, run: Any, mode: str) -> None:
    async def ask() -> None:
        connection = await asyncpg.connect(postgres15.admin())
        for user in ("anybody", "plain"):
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", user):
                await connection.execute(f"CREATE ROLE {user} LOGIN")
        await connection.close()
        dsn = postgres15.dsn("postgres", "anybody" if mode != "disable" else "plain", "localhost")
        async with gate_to(f"{dsn}?sslmode={mode}", verdict_s=0, connections=1) as gate:
            for turns in (0, 3, 6, 9, 12):
                for _ in range(2):
                    assert (await gate.query("SELECT 1, 'ü', $1::numeric", [1.5])).rows == ((1, "ü", "1.5"),)
                with pytest.raises(QueryFailed, match="division by zero"):
                    await gate.query("SELECT 1 / (g - g) FROM generate_series(1, 2) AS g")
                long = asyncio.create_task(gate.query("SELECT count(*) FROM generate_series(1, 100000000)"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                long.cancel()
                await asyncio.wait([long])
            assert len((await gate.query("SELECT g, repeat('x', 900) FROM generate_series(1, 1000) AS g")).rows) > 900
            assert gate._described

    run(ask())


@asynccontextmanager
async def connected(dsn: str, **settings: Any) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the SQL server makes it under these settings."""
    gate = Gate(served(SqlSettings.load(**settings), dsn))
    try:
        async with gate.borrowed() as connection:
            yield connection
    finally:
        await gate.close()


async def encrypted(admin: asyncpg.Connection, connection: asyncpg.Connection) -> bool:
    found: bool = await admin.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = $1", connection.get_server_pid())
    return found


def at(server: Postgres15, name: str) -> str:
    return str(server.folder / "certificates" / name)


@pytest.mark.parametrize(
    ("user", "settings", "tls"),
    [
        ("plain", {"ssl_mode": "disable"}, False),
        ("plain", {"enable_ssl": False}, False),
        ("plain", {}, True),
        ("plain", {"ssl_mode": "prefer"}, True),
        ("anybody", {"ssl_mode": "prefer"}, True),
        ("anybody", {"ssl_mode": "require"}, True),
        ("anybody", {"enable_ssl": True}, True),
        ("anybody", {"ssl_mode": "verify-ca", "ssl_ca_path": "ca.crt"}, True),
        ("anybody", {"ssl_mode": "verify-full", "ssl_ca_path": "ca.crt"}, True),
        (
            "certificate",
            {
                "ssl_mode": "verify-full",
                "ssl_ca_path": "ca.crt",
                "ssl_cert_path": "client.crt",
                "ssl_key_path": "client.key",
            },
            True,
        ),
        ("certificate", {"ssl_mode": "require", "ssl_cert_path": "client.crt", "ssl_key_path": "client.key"}, True),
    ],
)
async def test_each_mode_connects_as_it_says(
    postgres15: Postgres15, admin15: asyncpg.Connection, user: str, settings: dict[str, Any], tls: bool
) -> None:
    said = {name: at(postgres15, value) if name.endswith("_path") else value for name, value in settings.items()}
    async with connected(postgres15.dsn("postgres", user, "localhost"), **said) as connection:
        assert await encrypted(admin15, connection) is tls
        assert await connection.fetchval("SELECT current_user") == user


@pytest.mark.parametrize(
    ("user", "host", "settings", "said"),
    [
        ("anybody", "localhost", {"ssl_mode": "disable"}, "it refuses our user, password or certificate"),
        ("certificate", "localhost", {"ssl_mode": "require"}, "it refuses our user, password or certificate"),
        (
            "certificate",
            "localhost",
            {"ssl_mode": "require", "ssl_cert_path": "stranger.crt", "ssl_key_path": "stranger.key"},
            "the database cannot be used now",
        ),
        (
            "anybody",
            "localhost",
            {"ssl_mode": "verify-ca", "ssl_ca_path": "other-ca.crt"},
            "its certificate does not pass",
        ),
        (
            "anybody",
            "localhost",
            {"ssl_mode": "verify-full", "ssl_ca_path": "other-ca.crt"},
            "its certificate does not",
        ),
        ("anybody", "127.0.0.1", {"ssl_mode": "verify-full", "ssl_ca_path": "ca.crt"}, "its certificate does not pass"),
    ],
)
async def test_each_mode_refuses_what_it_should(
    postgres15: Postgres15, admin15: asyncpg.Connection, user: str, host: str, settings: dict[str, Any], said: str
) -> None:
    paths = {name: at(postgres15, value) if name.endswith("_path") else value for name, value in settings.items()}
    with pytest.raises(DatabaseAway, match=said):
        async with connected(postgres15.dsn("postgres", user, host), **paths):
            pass


async def test_verify_ca_does_not_mind_the_name(postgres15: Postgres15, admin15: asyncpg.Connection) -> None:
    dsn = postgres15.dsn("postgres", "anybody", "127.0.0.1")
    async with connected(dsn, ssl_mode="verify-ca", ssl_ca_path=at(postgres15, "ca.crt")) as connection:
        assert await encrypted(admin15, connection)


async def test_a_server_without_tls_is_taken_by_prefer_and_by_nothing_stricter(
    postgres15: Postgres15, admin15: asyncpg.Connection
) -> None:
    dsn = postgres15.dsn("postgres", "plain", "localhost")
    ca = at(postgres15, "ca.crt")
    await admin15.execute("ALTER SYSTEM SET ssl = off")
    try:
        await _told_to_forget_tls(postgres15, admin15)
        async with connected(dsn, ssl_mode="prefer") as connection:
            assert not await encrypted(admin15, connection)
        for mode in ("require", "verify-ca", "verify-full"):
            with pytest.raises(DatabaseAway):
                async with connected(dsn, ssl_mode=mode, ssl_ca_path=ca):
                    pass
    finally:
        await admin15.execute("ALTER SYSTEM RESET ssl")
        await admin15.execute("SELECT pg_reload_conf()")


async def _told_to_forget_tls(server: Postgres15, admin: asyncpg.Connection) -> None:
    await admin.execute("SELECT pg_reload_conf()")

    async def forgotten() -> bool:
        fresh = await asyncpg.connect(server.admin())
        try:
            return bool(await fresh.fetchval("SHOW ssl") == "off")
        finally:
            await fresh.close()

    await eventually(forgotten, "it still speaks TLS")


async def test_the_role_of_the_grants_script_logs_in_with_a_password_and_only_reads(
    postgres15: Postgres15, sample: str, admin15: asyncpg.Connection
) -> None:
    database = sample.rpartition("?")[0].rpartition("/")[2]
    owner = await asyncpg.connect(sample)
    try:
        await owner.execute(grants("password", database, ["public"], ["secrets"]))
        await owner.execute("ALTER ROLE password PASSWORD 'pass of password'")
        dsn = postgres15.dsn(database, "password:pass%20of%20password", "localhost")
        async with gate_to(dsn + "?sslmode=require") as gate:
            assert (await gate.query("SELECT count(*) FROM users")).rows == ((20,),)
            async with gate.borrowed() as connection:
                assert (await audit_role(connection, Policy(blocked_tables=frozenset({"secrets"})))).findings == ()
        login = await asyncpg.connect(dsn, ssl="require", server_settings={"default_transaction_read_only": "off"})
        try:
            for sql in ("SELECT * FROM secrets", "DELETE FROM users", "CREATE TABLE x ()", "CREATE TEMP TABLE x ()"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await login.execute(sql)
        finally:
            await login.close()
        wrong = postgres15.dsn(database, "password:another", "localhost")
        async with gate_to(wrong + "?sslmode=require") as gate:
            with pytest.raises(DatabaseAway, match="it refuses our user, password or certificate"):
                await gate.query("SELECT 1")
    finally:
        await owner.execute("DROP OWNED BY password")
        await owner.close()


async def test_a_server_that_is_stopped_and_started_again_is_survived(
    postgres15: Postgres15, admin15: asyncpg.Connection
) -> None:
    """Away at start, there, away, there again: the same server process goes on, and the role is looked at meanwhile."""
    dsn = postgres15.dsn("postgres", "anybody", "localhost") + "?sslmode=require"
    postgres15.stop()
    log = io.StringIO()
    try:
        async with gate_to(dsn, connection_timeout_ms=500) as gate:
            server = SqlServer({"main": gate}, Lines(log))
            async with held(opened(server)), Client(build(server)) as client:
                answer = await client.call_tool("query", {"sql": "SELECT 1"})
                assert answer.is_error
                assert "nothing listens there" in str(answer.content)
                assert (await server.health())[0] == 503
                postgres15.start()
                assert not (await client.call_tool("query", {"sql": "SELECT 1"})).is_error
                assert (await server.health())[0] == 200
                postgres15.stop()
                assert (await client.call_tool("query", {"sql": "SELECT 1"})).is_error
                assert (await server.health())[0] == 503
                postgres15.start()
                await eventually(gate.reachable, "it does not come back")
                assert not (await client.call_tool("query", {"sql": "SELECT 1"})).is_error
    finally:
        postgres15.start()
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    assert ("role_audit", "error") in [(event.get("event"), event["outcome"]) for event in events]


def test_the_keys_of_the_test_are_for_nobody_else(postgres15: Postgres15) -> None:
    for key in Path(at(postgres15, "")).glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0
