"""Events as rows, and what calls add to the rollups: the same as counting them one by one."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hubscope.ingest.rows import COLUMNS, Record, check_deltas, deltas, record
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

EDGES = [0.1 * 2 ** (step / 8) for step in range(0, 181)]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ID = UUID("0192f3a0-0000-7000-8000-000000000001")
Deltas = dict[str, tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]]


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


def test_only_tool_calls_add_to_the_rollups() -> None:
    server_event = ServerEvent(time=NOON, server="s", source="probe", outcome="ok", state="up", latency_ms=3)
    assert deltas(of(server_event, HubEvent(time=NOON, name="n")), EDGES) == {}


def test_only_server_events_add_to_the_checks() -> None:
    assert check_deltas(of(call(), HubEvent(time=NOON, name="n"))) == {}


def test_a_call_without_a_duration_is_a_call_but_no_latency() -> None:
    [calls], latencies = deltas(of(call()), EDGES)["default"]
    assert calls == (NOON, "", "s", "t", "", "", 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, NOON)
    assert latencies == []


@pytest.mark.parametrize(
    ("duration_ms", "bucket", "us"),
    [
        (0, 0, 0),
        (0.1, 0, 100),
        (0.100001, 1, 100),
        (0.2, 8, 200),
        (0.2000001, 9, 200),
        (12.8, 56, 12_800),
        (1e12, 181, 10**15),
        (EDGES[-1], 180, 593_164_160),
    ],
)
def test_a_duration_falls_into_the_bucket_whose_end_it_does_not_exceed(
    duration_ms: float, bucket: int, us: int
) -> None:
    [calls], [latency] = deltas(of(call(duration_ms=duration_ms)), EDGES)["default"]
    assert latency == (NOON, "", "s", "t", bucket, 1, us)
    assert calls[12:15] == (1, us, us)


@pytest.mark.parametrize("status", CALL_STATUSES)
def test_each_status_is_counted_in_its_own_column(status: str) -> None:
    [calls], _ = deltas(of(call(status=status)), EDGES)["default"]
    assert calls[6:12] == (1, *(int(status == one) for one in CALL_STATUSES))


def test_hours_are_those_of_utc() -> None:
    half_past = datetime(2026, 11, 22, 0, 15, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    [calls], _ = deltas(of(call(time=half_past)), EDGES)["default"]
    assert calls[0] == datetime(2026, 11, 21, 18, tzinfo=UTC)
    assert calls[-1] == half_past
    assert calls[0].utcoffset() == calls[-1].utcoffset() == timedelta(0)


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
    duration_ms=st.none() | st.floats(0, 1e7) | st.sampled_from(EDGES),
    request_bytes=st.none() | st.integers(0, 2**40),
    response_bytes=st.none() | st.integers(0, 2**40),
)
RECORDS = st.lists(st.builds(record, st.sampled_from(["t1", "t2"]), st.uuids(), CALLS), max_size=30)


def recount(records: Sequence[Record]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The hours of tool calls and of their latencies, each figure by a count of its own."""
    by_hour: dict[Any, list[ToolCall]] = defaultdict(list)
    by_bucket: dict[Any, list[ToolCall]] = defaultdict(list)
    for row in records:
        one = row.event
        assert isinstance(one, ToolCall)
        seconds = one.time.timestamp()
        hour = datetime.fromtimestamp(seconds - seconds % 3600, UTC)
        by_hour[row.tenant, hour, one.hub, one.server, one.tool, one.transport, one.client].append(one)
        if one.duration_ms is not None:
            bucket = next((step for step, edge in enumerate(EDGES) if one.duration_ms <= edge), len(EDGES))
            by_bucket[row.tenant, hour, one.hub, one.server, one.tool, bucket].append(one)

    def us(group: list[ToolCall]) -> list[int]:
        return [round(one.duration_ms * 1000) for one in group if one.duration_ms is not None]

    calls = {
        key: (
            len(group),
            *(sum(one.status == status for one in group) for status in CALL_STATUSES),
            len(us(group)),
            sum(us(group)),
            max(us(group), default=0),
            sum(one.request_bytes or 0 for one in group),
            sum(one.response_bytes or 0 for one in group),
            max(one.time for one in group),
        )
        for key, group in by_hour.items()
    }
    return calls, {key: (len(group), max(us(group))) for key, group in by_bucket.items()}


def added_up(parts: Sequence[Deltas]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What the rollup views make of deltas: counts and sums add up, the rest is the largest."""
    calls: dict[Any, list[Any]] = {}
    latencies: dict[Any, list[int]] = {}
    for part in parts:
        for tenant, (call_rows, latency_rows) in part.items():
            for row in call_rows:
                figures = calls.setdefault((tenant, *row[:6]), [0] * 11 + [row[17]])
                figures[:] = [
                    max(old, new) if at in (8, 11) else old + new
                    for at, (old, new) in enumerate(zip(figures, row[6:], strict=True))
                ]
            for row in latency_rows:
                counted = latencies.setdefault((tenant, *row[:5]), [0, 0])
                counted[:] = [counted[0] + row[5], max(counted[1], row[6])]
    return {k: tuple(v) for k, v in calls.items()}, {k: tuple(v) for k, v in latencies.items()}


@given(RECORDS)
def test_the_deltas_of_a_batch_are_a_recount_of_it(records: list[Record]) -> None:
    added = deltas(records, EDGES)
    assert added_up([added]) == recount(records)
    for call_rows, latency_rows in added.values():
        assert len({row[:6] for row in call_rows}) == len(call_rows)
        assert len({row[:5] for row in latency_rows}) == len(latency_rows)


@given(records=RECORDS, cuts=st.lists(st.integers(0, 30), max_size=5), shuffled=st.randoms())
def test_any_order_and_any_split_into_batches_add_up_to_the_same(
    records: list[Record], cuts: list[int], shuffled: Any
) -> None:
    mixed = list(records)
    shuffled.shuffle(mixed)
    ends = [0, *sorted(min(cut, len(mixed)) for cut in cuts), len(mixed)]
    batches = [mixed[start:end] for start, end in itertools.pairwise(ends)]
    assert added_up([deltas(batch, EDGES) for batch in batches]) == added_up([deltas(records, EDGES)])


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


@given(st.lists(st.builds(record, st.sampled_from(["t1", "t2"]), st.uuids(), CHECKS), max_size=30))
def test_the_deltas_of_checks_are_a_recount_of_them(records: list[Record]) -> None:
    groups: dict[Any, list[ServerEvent]] = defaultdict(list)
    for row in records:
        assert isinstance(row.event, ServerEvent)
        seconds = row.event.time.timestamp()
        hour = datetime.fromtimestamp(seconds - seconds % 3600, UTC)
        groups[row.tenant, hour, row.event.hub, row.event.server, row.event.source].append(row.event)
    expected = {}
    for key, group in groups.items():
        us = [round(one.latency_ms * 1000) for one in group if one.latency_ms is not None]
        states = [sum(one.state == state for one in group) for state in STATES]
        latest = max(one.time for one in group)
        expected[key] = (len(group), *states, len(us), sum(us), max(us, default=0), latest)
    added = [(tenant, *row) for tenant, rows in check_deltas(records).items() for row in rows]
    assert {row[:5]: row[5:] for row in added} == expected
    assert len(added) == len(expected)
