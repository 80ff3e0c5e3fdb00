"""Which time an answer is about: from a timeRange in words to whole minutes, hours or days (UTC)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import Field

from hubscope.errors import InvalidParameter
from hubscope.store.retention import kept_from

GroupBy = Literal["minute", "hour", "day"]
GROUPINGS: Final[tuple[GroupBy, ...]] = ("minute", "hour", "day")

_UNITS: Final = {
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "minute": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "hr": timedelta(hours=1),
    "hour": timedelta(hours=1),
    "d": timedelta(days=1),
    "day": timedelta(days=1),
    "w": timedelta(weeks=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=30),
    "year": timedelta(days=365),
}
_RANGE = re.compile(r"^\s*(?:(?:the\s+)?last\s+)?(?:(\d{1,6})\s*)?([a-z]+?)s?\s*$", re.IGNORECASE | re.ASCII)
LONGEST: Final = timedelta(days=3650)
FORMS: Final = (
    "a number and a unit such as '15 minutes', '1 hour', '24 hours', '7 days', '4 weeks', '12 months' or '24h'"
)


@dataclass(frozen=True, slots=True)
class Window:
    """The span of an answer: start included, end excluded."""

    requested: Annotated[str, Field(description="The timeRange that was asked for.")]
    start: Annotated[datetime, Field(description="Included; on a whole minute, hour or day (UTC).")]
    end: Annotated[datetime, Field(description="Excluded.")]
    group_by: Annotated[GroupBy, Field(description="Length of one point of the time series.")]
    complete: Annotated[bool, Field(description="False when the last point is still filling up.")]

    def whole_days(self) -> tuple[datetime, datetime]:
        """The days (UTC) that lie wholly inside, from midnight to midnight; (start, start) when there is none."""
        first, last = floor(self.start + timedelta(days=1) - timedelta(microseconds=1), "day"), floor(self.end, "day")
        return (first, last) if first < last else (self.start, self.start)


@dataclass(frozen=True, slots=True)
class Limits:
    """How far back an answer can look, by grouping.

    Attributes:
        minute_grouping_max_hours: longest timeRange for groupBy=minute, which reads single calls.
        hourly_days: how long hours are kept.
        hourly_latency_days: how long percentiles by the hour are kept.
    """

    minute_grouping_max_hours: int
    hourly_days: int
    hourly_latency_days: int


def parse_range(text: str) -> timedelta:
    """The length that a timeRange names. A month is 30 days, a year 365.

    Raises:
        InvalidParameter: names the parameter and the forms that are allowed.
    """
    match = _RANGE.match(text)
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise InvalidParameter(f"timeRange: {text[:60]!r} is not understood; allowed: {FORMS}")
    count = int(match.group(1) or 1)
    if count == 0 or unit * count > LONGEST:
        raise InvalidParameter(f"timeRange: {text[:60]!r} must be more than nothing and at most {LONGEST.days} days")
    return unit * count


def floor(time: datetime, unit: GroupBy) -> datetime:
    """The start of the minute, hour or day (UTC) that a time lies in."""
    time = time.astimezone(UTC).replace(second=0, microsecond=0)
    if unit == "minute":
        return time
    time = time.replace(minute=0)
    return time if unit == "hour" else time.replace(hour=0)


def window(text: str, group_by: str, now: datetime, *, real_time: bool, limits: Limits) -> Window:
    """The span of an answer, made of whole points; it starts at the point in which now - timeRange lies.

    By the hour, a span that starts before the hourly percentiles do starts at midnight (UTC): it is made of whole days.

    Args:
        text: timeRange.
        group_by: minute, hour or day.
        now: the present.
        real_time: whether the point that is still filling up belongs to it.
        limits: how long a timeRange may be, and from when on there are hours.

    Raises:
        InvalidParameter: names the parameter and what is allowed.
    """
    unit = next((one for one in GROUPINGS if one == group_by), None)
    if unit is None:
        raise InvalidParameter(f"groupBy: {group_by[:60]!r} is not allowed; allowed: {', '.join(GROUPINGS)}")
    length = parse_range(text)
    if unit == "minute" and length > timedelta(hours=limits.minute_grouping_max_hours):
        raise InvalidParameter(
            f"groupBy: minute is allowed for a timeRange of at most {limits.minute_grouping_max_hours} hours (it reads"
            f" single calls), not {text.strip()!r}; use hour or day"
        )
    end = now.astimezone(UTC) if real_time else floor(now, unit)
    start = floor(end - length, unit)
    if unit == "hour":
        if start < kept_from(now, limits.hourly_days):
            raise InvalidParameter(
                f"groupBy: hours are kept for {limits.hourly_days} days, which {text.strip()!r} goes past; use day"
            )
        if start < kept_from(now, limits.hourly_latency_days):
            start = floor(start, "day")
    return Window(text.strip(), start, end, unit, complete=not real_time)
