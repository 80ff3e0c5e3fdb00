"""What of newly stored events goes to the stream of live updates. Calls never do: there are too many of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from hubscope.ingest.names import OTHER
from hubscope.ingest.rows import Record
from hubscope.model import AuditEvent, ChainEvent, ChainStepEvent, HubEvent, ServerEvent

HUB_HEALTH: Final = frozenset({"hub_attached", "hub_away", "hub_back", "hub_detached", "hub_restarted", "hub_state"})
"""Hub events that tell how a hub is."""
METADATA_ENDS: Final = ("_changed", "_updated")
"""How names of hub events end that tell of what servers offer. All other hub events are not told."""

Row = tuple[Any, ...]
"""tenant, topic, name, subject, server, time, payload (JSON text), hub, state: the parameters of `tell_reported`."""


def news(records: Sequence[Record]) -> list[Row]:
    """The rows to tell, in the order of the records. Whether a state is a new one, the database says."""
    rows: list[Row] = []
    states: dict[tuple[str, str, str], tuple[Any, str]] = {}
    for record in records:
        event = record.event
        if isinstance(event, ServerEvent):
            key = (record.tenant, event.hub, event.server)
            at, state = states.get(key, (event.time, ""))
            if event.server == OTHER or (state == event.state and at <= event.time):
                continue  # as the one before says
            states[key] = (event.time, event.state)
            rows.append(_server(record.tenant, event))
        elif not isinstance(event, HubEvent | AuditEvent | ChainEvent | ChainStepEvent):
            continue
        elif (topic := _topic(event)) is not None:
            rows.append(_other(record, topic))
    return rows


def _topic(event: HubEvent | AuditEvent | ChainEvent | ChainStepEvent) -> str | None:
    if isinstance(event, AuditEvent):
        return "audit"
    if isinstance(event, ChainEvent | ChainStepEvent):
        return "chain"
    if event.name in HUB_HEALTH:
        return "health"
    return "metadata" if event.name.endswith(METADATA_ENDS) else None


def _server(tenant: str, event: ServerEvent) -> Row:
    payload = {
        "server": event.server,
        "hub": event.hub,
        "state": event.state,
        "source": event.source,
        "outcome": event.outcome,
        "valid_until": event.valid_until,
        "latency_ms": event.latency_ms,
        "error_type": event.error_type,
        "error_message": event.error_message,
    }
    text = msgspec.json.encode(payload).decode()
    name = f"server_{event.state}"
    return (tenant, "health", name, event.server, event.server, event.time, text, event.hub, event.state)


def _other(record: Record, topic: str) -> Row:
    """What is reported by others says so: hubscope has not seen it itself."""
    event = record.event
    raw = Raw((record.columns[-1] or "null").encode())  # as the row holds it
    payload: dict[str, Any] = {"reported_by": event.hub or "hub", "reported": raw}
    server = None
    if isinstance(event, ChainEvent | ChainStepEvent):
        name = f"{'step' if isinstance(event, ChainStepEvent) else 'chain'}_{event.status}"
        subject = event.chain_id
        payload["chain_id"] = subject
    else:
        assert isinstance(event, HubEvent | AuditEvent)
        name = event.name
        server = _server_named(raw)
        subject = server or ""
    text = msgspec.json.encode(payload).decode()
    return (record.tenant, topic, name, subject, server, event.time, text, event.hub, None)


class _Named(msgspec.Struct):
    server: str | None = None


def _server_named(payload: Raw) -> str | None:
    """The server that a payload names, as those of hubscope's own parts do."""
    try:
        return msgspec.json.decode(payload, type=_Named).server
    except msgspec.MsgspecError:
        return None
