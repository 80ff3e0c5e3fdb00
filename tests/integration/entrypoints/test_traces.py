"""POST /v1/traces: real exporters, both encodings, limits, and answers in the protocol's own terms."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from google.rpc.status_pb2 import Status
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from hubscope.app import App
from hubscope.errors import CommitUnknown, HubscopeError, QueueFull
from hubscope.ingest import Ingest
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.conftest import held
from tests.events import tool_call
from tests.integration.entrypoints.test_events import client_of, listening, until

pytestmark = [pytest.mark.bridge, pytest.mark.integration]

PATH: Final = "/v1/traces"
JSON: Final = {"content-type": "application/json"}
PROTOBUF: Final = {"content-type": "application/x-protobuf"}
SCRIPT: Final = Path(__file__).with_name("otlp_server.py")


def span(tool: str = "add", *, number: int = 1, kind: int = 2, **changes: Any) -> dict[str, Any]:
    """A span of a tool call of now, as OTLP/JSON writes it."""
    start = time.time_ns() - 1_000_000_000
    return {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": f"tools/call {tool}",
        "kind": kind,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 12_500_000),
        "attributes": [
            {"key": "mcp.method.name", "value": {"stringValue": "tools/call"}},
            {"key": "gen_ai.tool.name", "value": {"stringValue": tool}},
        ],
        "status": {},
    } | changes


def export(*spans: dict[str, Any], service: str = "calculator") -> dict[str, Any]:
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
                "scopeSpans": [{"scope": {"name": "mcp-python-sdk"}, "spans": list(spans)}],
            }
        ]
    }


def protobuf(document: dict[str, Any]) -> bytes:
    """The same export as protobuf (whose own JSON reader takes ids as base64, so they are set by hand)."""
    from google.protobuf.json_format import ParseDict

    request = ExportTraceServiceRequest()
    bare = json.loads(json.dumps(document))
    ids = []
    for group in bare["resourceSpans"]:
        for scoped in group["scopeSpans"]:
            for one in scoped["spans"]:
                ids.append((one.pop("traceId"), one.pop("spanId")))
    ParseDict(bare, request)
    spans = [one for group in request.resource_spans for scoped in group.scope_spans for one in scoped.spans]
    for one, (trace_id, span_id) in zip(spans, ids, strict=True):
        one.trace_id, one.span_id = bytes.fromhex(trace_id), bytes.fromhex(span_id)
    return bytes(request.SerializeToString())


async def stored(admin: Connection) -> list[Any]:
    return list(await admin.fetch("SELECT * FROM raw.tool_calls ORDER BY time, tool"))


def environment(port: int, service: str) -> dict[str, str]:
    """What a user sets to send a Python program's spans to hubscope."""
    return {
        **os.environ,
        "OTEL_SERVICE_NAME": service,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def instrumented(port: int, service: str, *arguments: str, **more: str) -> StdioServerParameters:
    """An MCP server run under opentelemetry-instrument."""
    program = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    return StdioServerParameters(
        command=program, args=[sys.executable, *arguments], env=environment(port, service) | more
    )


# Real programs


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_calls_of_an_instrumented_server_become_rows(app: App, admin: Connection, compression: str) -> None:
    async with listening(app) as port:
        server = instrumented(port, "calculator", str(SCRIPT), OTEL_EXPORTER_OTLP_COMPRESSION=compression)
        async with Client(stdio_client(server)) as client:
            assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
            assert (await client.call_tool("refuse", {"reason": "x"})).is_error
            assert (await client.call_tool("nothing", {})).is_error
            await client.list_tools()

        async def there() -> bool:
            return len(await stored(admin)) == 3

        await until(there)
    rows = {row["tool"]: row for row in await stored(admin)}
    assert {row["server"] for row in rows.values()} == {"calculator"}
    assert {row["vantage"] for row in rows.values()} == {"server"}
    assert {tool: row["status"] for tool, row in rows.items()} == {"add": "ok", "refuse": "error", "nothing": "error"}
    assert rows["refuse"]["error_type"] == "tool_error"
    assert all(
        row["duration_ms"] > 0 and len(row["trace_id"]) == 32 and len(row["span_id"]) == 16 for row in rows.values()
    )
    assert await admin.fetchval("SELECT sum(calls) FROM rollup.tool_calls_hourly") == 3
    samples = [sample for family in app.instruments.spans.collect() for sample in family.samples]
    outcomes = {sample.labels["outcome"]: sample.value for sample in samples}
    assert outcomes["accepted"] == 3
    assert outcomes["ignored"] >= 1  # initialize or discovery, tools/list


async def test_the_reference_time_server_is_seen_without_a_change_to_it(app: App, admin: Connection) -> None:
    async with listening(app) as port:
        server = instrumented(port, "time", "-m", "mcp_server_time", "--local-timezone", "UTC")
        async with Client(stdio_client(server)) as client:
            assert not (await client.call_tool("get_current_time", {"timezone": "UTC"})).is_error
            with pytest.raises(MCPError):
                await client.call_tool("nothing", {})

        async def there() -> bool:
            return len(await stored(admin)) == 2

        await until(there)
    rows = [tuple(row[name] for name in ("server", "tool", "status", "error_type")) for row in await stored(admin)]
    assert rows == [("time", "get_current_time", "ok", None), ("time", "nothing", "error", "mcp:-32602")]


async def test_a_call_seen_by_client_and_server_is_counted_once(app: App, admin: Connection) -> None:
    """Both ends under opentelemetry-instrument: two spans of one trace, one call."""
    code = f"""
import asyncio, sys
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
import os
async def main():
    env = dict(os.environ) | {{"OTEL_SERVICE_NAME": "calculator"}}
    server = StdioServerParameters(command={str(Path(sys.executable).with_name("opentelemetry-instrument"))!r},
                                   args=[sys.executable, {str(SCRIPT)!r}], env=env)
    async with Client(stdio_client(server)) as client:
        for number in range(3):
            await client.call_tool("add", {{"a": number, "b": 2}})
asyncio.run(main())
"""
    async with listening(app) as port:
        program = str(Path(sys.executable).with_name("opentelemetry-instrument"))
        agent = await asyncio.create_subprocess_exec(
            program, sys.executable, "-c", code, env=environment(port, "agent")
        )
        assert await agent.wait() == 0

        async def there() -> bool:
            return len(await stored(admin)) == 6

        await until(there)
    rows = await stored(admin)
    assert {(row["vantage"], row["server"], row["client"], row["tool"], row["counted"]) for row in rows} == {
        ("server", "calculator", "", "add", True),
        ("client", "unknown", "agent", "add", False),
    }
    assert len({row["trace_id"] for row in rows}) == 3
    assert await admin.fetchval("SELECT sum(calls) FROM rollup.tool_calls_hourly") == 3


# Both encodings by hand


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", [JSON, PROTOBUF], ids=["json", "protobuf"])
async def test_an_export_is_answered_in_kind_after_the_commit(
    client: httpx2.AsyncClient, admin: Connection, kind: dict[str, str], zipped: bool
) -> None:
    document = export(span(), span(number=2, attributes=[]), span(number=3, startTimeUnixNano="1", endTimeUnixNano="2"))
    body = json.dumps(document).encode() if kind is JSON else protobuf(document)
    headers = kind | ({"content-encoding": "gzip"} if zipped else {})
    for _ in range(2):  # an export that is sent again is the same events
        response = await client.post(PATH, content=gzip.compress(body) if zipped else body, headers=headers)
        assert response.status_code == 200
        assert response.headers["content-type"] == kind["content-type"]
        if kind is JSON:
            partial = response.json()["partialSuccess"]
            assert partial["rejectedSpans"] == "1"
            assert "too_old" in partial["errorMessage"]
        else:
            answer = ExportTraceServiceResponse.FromString(response.content)
            assert answer.partial_success.rejected_spans == 1
            assert "too_old" in answer.partial_success.error_message
        assert len(await stored(admin)) == 1
    assert await admin.fetchval("SELECT sum(calls) FROM rollup.tool_calls_hourly") == 1


async def test_both_encodings_of_a_span_are_one_event(client: httpx2.AsyncClient, admin: Connection) -> None:
    document = export(span())
    await client.post(PATH, json=document)
    before = await stored(admin)
    response = await client.post(PATH, content=protobuf(document), headers=PROTOBUF)
    assert response.content == b""  # a full success is the empty message
    assert await stored(admin) == before


async def test_a_full_success_in_json_is_an_empty_object(client: httpx2.AsyncClient) -> None:
    response = await client.post(PATH, json=export(span()))
    assert (response.status_code, response.json()) == (200, {})
    assert (await client.post(PATH, json={})).json() == {}
    assert (await client.post(PATH, content=b"", headers=PROTOBUF)).content == b""


def rpc(response: httpx2.Response, kind: dict[str, str]) -> tuple[int, str]:
    """Code and message of the google.rpc.Status in an answer."""
    assert response.headers["content-type"] == kind["content-type"]
    if kind is JSON:
        body = response.json()
        return body["code"], body["message"]
    status = Status.FromString(response.content)
    return status.code, status.message


@pytest.mark.parametrize("kind", [JSON, PROTOBUF], ids=["json", "protobuf"])
@pytest.mark.parametrize(
    ("error", "code"), [(QueueFull(), 14), (CommitUnknown(), 14), (HubscopeError("ours alone"), 13)]
)
async def test_what_may_be_sent_again_is_told_by_the_status(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, kind: dict[str, str], error: HubscopeError, code: int
) -> None:
    async def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(Ingest, "spans", fail)
    response = await client.post(PATH, content=b"", headers=kind)
    assert response.status_code == error.status
    assert rpc(response, kind) == (code, error.detail)
    assert ("retry-after" in response.headers) == (error.status == 503)


async def test_an_unknown_failure_shows_nothing_of_ours(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        raise RuntimeError("a path, a host")

    monkeypatch.setattr(Ingest, "spans", fail)
    response = await client.post(PATH, content=b"", headers=PROTOBUF)
    assert response.status_code == 500
    assert "a path" not in rpc(response, PROTOBUF)[1]


@pytest.mark.parametrize("kind", [JSON, PROTOBUF], ids=["json", "protobuf"])
async def test_a_body_that_cannot_be_read_is_a_permanent_400(client: httpx2.AsyncClient, kind: dict[str, str]) -> None:
    for body in (b"\xff\xff\xff", b"{" * 5, b"{" * 100_000, gzip.compress(b"x")):
        response = await client.post(PATH, content=body, headers=kind)
        assert response.status_code == 400
        code, message = rpc(response, kind)
        assert code == 3
        assert message


@pytest.mark.parametrize("content_type", ["text/plain", "application/grpc", "", "application/x-ndjson"])
async def test_another_type_is_415(client: httpx2.AsyncClient, content_type: str) -> None:
    response = await client.post(PATH, content=b"{}", headers={"content-type": content_type})
    assert response.status_code == 415
    assert "application/x-protobuf" in rpc(response, JSON)[1]


async def test_another_method_is_405(client: httpx2.AsyncClient) -> None:
    response = await client.get(PATH)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_a_type_may_carry_parameters(client: httpx2.AsyncClient) -> None:
    response = await client.post(
        PATH, content=json.dumps(export(span())), headers={"content-type": "Application/JSON; charset=utf-8"}
    )
    assert response.status_code == 200


@pytest.fixture
async def small(database: str, settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a service with small limits."""
    limits = settings.model_copy(update={"max_body_bytes": 4_000, "max_decoded_bytes": 9_000, "max_batch_events": 3})
    async with held(client_of(limits, database)) as one:
        yield one


async def test_an_export_over_a_limit_is_refused_whole(small: httpx2.AsyncClient, admin: Connection) -> None:
    many = protobuf(export(*(span(number=number) for number in range(1, 5))))
    for body, headers in (
        (many, PROTOBUF),
        (b" " * 4_001, PROTOBUF),
        (gzip.compress(b" " * 9_001), PROTOBUF | {"content-encoding": "gzip"}),
    ):
        response = await small.post(PATH, content=body, headers=headers)
        assert response.status_code == 413
        assert rpc(response, PROTOBUF)[0] == 3
    assert await stored(admin) == []


async def test_posts_and_spans_are_measured(client: httpx2.AsyncClient, app: App) -> None:
    old = span(number=2, startTimeUnixNano="1", endTimeUnixNano="2")
    await client.post(PATH, json=export(span(), old, span(number=3, attributes=[])))
    await client.post(PATH, content=b"{", headers=JSON)
    registry = app.instruments.registry
    spans = {
        outcome: registry.get_sample_value("hubscope_otlp_spans_total", {"outcome": outcome})
        for outcome in ("accepted", "rejected", "ignored")
    }
    assert spans == {"accepted": 1, "rejected": 1, "ignored": 1}
    for status in ("200", "400"):
        assert registry.get_sample_value("hubscope_otlp_exports_total", {"status": status}) == 1


async def test_openapi_describes_what_is_served_in_front_of_it(client: httpx2.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert set(paths[PATH]["post"]["requestBody"]["content"]) == {"application/json", "application/x-protobuf"}
    assert "/v1/events" in paths


async def test_spans_and_events_stand_side_by_side(client: httpx2.AsyncClient, admin: Connection) -> None:
    await client.post("/v1/events", json=[tool_call(vantage="wrapper", server="other")])
    await client.post(PATH, json=export(span()))
    rows = await admin.fetch("SELECT server, vantage FROM raw.tool_calls ORDER BY server")
    assert [tuple(row) for row in rows] == [("calculator", "server"), ("other", "wrapper")]
