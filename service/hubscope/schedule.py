"""The timetable: which job runs how often, and the bookkeeping that makes a job run once across replicas."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from hubscope.errors import HubscopeError
from hubscope.store import Connection

log = structlog.get_logger("hubscope.worker")

Run = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Job:
    """One line of the timetable.

    Attributes:
        name: as in ops.job_runs.
        every: interval between runs.
        run: does the work; returns what is worth remembering.
        at_start: run once when the worker starts, whatever the interval.
        recorded: one row in ops.job_runs per run; without it the job runs silently in every replica.
    """

    name: str
    every: timedelta
    run: Run
    at_start: bool = False
    recorded: bool = True


CLAIM: Final = """
INSERT INTO ops.job_runs (job, slot) VALUES ($1, $2)
ON CONFLICT (job, slot) DO UPDATE SET started_at = clock_timestamp(), finished_at = NULL, ok = NULL
WHERE job_runs.finished_at IS NULL AND job_runs.started_at < now() - $3::interval
RETURNING true
"""
FINISH: Final = """
UPDATE ops.job_runs SET finished_at = clock_timestamp(), ok = $3, detail = $4::jsonb WHERE job = $1 AND slot = $2
"""
ABANDONED_AFTER: Final = timedelta(minutes=30)


TICK: Final = timedelta(minutes=15)
"""How often a job of long intervals is tried: a worker that is restarted every evening still does its nightly work."""


def tick_of(job: Job) -> timedelta:
    """How often to try a job. A recorded one runs once per slot, however often it is tried."""
    return min(job.every, TICK) if job.recorded else job.every


def slot_of(job: Job, now: datetime) -> datetime:
    """The interval that a run at this time stands for: the last whole multiple of `every` since the epoch."""
    seconds = int(job.every.total_seconds())
    return datetime.fromtimestamp(int(now.timestamp()) // seconds * seconds, UTC)


async def run_once(job: Job, open_connection: Callable[[], Awaitable[Connection]], *, forced: bool = False) -> bool:
    """Run a job if no replica has run it in this slot. True when it ran and worked.

    Args:
        job: what to run.
        open_connection: a connection under the worker role.
        forced: a slot of its own, made of this very moment (start-up and `hubscope run`).
    """
    if not job.recorded:
        await job.run()
        return True
    now = datetime.now(UTC)
    slot = now if forced else slot_of(job, now)
    connection = await open_connection()
    try:
        if not await connection.fetchval(CLAIM, job.name, slot, ABANDONED_AFTER):
            return False
    finally:
        await connection.close()
    started = time.monotonic()
    try:
        detail, ok = await job.run(), True
    except HubscopeError as error:
        detail, ok = {"error": error.detail}, False
        log.error("job failed", job=job.name, error=error.detail)
    seconds = round(time.monotonic() - started, 3)
    connection = await open_connection()
    try:
        await connection.execute(FINISH, job.name, slot, ok, json.dumps(detail | {"seconds": seconds}))
    finally:
        await connection.close()
    if ok:
        log.info("job done", job=job.name, seconds=seconds, **detail)
    return ok
