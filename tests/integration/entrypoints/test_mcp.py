"""The meta-tools as MCP clients meet them: over real HTTP, with the real SDK."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import jsonschema
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from hubscope.entrypoints.serve import listen, serving
from hubscope.settings import Settings
from tests.conftest import held
from tests.events import tool_call

pytestmark = [pytest.mark.meta_tools, pytest.mark.integration]


@pytest.fixture
async def url(settings: Settings, database: str) -> AsyncIterator[str]:
    """Where the service listens."""
    listener = listen(settings.model_copy(update={"port": 0}))
    async with held(serving(settings, database, listener)) as (address, _):
        yield address
    listener.close()


@asynccontextmanager
async def mcp_client(url: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        yield client


async def call(url: str, **arguments: object) -> CallToolResult:
    async with mcp_client(url) as client:
        return await client.call_tool("hub__analytics_advanced", arguments)


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def test_the_tool_describes_itself_whole(url: str) -> None:
    async with mcp_client(url) as client:
        tool = (await client.list_tools()).tools[0]
    assert tool.name == "hub__analytics_advanced"
    assert tool.title
    assert tool.description
    assert tool.annotations is not None
    assert tool.annotations.read_only_hint is True
    parameters = tool.input_schema["properties"]
    assert {"timeRange", "includeRealTime", "groupBy", "includeMetadata", "format"} <= parameters.keys()
    assert parameters["groupBy"]["enum"] == ["minute", "hour", "day"]
    assert parameters["format"]["enum"] == ["detailed", "json"]
    assert all(parameter.get("description") for parameter in parameters.values())
    assert tool.output_schema is not None
    assert {"overview", "time_series", "servers", "freshness", "marts"} <= tool.output_schema["properties"].keys()


async def test_the_answer_fits_its_schema_and_says_the_same_in_both_formats(url: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{url}/v1/events", json=[tool_call(status="error"), tool_call(tool="read_file")])
        assert answer.json()["accepted"] == 2
    async with mcp_client(url) as client:
        tool = (await client.list_tools()).tools[0]
        arguments = {"timeRange": "1 hour", "groupBy": "minute"}
        detailed = await client.call_tool(tool.name, arguments)
        as_json = await client.call_tool(tool.name, arguments | {"format": "json"})
    assert tool.output_schema is not None
    for result in (detailed, as_json):
        assert not result.is_error
        jsonschema.validate(result.structured_content, tool.output_schema)
        assert result.structured_content is not None
        assert result.structured_content["overview"]["usage"] == {
            "calls": 2, "ok": 1, "errors": 1, "timeouts": 0, "cancelled": 0, "denied": 0, "success_rate": 0.5,
        }  # fmt: skip
    assert text_of(detailed).startswith("# Tool analytics")
    assert json.loads(text_of(as_json)) == as_json.structured_content


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"timeRange": "3 fortnights"}, ["timeRange", "'24 hours'"]),
        ({"timeRange": "2 days", "groupBy": "minute"}, ["groupBy", "24 hours"]),
        ({"groupBy": "week"}, ["groupBy", "minute", "hour", "day"]),
        ({"format": "xml"}, ["format", "detailed", "json"]),
        ({"top": 0}, ["top", "greater than or equal to 1"]),
    ],
)
async def test_a_wrong_argument_is_named_with_what_is_allowed(
    url: str, arguments: dict[str, object], words: list[str]
) -> None:
    result = await call(url, **arguments)
    assert result.is_error
    assert all(word in text_of(result) for word in words), text_of(result)
    assert "Traceback" not in text_of(result)


async def test_an_empty_hub_is_told_in_words(url: str) -> None:
    result = await call(url)
    assert "Nothing has been recorded yet" in text_of(result)
    assert result.structured_content is not None
    assert result.structured_content["empty"] is True
    assert result.structured_content["overview"] is None


async def test_meta_tools_can_be_switched_off(settings: Settings, database: str) -> None:
    off = settings.model_copy(update={"enable_enhanced_analytics": False, "port": 0})
    listener = listen(off)
    async with held(serving(off, database, listener)) as (address, _), mcp_client(address) as client:
        assert (await client.list_tools()).tools == []
    listener.close()


async def test_a_page_of_another_site_cannot_reach_the_tools(url: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{url}/mcp", json={}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden_origin"


async def test_the_same_tools_are_served_over_stdio(settings: Settings, database: str, directory: Path) -> None:
    environment = {
        "HUBSCOPE_DATABASE_URL": database,
        "HUBSCOPE_ROLE_PREFIX": settings.role_prefix or "",
        "PATH": os.environ["PATH"],
    }
    with open(directory / "stderr", "w+") as stderr:
        parameters = StdioServerParameters(command=sys.executable, args=["-m", "hubscope", "mcp"], env=environment)
        async with Client(stdio_client(parameters, errlog=stderr)) as client:
            result = await client.call_tool("hub__analytics_advanced", {})
    assert "Nothing has been recorded yet" in text_of(result)


async def test_the_rest_twin_gives_the_same_answer(url: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        await http.post(f"{url}/v1/events", json=[tool_call()])
        twin = (await http.get(f"{url}/api/v1/analytics", params={"timeRange": "1 hour"})).json()
        wrong = await http.get(f"{url}/api/v1/analytics", params={"timeRange": "soon"})
    structured = (await call(url, timeRange="1 hour")).structured_content
    assert structured is not None
    for moving in ("window", "freshness"):
        twin.pop(moving), structured.pop(moving)
    assert twin == structured
    assert wrong.status_code == 400
    assert wrong.headers["content-type"] == "application/problem+json"
    assert "timeRange" in wrong.json()["detail"]
