"""hubscope_job_*: did each job of the timetable work, and when last? What did the database's own scheduler fail at?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from hubscope.store import Connection, load

QUERIES: Final = load(Path(__file__).with_name("queries.sql"))


async def collect(connection: Connection) -> list[Metric]:
    """One sample per job that ever ran; database jobs only where one failed in the last day."""
    ok = GaugeMetricFamily(
        "hubscope_job_last_run_ok", "1 when the job's newest finished run worked, else 0.", labels=("job",)
    )
    success = GaugeMetricFamily(
        "hubscope_job_last_success_timestamp_seconds", "When the job last worked.", labels=("job",)
    )
    for row in await connection.fetch(QUERIES["jobs"]):
        ok.add_metric((row["job"],), row["ok"])
        if row["last_success"] is not None:
            success.add_metric((row["job"],), row["last_success"])
    errors = GaugeMetricFamily(
        "hubscope_database_job_errors",
        "Failures of jobs that the database's own scheduler ran, in the last day.",
        labels=("job",),
    )
    for row in await connection.fetch(QUERIES["database_job_errors"]):
        errors.add_metric((row["job"],), row["errors"])
    return [ok, success, errors]
