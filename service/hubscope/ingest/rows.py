"""From an event to the rows it becomes: its columns for COPY, and what of it the rollups are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
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

PENDING_CALL: Final = (
    "time", "hub", "server", "tool", "status", "duration_ms", "client", "transport", "request_bytes", "response_bytes",
)  # fmt: skip
"""What of a call the rollups are made of."""
PENDING_CHECK: Final = ("time", "hub", "server", "source", "state", "latency_ms")
"""What of a check the rollups are made of."""
_LISTED: Final[dict[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]]] = {
    table: itemgetter(*(COLUMNS[table].index(name) for name in names))
    for table, names in (("tool_calls", PENDING_CALL), ("server_events", PENDING_CHECK))
}
HOUR_S: Final = 3600

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
    return {
        (item.key[0], hour_of(item.event.time.astimezone(UTC)))
        for item in records
        if item.counted and isinstance(item.event, ToolCall | ServerEvent)
    }


def pending(records: Iterable[Record]) -> list[tuple[Any, ...]]:
    """What newly stored calls and checks that count add to the rollups: they themselves, column by column, by tenant.

    Returns:
        tenant, calls (hours, then PENDING_CALL), checks (hours, then PENDING_CHECK): the values of a row of
        rollup.pending without its batch_id. Hours and times are sequences, the rest array literals. In the order of
        tenants.
    """
    calls: dict[str, list[tuple[Any, ...]]] = {}
    checks: dict[str, list[tuple[Any, ...]]] = {}
    for one in records:
        if one.counted and one.table in _LISTED:
            listed = calls if one.table == "tool_calls" else checks
            listed.setdefault(one.columns[0], []).append(_LISTED[one.table](one.columns))
    return [
        (tenant, *_by_column(calls.get(tenant), PENDING_CALL), *_by_column(checks.get(tenant), PENDING_CHECK))
        for tenant in sorted(calls.keys() | checks.keys())
    ]


def _by_column(rows: list[tuple[Any, ...]] | None, names: tuple[str, ...]) -> tuple[Sequence[Any] | str, ...]:
    """The hours of rows that begin with their time, and the rows turned into columns."""
    if rows is None:
        return (), (), *["{}"] * (len(names) - 1)
    times, *columns = zip(*rows, strict=True)
    hours = {time.timestamp() // HOUR_S for time in times}
    return [datetime.fromtimestamp(hour * HOUR_S, UTC) for hour in sorted(hours)], times, *map(array_literal, columns)


def array_literal(values: Sequence[str | float | None]) -> str:
    """Texts or numbers as PostgreSQL writes an array: a tenth of the time that the driver takes to encode one.

    JSON is the same but for its brackets, as long as nothing in it is escaped.
    """
    written = msgspec.json.encode(values).decode()
    if "\\" in written:
        return "{" + ",".join("NULL" if value is None else _quoted(str(value)) for value in values) + "}"
    return "{" + written[1:-1] + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
