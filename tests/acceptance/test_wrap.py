"""`hubscope wrap` between a real MCP client and real servers, into a real service: what is called is recorded."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx2
import psutil
import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp_types import Implementation

from hubscope.settings import Settings
from hubscope.store import Connection
from tests.conftest import ROLE_PREFIX, held

pytestmark = [pytest.mark.acceptance, pytest.mark.bridge]

DEADLINE_S = 60.0
BIN = Path(sys.executable).parent
TIME = str(BIN / "mcp-server-time")
SERVER = """
import asyncio, os, signal
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
server = MCPServer("test")

@server.tool()
async def add(a: int, b: int) -> int:
    return a + b

@server.tool()
async def sleep(seconds: float, begun: str) -> str:
    open(begun, "w").close()
    await asyncio.sleep(seconds)
    return "slept"

@server.tool()
async def fail() -> str:
    raise ValueError("never mind the token s3cret")

@server.tool()
async def die() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "no"

server.run("stdio")
"""


class Hub:
    """`hubscope serve` over a database, on a port that stays the same."""

    def __init__(self, dsn: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.spool = folder / "spool"
        self._log = folder / "serve.log"
        self._dsn = dsn
        self._process: subprocess.Popen[bytes] | None = None

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in Settings.variables()}
        return inherited | {"HUBSCOPE_URL": self.url, "HUBSCOPE_SPOOL_DIR": str(self.spool)} | more

    def start(self) -> None:
        more = {
            "HUBSCOPE_DATABASE_URL": self._dsn, "HUBSCOPE_ROLE_PREFIX": ROLE_PREFIX, "HEALTH_PORT": str(self.port)
        }  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hubscope", "serve"],
                env=self.environment(**more), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + DEADLINE_S
        while "listening on" not in self._log.read_text():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_S)

    def waiting(self) -> list[dict[str, Any]]:
        """The events of the spool."""
        lines = [line for path in self.spool.glob("*/*.ndjson") for line in path.read_bytes().splitlines()]
        return [json.loads(line) for line in lines]

    def parameters(self, name: str, *command: str, **more: str) -> StdioServerParameters:
        """How a client starts a server through the wrapper."""
        args = ["-m", "hubscope", "wrap", "--name", name, "--", *command]
        return StdioServerParameters(command=sys.executable, args=args, env=self.environment(**more))


@pytest.fixture
def hub(database: str, tmp_path: Path) -> Iterator[Hub]:
    made = Hub(database, tmp_path)
    made.start()
    yield made
    made.kill()


@asynccontextmanager
async def connected(
    parameters: StdioServerParameters, mode: Literal["auto", "legacy"] = "auto"
) -> AsyncIterator[Client]:
    client = Client(stdio_client(parameters), mode=mode, client_info=Implementation(name="tester", version="1"))
    async with held(client) as entered:
        yield entered


async def until(condition: Callable[[], Coroutine[Any, Any, bool]], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline, f"still waiting after {DEADLINE_S:.0f} s: {what}"
        await asyncio.sleep(0.02)


async def calls(admin: Connection, count: int) -> list[Any]:
    """The recorded calls in the order they were made, once there are so many."""
    query = "SELECT *, attrs::text AS more FROM raw.tool_calls ORDER BY time, event_id"

    async def there() -> bool:
        return len(await admin.fetch(query)) >= count

    await until(there, f"{count} calls are recorded")
    rows: list[Any] = await admin.fetch(query)
    assert len(rows) == count
    return rows


async def outcomes(admin: Connection, last: str) -> list[Any]:
    """The recorded states of servers, once there is one of this outcome."""
    query = "SELECT * FROM raw.server_events ORDER BY time, event_id"

    async def there() -> bool:
        return last in [row["outcome"] for row in await admin.fetch(query)]

    await until(there, f"a server is {last}")
    rows: list[Any] = await admin.fetch(query)
    return rows


def wrapper_of(parameters: StdioServerParameters) -> psutil.Process:
    """The wrapper that a client has started."""
    spool = (parameters.env or {})["HUBSCOPE_SPOOL_DIR"]
    found = [
        child
        for child in psutil.Process().children()
        if "wrap" in child.cmdline() and child.environ().get("HUBSCOPE_SPOOL_DIR") == spool
    ]
    (wrapper,) = found
    return wrapper


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_calls_and_failures_of_a_real_server_are_recorded(
    hub: Hub, admin: Connection, mode: Literal["auto", "legacy"]
) -> None:
    async with connected(hub.parameters("time", TIME, "--local-timezone", "UTC"), mode) as client:
        tools = len((await client.list_tools()).tools)
        good = await client.call_tool("get_current_time", {"timezone": "Europe/Zurich"})
        bad = await client.call_tool("get_current_time", {"timezone": "Mars/Olympus"})
    assert (bool(good.is_error), bad.is_error) == (False, True)
    ok, failed = await calls(admin, 2)
    assert (ok["server"], ok["tool"], ok["status"], ok["transport"]) == ("time", "get_current_time", "ok", "stdio")
    assert (failed["status"], failed["error_type"]) == ("error", "tool_error")
    assert "Mars/Olympus" in failed["error_message"]
    assert ok["client"] == failed["client"] == "tester/1"
    assert ok["session_id"] == failed["session_id"]
    assert 0 < ok["duration_ms"] < DEADLINE_S * 1_000
    assert ok["request_bytes"] > 50
    assert ok["response_bytes"] > 50
    states = await outcomes(admin, "closed")
    assert [row["outcome"] for row in states] == ["started", "connected", "listed", "closed"]
    assert [row["state"] for row in states] == ["unknown", "up", "up", "unknown"]
    assert states[2]["tools"] == tools
    assert states[1]["latency_ms"] > 0
    assert hub.waiting() == []


async def test_what_is_recorded_is_answered(hub: Hub, admin: Connection) -> None:
    """From a call through the wrapper to the analytics API, without a worker: current to the last call."""
    async with connected(hub.parameters("own", sys.executable, "-c", SERVER)) as client:
        for number in range(10):
            await client.call_tool("add", {"a": number, "b": 1})
    await calls(admin, 10)
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        answer = (await http.get(f"{hub.url}/api/v1/analytics")).json()
    assert [(row["server"], row["tool"], row["usage"]["calls"]) for row in answer["top_tools"]] == [("own", "add", 10)]


async def test_timeouts_cancellations_and_errors_have_a_status_of_their_own(
    hub: Hub, admin: Connection, tmp_path: Path
) -> None:
    begun = [tmp_path / "first", tmp_path / "second"]

    async def second_begun() -> bool:
        return begun[1].exists()

    async with connected(hub.parameters("own", sys.executable, "-c", SERVER)) as client:
        assert (await client.call_tool("fail")).is_error
        with pytest.raises(MCPError):
            await client.call_tool("sleep", {"seconds": 600, "begun": str(begun[0])}, read_timeout_seconds=0.2)
        task = asyncio.create_task(client.call_tool("sleep", {"seconds": 600, "begun": str(begun[1])}))
        await until(second_begun, "the server works on the call")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
    rows = await calls(admin, 4)
    assert [(row["tool"], row["status"], row["error_type"]) for row in rows] == [
        ("fail", "error", "tool_error"),
        ("sleep", "timeout", "client_timeout"),
        ("sleep", "cancelled", "cancelled"),
        ("add", "ok", None),
    ]
    assert rows[1]["duration_ms"] >= 150


async def _all(admin: Connection) -> list[Any]:
    rows: list[Any] = await admin.fetch("SELECT * FROM raw.tool_calls")
    return rows


async def test_a_server_that_dies_fails_the_calls_it_had_and_is_down(hub: Hub, admin: Connection) -> None:
    async with connected(hub.parameters("own", sys.executable, "-c", SERVER)) as client:
        assert not (await client.call_tool("add", {"a": 1, "b": 2})).is_error
        with pytest.raises(MCPError):
            await client.call_tool("die")
    rows = await calls(admin, 2)
    assert [(row["tool"], row["status"], row["error_type"]) for row in rows] == [
        ("add", "ok", None), ("die", "error", "server_exited")
    ]  # fmt: skip
    assert rows[1]["error_message"] == "the server was ended by SIGKILL before it answered"
    last = (await outcomes(admin, "crashed"))[-1]
    assert (last["state"], last["error_type"]) == ("down", "signal:SIGKILL")


async def test_calls_made_while_hubscope_is_away_arrive_later_with_the_same_ids(hub: Hub, admin: Connection) -> None:
    async with connected(hub.parameters("own", sys.executable, "-c", SERVER)) as client:
        await client.call_tool("add", {"a": 0, "b": 0})
        await calls(admin, 1)
        hub.kill()
        for number in range(20):
            assert not (await client.call_tool("add", {"a": number, "b": 1})).is_error

        async def kept() -> bool:
            return len([event for event in hub.waiting() if event["type"] == "tool_call"]) == 20

        await until(kept, "20 calls wait in the spool")
        waiting = {event["event_id"]: event["time"] for event in hub.waiting() if event["type"] == "tool_call"}
        assert len(waiting) == 20
        hub.start()
        rows = await calls(admin, 21)
        await client.call_tool("add", {"a": 1, "b": 1})
        await calls(admin, 22)
    assert waiting.keys() == {str(row["event_id"]) for row in rows[1:]}
    assert {row["time"].isoformat()[:26] for row in rows[1:]} == {time[:26] for time in waiting.values()}
    assert hub.waiting() == []


async def test_what_a_killed_wrapper_kept_the_next_one_sends(hub: Hub, admin: Connection) -> None:
    hub.kill()
    parameters = hub.parameters("own", sys.executable, "-c", SERVER)
    async with connected(parameters) as client:
        for number in range(5):
            await client.call_tool("add", {"a": number, "b": 1})

        async def kept() -> bool:
            return len([event for event in hub.waiting() if event["type"] == "tool_call"]) == 5

        await until(kept, "5 calls wait in the spool")
        wrapper_of(parameters).kill()
    waiting = {event["event_id"] for event in hub.waiting()}
    hub.start()
    async with connected(hub.parameters("time", TIME)):
        rows = await calls(admin, 5)
    await outcomes(admin, "closed")
    recorded = {str(row["event_id"]) for row in rows} | {
        str(row["event_id"]) for row in await admin.fetch("SELECT * FROM raw.server_events WHERE server = 'own'")
    }
    assert recorded == waiting
    assert hub.waiting() == []


async def test_a_service_that_answers_an_error_costs_the_call_nothing(hub: Hub, admin: Connection) -> None:
    """The address is right and the path is not: events are kept, the person is told once, the tool works."""
    parameters = hub.parameters("own", sys.executable, "-c", SERVER, HUBSCOPE_URL=f"{hub.url}/elsewhere")
    async with connected(parameters) as client:
        assert not (await client.call_tool("add", {"a": 1, "b": 2})).is_error
    assert [event["tool"] for event in hub.waiting() if event["type"] == "tool_call"] == ["add"]
    assert await _all(admin) == []


async def test_the_servers_of_a_rewritten_configuration_are_recorded(
    hub: Hub, admin: Connection, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    config = tmp_path / "servers.json"
    servers = {
        "time": {"command": TIME},
        "git": {"command": str(BIN / "mcp-server-git"), "args": ["--repository", str(repository)]},
        "remote": {"type": "http", "url": "https://example.com/mcp"},
    }
    config.write_text(json.dumps({"mcpServers": servers}, indent=2))
    before = config.read_bytes()

    def rewrite(*options: str) -> str:
        command = [sys.executable, "-m", "hubscope", "wrap", "--config", str(config), *options]
        done = subprocess.run(command, env=hub.environment(), capture_output=True, text=True, timeout=DEADLINE_S)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert "left alone  remote" in rewrite()
    after = json.loads(config.read_text())["mcpServers"]
    for name, tool, arguments in (
        ("time", "get_current_time", {"timezone": "UTC"}),
        ("git", "git_status", {"repo_path": str(repository)}),
    ):
        # The environment of a client that hands little of its own on.
        path = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
        async with connected(
            StdioServerParameters(command=after[name]["command"], args=after[name]["args"], env=path)
        ) as c:
            assert not (await c.call_tool(tool, arguments)).is_error
    rows = await calls(admin, 2)
    assert {(row["server"], row["tool"], row["status"]) for row in rows} == {
        ("time", "get_current_time", "ok"), ("git", "git_status", "ok")
    }  # fmt: skip
    rewrite("--undo")
    assert config.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "x"], "name the server to wrap"),
        (["--undo", "cat"], "go with --config"),
        (["--config", "/nowhere/servers.json"], "cannot be rewritten"),
        (["--config", "x", "--name", "y"], "takes neither a name nor a command"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_clear_error(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hubscope", "wrap", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("hubscope: ")
    assert said in done.stderr


def test_the_long_way_in_wraps_as_the_short_one_does(tmp_path: Path) -> None:
    """Without the two dashes the full command line reads it."""
    environment = {**os.environ, "HUBSCOPE_SPOOL_DIR": str(tmp_path), "HUBSCOPE_URL": "http://127.0.0.1:9"}
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [sys.executable, "-m", "hubscope", "wrap", "--name", "echo", "cat"],
        input=mark, env=environment, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, mark, "")
    assert list(tmp_path.glob("*/*.ndjson"))
