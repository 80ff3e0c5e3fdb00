"""The worker's jobs over a real database: real dbt, real Great Expectations."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from hubscope.errors import JobFailed
from hubscope.schedule import Job, run_once
from hubscope.settings import Settings
from hubscope.store import Connection
from hubscope.worker import Worker, opened
from tests.events import tool_call

# dbt and Great Expectations take seconds to import: all that start them run in one pytest process, one after the other.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("heavy")]


@pytest.fixture
async def worker(settings: Settings, database: str) -> AsyncIterator[Worker]:
    async with opened(settings, database) as opened_worker:
        yield opened_worker


async def post(client: httpx2.AsyncClient, *calls: dict[str, Any]) -> None:
    answer = await client.post("/v1/events", json=list(calls))
    assert answer.json()["accepted"] == len(calls), answer.text


async def daily(admin: Connection) -> dict[tuple[str, str], int]:
    rows = await admin.fetch(
        "SELECT to_char(day, 'YYYY-MM-DD') AS day, tool, calls FROM analytics.fct_tool_usage_daily WHERE server = 'git'"
    )
    assert len({(row["day"], row["tool"]) for row in rows}) == len(rows)
    return {(row["day"], row["tool"]): row["calls"] for row in rows}


def at(days_ago: int) -> datetime:
    noon = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(minutes=1)
    return noon - timedelta(days=days_ago)


async def test_marts_are_built_and_later_runs_take_in_what_came_since(
    worker: Worker, client: httpx2.AsyncClient, admin: Connection
) -> None:
    # One story in one test: the first run of dbt parses the project, which takes longer than everything else here.
    yesterday, earlier = at(1), at(3)
    await post(client, *(tool_call(server="git", tool="log", time=yesterday.isoformat()) for _ in range(3)))
    assert (await worker.fold())["batches"] == 1
    assert await run_once(_job(worker, "build_marts"), worker.connect, forced=True)
    day = f"{yesterday:%Y-%m-%d}"
    assert await daily(admin) == {(day, "log"): 3}

    # Nothing new: nothing is rewritten.
    built = await admin.fetchval("SELECT max(built_at) FROM analytics.fct_tool_usage_daily")
    await worker.build_marts()
    assert await admin.fetchval("SELECT count(*) FROM analytics.fct_tool_usage_daily") == 1

    # Late events for an old day and a new one for a built day: both days come out whole.
    await post(
        client,
        tool_call(server="git", tool="log", time=earlier.isoformat()),
        tool_call(server="git", tool="log", time=yesterday.isoformat(), duration_ms=250.0),
    )
    await worker.fold()
    await worker.build_marts()
    assert await daily(admin) == {(day, "log"): 4, (f"{earlier:%Y-%m-%d}", "log"): 1}
    assert await admin.fetchval("SELECT max(built_at) FROM analytics.fct_tool_usage_daily") > built
    p99 = await admin.fetchval("SELECT max(p99_ms) FROM analytics.fct_tool_usage_daily")
    assert p99 == pytest.approx(250, rel=0.044)

    status = await admin.fetchrow("SELECT * FROM analytics.mart_status")
    assert status["last_build_ok"] is True
    assert status["last_build_at"] is not None


async def test_a_fold_that_commits_while_marts_are_built_is_taken_in_by_the_next_build(
    worker: Worker, client: httpx2.AsyncClient, admin: Connection
) -> None:
    await post(client, tool_call(server="git", tool="log", time=at(1).isoformat()))
    await worker.fold()
    await worker.build_marts()
    # A fold begins before the build and commits after it: a clock would say that the build has seen it.
    await post(client, tool_call(server="git", tool="log", time=at(1).isoformat()))
    folding = await worker.connect()
    transaction = folding.transaction()
    await transaction.start()
    await folding.fetchval("SELECT rollup.fold()")
    await worker.build_marts()
    await transaction.commit()
    await folding.close()
    await worker.build_marts()
    assert list((await daily(admin)).values()) == [2]


async def test_a_full_refresh_builds_every_day_again_also_those_that_were_pruned_from_the_log(
    worker: Worker, client: httpx2.AsyncClient, admin: Connection
) -> None:
    await post(client, *(tool_call(server="git", tool="log", time=at(days).isoformat()) for days in (0, 1, 4)))
    await worker.fold()
    await admin.execute("DELETE FROM ops.touched_hours")
    await worker.build_marts()
    assert sorted((await daily(admin)).values()) == [1, 1, 1]


async def test_the_dbt_project_passes_its_own_unit_tests(settings: Settings, database: str, directory: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from hubscope.marts import run_dbt; from hubscope.store import roles_of;"
        "from hubscope.settings import Settings;"
        f"role = roles_of(Settings.load(role_prefix={settings.role_prefix!r}), {database!r}).worker;"
        f"run_dbt({database!r}, role, Path({str(directory)!r}));"
        f"print(run_dbt({database!r}, role, Path({str(directory)!r}), ('test', '--select', 'test_type:unit')))"
    )
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"{'nodes': 1}" in out


async def test_quality_is_checked_and_a_finding_fails_the_job(
    worker: Worker, client: httpx2.AsyncClient, admin: Connection
) -> None:
    same_id = str(uuid.uuid4())
    await post(client, tool_call(), tool_call())
    assert await run_once(_job(worker, "check_quality"), worker.connect, forced=True)
    assert await admin.fetchval("SELECT bool_and(ok) FROM ops.quality_results")
    now = datetime.now(UTC)
    await post(
        client,
        tool_call(event_id=same_id, time=now.isoformat()),
        tool_call(event_id=same_id, time=(now - timedelta(seconds=1)).isoformat()),
    )
    with pytest.raises(JobFailed, match="expect_compound_columns_to_be_unique"):
        await worker.check_quality()
    assert not await run_once(_job(worker, "check_quality"), worker.connect, forced=True)
    detail = await admin.fetchval("SELECT detail FROM ops.job_runs WHERE NOT ok")
    assert "1 of 9 expectations are not met" in json.loads(detail)["error"]


async def test_a_child_process_that_dies_costs_one_run(worker: Worker) -> None:
    before = set(psutil.Process().children())
    running = asyncio.create_task(worker.check_quality())
    async with asyncio.timeout(30):
        while not (born := set(psutil.Process().children()) - before):  # noqa: ASYNC110  # nothing to await there
            await asyncio.sleep(0.01)
    for process in born:
        process.kill()
    with pytest.raises(JobFailed, match="died"):
        await running
    assert await worker.check_quality()


async def test_a_job_runs_once_in_its_slot_however_many_replicas_there_are(worker: Worker, admin: Connection) -> None:
    ran: list[int] = []

    async def count() -> dict[str, Any]:
        ran.append(1)
        return {"counted": 1}

    job = Job("count", timedelta(hours=24), count)
    done = await asyncio.gather(*(run_once(job, worker.connect) for _ in range(5)))
    assert (len(ran), sum(done)) == (1, 1)
    assert await admin.fetchval("SELECT ok FROM ops.job_runs WHERE job = 'count'")


async def test_a_job_that_a_dead_worker_left_is_run_again(worker: Worker, admin: Connection) -> None:
    async def work() -> dict[str, Any]:
        return {}

    job = Job("count", timedelta(hours=24), work)
    assert await run_once(job, worker.connect)
    assert not await run_once(job, worker.connect)
    await admin.execute(
        "UPDATE ops.job_runs SET finished_at = NULL, ok = NULL, started_at = now() - interval '31 minutes'"
    )
    assert await run_once(job, worker.connect)


async def test_old_job_runs_are_pruned(worker: Worker, admin: Connection) -> None:
    days = worker.settings.ops_retention_days
    for age in (days + 1, days - 1):
        await admin.execute(
            "INSERT INTO ops.job_runs (job, slot, started_at) VALUES ('x', now() - $1::interval, now() - $1::interval)",
            timedelta(days=age),
        )
    assert (await worker.prune_ops())["job_runs"] == 1
    assert await admin.fetchval("SELECT count(*) FROM ops.job_runs") == 1


def _job(worker: Worker, name: str) -> Job:
    return next(job for job in worker.timetable("postgres") if job.name == name)
