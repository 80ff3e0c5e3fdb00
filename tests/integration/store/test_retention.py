"""Retention on plain PostgreSQL: what is past its days goes, what stands on it stays true."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from hubscope.access import LOCAL
from hubscope.app import App, opened
from hubscope.errors import InvalidSetting, JobFailed
from hubscope.settings import Settings
from hubscope.store import Connection, connect, retention
from hubscope.store.recount import recount
from hubscope.store.retention import Horizons, horizons, importable_from, plan, retain
from hubscope.worker import Worker
from hubscope.worker import opened as worker_opened
from tests.aged import AGES, KEPT, NOON
from tests.conftest import ROLE_PREFIX, ROLES
from tests.events import server_event, tool_call

pytestmark = [pytest.mark.store, pytest.mark.integration]


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Connection]:
    connection = await connect(database, role=ROLES.owner, name="tests")
    yield connection
    await connection.close()


async def ages(connection: Connection, relation: str, column: str) -> set[int]:
    """How many days ago the rows of a relation are."""
    rows = await connection.fetch(f"SELECT DISTINCT date_trunc('day', {column}, 'UTC') AS day FROM {relation}")
    return {(NOON - row["day"]).days for row in rows}


async def bytes_of_raw(connection: Connection) -> int:
    size: int = await connection.fetchval(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = 'raw'::regnamespace"
        " AND relkind = 'r'"
    )
    return size


def counters(exposition: bytes) -> list[str]:
    lines = exposition.decode().splitlines()
    return [line for line in lines if line.startswith("hub_tool_calls_total")]


async def test_what_is_past_its_days_goes_and_everything_else_stays(
    aged: App, narrow_worker: Worker, admin: Connection
) -> None:
    before, counted = await bytes_of_raw(admin), counters(await aged.metrics())
    taken = await narrow_worker.retention()
    for relation, column, days in (
        ("raw.tool_calls", "time", KEPT["raw_days"]),
        ("raw.server_events", "time", KEPT["raw_days"]),
        ("rollup.tool_latency_hourly", "hour", KEPT["hourly_latency_days"]),
        ("rollup.tool_calls_hourly", "hour", KEPT["hourly_days"]),
        ("rollup.server_checks_hourly", "hour", KEPT["hourly_days"]),
        ("rollup.tool_calls_daily", "day", KEPT["daily_days"]),
        ("rollup.tool_latency_daily", "day", KEPT["daily_days"]),
    ):
        assert await ages(admin, relation, column) == {age for age in AGES if age <= days}, relation
    assert await bytes_of_raw(admin) < before - taken["bytes"] // 2
    # Counters do not go down, though the days that they were added up from are gone.
    assert counters(await aged.metrics()) == counted
    assert f'status="ok",tenant="default",tool="list_directory"}} {len(AGES)}.0' in "".join(
        line.replace('server="filesystem",', "") for line in counted
    )
    assert (await narrow_worker.retention()) == {"bytes": 0}
    assert counters(await aged.metrics()) == counted
    assert dict(await admin.fetch("SELECT relation, since FROM ops.retained")).keys() == {
        "raw", "hourly", "hourly_latency", "daily"
    }  # fmt: skip


async def test_replicas_that_do_it_at_once_do_it_once(
    aged: App, narrow_worker: Worker, narrow: Settings, database: str, admin: Connection
) -> None:
    counted = counters(await aged.metrics())
    async with worker_opened(narrow, database) as other:
        taken = await asyncio.gather(narrow_worker.retention(), other.retention(), narrow_worker.pack(), other.pack())
    assert sorted(one["bytes"] > 0 for one in taken[:2]) == [False, True]
    assert await ages(admin, "raw.tool_calls", "time") == {age for age in AGES if age <= KEPT["raw_days"]}
    assert counters(await aged.metrics()) == counted


async def test_a_late_event_from_below_the_horizon_is_refused(
    aged: App, narrow_worker: Worker, narrow: Settings, database: str
) -> None:
    await narrow_worker.retention()
    async with opened(narrow, database) as app:
        late = tool_call(time=(datetime.now(UTC) - timedelta(days=KEPT["raw_days"])).isoformat())
        receipt = await app.ingest.post(LOCAL, json.dumps([late]).encode(), "application/json")
        assert [one.code for one in receipt.rejected] == ["too_old"]


async def test_time_that_passes_is_enough(aged: App, owner: Connection, wide: Settings) -> None:
    later = datetime.now(UTC) + timedelta(days=85)
    assert {part.relation for part in await retain(owner, "postgres", horizons(wide, later))} == {
        "raw",
        "hourly_latency",
    }
    assert await ages(owner, "raw.tool_calls", "time") == {age for age in AGES if age < 5}


async def test_a_plan_names_what_would_go_with_its_bytes_and_takes_nothing(
    aged: App, narrow: Settings, owner: Connection
) -> None:
    wanted = horizons(narrow, datetime.now(UTC))
    while await owner.fetchval("SELECT rollup.fold()"):
        pass
    planned = await plan(owner, "postgres", wanted)
    assert await plan(owner, "postgres", wanted) == planned
    assert {part.relation for part in planned} == {"raw", "hourly", "hourly_latency", "daily"}
    assert all(part.bytes > 0 for part in planned)
    assert [(part.relation, part.name) for part in await retain(owner, "postgres", wanted)] == [
        (part.relation, part.name) for part in planned
    ]
    assert await plan(owner, "postgres", wanted) == []


async def test_the_command_shows_a_dry_run_and_then_does_it(aged: App, database: str, owner: Connection) -> None:
    def hubscope(*arguments: str) -> Any:
        kept = {f"HUBSCOPE_RETENTION_{name.upper()}": str(days) for name, days in KEPT.items()}
        environment = os.environ | kept | {
            "HUBSCOPE_DATABASE_URL": database,
            "HUBSCOPE_ROLE_PREFIX": ROLE_PREFIX,
            "HUBSCOPE_MAX_EVENT_AGE_DAYS": "2",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "hubscope", "retention", *arguments],
            env=environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout

    shown = json.loads(hubscope("--dry-run", "--json"))
    assert shown["dry_run"] is True
    assert shown["bytes"] == sum(part["bytes"] for part in shown["parts"]) > 0
    assert await ages(owner, "raw.tool_calls", "time") == set(AGES)
    told = hubscope("--dry-run")
    assert "HUBSCOPE_RETENTION_RAW_DAYS" in told
    assert max(len(line) for line in told.splitlines()) <= 80
    print(told)
    assert "Gone" in hubscope()
    assert await ages(owner, "raw.tool_calls", "time") == {age for age in AGES if age <= KEPT["raw_days"]}
    assert "Nothing is past its days" in hubscope()


async def test_a_partition_in_use_is_left_for_the_next_run(
    aged: App, narrow: Settings, owner: Connection, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOCK_TIMEOUT", "100ms")
    wanted = horizons(narrow, datetime.now(UTC))
    async with admin.transaction():
        assert await admin.fetchval("SELECT count(*) FROM raw.tool_calls") == 2 * len(AGES)
        with pytest.raises(JobFailed, match="in use"):
            await retain(owner, "postgres", wanted)
    # The reader is gone; what was half detached is finished.
    await retain(owner, "postgres", wanted)
    assert await ages(owner, "raw.tool_calls", "time") == {age for age in AGES if age <= KEPT["raw_days"]}
    assert await plan(owner, "postgres", wanted) == []


async def test_what_is_pending_is_folded_before_the_partition_goes_that_it_is_read_from(
    aged: App, narrow: Settings, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = await owner.fetch("SELECT * FROM rollup.tool_calls_daily ORDER BY day, server, tool")
    wanted = horizons(narrow, datetime.now(UTC))
    settle = retention._settle

    async def settle_and_commit_once_more(*arguments: Any) -> None:
        await settle(*arguments)
        late = [tool_call(time=(NOON - timedelta(days=KEPT["raw_days"] + 1)).isoformat(), server="late")]
        await aged.ingest.post(LOCAL, json.dumps(late).encode(), "application/json")

    monkeypatch.setattr(retention, "_settle", settle_and_commit_once_more)
    await retain(owner, "postgres", wanted)
    assert await owner.fetchval("SELECT count(*) FROM rollup.pending") == 0
    assert await ages(owner, "raw.tool_calls", "time") == {age for age in AGES if age <= KEPT["raw_days"]}
    late = await owner.fetchval("SELECT calls FROM rollup.tool_calls_daily WHERE server = 'late'")
    assert late == 1
    kept = await owner.fetch("SELECT * FROM rollup.tool_calls_daily WHERE server <> 'late' ORDER BY day, server, tool")
    assert kept == [row for row in counted if row["day"] >= wanted.daily]


async def test_nothing_is_taken_while_something_pending_cannot_be_folded(
    aged: App, narrow: Settings, owner: Connection, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FOLD_TRIES", 2)
    wanted = horizons(narrow, datetime.now(UTC))
    async with admin.transaction():
        await admin.execute("SELECT pg_advisory_xact_lock(hashtextextended('hubscope.rollup.fold', 0))")
        with pytest.raises(JobFailed, match="not folded"):
            await retain(owner, "postgres", wanted)
    assert await ages(owner, "raw.tool_calls", "time") == set(AGES)
    await retain(owner, "postgres", wanted)
    assert await ages(owner, "raw.tool_calls", "time") == {age for age in AGES if age <= KEPT["raw_days"]}


async def test_history_comes_in_only_where_raw_is_kept_and_never_was_taken(
    aged: App, narrow: Settings, wide: Settings, owner: Connection
) -> None:
    now = datetime.now(UTC)
    assert await importable_from(owner, narrow, now) == NOON - timedelta(days=KEPT["raw_days"] - 1)
    await retain(owner, "postgres", horizons(narrow, now))
    assert await importable_from(owner, narrow, now) == NOON - timedelta(days=KEPT["raw_days"] - 1)
    assert await importable_from(owner, wide, now) == NOON - timedelta(days=KEPT["raw_days"])


# The nightly recount

LONG_AGO: Final = NOON - timedelta(days=61)
ALL: Final = Horizons(LONG_AGO, LONG_AGO, LONG_AGO, None)


async def test_a_recount_finds_nothing_to_repair_where_nothing_is_wrong(aged: App, narrow_worker: Worker) -> None:
    assert await narrow_worker.recount() == {"days": KEPT["raw_days"] + 1, "repaired_rows": 0}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE rollup.stored_{name} SET {count} = {count} + 1",
        "DELETE FROM rollup.stored_{name}",
        "UPDATE rollup.stored_{name} SET server = 'ghost'",
    ],
)
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("tool_calls_hourly", "calls"),
        ("tool_latency_hourly", "calls"),
        ("server_checks_hourly", "checks"),
        ("tool_calls_daily", "calls"),
        ("tool_latency_daily", "calls"),
    ],
)
async def test_a_recount_repairs_what_differs_and_leaves_pending_alone(
    aged: App, owner: Connection, name: str, count: str, damage: str
) -> None:
    true = await owner.fetch(f"SELECT * FROM rollup.{name} ORDER BY 1, 2, 3, 4, 5, 6")
    while await owner.fetchval("SELECT rollup.fold()"):
        pass
    await owner.execute(damage.format(name=name, count=count))
    now = datetime.now(UTC)
    late = [tool_call(time=NOON.isoformat()), server_event(time=NOON.isoformat())]
    await aged.ingest.post(LOCAL, json.dumps(late).encode(), "application/json")
    days, repairs = await recount(owner, ALL, now)
    assert days == max(AGES) + 1
    assert {repair.relation for repair in repairs} == {name}
    assert await owner.fetchval("SELECT count(*) FROM rollup.pending") == 1
    assert (await recount(owner, ALL, now))[1] == []
    while await owner.fetchval("SELECT rollup.fold()"):
        pass
    assert (await recount(owner, ALL, now))[1] == []
    repaired = await owner.fetch(f"SELECT * FROM rollup.{name} ORDER BY 1, 2, 3, 4, 5, 6")
    assert [dict(row)[count] for row in repaired[:-1]] == [dict(row)[count] for row in true[:-1]]


# Settings


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"retention_raw_days": 7}, "HUBSCOPE_RETENTION_RAW_DAYS"),
        ({"retention_hourly_days": 7}, "HUBSCOPE_RETENTION_HOURLY_DAYS"),
        ({"retention_hourly_latency_days": 7}, "HUBSCOPE_RETENTION_HOURLY_LATENCY_DAYS"),
        ({"max_event_age_days": 8}, "HUBSCOPE_RETENTION_HOURLY_LATENCY_DAYS"),
        ({"retention_daily_days": 399}, "HUBSCOPE_RETENTION_DAILY_DAYS"),
    ],
)
def test_nothing_is_kept_shorter_than_events_may_be_late(changes: dict[str, int], names: str) -> None:
    with pytest.raises(InvalidSetting, match=names):
        Settings.load(**changes)
