"""hub_server_up: does each server answer?"""

from __future__ import annotations

from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from hubscope.store import Connection, load

QUERY = load(Path(__file__).with_name("queries.sql"))["server_states"]


async def collect(connection: Connection) -> list[Metric]:
    """1 for up and degraded, 0 for down; nothing for unknown and maintenance, which are no outage."""
    family = GaugeMetricFamily(
        "hub_server_up", "1 when the server answers, 0 when it is down.", labels=("tenant", "server")
    )
    for row in await connection.fetch(QUERY):
        if row["state"] in ("up", "degraded", "down"):
            family.add_metric((row["tenant_id"], row["server"]), row["state"] != "down")
    return [family]
