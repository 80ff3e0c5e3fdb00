"""OTLP traces off the wire: protobuf or JSON in, spans out. No I/O.

Sources: the OTLP specification (opentelemetry.io/docs/specs/otlp) and its JSON mapping (64-bit numbers may be text, ids
are hexadecimal, unknown members are skipped).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.errors import InvalidRequest, UnsupportedMediaType
from hubscope.ingest.envelope import BOM

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
DEPTH_MAX: Final = 6
"""How deep attributes are read."""

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


def read_spans(body: bytes, content_type: str) -> Iterator[Span]:
    """The spans of an ExportTraceServiceRequest, in the order sent.

    Raises:
        UnsupportedMediaType: neither protobuf nor JSON by its Content-Type.
        InvalidRequest: the body cannot be read.
    """
    kind = media_type(content_type)
    if kind == PROTOBUF:
        return _protobuf(body)
    if kind == JSON:
        return _json(body)
    raise UnsupportedMediaType(f"Content-Type {kind or '(none)'!r} is not accepted; allowed: {PROTOBUF}, {JSON}")


def media_type(content_type: str) -> str:
    """The type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def storable(text: str) -> str:
    """The text with NUL, which PostgreSQL cannot keep, replaced."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode() if not text.isprintable() else text


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
                    status_message=storable(span.status.message),
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
                    status_message=storable(status.message),
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
