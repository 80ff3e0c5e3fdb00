"""The timetable reads as a table, and follows the settings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hubscope.schedule import Job, slot_of, tick_of
from hubscope.settings import Settings
from hubscope.store import Engine
from hubscope.worker import Worker

DSN = "postgresql://localhost/nowhere"


@pytest.mark.parametrize(
    ("changes", "job", "every"),
    [
        ({}, "fold", timedelta(seconds=1)),
        ({"fold_interval_ms": 250}, "fold", timedelta(milliseconds=250)),
        ({}, "build_marts", timedelta(minutes=15)),
        ({"marts_interval_minutes": 5}, "build_marts", timedelta(minutes=5)),
        ({}, "check_quality", timedelta(hours=1)),
        ({"quality_interval_minutes": 30}, "check_quality", timedelta(minutes=30)),
        ({}, "prune_ops", timedelta(days=1)),
        ({}, "prune_chains", timedelta(days=1)),
    ],
)
def test_the_timetable_follows_the_settings(changes: dict[str, int], job: str, every: timedelta) -> None:
    worker = Worker(Settings.load(database_url=DSN, **changes), DSN, Path("unused"))
    (found,) = [one for one in worker.timetable("postgres") if one.name == job]
    assert found.every == every


def test_marts_and_quality_run_at_start_too() -> None:
    worker = Worker(Settings.load(database_url=DSN), DSN, Path("unused"))
    assert {job.name for job in worker.timetable("postgres") if job.at_start} == {"build_marts", "check_quality"}


def test_rollups_are_folded_on_postgresql_and_refreshed_on_timescaledb() -> None:
    worker = Worker(Settings.load(database_url=DSN), DSN, Path("unused"))
    engines: tuple[Engine, ...] = ("postgres", "timescale")
    names = {engine: [job.name for job in worker.timetable(engine)] for engine in engines}
    assert names["postgres"][:3] == ["fold", "recount", "pack"]
    assert names["timescale"][:3] == ["refresh_rollups", "settle_late", "columnstore"]
    assert names["postgres"][3:] == names["timescale"][3:]


@pytest.mark.parametrize(
    ("every", "recorded", "tick"),
    [
        (timedelta(hours=24), True, timedelta(minutes=15)),  # a restart does not put nightly work off by a day
        (timedelta(minutes=10), True, timedelta(minutes=10)),
        (timedelta(hours=1), False, timedelta(hours=1)),
    ],
)
def test_a_job_of_long_intervals_is_tried_often_and_runs_once_per_slot(
    every: timedelta, recorded: bool, tick: timedelta
) -> None:
    async def nothing() -> dict[str, object]:
        return {}

    assert tick_of(Job("retention", every, nothing, recorded=recorded)) == tick


@pytest.mark.parametrize(("minute", "slot"), [(0, 0), (14, 0), (15, 15), (59, 45)])
def test_replicas_that_run_at_about_the_same_time_mean_the_same_slot(minute: int, slot: int) -> None:
    async def nothing() -> dict[str, object]:
        return {}

    job = Job("build_marts", timedelta(minutes=15), nothing)
    at = datetime(2026, 11, 21, 20, minute, 33, 5, tzinfo=UTC)
    assert slot_of(job, at) == at.replace(minute=slot, second=0, microsecond=0)
