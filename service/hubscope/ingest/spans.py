"""Which spans are tool calls, and the events they become. No I/O.

A span is a tool call when `mcp.method.name` is `tools/call` (semantic conventions of MCP, which the `mcp` SDK keeps:
opentelemetry.io/docs/specs/semconv/gen-ai/mcp). All other spans are accepted and ignored. One span that cannot be kept
never costs its neighbours. The whole table is in docs/reference/otlp.md.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Raw

from hubscope.errors import TooLarge
from hubscope.ingest.envelope import Window, checked
from hubscope.ingest.otlp import Span, read_spans, storable
from hubscope.model import CallStatus, Event, Rejected, RejectionCode, ToolCall, Transport, Vantage

UNNAMED_SERVER: Final = "unknown"
"""The server of a span that does not say which; from a client's span it is kept and never counted."""
SERVER_KIND: Final = 2
ERROR_CODE: Final = 2
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Traces:
    """What one export holds.

    Attributes:
        events: tool calls that can be stored, each with its event_id.
        places: which spans of the export they are, from 0.
        rejected: tool calls that cannot; `index` counts the spans of the export from 0.
        ignored: how many spans are no tool calls.
    """

    events: list[Event]
    places: list[int]
    rejected: list[Rejected]
    ignored: int


@dataclass(frozen=True, slots=True)
class SpanLimits:
    """What of a span's own attributes is kept: so many, each text so long."""

    attributes: int
    attribute_chars: int


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
    found = Traces([], [], [], 0)
    ignored = 0
    for index, span in enumerate(read_spans(body, content_type)):
        if not is_tool_call(span):
            ignored += 1
            continue
        if len(found.events) + len(found.rejected) >= max_calls:
            raise TooLarge(f"more than {max_calls} tool calls in one export", limit_events=max_calls)
        event = _event(span, limits)
        problem = event if isinstance(event, tuple) else checked(event, window)
        if isinstance(event, tuple) or problem is not None:
            assert problem is not None
            found.rejected.append(Rejected(index, span.span_id[:32] or None, *problem))
        else:
            found.events.append(event)
            found.places.append(index)
    return Traces(found.events, found.places, found.rejected, ignored)


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
        storable(key)[:200]: _bounded(value, limits.attribute_chars) for key, value in rest[: limits.attributes]
    }
    about: dict[str, Any] = {"span": storable(span.name)[:200], "scope": storable(span.scope)[:200]}
    if span.parent_span_id:
        about["parent_span_id"] = storable(span.parent_span_id)[:32]
    about |= {key: _bounded(span.resource[key], limits.attribute_chars) for key in _OF_RESOURCE if key in span.resource}
    if len(rest) > limits.attributes:
        about["dropped_attributes"] = len(rest) - limits.attributes
    return kept | {"otel": about}


def _bounded(value: Any, chars: int) -> Any:
    """A value that jsonb takes: texts cut and without NUL; lists and objects that are longer than that as a text."""
    if isinstance(value, str):
        return storable(value)[:chars]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | dict):
        text = _ENCODER.encode(_finite(value)).decode()
        return msgspec.json.decode(text) if len(text) <= chars else storable(text)[:chars]
    return value


def _finite(value: Any) -> Any:
    """Lists and objects with storable texts and numbers; their depth is bounded where they were read."""
    match value:
        case dict():
            return {storable(key): _finite(below) for key, below in value.items()}
        case list():
            return [_finite(below) for below in value]
        case str():
            return storable(value)
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def _first(span: Span, key: str) -> str:
    return _text(span.attributes.get(key)) or _text(span.resource.get(key))


def _text(value: Any) -> str:
    match value:
        case str():
            return storable(value)
        case bool() | None:
            return ""
        case int():
            return str(value)
    return ""


def _label(text: str) -> str:
    """At most 200 characters and 600 bytes, as an event's names."""
    return text[:200].encode()[:600].decode("utf-8", "ignore")
