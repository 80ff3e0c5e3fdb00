"""The guard: what it lets through, what it refuses, and that nothing makes it fall over."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubscope.errors import QueryRefused
from hubscope.sqlgate.guard import HARD_MAX_BYTES, inspect
from hubscope.sqlgate.vocabulary import FUNCTIONS
from tests.sql_corpus import ATTACKS, LEGITIMATE, ON_18

EVERY_ATTACK = [(family, sql) for family, texts in ATTACKS.items() for sql in texts]


def check(sql: str, max_bytes: int = 10_000) -> object:
    return inspect(sql, max_bytes=max_bytes)


@pytest.mark.parametrize("sql", [*LEGITIMATE, *ON_18])
def test_analytical_sql_passes(sql: str) -> None:
    check(sql)


@pytest.mark.parametrize(("family", "sql"), EVERY_ATTACK, ids=[f"{f}: {s[:50]!r}" for f, s in EVERY_ATTACK])
def test_an_attack_is_refused(family: str, sql: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        check(sql)
    assert refused.value.detail
    assert "\n" not in refused.value.detail


def test_the_corpora_are_as_large_as_they_should_be() -> None:
    assert len(LEGITIMATE) + len(ON_18) >= 80
    assert len(EVERY_ATTACK) >= 150


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT pg_sleep(1)", "the function pg_sleep is not allowed at line 1, column 8; nothing to wait for here"),
        ("SELECT 1,\n  low_er('x')", "the function low_er is not allowed at line 2, column 3; lower is allowed"),
        ("SELECT 'ü', my_own(1)", "the function my_own is not allowed at line 1, column 13; a function of your own"),
        ("EXPLAIN SELECT 1", "EXPLAIN is not allowed, only SELECT .*; call analyze_query"),
        ("INSERT INTO a VALUES (1)", "INSERT is not allowed, .*POST /v1/events"),
        ("SELECT 1; SELECT 2", "the text holds 2 statements at line 1, column 11; send one SELECT"),
        ("SELECT 'a'::regclass", "the type regclass is not allowed at line 1, column 13; .*list_tables"),
        ("SELECT * FROM a FOR UPDATE", "FOR UPDATE and FOR SHARE lock rows"),
        ("SELECT 1 FROM", "the query is not valid SQL: syntax error at end of input"),
        ("", "the query is empty"),
    ],
)
def test_a_refusal_says_what_where_and_what_instead(sql: str, said: str) -> None:
    with pytest.raises(QueryRefused, match=f"^{said}"):
        check(sql)


def test_a_text_over_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(QueryRefused, match=r"has 36 bytes; at most 20 are allowed \(MAX_QUERY_LENGTH\)"):
        check("SELECT 'üüüüüüüüüü' FROM((", max_bytes=20)
    with pytest.raises(QueryRefused, match=f"at most {HARD_MAX_BYTES}"):
        check("SELECT " + " " * HARD_MAX_BYTES + "1", max_bytes=10**9)


@pytest.mark.parametrize(
    "nested",
    [
        "SELECT " + "(" * 9_990 + "1" + ")" * 9_990,
        "SELECT " + "- " * 9_990 + "1",
        "SELECT " + "NOT " * 4_900 + "true",
        "SELECT 1" + "+1" * 9_900,
        "SELECT 1" + "::int" * 3_900,
        "SELECT " + "ARRAY[" * 2_800 + "1" + "]" * 2_800,
        "SELECT " + "(SELECT " * 2_200 + "1" + ")" * 2_200,
        "SELECT 1" + " UNION SELECT 1" * 1_300,
        "SELECT " + "lower(" * 2_800 + "1" + ")" * 2_800,
        "SELECT a" + "[1]" * 6_600,
        "SELECT " + "CASE WHEN a THEN " * 950 + "1" + " END" * 950,
        "SELECT FROM a" + " JOIN a USING (x)" * 1_100,
        "SELECT * FROM " + "(SELECT * FROM " * 1_050 + "a" + ") x" * 1_050,
        "WITH a AS (" * 900 + "SELECT 1" + ") SELECT 1" * 900,
        "SELECT a" + " IS NULL" * 2_400,
        "SELECT a" + ".b" * 9_900,
        "SELECT " + "1," * 9_900 + "1",
        "SELECT * FROM " + "a," * 9_900 + "a",
    ],
    ids=lambda text: text[7:20],
)
def test_no_nesting_within_the_hard_limit_harms_the_process(nested: str) -> None:
    assert len(nested) <= HARD_MAX_BYTES
    with contextlib.suppress(QueryRefused):
        check(nested, max_bytes=HARD_MAX_BYTES)


def test_names_that_only_a_database_can_judge_come_back_with_their_places() -> None:
    seen = inspect(
        "WITH w AS (SELECT 1) SELECT t.f, (t.r).g, lower(x), a #+# b, 'x'::mood FROM s.t AS t, w, u",
        max_bytes=10_000,
    )
    assert {(n.schema, n.name) for n in seen.relations} == {("s", "t"), (None, "w"), (None, "u")}
    assert {n.name for n in seen.fields} == {"f", "r", "g"}
    assert [n.name for n in seen.functions] == ["lower"]
    assert [n.name for n in seen.operators] == ["#+#"]
    assert [(n.name, n.at) for n in seen.types] == [("mood", 66)]
    assert seen.with_names == {"w"}


def test_the_statement_comes_back_alone_with_the_places_of_its_parameters() -> None:
    seen = inspect("/* ü */ SELECT 'ü', $2, $1 ; -- done", max_bytes=10_000)
    assert [seen.sql[at : at + 2] for at, _ in seen.parameters] == ["$2", "$1"]
    assert [number for _, number in seen.parameters] == [2, 1]
    assert ";" not in seen.sql


def test_a_function_of_ones_own_passes_once_it_is_listed() -> None:
    listed = frozenset({"app.total"})
    for sql in ("SELECT app.total(1)", "SELECT total(1)", "SELECT * FROM app.total(1)"):
        assert inspect(sql, max_bytes=10_000, allowed_functions=listed).functions
    for sql in ("SELECT other.total(1)", "SELECT app.totals(1)", "SELECT pg_catalog.total(1)"):
        with pytest.raises(QueryRefused):
            inspect(sql, max_bytes=10_000, allowed_functions=listed)


NAMES = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12).filter(lambda name: name not in FUNCTIONS)
PLACES = (
    "SELECT {}",
    "SELECT 1 FROM users WHERE {} IS NULL",
    "SELECT 1 ORDER BY {}",
    "SELECT 1 GROUP BY {} HAVING {} > 1",
    "SELECT 1 LIMIT {}",
    "SELECT * FROM {} AS t",
    "SELECT * FROM users, LATERAL {} AS t",
    "SELECT * FROM ROWS FROM (generate_series(1, 2), {}) AS t",
    "SELECT CASE WHEN {} THEN {} ELSE {} END",
    "SELECT sum(1) FILTER (WHERE {}) OVER (PARTITION BY {} ORDER BY {})",
    "SELECT ARRAY[{}, ROW({}, COALESCE({}, 1))]",
    "SELECT (ARRAY[1])[{}]",
    "SELECT 1 IN (1, {}), {} BETWEEN {} AND 2, {} = ANY (SELECT {})",
    "WITH x AS (SELECT {}) SELECT * FROM x UNION SELECT {}",
    "VALUES (1, {})",
    "SELECT jsonb_build_object('a', {}), JSON_OBJECT('k': {}), {}::text COLLATE \"C\"",
    "SELECT string_agg('x', ',' ORDER BY {}), percentile_cont(0.5) WITHIN GROUP (ORDER BY {})",
    "SELECT * FROM a JOIN b ON {}",
    "SELECT DISTINCT ON ({}) 1",
    "SELECT {} AT TIME ZONE {}, EXTRACT(year FROM {}), substring({} from {})",
    "SELECT (({})).x, ({}).y.z",
)


@settings(max_examples=300, deadline=None)
@given(name=NAMES, schema=st.sampled_from(["", "public.", "pg_catalog.", '"x y".']), place=st.sampled_from(PLACES))
def test_a_call_of_an_unknown_function_is_found_wherever_it_stands(name: str, schema: str, place: str) -> None:
    call = f'{schema}"zz_{name}"(1)'
    check(
        place.replace("{}", "1")
        .replace("FROM 1 AS t", "FROM users")
        .replace("LATERAL 1 AS", "users AS")
        .replace("generate_series(1, 2), 1)", "generate_series(1, 2))")
    )
    with pytest.raises(QueryRefused, match="zz_"):
        check(place.replace("{}", call, 1).replace("{}", "1"))


WORDS = st.sampled_from(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "(",
        ")",
        ",",
        ";",
        "*",
        "1",
        "'x'",
        "users",
        '"q"',
        "$1",
        "--",
        "/*",
        "*/",
        "INSERT",
        "INTO",
        "DELETE",
        "WITH",
        "AS",
        "UNION",
        "ORDER",
        "BY",
        "=",
        "+",
        "::",
        "int",
        "text",
        "lower",
        "pg_sleep",
        "a.b",
        "JOIN",
        "ON",
        "USING",
        "GROUP",
        "CASE",
        "WHEN",
        "THEN",
        "END",
        "ARRAY",
        "[",
        "]",
        "NULL",
        "ROW",
        "VALUES",
        "LATERAL",
        "FOR",
        "UPDATE",
        "U&",
        "E",
        "$$",
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=200))
def test_any_text_is_passed_or_refused_and_nothing_else(text: str) -> None:
    with contextlib.suppress(QueryRefused):
        seen = inspect(text, max_bytes=10_000)
        again = inspect(seen.sql, max_bytes=10_000)
        assert [name[:2] for name in again.relations] == [name[:2] for name in seen.relations]


@pytest.mark.parametrize(
    ("literal", "lasting"),
    [
        ("tool-17", True),
        ("1 hour", True),
        ("2026-01-01", True),
        ("2026-01-01T00:00:00.123Z", True),
        ("2026-01-01 00:00:00+02:00", True),
        ("0192a3b4-c5d6-7e8f-9012-abcdef012345", True),
        ('{"a": 1}', True),
        ("%.5%", True),
        ("", True),
        ("now", False),
        (" ToDay 04:05", False),
        ("[yesterday,tomorrow)", False),
        (r'{"to\day"}', False),
        ('[to""day,)', False),
        (r"(,\"n\o\w\")", False),
        ("04:05 MSK", False),
        ("4:5MSK", False),
        ("0405 MSK", False),
        ("T040506.789 MSK", False),
        ("{04:05 PM MSK}", False),
        ("04:05 Europe/Moscow", False),
    ],
)
def test_a_literal_that_is_read_as_something_else_at_another_time_is_known(literal: str, lasting: bool) -> None:
    quoted = literal.replace("'", "''")
    for sql in (
        f"SELECT '{quoted}'",
        f"SELECT n FROM t WHERE a = ANY (ARRAY[1, f('{quoted}')])".replace("f(", "upper("),
    ):
        assert inspect(sql, max_bytes=1_000).lasting is lasting
    hidden = "".join(f"\\{ord(char):04x}" for char in literal)
    assert inspect(f"SELECT U&'{hidden}'", max_bytes=1_000).lasting is lasting


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT a COLLATE "C" FROM t',
        "SELECT to_tsvector('english', a) FROM t",
        "SELECT pg_catalog.to_tsquery('english', a) FROM t",
        "SELECT 'english'::regconfig",
        "SELECT '{english}'::regconfig[]",
        "SELECT array_position(ARRAY[pg_typeof(a)], 'int') FROM t",
        "SELECT n FROM t WHERE day = 'to'\n'day'",
    ],
)
def test_a_text_in_which_something_is_named_that_nobody_is_asked_about_is_known(sql: str) -> None:
    assert not inspect(sql, max_bytes=1_000).lasting


def test_most_queries_mean_the_same_whenever_they_are_read() -> None:
    found = [inspect(sql, max_bytes=10_000).lasting for sql in LEGITIMATE]
    assert found.count(True) > len(found) * 0.8
