"""From an event to the row it becomes: its columns for COPY, and the hours of the rollups that it changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
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

_TIME_OF: Final = {table: COLUMNS[table].index("time") for table in ("tool_calls", "server_events")}
"""Of which tables rows are in the rollups, and where their time stands."""
HOURS_COMPARED: Final = 2

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


def touched_hours(records: Iterable[Record]) -> set[tuple[str, datetime]]:
    """The tenants and hours (UTC) whose rollups newly stored rows change."""
    return {(tenant, hour) for tenant, calls, checks in pending(records) for hour in (*calls, *checks)}


def pending(records: Iterable[Record]) -> list[tuple[str, list[datetime], list[datetime]]]:
    """Which hours of the rollups newly stored calls and checks that count change.

    Returns:
        tenant, hours (UTC) of calls, hours of checks, each once: the values of a row of rollup.pending. In the order of
        tenants.
    """
    times: defaultdict[tuple[str, str], list[datetime]] = defaultdict(list)
    for one in records:
        if one.counted and (place := _TIME_OF.get(one.table)) is not None:
            columns = one.columns
            times[one.table, columns[0]].append(columns[place])
    return [
        (tenant, _hours(times.get(("tool_calls", tenant))), _hours(times.get(("server_events", tenant))))
        for tenant in sorted({tenant for _, tenant in times})
    ]


def _hours(times: list[datetime] | None) -> list[datetime]:
    """The hours (UTC) that times lie in, in order.

    Nearly all events are of the hour of the newest one, or of the one before it: to compare times costs a tenth of what
    it costs to round them down, so only what is left is rounded one by one.
    """
    if times is None:
        return []
    found: set[datetime] = set()
    for _ in range(HOURS_COMPARED):
        newest = hour_of(max(times).astimezone(UTC))
        found.add(newest)
        times = [time for time in times if time < newest]
        if not times:
            break
    return sorted(found | {hour_of(time.astimezone(UTC)) for time in times})
