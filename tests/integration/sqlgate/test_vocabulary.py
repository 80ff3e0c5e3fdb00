"""The lists against a live catalogue: PostgreSQL 18's pg_proc, pg_type and pg_operator."""

from __future__ import annotations

import asyncpg
import pytest

from hubscope.errors import QueryRefused
from hubscope.sqlgate import inspect
from hubscope.sqlgate.vocabulary import (
    AGGREGATES,
    FUNCTIONS,
    IN_DEFINITIONS,
    SYSTEM_TYPES_REFUSED,
    TYPES,
    VOLATILE_BUT_HARMLESS,
    WINDOWS,
)
from hubscope.store import connect


@pytest.fixture
async def catalogue(empty_database: str) -> asyncpg.Connection:
    connection = await connect(empty_database, name="tests")
    yield connection
    await connection.close()


SYSTEM = "pronamespace = 'pg_catalog'::regnamespace"


async def test_every_function_on_the_list_exists(catalogue: asyncpg.Connection) -> None:
    there = {row[0] for row in await catalogue.fetch(f"SELECT DISTINCT proname FROM pg_proc WHERE {SYSTEM}")}
    assert there >= FUNCTIONS
    assert there >= IN_DEFINITIONS


async def test_no_volatile_function_is_on_the_list_but_random_numbers_and_the_clock(
    catalogue: asyncpg.Connection,
) -> None:
    volatile = {
        row[0]
        for row in await catalogue.fetch(f"SELECT DISTINCT proname FROM pg_proc WHERE {SYSTEM} AND provolatile = 'v'")
    }
    assert volatile & FUNCTIONS == VOLATILE_BUT_HARMLESS
    assert volatile & IN_DEFINITIONS == VOLATILE_BUT_HARMLESS


async def test_no_function_on_the_list_takes_what_looks_names_up_or_is_internal(catalogue: asyncpg.Connection) -> None:
    rows = await catalogue.fetch(
        "SELECT DISTINCT proname FROM pg_proc, unnest(proargtypes) AS t(oid) JOIN pg_type USING (oid)"
        f" WHERE {SYSTEM} AND typname = ANY ($1)",
        sorted(
            SYSTEM_TYPES_REFUSED
            - {"any", "anyarray", "anyelement", "anynonarray", "anyenum", "anyrange", "anymultirange", "record"}
            - {name for name in SYSTEM_TYPES_REFUSED if name.startswith("anycompatible")}
        ),
    )
    assert {row[0] for row in rows} & FUNCTIONS == set()


async def test_every_aggregate_and_window_function_is_on_the_list(catalogue: asyncpg.Connection) -> None:
    rows = await catalogue.fetch(f"SELECT DISTINCT proname FROM pg_proc WHERE {SYSTEM} AND prokind IN ('a', 'w')")
    assert {row[0] for row in rows} == AGGREGATES | WINDOWS


async def test_every_function_of_the_server_is_allowed_or_refused_by_name(catalogue: asyncpg.Connection) -> None:
    for row in await catalogue.fetch(f"SELECT DISTINCT proname FROM pg_proc WHERE {SYSTEM}"):
        name = row[0]
        for call in (f'SELECT pg_catalog."{name}"()', f'SELECT * FROM pg_catalog."{name}"(1)'):
            if name in FUNCTIONS:
                inspect(call, max_bytes=10_000)
            else:
                with pytest.raises(QueryRefused, match="is not allowed"):
                    inspect(call, max_bytes=10_000)


async def test_every_type_of_the_server_is_allowed_or_refused(catalogue: asyncpg.Connection) -> None:
    rows = await catalogue.fetch(
        "SELECT typname FROM pg_type"
        " WHERE typnamespace = 'pg_catalog'::regnamespace AND typrelid = 0 AND typname !~ '^_'"
    )
    names = {row[0] for row in rows}
    assert names - TYPES - SYSTEM_TYPES_REFUSED == set()
    assert not TYPES & SYSTEM_TYPES_REFUSED


async def test_no_operator_of_the_server_runs_a_volatile_function(catalogue: asyncpg.Connection) -> None:
    rows = await catalogue.fetch(
        "SELECT oprname FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode"
        " WHERE oprnamespace = 'pg_catalog'::regnamespace AND provolatile = 'v'"
    )
    assert [row[0] for row in rows] == []
