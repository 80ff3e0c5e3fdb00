"""OTLP traces become tool calls: protobuf or JSON in, events and rejections out. No I/O.

A span is a tool call when `mcp.method.name` is `tools/call` (semantic conventions of MCP, which the `mcp` SDK keeps).
All other spans are accepted and ignored. One span that cannot be kept never costs its neighbours.

Sources: the OTLP specification (opentelemetry.io/docs/specs/otlp) and its JSON mapping (64-bit numbers may be text, ids
are hexadecimal); the semantic conventions for MCP (opentelemetry.io/docs/specs/semconv/gen-ai/mcp).
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Raw
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from hubscope.ingest.envelope import BOM, Item, Window, checked
from hubscope.model import CallStatus, Rejected, RejectionCode, ToolCall, Transport, Vantage

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
UNNAMED_SERVER: Final = "unknown"
"""The server of a span that does not say which; from a client's span it is kept and never counted."""
DEPTH_MAX: Final = 6
SERVER_KIND: Final = 2
ERROR_CODE: Final = 2
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it was sent, out of either encoding.

    Attributes:
        trace_id, span_id, parent_span_id: hexadecimal, as sent.
        start_ns, end_ns: nanoseconds since 1970; 0 is unknown.
        kind, status_code: the numbers of the protocol.
        attributes, resource: by key; values are text, numbers, booleans, lists and objects.
        exception: attributes of the last event named "exception".
    """

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status_code: int
    status_message: str
    attributes: Attributes
    resource: Attributes
    scope: str
    exception: Attributes


@dataclass(frozen=True, slots=True)
class Traces:
    """What one export holds.

    Attributes:
        items: tool calls that can be stored.
        rejected: tool calls that cannot; `index` counts the spans of the export from 0.
        ignored: how many spans are no tool calls.
    """

    items: list[Item]
    rejected: list[Rejected]
    ignored: int


@dataclass(frozen=True, slots=True)
class SpanLimits:
    """What of a span's own attributes is kept: so many, each text so long."""

    attributes: int
    attribute_chars: int


def read_traces(body: bytes, content_type: str, *, window: Window, max_calls: int, limits: SpanLimits) -> Traces:
    """Decode an ExportTraceServiceRequest.

    Args:
        window: the times that are accepted, as for events.
        max_calls: most tool calls in one export.

    Raises:
        UnsupportedMediaType: neither protobuf nor JSON by its Content-Type.
        InvalidRequest: the body cannot be read; nothing of it is taken.
        TooLarge: more than `max_calls` tool calls; nothing of it is taken.
    """
    kind = media_type(content_type)
    if kind == PROTOBUF:
        spans = _protobuf(body)
    elif kind == JSON:
        spans = _json(body)
    else:
        raise UnsupportedMediaType(f"Content-Type {kind or '(none)'!r} is not accepted; allowed: {PROTOBUF}, {JSON}")
    found = Traces([], [], 0)
    ignored = 0
    for index, span in enumerate(spans):
        if not is_tool_call(span):
            ignored += 1
            continue
        if len(found.items) + len(found.rejected) >= max_calls:
            raise TooLarge(f"more than {max_calls} tool calls in one export", limit_events=max_calls)
        event = _event(span, limits)
        problem = event if isinstance(event, tuple) else checked(event, window)
        if isinstance(event, tuple) or problem is not None:
            assert problem is not None
            found.rejected.append(Rejected(index, span.span_id[:32] or None, *problem))
        else:
            assert event.event_id is not None
            found.items.append(Item(index, event.event_id, event))
    return Traces(found.items, found.rejected, ignored)


def media_type(content_type: str) -> str:
    """The type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_tool_call(span: Span) -> bool:
    """Whether the span is a call of an MCP tool whose name is known."""
    method = span.attributes.get("mcp.method.name")
    return method == "tools/call" and bool(_tool(span))


def span_event_id(trace_id: bytes, span_id: bytes, start_ms: int) -> UUID:
    """The event's identity, from the span's: a UUIDv8 that begins with the start's milliseconds, as a UUIDv7 does, so
    that neighbours in time are neighbours in the index. An export that is sent again holds the same events."""
    value = bytearray(hashlib.blake2b(b"span\0" + trace_id + span_id, digest_size=16).digest())
    value[:6] = (start_ms & (1 << 48) - 1).to_bytes(6, "big")
    value[6] = value[6] & 0x0F | 0x80
    value[8] = value[8] & 0x3F | 0x80
    return UUID(bytes=bytes(value))


# From a span to a tool call


def _event(span: Span, limits: SpanLimits) -> ToolCall | tuple[RejectionCode, str]:
    try:
        trace_id, span_id = bytes.fromhex(span.trace_id), bytes.fromhex(span.span_id)
    except ValueError:
        return "invalid_field", "traceId and spanId must be hexadecimal"
    if len(trace_id) != 16 or len(span_id) != 8 or not any(trace_id) or not any(span_id):
        return "invalid_field", "traceId must be 16 bytes and spanId 8 bytes, not all zero"
    if span.start_ns <= 0:
        return "missing_field", "startTimeUnixNano is required"
    try:
        time = EPOCH + timedelta(microseconds=span.start_ns // 1000)
    except OverflowError:
        return "in_future", "startTimeUnixNano is beyond the year 9999"
    duration_ms = (span.end_ns - span.start_ns) / 1e6 if span.end_ns else None
    if duration_ms is not None and not 0 <= duration_ms <= 1e9:
        return "invalid_duration", f"the span lasts {duration_ms} ms; allowed: 0 to 1e9"
    server = span.kind == SERVER_KIND
    status, error_type = _status(span)
    message = span.status_message or _text(span.exception.get("exception.message"))
    vantage: Vantage = "server" if server else "client"
    return ToolCall(
        event_id=span_event_id(trace_id, span_id, span.start_ns // 1_000_000),
        time=time,
        hub=_label(_first(span, "hubscope.hub")),
        server=_label(_server(span, server)),
        tool=_label(_tool(span)),
        status=status,
        duration_ms=duration_ms,
        error_type=_label(error_type) or None,
        error_message=message[:8000] if status != "ok" and message else None,
        session_id=_label(_first(span, "mcp.session.id")) or None,
        client=_label(_first(span, "mcp.client.name") if server else _text(span.resource.get("service.name"))),
        transport=_transport(span),
        trace_id=trace_id.hex(),
        span_id=span_id.hex(),
        vantage=vantage,
        attrs=Raw(_ENCODER.encode(_attrs(span, limits))),
    )


def _server(span: Span, server: bool) -> str:
    """Which server was called. Its own span: `mcp.server.name` (span, then resource), then `service.name`. A client's:
    `mcp.server.name`, then `server.address` with `server.port`; its `service.name` is the client."""
    named = _first(span, "mcp.server.name")
    if named:
        return named
    if server:
        return _text(span.resource.get("service.name")) or UNNAMED_SERVER
    address, port = _text(span.attributes.get("server.address")), _text(span.attributes.get("server.port"))
    return (f"{address}:{port}" if port else address) if address else UNNAMED_SERVER


def _tool(span: Span) -> str:
    """`gen_ai.tool.name`, or what stands behind the method in the span's name (client spans of the SDK)."""
    named = _text(span.attributes.get("gen_ai.tool.name")) or _text(span.attributes.get("mcp.tool.name"))
    return named or span.name.partition("tools/call ")[2].strip()


def _status(span: Span) -> tuple[CallStatus, str]:
    """Status and error type. A JSON-RPC error code is written as hubs write it: mcp:-32602."""
    kind = (
        _text(span.attributes.get("error.type"))
        or _text(span.exception.get("exception.type"))
        or _text(span.attributes.get("rpc.response.status_code"))
    )
    failed = "error.type" in span.attributes or span.status_code == ERROR_CODE
    if not failed:
        return "ok", ""
    word = kind.rpartition(".")[2].lower()
    if word.lstrip("-").isdigit():
        return ("timeout" if word == "-32001" else "error"), f"mcp:{word}"
    if "timeout" in word or word == "deadline_exceeded":
        return "timeout", kind
    if "cancel" in word:
        return "cancelled", kind
    return "error", kind or "error"


def _transport(span: Span) -> Transport:
    told = _text(span.attributes.get("mcp.transport")).lower()
    if told in ("stdio", "http", "sse"):
        return told  # type: ignore[return-value]
    if "http" in told:
        return "http"
    match _text(span.attributes.get("network.transport")).lower():
        case "pipe" | "unix":
            return "stdio"
        case "tcp" | "quic":
            return "http"
    return ""


_TAKEN: Final = frozenset(
    {
        "mcp.method.name", "gen_ai.tool.name", "mcp.tool.name", "gen_ai.operation.name", "error.type", "mcp.session.id",
        "mcp.server.name", "mcp.client.name", "hubscope.hub",
    }
)  # fmt: skip
_OF_RESOURCE: Final = ("service.name", "service.version", "service.namespace", "service.instance.id", "host.name")


def _attrs(span: Span, limits: SpanLimits) -> dict[str, Any]:
    """What has no field of its own: the span's attributes within their limits, and who sent it."""
    rest = [(key, value) for key, value in span.attributes.items() if key not in _TAKEN]
    kept: dict[str, Any] = {
        _storable(key)[:200]: _bounded(value, limits.attribute_chars) for key, value in rest[: limits.attributes]
    }
    about: dict[str, Any] = {"span": _storable(span.name)[:200], "scope": _storable(span.scope)[:200]}
    if span.parent_span_id:
        about["parent_span_id"] = _storable(span.parent_span_id)[:32]
    about |= {key: _bounded(span.resource[key], limits.attribute_chars) for key in _OF_RESOURCE if key in span.resource}
    if len(rest) > limits.attributes:
        about["dropped_attributes"] = len(rest) - limits.attributes
    return kept | {"otel": about}


def _bounded(value: Any, chars: int) -> Any:
    """A value that jsonb takes: texts cut and without NUL; lists and objects that are longer than that as a text."""
    if isinstance(value, str):
        return _storable(value)[:chars]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | dict):
        text = _ENCODER.encode(_finite(value)).decode()
        return msgspec.json.decode(text) if len(text) <= chars else _storable(text)[:chars]
    return value


def _finite(value: Any) -> Any:
    """Lists and objects with storable texts and numbers; their depth is bounded where they were read."""
    match value:
        case dict():
            return {_storable(key): _finite(below) for key, below in value.items()}
        case list():
            return [_finite(below) for below in value]
        case str():
            return _storable(value)
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def _storable(text: str) -> str:
    return text.replace("\0", "�").encode("utf-8", "replace").decode() if not text.isprintable() else text


def _first(span: Span, key: str) -> str:
    return _text(span.attributes.get(key)) or _text(span.resource.get(key))


def _text(value: Any) -> str:
    match value:
        case str():
            return _storable(value)
        case bool() | None:
            return ""
        case int():
            return str(value)
    return ""


def _label(text: str) -> str:
    """At most 200 characters and 600 bytes, as an event's names."""
    return text[:200].encode()[:600].decode("utf-8", "ignore")


# Protobuf


def _protobuf(body: bytes) -> Iterator[Span]:
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise InvalidRequest(f"the body is not an ExportTraceServiceRequest: {error}") from None
    return _protobuf_spans(request)


def _protobuf_spans(request: Any) -> Iterator[Span]:
    for group in request.resource_spans:
        resource = _pairs(group.resource.attributes)
        for scoped in group.scope_spans:
            for span in scoped.spans:
                exception = [event for event in span.events if event.name == "exception"]
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_span_id=span.parent_span_id.hex(),
                    name=span.name,
                    kind=span.kind,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    status_code=span.status.code,
                    status_message=_storable(span.status.message),
                    attributes=_pairs(span.attributes),
                    resource=resource,
                    scope=scoped.scope.name,
                    exception=_pairs(exception[-1].attributes) if exception else {},
                )


def _pairs(attributes: Iterable[Any], depth: int = 0) -> dict[str, Any]:
    return {one.key: _value(one.value, depth) for one in attributes}


def _value(value: Any, depth: int) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if depth >= DEPTH_MAX:
        return "[nested too deeply]"
    if kind == "array_value":
        return [_value(one, depth + 1) for one in value.array_value.values]
    if kind == "kvlist_value":
        return _pairs(value.kvlist_value.values, depth + 1)
    plain = getattr(value, kind)
    return base64.b64encode(plain).decode() if isinstance(plain, bytes) else plain


# JSON


class _Camel(msgspec.Struct, rename="camel"):
    """Members are optional and unknown ones are skipped, as the protocol demands."""


class _AnyValue(_Camel):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    array_value: _ArrayValue | None = None
    kvlist_value: _KeyValueList | None = None
    bytes_value: str | None = None


class _ArrayValue(_Camel):
    values: list[_AnyValue] = []


class _KeyValue(_Camel):
    key: str = ""
    value: _AnyValue | None = None


class _KeyValueList(_Camel):
    values: list[_KeyValue] = []


class _SpanEvent(_Camel):
    name: str = ""
    attributes: list[_KeyValue] = []


class _Status(_Camel):
    code: int = 0
    message: str = ""


class _JsonSpan(_Camel):
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    name: str = ""
    kind: int = 0
    start_time_unix_nano: int | str = 0
    end_time_unix_nano: int | str = 0
    attributes: list[_KeyValue] = []
    events: list[_SpanEvent] = []
    status: _Status | None = None


class _Scope(_Camel):
    name: str = ""


class _ScopeSpans(_Camel):
    scope: _Scope | None = None
    spans: list[_JsonSpan] = []


class _Resource(_Camel):
    attributes: list[_KeyValue] = []


class _ResourceSpans(_Camel):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] = []


class _Request(_Camel):
    resource_spans: list[_ResourceSpans] = []


_ENCODER: Final = msgspec.json.Encoder()
_REQUEST: Final = msgspec.json.Decoder(_Request)


def _json(body: bytes) -> Iterator[Span]:
    try:
        request = _REQUEST.decode(body.removeprefix(BOM))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not an ExportTraceServiceRequest: {error}") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    return _json_spans(request)


def _json_spans(request: _Request) -> Iterator[Span]:
    for group in request.resource_spans:
        resource = _json_pairs(group.resource.attributes) if group.resource else {}
        for scoped in group.scope_spans:
            for span in scoped.spans:
                exception = [event for event in span.events if event.name == "exception"]
                status = span.status or _Status()
                yield Span(
                    trace_id=span.trace_id,
                    span_id=span.span_id,
                    parent_span_id=span.parent_span_id,
                    name=span.name,
                    kind=span.kind,
                    start_ns=_whole(span.start_time_unix_nano),
                    end_ns=_whole(span.end_time_unix_nano),
                    status_code=status.code,
                    status_message=_storable(status.message),
                    attributes=_json_pairs(span.attributes),
                    resource=resource,
                    scope=scoped.scope.name if scoped.scope else "",
                    exception=_json_pairs(exception[-1].attributes) if exception else {},
                )


def _whole(value: int | str) -> int:
    """A 64-bit number that may be written as a text; -1, which no time is, for other texts."""
    if isinstance(value, int):
        return value
    return int(value) if len(value) <= 20 and value.lstrip("-").isascii() and value.lstrip("-").isdigit() else -1


def _json_pairs(attributes: list[_KeyValue], depth: int = 0) -> dict[str, Any]:
    return {one.key: _json_value(one.value, depth) for one in attributes}


def _json_value(value: _AnyValue | None, depth: int) -> Any:
    if value is None:
        return None
    if depth >= DEPTH_MAX:
        return "[nested too deeply]"
    if value.array_value is not None:
        return [_json_value(one, depth + 1) for one in value.array_value.values]
    if value.kvlist_value is not None:
        return _json_pairs(value.kvlist_value.values, depth + 1)
    if value.int_value is not None:
        return _whole(value.int_value)
    if value.double_value is not None:
        return value.double_value
    for plain in (value.string_value, value.bool_value, value.bytes_value):
        if plain is not None:
            return plain
    return None


# Answers


@dataclass(frozen=True, slots=True)
class SpanReceipt:
    """The answer to an export, after the commit. Counts of spans."""

    accepted: int
    duplicates: int
    ignored: int
    rejected: list[Rejected]

    @property
    def reasons(self) -> str:
        """Why spans were rejected, for a person: the first few, with how many there are."""
        told = "; ".join(f"span {one.event_id or one.index}: {one.code}: {one.detail}" for one in self.rejected[:3])
        more = len(self.rejected) - 3
        return told + (f"; and {more} more" if more > 0 else "")
