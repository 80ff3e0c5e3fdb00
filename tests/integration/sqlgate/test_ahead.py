"""What travels together: the answers are those of one request after the other, whatever happens on the way.

A real server is on one end; where the way itself is to misbehave, a proxy stands between that cuts, splits and adds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from hubscope.errors import DatabaseAway, HubscopeError, QueryFailed, QueryRefused
from hubscope.sqlgate import Gate, Narrowed
from hubscope.sqlgate.ahead import Foresight, Line
from hubscope.sqlgate.policy import CLOSER
from hubscope.sqlgate.run import Result
from tests.integration.sqlgate import test_attacks as attacks
from tests.integration.sqlgate.conftest import Canary, eventually, gate_to
from tests.sql_corpus import LEGITIMATE

USERS = "SELECT id, name FROM products ORDER BY id LIMIT 3"
"""Of built-in types, so that a plan of it stays on the server."""
NOTICE = b"N\0\0\0\x0dSNOTICE\0\0"
STATUS = b"S\0\0\0\x11TimeZone\0UTC\0"
IDLE = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hubscope sql-mcp'"
    " AND datname = current_database() AND state LIKE '%in transaction%'"
)


@pytest.fixture
async def sample(sample: str) -> str:
    """The sample without its cast: while a database has one of its own, every query is looked at closely."""
    connection = await asyncpg.connect(sample)
    await connection.execute("DROP CAST (perch AS int)")
    await connection.close()
    return sample


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each text that could go out in one, whether its answer was as expected."""
    return noting(monkeypatch)


def noting(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The list that `at_once` is."""
    confirmed: list[bool] = []
    confirm = Gate._confirmed

    def note(*arguments: Any) -> Any:
        confirmed.append(bool(found := confirm(*arguments)))
        return found

    monkeypatch.setattr(Gate, "_confirmed", note)
    return confirmed


Change = Callable[[bytes], list[bytes | None]]
"""What is passed on in place of some bytes; None for the end."""


def told(result: Result) -> Any:
    return result.columns, result.rows, result.truncated, result.cut, result.reads


@asynccontextmanager
async def through(dsn: str, make: Callable[[], Change]) -> AsyncIterator[str]:
    """The same database behind a proxy.

    Args:
        make: for each connection, what becomes of some bytes of the server's.
    """
    parts = urlsplit(dsn)
    folder = parse_qs(parts.query)["host"][0]
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change | None) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                for part in change(data) if change else [data]:
                    if part is None:
                        return
                    writer.write(part)
                    await writer.drain()
                    if change:
                        await asyncio.sleep(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_, to = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        writers.extend((writer, to))
        ways = [
            asyncio.ensure_future(pass_on(reader, to, None)),
            asyncio.ensure_future(pass_on(from_, writer, make())),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for each in (writer, to):
            each.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
    finally:
        server.close()
        for each in writers:
            each.close()


async def test_the_second_and_third_answer_are_the_first_one(sample: str, at_once: list[bool]) -> None:
    async with gate_to(sample, verdict_s=0) as gate, gate_to(sample) as remembering:
        for sql in (
            *LEGITIMATE,
            "SELECT generate_series(1, 1001), repeat('x', 9000)",
            "SELECT",
            "SELECT 1 WHERE false",
        ):
            first = await gate.query(sql)
            if not any(word in sql.lower() for word in ("random", "now()", "clock", "current_", "local", "timeofday")):
                assert told(await gate.query(sql)) == told(first), sql
                assert [told(await remembering.query(sql)) for _ in range(3)] == [told(first)] * 3, sql
    assert at_once.count(True) > 60
    assert False not in at_once


async def test_no_attack_passes_where_the_policy_is_asked_ahead(
    gate: Gate, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_the_cast = [each for each in attacks.EVERYTHING if "perch" not in each[1]]
    monkeypatch.setattr(attacks, "EVERYTHING", without_the_cast)
    await attacks.test_every_attack_is_refused_and_nothing_moves(gate, canary)
    await attacks.test_every_attack_is_refused_and_nothing_moves(gate, canary)


async def test_what_the_server_understood_is_what_was_approved_ahead(sample: str, at_once: list[bool]) -> None:
    async with gate_to(sample, verdict_s=0) as gate:
        for sql in LEGITIMATE:
            async with gate.borrowed() as connection:
                reads = (await gate.approve(connection, sql, gate.check(sql))).reads
            assert [(await gate.query(sql)).reads for _ in range(2)] == [reads] * 2, sql
    assert at_once.count(True) > 30


async def test_parameters_are_those_of_this_call(gate: Gate) -> None:
    sql = "SELECT id, $2::text FROM users WHERE id = $1"
    for number in (1, 2, "3"):
        assert (await gate.query(sql, [number, f"n{number}"])).rows == ((int(number), f"n{number}"),)
    with pytest.raises(QueryRefused, match="has 1 values"):
        await gate.query(sql, [1])
    with pytest.raises(QueryRefused, match="is a list"):
        await gate.query(sql, [[1], "x"])
    with pytest.raises(QueryFailed, match="invalid input syntax"):
        await gate.query(sql, ["x", "x"])
    assert (await gate.query(sql, [4, None])).rows == ((4, None),)


async def test_rows_come_page_by_page_behind_the_first_ones(sample: str) -> None:
    async with gate_to(sample, value_chars=1_000_000, result_bytes=50_000_000, verdict_s=0) as gate:
        sql = "SELECT g, repeat('x', 300000) FROM generate_series(1, 12) AS g"
        for _ in range(3):
            result = await gate.query(sql)
            assert [row[0] for row in result.rows] == list(range(1, 13))
            assert {len(row[1]) for row in result.rows} == {300_000}


@pytest.mark.parametrize(
    ("change", "after"),
    [
        ("ALTER TABLE t ALTER n TYPE text USING 'n' || n", "n1"),
        ("ALTER TABLE t ALTER n TYPE bigint USING n + 9007199254740992", "9007199254740993"),
        ("ALTER TABLE t ALTER n TYPE float8 USING n / 2.0", 0.5),
        ("DROP TABLE t; CREATE TABLE t AS SELECT 'other' AS n", "other"),
        ("DROP TABLE t; CREATE VIEW t AS SELECT 7 AS n", 7),
        ("ALTER TABLE t RENAME n TO m", QueryFailed),
        ("DROP TABLE t", QueryRefused),
        ("DROP TABLE t; CREATE VIEW t AS SELECT token AS n FROM secrets", QueryRefused),
        ("ALTER TABLE t RENAME TO u; ALTER TABLE secrets RENAME TO t", QueryFailed),
        ("CREATE TABLE child () INHERITS (t); CREATE SCHEMA closed; ALTER TABLE child SET SCHEMA closed", QueryRefused),
        ("CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING; UPDATE t SET n = 3", 3),
    ],
)
async def test_what_a_name_means_is_asked_anew_each_time(gate: Gate, canary: Canary, change: str, after: Any) -> None:
    await canary.connection.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    for _ in range(3):
        assert (await gate.query("SELECT n FROM t")).rows == ((1,),)
    await canary.connection.execute(change)
    for _ in range(3):
        if isinstance(after, type):
            with pytest.raises(after) as raised:
                await gate.query("SELECT n FROM t")
            assert "token" not in str(raised.value)
        else:
            assert (await gate.query("SELECT n FROM t")).rows == ((after,),)


async def test_a_table_that_was_blocked_is_not_read_under_a_name_that_was_known(gate: Gate, canary: Canary) -> None:
    await canary.connection.execute(
        "CREATE TABLE private.t AS SELECT 'secret' AS n; CREATE TABLE t AS SELECT 'open' AS n"
    )
    for _ in range(2):
        assert (await gate.query("SELECT n FROM t")).rows == (("open",),)
    await canary.connection.execute("DROP TABLE t")
    with pytest.raises(QueryRefused):
        await gate.query("SELECT n FROM t")


async def test_the_server_parses_nothing_that_the_policy_did_not_let_through(
    gate: Gate, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read a literal of such a type calls its domain's check: by Parse alone."""
    await canary.connection.execute("""
        CREATE FUNCTION sound(text) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'it was heard'; END $$;
        CREATE DOMAIN heard AS text CHECK (sound(value));
        CREATE TABLE pairs (p heard[]);
    """)
    sql = "SELECT 1 FROM pairs WHERE p = '{x}'"
    with pytest.raises(asyncpg.RaiseError, match="it was heard"):
        await canary.connection.prepare(sql)
    errors: list[Any] = []
    prepare = Line.prepare

    async def note(*arguments: Any) -> Any:
        found = await prepare(*arguments)
        errors.append(found[1])
        return found

    monkeypatch.setattr(Line, "prepare", note)
    for _ in range(3):
        gate._foresight = Foresight()
        with pytest.raises(QueryRefused):
            await gate.query(sql)
    assert [type(error) for error in errors[-3:]] == [asyncpg.InvalidTextRepresentationError] * 3
    assert all(CLOSER in str(error) for error in errors[-3:])


async def test_a_mistake_that_only_the_data_make_is_told_each_time(gate: Gate, canary: Canary) -> None:
    await canary.connection.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    for _ in range(2):
        assert (await gate.query("SELECT 1 / n FROM t")).rows == ((1,),)
    await canary.connection.execute("UPDATE t SET n = 0")
    for _ in range(2):
        with pytest.raises(QueryFailed, match="division by zero"):
            await gate.query("SELECT 1 / n FROM t")
    await canary.connection.execute("UPDATE t SET n = 2")
    assert (await gate.query("SELECT 1 / n FROM t")).rows == ((0,),)


async def test_callers_of_one_gate_see_their_own_rows_by_the_same_text(sample: str, canary: Canary) -> None:
    async with gate_to(sample, connections=2, verdict_s=0) as gate:
        sql = "SELECT current_setting('hubscope.tenant', true)"
        policy = gate.served.policy
        object.__setattr__(policy, "allowed_functions", frozenset({"pg_catalog.current_setting"}))
        try:
            tenants = [Narrowed(gate, "hubscope.tenant", name) for name in ("a'", "b\\", "c")]
            asked = [(t, name) for t, name in zip(tenants, ("a'", "b\\", "c"), strict=True)] * 8
            answers = await asyncio.gather(*(t.query(sql) for t, _ in asked), return_exceptions=True)
        finally:
            object.__setattr__(policy, "allowed_functions", frozenset())
        for answer, (_, name) in zip(answers, asked, strict=True):
            assert isinstance(answer, Result), answer
            assert answer.rows == ((name,),)


async def test_a_call_that_is_given_up_anywhere_leaves_nothing_behind(sample: str, canary: Canary) -> None:
    async with gate_to(sample, connections=1, verdict_s=0) as gate:
        expected = told(await gate.query(USERS))
        for turns in range(60):
            for sql in (USERS, f"{USERS} -- {turns}"):
                task = asyncio.create_task(gate.query(sql))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    assert told(await task) == expected
            assert told(await gate.query(USERS)) == expected, turns
        await eventually(lambda: _none(canary), "a transaction is still open")
        await asyncio.gather(*gate._ending)
        assert (gate.turns.running, gate.connections()) == (0, (1, 1))


async def _none(canary: Canary) -> bool:
    return bool(await canary.connection.fetchval(IDLE) == 0)


async def test_answers_that_come_byte_by_byte_are_the_same(sample: str) -> None:
    async with gate_to(sample, verdict_s=0) as gate:
        expected = told(await gate.query(USERS))
    async with (
        through(sample, lambda: lambda data: [data[i : i + 1] for i in range(len(data))]) as dsn,
        gate_to(dsn, verdict_s=0, timeout_ms=20_000, connection_timeout_ms=20_000) as gate,
    ):
        for _ in range(3):
            assert told(await gate.query(USERS)) == expected
        for _ in range(2):
            with pytest.raises(QueryFailed, match="division by zero"):
                await gate.query("SELECT 1 / (id - id) FROM users")


async def test_notices_and_settings_between_the_answers_change_nothing(sample: str) -> None:
    def make() -> Change:
        ready, rest = False, b""

        def add(data: bytes) -> list[bytes | None]:
            """Both of them before each message, once the session is there."""
            nonlocal ready, rest
            if not ready:
                ready = data[-6:-1] == b"Z\0\0\0\x05"
                return [data]
            rest += data
            parts: list[bytes | None] = []
            while len(rest) >= 5 and len(rest) >= (size := 1 + int.from_bytes(rest[1:5], "big")):
                parts += [NOTICE + STATUS + rest[:size]]
                rest = rest[size:]
            return parts

        return add

    async with gate_to(sample, verdict_s=0) as gate:
        expected = told(await gate.query(USERS))
    async with through(sample, make) as dsn, gate_to(dsn, verdict_s=0, connections=1) as gate:
        for _ in range(4):
            assert told(await gate.query(USERS)) == expected


async def test_a_connection_that_ends_anywhere_is_said_to_be_away_and_the_next_one_works(sample: str) -> None:
    left: float = float("inf")

    def cut(data: bytes) -> list[bytes | None]:
        nonlocal left
        left -= len(data)
        if left >= 0:
            return [data]
        keep, left = data[: int(left)], float("inf")
        return [keep, None]

    async with through(sample, lambda: cut) as dsn, gate_to(dsn, verdict_s=0, connections=1) as gate:
        expected = told(await gate.query(USERS))
        for size in range(0, 700, 23):
            for sql in (USERS, f"{USERS} -- {size}"):
                left = size
                with contextlib.suppress(DatabaseAway):
                    assert told(await gate.query(sql)) == expected
                left = float("inf")
                await asyncio.gather(*gate._ending, return_exceptions=True)
            assert told(await gate.query(USERS)) == expected, size
        await asyncio.gather(*gate._ending)
        assert gate.turns.running == 0


async def test_a_server_that_says_something_else_is_left(sample: str) -> None:
    """What no server would say: the connection is closed, and nothing of it is taken for an answer."""
    wrong: tuple[bytes, bytes] | None = None

    def lie(data: bytes) -> list[bytes | None]:
        return [data if wrong is None else data.replace(*wrong)]

    async with through(sample, lambda: lie) as dsn, gate_to(dsn, verdict_s=0, connections=1, timeout_ms=3_000) as gate:
        expected = told(await gate.query(USERS))
        lies = [
            (b"C\0\0\0\x0aBEGIN\0", b""),  # the transaction was not begun
            (b"C\0\0\0\x0aBEGIN\0", b"c\0\0\0\x0aBEGIN\0"),
            (b"\0\0\0\1f", b"\0\0\0\1t"),  # there is more, but the statement did not fail
            (b"public", b"privat"),
            (b"t\0\0\0\x06\0\0", b"t\0\0\0\x01\0\0"),
        ]
        for each in lies:
            for sql in (USERS, f"{USERS} --"):
                wrong = each
                try:
                    answer = await gate.query(sql)
                except HubscopeError:
                    pass
                else:
                    assert each[1] in (b"\0\0\0\1t", b"privat"), each  # asked anew, one after the other
                    assert answer.rows == expected[1]
                finally:
                    wrong = None
                await asyncio.gather(*gate._ending, return_exceptions=True)
                gate._described.clear()
                assert told(await gate.query(USERS)) == expected, each


async def test_many_at_once_on_few_connections_get_their_own_answers(sample: str) -> None:
    async with gate_to(sample, connections=3, verdict_s=0, waiting=200) as gate:

        async def ask(n: int) -> None:
            match n % 5:
                case 0:
                    assert (await gate.query("SELECT $1::int, name FROM users WHERE id = $1", [n % 20 + 1])).rows[0][
                        0
                    ] == n % 20 + 1
                case 1:
                    assert (await gate.query(f"SELECT {n} FROM users LIMIT 1")).rows == ((n,),)
                case 2:
                    with pytest.raises(QueryRefused):
                        await gate.query("SELECT * FROM secrets")
                case 3:
                    with pytest.raises(QueryFailed):
                        await gate.query("SELECT 1 / (id - id) FROM users")
                case _:
                    task = asyncio.create_task(gate.query(USERS))
                    for _ in range(n % 37):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task])

        await asyncio.gather(*(ask(n) for n in range(150)))
        assert (gate.turns.running, gate.turns.waiting) == (0, 0)


async def test_a_connection_without_a_line_answers_nothing(sample: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gate_to(sample) as gate:
        await gate.query("SELECT 1")
        async with gate.borrowed() as connection:
            assert Line.of(connection).connection is not None
            monkeypatch.setattr(connection._con, "_transport", connection._transport.transport)
            with pytest.raises(Exception, match="has no line"):
                Line.of(connection)
            monkeypatch.undo()
