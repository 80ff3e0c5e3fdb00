"""Fixtures: a store with a month of old events, and settings under which most of them are past their days."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from hubscope.access import LOCAL
from hubscope.app import App, opened
from hubscope.settings import Settings
from hubscope.worker import Worker
from hubscope.worker import opened as worker_opened
from tests.events import server_event, tool_call

ROLE_PREFIX: Final = "hubscope_test"
AGES: Final = (0, 1, 2, 4, 6, 12, 30)
"""Days ago of the events below."""
KEPT: Final = {"raw_days": 3, "hourly_latency_days": 5, "hourly_days": 10, "daily_days": 20}
NOON: Final = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def wide(database: str) -> Settings:
    """Settings that take events of the last two months."""
    return Settings.load(
        database_url=database, role_prefix=ROLE_PREFIX, max_event_age_days=60, retention_hourly_latency_days=61
    )


@pytest.fixture
def narrow(database: str) -> Settings:
    """Settings that keep little."""
    kept = {f"retention_{name}": days for name, days in KEPT.items()}
    return Settings.load(database_url=database, role_prefix=ROLE_PREFIX, max_event_age_days=2, **kept)


@pytest.fixture
async def aged(database: str, wide: Settings) -> AsyncIterator[App]:
    """A store with a call and a check of each age, at the start of its day, and its own service."""
    async with opened(wide, database) as app:
        for age in AGES:
            time = (NOON - timedelta(days=age)).isoformat()
            events = [tool_call(time=time), tool_call(time=time, status="error"), server_event(time=time)]
            receipt = await app.ingest.post(LOCAL, json.dumps(events).encode(), "application/json")
            assert receipt.accepted == 3
        yield app


@pytest.fixture
async def narrow_worker(database: str, narrow: Settings) -> AsyncIterator[Worker]:
    async with worker_opened(narrow, database) as opened_worker:
        yield opened_worker
