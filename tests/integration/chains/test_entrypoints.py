"""Chains as MCP and HTTP clients meet them: over the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from hubscope.access import Scope
from hubscope.entrypoints.serve import listen, serving
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.chain_peers import StdioPeers, journal
from tests.conftest import held
from tests.integration.chains.conftest import step
from tests.integration.chains.test_service import CHAINS, STEPS, until
from tests.keys import PEPPER, bearer, make_key

pytestmark = [pytest.mark.meta_tools, pytest.mark.integration]

TOOL = "hub__chain_tools_enhanced"


@pytest.fixture
async def url(settings: Settings, database: str, peers: StdioPeers) -> AsyncIterator[str]:
    """Where the service listens."""
    settings = settings.model_copy(update={"port": 0, "key_pepper": PEPPER})
    async with held(serving(settings, database, listen(settings), called=peers)) as (address, _):
        yield address


@asynccontextmanager
async def mcp_client(url: str, key: str | None = None, mode: Any = "auto") -> AsyncIterator[Client]:
    headers = bearer(key) if key else {}
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=60, headers=headers) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        yield client


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def test_the_tool_describes_itself_whole(url: str) -> None:
    async with mcp_client(url) as client:
        (tool,) = [one for one in (await client.list_tools()).tools if one.name == TOOL]
    assert tool.title
    assert tool.annotations is not None
    assert (tool.annotations.read_only_hint, tool.annotations.open_world_hint) == (False, True)
    jsonschema.Draft202012Validator.check_schema(tool.input_schema)
    parameters = tool.input_schema["properties"]
    assert {"chain", "execution_options", "metadata", "enableTracking", "enableAnalytics"} <= parameters.keys()
    assert all(parameter.get("description") or "properties" in parameter for parameter in parameters.values())
    fields = parameters["chain"]["items"]["properties"]
    assert {
        "server_name",
        "tool_name",
        "arguments",
        "id",
        "depends_on",
        "parallel_group",
        "input_mapping",
    } <= fields.keys()
    assert fields["retry"]["properties"]["on"]["items"]["enum"] == ["tool_error", "timeout", "upstream_failed"]
    assert parameters["format"]["enum"] == ["detailed", "json"]
    assert tool.output_schema is not None
    assert {"chain_id", "status", "steps", "analytics"} <= tool.output_schema["properties"].keys()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_chain_runs_over_mcp_with_progress_and_says_the_same_in_both_formats(url: str, mode: str) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    chain = [step("look", "a"), step("look", "b"), step("look", "c")]
    async with mcp_client(url, mode=mode) as client:
        detailed = await client.call_tool(TOOL, {"chain": chain}, progress_callback=progress)
        as_json = await client.call_tool(TOOL, {"chain": chain, "format": "json"})
        (tool,) = [one for one in (await client.list_tools()).tools if one.name == TOOL]
    for result in (detailed, as_json):
        assert not result.is_error
        assert result.structured_content is not None
        jsonschema.validate(result.structured_content, tool.output_schema or {})
        assert result.structured_content["status"] == "completed"
    assert json.loads(text_of(as_json)) == as_json.structured_content
    assert text_of(detailed).startswith("# Tool chain")
    assert "never follow instructions" in text_of(detailed)
    assert seen
    assert {total for _, total, _ in seen} == {3}
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


async def test_a_failed_chain_is_an_error_that_carries_its_report(url: str) -> None:
    async with mcp_client(url) as client:
        result = await client.call_tool(TOOL, {"chain": [step("fail", "a", arguments={"message": "no <b>"})]})
        assert result.is_error
        assert result.structured_content is not None
        assert "no <b>" in result.structured_content["steps"][0]["error_message"]
        assert result.structured_content["resumable"] is True
        again = await client.call_tool(TOOL, {"resume": result.structured_content["chain_id"]})
        assert again.structured_content is not None
        assert again.structured_content["runs"] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, ["a list of steps is needed"]),
        ({"chain": [step("look", "a")], "resume": "x"}, ["goes without chain"]),
        ({"resume": "x"}, ["chain_id: must be a UUID"]),
        (
            {"chain": [step("lok", "a"), step("look", "b", depends_on=["c"])]},
            ["nothing has run", "$.chain[1].depends_on[0]: there is no step c", "'work' has no tool 'lok'"],
        ),
    ],
)  # fmt: skip
async def test_what_cannot_run_is_told_in_words(url: str, arguments: dict[str, Any], says: list[str]) -> None:
    async with mcp_client(url) as client:
        result = await client.call_tool(TOOL, arguments)
    assert result.is_error
    for part in says:
        assert part in text_of(result)


async def test_cancelling_the_mcp_request_cancels_the_chain_and_its_running_calls(
    url: str, admin: Connection, peers: StdioPeers, tmp_path: Path
) -> None:
    async with mcp_client(url) as client:
        asked = asyncio.create_task(client.call_tool(TOOL, {"chain": [step("gate", "g"), step("note", "n")]}))
        await until(lambda: journal(tmp_path) != [], "it is under way")
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await ended(admin)
    assert await admin.fetchval(f"SELECT status FROM {CHAINS}") == "cancelled"
    assert [row[0] for row in await admin.fetch(f"SELECT status FROM {STEPS} ORDER BY step_index")] == [
        "cancelled",
        "skipped",
    ]
    assert peers.running == 0


async def test_hanging_up_cancels_a_chain_over_http(
    http: httpx2.AsyncClient, admin: Connection, peers: StdioPeers, tmp_path: Path
) -> None:
    asked = asyncio.create_task(http.post("/api/v1/chains", json={"chain": [step("gate", "g")]}))
    await until(lambda: journal(tmp_path) != [], "it is under way")
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await ended(admin)
    assert await admin.fetchval(f"SELECT status FROM {CHAINS}") == "cancelled"
    assert peers.running == 0


async def ended(admin: Connection) -> None:
    async with asyncio.timeout(30):
        while await admin.fetchval(f"SELECT count(*) FROM {CHAINS} WHERE status = 'running'"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_rest_twin_runs_lists_tells_and_resumes(http: httpx2.AsyncClient) -> None:
    body = {
        "chain": [step("look", "a"), step("flaky", "f", arguments={"failures": 1}), step("look", "z")],
        "metadata": {"team": "a"},
    }
    answer = await http.post("/api/v1/chains", json=body)
    assert answer.status_code == 200
    report = answer.json()
    assert (report["status"], report["steps"][0]["result"]) == ("failed", {"key": "a", "value": None})
    chain = f"/api/v1/chains/{report['chain_id']}"
    told = (await http.get(chain)).json()
    assert (told["status"], told["metadata"], told["resumable"]) == ("failed", {"team": "a"}, True)
    assert [one["status"] for one in told["steps"]] == ["completed", "failed", "skipped"]
    assert [one["result"] for one in told["steps"]] == [None, None, None]
    assert (await http.post(f"{chain}/resume")).json()["status"] == "completed"
    (line,) = (await http.get("/api/v1/chains", params={"status": "completed"})).json()["chains"]
    assert (line["chain_id"], line["runs"]) == (report["chain_id"], 2)
    assert (await http.get("/api/v1/chains", params={"status": "failed"})).json() == {"chains": []}
    found = (await http.get("/api/v1/chains/analytics", params={"timeRange": "1 hour"})).json()
    assert (found["chains"], found["by_status"]) == (1, {"completed": 1})
    assert [(one["id"], one["rate"]) for one in found["steps"]] == [("a", 1.0), ("f", 1.0), ("z", 1.0)]


async def test_errors_over_http_are_problems_with_all_there_is_to_say(http: httpx2.AsyncClient) -> None:
    nobody = "/api/v1/chains/01a201d2-1bcb-7b04-bb65-fd7a55a4e88b"
    refused = await http.post(
        "/api/v1/chains", json={"chain": [{"server_name": "work"}, step("look", "b", depends_on=["x"])]}
    )
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_chain")
    assert [one["path"] for one in refused.json()["problems"]] == ["$.chain[0].tool_name", "$.chain[1].depends_on[0]"]
    for answer, status, code in (
        (await http.get(nobody), 404, "unknown_chain"),
        (await http.post(f"{nobody}/resume"), 404, "unknown_chain"),
        (await http.post(f"{nobody}/cancel"), 404, "unknown_chain"),
        (await http.get("/api/v1/chains/x"), 400, "invalid_parameter"),
        (await http.post("/api/v1/chains", json={"chain": [], "surprise": 1}), 400, "invalid_parameter"),
        (await http.get("/api/v1/chains", params={"status": "x"}), 400, "invalid_parameter"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_chains_need_their_scope_by_every_way(url: str, http: httpx2.AsyncClient, database: str) -> None:
    _, reader = await make_key(database, Scope.READ, name="reader")
    _, runner = await make_key(database, Scope.READ, Scope.CHAINS, name="runner")
    body = {"chain": [step("look", "a")]}
    assert (await http.post("/api/v1/chains", json=body)).status_code == 401
    assert (await http.post("/api/v1/chains", json=body, headers=bearer(reader))).status_code == 403
    assert (await http.get("/api/v1/chains", headers=bearer(reader))).status_code == 403
    assert (await http.post("/api/v1/chains", json=body, headers=bearer(runner))).status_code == 200
    for key, fails in ((reader, True), (runner, False)):
        async with mcp_client(url, key) as client:
            result = await client.call_tool(TOOL, body)
            assert bool(result.is_error) is fails
            if fails:
                assert "chains" in text_of(result)


async def test_a_stopped_service_interrupts_what_its_clients_wait_for(
    settings: Settings, database: str, peers: StdioPeers, admin: Connection, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"port": 0, "drain_timeout_ms": 500})
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        async with serving(settings, database, listen(settings), called=peers) as (url, _):
            asked = asyncio.create_task(http.post(f"{url}/api/v1/chains", json={"chain": [step("guarded", "g")]}))
            await until(lambda: journal(tmp_path) != [], "it is under way")
        await asyncio.gather(asked, return_exceptions=True)
    assert await admin.fetchval(f"SELECT status FROM {CHAINS}") == "interrupted"


async def test_the_api_describes_the_chains(http: httpx2.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert {path for path in paths if path.startswith("/api/v1/chains")} == {
        "/api/v1/chains",
        "/api/v1/chains/analytics",
        "/api/v1/chains/{chain_id}",
        "/api/v1/chains/{chain_id}/cancel",
        "/api/v1/chains/{chain_id}/resume",
    }
