"""The typed records of the wire and the store: what a hub reports, as it arrives and as it is kept.

One struct per event type of envelope version 1. Decoding is strict: an unknown field is an error that names it, so a
misspelt field is never dropped in silence; what has no field of its own belongs into `attrs`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Raw, Struct

Name = Annotated[str, Meta(min_length=1, max_length=200)]
"""A server, tool or event name: 1 to 200 characters."""
Label = Annotated[str, Meta(max_length=200)]
"""An optional short text; empty means unknown."""
Text = Annotated[str, Meta(max_length=8_000)]
"""A longer text such as an error message."""
Zoned = Annotated[datetime, Meta(tz=True)]
"""A time with a zone, kept to the microsecond."""
Duration = Annotated[float, Meta(ge=0, le=1e9)]
"""Milliseconds, zero to 1e9 (eleven days): a rollup adds millions of them up in 64 bits."""
Size = Annotated[int, Meta(ge=0, le=2**40)]
"""Bytes, zero to 2^40 (a tebibyte): a rollup adds millions of them up in 64 bits."""
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]

CallStatus = Literal["ok", "error", "timeout", "cancelled", "denied"]
CALL_STATUSES: Final[tuple[CallStatus, ...]] = ("ok", "error", "timeout", "cancelled", "denied")
Transport = Literal["", "stdio", "http", "sse"]
Vantage = Literal["hub", "server", "wrapper", "own", "client"]
"""Who saw the call: the hub that made it, the server's own span, a wrapper around the server, hubscope as the caller,
another client's span."""
ServerState = Literal["up", "degraded", "down", "maintenance", "unknown"]


def _no_value() -> Raw:
    return Raw(b"null")


class _Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """What every event has.

    Attributes:
        event_id: identity together with tenant and time; a retry sends the same. Derived from the event's own bytes
            when absent, so that the same bytes sent twice are still one event.
        time: when it happened, with a zone. Required.
        hub: which hub reports; empty means the tenant's only one.
    """

    time: Zoned
    event_id: UUID | None = None
    hub: Label = ""


class ToolCall(_Event, tag="tool_call", frozen=True, kw_only=True):
    """One tool call. A result with isError is an error, never a success."""

    server: Name
    tool: Name
    status: CallStatus
    duration_ms: Duration | None = None
    error_type: Label | None = None
    error_message: Text | None = None
    session_id: Label | None = None
    client: Label = ""
    transport: Transport = ""
    trace_id: Label | None = None
    span_id: Label | None = None
    chain_id: Label | None = None
    step_index: Count | None = None
    request_bytes: Size | None = None
    response_bytes: Size | None = None
    vantage: Vantage = "hub"
    attrs: Raw = msgspec.field(default_factory=_no_value)


class ServerEvent(_Event, tag="server_event", frozen=True, kw_only=True):
    """One connection change or probe of a server."""

    server: Name
    source: Literal["connection", "probe"]
    outcome: Name
    state: ServerState
    valid_until: Zoned | None = None
    latency_ms: Duration | None = None
    transport: Transport = ""
    tools: Count | None = None
    resources: Count | None = None
    prompts: Count | None = None
    error_type: Label | None = None
    error_message: Text | None = None
    attrs: Raw = msgspec.field(default_factory=_no_value)


class HubEvent(_Event, tag="hub_event", frozen=True, kw_only=True):
    """Anything else that a hub tells."""

    name: Name
    payload: Raw = msgspec.field(default_factory=_no_value)


class AuditEvent(_Event, tag="audit", frozen=True, kw_only=True):
    """One security event."""

    name: Name
    payload: Raw = msgspec.field(default_factory=_no_value)


class ChainEvent(_Event, tag="chain", frozen=True, kw_only=True):
    """A change of one tool chain's state, reported by a foreign hub."""

    chain_id: Name
    status: Name
    payload: Raw = msgspec.field(default_factory=_no_value)


class ChainStepEvent(_Event, tag="chain_step", frozen=True, kw_only=True):
    """A change of one chain step's state, reported by a foreign hub."""

    chain_id: Name
    step_index: Count
    status: Name
    payload: Raw = msgspec.field(default_factory=_no_value)


Event = ToolCall | ServerEvent | HubEvent | AuditEvent | ChainEvent | ChainStepEvent
OtherEvent = HubEvent | AuditEvent | ChainEvent | ChainStepEvent
EVENT_TYPES: Final[dict[str, type[Event]]] = {
    "tool_call": ToolCall,
    "server_event": ServerEvent,
    "audit": AuditEvent,
    "chain": ChainEvent,
    "chain_step": ChainStepEvent,
    "hub_event": HubEvent,
}


RejectionCode = Literal[
    "invalid_json",
    "not_an_object",
    "unknown_type",
    "missing_field",
    "unknown_field",
    "invalid_field",
    "invalid_duration",
    "too_long",
    "attrs_too_large",
    "attrs_too_deep",
    "too_old",
    "in_future",
    "unstorable",
]


class Rejected(Struct, frozen=True):
    """One event that was not taken.

    Attributes:
        index: its place in the post, from 0.
        event_id: as sent, when it could be read.
        code: a word to switch on (docs/reference/events lists them).
        detail: one sentence for a person, naming the field.
    """

    index: int
    event_id: str | None
    code: RejectionCode
    detail: str


class Receipt(Struct, frozen=True):
    """The answer to a post: what is committed, what was there already, what was not taken. Counts of events."""

    accepted: int
    duplicates: int
    rejected: list[Rejected] = msgspec.field(default_factory=list)
