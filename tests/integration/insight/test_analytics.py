"""hub__analytics_advanced over a real database: its numbers are those of the calls that were posted."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx2
import pytest

from hubscope.access import LOCAL, Principal, Scope
from hubscope.app import App
from hubscope.insight import AnalyticsReport, analytics
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.events import server_event, tool_call

pytestmark = [pytest.mark.meta_tools, pytest.mark.integration]

STATUSES = ("ok", "ok", "ok", "ok", "error", "timeout", "cancelled", "denied")


def calls(count: int, seed: int, *, hours: int = 30) -> list[dict[str, Any]]:
    """Varied calls of the last `hours` hours; some tell no duration."""
    rng = Random(seed)
    now = datetime.now(UTC)
    return [
        tool_call(
            time=(now - timedelta(seconds=rng.uniform(1, hours * 3600))).isoformat(),
            server=f"server-{rng.randrange(3)}",
            tool=f"tool-{rng.randrange(6)}",
            status=rng.choice(STATUSES),
            duration_ms=None if rng.random() < 0.1 else rng.lognormvariate(3, 1.5),
            client=rng.choice(("cli", "ide")),
            request_bytes=rng.randrange(100),
        )
        for _ in range(count)
    ]


def percentile(durations: list[float], q: float) -> float | None:
    """percentile_disc: the value at rank ceil(q * n)."""
    ordered = sorted(durations)
    return ordered[math.ceil(q * len(ordered)) - 1] if ordered else None


def within(report: AnalyticsReport, sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call for call in sent if report.window.start <= datetime.fromisoformat(call["time"]) < report.window.end]


async def ask(app: App, **parameters: Any) -> AnalyticsReport:
    values: dict[str, Any] = {
        "time_range": "24 hours",
        "group_by": "hour",
        "include_real_time": True,
        "include_metadata": False,
        "top": 100,
    }
    return await app.report(LOCAL, **values | parameters)


@pytest.mark.parametrize(
    ("time_range", "group_by", "tolerance"),
    [("24 hours", "hour", 0.044), ("2 days", "day", 0.044), ("3 hours", "minute", 1e-3), ("24 hours", "minute", 1e-3)],
)
async def test_the_report_says_what_an_independent_count_says(
    app: App, client: httpx2.AsyncClient, time_range: str, group_by: str, tolerance: float
) -> None:
    sent = calls(600, seed=1)
    assert (await client.post("/v1/events", json=sent)).json()["accepted"] == 600
    report = await ask(app, time_range=time_range, group_by=group_by)
    counted = within(report, sent)
    assert report.overview is not None
    usage = report.overview.usage
    by_status = Counter(call["status"] for call in counted)
    assert (usage.calls, usage.ok, usage.errors, usage.timeouts, usage.cancelled, usage.denied) == (
        len(counted),
        *(by_status[status] for status in ("ok", "error", "timeout", "cancelled", "denied")),
    )
    assert sum(point.usage.calls for point in report.time_series) == len(counted)
    assert sum(tool.usage.calls for tool in report.top_tools) == len(counted)
    assert report.overview.request_bytes == sum(call["request_bytes"] for call in counted)
    assert report.overview.servers == len({call["server"] for call in counted})
    for tool in report.top_tools:
        of_tool = [call for call in counted if (call["server"], call["tool"]) == (tool.server, tool.tool)]
        assert tool.usage.calls == len(of_tool)
        durations = [call["duration_ms"] for call in of_tool if call["duration_ms"] is not None]
        assert tool.latency.timed_calls == len(durations)
        for q, got in ((0.5, tool.latency.p50_ms), (0.95, tool.latency.p95_ms), (0.99, tool.latency.p99_ms)):
            assert got == pytest.approx(percentile(durations, q), rel=tolerance, abs=1e-3)


async def test_stored_and_pending_hours_give_the_same_answer(
    app: App, client: httpx2.AsyncClient, admin: Connection
) -> None:
    sent = calls(200, seed=2)
    await client.post("/v1/events", json=sent[:120])
    assert await admin.fetchval("SELECT rollup.fold()") == 1
    await client.post("/v1/events", json=sent[120:])
    report = await ask(app)
    assert report.overview is not None
    assert report.overview.usage.calls == len(within(report, sent))


async def test_an_empty_database_gives_a_report_that_says_so(app: App) -> None:
    report = await ask(app)
    assert report.empty
    assert report.overview is None
    assert [*report.time_series, *report.top_tools, *report.slowest_tools, *report.servers] == []
    assert "Nothing has been recorded yet" in report.message


async def test_a_window_without_calls_names_the_newest_event(app: App, client: httpx2.AsyncClient) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    await client.post("/v1/events", json=[tool_call(time=yesterday)])
    report = await ask(app, time_range="1 hour")
    assert report.empty
    assert "No tool call was recorded" in report.message


async def test_the_answer_tells_its_freshness_before_the_first_dbt_build(app: App, client: httpx2.AsyncClient) -> None:
    await client.post("/v1/events", json=[tool_call()])
    report = await ask(app)
    assert report.freshness.live
    assert report.freshness.marts_built_at is None
    assert report.freshness.last_event_at is not None
    assert report.marts[0] == "analytics.fct_tool_usage_hourly"


async def test_one_tenant_never_sees_another(app: App, client: httpx2.AsyncClient, settings: Settings) -> None:
    await client.post("/v1/events", json=[tool_call(), server_event()])
    other = Principal("other", frozenset({Scope.READ}))
    async with app.readers.acquire() as connection:
        report = await analytics(connection, other, settings, now=datetime.now(UTC))
    assert report.empty
    assert report.servers == []
    assert report.freshness.last_event_at is None


@pytest.mark.realtime
async def test_a_server_is_what_its_newest_event_says_since_it_first_said_so(
    app: App, client: httpx2.AsyncClient
) -> None:
    now = datetime.now(UTC)
    history = [(50, "up"), (40, "down"), (30, "up"), (20, "up")]
    await client.post(
        "/v1/events",
        json=[server_event(time=(now - timedelta(minutes=ago)).isoformat(), state=state) for ago, state in history],
    )
    (server,) = (await ask(app)).servers
    assert server.state == "up"
    assert server.state_since is not None
    assert abs(server.state_since - (now - timedelta(minutes=30))) < timedelta(seconds=1)
    assert server.usage is None


async def test_a_state_that_is_no_longer_valid_is_unknown(app: App, client: httpx2.AsyncClient) -> None:
    now = datetime.now(UTC)
    await client.post(
        "/v1/events",
        json=[
            server_event(
                time=(now - timedelta(minutes=2)).isoformat(), valid_until=(now - timedelta(minutes=1)).isoformat()
            )
        ],
    )
    (server,) = (await ask(app)).servers
    assert server.state == "unknown"


async def test_top_limits_both_tool_lists(app: App, client: httpx2.AsyncClient) -> None:
    await client.post("/v1/events", json=[tool_call(tool=f"tool-{n}", duration_ms=n) for n in range(5)])
    report = await ask(app, top=2)
    assert [tool.tool for tool in report.slowest_tools] == ["tool-4", "tool-3"]
    assert len(report.top_tools) == 2


async def test_metadata_is_there_when_asked_for(app: App) -> None:
    assert (await ask(app)).metadata is None
    metadata = (await ask(app, include_metadata=True)).metadata
    assert metadata is not None
    assert metadata["engine"] == "postgres"
