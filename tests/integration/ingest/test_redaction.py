"""No secret that is recognised reaches the store, by whichever type of event it comes."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from hubscope.store import Connection
from tests.events import server_event, tool_call
from tests.unit.ingest.test_scrub import FREE, SECRET

pytestmark = [pytest.mark.bridge, pytest.mark.integration]


def others() -> list[dict[str, Any]]:
    time = tool_call()["time"]
    return [
        {"type": "hub_event", "time": time, "name": f"password={SECRET}", "payload": FREE},
        {"type": "audit", "time": time, "name": "login", "payload": FREE},
        {"type": "chain", "time": time, "chain_id": "c1", "status": "running", "payload": FREE},
        {"type": "chain_step", "time": time, "chain_id": "c1", "step_index": 0, "status": "ok", "payload": FREE},
    ]


async def everything(admin: Connection) -> str:
    """All that is stored, as text."""
    texts = []
    for table in ("raw.tool_calls", "raw.server_events", "raw.hub_events"):
        texts += [row[0] for row in await admin.fetch(f"SELECT row_to_json(one)::text FROM {table} AS one")]
    return "\n".join(texts)


async def test_no_secret_is_stored_whatever_the_type(client: httpx2.AsyncClient, admin: Connection) -> None:
    events = [
        tool_call(attrs=FREE, status="error", error_message=f"login with password={SECRET} failed"),
        server_event(attrs=FREE, error_message=f"Authorization: Bearer {SECRET}"),
        *others(),
    ]
    receipt = (await client.post("/v1/events", json=events)).json()
    assert receipt == {"accepted": 6, "duplicates": 0, "rejected": []}
    stored = await everything(admin)
    assert SECRET not in stored
    assert stored.count("[redacted]") >= 6 * 3
    call = json.loads(stored.splitlines()[0])
    assert call["error_message"] == "login with password=[redacted] failed"
    assert call["attrs"]["url"] == "https://u:[redacted]@h/x"


async def test_errors_of_one_pattern_share_a_fingerprint(client: httpx2.AsyncClient, admin: Connection) -> None:
    messages = ["timeout after 30 s on /srv/a", "Timeout after 5 s on /srv/b/c", "no such file", None]
    events = [tool_call(status="error", error_message=message, tool=str(n)) for n, message in enumerate(messages)]
    await client.post("/v1/events", json=events)
    rows = await admin.fetch("SELECT error_fingerprint FROM raw.tool_calls ORDER BY tool")
    one, same, other, none = (row["error_fingerprint"] for row in rows)
    assert one == same != other
    assert none is None
