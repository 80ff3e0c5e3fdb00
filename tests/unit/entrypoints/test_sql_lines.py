"""Audit lines of the SQL server by itself."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from hubscope.entrypoints.sql_lines import Lines
from hubscope.entrypoints.sql_server import Caller


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT 'é\u2028\n\"'", "half of a pair: \ud800"])
def test_whatever_is_asked_is_one_line_that_says_it(sql: str) -> None:
    log = io.StringIO()
    event = {"tool": "query", "sql": sql, "reads": ("public.t",), "duration_ms": 0.123, "database": None}
    asyncio.run(Lines(log).record(Caller(address="127.0.0.1"), event))
    (line,) = log.getvalue().splitlines() if "\u2028" not in sql else log.getvalue().rstrip("\n").split("\n")
    told = json.loads(line)
    assert told["audit"] == "sql"
    assert told["address"] == "127.0.0.1"
    assert (told["sql"], told["reads"], told["duration_ms"], told["database"]) == (sql, ["public.t"], 0.123, None)
