"""From the bytes of a post to typed events and rejections. No I/O; one bad event never costs its neighbours.

The whole post is decoded in one pass; only when that fails is it taken apart event by event, to find out which and why.
What the decoder lets pass and PostgreSQL cannot keep is found here, too: a row refused there costs a transaction.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec
from msgspec import Raw, structs

from hubscope.errors import InvalidRequest, TooManyEvents, UnsupportedMediaType
from hubscope.model import EVENT_TYPES, Event, Rejected, RejectionCode, ServerEvent, ToolCall

JSON_TYPES: Final = ("application/json",)
NDJSON_TYPES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
NO_VALUE: Final = (b"", b"null")
NAME_MAX_BYTES: Final = 600
"""Longest name or label in UTF-8: four of them are one index key of the rollups, and PostgreSQL's limit is 2,704."""
BOM: Final = b"\xef\xbb\xbf"


class _Wrapped(msgspec.Struct, forbid_unknown_fields=True):
    events: list[Event]


class _WrappedRaw(msgspec.Struct, forbid_unknown_fields=True):
    events: Raw


_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_ARRAY, _RAW_ARRAY = msgspec.json.Decoder(list[Event]), msgspec.json.Decoder(Raw)
_WRAPPED, _RAW_WRAPPED = msgspec.json.Decoder(_Wrapped), msgspec.json.Decoder(_WrappedRaw)
_ENCODER = msgspec.json.Encoder()
_PROBE = msgspec.json.Decoder(dict[str, Raw])

# What a decoder says of text that is no JSON, no UTF-8, or nested deeper than it goes.
_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_LONG_TEXTS: Final = ("error_message",)

_PATH = re.compile(r" - at `\$\.?(.*)`$")
_FIELD = re.compile(r"field `([^`]+)`")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # after an even number of backslashes: an odd one is text
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
_SPACE = r"[ \t\r\n]*"
_OPENING = re.compile(rf'{_SPACE}(\{{{_SPACE}"events"{_SPACE}:{_SPACE})?\[{_SPACE}')
_COMMA = re.compile(rf"{_SPACE},{_SPACE}")
_CLOSING, _CLOSING_WRAPPED = re.compile(rf"{_SPACE}\]{_SPACE}"), re.compile(rf"{_SPACE}\]{_SPACE}\}}{_SPACE}")
_LENIENT = json.JSONDecoder(strict=False, parse_int=len, parse_float=len)


class Window(msgspec.Struct, frozen=True):
    """The times that are accepted: [oldest, newest], both with a zone."""

    oldest: datetime
    newest: datetime

    @classmethod
    def around(cls, now: datetime, *, max_age: timedelta, max_skew: timedelta) -> Window:
        return cls(now - max_age, now + max_skew)


class Batch(msgspec.Struct, frozen=True):
    """What one post holds, in the order sent.

    Attributes:
        events: those that can be stored, each with its event_id.
        places: where in the post each of them stood, from 0.
        rejected: the others.
    """

    events: Sequence[Event]
    places: Sequence[int]
    rejected: list[Rejected]


def read(
    body: bytes,
    content_type: str,
    *,
    tenant: str,
    window: Window,
    max_events: int,
    max_free_bytes: int = 64 * 1024,
    max_free_depth: int = 16,
) -> Batch:
    """Decode a post of envelope version 1: a JSON array, `{"events": [...]}`, or NDJSON.

    Args:
        body: after gzip.
        content_type: JSON or NDJSON.
        tenant: whose events they are, whatever they say.
        window: the times that are accepted.
        max_events: most events in the post.
        max_free_bytes: longest JSON text of attrs or payload.
        max_free_depth: deepest nesting of attrs or payload; the object itself is the first level.

    Raises:
        UnsupportedMediaType: not JSON or NDJSON by its Content-Type.
        InvalidRequest: the body as a whole cannot be read; nothing of it is taken.
        TooManyEvents: more than `max_events` events; nothing of it is taken.
    """
    in_lines = _in_lines(content_type)
    body = body.removeprefix(BOM)
    found: Sequence[Event | bytes] = _lines(body) if in_lines else _document(body, max_events)
    if len(found) > max_events:
        raise TooManyEvents(f"more than {max_events} events in one post", limit_events=max_events)
    plain = body.isascii() and (b"\\" not in body or b"\\u" not in body)  # the first search is by far the faster
    if plain and _all_fine(found, window, max_free_bytes, max_free_depth):
        return Batch(found, range(len(found)), [])  # type: ignore[arg-type]  # no text among them
    events: list[Event] = []
    places: list[int] = []
    rejected: list[Rejected] = []
    for index, sent in enumerate(found):
        event = _one(index, sent) if isinstance(sent, bytes) else sent
        if not isinstance(event, Rejected):
            problem = _problem(event, window, plain) or _free_problem(event, max_free_bytes, max_free_depth)
            if problem is None:
                if event.event_id is None:
                    event = structs.replace(event, event_id=derived_id(tenant, event))
                events.append(event)
                places.append(index)
                continue
            event = Rejected(index, str(event.event_id) if event.event_id else None, *problem)
        rejected.append(event)
    return Batch(events, places, rejected)


@lru_cache(maxsize=64)
def _in_lines(content_type: str) -> bool:
    """Whether a post is NDJSON rather than JSON.

    Raises:
        UnsupportedMediaType: neither.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in JSON_TYPES + NDJSON_TYPES:
        raise UnsupportedMediaType(
            f"Content-Type {media_type or '(none)'!r} is not accepted; allowed: {', '.join(JSON_TYPES + NDJSON_TYPES)}"
        )
    return media_type in NDJSON_TYPES


def _all_fine(found: Sequence[Event | bytes], window: Window, max_free_bytes: int, max_free_depth: int) -> bool:
    """Whether a plain post can be taken as it is: calls only, which is what a busy hub sends. False says nothing.

    It asks what `_problem` and `_free_problem` ask of each event, for all of them at once: a tenth of the time.
    """
    if set(map(type, found)) != {ToolCall}:
        return False
    calls: Sequence[ToolCall] = found  # type: ignore[assignment]
    times = [call.time for call in calls]
    if min(times) < window.oldest or max(times) > window.newest:
        return False
    for call in calls:
        free = bytes(call.attrs)
        if free != b"null" and (
            not free.startswith(b"{")
            or len(free) > max_free_bytes
            or free.count(b"{") + free.count(b"[") > max_free_depth
        ):
            return False
        if call.event_id is None:
            return False
    return True


def checked(event: Event, window: Window) -> tuple[RejectionCode, str] | None:
    """Why an event that did not come as JSON cannot be stored; None if it can."""
    return _problem(event, window, plain=False)


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


def _document(body: bytes, max_events: int) -> Sequence[Event | bytes]:
    """The events of a JSON document; their texts, where one of them cannot be decoded."""
    start = body.lstrip(b" \t\r\n")[:1]
    if start not in (b"[", b"{"):
        raise InvalidRequest(
            'the body is empty; send a JSON array of events or {"events": [...]}'
            if not start
            else 'the body is neither a JSON array of events nor {"events": [...]}'
        )
    wrapped = start == b"{"
    try:
        return _WRAPPED.decode(body).events if wrapped else _ARRAY.decode(body)
    except _MALFORMED:
        texts = _split(body, max_events)
    if texts is None:
        raise InvalidRequest(_why(body, wrapped))
    return texts


def _split(body: bytes, max_events: int) -> list[bytes] | None:
    """The texts of the events in an array, one more than allowed at most; None if they cannot be told apart.

    The reader is a lenient one: NaN, half of a surrogate pair or a bare control character, which other languages'
    encoders do write, make a whole array invalid, and one such event must not cost its neighbours.
    """
    text = body.decode("utf-8", "surrogateescape")
    opening = _OPENING.match(text)
    if opening is None:
        return None
    found: list[bytes] = []
    comma: re.Match[str] | None = opening
    while comma is not None and len(found) <= max_events:
        try:
            end = _LENIENT.raw_decode(text, comma.end())[1]
        except (ValueError, RecursionError):
            return None
        found.append(text[comma.end() : end].encode("utf-8", "surrogateescape"))
        comma = _COMMA.match(text, end)
    closing = _CLOSING_WRAPPED if opening.group(1) else _CLOSING
    return found if comma is not None or closing.fullmatch(text, end) else None


def _why(body: bytes, wrapped: bool) -> str:
    """Why a document cannot be read."""
    reason = ""
    try:
        (_RAW_WRAPPED if wrapped else _RAW_ARRAY).decode(body)
    except msgspec.ValidationError as error:
        reason = f" ({error})"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"the body is not valid JSON: {error}"
    except RecursionError:
        wrapped = False
    if not wrapped:
        return "the body is nested too deeply"
    return (
        f'a JSON object must be {{"events": [...]}} and nothing else{reason}; for one event a line, send Content-Type'
        f" {NDJSON_TYPES[0]}"
    )


def _lines(body: bytes) -> Sequence[Event | bytes]:
    """The events of lines; the lines, where one of them cannot be decoded."""
    try:
        events = _EVENT.decode_lines(body)
        # The decoder takes two events on a line, and one that goes over several.
        if len(events) == body.count(b"\n") + (not body.endswith(b"\n")):
            return events
    except _MALFORMED:
        pass
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not lines:
        raise InvalidRequest("the body is empty; send one JSON event a line")
    return lines


def _one(index: int, text: bytes) -> Event | Rejected:
    try:
        return _EVENT.decode(text)
    except msgspec.ValidationError as error:
        return Rejected(index, _sent_id(text), *_explain(str(error), text))
    except RecursionError:
        return Rejected(index, None, "invalid_json", "not valid JSON: nested too deeply")
    except _MALFORMED as error:
        return Rejected(index, None, "invalid_json", f"not valid JSON: {error}")


def _sent_id(text: bytes) -> str | None:
    try:
        value = msgspec.json.decode(_PROBE.decode(text)["event_id"])
    except (KeyError, *_MALFORMED):
        return None
    return value[:100] if isinstance(value, str) else None


def _explain(message: str, text: bytes) -> tuple[RejectionCode, str]:
    """A code and one sentence that names the field and what is allowed, from the decoder's message."""
    match = _PATH.search(message)
    field = match.group(1) if match else ""
    reason = _PATH.sub("", message)
    named = _FIELD.search(reason)
    if named and "unknown field" in reason:
        if named.group(1) in ("tenant", "tenant_id"):
            return "unknown_field", f"{named.group(1)!r} cannot be sent: events belong to the tenant of the API key"
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
    code: RejectionCode = "invalid_duration" if field in ("duration_ms", "latency_ms") else "invalid_field"
    if "of length <=" in reason:
        code = "too_long"
    return code, f"{field}: {reason}" + (f"; allowed: {', '.join(allowed)}" if allowed else "")


def _allowed(field: str, text: bytes) -> tuple[str, ...]:
    """The values of a field that is a choice."""
    try:
        return _CHOICES[msgspec.json.decode(_PROBE.decode(text)["type"])].get(field, ())
    except (KeyError, TypeError, *_MALFORMED):
        return ()


_CHOICES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    name: {
        field: tuple(value or '""' for value in get_args(hint))
        for field, hint in get_type_hints(kind).items()
        if get_origin(hint) is Literal
    }
    for name, kind in EVENT_TYPES.items()
}
"""type -> field -> its values, for the fields that are a choice."""


def _problem(event: Event, window: Window, plain: bool) -> tuple[RejectionCode, str] | None:
    """What the decoder cannot see: the time window, free JSON that is no object, text that cannot be stored.

    Args:
        plain: the post has neither an escaped character nor one outside ASCII, so its texts need no look.
    """
    if event.time < window.oldest:
        return "too_old", f"time: {event.time.isoformat()} is before {_short(window.oldest)}, the oldest time accepted"
    if event.time > window.newest:
        return "in_future", f"time: {event.time.isoformat()} is after {_short(window.newest)}, the newest time accepted"
    free, field = bytes(extra(event)), "attrs" if isinstance(event, ToolCall | ServerEvent) else "payload"
    if free not in NO_VALUE and not free.startswith(b"{"):
        return "invalid_field", f"{field}: expected a JSON object"
    if plain:
        return None
    if _NUL.search(free):
        return "invalid_field", f"{field}: contains a NUL character, which cannot be stored"
    try:
        free.decode()
    except UnicodeDecodeError as error:
        return "invalid_field", f"{field}: not valid UTF-8: {error}"
    return _text_problem(event)


def _free_problem(event: Event, max_bytes: int, max_depth: int) -> tuple[RejectionCode, str] | None:
    """Free JSON that is too long or nested too deeply for those who read it later."""
    free = bytes(extra(event))
    field = "attrs" if isinstance(event, ToolCall | ServerEvent) else "payload"
    if len(free) > max_bytes:
        return "attrs_too_large", f"{field}: takes {len(free)} bytes, at most {max_bytes} (HUBSCOPE_MAX_ATTRS_BYTES)"
    # As many brackets as levels, at least: most events need no look at where they stand.
    if free.count(b"{") + free.count(b"[") > max_depth and _depth(free) > max_depth:
        return "attrs_too_deep", f"{field}: is nested deeper than {max_depth} levels (HUBSCOPE_MAX_ATTRS_DEPTH)"
    return None


def _depth(free: bytes) -> int:
    """Levels of objects and arrays in valid JSON text."""
    deepest = depth = 0
    for match in _BRACKETS.finditer(free):
        if match[0] in (b"{", b"["):
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in (b"}", b"]"):
            depth -= 1
    return deepest


def _text_problem(event: Event) -> tuple[RejectionCode, str] | None:
    """A NUL character, or a name that takes more bytes than an index of the rollups can hold."""
    for field in event.__struct_fields__:
        value = getattr(event, field)
        if not isinstance(value, str):
            continue
        if "\0" in value:
            return "invalid_field", f"{field}: contains a NUL character, which cannot be stored"
        size = len(value) if value.isascii() else len(value.encode())
        if size > NAME_MAX_BYTES and field not in _LONG_TEXTS:
            return "too_long", f"{field}: takes {size} bytes of UTF-8, at most {NAME_MAX_BYTES}"
    return None


def _short(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds")
