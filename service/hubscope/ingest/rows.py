"""From an event to the rows it becomes: its columns for COPY, and what it adds to the rollups."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import structs

from hubscope.ingest.envelope import extra, json_object
from hubscope.ingest.fingerprint import fingerprint
from hubscope.model import AuditEvent, ChainEvent, ChainStepEvent, Event, HubEvent, ServerEvent, ToolCall

Key = tuple[str, UUID, datetime]
"""Identity of an event: tenant, event_id, time."""

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    # As the fields of a call are, so that a row is made of a call in one go.
    "tool_calls": ("tenant_id", *ToolCall.__struct_fields__, "error_fingerprint", "counted"),
    "server_events": (
        "tenant_id", "event_id", "time", "hub", "server", "source", "outcome", "state", "valid_until", "latency_ms",
        "transport", "tools", "resources", "prompts", "error_type", "error_message", "attrs",
    ),
    "hub_events": ("tenant_id", "event_id", "time", "hub", "type", "name", "payload"),
}  # fmt: skip
"""raw.<table> -> the columns that ingest fills, in the order of the rows below."""

_TYPE_OF: Final = {AuditEvent: "audit", ChainEvent: "chain", ChainStepEvent: "chain_step", HubEvent: "hub_event"}


class Record(msgspec.Struct, frozen=True, gc=False):
    """An event on its way into the store.

    Attributes:
        table: raw.<table> that it belongs to.
        columns: its values, in the order of COLUMNS[table].
        event: the event itself, for the rollups.
        counted: it is part of the rollups (one call, one count).
        settled: its names are admitted and it is known whether it counts; otherwise the writer asks the database first.
    """

    table: str
    columns: tuple[Any, ...]
    event: Event
    counted: bool = True
    settled: bool = True

    @property
    def tenant(self) -> str:
        """Whose event it is."""
        tenant: str = self.columns[0]
        return tenant

    @property
    def key(self) -> Key:
        """Its identity."""
        if self.table == "tool_calls":
            return self.columns[0], self.columns[2], self.columns[1]
        return self.columns[0], self.columns[1], self.columns[2]


def record(tenant: str, event_id: UUID, event: Event, counted: bool = True, settled: bool = True) -> Record:
    """Lay an event out as the row it becomes."""
    if isinstance(event, ToolCall):
        values = structs.astuple(event)
        last = json_object(event.attrs), fingerprint(event.error_message), counted
        columns: tuple[Any, ...] = (tenant, values[0], event_id, *values[2:-1], *last)
        return Record("tool_calls", columns, event, counted, settled)
    key = (tenant, event_id, event.time)
    free = json_object(extra(event))
    match event:
        case ServerEvent():
            table = "server_events"
            columns = (
                *key, event.hub, event.server, event.source, event.outcome, event.state, event.valid_until,
                event.latency_ms, event.transport, event.tools, event.resources, event.prompts, event.error_type,
                event.error_message, free,
            )  # fmt: skip
        case HubEvent() | AuditEvent():
            table = "hub_events"
            columns = (*key, event.hub, _TYPE_OF[type(event)], event.name, free)
        case ChainEvent() | ChainStepEvent():
            table = "hub_events"
            columns = (*key, event.hub, _TYPE_OF[type(event)], event.chain_id, _chain_payload(event, free))
    return Record(table, columns, event, counted, settled)


def _chain_payload(event: ChainEvent | ChainStepEvent, free: str | None) -> str:
    """Chains and steps reported by others keep their state beside what came with them."""
    about: dict[str, Any] = {"status": event.status, "payload": msgspec.Raw((free or "null").encode())}
    if isinstance(event, ChainStepEvent):
        about["step_index"] = event.step_index
    return msgspec.json.encode(about).decode()


def hour_of(time: datetime) -> datetime:
    """The start of the hour that a time (UTC) lies in."""
    return time.replace(minute=0, second=0, microsecond=0)


def deltas(
    records: Iterable[Record], edges: Sequence[float]
) -> dict[str, tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]]:
    """What newly stored tool calls that count add to the hourly rollups, by tenant.

    Args:
        records: only those that were really inserted.
        edges: the ends of the latency buckets in ms, from `rollup.latency_edges()`.

    Returns:
        tenant -> (values of rollup.tool_calls_delta[], values of rollup.tool_latency_delta[]).
    """
    calls: dict[str, dict[tuple[Any, ...], list[Any]]] = {}
    latencies: dict[str, dict[tuple[Any, ...], list[int]]] = {}
    for item in records:
        event = item.event
        if not isinstance(event, ToolCall) or not item.counted:
            continue
        tenant = item.key[0]
        time = event.time.astimezone(UTC)
        hour = hour_of(time)
        sums = calls.setdefault(tenant, {}).setdefault(
            (hour, event.hub, event.server, event.tool, event.transport, event.client), [0] * 11 + [time]
        )
        sums[0] += 1
        sums[_STATUS_AT[event.status]] += 1
        sums[9] += event.request_bytes or 0
        sums[10] += event.response_bytes or 0
        sums[11] = max(sums[11], time)
        if event.duration_ms is not None:
            us = round(event.duration_ms * 1000)
            sums[6] += 1
            sums[7] += us
            sums[8] = max(sums[8], us)
            bucket = bisect_left(edges, event.duration_ms)
            counted = latencies.setdefault(tenant, {}).setdefault(
                (hour, event.hub, event.server, event.tool, bucket), [0, 0]
            )
            counted[0] += 1
            counted[1] = max(counted[1], us)
    return {
        tenant: (
            [(*key, *sums) for key, sums in by_key.items()],
            [(*key, *counted) for key, counted in latencies.get(tenant, {}).items()],
        )
        for tenant, by_key in calls.items()
    }


def touched_hours(records: Iterable[Record]) -> set[tuple[str, datetime]]:
    """The tenants and hours (UTC) whose rollups newly stored rows change."""
    return {
        (item.key[0], hour_of(item.event.time.astimezone(UTC)))
        for item in records
        if item.counted and isinstance(item.event, ToolCall | ServerEvent)
    }


def check_deltas(records: Iterable[Record]) -> dict[str, list[tuple[Any, ...]]]:
    """What newly stored server events add to the hourly rollup of checks, by tenant.

    Returns:
        tenant -> values of rollup.server_checks_delta[].
    """
    checks: dict[str, dict[tuple[Any, ...], list[Any]]] = {}
    for item in records:
        event = item.event
        if not isinstance(event, ServerEvent):
            continue
        time = event.time.astimezone(UTC)
        hour = hour_of(time)
        sums = checks.setdefault(item.key[0], {}).setdefault(
            (hour, event.hub, event.server, event.source), [0] * 9 + [time]
        )
        sums[0] += 1
        sums[_STATE_AT[event.state]] += 1
        sums[9] = max(sums[9], time)
        if event.latency_ms is not None:
            us = round(event.latency_ms * 1000)
            sums[6] += 1
            sums[7] += us
            sums[8] = max(sums[8], us)
    return {tenant: [(*key, *sums) for key, sums in by_key.items()] for tenant, by_key in checks.items()}


_STATE_AT: Final = {"up": 1, "degraded": 2, "down": 3, "maintenance": 4, "unknown": 5}
_STATUS_AT: Final = {"ok": 1, "error": 2, "timeout": 3, "cancelled": 4, "denied": 5}
