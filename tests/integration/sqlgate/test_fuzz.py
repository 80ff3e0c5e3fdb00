"""Generated SQL against a real server: whatever is answered, the server understood as approved, and nothing moves.

The generator mixes what is allowed with what is not, in every place that an expression can stand in.
"""

from __future__ import annotations

import random
import re

import asyncpg
import pytest

from hubscope.errors import HubscopeError, QueryRefused
from tests.integration.sqlgate.conftest import Canary, gate_to
from tests.sql_corpus import SECRET

ATOMS = (
    "1", "'x'", "NULL", "u.id", "u.name", "u", "u.*", "(u).name", "u.email", "id", "name", "u.profile", "u.tags",
    "now()",
    "'2025-01-01'", "'5'", "'(1,1)'", "'{1}'", "$$a$$", "true", "1.5", "current_user", "s", "s.note", "p.price", "p",
    "c.n",
)  # fmt: skip
BAD_ATOMS = (
    "sing()", "u.sing_row", "(u).sing", "peek()", "'1'::singing", "upper(1)", "pg_sleep(0)", "nextval('canary_seq')",
    "(SELECT token FROM secrets)", "(SELECT n FROM counting_view)", "'secrets'::regclass", "'(1)'::perch",
    "sing(u)",
    "(SELECT nothing FROM innocent)", "set_config('a.b', 'c', false)", "pg_notify('canary', 'x')", "lo_create(0)",
    "current_setting('data_directory')", "pg_advisory_lock(1)", "'(1)'::cage",
    "(SELECT song FROM singing_view LIMIT 1)",
    "pg_input_is_valid('5', 'singing')", "query_to_xml('SELECT sing()', true, true, '')",
)  # fmt: skip
WRAPS = (
    "lower({})", "coalesce({}, {})", "({} || {})", "({} + {})", "({} = {})", "({} ^ {})", "({} #+# {})",
    "ARRAY[{}, {}]",
    "CASE WHEN {} IS NULL THEN {} ELSE {} END", "to_jsonb({})", "ROW({}, {})", "({})::text", "count({})", "max({})",
    "(SELECT {})", "EXISTS (SELECT {})", "({} IN ({}, {}))", "nullif({}, {})", "jsonb_build_object('k', {})",
    "sum({}) OVER (ORDER BY {})", "({} OPERATOR(pg_catalog.=) {})", "format('%s', {})", "({} BETWEEN {} AND {})",
    "string_agg({}, ',' ORDER BY {})", "({}).name", "({}).sing_row", "greatest({}, {})", "({} = ANY (ARRAY[{}]))",
    "jsonb_populate_record({}, '{{\"note\": 1}}')", "({} IS DISTINCT FROM {})", "upper({})", "({})::int", "abs({})",
)  # fmt: skip
SOURCES = (
    "users u", "users u, sparrows s", "users u JOIN products p ON p.id = u.id", "customer_summary u",
    "(SELECT * FROM users) u",
    "users u, LATERAL (SELECT {} AS z) q", "users u, generate_series(1, 2) AS c(n)",
    "users u, sing_rows() AS c(n)", "secrets u", "nested u", "readings u", "sparrows AS s, users AS u",
    "ROWS FROM (generate_series(1, 2), unnest(ARRAY[1])) AS c(n, m), users u", "birds u", "kept u",
)  # fmt: skip
SHAPES = (
    "SELECT {} FROM {source}",
    "SELECT {}, {} FROM {source} WHERE {}",
    "SELECT count(*) FROM {source} GROUP BY {}",
    "SELECT u.id FROM {source} ORDER BY {} LIMIT 3",
    "WITH w AS (SELECT {} AS x FROM {source}) SELECT x, {} FROM w, users u",
    "SELECT {} FROM {source} UNION ALL SELECT {} FROM {source}",
    "SELECT DISTINCT ON ({}) u.id FROM {source}",
    "SELECT u.id FROM {source} WHERE {} LIMIT (SELECT 1 WHERE {} IS NOT NULL)",
    "VALUES ({}), ({})",
)
CALLS = re.compile(r":(?:funcid|opfuncid|aggfnoid|winfnoid) ([1-9][0-9]*)")
RELATIONS = re.compile(r":relid ([1-9][0-9]*)")


def expression(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(BAD_ATOMS if rng.random() < 0.04 else ATOMS)
    return filled(rng, rng.choice(WRAPS), depth - 1)


def filled(rng: random.Random, text: str, depth: int) -> str:
    doubled = text.replace("{{", "\1").replace("}}", "\2")
    while "{}" in doubled:
        doubled = doubled.replace("{}", expression(rng, depth).replace("{", "\1").replace("}", "\2"), 1)
    return doubled.replace("\1", "{").replace("\2", "}")


def query(rng: random.Random) -> str:
    text = rng.choice(SHAPES)
    while "{source}" in text:
        text = text.replace("{source}", rng.choice(SOURCES), 1)
    return filled(rng, text, rng.choice((0, 1, 1, 2)))


@pytest.mark.parametrize("seed", range(4))
async def test_generated_sql_is_answered_as_approved_or_leaves_no_trace(sample: str, canary: Canary, seed: int) -> None:
    rng = random.Random(seed)
    before = await canary.state()
    oracle = await asyncpg.connect(
        sample,
        server_settings={
            "search_path": 'pg_catalog, "public", pg_temp',
            "client_min_messages": "log",
            "default_transaction_read_only": "on",
        },
    )
    trees: list[str] = []
    oracle.add_log_listener(lambda _, message: trees.append(message.detail or ""))
    own = {row["oid"] for row in await oracle.fetch("SELECT oid FROM pg_proc WHERE oid >= 16384")}
    names = {
        str(row["oid"]): f"{row['nspname']}.{row['relname']}"
        for row in await oracle.fetch(
            "SELECT c.oid, nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        )
    }
    answered = refused = failed = 0
    async with gate_to(sample, verdict_s=0, statement_timeout_ms=2_000, rows=50) as gate:
        for _ in range(400):
            sql = query(rng)
            try:
                result = await gate.query(sql)
            except QueryRefused as error:
                refused, told = refused + 1, error.detail
            except HubscopeError as error:
                failed, told = failed + 1, error.detail
            else:
                answered, told = answered + 1, ""
            assert SECRET not in told, sql
            if told:
                continue
            assert SECRET not in str(result.rows), sql
            await oracle.execute("SET debug_print_rewritten = off")
            await oracle.prepare(sql)
            await oracle.execute("SET debug_print_rewritten = on")
            trees.clear()
            await oracle.prepare(sql)
            tree = "".join(trees)
            assert {names[oid] for oid in RELATIONS.findall(tree)} <= set(result.reads), sql
            assert not {int(oid) for oid in CALLS.findall(tree)} & own, sql
    await oracle.close()
    assert await canary.state() == before
    assert answered > 30
    assert refused > 30
