"""The demo's pure parts: what a call counts as, the declaration, the plan, the ledger, the pauses between tries."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from mcp import MCPError
from mcp_types import CallToolResult, TextContent

from hubscope.entrypoints.demo import NEEDED, CallRecord, Ledger
from hubscope.entrypoints.demo_places import Places
from hubscope.entrypoints.demo_poster import pause_seconds
from hubscope.entrypoints.demo_servers import DECLARATION, DemoFailed, read_specs, shipped_specs
from hubscope.entrypoints.demo_traffic import FAILS, SHARE, WORKS, judge, plan

PLACES = Places("http://127.0.0.1:3401", Path("/demo/files"), Path("/demo/repository"))
SERVERS = ["time", "fetch", "git", "filesystem"]


def _result(text: str, *, is_error: bool) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)


@pytest.mark.parametrize(
    ("outcome", "status", "error_type", "error_message"),
    [
        (_result("fine", is_error=False), "ok", None, None),
        (_result("status code 404", is_error=True), "error", "tool_error", "status code 404"),
        (CallToolResult(content=[], is_error=True), "error", "tool_error", ""),
        (_result("x" * 9_000, is_error=True), "error", "tool_error", "x" * 2_000),
        (MCPError(code=-32602, message="Unknown tool: x"), "error", "mcp:-32602", "Unknown tool: x"),
        (MCPError(code=-32000, message="Connection closed"), "error", "mcp:-32000", "Connection closed"),
        (MCPError(code=-32001, message="timed out"), "timeout", "timeout", "timed out"),
        (RuntimeError("Invalid structured content"), "error", "RuntimeError", "Invalid structured content"),
        (asyncio.CancelledError(), "cancelled", "cancelled", None),
    ],
)
def test_a_call_counts_as_what_its_outcome_says(
    outcome: CallToolResult | BaseException, status: str, error_type: str | None, error_message: str | None
) -> None:
    verdict = judge(outcome)
    assert (verdict.status, verdict.error_type, verdict.error_message) == (status, error_type, error_message)


def test_the_size_of_an_answer_is_known_and_that_of_a_missing_answer_is_not() -> None:
    assert (judge(_result("fine", is_error=False)).response_bytes or 0) > len("fine")
    assert judge(MCPError(code=-32001, message="timed out")).response_bytes is None


def test_placeholders_are_replaced_in_command_arguments_and_environment() -> None:
    entry = {"command": "${PYTHON}", "args": ["-m", "x", "${WORKDIR}/files"], "env": {"AT": "${HUBSCOPE_URL}/mcp"}}
    places = {"PYTHON": "python3", "WORKDIR": "/demo", "HUBSCOPE_URL": "http://127.0.0.1:1"}
    [spec] = read_specs(json.dumps({"mcpServers": {"x": entry}}), places, {})
    assert (spec.command, spec.args, spec.env) == (
        "python3",
        ("-m", "x", "/demo/files"),
        {"AT": "http://127.0.0.1:1/mcp"},
    )


def test_an_unknown_placeholder_is_named() -> None:
    text = json.dumps({"mcpServers": {"x": {"command": "${NOWHERE}/x"}}})
    with pytest.raises(DemoFailed, match="NOWHERE"):
        read_specs(text, {}, {})


def test_a_server_inherits_the_environment_it_asks_for_and_no_other() -> None:
    entry = {"command": "x", "inherit": ["npm_config_*"], "env": {"npm_config_b": "own"}}
    environ = {"npm_config_a": "1", "npm_config_b": "2", "SECRET": "3"}
    [spec] = read_specs(json.dumps({"mcpServers": {"x": entry}}), {}, environ)
    assert spec.env == {"npm_config_a": "1", "npm_config_b": "own"}


def test_a_program_that_is_required_and_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "npx" else f"/bin/{program}")
    specs = {spec.name: spec for spec in shipped_specs(Path("/demo"), PLACES.service_url)}
    assert (specs["filesystem"].missing(), specs["git"].missing(), specs["time"].missing()) == (["npx"], [], [])


def test_every_declared_server_has_calls_that_work_and_calls_that_fail() -> None:
    declared = set(json.loads(DECLARATION.read_text(encoding="utf-8"))["mcpServers"])
    assert declared == set(WORKS) == set(FAILS) == set(SHARE)
    assert declared.issuperset(NEEDED)


@pytest.mark.parametrize("servers", [SERVERS, ["time", "fetch"], ["git"]])
@pytest.mark.parametrize("calls", [1, 2, 40, 240])
def test_a_burst_has_exactly_the_calls_that_were_asked_for(servers: list[str], calls: int) -> None:
    steps = [step for planned in plan(servers, calls, PLACES).values() for step in planned]
    assert len(steps) == calls
    assert sum(step.while_stopped for step in steps) == min(3, calls)


def test_the_same_seed_makes_the_same_burst_and_another_seed_another() -> None:
    assert plan(SERVERS, 240, PLACES) == plan(SERVERS, 240, PLACES)
    assert plan(SERVERS, 240, PLACES) != plan(SERVERS, 240, PLACES, seed=1)


def test_a_full_burst_fails_in_every_way_of_every_server() -> None:
    planned = plan(SERVERS, 240, PLACES)
    works = {server: {tool for tool, _ in recipes} for server, recipes in WORKS.items()}
    for server, steps in planned.items():
        unknown = {step.tool for step in steps} - works[server]
        assert len(unknown) == 1, f"{server} should be asked for one tool that it does not have"
    pages = [str(step.arguments.get("url")) for step in planned["fetch"]]
    assert any("/no-such-page-" in page for page in pages)
    assert any(not step.arguments for step in planned["time"])


def test_the_ledger_sums_up_calls_by_status_server_and_tool() -> None:
    ledger = Ledger(
        [
            CallRecord("time", "get_current_time", "ok", 2.0),
            CallRecord("time", "get_current_time", "timeout", 500.0),
            CallRecord("fetch", "fetch", "ok", 40.0),
        ]
    )
    assert ledger.summary() == {
        "calls": 3,
        "by_status": {"ok": 2, "timeout": 1},
        "by_server": {"time": 2, "fetch": 1},
        "by_tool": {"time/get_current_time": 2, "fetch/fetch": 1},
    }


@pytest.mark.parametrize(
    ("tries", "retry_after", "seconds"),
    [
        (1, None, 0.1),
        (3, None, 0.4),
        (7, None, 5.0),
        (1, "2", 2.0),
        (1, "0", 0.0),
        (1, "3600", 5.0),
        (2, "Sat, 21 Nov 2026 20:00:00 GMT", 0.2),
        (1, "-1", 5.0),
        (1, "nan", 5.0),
    ],
)
def test_the_pause_before_another_try_is_what_the_service_asks_for_within_limits(
    tries: int, retry_after: str | None, seconds: float
) -> None:
    assert pause_seconds(tries, retry_after) == pytest.approx(seconds)
