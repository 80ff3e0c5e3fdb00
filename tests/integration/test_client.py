"""The client for hubs against the service itself."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx2
import pytest

from hubscope.client import Client, Totals
from hubscope.model import HubEvent, ServerEvent, ToolCall
from hubscope.store import Connection

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
