"""The timescale engine over real TimescaleDB Community: the same relations, the same promise."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hubscope.access import LOCAL
from hubscope.app import migrate_store, opened
from hubscope.ingest import Ingest
from hubscope.instruments import Instruments
from hubscope.settings import Settings
from hubscope.store import Connection, connect, detect, roles_of
from hubscope.store.aggregates import refresh_forward, settle_late
from hubscope.store.policies import to_columnstore
from hubscope.store.retention import Horizons, retain
from hubscope.worker import opened as worker_opened
from tests.conftest import ROLE_PREFIX, ROLES
from tests.events import tool_call
from tests.integration.store.test_rollups import (
    BEGINNING,
    MIDNIGHT,
    POSTS,
    Post,
    Retain,
    Store,
    holds,
    on,
    still_accepted,
)

pytestmark = [pytest.mark.timescale, pytest.mark.store]


@pytest.fixture
async def timescale_settings(timescale_database: str) -> Settings:
    """Settings over a migrated store on TimescaleDB."""
    settings = Settings.load(database_url=timescale_database, role_prefix=ROLE_PREFIX)
    await migrate_store(settings, timescale_database)
    return settings


@pytest.fixture
async def owner(timescale_settings: Settings, timescale_database: str) -> AsyncIterator[Connection]:
    """A connection under the owner role, which refreshes."""
    connection = await connect(timescale_database, role=ROLES.owner, name="tests")
    yield connection
    await connection.close()


@pytest.fixture
async def store(timescale_settings: Settings, timescale_database: str) -> AsyncIterator[Store]:
    async def open_writer() -> Connection:
        return await connect(timescale_database, role=ROLES.writer, name="writer")

    settings = timescale_settings.model_copy(update={"writers": 2, "commit_max_events": 6})
    ingest = Ingest(open_writer, settings, Instruments())
    await ingest.start()
    checker = await connect(timescale_database, role=ROLES.worker, name="tests")
    yield Store(ingest, [checker], checker)
    await ingest.close()
    await checker.close()


async def test_a_store_on_timescaledb_community_uses_its_engine(
    timescale_settings: Settings, owner: Connection
) -> None:
    found = await detect(owner)
    assert (found.engine, found.licence) == ("timescale", "timescale")
    assert await owner.fetchval("SELECT engine FROM ops.store") == "timescale"
    hypertables = await owner.fetch(
        "SELECT hypertable_name FROM timescaledb_information.hypertables WHERE hypertable_schema = 'raw'"
    )
    assert {row[0] for row in hypertables} == {"tool_calls", "server_events", "hub_events"}
    aggregates = await owner.fetch(
        "SELECT view_name, materialized_only FROM timescaledb_information.continuous_aggregates"
    )
    assert len(aggregates) == 5
    assert not any(row["materialized_only"] for row in aggregates)


async def test_migrating_again_changes_nothing(timescale_settings: Settings, timescale_database: str) -> None:
    said: list[str] = []
    await migrate_store(timescale_settings, timescale_database, said.append)
    assert said == []


@dataclass(frozen=True)
class Do:
    """Refresh forward, settle late marks, or compress what is old."""

    what: str


DEEDS = st.builds(Do, st.sampled_from(["refresh", "settle", "compress"]))
STEPS = st.lists(
    st.lists(POSTS | DEEDS | st.builds(Retain), min_size=1, max_size=1)
    | st.lists(POSTS | DEEDS, min_size=2, max_size=3),
    min_size=1,
    max_size=7,
)
SEQUENCES: Final = 200
HALVES: Final = 2
"""The sequences are played in so many tests, which run side by side on databases of their own."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("half", range(HALVES))
async def test_the_rollups_equal_a_recount_of_raw_after_every_step(
    store: Store, owner: Connection, timescale_settings: Settings, timescale_database: str, half: int
) -> None:
    loop = asyncio.get_running_loop()
    numbers = itertools.count()
    alone = asyncio.Lock()
    narrow = timescale_settings.model_copy(update={"retention_raw_days": 3, "compress_after_days": 2})
    await migrate_store(narrow, timescale_database)
    wanted = Horizons(MIDNIGHT - timedelta(days=3), BEGINNING, BEGINNING, None)
    deeds: dict[str, Callable[[Connection], Awaitable[int]]] = {
        "refresh": refresh_forward,
        "settle": settle_late,
        "compress": partial(to_columnstore, settings=narrow),
    }

    async def do(deed: Do) -> None:
        async with alone:
            await deeds[deed.what](owner)

    async def retain_now(tenants: list[str]) -> None:
        await store.raw_is_gone(tenants, wanted.raw)
        await retain(owner, "timescale", wanted)

    async def begin_anew() -> None:
        store.raw_is_whole()
        await owner.execute("DELETE FROM ops.retained")
        await settle_late(owner)

    async def play(steps: list[list[Post | Do | Retain]]) -> None:
        number = next(numbers)
        tenants = [f"north {number}", f"south {number}"]
        await begin_anew()
        for step in steps:
            events = [
                (tenants[one.tenant], still_accepted(one, store.raw_since)) for one in step if isinstance(one, Post)
            ]
            posts = [store.post(tenant, *some) for tenant, some in events if some]
            others = [do(one) for one in step if isinstance(one, Do)]
            others += [retain_now(tenants) for one in step if isinstance(one, Retain)]
            receipts, _ = await asyncio.gather(asyncio.gather(*posts), asyncio.gather(*others))
            assert all(receipt.rejected == [] for receipt in receipts)
            await store.check(*tenants)
        await do(Do("refresh"))
        await store.check(*tenants)
        await do(Do("settle"))
        await store.check(*tenants)

    @examples(max_examples=SEQUENCES // HALVES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(STEPS)
    def prove(steps: list[list[Post | Do | Retain]]) -> None:
        on(loop, play(steps))

    await holds(prove)


async def test_late_rows_are_read_from_raw_until_their_hour_is_refreshed(store: Store, owner: Connection) -> None:
    old = datetime.now(UTC).replace(minute=30, second=0, microsecond=0) - timedelta(hours=30)

    async def marks() -> int:
        count: int = await owner.fetchval("SELECT count(*) FROM rollup.late_marks")
        return count

    await store.post("default", tool_call(time=old.isoformat()))
    await refresh_forward(owner)
    assert (await marks(), await settle_late(owner), await marks()) == (1, 1, 0)
    await store.check("default")
    # The hour is materialized now; a late row for it is seen at once all the same.
    await store.post("default", tool_call(time=old.isoformat()), tool_call(time=old.isoformat()))
    assert await marks() == 1
    await store.check("default")
    assert await store.fetch("SELECT sum(calls)::int FROM rollup.tool_calls_daily") == [(3,)]
    assert await settle_late(owner) == 1
    await store.check("default")
    touched = await owner.fetch("SELECT DISTINCT hour FROM ops.touched_hours")
    assert [row["hour"] for row in touched] == [old.replace(minute=0)]
    # Recent events leave no mark: the aggregate is not refreshed as far as them.
    await store.post("default", tool_call())
    assert await marks() == 0
    await refresh_forward(owner)
    await store.check("default")


async def test_dbt_builds_the_marts_and_takes_in_recent_and_late_events(
    store: Store, owner: Connection, timescale_settings: Settings, timescale_database: str
) -> None:
    now = datetime.now(UTC)
    old = now.replace(minute=30, second=0, microsecond=0) - timedelta(days=3)

    async def days() -> dict[str, int]:
        rows = await owner.fetch(
            "SELECT to_char(day, 'YYYY-MM-DD') AS day, sum(calls)::int AS calls"
            " FROM analytics.fct_tool_usage_daily GROUP BY 1"
        )
        return {row["day"]: row["calls"] for row in rows}

    await owner.execute(f"GRANT USAGE ON SCHEMA analytics TO {ROLES.owner}")
    async with worker_opened(timescale_settings, timescale_database) as worker:
        await store.post("default", tool_call(time=now.isoformat()))
        await worker.build_marts()
        assert await days() == {f"{now:%Y-%m-%d}": 1}
        await store.post("default", tool_call(time=now.isoformat()), tool_call(time=old.isoformat()))
        assert (await worker.refresh_rollups())["aggregates"] == 5
        assert (await worker.settle_late())["marks"] == 1
        await worker.build_marts()
        assert await days() == {f"{now:%Y-%m-%d}": 2, f"{old:%Y-%m-%d}": 1}


@pytest.mark.meta_tools
async def test_the_report_is_the_same_as_on_plain_postgresql(
    timescale_settings: Settings, timescale_database: str, settings: Settings, database: str
) -> None:
    import json

    now = datetime.now(UTC)
    sent = [
        tool_call(
            time=(now - timedelta(minutes=37 * n)).isoformat(),
            server=f"server-{n % 3}",
            tool=f"tool-{n % 5}",
            status=("ok", "error", "timeout")[n % 3],
            duration_ms=None if n % 7 == 0 else 1.7 ** (n % 20),
        )
        for n in range(60)
    ]
    answers: list[dict[str, Any]] = []
    for one, dsn in ((timescale_settings, timescale_database), (settings, database)):
        async with opened(one, dsn) as app:
            await app.check_ready()
            receipt = await app.ingest.post(LOCAL, json.dumps(sent).encode(), "application/json")
            assert receipt.accepted == len(sent)
            report = await app.report(
                LOCAL, time_range="2 days", group_by="hour", include_real_time=True, include_metadata=False, top=10
            )
            answers.append(report.model_dump(mode="json", exclude={"window", "freshness"}))
    assert answers[0] == answers[1]
    assert answers[0]["overview"]["usage"]["calls"] == 60


@pytest.mark.meta_tools
async def test_failures_of_the_databases_own_jobs_are_told(
    timescale_settings: Settings, timescale_database: str
) -> None:
    admin = await connect(timescale_database, name="tests")
    async with opened(timescale_settings, timescale_database) as app:
        status = await app.status(LOCAL)
        assert (status.status, status.database.engine, status.database.licence) == ("healthy", "timescale", "timescale")
        # What its scheduler writes when a job fails (there is no scheduler here to do it).
        await admin.execute(
            "INSERT INTO _timescaledb_internal.bgw_job_stat_history"
            " (job_id, pid, execution_start, execution_finish, succeeded, data)"
            " SELECT job_id, 1, now(), now(), false, jsonb_build_object("
            " 'job', jsonb_build_object('proc_schema', proc_schema, 'proc_name', proc_name),"
            " 'error_data', jsonb_build_object('message', 'no room left', 'sqlerrcode', '53100'))"
            " FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention' AND hypertable_name = 'tool_calls'"
        )
        status = await app.status(LOCAL)
        assert [(error.errors, error.last_error) for error in status.database_job_errors] == [(1, "no room left")]
        assert status.status == "degraded"
        assert "policy_retention failed 1 times" in " ".join(status.problems)
        assert "hubscope_database_job_errors{" in (await app.metrics()).decode()
    await admin.close()


def test_roles_are_the_same_on_both_engines(timescale_settings: Settings, timescale_database: str) -> None:
    assert roles_of(timescale_settings, timescale_database) == ROLES
