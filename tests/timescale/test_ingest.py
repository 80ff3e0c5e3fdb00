"""Ingest on the timescale engine: what does not count is in no rollup, and history is rolled up as all else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hubscope.settings import Settings
from hubscope.store import Connection
from hubscope.store.aggregates import refresh_forward, settle_late
from tests.events import tool_call
from tests.integration.ingest.test_history import Importer, lines
from tests.integration.store.test_rollups import Store
from tests.timescale.test_engine import owner, store, timescale_settings

__all__ = ["owner", "store", "timescale_settings"]
pytestmark = [pytest.mark.timescale, pytest.mark.store]


async def test_what_does_not_count_is_in_no_rollup(store: Store, owner: Connection) -> None:
    recent, late = datetime.now(UTC), datetime.now(UTC) - timedelta(days=2)
    calls = [
        tool_call(vantage=vantage, time=time.isoformat())
        for time in (recent, late)
        for vantage in ("server", "hub", "client", "server")
    ]
    receipt = await store.post("default", *calls)
    assert receipt.accepted == 8
    assert await owner.fetchval("SELECT count(*) FROM raw.tool_calls") == 8
    for relation in ("tool_calls_hourly", "tool_latency_hourly", "tool_calls_daily", "tool_latency_daily"):
        assert await owner.fetchval(f"SELECT sum(calls) FROM rollup.{relation}") == 4, relation
    await store.check("default")


async def test_history_is_rolled_up(
    store: Store, owner: Connection, timescale_settings: Settings, timescale_database: str, tmp_path: Path
) -> None:
    await store.post("default", tool_call())
    await refresh_forward(owner)
    path = tmp_path / "calls.ndjson"
    path.write_bytes(b"\n".join(lines(60, days=40)))
    done = await Importer(timescale_settings, timescale_database).run(path)
    assert (done.accepted, done.rejected) == (60, 0)
    await store.check("default")
    assert await settle_late(owner) > 0
    await refresh_forward(owner)
    await store.check("default")
    assert await owner.fetchval("SELECT sum(calls) FROM rollup.tool_calls_daily") == 49
