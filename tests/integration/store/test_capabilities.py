"""Which engine a store gets, and that it keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from hubscope.errors import MigrationFailed
from hubscope.store import Connection, detect
from hubscope.store.capabilities import choose

pytestmark = pytest.mark.store

COMMUNITY: dict[str, Any] = {
    "server_version": "17.5",
    "major": 17,
    "timescaledb": "2.23.0",
    "timescaledb_schema": "public",
    "licence": "timescale",
    "timescaledb_available": True,
}
PLAIN = COMMUNITY | {"timescaledb": None, "timescaledb_schema": None, "licence": None, "timescaledb_available": False}


@pytest.mark.parametrize(
    ("found", "kept", "engine", "reason"),
    [
        (COMMUNITY, None, "timescale", "TimescaleDB 2.23.0 Community is installed"),
        (COMMUNITY | {"timescaledb": "2.23.0-dev"}, None, "timescale", "2.23.0-dev Community"),
        (COMMUNITY | {"licence": "apache"}, None, "postgres", "Apache edition"),
        (COMMUNITY | {"timescaledb": "2.9.1"}, None, "postgres", "2.9.1 is too old: 2.14 or newer"),
        (PLAIN, None, "postgres", "TimescaleDB is not installed"),
        (PLAIN | {"timescaledb_available": True}, None, "postgres", "available but not installed in this database"),
        (COMMUNITY, "timescale", "timescale", "was made with the timescale engine"),
        (COMMUNITY, "postgres", "postgres", "back up and restore into a new database"),
        (PLAIN, "postgres", "postgres", "was made with the postgres engine"),
    ],
)
def test_the_engine_follows_from_what_is_there_and_what_was_chosen_before(
    found: dict[str, Any], kept: Any, engine: str, reason: str
) -> None:
    chosen = choose(found, kept, enable_timeseries=True)
    assert chosen.engine == engine
    assert reason in chosen.reason


def test_timeseries_can_be_switched_off() -> None:
    chosen = choose(COMMUNITY, None, enable_timeseries=False)
    assert (chosen.engine, chosen.reason) == ("postgres", "HUBSCOPE_ENABLE_TIMESERIES is false")


@pytest.mark.parametrize(
    ("found", "kept", "words"),
    [
        (PLAIN | {"server_version": "14.9", "major": 14}, None, "PostgreSQL 14.9 is too old: hubscope needs 15"),
        (PLAIN, "timescale", "made on TimescaleDB, and the extension is gone"),
        (COMMUNITY | {"licence": "apache"}, "timescale", "made on TimescaleDB Community"),
    ],
)
def test_a_database_that_cannot_serve_the_store_is_refused(found: dict[str, Any], kept: Any, words: str) -> None:
    with pytest.raises(MigrationFailed, match=words):
        choose(found, kept, enable_timeseries=True)


async def test_plain_postgresql_is_seen_as_such(admin: Connection, reader: Connection) -> None:
    for connection in (admin, reader):
        found = await detect(connection)
        assert (found.engine, found.timescaledb, found.licence) == ("postgres", None, None)
        assert found.reason == (
            "the store was made with the postgres engine (the reason then: TimescaleDB is not installed)"
        )
    assert await admin.fetchval("SELECT engine FROM ops.store") == "postgres"
