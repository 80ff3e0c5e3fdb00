"""The timescale engine's columnstore and retention: policies as the settings say, and nothing lost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from hubscope.access import LOCAL
from hubscope.app import App, migrate_store, opened
from hubscope.errors import JobFailed
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from hubscope.store.aggregates import refresh_forward, settle_late
from hubscope.store.policies import to_columnstore
from hubscope.store.retention import horizons, plan, retain
from hubscope.worker import opened as worker_opened
from tests.conftest import ROLE_PREFIX, ROLES
from tests.events import server_event, tool_call
from tests.integration.store.test_rollups import BEGINNING, DIFFERENCES

pytestmark = [pytest.mark.timescale, pytest.mark.store]

AGES: Final = (0, 1, 2, 4, 6, 12, 30)
"""Days ago of the events below."""
KEPT: Final = {"raw_days": 3, "hourly_latency_days": 5, "hourly_days": 10, "daily_days": 20}
MIDNIGHT: Final = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def narrow(timescale_database: str) -> Settings:
    """Settings that keep little."""
    kept = {f"retention_{name}": days for name, days in KEPT.items()}
    return Settings.load(
        database_url=timescale_database, role_prefix=ROLE_PREFIX, max_event_age_days=2, compress_after_days=3, **kept
    )


@pytest.fixture
async def filled(timescale_database: str) -> AsyncIterator[App]:
    """A store with two calls and a check of each age, refreshed, and its service."""
    wide = Settings.load(
        database_url=timescale_database,
        role_prefix=ROLE_PREFIX,
        max_event_age_days=60,
        retention_hourly_latency_days=61,
    )
    await migrate_store(wide, timescale_database)
    async with opened(wide, timescale_database) as app:
        for age in AGES:
            time = (MIDNIGHT - timedelta(days=age)).isoformat()
            await post(app, tool_call(time=time), tool_call(time=time, status="error"), server_event(time=time))
        yield app


@pytest.fixture
async def owner(filled: App, timescale_database: str) -> AsyncIterator[Connection]:
    connection = await connect(timescale_database, role=ROLES.owner, name="tests")
    yield connection
    await connection.close()


async def post(app: App, *events: dict[str, Any]) -> None:
    receipt = await app.ingest.post(LOCAL, json.dumps(events).encode(), "application/json")
    assert receipt.accepted == len(events)


async def ages(connection: Connection, relation: str, column: str) -> set[int]:
    rows = await connection.fetch(f"SELECT DISTINCT date_trunc('day', {column}, 'UTC') AS day FROM {relation}")
    return {(MIDNIGHT - row["day"]).days for row in rows}


async def policies(connection: Connection) -> dict[tuple[str, str], Any]:
    rows = await connection.fetch(
        "SELECT hypertable_name, proc_name, config, scheduled FROM timescaledb_information.jobs"
        " WHERE owner::text = current_user::text"
    )
    assert not any(row["scheduled"] for row in rows)
    return {(row["hypertable_name"], row["proc_name"]): json.loads(row["config"]) for row in rows}


def counters(exposition: bytes) -> list[str]:
    lines = exposition.decode().splitlines()
    return [line for line in lines if line.startswith("hub_tool_calls_total")]


async def test_policies_follow_the_settings_at_the_next_start(
    filled: App, owner: Connection, narrow: Settings, timescale_database: str
) -> None:
    before = await policies(owner)
    assert before["tool_calls", "policy_retention"]["drop_after"] == "90 days"
    assert before["tool_calls", "policy_compression"]["compress_after"] == "8 days"
    told: list[str] = []
    await migrate_store(narrow, timescale_database, told.append)
    after = await policies(owner)
    assert after["tool_calls", "policy_retention"]["drop_after"] == "3 days"
    assert after["hub_events", "policy_compression"]["compress_after"] == "3 days"
    assert sorted(config.get("drop_after") for config in after.values() if "drop_after" in config) == [
        "10 days",
        "10 days",
        "3 days",
        "3 days",
        "3 days",
        "5 days",
    ]
    assert [line for line in told if line.startswith("columnstore and retention:")]
    off = narrow.model_copy(update={"compress_after_days": 0})
    await migrate_store(off, timescale_database)
    assert {kind for _, kind in await policies(owner)} == {"policy_retention"}
    told.clear()
    await migrate_store(off, timescale_database, told.append)
    assert told == []


async def test_old_chunks_become_columnstore_and_answers_stay(filled: App, owner: Connection, narrow: Settings) -> None:
    await refresh_forward(owner)
    await settle_late(owner)
    answer = await owner.fetch("SELECT * FROM rollup.tool_calls_hourly ORDER BY hour")
    wanted = narrow.model_copy(update={"compress_after_days": 8})  # as the policies of this store say
    assert await to_columnstore(owner, wanted) > 0
    assert await to_columnstore(owner, wanted) == 0
    rows = await owner.fetch(
        "SELECT hypertable_name, bool_and(is_compressed) AS all FROM timescaledb_information.chunks"
        " WHERE range_end <= now() - INTERVAL '8 days' GROUP BY 1"
    )
    compressed = {row["hypertable_name"] for row in rows if row["all"]}
    assert {"tool_calls", "server_events"} < compressed
    assert len(compressed) >= 5  # and chunks of aggregates
    assert await owner.fetch("SELECT * FROM rollup.tool_calls_hourly ORDER BY hour") == answer
    # Late events go into columnstore, duplicates are seen there, and rollups take them in.
    time = (MIDNIGHT - timedelta(days=12)).isoformat()
    late = tool_call(time=time)
    await post(filled, late)
    again = await filled.ingest.post(LOCAL, json.dumps([late]).encode(), "application/json")
    assert (again.accepted, again.duplicates) == (0, 1)
    assert await owner.fetch(DIFFERENCES, ["default"], BEGINNING) == []
    await settle_late(owner)
    assert await owner.fetch(DIFFERENCES, ["default"], BEGINNING) == []
    assert await to_columnstore(owner, wanted) == 0
    off = narrow.model_copy(update={"compress_after_days": 0})
    assert await to_columnstore(owner, off) == 0


async def test_what_is_past_its_days_goes_and_everything_else_stays(
    filled: App, owner: Connection, narrow: Settings, timescale_database: str
) -> None:
    counted = counters(await filled.metrics())
    await migrate_store(narrow, timescale_database)
    await refresh_forward(owner)
    await settle_late(owner)
    await to_columnstore(owner, narrow)
    planned = await plan(owner, "timescale", horizons(narrow, datetime.now(UTC)))
    assert {part.relation for part in planned} >= {"raw", "hourly", "hourly_latency"}
    assert all(part.bytes > 0 for part in planned)
    size = "SELECT public.hypertable_size('raw.tool_calls')"
    before = await owner.fetchval(size)
    async with worker_opened(narrow, timescale_database) as worker:
        taken = await worker.retention()
        assert taken["bytes"] == sum(part.bytes for part in planned)
        assert await owner.fetchval(size) < before
        for relation, column, days in (
            ("raw.tool_calls", "time", KEPT["raw_days"]),
            ("raw.server_events", "time", KEPT["raw_days"]),
            ("rollup.tool_latency_hourly", "hour", KEPT["hourly_latency_days"]),
            ("rollup.tool_calls_hourly", "hour", KEPT["hourly_days"]),
            ("rollup.server_checks_hourly", "hour", KEPT["hourly_days"]),
        ):
            assert await ages(owner, relation, column) == {age for age in AGES if age <= days}, relation
        # Days go by whole chunks, which hold several.
        kept_days = await ages(owner, "rollup.tool_calls_daily", "day")
        assert kept_days >= {age for age in AGES if age <= KEPT["daily_days"]}
        assert await owner.fetch(DIFFERENCES, ["default"], MIDNIGHT - timedelta(days=3)) == []
        assert counters(await filled.metrics()) == counted
        assert (await worker.retention())["bytes"] == 0
        assert counters(await filled.metrics()) == counted
        # Nothing refreshes below the horizon, so what is gone from raw stays in the rollups.
        await worker.refresh_rollups()
        await worker.settle_late()
        assert await ages(owner, "rollup.tool_calls_hourly", "hour") == {age for age in AGES if age <= 10}


async def test_a_late_event_after_retention_cuts_nothing_away(
    filled: App, owner: Connection, narrow: Settings, timescale_database: str
) -> None:
    await migrate_store(narrow, timescale_database)
    await retain(owner, "timescale", horizons(narrow, datetime.now(UTC)))
    # Imported history may still bring what is older than raw is kept.
    await post(filled, tool_call(time=(MIDNIGHT - timedelta(days=4)).isoformat()))
    await settle_late(owner)
    await refresh_forward(owner)
    days = await owner.fetch("SELECT day, calls::int FROM rollup.cagg_tool_calls_daily ORDER BY day")
    assert {(MIDNIGHT - row["day"]).days: row["calls"] for row in days}[4] == 2


async def test_what_no_rollup_has_taken_in_is_not_dropped(
    filled: App, owner: Connection, narrow: Settings, timescale_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_connection: Connection) -> int:
        return 0

    await migrate_store(narrow, timescale_database)
    await refresh_forward(owner)
    await owner.execute(
        "UPDATE rollup.refreshed SET until = until - INTERVAL '20 days' WHERE aggregate = 'cagg_tool_latency_hourly'"
    )
    monkeypatch.setattr("hubscope.store.retention.refresh_forward", nothing)
    with pytest.raises(JobFailed, match="cagg_tool_latency_hourly is not refreshed"):
        await retain(owner, "timescale", horizons(narrow, datetime.now(UTC)))
    monkeypatch.undo()
    monkeypatch.setattr("hubscope.store.retention.settle_late", nothing)
    await post(filled, tool_call(time=(MIDNIGHT - timedelta(days=12)).isoformat()))
    with pytest.raises(JobFailed, match="late hours"):
        await retain(owner, "timescale", horizons(narrow, datetime.now(UTC)))
    assert await ages(owner, "raw.tool_calls", "time") == set(AGES)


async def test_a_store_younger_than_a_day_has_nothing_that_retention_waits_for(
    timescale_database: str, narrow: Settings
) -> None:
    await migrate_store(narrow, timescale_database)
    owner = await connect(timescale_database, role=ROLES.owner, name="tests")
    try:
        async with opened(narrow, timescale_database) as app:
            await post(app, tool_call(time=max(MIDNIGHT, datetime.now(UTC) - timedelta(hours=5)).isoformat()))
            assert await retain(owner, "timescale", horizons(narrow, datetime.now(UTC))) == []
            await post(app, tool_call(time=(MIDNIGHT - timedelta(days=1)).isoformat()))
            await settle_late(owner)
            assert await owner.fetch(DIFFERENCES, ["default"], BEGINNING) == []
            assert await retain(owner, "timescale", horizons(narrow, datetime.now(UTC))) == []
            assert await owner.fetch(DIFFERENCES, ["default"], BEGINNING) == []
    finally:
        await owner.close()
