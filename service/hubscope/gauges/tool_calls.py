"""hub_tool_calls_total: how often was each tool called, and how did it end?"""

from __future__ import annotations

from pathlib import Path

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from hubscope.model import CALL_STATUSES
from hubscope.store import Connection, load

QUERY = load(Path(__file__).with_name("queries.sql"))["tool_calls"]


async def collect(connection: Connection) -> list[Metric]:
    """A counter per tenant, server, tool and status; all statuses from the start, so that increase() sees the first."""
    family = CounterMetricFamily(
        "hub_tool_calls", "Tool calls since recording began.", labels=("tenant", "server", "tool", "status")
    )
    for row in await connection.fetch(QUERY):
        for status in CALL_STATUSES:
            family.add_metric((row["tenant_id"], row["server"], row["tool"], status), row[status])
    return [family]
