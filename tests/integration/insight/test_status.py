"""hub__integration_status: plain words about what works and what does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from hubscope.access import LOCAL, Principal, Scope
from hubscope.app import App
from hubscope.insight import as_json, status_as_markdown
from hubscope.store import Connection
from tests.events import tool_call

pytestmark = [pytest.mark.meta_tools, pytest.mark.integration]

RUN = "INSERT INTO ops.job_runs (job, slot, started_at, finished_at, ok, detail) VALUES ($1, $2, $2, $2, $3, $4::jsonb)"


async def test_a_new_store_is_healthy_and_says_which_engine_and_why(app: App) -> None:
    status = await app.status(LOCAL)
    assert (status.status, status.problems) == ("healthy", [])
    assert status.database.engine == "postgres"
    assert "TimescaleDB is not installed" in status.database.reason
    assert status.freshness.last_event_at is None
    assert status.retention_days == {"raw": 90, "hourly": 400, "hourly_latency": 8, "daily": None}
    assert "for ever" in status_as_markdown(status)


async def test_it_says_how_fresh_it_is_and_what_waits(app: App) -> None:
    await app.ingest.post(LOCAL, json.dumps([tool_call()]).encode(), "application/json")
    status = await app.status(LOCAL)
    assert status.pending_batches == 1
    assert status.freshness.last_event_at is not None
    assert "newest event" in status.message


@pytest.mark.parametrize(
    ("ok", "age", "said"),
    [
        (True, timedelta(minutes=1), None),
        (False, timedelta(minutes=1), "job build_marts failed: dbt said no"),
        (True, timedelta(hours=2), "is `hubscope worker` running?"),
    ],
)
async def test_what_is_wrong_is_a_sentence(
    ok: bool, age: timedelta, said: str | None, app: App, admin: Connection
) -> None:
    await admin.execute(
        RUN, "build_marts", datetime.now(UTC) - age, ok, json.dumps({} if ok else {"error": "dbt said no"})
    )
    status = await app.status(LOCAL)
    assert [job.job for job in status.jobs] == ["build_marts"]
    if said is None:
        assert (status.status, status.problems) == ("healthy", [])
    else:
        assert status.status == "degraded"
        assert said in " ".join(status.problems)
        assert said in status_as_markdown(status)


async def test_a_service_that_runs_long_without_a_worker_says_so(app: App) -> None:
    app.started -= 10_000
    assert any("no worker has ever run" in problem for problem in (await app.status(LOCAL)).problems)


async def test_a_tenants_key_is_not_told_the_words_of_jobs(app: App, admin: Connection) -> None:
    await admin.execute(RUN, "check_quality", datetime.now(UTC), False, json.dumps({"error": "server of tenant north"}))
    status = await app.status(Principal("south", frozenset({Scope.READ})))
    assert "north" not in status.model_dump_json()
    assert "check_quality failed" in status.problems[0]


async def test_words_of_others_cannot_break_the_page(app: App, admin: Connection) -> None:
    detail = {"error": "x | <b>\n# " + "y" * 1000}
    await admin.execute(RUN, "build_marts", datetime.now(UTC), False, json.dumps(detail))
    page = status_as_markdown(await app.status(LOCAL))
    assert "<b>" not in page
    assert "\n# y" not in page
    assert max(len(line) for line in page.splitlines()) < 500


async def test_the_rest_twin_gives_the_same(app: App, client: httpx2.AsyncClient) -> None:
    answer: dict[str, Any] = (await client.get("/api/v1/integration-status")).json()
    expected = as_json(await app.status(LOCAL))
    for moving in ("freshness", "uptime_seconds"):
        answer.pop(moving), expected.pop(moving)
    assert answer == expected


async def test_jobs_are_metrics(app: App, admin: Connection) -> None:
    when = datetime.now(UTC) - timedelta(minutes=5)
    await admin.execute(RUN, "retention", when, True, "{}")
    await admin.execute(RUN, "retention", when + timedelta(minutes=1), False, "{}")
    page = (await app.metrics()).decode()
    assert 'hubscope_job_last_run_ok{job="retention"} 0.0' in page
    success = next(
        line for line in page.splitlines() if line.startswith("hubscope_job_last_success_timestamp_seconds{")
    )
    assert float(success.split()[-1]) == pytest.approx(when.timestamp(), abs=1)
