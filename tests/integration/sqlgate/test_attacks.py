"""The corpora against a real PostgreSQL: what must be answered is, what must not leaves no trace, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from hubscope.errors import HubscopeError, QueryRefused
from hubscope.sqlgate import Gate
from hubscope.sqlgate.guard import Inspected
from hubscope.sqlgate.run import _Described, describe, fit
from tests.integration.sqlgate.conftest import Canary, gate_to
from tests.sql_corpus import ATTACKS, ATTACKS_BY_NAME, BOMBS, LEGITIMATE, ON_18, SECRET

EVERYTHING = [(f, sql) for corpus in (ATTACKS, ATTACKS_BY_NAME) for f, texts in corpus.items() for sql in texts]


async def test_analytical_sql_is_answered(gate: Gate) -> None:
    failures = []
    for sql in (*LEGITIMATE, *ON_18):
        try:
            result = await gate.query(sql)
            assert result.columns
        except HubscopeError as error:
            failures.append((sql, error.detail))
    assert failures == []


async def test_every_attack_is_refused_and_nothing_moves(gate: Gate, canary: Canary) -> None:
    before = await canary.state()
    answered: list[tuple[str, str, Any]] = []
    told = []
    for family, sql in EVERYTHING:
        try:
            result = await gate.query(sql)
            answered.append((family, sql, result.rows))
        except QueryRefused as refused:
            if SECRET in refused.detail:
                told.append((family, sql))
        except HubscopeError as error:
            answered.append((family, sql, error.detail))
    assert (answered, told) == ([], [])
    assert await canary.state() == before
    assert (await gate.query("SELECT count(*) FROM users")).rows == ((20,),)


def test_the_corpora_are_as_large_as_promised() -> None:
    assert len(EVERYTHING) >= 150
    assert len({family for family, _ in EVERYTHING}) >= 20
    assert len(LEGITIMATE) >= 80
    assert len(BOMBS) >= 10


WITHOUT_GUARD_KNOWN = {
    # What reads, waits or tells, but changes nothing: the transaction and the protocol do not stop it, the guard does.
    "blocked tables",
    "through views",
    "other schemas",
    "the system's relations",
    "the catalogue by name",
    "files and large objects",
    "settings and sessions",
    "SQL given as text",
    "waiting",
    "disguises",
    "functions of one's own",
    "functions in views",
    "types and casts",
    "operators",
    "attribute notation",
    "shadowed functions",
    "locking",
    "sequences",
    "sampling and definitions",
    "too much or not SQL",
    "other statements",
    "comments",
    "writing inside a query",
    "writing",  # ANALYZE
}
# Not tried without the guard: they act on the whole server, at once, for whoever is superuser, as the tests are.
ON_THE_SERVER = re.compile(
    r"pg_sleep|pg_promote|terminate_backend|pg_switch_wal|replication_slot|rotate_logfile|restore_point|pg_stat_reset"
    r"|lo_export|PROGRAM|TO '/tmp|ALTER SYSTEM|CHECKPOINT|CLUSTER|pg_reload|pg_file_write|emit_message|backend_memory"
    r"|LOAD|VACUUM|REINDEX"
)


async def test_without_the_gates_the_transaction_and_the_protocol_hold_by_themselves(
    sample: str, canary: Canary
) -> None:
    """READ ONLY, rolled back, one prepared statement: whatever is tried as superuser, nothing is changed for good."""
    before = await canary.state()
    stopped, ran = 0, []
    async with gate_to(sample, statement_timeout_ms=2_000) as gate:
        for family, sql in EVERYTHING:
            if ON_THE_SERVER.search(sql) or "\0" in sql or "\ud800" in sql:
                continue
            try:
                async with gate.borrowed() as connection:
                    await connection.fetch(sql)
                ran.append((family, sql))
            except (HubscopeError, asyncpg.InterfaceError):
                stopped += 1
            # Sequences are the one thing that no transaction takes back.
            if "setval" in sql or "nextval" in sql or family == "functions in views":
                before = (*before[:1], (await canary.state())[1], *before[2:])
        assert (await gate.query("SELECT count(*) FROM users")).rows == ((20,),)
    assert await canary.state() == before
    print(f"{stopped} of {stopped + len(ran)} attacks stopped without the gates; ran: {ran}")
    assert stopped >= 100
    assert {family for family, _ in ran} <= WITHOUT_GUARD_KNOWN


async def test_without_the_gates_the_wrapper_takes_selects_only(sample: str, canary: Canary) -> None:
    """What runs stands inside a SELECT of ours: a statement that is no query is a syntax error there."""
    before = await canary.state()
    async with gate_to(sample) as gate:
        for family in ("several statements", "writing", "other statements", "comments"):
            for sql in ATTACKS[family]:
                if "pg_sleep" in sql:
                    continue
                try:
                    async with gate.borrowed() as connection:
                        inspected = _unchecked(sql)
                        shapes, text, _ = fit(
                            _Described.of(await describe(connection, inspected)), inspected, [], 100, 10
                        )
                        statement = await connection.prepare(text)
                        rows = [row async for row in statement.cursor()]
                except (HubscopeError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    continue
                raise AssertionError(f"{sql!r} ran and gave {shapes} {rows}")
    assert await canary.state() == before


def _unchecked(sql: str) -> Inspected:
    return Inspected(sql, (), (), (), (), (), (), frozenset())


CALLS = re.compile(r":(?:funcid|opfuncid|aggfnoid|winfnoid) ([1-9][0-9]*)")
RELATIONS = re.compile(r":relid ([1-9][0-9]*)")


async def test_what_the_server_itself_understood_is_what_was_approved(sample: str) -> None:
    await understood_is_approved(sample, (*LEGITIMATE, *ON_18))


async def understood_is_approved(sample: str, queries: Sequence[str]) -> None:
    """The oracle: the server's own tree of each query (debug_print_rewritten), views expanded, names resolved.

    Every relation in it is one that the policy approved, and every function is built in or of a view.
    """
    async with gate_to(sample) as gate:
        async with gate.borrowed():
            pass
        connection = await asyncpg.connect(
            sample, server_settings={"search_path": 'pg_catalog, "public", pg_temp', "client_min_messages": "log"}
        )
        trees: list[str] = []
        connection.add_log_listener(lambda _, message: trees.append(message.detail or ""))
        own = {row["oid"] for row in await connection.fetch("SELECT oid FROM pg_proc WHERE oid >= 16384")}
        names = {
            str(row["oid"]): f"{row['nspname']}.{row['relname']}"
            for row in await connection.fetch(
                "SELECT c.oid, nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            )
        }
        await connection.execute("SET debug_print_rewritten = on; SET debug_pretty_print = off")
        for sql in queries:
            await connection.prepare(sql)  # the driver asks about types that it does not know yet
            trees.clear()
            await connection.prepare(sql)
            tree = "".join(trees)
            assert tree, sql
            approved = await _approved(gate, sql)
            assert {names[oid] for oid in RELATIONS.findall(tree)} <= set(approved), sql
            assert {int(oid) for oid in CALLS.findall(tree)} & own == set(), sql
        await connection.close()


async def _approved(gate: Gate, sql: str) -> tuple[str, ...]:
    async with gate.borrowed() as connection:
        return (await gate.approve(connection, sql, gate.check(sql))).reads


async def test_a_refusal_of_what_is_closed_and_of_what_is_not_there_read_alike(gate: Gate) -> None:
    said: list[Any] = []
    for name in ("secrets", "zzzzzzz", "private.salaries", "private.zzzzzzzz"):
        try:
            await gate.query(f"SELECT * FROM {name}")
        except QueryRefused as refused:
            said.append(refused.detail.replace(name, "NAME").partition(";")[0])
    assert len(said) == 4
    assert len(set(said)) == 1


async def test_rows_can_be_encoded_whatever_they_hold(gate: Gate) -> None:
    for sql in LEGITIMATE:
        msgspec.json.decode(msgspec.json.encode((await gate.query(sql)).rows))
