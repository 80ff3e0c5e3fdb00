"""The policy over a real catalogue."""

from __future__ import annotations

import pytest

from hubscope.errors import QueryRefused
from hubscope.sqlgate import Gate, Policy
from hubscope.sqlgate.policy import QUERIES, _Names
from tests.integration.sqlgate.conftest import Canary, gate_to
from tests.sql_corpus import ATTACKS, ATTACKS_BY_NAME, LEGITIMATE


async def refused(gate: Gate, sql: str) -> str:
    with pytest.raises(QueryRefused) as error:
        await gate.query(sql)
    return error.value.detail


async def test_only_allowed_schemas_are_read(sample: str) -> None:
    async with gate_to(sample, Policy(allowed_schemas=("private",))) as gate:
        assert (await gate.query("SELECT count(*) FROM salaries")).rows == ((1,),)
        assert "not served" in await refused(gate, "SELECT * FROM public.users")
    async with gate_to(sample, Policy()) as gate:
        assert (await gate.query("SELECT count(*) FROM private.salaries")).rows == ((1,),)
        assert "not served" in await refused(gate, "SELECT * FROM pg_class")


async def test_a_blocked_table_is_not_read_by_any_way(sample: str) -> None:
    async with gate_to(sample, Policy(blocked_tables=frozenset({"readings_2025", "public.orders"}))) as gate:
        assert "includes a table that is not served" in await refused(gate, "SELECT * FROM readings")
        assert "not served" in await refused(gate, "SELECT * FROM readings_2025")
        assert "reads a table that is not served" in await refused(gate, "SELECT * FROM customer_summary")
        await gate.query("SELECT * FROM users")
    async with gate_to(sample, Policy(blocked_tables=frozenset({"readings"}))) as gate:
        assert "is part of a table that is not served" in await refused(gate, "SELECT * FROM readings_2025")


async def test_views_may_read_what_view_schemas_names(sample: str) -> None:
    policy = Policy(allowed_schemas=("public",), view_schemas=frozenset({"private"}))
    async with gate_to(sample, policy) as gate:
        assert len((await gate.query("SELECT * FROM over_private")).rows) == 1
        assert "not served" in await refused(gate, "SELECT * FROM private.salaries")


async def test_a_function_of_ones_own_is_called_once_it_is_listed(sample: str, canary: Canary) -> None:
    await canary.connection.execute(
        "CREATE FUNCTION get_customer_analytics(customer int) RETURNS TABLE (name text, total numeric) LANGUAGE sql AS"
        " $$ SELECT name, sum(total_amount) FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = customer"
        " GROUP BY 1 $$"
    )
    async with gate_to(sample) as gate:
        assert "get_customer_analytics is not allowed" in await refused(gate, "SELECT get_customer_analytics(1)")
    listed = Policy(allowed_functions=frozenset({"public.get_customer_analytics"}))
    async with gate_to(sample, listed) as gate:
        rows = (await gate.query("SELECT * FROM get_customer_analytics($1)", [3])).rows
        assert rows[0][0] == "user 3"


async def test_a_function_that_views_may_call_is_closed_to_a_query(sample: str, canary: Canary) -> None:
    await canary.connection.execute(
        "CREATE FUNCTION count_users() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM users';"
        "CREATE VIEW user_count AS SELECT count_users() AS users"
    )
    async with gate_to(sample) as gate:
        assert "calls the function public.count_users" in await refused(gate, "SELECT users FROM user_count")
    async with gate_to(sample, Policy(view_functions=frozenset({"public.count_users"}))) as gate:
        assert len((await gate.query("SELECT users FROM user_count")).rows) == 1
        assert "count_users is not allowed" in await refused(gate, "SELECT count_users()")


async def test_a_listed_function_opens_no_built_in_one_of_its_name(sample: str, canary: Canary) -> None:
    await canary.connection.execute(
        "CREATE FUNCTION public.pg_sleep(text) RETURNS int LANGUAGE sql AS 'SELECT 1';"
        "CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT sing()::text'"
    )
    async with gate_to(sample, Policy(allowed_functions=frozenset({"public.pg_sleep"}))) as gate:
        assert (await gate.query("SELECT public.pg_sleep('x')")).rows == ((1,),)
        assert "pg_catalog.pg_sleep is not allowed" in await refused(gate, "SELECT pg_sleep(0)")
        assert "is not allowed" in await refused(gate, "SELECT pg_catalog.pg_sleep(0)")
        assert "unnest may mean public.unnest" in await refused(gate, "SELECT unnest(tags) FROM users")


async def test_a_listed_function_that_writes_is_stopped_by_the_transaction(sample: str, canary: Canary) -> None:
    policy = Policy(allowed_functions=frozenset({"public.sing"}))
    before = await canary.state()
    async with gate_to(sample, policy) as gate:
        with pytest.raises(Exception, match=r"read-only transaction \[SQLSTATE 25006\]"):
            await gate.query("SELECT sing()")
    assert await canary.state() == before


async def test_what_is_renamed_over_is_looked_at_again(sample: str, canary: Canary) -> None:
    async with gate_to(sample, verdict_s=0) as gate:
        await canary.connection.execute("CREATE VIEW plain AS SELECT name FROM users")
        await gate.query("SELECT * FROM plain")
        await canary.connection.execute("CREATE OR REPLACE VIEW plain AS SELECT token AS name FROM secrets")
        assert "reads a table" in await refused(gate, "SELECT * FROM plain")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT * FROM user_s", "public.users is"),
        ("SELECT upper(1)", "upper may mean public.upper, .*; write pg_catalog.upper"),
        ("SELECT 2 ^ 3", r"write OPERATOR\(pg_catalog\.\^\)"),
        ("SELECT u.sing_row FROM users u", "sing_row after a dot may call the function public.sing_row"),
        ("SELECT * FROM singing_view", "the view public.singing_view calls the function public.sing"),
        ("SELECT 1::singing", "the domain singing calls the function public.sing_check"),
        ("SELECT '(1)'::perch::int", "casts perch to integer by the function public.sing_cast"),
    ],
)
async def test_a_refusal_tells_the_way_out(gate: Gate, sql: str, said: str) -> None:
    with pytest.raises(QueryRefused, match=said):
        await gate.query(sql)


async def test_the_way_out_works(gate: Gate) -> None:
    assert (await gate.query("SELECT pg_catalog.upper('x'), 2 OPERATOR(pg_catalog.^) 3")).rows == (("X", 8.0),)


async def test_reviewed_extensions_work_and_their_dangerous_functions_do_not(sample: str, canary: Canary) -> None:
    for extension in ("citext", "pg_trgm", "hstore", "tablefunc", "fuzzystrmatch", "vector"):
        await canary.connection.execute(f"CREATE EXTENSION {extension} SCHEMA public")
    async with gate_to(sample, verdict_s=0) as gate:
        for sql in (
            "SELECT similarity('word', 'words'), 'word' % 'words'",
            "SELECT 'A'::citext = 'a', lower('A'::citext), replace('A'::citext, 'a', 'b')",
            "SELECT 'a=>1'::hstore -> 'a', akeys('a=>1')",
            "SELECT levenshtein('a', 'b'), soundex('x')",
            "SELECT '[1,2]'::vector <-> '[3,4]', cosine_distance('[1,2]'::vector, '[3,4]')",
            "SELECT count(*) FROM normal_rand(5, 1, 2)",
        ):
            assert (await gate.query(sql)).rows
        for sql in ("SELECT * FROM crosstab('SELECT 1, 2, 3') AS t(a int, b int)", "SELECT dblink_connect('x')"):
            with pytest.raises(QueryRefused):
                await gate.query(sql)


async def test_a_function_that_only_looks_like_an_extensions_is_refused(sample: str, canary: Canary) -> None:
    await canary.connection.execute(
        "CREATE FUNCTION similarity(text, text) RETURNS real LANGUAGE sql AS 'SELECT sing()::real'"
    )
    async with gate_to(sample) as gate:
        assert "public.similarity is not allowed" in await refused(gate, "SELECT similarity('a', 'b')")


async def test_temporary_tables_of_the_session_do_not_shadow(sample: str) -> None:
    """pg_temp comes last in the search path, and its relations are not served."""
    async with gate_to(sample, connections=1, verdict_s=0) as gate:
        async with gate.borrowed() as connection:
            await connection.execute(
                "ROLLBACK; BEGIN READ WRITE; CREATE TEMP TABLE users (id int); COMMIT; BEGIN READ ONLY"
            )
        assert len((await gate.query("SELECT * FROM users")).columns) > 1
        with pytest.raises(QueryRefused):
            await gate.query("SELECT * FROM pg_temp.users")


async def verdicts(gate: Gate, queries: list[str]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for sql in queries:
        try:
            inspected = gate.check(sql)
            async with gate.borrowed() as connection:
                found.append((sql, (await gate.approve(connection, sql, inspected)).reads))
        except QueryRefused as refused:
            found.append((sql, refused.detail))
    return found


async def test_the_short_look_at_the_catalogue_ends_as_the_long_one_does(
    sample: str, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    await canary.connection.execute("DROP CAST (perch AS int)")  # with it in the database, no look is short
    attacks = [sql for corpus in (ATTACKS, ATTACKS_BY_NAME) for texts in corpus.values() for sql in texts]
    queries = [*attacks, *LEGITIMATE]
    async with gate_to(sample, verdict_s=0) as gate:
        short = await verdicts(gate, queries)
        monkeypatch.setattr(_Names, "are_plain", lambda _: False)
        assert short == await verdicts(gate, queries)


PLAIN = "SELECT p.name, count(*), date(now()), p.id + 1 FROM products AS p WHERE p.price > 1 GROUP BY 1, 3, 4"


@pytest.mark.parametrize(
    "made",
    [
        "ALTER TABLE products RENAME TO goods; CREATE VIEW products AS SELECT * FROM goods",
        "CREATE VIEW v AS SELECT * FROM products; ALTER TABLE products RENAME TO goods;"
        " ALTER VIEW v RENAME TO products",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM products; ALTER TABLE products RENAME TO goods;"
        " ALTER MATERIALIZED VIEW m RENAME TO products",
        "CREATE TABLE cheap () INHERITS (products)",
        "CREATE TABLE things (sort text); ALTER TABLE products ADD sort text; ALTER TABLE products INHERIT things",
        "CREATE RULE loud AS ON INSERT TO products DO ALSO NOTHING",
        "ALTER TABLE products ADD home cage",
        "ALTER TABLE products ADD notes singing[]",
        "CREATE FUNCTION count(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION private.count(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION price(products) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION name(VARIADIC text[]) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION id(anyelement) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OPERATOR + (LEFTARG = mood, RIGHTARG = int, FUNCTION = moody)",
        "CREATE OPERATOR <= (LEFTARG = mood, RIGHTARG = int, FUNCTION = moody)",
        "CREATE CAST (mood AS int) WITH FUNCTION calm(mood)",
        "CREATE DOMAIN public.date AS text CHECK (value <> '')",
        "CREATE TABLE public.now (n int)",
    ],
)
async def test_what_gives_a_name_another_meaning_is_looked_at_closely(sample: str, canary: Canary, made: str) -> None:
    await canary.connection.execute(
        "DROP CAST (perch AS int);"
        "CREATE FUNCTION moody(mood, int) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
        "CREATE FUNCTION calm(mood) RETURNS int LANGUAGE sql AS 'SELECT 1'"
    )
    async with gate_to(sample, verdict_s=0) as gate:
        names = _Names.of(gate.check(PLAIN))

        async def more() -> bool:
            async with gate.borrowed() as connection:
                return any(row["more"] for row in await connection.fetch(QUERIES["plain"], *names.plain_arguments()))

        assert not await more()
        await canary.connection.execute(made)
        assert await more()
