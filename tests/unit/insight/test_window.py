"""timeRange in words becomes whole minutes, hours or days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.errors import InvalidParameter
from hubscope.insight.window import GROUPINGS, Limits, Window, floor, parse_range, window

pytestmark = pytest.mark.meta_tools

NOW = datetime(2026, 11, 21, 20, 47, 12, 345678, tzinfo=UTC)

LIMITS = Limits(minute_grouping_max_hours=24, hourly_days=400, hourly_latency_days=8)


def span(text: str = "24 hours", group_by: str = "hour", *, real_time: bool = True) -> Window:
    return window(text, group_by, NOW, real_time=real_time, limits=LIMITS)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("1 hour", 1),
        ("24 hours", 24),
        ("7 days", 168),
        ("15 minutes", 0.25),
        ("30 min", 0.5),
        ("90m", 1.5),
        ("24h", 24),
        ("2 hrs", 2),
        ("7d", 168),
        ("1 week", 168),
        ("4 weeks", 672),
        ("2w", 336),
        ("1 month", 720),
        ("1 year", 8760),
        ("hour", 1),
        ("last 24 hours", 24),
        ("the last 7 days", 168),
        ("  24   HOURS ", 24),
    ],
)
def test_a_range_in_words_is_understood(text: str, hours: float) -> None:
    assert parse_range(text) == timedelta(hours=hours)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "24",
        "yesterday",
        "3 fortnights",
        "-1 hour",
        "1.5 hours",
        "1 hour 30 minutes",
        "1 hour; drop table x",
        "²4 h",
    ],
)
def test_any_other_range_is_refused_with_the_forms_that_are_allowed(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"timeRange: .*allowed: .*'24 hours'"):
        parse_range(text)


@pytest.mark.parametrize("text", ["0 hours", "3651 days", "999999 years"])
def test_a_range_of_nothing_or_of_ages_is_refused_with_the_limit(text: str) -> None:
    with pytest.raises(InvalidParameter, match="more than nothing and at most 3650 days"):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "group_by", "start"),
    [
        ("15 minutes", "minute", datetime(2026, 11, 21, 20, 32, tzinfo=UTC)),
        ("1 hour", "hour", datetime(2026, 11, 21, 19, 0, tzinfo=UTC)),
        ("24 hours", "hour", datetime(2026, 11, 20, 20, 0, tzinfo=UTC)),
        ("7 days", "day", datetime(2026, 11, 14, 0, 0, tzinfo=UTC)),
    ],
)
def test_a_window_starts_on_the_point_in_which_its_first_moment_lies(text: str, group_by: str, start: datetime) -> None:
    assert span(text, group_by).start == start
    assert span(text, group_by).end == NOW


def test_without_real_time_the_point_that_is_still_filling_up_is_left_out() -> None:
    closed = span("2 hours", real_time=False)
    assert (closed.start.hour, closed.end.hour, closed.end.minute, closed.complete) == (18, 20, 0, True)
    assert not span("2 hours").complete


def test_days_are_utc_days_whatever_the_zone_of_the_present() -> None:
    in_tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    assert window("1 day", "day", in_tokyo, real_time=True, limits=LIMITS) == span("1 day", "day")


def test_minute_grouping_over_a_long_range_is_refused_with_the_limit() -> None:
    with pytest.raises(InvalidParameter, match="at most 24 hours"):
        span("25 hours", "minute")
    assert span("24 hours", "minute").group_by == "minute"


@pytest.mark.parametrize("group_by", ["week", "", "Hour", "minute; --"])
def test_an_unknown_grouping_is_refused_with_those_that_are_allowed(group_by: str) -> None:
    with pytest.raises(InvalidParameter, match="allowed: minute, hour, day"):
        span(group_by=group_by)


@given(st.datetimes(timezones=st.timezones()), st.sampled_from(GROUPINGS))
def test_the_start_of_a_point_is_in_it_and_is_its_own_start(time: datetime, unit: str) -> None:
    grouping = next(one for one in GROUPINGS if one == unit)
    start = floor(time, grouping)
    assert floor(start, grouping) == start
    assert (
        timedelta(0)
        <= time - start
        < {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}.get(unit, timedelta(days=1))
    )
