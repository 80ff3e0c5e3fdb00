"""Gauges: what the database says, the same from every replica. One file per question: rows -> metric family.

A gauge that fails costs only itself; the exporter reports on its own scrape (hubscope_gauge_up, _duration_seconds).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hubscope.errors import DatabaseAway
from hubscope.gauges import jobs, rollup_state, server_up, tool_calls
from hubscope.instruments import Instruments
from hubscope.settings import Settings
from hubscope.store import Connection, Pool, borrowed

log = structlog.get_logger("hubscope.metrics")

Gauge = Callable[[Connection], Awaitable[list[Metric]]]
GAUGES: Final[dict[str, Gauge]] = {
    "tool_calls": tool_calls.collect,
    "server_up": server_up.collect,
    "rollup_state": rollup_state.collect,
    "jobs": jobs.collect,
}


class _Fresh(Collector):
    """Families made for one scrape."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def exposition(pool: Pool, settings: Settings, instruments: Instruments) -> bytes:
    """The text of /metrics: this process's instruments, then what the database says."""
    families: list[Metric] = []
    for name, collect in GAUGES.items():
        started = time.perf_counter()
        try:
            async with borrowed(pool, settings) as connection:
                families += await collect(connection)
            instruments.collector_up.labels(name).set(1)
        except DatabaseAway:
            instruments.collector_up.labels(name).set(0)
        except Exception:  # one gauge's fault must not take the others off the page
            log.exception("gauge failed", gauge=name)
            instruments.collector_up.labels(name).set(0)
        instruments.collector_seconds.labels(name).set(time.perf_counter() - started)
    registry = CollectorRegistry()
    registry.register(_Fresh(families))
    return generate_latest(instruments.registry) + generate_latest(registry)
