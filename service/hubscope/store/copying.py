"""COPY and what belongs to it in one message: a whole transaction in one round trip.

The driver sends rows behind the COPY without waiting, but BEGIN, COPY, what is noted beside it and COMMIT are four
requests, and a busy process answers each of them late: for most of a transaction the server would wait for us. Several
statements in one message are one transaction to the server, committed at its end or not at all; and one of them may be
the COPY, whose rows follow the message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from hubscope.store.pool import Connection

_PARAMETER: Final = re.compile(r"\$(\d+)")

Value = str | datetime | UUID | Sequence[str] | Sequence[datetime]


async def copy_and(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    statements: Sequence[str],
    *,
    ahead: Sequence[str] = (),
    shape: str = "",
) -> None:
    """Copy rows into a table and run statements behind it, all of it or nothing.

    Args:
        connection: not in a transaction, unless the rows are to be part of it.
        table: with its schema; it, the columns and the statements stand in SQL as they are (`spelled`).
        rows: values in the order of the columns.
        statements: their answers are not read.
        ahead: statements before it. BEGIN leaves the transaction open, also after an error.
        shape: a query for columns of the same types, where the table is made ahead.

    Raises:
        the driver's errors; nothing was stored, unless it is one of those that say the connection was lost.
    """
    names = ", ".join(columns)
    # What the driver's own copy_records_to_table does, but for the statements: it has no place for them.
    known = await connection._prepare(shape or f"SELECT {names} FROM {table} LIMIT 0", use_cache=True)
    message = "; ".join((*ahead, f"COPY {table} ({names}) FROM STDIN (FORMAT binary)", *statements))
    await connection._protocol.copy_in(message, None, None, rows, known._state, None)


def spelled(query: str, *values: Value) -> str:
    """A query with its values in place of $1, $2 ...: only queries without parameters can share a message.

    Args:
        query: whose parameters have casts, and which has no other dollar signs before digits.

    Raises:
        ValueError: a text holds NUL, which PostgreSQL's cannot.
    """
    return _PARAMETER.sub(lambda found: _literal(values[int(found[1]) - 1]), query)


def _literal(value: Value) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, datetime | UUID):
        return f"'{value}'"
    return f"ARRAY[{', '.join(map(_literal, value))}]"


def _quoted(text: str) -> str:
    """Sessions of ours have standard_conforming_strings on, so a quote is all that means something."""
    if "\0" in text:
        raise ValueError("a text holds NUL")
    return "'" + text.replace("'", "''") + "'"
