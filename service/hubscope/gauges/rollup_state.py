"""hubscope_rollup_pending_batches and hubscope_mart_age_seconds: do folds and dbt builds keep up?"""

from __future__ import annotations

from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from hubscope.store import Connection, load

QUERY = load(Path(__file__).with_name("queries.sql"))["rollup_state"]


async def collect(connection: Connection) -> list[Metric]:
    """Pending batches always; the marts' age once dbt has built them."""
    row = await connection.fetchrow(QUERY)
    assert row is not None
    families: list[Metric] = [
        GaugeMetricFamily(
            "hubscope_rollup_pending_batches",
            "Commits that are not folded into the rollups yet.",
            value=row["pending_batches"],
        )
    ]
    if row["mart_age_seconds"] is not None:
        families.append(
            GaugeMetricFamily(
                "hubscope_mart_age_seconds",
                "Seconds since dbt last built the marts well.",
                value=row["mart_age_seconds"],
            )
        )
    return families
