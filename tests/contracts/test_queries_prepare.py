"""Every named statement fits the schema, may be run by the role that runs it, and readers name only marts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import hubscope
from hubscope.store import Connection, connect, load
from tests.conftest import ROLES

HERE = Path(hubscope.__file__).parent
# Which role runs the statements of a room.
ROLE_OF = {
    "access": ROLES.owner,
    "chains": ROLES.writer,
    "insight": ROLES.reader,
    "gauges": ROLES.reader,
    "ingest": ROLES.writer,
    "journal": ROLES.writer,
    "peers": ROLES.writer,
    "sqlgate": ROLES.reader,
}
MARTS = {"analytics", "health", "uptime", "audit"}
# What only TimescaleDB has is prepared there (tests/timescale).
FILES = sorted([*HERE.rglob("queries.sql"), *HERE.rglob("queries.postgres.sql")])


class Query(NamedTuple):
    """One named statement; `str()` names it in the test's id."""

    room: str
    name: str
    sql: str

    def __str__(self) -> str:
        return f"{self.room}.{self.name}"


QUERIES = [Query(path.parent.name, name, sql) for path in FILES for name, sql in load(path).items()]
# sqlgate reads the catalogue of whatever database it serves, and no mart.
READERS = [query for query in QUERIES if ROLE_OF.get(query.room) == ROLES.reader and query.room != "sqlgate"]


def test_the_role_of_every_room_that_has_statements_is_known() -> None:
    assert {path.parent.name for path in FILES} == ROLE_OF.keys()


@pytest.mark.parametrize("query", QUERIES, ids=str)
async def test_a_statement_fits_the_schema_and_its_role_may_run_it(query: Query, database: str) -> None:
    connection = await connect(database, role=ROLE_OF[query.room], name="tests")
    try:
        await connection.prepare(query.sql)
        # To prepare asks for no rights; to explain does, and with GENERIC_PLAN it takes $1 as it stands.
        await connection.execute(f"EXPLAIN (GENERIC_PLAN) {query.sql}")
    finally:
        await connection.close()


@pytest.mark.parametrize("query", READERS, ids=str)
async def test_a_reader_names_only_marts(query: Query, admin: Connection) -> None:
    """What stands in rollup are, for readers, functions of latency buckets. Names need a schema: the search path is
    empty."""
    schemas = {row["nspname"] for row in await admin.fetch("SELECT nspname FROM pg_namespace")} - {"pg_catalog"}
    sql = re.sub(r"--.*|'[^']*'", "", query.sql)
    named = {name for name in re.findall(r"\b([a-z_]+\.[a-z_]+)\b", sql) if name.partition(".")[0] in schemas}
    assert named
    assert {
        name for name in named if name.partition(".")[0] not in MARTS and not name.startswith("rollup.latency_")
    } == set()


def test_the_server_imports_nothing_of_the_worker() -> None:
    """dbt and Great Expectations cost 150-230 MiB and seconds: they live in the worker's child process only."""
    code = """
import sys
from hubscope.entrypoints import cli, demo_command, http, serve
print(*sorted({name.partition(".")[0] for name in sys.modules}))
print(*sorted(name for name in sys.modules if name.startswith("hubscope.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    packages, ours = (set(line.split()) for line in done.stdout.splitlines())
    assert {"hubscope", "fastapi", "asyncpg"} <= packages
    assert (
        packages & {"dbt", "dbt_common", "great_expectations", "apscheduler", "pandas", "numpy", "sqlalchemy"} == set()
    )
    assert ours & {"hubscope.heavy", "hubscope.quality", "hubscope.worker", "hubscope.schedule"} == set()
