"""The client for hubs against the service itself."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx2
import pytest

import hubscope
from hubscope.access import Scope
from hubscope.client import Client, Totals, check_integration_health
from hubscope.model import HubEvent, ServerEvent, ToolCall
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.conftest import held
from tests.integration.entrypoints.test_admission import reached
from tests.keys import PEPPER, make_key

pytestmark = [pytest.mark.integration, pytest.mark.bridge]


async def test_hubscope_takes_what_the_client_sends(client: httpx2.AsyncClient, admin: Connection) -> None:
    at = datetime.now(UTC)
    async with Client("http://127.0.0.1:3401", http=client) as hub:
        recorded = hub.record(ToolCall(time=at, server="fs", tool="read", status="ok", duration_ms=1.0))
        hub.record(ServerEvent(time=at, server="fs", source="connection", outcome="connected", state="up"))
        hub.record(HubEvent(time=at, name="x"))
        with hub.call("fs", "write", client="tester"):
            pass
    assert hub.totals == Totals(recorded=4, acknowledged=4)
    rows = await admin.fetch("SELECT event_id, tool, client FROM raw.tool_calls ORDER BY tool")
    assert [(row["tool"], row["client"]) for row in rows] == [("read", ""), ("write", "tester")]
    assert rows[0]["event_id"] == recorded


async def test_a_service_that_takes_and_answers_is_healthy(client: httpx2.AsyncClient) -> None:
    health = await check_integration_health("http://127.0.0.1:3401", http=client)
    assert (health.healthy, health.ready, health.reasons) == (True, True, ())
    assert health.version == hubscope.__version__


async def test_what_is_wrong_with_the_service_is_among_the_reasons(
    client: httpx2.AsyncClient, admin: Connection
) -> None:
    await admin.execute(
        "INSERT INTO ops.job_runs (job, slot, started_at, finished_at, ok, detail)"
        " VALUES ('build_marts', now(), now(), now(), false, '{}')"
    )
    health = await check_integration_health("http://127.0.0.1:3401", http=client)
    assert (health.healthy, health.ready) == (False, True)
    assert any("build_marts" in reason for reason in health.reasons)


async def test_a_key_that_may_only_ingest_is_told_what_it_may_know(settings: Settings, database: str) -> None:
    key = (await make_key(database, Scope.INGEST))[1]
    keyed = settings.model_copy(update={"key_pepper": PEPPER})
    async with held(reached(keyed, database)) as http:
        health = await check_integration_health("http://127.0.0.1:3401", api_key=key, http=http)
        assert (health.healthy, health.ready, health.version) == (True, True, None)
        health = await check_integration_health("http://127.0.0.1:3401", http=http)
        assert (health.healthy, health.ready) == (False, False)
        assert health.reasons[0].startswith("hubscope answers: ")
