"""From the bytes of a post to typed events and rejections. No I/O; one bad event never costs its neighbours.

The whole post is decoded in one pass; only when that fails is it taken apart event by event, to find out which and why.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec
from msgspec import Raw

from hubscope.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from hubscope.model import EVENT_TYPES, Event, Rejected, ServerEvent, ToolCall

JSON_TYPES: Final = ("application/json",)
NDJSON_TYPES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
NO_VALUE: Final = (b"", b"null")


class _Wrapped(msgspec.Struct, forbid_unknown_fields=True):
    events: list[Event]


class _WrappedRaw(msgspec.Struct, forbid_unknown_fields=True):
    events: list[Raw]


_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_ARRAY, _RAW_ARRAY = msgspec.json.Decoder(list[Event]), msgspec.json.Decoder(list[Raw])
_WRAPPED, _RAW_WRAPPED = msgspec.json.Decoder(_Wrapped), msgspec.json.Decoder(_WrappedRaw)
_ENCODER = msgspec.json.Encoder()
_PROBE = msgspec.json.Decoder(dict[str, Raw])

_PATH = re.compile(r" - at `\$\.?(.*)`$")
_FIELD = re.compile(r"field `([^`]+)`")


@dataclass(frozen=True, slots=True)
class Window:
    """The times that are accepted: [oldest, newest], both with a zone."""

    oldest: datetime
    newest: datetime

    @classmethod
    def around(cls, now: datetime, *, max_age_days: int, max_skew_seconds: int) -> Window:
        return cls(now - timedelta(days=max_age_days), now + timedelta(seconds=max_skew_seconds))


@dataclass(frozen=True, slots=True)
class Item:
    """One event that can be stored: its place in the post, its identity, and itself."""

    index: int
    event_id: UUID
    event: Event


@dataclass(frozen=True, slots=True)
class Batch:
    """What one post holds, in the order sent."""

    items: list[Item]
    rejected: list[Rejected]


def read(body: bytes, content_type: str, *, tenant: str, window: Window, max_events: int) -> Batch:
    """Decode a post of envelope version 1: a JSON array, `{"events": [...]}`, or NDJSON.

    Raises:
        UnsupportedMediaType: not JSON or NDJSON by its Content-Type.
        InvalidRequest: the body as a whole cannot be read; nothing of it is taken.
        TooLarge: more than `max_events` events; nothing of it is taken.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in NDJSON_TYPES:
        found = _lines(body)
    elif media_type in JSON_TYPES:
        found = _document(body)
    else:
        raise UnsupportedMediaType(
            f"Content-Type {media_type or '(none)'!r} is not accepted; allowed: {', '.join(JSON_TYPES + NDJSON_TYPES)}"
        )
    if len(found) > max_events:
        raise TooLarge(f"{len(found)} events in one post, at most {max_events}", limit_events=max_events)
    nul_possible = b"\\u0000" in body
    batch = Batch([], [])
    for index, event in enumerate(found):
        if not isinstance(event, Rejected):
            problem = _problem(event, window, nul_possible)
            if problem is None:
                batch.items.append(Item(index, event.event_id or derived_id(tenant, event), event))
                continue
            code, detail = problem
            event = Rejected(index, str(event.event_id) if event.event_id else None, code, detail)
        batch.rejected.append(event if event.index == index else msgspec.structs.replace(event, index=index))
    return batch


def derived_id(tenant: str, event: Event) -> UUID:
    """The identity of an event that was sent without one: a UUIDv8 of its content, so that a retry is one event."""
    digest = bytearray(hashlib.blake2b(tenant.encode() + b"\0" + _ENCODER.encode(event), digest_size=16).digest())
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))


def json_object(raw: Raw) -> str | None:
    """The text of an optional JSON object field."""
    value = bytes(raw)
    return None if value in NO_VALUE else value.decode()


def extra(event: Event) -> Raw:
    """The field that holds free JSON: attrs of calls and server events, payload of the others."""
    return event.attrs if isinstance(event, ToolCall | ServerEvent) else event.payload


def _document(body: bytes) -> list[Event | Rejected]:
    start = body.lstrip(b" \t\r\n\xef\xbb\xbf")[:1]
    if start not in (b"[", b"{"):
        raise InvalidRequest(
            'the body is empty; send a JSON array of events or {"events": [...]}'
            if not start
            else 'the body is neither a JSON array of events nor {"events": [...]}'
        )
    wrapped = start == b"{"
    try:
        return list(_WRAPPED.decode(body).events if wrapped else _ARRAY.decode(body))
    except msgspec.DecodeError:
        pass
    try:
        raw = _RAW_WRAPPED.decode(body).events if wrapped else _RAW_ARRAY.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f'a JSON object must be {{"events": [...]}} and nothing else ({error}); for one event a line,'
            f" send Content-Type {NDJSON_TYPES[0]}"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    return [_one(bytes(item)) for item in raw]


def _lines(body: bytes) -> list[Event | Rejected]:
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not lines:
        raise InvalidRequest("the body is empty; send one JSON event a line")
    return [_one(line) for line in lines]


def _one(text: bytes) -> Event | Rejected:
    try:
        return _EVENT.decode(text)
    except msgspec.ValidationError as error:
        code, detail = _explain(str(error), text)
        return Rejected(0, _sent_id(text), code, detail)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Rejected(0, None, "invalid_json", f"not valid JSON: {error}")


def _sent_id(text: bytes) -> str | None:
    try:
        value = msgspec.json.decode(_PROBE.decode(text)["event_id"])
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError):
        return None
    return value[:100] if isinstance(value, str) else None


def _explain(message: str, text: bytes) -> tuple[str, str]:
    """A code and one sentence that names the field and what is allowed, from the decoder's message."""
    match = _PATH.search(message)
    field = match.group(1) if match else ""
    reason = _PATH.sub("", message)
    named = _FIELD.search(reason)
    if named and "unknown field" in reason:
        return (
            "unknown_field",
            f"{named.group(1)!r} is not a field of this event type; free data belongs into attrs or payload",
        )
    if named and "missing required" in reason:
        return "missing_field", f"{named.group(1)!r} is required"
    if field == "type":
        return "unknown_type", f"type: {reason}; allowed: {', '.join(EVENT_TYPES)}"
    if not field:
        return "not_an_object", f"an event must be a JSON object: {reason}"
    reason = reason[0].lower() + reason[1:]
    allowed = _allowed(field, text)
    code = "invalid_duration" if field in ("duration_ms", "latency_ms") else "invalid_field"
    return code, f"{field}: {reason}" + (f"; allowed: {', '.join(allowed)}" if allowed else "")


def _allowed(field: str, text: bytes) -> tuple[str, ...]:
    """The values of a field that is a choice."""
    try:
        kind = EVENT_TYPES[msgspec.json.decode(_PROBE.decode(text)["type"])]
        hint = get_type_hints(kind)[field]
    except (msgspec.DecodeError, KeyError, TypeError):
        return ()
    return tuple(value or '""' for value in get_args(hint)) if get_origin(hint) is Literal else ()


def _problem(event: Event, window: Window, nul_possible: bool) -> tuple[str, str] | None:
    """What the decoder cannot see: the time window, free JSON that is no object, NUL (PostgreSQL cannot keep it)."""
    if event.time < window.oldest:
        return "too_old", f"time: {event.time.isoformat()} is before {_short(window.oldest)}, the oldest time accepted"
    if event.time > window.newest:
        return "in_future", f"time: {event.time.isoformat()} is after {_short(window.newest)}, the newest time accepted"
    free = bytes(extra(event))
    if free not in NO_VALUE and not free.startswith(b"{"):
        field = "attrs" if isinstance(event, ToolCall | ServerEvent) else "payload"
        return "invalid_field", f"{field}: expected a JSON object"
    if nul_possible:
        for field, text in _texts(event):
            if "\0" in text:
                return "invalid_field", f"{field}: contains a NUL character, which cannot be stored"
    return None


def _texts(event: Event) -> Iterator[tuple[str, str]]:
    for field in event.__struct_fields__:
        value = getattr(event, field)
        if isinstance(value, str):
            yield field, value
    free = bytes(extra(event))
    if free not in NO_VALUE:
        field = "attrs" if isinstance(event, ToolCall | ServerEvent) else "payload"
        yield from ((field, text) for text in _strings(msgspec.json.decode(free)))


def _strings(value: object) -> Iterator[str]:
    """Every string in decoded JSON, keys included; a list of things to do, since nesting may be deep."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, str):
            yield current
        elif isinstance(current, dict):
            waiting.extend(current.keys())
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)


def _short(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds")
