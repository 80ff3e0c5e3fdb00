"""COPY with statements behind it in one message, and values that stand in a statement's text, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubscope.store import Connection, connect, copy_and, db_errors, spelled

pytestmark = [pytest.mark.store, pytest.mark.integration]

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["'", "''", "\\", "\\'", "$1::text", "'$2::text'", "; DROP TABLE t --", "/*", "E'\\n'", "{}", '"', "NULL", "é漢😀"]
)
TIMES = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001  # the zone comes on top
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(-timedelta(hours=9))]),
)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    """A session of ours, with a table that counts what is not in it twice."""
    made = await connect(database, name="test")
    await made.execute(
        "CREATE TABLE public.t (id integer PRIMARY KEY, word text); CREATE TABLE public.n (rows integer)"
    )
    yield made
    await made.close()


async def stored(connection: Connection) -> tuple[int, list[int]]:
    counts = [row["rows"] for row in await connection.fetch("SELECT rows FROM public.n ORDER BY rows")]
    return await connection.fetchval("SELECT count(*) FROM public.t"), counts


async def test_rows_and_statements_are_one_transaction(connection: Connection) -> None:
    rows = [(number, f"word {number}") for number in range(3_000)]
    statements = [spelled("INSERT INTO public.n VALUES ($1::integer)", "3000"), "INSERT INTO public.n VALUES (1)"]
    await copy_and(connection, "public.t", ("id", "word"), rows, statements)
    assert await stored(connection) == (3_000, [1, 3_000])
    by = await connection.fetch("SELECT xmin::text FROM public.t UNION SELECT xmin::text FROM public.n")
    assert len(by) == 1
    assert not connection.is_in_transaction()


@pytest.mark.parametrize(
    ("rows", "statement", "error"),
    [
        ([(1, "a"), (2, "b"), (1, "c")], "INSERT INTO public.n VALUES (1)", db_errors.UniqueViolationError),
        ([(1, "a")], "INSERT INTO public.n VALUES (1 / (SELECT 0))", db_errors.DivisionByZeroError),
        ([(1, "a")], "INSERT INTO public.nowhere VALUES (1)", db_errors.UndefinedTableError),
        ([(n, "a") for n in (*range(20_000), 0)], "SELECT 1", db_errors.UniqueViolationError),
    ],
    ids=["a duplicate", "a statement that fails", "a statement that cannot be read", "a duplicate at the far end"],
)
async def test_after_an_error_nothing_is_stored_and_the_connection_goes_on(
    connection: Connection, rows: list[tuple[int, str]], statement: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await copy_and(connection, "public.t", ("id", "word"), rows, [statement])
    assert await stored(connection) == (0, [])
    assert not connection.is_in_transaction()
    await copy_and(connection, "public.t", ("id", "word"), [(1, None)], [])
    assert await stored(connection) == (1, [])


async def test_a_transaction_that_is_begun_ahead_is_left_open(connection: Connection) -> None:
    table = "CREATE TEMP TABLE s (id integer, word text) ON COMMIT DROP"
    shape = "SELECT id, word FROM public.t LIMIT 0"
    await copy_and(connection, "s", ("id", "word"), [(1, "a"), (1, "b")], [], ahead=["BEGIN", table], shape=shape)
    assert connection.is_in_transaction()
    assert await connection.fetchval("SELECT count(*) FROM s") == 2
    await connection.execute("ROLLBACK")
    with pytest.raises(db_errors.UndefinedTableError):
        await copy_and(connection, "s", ("id", "word"), [(1, "a")], [], ahead=["BEGIN"], shape=shape)
    assert connection.is_in_transaction()
    await connection.execute("ROLLBACK")


async def test_a_value_that_cannot_be_laid_out_stores_nothing(connection: Connection) -> None:
    rows = [*((number, "a") for number in range(20_000)), (2**40, "b")]
    with pytest.raises(OverflowError):
        await copy_and(connection, "public.t", ("id", "word"), rows, ["INSERT INTO public.n VALUES (1)"])
    assert await stored(connection) == (0, [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(text=TEXTS, texts=st.lists(TEXTS, max_size=4), time=TIMES)
async def test_a_value_in_the_text_of_a_statement_is_the_value(
    connection: Connection, text: str, texts: list[str], time: datetime
) -> None:
    number = uuid4()
    query = "SELECT $1::text AS text, $2::text[] AS texts, $3::timestamptz AS time, $4::uuid AS id, $1::text AS again"
    row = await connection.fetchrow(spelled(query, text, texts, time, number))
    assert (row["text"], row["texts"], row["time"], row["again"]) == (text, texts, time, text)
    assert UUID(str(row["id"])) == number


async def test_a_quote_ends_no_value_where_the_database_reads_backslashes_otherwise(database: str) -> None:
    admin = await connect(database, name="test")
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f'ALTER DATABASE "{name}" SET standard_conforming_strings = off')
    await admin.close()
    connection = await connect(database, name="test")
    text = "\\'; SELECT 1 --"
    assert await connection.fetchval(spelled("SELECT $1::text", text)) == text
    await connection.close()


def test_a_text_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        spelled("SELECT $1::text", "a\0b")
