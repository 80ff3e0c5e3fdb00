"""hub__integration_status: does everything between a hub and its answers work? Reads marts only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field

import hubscope
from hubscope.access import Principal, Scope
from hubscope.insight.analytics import Freshness
from hubscope.settings import Settings
from hubscope.store import Capabilities, Connection, load

QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
FOR_OPERATORS: Final = "the reason is for operators (scope admin)"
BACKLOG_LARGE: Final = 5_000
"""Unsettled batches that are more than a worker at work leaves."""
WORKER_QUIET: Final = 3
"""A worker that let so many mart intervals pass is taken to be away."""


@dataclass(frozen=True, slots=True)
class Database:
    """The store and what it can do."""

    engine: Annotated[Literal["postgres", "timescale"], Field(description="Who keeps the rollups.")]
    reason: Annotated[str, Field(description="Why this engine.")]
    server_version: str
    timescaledb: Annotated[str | None, Field(description="Version of the extension; null without it.")]
    licence: Annotated[str | None, Field(description="timescale (Community) or apache; null without it.")]
    schema_version: Annotated[int, Field(description="Number of the newest migration.")]


@dataclass(frozen=True, slots=True)
class JobState:
    """A job of the timetable: how its newest finished run ended."""

    job: str
    finished_at: datetime
    ok: bool
    error: str | None
    last_success_at: datetime | None


@dataclass(frozen=True, slots=True)
class DatabaseJobError:
    """A job of the database's own scheduler that failed in the last day."""

    job: str
    errors: int
    last_error_at: datetime
    last_error: str


class IntegrationStatus(BaseModel, frozen=True):
    """The answer of hub__integration_status."""

    status: Annotated[Literal["healthy", "degraded"], Field(description="degraded: see problems.")]
    message: Annotated[str, Field(description="One sentence that sums the answer up.")]
    problems: Annotated[list[str], Field(description="What is wrong, each with what to do.")]
    version: str
    uptime_seconds: int
    database: Database
    features: Annotated[dict[str, bool], Field(description="What is switched on.")]
    freshness: Freshness
    pending_batches: Annotated[int, Field(description="Committed and counted, but not settled in the rollups yet.")]
    jobs: list[JobState]
    database_job_errors: list[DatabaseJobError]
    retention_days: Annotated[dict[str, int | None], Field(description="How long each kind is kept; null: for ever.")]
    marts: Annotated[list[str], Field(description="Where the answer comes from.")]


MARTS: Final = (
    "analytics.mart_status", "analytics.job_status", "analytics.database_job_errors", "analytics.dim_servers"
)  # fmt: skip


async def integration_status(
    connection: Connection,
    principal: Principal,
    settings: Settings,
    found: Capabilities,
    *,
    uptime_s: float,
    now: datetime,
) -> IntegrationStatus:
    """How the service, its store and its worker are.

    Args:
        connection: under the reader role.
        principal: whose newest event counts.
        settings: switches and retention.
        found: what the database can do.
        uptime_s: of this process.
        now: the present, with a zone.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        freshness = await connection.fetchrow(QUERIES["freshness"])
        last_event_at = await connection.fetchval(QUERIES["last_event"], principal.tenant)
        # Words of jobs may name what belongs to other tenants.
        whole = Scope.ADMIN in principal.scopes
        jobs = [
            JobState(
                row["job"],
                row["finished_at"],
                row["ok"],
                row["error"] if whole or row["error"] is None else FOR_OPERATORS,
                row["last_success_at"],
            )
            for row in await connection.fetch(QUERIES["jobs"])
        ]
        errors = [
            DatabaseJobError(
                row["job"], row["errors"], row["last_error_at"], row["last_error"] if whole else FOR_OPERATORS
            )
            for row in await connection.fetch(QUERIES["database_job_errors"])
        ]
    assert freshness is not None  # mart_status has one row always
    problems = [*_problems(settings, jobs, freshness["pending_batches"], uptime_s, now)]
    problems += [
        f"the database's job {error.job} failed {error.errors} times in the last day: {error.last_error}"
        for error in errors
    ]
    return IntegrationStatus(
        status="degraded" if problems else "healthy",
        message=_message(problems, found, last_event_at),
        problems=problems,
        version=hubscope.__version__,
        uptime_seconds=int(uptime_s),
        database=Database(
            found.engine,
            found.reason,
            found.server_version,
            found.timescaledb,
            found.licence,
            freshness["schema_version"],
        ),
        features={
            "enhanced_analytics": settings.enable_enhanced_analytics,
            "timeseries": found.engine == "timescale",
        },
        freshness=Freshness(
            answered_at=now,
            last_event_at=last_event_at,
            live=True,
            marts_built_at=freshness["last_build_at"],
            marts_build_ok=freshness["last_build_ok"],
        ),
        pending_batches=freshness["pending_batches"],
        jobs=jobs,
        database_job_errors=errors,
        retention_days={
            "raw": settings.retention_raw_days,
            "hourly": settings.retention_hourly_days,
            "hourly_latency": settings.retention_hourly_latency_days,
            "daily": settings.retention_daily_days or None,
        },
        marts=list(MARTS),
    )


def _problems(settings: Settings, jobs: list[JobState], pending: int, uptime_s: float, now: datetime) -> list[str]:
    problems = [f"job {job.job} failed: {job.error or 'no reason is known'}" for job in jobs if not job.ok]
    patience = WORKER_QUIET * timedelta(minutes=settings.marts_interval_minutes)
    newest = max((job.finished_at for job in jobs), default=None)
    if newest is None and uptime_s > patience.total_seconds():
        problems.append("no worker has ever run: start `hubscope worker` (marts, retention and folding need it)")
    elif newest is not None and now - newest > patience:
        problems.append(f"no job has finished since {newest:%Y-%m-%d %H:%M} UTC: is `hubscope worker` running?")
    if pending > BACKLOG_LARGE:
        problems.append(f"{pending} batches wait to be settled in the rollups: is `hubscope worker` running?")
    return problems


def _message(problems: list[str], found: Capabilities, last_event_at: datetime | None) -> str:
    if problems:
        return f"{len(problems)} problem{'s' if len(problems) > 1 else ''}: {problems[0]}."
    newest = (
        f"the newest event is of {last_event_at:%Y-%m-%d %H:%M} UTC" if last_event_at else "no event was recorded yet"
    )
    return f"Everything works on PostgreSQL {found.server_version} with the {found.engine} engine; {newest}."
