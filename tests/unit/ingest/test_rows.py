"""Events as rows, and what of them the rollups are made of."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hubscope.ingest.rows import COLUMNS, Record, pending, record
from hubscope.model import (
    CALL_STATUSES,
    AuditEvent,
    ChainEvent,
    ChainStepEvent,
    Event,
    HubEvent,
    ServerEvent,
    ServerState,
    ToolCall,
)

pytestmark = [pytest.mark.bridge, pytest.mark.realtime]

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ID = UUID("0192f3a0-0000-7000-8000-000000000001")


def call(**changes: Any) -> ToolCall:
    fields: dict[str, Any] = {"time": NOON, "server": "s", "tool": "t", "status": "ok"}
    return ToolCall(**fields | changes)


def of(*events: Event, tenant: str = "default") -> list[Record]:
    return [record(tenant, uuid4(), event) for event in events]


def as_row(event: Event) -> dict[str, Any]:
    row = record("default", ID, event)
    return dict(zip(COLUMNS[row.table], row.columns, strict=True)) | {"table": row.table}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            call(duration_ms=1.5, client="c", request_bytes=1, response_bytes=2, attrs=Raw(b'{"a": 1}')),
            {
                "table": "tool_calls",
                "tenant_id": "default",
                "event_id": ID,
                "time": NOON,
                "server": "s",
                "tool": "t",
                "status": "ok",
                "duration_ms": 1.5,
                "client": "c",
                "request_bytes": 1,
                "response_bytes": 2,
                "attrs": '{"a": 1}',
            },
        ),
        (call(), {"duration_ms": None, "hub": "", "client": "", "transport": "", "attrs": None, "step_index": None}),
        (
            ServerEvent(time=NOON, server="s", source="probe", outcome="failed", state="down", latency_ms=3, tools=4),
            {"table": "server_events", "source": "probe", "outcome": "failed", "state": "down", "latency_ms": 3}
            | {"tools": 4, "prompts": None, "valid_until": None, "attrs": None},
        ),
        (HubEvent(time=NOON, name="n"), {"table": "hub_events", "type": "hub_event", "name": "n", "payload": None}),
        (AuditEvent(time=NOON, name="n", payload=Raw(b"{}")), {"type": "audit", "name": "n", "payload": "{}"}),
    ],
)
def test_an_event_becomes_the_row_of_its_table(event: Event, expected: dict[str, Any]) -> None:
    row = as_row(event)
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("event", "kind", "payload"),
    [
        (ChainEvent(time=NOON, chain_id="c", status="done"), "chain", {"status": "done", "payload": None}),
        (
            ChainStepEvent(time=NOON, chain_id="c", status="done", step_index=3, payload=Raw(b"null")),
            "chain_step",
            {"status": "done", "payload": None, "step_index": 3},
        ),
        (
            ChainStepEvent(time=NOON, chain_id="c", status="done", step_index=0, payload=Raw('{"é": [1]}'.encode())),
            "chain_step",
            {"status": "done", "payload": {"é": [1]}, "step_index": 0},
        ),
    ],
)
def test_the_state_of_a_foreign_chain_is_kept_beside_its_payload(
    event: Event, kind: str, payload: dict[str, Any]
) -> None:
    row = as_row(event)
    assert (row["table"], row["type"], row["name"]) == ("hub_events", kind, "c")
    assert json.loads(row["payload"]) == payload


def test_only_calls_and_checks_that_count_are_pending() -> None:
    assert pending(of(HubEvent(time=NOON, name="n"), AuditEvent(time=NOON, name="n"))) == []
    assert pending([record("default", ID, call(), counted=False)]) == []


def test_hours_are_those_of_utc() -> None:
    half_past = datetime(2026, 11, 22, 0, 15, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert pending(of(call(time=half_past))) == [("default", [datetime(2026, 11, 21, 18, tzinfo=UTC)], [])]


NAMES = st.sampled_from(["", "a", "b"])
TIMES = st.builds(
    lambda after, zone: (NOON + after).astimezone(zone),
    st.timedeltas(-timedelta(hours=3), timedelta(hours=14))
    | st.sampled_from([timedelta(0), timedelta(microseconds=-1), timedelta(hours=12)]),
    st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=3))]),
)
CALLS = st.builds(
    ToolCall,
    time=TIMES,
    server=st.sampled_from(["s", "t"]),
    tool=st.sampled_from(["s", "t"]),
    status=st.sampled_from(CALL_STATUSES),
    hub=NAMES,
    client=NAMES,
    transport=st.sampled_from(["", "stdio", "http"]),
    duration_ms=st.none() | st.floats(0, 1e7),
    request_bytes=st.none() | st.integers(0, 2**40),
    response_bytes=st.none() | st.integers(0, 2**40),
)
STATES: tuple[ServerState, ...] = ("up", "degraded", "down", "maintenance", "unknown")
CHECKS = st.builds(
    ServerEvent,
    time=TIMES,
    server=st.sampled_from(["s", "t"]),
    hub=NAMES,
    source=st.sampled_from(["probe", "connection"]),
    outcome=st.just("seen"),
    state=st.sampled_from(STATES),
    latency_ms=st.none() | st.floats(0, 1e7),
)


RECORDS = st.lists(
    st.builds(record, st.sampled_from(["t1", "t2"]), st.uuids(), CALLS | CHECKS, st.booleans()), max_size=30
)


@given(RECORDS)
def test_what_is_pending_are_the_hours_of_the_events_that_count(records: list[Record]) -> None:
    rows = pending(records)
    assert [row[0] for row in rows] == sorted({one.tenant for one in records if one.counted})
    for tenant, *hours in rows:
        for kind, named in zip((ToolCall, ServerEvent), hours, strict=True):
            mine = [one.event for one in records if one.counted and one.tenant == tenant and type(one.event) is kind]
            seconds = {event.time.timestamp() for event in mine}
            assert named == sorted({datetime.fromtimestamp(one - one % 3600, UTC) for one in seconds})
