"""Execution over a real PostgreSQL: limits, cancellation, exact values, a database that comes and goes."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import asyncpg
import msgspec
import psutil
import pytest

from hubscope.errors import DatabaseAway, HubscopeError, QueryFailed, QueryRefused, QueryTimedOut
from hubscope.sqlgate import Gate, Policy, inspect, run
from tests.integration.sqlgate.conftest import Canary, eventually, gate_to
from tests.sql_corpus import BOMBS

RUNNING = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hubscope sql-mcp' AND state = 'active'"
    " AND datname = current_database() AND query LIKE 'SELECT q.c1%100000000%'"
)
LONG = "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000) b"


@pytest.mark.parametrize(
    ("sql", "json"),
    [
        ("SELECT 9007199254740991, 9007199254740992, -9007199254740992", '[9007199254740991,"9007199254740992",'
         '"-9007199254740992"]'),
        ("SELECT 0.1::float4, 0.1::float8, 'NaN'::float8, '-Infinity'::float4", '[0.1,0.1,"NaN","-Infinity"]'),
        ("SELECT 12345678901234567890.10::numeric, 'NaN'::numeric", '["12345678901234567890.10","NaN"]'),
        ("SELECT 'infinity'::timestamptz, '-infinity'::date, '0044-03-15 BC'::date", '["infinity","-infinity",'
         '"0044-03-15 BC"]'),
        ("SELECT '2025-01-01 12:00:00.123456+02'::timestamptz, '24:00'::time", '["2025-01-01 10:00:00.123456+00",'
         '"24:00:00"]'),
        ("SELECT interval '1 year 2 mons 3 days 04:05:06.7'", '["1 year 2 mons 3 days 04:05:06.7"]'),
        ("SELECT '\\xdeadbeef'::bytea, B'0101', 'x'::\"char\"", '["\\\\xdeadbeef","0101","x"]'),
        ("SELECT 'ab'::char(4), '10.0.0.1'::inet, '10.0.0.0/8'::cidr, true, NULL", '["ab  ","10.0.0.1","10.0.0.0/8",'
         "true,null]"),
        ("SELECT int4range(1, 5), '{[1,2),[3,4)}'::int4multirange, tstzrange('2025-01-01', NULL)", '["[1,5)",'
         '"{[1,2),[3,4)}","[\\"2025-01-01 00:00:00+00\\",)"]'),
        ("SELECT ARRAY[1, NULL], ARRAY[[true], [false]], ARRAY['a,b', 'c\"d', NULL, 'NULL'], '{}'::int[],"
         " '[0:1]={1,2}'::int[]", '[[1,null],[[true],[false]],["a,b","c\\"d",null,"NULL"],[],"[0:1]={1,2}"]'),
        ("SELECT ARRAY[9007199254740993], ARRAY[1.5], ARRAY['NaN'::float8]", '[["9007199254740993"],["1.5"],["NaN"]]'),
        ("SELECT ROW(1, 'a b', NULL), ROW(NULL, NULL)", '["(1,\\"a b\\",)","(,)"]'),
        ("""SELECT '{"b": 1.10, "a": [1e400]}'::json, '{"b": 1.10, "a": null}'::jsonb, 'null'::jsonb""",
         '[{"b": 1.10, "a": [1e400]},{"a": null, "b": 1.10},null]'),
        ("SELECT u.feeling, u FROM users u WHERE id = 1", '["ok","(1,\\"user 1\\",u1@example.com,ok,\\"2025-01-02'
         ' 00:00:00+00\\",\\"{\\"\\"age\\"\\": 21, \\"\\"langs\\"\\": [\\"\\"en\\"\\"]}\\",\\"{a,b1}\\")"]'),
        ("SELECT 'ü€😀', E'line\\nbreak', ''", '["ü€😀","line\\nbreak",""]'),
    ],
)  # fmt: skip
async def test_a_value_is_told_exactly(gate: Gate, sql: str, json: str) -> None:
    assert msgspec.json.encode((await gate.query(sql)).rows[0]).decode() == json


async def test_columns_keep_names_that_stand_there_twice(gate: Gate) -> None:
    result = await gate.query("SELECT 1 AS x, 'a' AS x, ARRAY[1] AS y")
    assert result.columns == (("x", "int4"), ("x", "text"), ("y", "int4[]"))
    assert result.rows == ((1, "a", [1]),)
    assert (await gate.query("SELECT FROM users LIMIT 2")).rows == ((), ())


async def test_rows_keep_the_order_of_the_query(gate: Gate) -> None:
    rows = (await gate.query("SELECT id FROM orders ORDER BY id DESC")).rows
    assert [row[0] for row in rows] == list(range(200, 0, -1))


@pytest.mark.parametrize(
    ("sql", "params", "row"),
    [
        ("SELECT id, name FROM users WHERE created_at > $1 ORDER BY id LIMIT $2", ["2025-01-01", 1], (1, "user 1")),
        ("SELECT $1::date + 1, $2::interval", ["2025-01-01", "1 day"], ("2025-01-02", "1 day")),
        ("SELECT id FROM users WHERE id = ANY ($1) ORDER BY id", [[2, 3]], (2,)),
        ("SELECT id FROM users WHERE tags && $1 ORDER BY id LIMIT 1", [["a"]], (1,)),
        ("SELECT id FROM users WHERE feeling = $1 ORDER BY id LIMIT 1", ["happy"], (2,)),
        ("SELECT id FROM users WHERE profile @> $1", [{"age": 25}], (5,)),
        ("SELECT $1, $1 || 'x', $2::numeric * 2, $3::bool", ["a", "1.10", True], ("a", "ax", "2.20", True)),
        ("SELECT $2::int - $1::int, -$1::int", [1, 3], (2, -1)),
        ("SELECT $1::bigint", [2**62], (str(2**62),)),
        ("SELECT $1::char(4), $2::bit(3)", ["ab", "101"], ("ab  ", "101")),
        ("SELECT $1::uuid IS NULL", [None], (True,)),
        ("SELECT count(*) FROM generate_series($1::timestamptz, $2, $3)", ["2025-01-01", "2025-01-03", "1 day"], (3,)),
    ],
)
async def test_parameters_are_converted_by_the_servers_own_types(
    gate: Gate, sql: str, params: list[Any], row: tuple[Any, ...]
) -> None:
    assert (await gate.query(sql, params)).rows[0] == row


@pytest.mark.parametrize(
    ("sql", "params", "error", "said"),
    [
        ("SELECT $1::int", [], QueryRefused, r"1 parameters \(\$1 to \$1\), params has 0"),
        ("SELECT 1", [1], QueryRefused, "0 parameters, params has 1"),
        ("SELECT $1::date", ["soon"], QueryFailed, 'invalid input syntax for type date: "soon"'),
        ("SELECT $1::int", [2**40], QueryFailed, "out of range"),
        ("SELECT 1 / (id - 1) FROM users", [], QueryFailed, r"division by zero \[SQLSTATE 22012\]"),
        ("SELECT\n nme FROM users", [], QueryFailed, 'column "nme" does not exist at line 2, column 2'),
    ],
)
async def test_a_mistake_is_one_clear_line(
    gate: Gate, sql: str, params: list[Any], error: type[HubscopeError], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        await gate.query(sql, params)
    assert "\n" not in raised.value.detail


async def test_an_answer_stops_at_its_limits_and_says_so(sample: str) -> None:
    async with gate_to(sample, rows=10, result_bytes=10_000, value_chars=100) as gate:
        result = await gate.query("SELECT id FROM orders ORDER BY id")
        assert len(result.rows) == 10
        assert result.truncated
        assert "the first 10 rows" in result.truncated
        assert (await gate.query("SELECT id FROM orders LIMIT 10")).truncated is None
        result = await gate.query("SELECT 1, repeat('ü', 101), repeat('x', 100)")
        assert result.rows[0][1:] == ("ü" * 100, "x" * 100)
        assert result.cut == ((0, 1),)
        assert result.truncated
        assert "1 values were cut to 100 characters" in result.truncated
    async with gate_to(sample, result_bytes=10_000, value_chars=5_000) as gate:
        result = await gate.query("SELECT repeat('x', 4000) FROM generate_series(1, 10)")
        assert len(result.rows) == 2
        assert "limited to 10000 bytes" in (result.truncated or "")


async def test_a_query_is_stopped_on_the_server_at_the_deadline(sample: str, canary: Canary) -> None:
    async with gate_to(sample, timeout_ms=300) as gate:
        with pytest.raises(QueryTimedOut, match="longer than 300 ms and was stopped on the server"):
            await gate.query(LONG)
        await eventually(lambda: _is(canary, RUNNING, 0), "the server still runs it")
        assert (await gate.query("SELECT 1")).rows == ((1,),)


async def _is(canary: Canary, sql: str, value: Any) -> bool:
    return bool(await canary.connection.fetchval(sql) == value)


async def test_the_server_itself_stops_a_statement(sample: str) -> None:
    async with gate_to(sample, statement_timeout_ms=200) as gate:
        with pytest.raises(QueryTimedOut):
            await gate.query(LONG)
        assert (await gate.query("SELECT 1")).rows == ((1,),)


async def test_a_caller_who_goes_away_takes_the_query_along(sample: str, canary: Canary) -> None:
    async with gate_to(sample) as gate:
        task = asyncio.create_task(gate.query(LONG))
        await eventually(lambda: _is(canary, RUNNING, 1), "it does not run")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: _is(canary, RUNNING, 0), "the server still runs it")
        assert gate.turns.running == 0


async def test_a_long_text_is_read_beside_the_event_loop(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def noting(*arguments: Any, **options: Any) -> Any:
        threads.add(threading.current_thread() is threading.main_thread())
        return inspect(*arguments, **options)

    monkeypatch.setattr(run, "inspect", noting)
    assert (await gate.query("SELECT 1")).rows == ((1,),)
    assert threads == {True}
    threads.clear()
    assert (await gate.query("SELECT " + "+".join(["1"] * 1_000))).rows == ((1_000,),)
    with pytest.raises(QueryRefused):
        await gate.query("DELETE FROM users" + " " * 1_000)
    assert threads == {False}


async def test_no_more_run_at_once_than_there_are_connections(sample: str, canary: Canary) -> None:
    async with gate_to(sample, connections=2) as gate:
        tasks = [asyncio.create_task(gate.query(LONG)) for _ in range(5)]
        await eventually(lambda: _is(canary, RUNNING, 2), "two do not run")
        assert (gate.turns.running, gate.turns.waiting) == (2, 3)
        assert gate.connections()[0] == 2
        assert await gate.reachable()  # busy is not away
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_verdict_holds_for_its_time_only(sample: str, canary: Canary) -> None:
    await canary.connection.execute("CREATE VIEW plain AS SELECT name FROM users")
    async with gate_to(sample, verdict_s=5) as remembering, gate_to(sample, verdict_s=0) as forgetting:
        for gate in (remembering, forgetting):
            await gate.query("SELECT * FROM plain")
        assert remembering.remembered("SELECT * FROM plain") is not None
        assert forgetting.remembered("SELECT * FROM plain") is None
        remembering._verdicts["SELECT * FROM plain"].until = time.monotonic() - 1
        await canary.connection.execute("CREATE OR REPLACE VIEW plain AS SELECT token AS name FROM secrets")
        for gate in (remembering, forgetting):
            with pytest.raises(QueryRefused):
                await gate.query("SELECT * FROM plain")


async def test_an_idle_connection_is_given_back(sample: str, canary: Canary) -> None:
    async with gate_to(sample, idle_timeout_ms=50) as gate:
        await gate.query("SELECT 1")
        mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hubscope sql-mcp' AND datname = " + (
            "current_database()"
        )
        await eventually(lambda: _is(canary, mine, 0), "it is still open")


async def test_a_database_that_is_away_is_said_within_the_timeout(sample: str, canary: Canary) -> None:
    async with gate_to("postgresql://nobody@127.0.0.1:1/x", connection_timeout_ms=500) as gate:
        with pytest.raises(DatabaseAway, match="cannot be used now: nothing listens there"):
            await gate.query("SELECT 1")
        assert not await gate.reachable()
    async with gate_to(sample.replace("/t_", "/no_")) as gate:
        with pytest.raises(DatabaseAway, match="it has no database of that name"):
            await gate.query("SELECT 1")
    async with gate_to(sample) as gate:
        await gate.query("SELECT 1")
        kill = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'hubscope sql-mcp'"
        )
        await canary.connection.execute(kill + " AND datname = current_database()")
        await eventually(gate.reachable, "it does not come back")
        assert (await gate.query("SELECT 1")).rows == ((1,),)


async def test_a_resource_bomb_leaves_memory_flat(sample: str) -> None:
    process = psutil.Process()
    async with gate_to(sample, timeout_ms=1_500, statement_timeout_ms=1_500) as gate:
        await gate.query("SELECT 1")
        before = process.memory_info().rss
        for sql in BOMBS:
            try:
                result = await gate.query(sql)
                assert len(msgspec.json.encode(result.rows)) < 3 * gate.served.limits.result_bytes
            except HubscopeError:
                pass
            assert process.memory_info().rss - before < 96 * 1024 * 1024, sql[:60]
        assert (await gate.query("SELECT 1")).rows == ((1,),)


async def test_a_session_is_as_it_should_be_whatever_the_database_says(sample: str, canary: Canary) -> None:
    name = await canary.connection.fetchval("SELECT current_database()")
    for setting in (
        "search_path = private",
        "standard_conforming_strings = off",
        "default_transaction_read_only = off",
    ):
        await canary.connection.execute(f"ALTER DATABASE {name} SET {setting}")
    async with gate_to(sample) as gate, gate.borrowed() as connection:
        asked = {
            "search_path": 'pg_catalog, "public", pg_temp',
            "transaction_read_only": "on",
            "standard_conforming_strings": "on",
            "default_transaction_read_only": "on",
            "statement_timeout": "30s",
            "TimeZone": "UTC",
        }
        for setting, value in asked.items():
            assert await connection.fetchval("SELECT current_setting($1)", setting) == value


async def test_what_a_session_could_keep_does_not_reach_the_next_query(sample: str) -> None:
    policy = Policy(allowed_functions=frozenset({"pg_catalog.set_config"}))
    async with gate_to(sample, policy, connections=1) as gate:
        async with gate.borrowed() as connection:
            await connection.fetch("SELECT set_config('search_path', 'private', false), pg_advisory_lock(1)")
        async with gate.borrowed() as connection:
            assert "private" not in await connection.fetchval("SELECT current_setting('search_path')")
            locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            assert await connection.fetchval(locks) == 0


async def test_read_write_at_ones_own_risk_lets_a_listed_function_write(sample: str, canary: Canary) -> None:
    policy = Policy(allowed_functions=frozenset({"public.sing"}))
    before = await canary.connection.fetchval("SELECT count(*) FROM canary")
    async with gate_to(sample, policy, writable=True) as gate:
        await gate.query("SELECT sing()")
        with pytest.raises(QueryRefused):
            await gate.query("INSERT INTO canary VALUES (1)")
    assert await canary.connection.fetchval("SELECT count(*) FROM canary") == before + 1


async def test_a_role_without_rights_is_told_so(sample: str, canary: Canary) -> None:
    role = "nobody_" + str(await canary.connection.fetchval("SELECT current_database()"))
    await canary.connection.execute(f"CREATE ROLE {role}")
    try:
        async with gate_to(f"{sample}&options=-c%20role%3D{role}") as gate:
            with pytest.raises(QueryFailed, match="permission denied for table users"):
                await gate.query("SELECT * FROM users")
    finally:
        await canary.connection.execute(f"DROP ROLE {role}")


def test_the_driver_is_the_only_one_who_knows_errors_of_the_database() -> None:
    assert issubclass(asyncpg.ReadOnlySQLTransactionError, asyncpg.PostgresError)
