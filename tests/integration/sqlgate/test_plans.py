"""Plans that stay on the server: an answer by one of them is the one that would be given anew, whatever has changed.

The gates have one connection, so that the first call describes a text, the second leaves its plan, the third uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from hubscope.errors import DatabaseAway, HubscopeError, QueryFailed, QueryRefused
from hubscope.sqlgate import Gate, Narrowed, Policy, ahead, run
from hubscope.sqlgate.ahead import Lasting, Line
from hubscope.sqlgate.guard import Inspected, inspect
from tests.integration.sqlgate.conftest import Canary, gate_to
from tests.integration.sqlgate.test_ahead import told

TEXT = "SELECT n, note FROM t ORDER BY n"
TWO_SCHEMAS = Policy(allowed_schemas=("early", "public"), blocked_tables=frozenset({"closed", "public.hidden"}))


TABLES = """
    DROP CAST (perch AS int);
    CREATE SCHEMA early;
    CREATE TABLE public.t (n int PRIMARY KEY, note text);
    INSERT INTO public.t VALUES (1, 'one'), (2, 'two');
    CREATE TABLE public.closed AS SELECT 3 AS n, 'closed' AS note;
"""
CHANGES: Any = [
    (TEXT, "CREATE TABLE early.t AS SELECT 7 AS n, 'early' AS note", ((7, "early"),)),
    (TEXT, "CREATE VIEW early.t AS SELECT 7 AS n, 'early' AS note", ((7, "early"),)),
    (TEXT, "CREATE VIEW early.t AS SELECT * FROM closed", QueryRefused),
    (TEXT, "ALTER TABLE t RENAME TO away; ALTER TABLE closed RENAME TO t", ((3, "closed"),)),
    (TEXT, "ALTER TABLE t RENAME TO closed_too; CREATE VIEW t AS SELECT * FROM closed", QueryRefused),
    (TEXT, "ALTER TABLE t SET SCHEMA private", QueryRefused),
    (TEXT, "ALTER TABLE t SET SCHEMA early; CREATE TABLE t (n int, note text)", ((1, "one"), (2, "two"))),
    (TEXT, "ALTER SCHEMA public RENAME TO was; CREATE SCHEMA public", QueryRefused),
    (TEXT, "ALTER SCHEMA early RENAME TO x; ALTER SCHEMA public RENAME TO early", ((1, "one"), (2, "two"))),
    ("SELECT n FROM t", "ALTER TABLE t RENAME TO hidden", QueryRefused),
    (TEXT, "DROP TABLE t", QueryRefused),
    (TEXT, "DROP TABLE t; CREATE TABLE t AS SELECT 8 AS n, 'anew' AS note", ((8, "anew"),)),
    (TEXT, "DROP TABLE t; CREATE TABLE t AS SELECT 'x' AS n, 9 AS note", (("x", 9),)),
    (TEXT, "ALTER TABLE t ALTER n TYPE text USING 'n' || n", (("n1", "one"), ("n2", "two"))),
    (TEXT, "ALTER TABLE t DROP note", QueryFailed),
    (TEXT, "ALTER TABLE t DROP note; ALTER TABLE t ADD note int DEFAULT 5", ((1, 5), (2, 5))),
    (TEXT, "ALTER TABLE t RENAME n TO m; ALTER TABLE t RENAME note TO n; ALTER TABLE t RENAME m TO note",
     (("one", 1), ("two", 2))),
    ("SELECT n + 1 FROM t WHERE n = 1", "ALTER TABLE t ALTER n TYPE bigint USING n + 9007199254740990", ()),
    ("SELECT sum(n) FROM t", "ALTER TABLE t ALTER n TYPE float8 USING n / 2.0", ((1.5,),)),
    ("SELECT count(*) FROM t", "CREATE TABLE kid () INHERITS (t); INSERT INTO kid VALUES (3, 'kid')", ((3,),)),
    ("SELECT count(*) FROM t", "CREATE SCHEMA c; CREATE TABLE c.kid () INHERITS (t)", QueryRefused),
    ("SELECT reverse(note) FROM t",
     "CREATE FUNCTION reverse(text) RETURNS text LANGUAGE sql AS 'SELECT $1'", QueryRefused),
    ("SELECT max(n) FROM t", "CREATE FUNCTION early.max(int) RETURNS int LANGUAGE sql AS 'SELECT 0'", QueryRefused),
    ("SELECT abs(n) FROM t", "CREATE DOMAIN abs AS int CHECK (sing_check(value))", None),
    ("SELECT note || n FROM t",
     "CREATE FUNCTION cat(text, int) RETURNS text LANGUAGE sql AS 'SELECT $1';"
     "CREATE OPERATOR || (LEFTARG = text, RIGHTARG = int, FUNCTION = cat)", QueryRefused),
    ("SELECT count(*) FROM t WHERE n = 1",
     "CREATE FUNCTION eq(int, int) RETURNS bool LANGUAGE sql AS 'SELECT false';"
     "CREATE OPERATOR early.= (LEFTARG = int, RIGHTARG = int, FUNCTION = eq)", QueryRefused),
    ("SELECT count(*) FROM t WHERE n = 1", "CREATE CAST (text AS int) WITH INOUT AS IMPLICIT", ((1,),)),
    ("SELECT n FROM t WHERE note = 'one'", "ALTER TABLE t ALTER note TYPE varchar(2) USING left(note, 2)", ()),
    ("SELECT n FROM t GROUP BY n ORDER BY note LIMIT 1", "ALTER TABLE t DROP CONSTRAINT t_pkey", QueryFailed),
    (TEXT, "CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING; UPDATE t SET note = 'x'", ((1, "x"), (2, "x"))),
    (TEXT, "ANALYZE t; CREATE INDEX ON t (note); TRUNCATE t", ()),
    ("WITH w AS (SELECT 4 AS n) SELECT n FROM w", "CREATE TABLE w AS SELECT 5 AS n", ((4,),)),
]  # fmt: skip
"""A text whose plan is in use, what somebody else does, and what it tells from then on."""


@pytest.fixture
async def sample(sample: str) -> str:
    """The sample with a table of built-in types, and without its cast, which lets no plan stay."""
    connection = await asyncpg.connect(sample)
    await connection.execute(TABLES)
    await connection.close()
    return sample


@asynccontextmanager
async def one(dsn: str, policy: Policy = TWO_SCHEMAS, **limits: Any) -> AsyncIterator[Gate]:
    async with gate_to(dsn, policy, **({"connections": 1, "verdict_s": 0} | limits)) as gate:
        yield gate


@pytest.fixture
async def gate(sample: str) -> AsyncIterator[Gate]:
    """One connection, nothing remembered."""
    async with one(sample) as gate:
        yield gate


async def stay(gate: Gate) -> dict[str, int]:
    """The statements that are left on the connection, and how often each was run as it was planned."""
    async with gate.borrowed() as connection:
        rows = await connection.fetch(
            "SELECT name, generic_plans FROM pg_prepared_statements WHERE name LIKE 'hubscope%\\_%\\_%'"
        )
    return dict(rows)


async def used(gate: Gate, sql: str = TEXT) -> int:
    """Ask until the plan of this text is in use, and how often it has been by then."""
    for _ in range(4):
        await gate.query(sql)
    return max((await stay(gate)).values(), default=0)


async def test_a_text_that_comes_again_is_planned_once_and_tells_what_is_there_now(gate: Gate, canary: Canary) -> None:
    for n in range(3, 9):
        rows = (await gate.query(TEXT)).rows
        assert rows[-1][0] == n - 1
        await canary.connection.execute("INSERT INTO t VALUES ($1, 'more')", n)
    left = await stay(gate)
    assert len(left) == 2
    assert max(left.values()) == 5


@pytest.mark.parametrize(
    ("sql", "change", "after"),
    CHANGES,
)
@pytest.mark.parametrize("verdict_s", [0, 5])
async def test_a_plan_is_not_told_from_when_it_would_be_another_now(
    sample: str, canary: Canary, sql: str, change: str, after: Any, verdict_s: float
) -> None:
    async with one(sample, verdict_s=verdict_s) as gate:
        assert await used(gate, sql) >= 2
        await canary.connection.execute(change)
        for _ in range(4):
            gate._verdicts.clear()  # it may be used for some seconds; what it is that is used here is the plan
            if after is QueryRefused or after is QueryFailed:
                with pytest.raises(after) as raised:
                    await gate.query(sql)
                assert "closed" not in str(raised.value)
            else:
                async with one(sample) as fresh:
                    try:
                        expected = told(await fresh.query(sql))
                    except QueryRefused:
                        expected = None
                if after is not None:
                    assert expected is not None
                    assert expected[1] == after
                if expected is None:
                    with pytest.raises(QueryRefused):
                        await gate.query(sql)
                else:
                    assert told(await gate.query(sql)) == expected


async def test_a_verdict_that_is_remembered_does_not_hide_what_the_plan_cannot_see(sample: str, canary: Canary) -> None:
    async with one(sample, verdict_s=60) as gate:
        assert await used(gate) >= 2
        await canary.connection.execute("CREATE TABLE early.t AS SELECT 7 AS n, 'early' AS note")
        assert (await gate.query(TEXT)).rows == ((7, "early"),)


@pytest.mark.parametrize(
    ("prepare", "sql", "change", "after"),
    [
        ("", "SELECT n FROM t", "REVOKE SELECT ON t FROM {}", QueryFailed),
        ("", "SELECT n FROM t", "REVOKE SELECT ON t FROM {}; GRANT SELECT (note) ON t TO {}", QueryFailed),
        ("", "SELECT n FROM public.t", "REVOKE USAGE ON SCHEMA public FROM {}", QueryFailed),
        ("REVOKE USAGE ON SCHEMA public FROM {0}; GRANT USAGE ON SCHEMA public TO {0}_g; GRANT {0}_g TO {0};",
         "SELECT n FROM public.t", "REVOKE {0}_g FROM {0}", QueryFailed),
        ("REVOKE SELECT ON t FROM {0}; GRANT SELECT ON t TO {0}_g; GRANT {0}_g TO {0};",
         "SELECT n FROM t", "REVOKE {0}_g FROM {0}", QueryFailed),
        ("", "SELECT n FROM t", "ALTER TABLE t ENABLE ROW LEVEL SECURITY", ()),
        ("", "SELECT n FROM t",
         "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (n = 2)", ((2,),)),
    ],
)  # fmt: skip
async def test_what_a_role_may_is_looked_at_each_time(
    sample: str, canary: Canary, prepare: str, sql: str, change: str, after: Any
) -> None:
    async with role_of(sample, canary) as (role, dsn), one(dsn) as gate:
        await canary.connection.execute(prepare.format(role) or "SELECT")
        assert await used(gate, sql) >= 2
        await canary.connection.execute(change.format(role, role))
        for _ in range(4):
            if after is QueryFailed:
                with pytest.raises(QueryFailed, match="permission denied"):
                    await gate.query(sql)
            else:
                assert (await gate.query(sql)).rows == after


async def test_a_schema_that_is_not_in_the_path_may_be_closed_by_a_role_that_is_left(
    sample: str, canary: Canary
) -> None:
    """The right to use it is looked at by Parse alone, and the path does not tell of it."""
    async with role_of(sample, canary) as (role, dsn), one(dsn, Policy()) as gate:
        await canary.connection.execute(f"""
            CREATE TABLE early.u AS SELECT 1 AS n; GRANT SELECT ON early.u TO PUBLIC;
            GRANT USAGE ON SCHEMA early TO {role}_g; GRANT {role}_g TO {role};
        """)
        assert await used(gate, "SELECT n FROM early.u") >= 2
        await canary.connection.execute(f"REVOKE {role}_g FROM {role}")
        for _ in range(3):
            with pytest.raises(QueryFailed, match="permission denied"):
                await gate.query("SELECT n FROM early.u")


async def test_no_plan_of_rows_that_are_secured_stays(sample: str, canary: Canary) -> None:
    """The server does not plan anew when a role is no longer a member of one that a row's policy is for."""
    async with role_of(sample, canary) as (role, dsn), one(dsn) as gate:
        await canary.connection.execute(f"""
            GRANT {role}_g TO {role};
            ALTER TABLE t ENABLE ROW LEVEL SECURITY;
            CREATE POLICY p ON t TO {role}_g USING (true);
        """)
        assert await used(gate) == 0
        await canary.connection.execute(f"REVOKE {role}_g FROM {role}")
        assert (await gate.query(TEXT)).rows == ()


async def test_callers_of_one_gate_see_their_own_rows_of_one_text(sample: str, canary: Canary) -> None:
    await canary.connection.execute("""
        CREATE VIEW own AS SELECT n, note FROM t WHERE note = current_setting('hubscope.tenant');
        ALTER TABLE t ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON t USING (note = current_setting('hubscope.tenant'));
        CREATE TABLE open AS SELECT 1 AS n;
    """)
    async with role_of(sample, canary) as (role, dsn), one(dsn) as gate:
        await canary.connection.execute(f"GRANT SELECT ON open TO {role}")
        tenants = {name: Narrowed(gate, "hubscope.tenant", name) for name in ("one", "two")}
        for _ in range(4):
            for name, tenant in tenants.items():
                assert [note for _, note in (await tenant.query(TEXT)).rows] == [name]
                assert (await tenant.query("SELECT n FROM open")).rows == ((1,),)
        assert max((await stay(gate)).values()) >= 4


@asynccontextmanager
async def role_of(sample: str, canary: Canary) -> AsyncIterator[tuple[str, str]]:
    """A role that may read t, another one to be a member of, and a URL for the first."""
    parts = urlsplit(sample)
    role = "r" + parts.path[1:][-30:]
    await canary.connection.execute(f"""
        CREATE ROLE {role} LOGIN; CREATE ROLE {role}_g;
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
        GRANT USAGE ON SCHEMA public TO {role}; GRANT SELECT ON t TO {role};
    """)
    try:
        yield role, sample.replace(f"{parts.username}@", f"{role}@", 1)
    finally:
        await canary.connection.execute(f"DROP OWNED BY {role}, {role}_g; DROP ROLE {role}, {role}_g")


@pytest.mark.parametrize(
    ("table", "sql"),
    [
        ("", "SELECT 'now'::timestamptz FROM t"),
        ("", "SELECT n FROM t WHERE '[to\"\"day,)'::daterange @> '2020-01-01'::date"),
        ("", "SELECT '4:05 MSK'::timetz FROM t"),
        ("", 'SELECT note COLLATE "C" FROM t'),
        ("", "SELECT to_tsvector('english', note) FROM t"),
        ("", "SELECT array_position(ARRAY[pg_typeof(n)], 'integer') FROM t"),
        ("CREATE TABLE u (m mood, n int)", "SELECT n FROM u WHERE m = 'ok'"),
        ("CREATE TABLE u (r regclass)", "SELECT r FROM u"),
        ("CREATE TABLE u (r regclass[])", "SELECT 1 FROM u WHERE r = '{t}'"),
        ("CREATE TABLE u (e email)", "SELECT e FROM u"),
        ("CREATE VIEW u AS SELECT * FROM t", "SELECT n FROM u"),
        ("CREATE CAST (text AS int) WITH INOUT AS ASSIGNMENT", TEXT),
    ],
)
async def test_no_plan_stays_of_what_may_mean_something_else_unnoticed(
    gate: Gate, canary: Canary, table: str, sql: str
) -> None:
    if table:
        await canary.connection.execute(table)
    assert await used(gate, sql) == 0
    assert await stay(gate) == {}


async def test_the_clock_does_not_stop_in_a_text_that_comes_again(gate: Gate) -> None:
    for sql in ("SELECT 'now'::timestamptz", "SELECT now()", "SELECT current_timestamp"):
        times = [(await gate.query(sql)).rows[0][0] for _ in range(6)]
        assert times == sorted(set(times)), sql


async def test_no_plan_stays_that_was_made_while_things_were_not_as_they_were_described(
    gate: Gate, canary: Canary
) -> None:
    sql = "SELECT count(*) FROM t"
    assert (await gate.query(sql)).rows == ((2,),)
    await canary.connection.execute("CREATE TABLE early.t AS SELECT 1 AS n")
    assert (await gate.query(sql)).rows == ((1,),)
    await canary.connection.execute("DROP TABLE early.t")
    names = set(await stay(gate))
    assert (await gate.query(sql)).rows == ((2,),)
    assert not names & set(await stay(gate)), "the plan of another table was used"
    assert await used(gate, sql) >= 2


async def test_a_label_that_was_renamed_is_not_the_one_that_was_asked_for(gate: Gate, canary: Canary) -> None:
    await canary.connection.execute("CREATE TABLE moods (m mood, n int); INSERT INTO moods VALUES ('sad', 1)")
    sql = "SELECT n FROM moods WHERE m = 'sad'"
    for _ in range(4):
        assert (await gate.query(sql)).rows == ((1,),)
    await canary.connection.execute("""
        ALTER TYPE mood RENAME VALUE 'sad' TO 'x';
        ALTER TYPE mood RENAME VALUE 'ok' TO 'sad';
    """)
    assert (await gate.query(sql)).rows == ()


@pytest.mark.parametrize("lost", ["DISCARD ALL", "DEALLOCATE ALL", "DEALLOCATE {raw}", "DEALLOCATE {run}"])
async def test_statements_that_are_gone_are_made_again(gate: Gate, lost: str) -> None:
    expected = told(await gate.query(TEXT))
    assert await used(gate) >= 2
    names = sorted(await stay(gate), key=len)
    connection = await gate._pool.acquire()  # type: ignore[union-attr]
    await connection.execute(lost.format(raw=names[0], run=names[1]))
    await gate._pool.release(connection)  # type: ignore[union-attr]
    if lost.endswith("ALL"):  # the driver's own are gone, too
        with contextlib.suppress(DatabaseAway):
            await gate.query(TEXT)
    for _ in range(5):
        assert told(await gate.query(TEXT)) == expected


async def test_a_mistake_of_the_data_is_told_once_and_the_plan_stays(gate: Gate, canary: Canary) -> None:
    sql = "SELECT 1 / n FROM t"
    assert await used(gate, sql) >= 2
    await canary.connection.execute("UPDATE t SET n = 0 WHERE n = 1")
    before = sorted(await stay(gate))
    for _ in range(3):
        with pytest.raises(QueryFailed, match="division by zero"):
            await gate.query(sql)
    assert sorted(await stay(gate)) == before
    await canary.connection.execute("UPDATE t SET n = 1 WHERE n = 0")
    assert len((await gate.query(sql)).rows) == 2


async def test_no_more_plans_stay_than_are_allowed_and_the_oldest_goes_first(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "PLANS", 3)
    texts = [f"SELECT n + {i} FROM t ORDER BY n" for i in range(8)]
    for _ in range(3):
        for i, sql in enumerate(texts):
            for _ in range(3):
                assert (await gate.query(sql)).rows == ((1 + i,), (2 + i,))
            assert (await gate.query(texts[0])).rows == ((1,), (2,))
            left = await stay(gate)
            assert len(left) <= 2 * (3 + 1)
    assert max((await stay(gate)).values()) >= 8, "the text that came most often was let go"


async def test_nothing_stays_of_texts_that_come_once_are_long_have_parameters_or_may_write(
    gate: Gate, sample: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(20):
        await gate.query(f"{TEXT} -- {i}")
    for _ in range(4):
        await gate.query("SELECT n FROM t WHERE n = $1", [1])
    monkeypatch.setattr(run, "PLAN_CHARS", 100)
    for _ in range(4):
        await gate.query(f"{TEXT} -- {'x' * 100}")
    assert await stay(gate) == {}
    async with gate_to(sample, TWO_SCHEMAS, writable=True, connections=1, verdict_s=0) as writing:
        for _ in range(4):
            await writing.query(TEXT)
        assert await stay(writing) == {}


async def test_a_plan_that_was_given_up_while_it_was_made_is_closed(gate: Gate, canary: Canary) -> None:
    expected = told(await gate.query(TEXT))
    for turns in range(25):
        for call in range(3):
            gate._described.pop(TEXT, None) if call == 0 else None
            task = asyncio.create_task(gate.query(TEXT))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert told(await task) == expected
        assert told(await gate.query(TEXT)) == expected
        assert len(await stay(gate)) <= 2 * (ahead.PLANS + 1)
    async with gate.borrowed() as connection:
        line = Line.of(connection)
        here = {name.decode() for names in (*line._plans.values(), *line._left) for name in names}
        assert set(await stay_of(connection)) <= here, "statements are left that nobody knows of"


async def stay_of(connection: Any) -> list[str]:
    rows = await connection.fetch("SELECT name FROM pg_prepared_statements WHERE name LIKE 'hubscope%\\_%\\_%'")
    return [row["name"] for row in rows]


async def test_a_text_that_comes_again_is_checked_in_each_call_and_nothing_is_told_before(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = told(await gate.query(TEXT))
    assert await used(gate) >= 2
    check, checked = gate.check, list[str]()

    def note(sql: str) -> Inspected:
        checked.append(sql)
        return check(sql)

    monkeypatch.setattr(gate, "check", note)
    for n in range(1, 4):
        assert told(await gate.query(TEXT)) == expected
        assert checked == [TEXT] * n

    def refuse(sql: str) -> Inspected:
        raise QueryRefused("not any more")

    monkeypatch.setattr(gate, "check", refuse)
    for _ in range(3):
        with pytest.raises(QueryRefused, match="not any more"):
            await gate.query(TEXT)
    monkeypatch.undo()
    assert told(await gate.query(TEXT)) == expected
    await asyncio.gather(*gate._ending)
    assert (gate.turns.running, gate.connections()) == (0, (1, 1))


async def test_a_text_that_is_found_to_name_something_else_is_asked_about_anew(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await used(gate) >= 2
    monkeypatch.setattr(gate, "check", lambda sql: inspect("SELECT n FROM closed", max_bytes=1_000))
    with pytest.raises(QueryRefused, match="closed"):
        await gate.query(TEXT)


async def test_a_plan_knows_of_an_index_that_was_made_since(gate: Gate, canary: Canary) -> None:
    sql = "SELECT n FROM t WHERE note = 'note 77'"
    await canary.connection.execute("INSERT INTO t SELECT i, 'note ' || i FROM generate_series(10, 20000) AS i")
    await canary.connection.execute("ANALYZE t")
    assert await used(gate, sql) >= 2
    await canary.connection.execute("CREATE INDEX by_note ON t (note); ANALYZE t")
    assert (await gate.query(sql)).rows == ((77,),)
    (name,) = [name for name in await stay(gate) if name.endswith("r")]
    async with gate.borrowed() as connection:
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE {name}"))
    assert "by_note" in plan


async def test_names_on_two_connections_are_never_the_same(sample: str) -> None:
    """Behind a pooler, one could find what another one left, and run it in place of its own."""
    async with one(sample) as gate, one(sample) as other:
        await used(gate)
        await used(other)
        assert not set(await stay(gate)) & set(await stay(other))


async def test_what_is_known_of_a_text_ends_with_its_plan(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await used(gate) >= 2
    before = set(await stay(gate))
    monkeypatch.setattr(run, "DESCRIPTION_S", -1)
    gate._described.clear()
    for _ in range(3):
        await gate.query(TEXT)
    monkeypatch.undo()
    assert await used(gate) >= 2
    assert len(set(await stay(gate)) - before) == 2


TEXTS = (
    "SELECT * FROM t ORDER BY 1",
    "SELECT count(*) FROM t",
    "SELECT n FROM public.t WHERE n = 1",
    "SELECT note || 'x' FROM t ORDER BY 1",
    "SELECT reverse(note) FROM t ORDER BY 1",
    "SELECT a.n FROM t a JOIN t b ON a.n = b.n WHERE b.note = 'one'",
    "SELECT n + 1 FROM early.u",
    "SELECT u.n, t.note FROM u JOIN t USING (n)",
    "WITH t AS (SELECT 1 AS n) SELECT n FROM t",
    "SELECT 1 / (n - 1) FROM t WHERE n = 1",
)
HAPPENINGS = (
    "CREATE TABLE early.t AS SELECT 7 AS n, 'early' AS note",
    "DROP TABLE early.t",
    "CREATE VIEW early.t AS SELECT 5 AS n, 'view' AS note",
    "CREATE VIEW early.t AS SELECT * FROM closed",
    "DROP VIEW early.t",
    "DROP TABLE public.t",
    "CREATE TABLE public.t (n int PRIMARY KEY, note text)",
    "INSERT INTO public.t VALUES (1, 'one'), (2, 'two')",
    "TRUNCATE public.t",
    "ALTER TABLE public.t ALTER n TYPE text",
    "ALTER TABLE public.t ALTER n TYPE int USING n::int",
    "ALTER TABLE public.t RENAME TO tt",
    "ALTER TABLE public.tt RENAME TO t",
    "ALTER TABLE public.t SET SCHEMA private",
    "ALTER TABLE private.t SET SCHEMA public",
    "ALTER TABLE public.t RENAME note TO memo",
    "ALTER TABLE public.t RENAME memo TO note",
    "ALTER TABLE public.t ADD extra mood",
    "ALTER TABLE public.t DROP extra",
    "ALTER TABLE public.t ENABLE ROW LEVEL SECURITY",
    "CREATE TABLE kid () INHERITS (public.t)",
    "DROP TABLE kid",
    "CREATE TABLE early.u AS SELECT 1 AS n",
    "DROP TABLE early.u",
    "CREATE TABLE public.u AS SELECT 2 AS n",
    "DROP TABLE public.u",
    "ALTER SCHEMA early RENAME TO late",
    "ALTER SCHEMA late RENAME TO early",
    "CREATE FUNCTION early.reverse(text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
    "DROP FUNCTION early.reverse(text)",
    "CREATE CAST (text AS int) WITH INOUT AS IMPLICIT",
    "DROP CAST (text AS int)",
    "CREATE OPERATOR early.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = textcat)",
    "DROP OPERATOR early.|| (text, text)",
    "CREATE INDEX ON public.t (note)",
    "ANALYZE",
)
AS_IT_WAS = (
    "ALTER SCHEMA late RENAME TO early",
    "DROP TABLE kid",
    *(f"DROP TABLE {name}" for name in ("early.t", "public.t", "public.tt", "private.t", "early.u", "public.u")),
    *(each for each in HAPPENINGS if each.startswith("DROP") and "TABLE" not in each),
    "CREATE TABLE public.t (n int PRIMARY KEY, note text)",
    "INSERT INTO public.t VALUES (1, 'one'), (2, 'two')",
)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_the_answer_is_that_of_a_gate_that_knows_nothing(
    gate: Gate, sample: str, canary: Canary, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(8):
        for happening in ((*AS_IT_WAS,), *((each,) for each in chance.sample(HAPPENINGS, 3))):
            for each in happening:
                with contextlib.suppress(asyncpg.PostgresError):
                    await canary.connection.execute(each)
            async with one(sample) as fresh:
                for sql in TEXTS:
                    expected = await outcome(fresh, sql)
                    for _ in range(3):
                        assert await outcome(gate, sql) == expected, (sql, happening)
    assert sum((await stay(gate)).values()) > 0


async def outcome(gate: Gate, sql: str) -> Any:
    """What is answered, or what is said instead."""
    try:
        return told(await gate.query(sql))
    except HubscopeError as error:
        return type(error), error.detail


def test_an_answer_that_held_no_parse_is_not_waited_for() -> None:
    assert Lasting.of(ahead.Heard((), (), b"t", b"xt")) is None
    assert Lasting.of(ahead.NOTHING) is None
