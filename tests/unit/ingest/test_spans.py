"""OTLP exports become tool calls: the table of corners, in both encodings."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.errors import InvalidRequest
from hubscope.ingest.envelope import Window
from hubscope.ingest.otlp import JSON, PROTOBUF
from hubscope.ingest.spans import SpanLimits, Traces, read_traces
from hubscope.model import ToolCall

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
WINDOW = Window.around(NOW, max_age=timedelta(days=7), max_skew=timedelta(seconds=300))
START = int((NOW - timedelta(minutes=1)).timestamp()) * 10**9
LIMITS = SpanLimits(attributes=5, attribute_chars=50)


def attribute(key: str, value: Any) -> dict[str, Any]:
    match value:
        case str():
            told: Any = {"stringValue": value}
        case bool():
            told = {"boolValue": value}
        case int():
            told = {"intValue": str(value)}
        case float():
            told = {"doubleValue": value}
        case list():
            told = {"arrayValue": {"values": [attribute("", one)["value"] for one in value]}}
        case dict():
            told = {"kvlistValue": {"values": [attribute(name, below) for name, below in value.items()]}}
        case _:
            told = {}
    return {"key": key, "value": told}


def attributes(**values: Any) -> list[dict[str, Any]]:
    """Attributes of a tool call; `_` in a name stands for a dot, `__` for an underscore."""
    named = {name.replace("__", "\0").replace("_", ".").replace("\0", "_"): value for name, value in values.items()}
    all_of_them = {"mcp.method.name": "tools/call"} | named
    return [attribute(key, value) for key, value in all_of_them.items() if value is not None]


def span(**changes: Any) -> dict[str, Any]:
    return {
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": "eee19b7ec3c1b174",
        "name": "tools/call add",
        "kind": 2,
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + 12_345_678),
        "attributes": attributes(),
    } | changes


def read(*spans: dict[str, Any], limits: SpanLimits = LIMITS, **resource: Any) -> Traces:
    named = {"service.name": "calculator"} | {name.replace("_", "."): value for name, value in resource.items()}
    document = {
        "resourceSpans": [
            {
                "resource": {
                    "attributes": [attribute(key, value) for key, value in named.items() if value is not None]
                },
                "scopeSpans": [{"scope": {"name": "mcp"}, "spans": list(spans)}],
            }
        ]
    }
    return read_traces(json.dumps(document).encode(), JSON, window=WINDOW, max_calls=100, limits=limits)


def call(sent: dict[str, Any] | None = None, **resource: Any) -> ToolCall:
    traces = read(sent or span(), **resource)
    assert traces.rejected == []
    (event,) = traces.events
    assert isinstance(event, ToolCall)
    return event


def attrs(event: ToolCall) -> Any:
    return msgspec.json.decode(event.attrs)


def test_a_server_span_is_a_tool_call() -> None:
    event = call(span(attributes=attributes(mcp_session_id="s-1", network_transport="pipe")))
    assert (event.server, event.tool, event.status, event.vantage) == ("calculator", "add", "ok", "server")
    assert event.time == NOW - timedelta(minutes=1)
    assert event.duration_ms == 12.345678
    assert (event.session_id, event.transport, event.client) == ("s-1", "stdio", "")
    assert (event.trace_id, event.span_id) == ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174")
    assert (event.error_type, event.error_message) == (None, None)
    assert attrs(event)["otel"] == {"span": "tools/call add", "scope": "mcp", "service.name": "calculator"}


def test_time_is_the_start_in_whole_microseconds() -> None:
    assert call(span(startTimeUnixNano=START + 1_999)).time == NOW - timedelta(minutes=1) + timedelta(microseconds=1)


def test_the_identity_comes_from_the_span_and_sorts_by_time() -> None:
    one, same = call(), call(span(attributes=attributes(x=1)))
    other, later = call(span(spanId="eee19b7ec3c1b175")), call(span(startTimeUnixNano=START + 10**7))
    assert one.event_id == same.event_id
    assert len({one.event_id, other.event_id, later.event_id}) == 3
    assert one.event_id is not None
    assert later.event_id is not None
    assert one.event_id.version == 8
    assert one.event_id < later.event_id


@pytest.mark.parametrize(
    ("changes", "resource", "server", "client"),
    [
        ({}, {}, "calculator", ""),
        ({}, {"mcp_server_name": "sums"}, "sums", ""),
        ({"attributes": attributes(mcp_server_name="own")}, {"mcp_server_name": "sums"}, "own", ""),
        ({}, {"service_name": None}, "unknown", ""),
        ({"attributes": attributes(mcp_client_name="claude")}, {}, "calculator", "claude"),
        ({"kind": 3}, {}, "unknown", "calculator"),
        ({"kind": 3, "attributes": attributes(server_address="h")}, {}, "h", "calculator"),
        ({"kind": 3, "attributes": attributes(server_address="h", server_port=80)}, {}, "h:80", "calculator"),
        ({"kind": 3, "attributes": attributes(mcp_server_name="s", server_address="h")}, {}, "s", "calculator"),
    ],
)
def test_which_server_and_client(changes: dict[str, Any], resource: dict[str, Any], server: str, client: str) -> None:
    event = call(span(**changes), **resource)
    assert (event.server, event.client) == (server, client)
    assert event.vantage == ("client" if changes.get("kind") == 3 else "server")


@pytest.mark.parametrize(
    ("name", "named", "tool"),
    [
        ("tools/call add", "sum", "sum"),
        ("tools/call add", None, "add"),
        ("MCP send tools/call add", None, "add"),
        ("MCP send tools/call with space", None, "with space"),
        ("tools/call " + "x" * 500, None, "x" * 200),
        ("tools/call " + "😀" * 200, None, "😀" * 150),
    ],
)
def test_which_tool(name: str, named: str | None, tool: str) -> None:
    assert call(span(name=name, attributes=attributes(gen__ai_tool_name=named))).tool == tool


EXCEPTION = {"name": "exception", "attributes": [attribute("exception.type", "TimeoutError"), attribute("exception.message", "late")]}  # noqa: E501 # fmt: skip


@pytest.mark.parametrize(
    ("changes", "status", "error_type", "message"),
    [
        ({"status": {"code": 1}}, "ok", None, None),
        ({"status": {"code": 2}}, "error", "error", None),
        ({"status": {"code": 2, "message": "no"}}, "error", "error", "no"),
        ({"attributes": attributes(error_type="tool_error"), "status": {"code": 2}}, "error", "tool_error", None),
        ({"attributes": attributes(error_type="tool_error")}, "error", "tool_error", None),
        ({"attributes": attributes(error_type="-32602")}, "error", "mcp:-32602", None),
        ({"attributes": attributes(error_type="-32001")}, "timeout", "mcp:-32001", None),
        ({"attributes": attributes(error_type="builtins.TimeoutError")}, "timeout", "builtins.TimeoutError", None),
        ({"attributes": attributes(error_type="asyncio.CancelledError")}, "cancelled", "asyncio.CancelledError", None),
        ({"status": {"code": 2}, "events": [EXCEPTION]}, "timeout", "TimeoutError", "late"),
        ({"status": {"code": 0}, "events": [EXCEPTION]}, "ok", None, None),
    ],
)  # fmt: skip
def test_how_it_ended(changes: dict[str, Any], status: str, error_type: str | None, message: str | None) -> None:
    event = call(span(**changes))
    assert (event.status, event.error_type, event.error_message) == (status, error_type, message)


@pytest.mark.parametrize(
    ("sent", "transport"),
    [
        ({"network_transport": "pipe"}, "stdio"),
        ({"network_transport": "tcp"}, "http"),
        ({"network_transport": "quic"}, "http"),
        ({"mcp_transport": "sse", "network_transport": "tcp"}, "sse"),
        ({"mcp_transport": "streamable-http"}, "http"),
        ({"network_transport": "smoke"}, ""),
        ({}, ""),
    ],
)
def test_which_transport(sent: dict[str, Any], transport: str) -> None:
    assert call(span(attributes=attributes(**sent))).transport == transport


@pytest.mark.parametrize(
    "changes",
    [
        {"attributes": []},
        {"attributes": attributes(mcp_method_name="tools/list")},
        {"attributes": attributes(mcp_method_name=["tools/call"])},
        {"name": "tools/call"},
        {"attributes": [attribute("gen_ai.operation.name", "execute_tool")]},
    ],
)
def test_other_spans_are_ignored(changes: dict[str, Any]) -> None:
    traces = read(span(**changes), span())
    assert (len(traces.events), traces.rejected, traces.ignored) == (1, [], 1)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"traceId": "xyz"}, "invalid_field"),
        ({"traceId": "0" * 32}, "invalid_field"),
        ({"traceId": ""}, "invalid_field"),
        ({"spanId": "00"}, "invalid_field"),
        ({"startTimeUnixNano": 0}, "missing_field"),
        ({"startTimeUnixNano": "soon"}, "missing_field"),
        ({"startTimeUnixNano": str(START - 8 * 86_400 * 10**9)}, "too_old"),
        ({"startTimeUnixNano": str(START + 86_400 * 10**9), "endTimeUnixNano": 0}, "in_future"),
        ({"startTimeUnixNano": str(2**64 - 1), "endTimeUnixNano": 0}, "in_future"),
        ({"startTimeUnixNano": "9" * 20, "endTimeUnixNano": 0}, "in_future"),
        ({"endTimeUnixNano": str(START - 1)}, "invalid_duration"),
        ({"endTimeUnixNano": "-5"}, "invalid_duration"),
    ],
)
def test_a_call_that_cannot_be_kept_costs_nobody_else(changes: dict[str, Any], code: str) -> None:
    traces = read(span(spanId="aaaaaaaaaaaaaaaa"), span(**changes), span(spanId="bbbbbbbbbbbbbbbb"))
    assert traces.places == [0, 2]
    assert [(one.index, one.code) for one in traces.rejected] == [(1, code)]


def test_a_span_that_has_not_ended_has_no_duration() -> None:
    assert call(span(endTimeUnixNano=0)).duration_ms is None


def test_attributes_are_kept_within_their_limits() -> None:
    sent = attributes(a="x" * 100, b=[1, "two", 3.5], c={"deep": {"er": True}}, d=float(1), e=["y" * 100], f=1, g=2)
    event = call(span(attributes=sent))
    kept = attrs(event)
    assert kept["otel"]["dropped_attributes"] == 2
    del kept["otel"]
    assert kept == {
        "a": "x" * 50,
        "b": [1, "two", 3.5],
        "c": {"deep": {"er": True}},
        "d": 1.0,
        "e": '["' + "y" * 48,
    }


def test_what_postgresql_cannot_keep_is_replaced() -> None:
    sent = [*attributes(), {"key": "d", "value": {"doubleValue": "NaN"}}, attribute("n", "a\0b")]
    event = call(span(attributes=sent, status={"code": 2, "message": "bad \0 byte"}))
    assert attrs(event)["d"] == "NaN"
    assert attrs(event)["n"] == "a�b"
    assert event.error_message == "bad � byte"


def test_deep_attributes_are_cut_off() -> None:
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    event = call(span(attributes=[*attributes(), attribute("deep", deep)]))
    assert "nested too deeply" in json.dumps(attrs(event))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"resourceSpans": 5}', b'{"resourceSpans": [{"scopeSpans": [5]}]}', b"\xff"]
)
def test_json_that_is_no_export_is_refused_whole(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_traces(body, JSON, window=WINDOW, max_calls=1, limits=LIMITS)


def test_unknown_members_are_skipped() -> None:
    assert call(span(flags=257, droppedAttributesCount=1, links=[{}], new={"a": 1})).tool == "add"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_export_or_an_invalid_request(body: bytes) -> None:
    for kind in (JSON, PROTOBUF):
        with suppress(InvalidRequest):
            read_traces(body, kind, window=WINDOW, max_calls=1, limits=LIMITS)


TEXTS = st.text(max_size=20)


@given(TEXTS, TEXTS, TEXTS, st.integers(0, 5), st.integers(0, 2**64 - 1), st.dictionaries(TEXTS, TEXTS, max_size=3))
def test_what_is_taken_can_be_stored(
    name: str, tool: str, message: str, kind: int, start: int, more: dict[str, str]
) -> None:
    """Whatever texts a protobuf span holds, what comes out has no NUL and no name over its length."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    one = group.scope_spans.add().spans.add()
    one.trace_id, one.span_id, one.name, one.kind = b"t" * 16, b"s" * 8, name, kind
    one.start_time_unix_nano = START + start % 10**9
    one.end_time_unix_nano = one.start_time_unix_nano + 1
    one.status.code, one.status.message = 2, message
    for key, value in ({"mcp.method.name": "tools/call", "gen_ai.tool.name": tool} | more).items():
        pair = one.attributes.add()
        pair.key, pair.value.string_value = key, value
    traces = read_traces(request.SerializeToString(), PROTOBUF, window=WINDOW, max_calls=9, limits=LIMITS)
    assert traces.rejected == []
    for event in traces.events:
        encoded = msgspec.json.encode(event)
        assert b"\\u0000" not in encoded
        assert isinstance(msgspec.json.decode(encoded, type=ToolCall), ToolCall)
