"""The one place where an event is made fit to be stored: secrets out, error messages capped. Called for every event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from hubscope.ingest.envelope import NO_VALUE, extra
from hubscope.model import Event, ServerEvent, ToolCall
from hubscope.redact import redact_json, redact_text, suspects

CUT: Final = " [cut]"
_EMPTY: Final = (*NO_VALUE, b"{}")


def to_scrub(events: Sequence[Event]) -> Sequence[int]:
    """The places of the events that `scrubbed` may change; all others are fit as they are.

    One look over a whole post: a busy hub's calls are successes with plain attributes, nearly all of them.
    """
    told: list[int] = []
    free: list[str] = []
    for place, event in enumerate(events):
        if type(event) is ToolCall and event.error_message is None and event.error_type is None:
            free.append(bytes(event.attrs).decode())
        else:
            told.append(place)
            free.append("")
    found = suspects(free)
    return sorted({*told, *found}) if found else told


def scrubbed(event: Event, error_message_max: int) -> Event:
    """The event without secrets; the same object where there are none.

    Names (hub, server, tool, client) are looked at where they are met for the first time (names.py).

    Args:
        error_message_max: characters of an error message that are kept, counted after redaction.
    """
    changes: dict[str, Any] = {}
    free = bytes(extra(event))
    if free not in _EMPTY:
        text = free.decode()
        clean = redact_json(text)
        if clean is not text:
            changes["attrs" if isinstance(event, ToolCall | ServerEvent) else "payload"] = Raw(clean.encode())
    if isinstance(event, ToolCall | ServerEvent):
        if event.error_message is not None:
            message = capped(redact_text(event.error_message), error_message_max)
            if message != event.error_message:
                changes["error_message"] = message
        if event.error_type is not None:
            _clean(event, "error_type", changes)
        if isinstance(event, ServerEvent):
            _clean(event, "outcome", changes)
    else:
        for field in ("hub", "name", "status"):
            if hasattr(event, field):
                _clean(event, field, changes)
    return msgspec.structs.replace(event, **changes) if changes else event


def capped(text: str, most: int) -> str:
    """At most so many characters; a text that was cut says so."""
    return text if len(text) <= most else text[: max(0, most - len(CUT))] + CUT[-most:]


def _clean(event: Event, field: str, changes: dict[str, Any]) -> None:
    value = getattr(event, field)
    clean = redact_text(value)
    if clean is not value:
        changes[field] = clean
