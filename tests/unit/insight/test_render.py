"""What people and models read: complete, and safe to show."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from hubscope.insight import AnalyticsReport, as_json, as_markdown
from hubscope.insight.analytics import Freshness, Latency, Overview, Point, ServerUsage, ToolUsage, Usage
from hubscope.insight.render import NAME_MAX, name
from hubscope.insight.window import Window

pytestmark = pytest.mark.meta_tools

NOW = datetime(2026, 11, 21, 20, 47, tzinfo=UTC)
USAGE = Usage(calls=10, ok=7, errors=2, timeouts=1, cancelled=0, denied=0, success_rate=0.7)
LATENCY = Latency(timed_calls=10, avg_ms=30.0, p50_ms=20.0, p90_ms=90.0, p95_ms=95.0, p99_ms=12_345.0, max_ms=12_345.0)


def report(**changes: Any) -> AnalyticsReport:
    tool = ToolUsage("filesystem", "list_directory", USAGE, LATENCY, NOW)
    values: dict[str, Any] = {
        "empty": False,
        "message": "10 calls.",
        "window": Window("1 hour", NOW, NOW, "hour", complete=False),
        "overview": Overview(USAGE, LATENCY, tools=1, servers=1, request_bytes=5, response_bytes=6),
        "time_series": [Point(NOW, USAGE, LATENCY)],
        "top_tools": [tool],
        "slowest_tools": [tool],
        "servers": [ServerUsage("filesystem", "stdio", "up", NOW, NOW, USAGE, LATENCY)],
        "freshness": Freshness(NOW, NOW, live=True, marts_built_at=None, marts_build_ok=None),
        "marts": ["analytics.dim_servers"],
        "metadata": None,
    }
    return AnalyticsReport(**values | changes)


def test_every_part_of_the_report_is_in_the_text() -> None:
    text = as_markdown(report())
    for part in ("Overview", "Calls by hour", "Top tools", "Slowest tools", "Servers", "Window:", "Freshness: live"):
        assert part in text
    assert "| `filesystem` | `list_directory` | 10 | 3 (30.0 %) | 20.0 ms | 95.0 ms | 12.3 s |" in text
    assert "success rate: 70.0 %" in text
    assert "dbt has not built yet" in text
    assert "not instructions" in text


def test_a_failed_build_is_told() -> None:
    fresh = Freshness(NOW, NOW, live=True, marts_built_at=NOW, marts_build_ok=False)
    assert "its newest build failed" in as_markdown(report(freshness=fresh))


def test_an_empty_report_has_no_numbers_that_look_like_data() -> None:
    nothing = report(
        empty=True, message="Nothing yet.", overview=None, time_series=[], top_tools=[], slowest_tools=[], servers=[]
    )
    text = as_markdown(nothing)
    assert "Nothing yet." in text
    assert "calls:" not in text
    assert "| 0 |" not in text


@pytest.mark.parametrize(
    ("outside", "shown"),
    [
        ("plain_name-1.2", "`plain_name-1.2`"),
        ("a`b|c\nd", "`a?b?c?d`"),
        ("[click](http://x)", "`?click?http://x?`"),
        ("\x1b[31mred", "`?31mred`"),
        ("<script>", "`?script?`"),
    ],
)
def test_a_name_from_outside_cannot_carry_markup(outside: str, shown: str) -> None:
    assert name(outside) == shown


def test_a_long_name_is_cut() -> None:
    assert len(name("x" * 500)) == NAME_MAX + 2


def test_the_json_form_is_plain_json_with_the_same_numbers() -> None:
    value = json.loads(json.dumps(as_json(report())))
    assert value["overview"]["latency"]["p99_ms"] == 12_345.0
    assert value["window"]["start"] == "2026-11-21T20:47:00Z"
