"""What the demo asks of its servers, and what an outcome is called. Pure: no processes, no network.

Most calls succeed; every tenth of a server fails for real, in turn by each of that server's ways to fail; and a few
find the server standing still until they time out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, Final

from mcp import MCPError
from mcp_types import REQUEST_TIMEOUT, CallToolResult, TextContent

from hubscope.entrypoints.demo_places import TOPICS, Places
from hubscope.model import CallStatus

SEED: Final = 20261121
FAIL_EVERY: Final = 10
STOPPED_CALLS: Final = 3
MESSAGE_CHARACTERS: Final = 2000


@dataclass(frozen=True, slots=True)
class Step:
    """One call to make. `while_stopped`: the server's processes stand still until the call has timed out."""

    server: str
    tool: str
    arguments: dict[str, Any]
    while_stopped: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a call ended. `response_bytes` is the size of the answer as JSON; None when there was none."""

    status: CallStatus
    error_type: str | None = None
    error_message: str | None = None
    response_bytes: int | None = None


def judge(outcome: CallToolResult | BaseException) -> Verdict:
    """What a call's result or exception counts as. A result with isError is an error, never a success."""
    match outcome:
        case CallToolResult():
            size = len(outcome.model_dump_json(by_alias=True, exclude_none=True).encode())
            if not outcome.is_error:
                return Verdict("ok", response_bytes=size)
            text = next((part.text for part in outcome.content if isinstance(part, TextContent)), "")
            return Verdict("error", "tool_error", text[:MESSAGE_CHARACTERS], size)
        case MCPError() if outcome.code == REQUEST_TIMEOUT:
            return Verdict("timeout", "timeout", outcome.message[:MESSAGE_CHARACTERS])
        case MCPError():
            size = len(outcome.error.model_dump_json(by_alias=True, exclude_none=True).encode())
            return Verdict("error", f"mcp:{outcome.code}", outcome.message[:MESSAGE_CHARACTERS], size)
        case asyncio.CancelledError():
            return Verdict("cancelled", "cancelled")
        case _:
            return Verdict("error", type(outcome).__name__, str(outcome)[:MESSAGE_CHARACTERS])


Arguments = Callable[[Random, Places], dict[str, Any]]

_ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Asia/Kathmandu", "Australia/Sydney")


def _time_of_day(rng: Random) -> str:
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"


def _conversion(rng: Random, target: str) -> dict[str, Any]:
    return {"source_timezone": rng.choice(_ZONES), "time": _time_of_day(rng), "target_timezone": target}


def _repository(places: Places, **arguments: Any) -> dict[str, Any]:
    return {"repo_path": str(places.repository), **arguments}


def _note(rng: Random, places: Places) -> str:
    return str(places.files / f"{rng.choice(TOPICS)}.txt")


WORKS: Final[dict[str, tuple[tuple[str, Arguments], ...]]] = {
    "time": (
        ("get_current_time", lambda rng, at: {"timezone": rng.choice(_ZONES)}),
        ("convert_time", lambda rng, at: _conversion(rng, rng.choice(_ZONES))),
    ),
    "fetch": (
        ("fetch", lambda rng, at: {"url": f"{at.service_url}/livez"}),
        ("fetch", lambda rng, at: {"url": f"{at.service_url}/docs", "raw": rng.random() < 0.5}),
        ("fetch", lambda rng, at: {"url": f"{at.service_url}/openapi.json", "max_length": rng.randrange(200, 5000)}),
    ),
    "git": (
        ("git_status", lambda rng, at: _repository(at)),
        ("git_log", lambda rng, at: _repository(at, max_count=rng.randrange(1, 6))),
        ("git_show", lambda rng, at: _repository(at, revision=f"HEAD~{rng.randrange(4)}")),
        ("git_diff", lambda rng, at: _repository(at, target=f"HEAD~{rng.randrange(1, 4)}")),
        ("git_diff_unstaged", lambda rng, at: _repository(at, context_lines=rng.randrange(6))),
        ("git_branch", lambda rng, at: _repository(at, branch_type=rng.choice(("local", "all")))),
    ),
    "filesystem": (
        ("list_directory", lambda rng, at: {"path": str(at.files)}),
        ("read_text_file", lambda rng, at: {"path": _note(rng, at), "head": rng.randrange(1, 20)}),
        ("write_file", lambda rng, at: {"path": _note(rng, at), "content": "line\n" * rng.randrange(1, 200)}),
        ("get_file_info", lambda rng, at: {"path": _note(rng, at)}),
        ("search_files", lambda rng, at: {"path": str(at.files), "pattern": f"*{rng.choice(TOPICS)[:2]}*"}),
        ("directory_tree", lambda rng, at: {"path": str(at.files)}),
    ),
}
"""Per server: tools and arguments that succeed."""

FAILS: Final[dict[str, tuple[tuple[str, Arguments], ...]]] = {
    "time": (
        ("get_current_time", lambda rng, at: {}),
        ("get_weather", lambda rng, at: {"city": "Berlin"}),
        ("convert_time", lambda rng, at: _conversion(rng, "Mars/Olympus_Mons")),
    ),
    "fetch": (
        ("fetch", lambda rng, at: {"url": f"{at.service_url}/no-such-page-{rng.randrange(100)}"}),
        ("crawl", lambda rng, at: {"url": f"{at.service_url}/docs"}),
        ("fetch", lambda rng, at: {"url": f"{at.service_url}/livez", "max_length": "many"}),
    ),
    "git": (
        ("git_show", lambda rng, at: _repository(at, revision="no-such-revision")),
        ("git_push", lambda rng, at: _repository(at)),
        ("git_log", lambda rng, at: {"repo_path": str(at.repository.parent)}),
    ),
    "filesystem": (
        ("read_text_file", lambda rng, at: {"path": str(at.files / "no-such-file.txt")}),
        ("list_directory", lambda rng, at: {"path": str(at.files.parent)}),
        ("shred_file", lambda rng, at: {"path": _note(rng, at)}),
    ),
}
"""Per server: tools and arguments that fail, each in another way: a missing thing, an unknown tool, a bad argument."""

SHARE: Final = {"time": 4, "filesystem": 3, "git": 2, "fetch": 2}
"""How often a server is called, relative to the others."""


def a_step(server: str, n: int, rng: Random, places: Places, *, stopped: bool = False) -> Step:
    """The n-th step of a server, n from 1: every tenth fails, and the ways to fail take turns."""
    if n % FAIL_EVERY == 0 and not stopped:
        tool, arguments = FAILS[server][(n // FAIL_EVERY - 1) % len(FAILS[server])]
    else:
        tool, arguments = rng.choice(WORKS[server])
    return Step(server, tool, arguments(rng, places), stopped)


def plan(servers: Sequence[str], calls: int, places: Places, seed: int = SEED) -> dict[str, list[Step]]:
    """A burst of exactly `calls` steps over the servers, the same for the same seed, those to stop for at the end."""
    rng = Random(seed)
    stops = [servers[i % len(servers)] for i in range(min(STOPPED_CALLS, calls))]
    numbers = {server: count(1) for server in servers}
    steps: dict[str, list[Step]] = {server: [] for server in servers}
    for server in rng.choices(servers, [SHARE[server] for server in servers], k=calls - len(stops)):
        steps[server].append(a_step(server, next(numbers[server]), rng, places))
    for server in stops:
        steps[server].append(a_step(server, next(numbers[server]), rng, places, stopped=True))
    return steps
