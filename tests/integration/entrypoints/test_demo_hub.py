"""The demo's hub with real MCP servers against a small service of the test that records what is posted."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from hubscope.entrypoints import demo_servers
from hubscope.entrypoints.demo import ask, demo_hub
from hubscope.entrypoints.demo_poster import EventPoster
from hubscope.entrypoints.demo_servers import DemoFailed, DemoServer, ServerSpec
from hubscope.ids import uuid7
from hubscope.model import ServerEvent

PAGES = {"/livez": "ok", "/docs": "<html><body><h1>Docs</h1><p>Text.</p></body></html>", "/openapi.json": "{}"}
HANG_UP = 0
App = Callable[[Any, Any, Any], Awaitable[None]]

LONG_LIVED: set[psutil.Process] = set()
"""Children of fixtures that live as long as the run."""


@asynccontextmanager
async def serving(app: App, *, lifespan: str = "off") -> AsyncIterator[str]:
    """The application on a free port of this machine: its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan=lifespan, timeout_graceful_shutdown=2)  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


@dataclass
class Recorder:
    """A service that takes every event: a bare ASGI application. `answers` are given first, one per post."""

    url: str = ""
    posts: list[list[dict[str, Any]]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["path"] == "/v1/events":
            events = json.loads(body)["events"]
            self.posts.append(events)
            receipt = {"accepted": len(events), "duplicates": 0, "rejected": []}
            status, answer = self.answers.pop(0) if self.answers else (200, receipt)
            if status == HANG_UP:
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
                return
            kind, text = b"application/json", json.dumps(answer)
        else:
            status, kind, text = (200 if scope["path"] in PAGES else 404), b"text/html", PAGES.get(scope["path"], "no")
        headers = [(b"content-type", kind), (b"retry-after", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for post in self.posts for event in post]


@pytest.fixture
async def service() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    async with serving(recorder) as recorder.url:
        yield recorder


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[set[psutil.Process]]:
    """Processes that a test puts into this set, and every child of the test, are gone when the test is over."""
    seen: set[psutil.Process] = set()
    before = set(psutil.Process().children(recursive=True))
    LONG_LIVED.clear()
    LONG_LIVED.update(before)
    yield seen
    left = seen | set(psutil.Process().children(recursive=True)) - before
    # An orphan that has ended stays a zombie where process 1 does not reap.
    alive = [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.kill()
    assert not alive


def _children() -> set[psutil.Process]:
    """Processes that a test started; those of fixtures that live as long as the run were there before."""
    return set(psutil.Process().children(recursive=True)) - LONG_LIVED


def _only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **more: dict[str, Any]) -> None:
    """Declare time and fetch, which need nothing but Python, and what the test adds."""
    declared = json.loads(demo_servers.DECLARATION.read_text(encoding="utf-8"))["mcpServers"]
    text = json.dumps({"mcpServers": {"time": declared["time"], "fetch": declared["fetch"]} | more})
    path = tmp_path / "servers.json"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(demo_servers, "DECLARATION", path)


def _time_server(tmp_path: Path, told: list[ServerEvent], *args: str, start_timeout_seconds: float = 30) -> DemoServer:
    spec = ServerSpec("time", sys.executable, args or ("-m", "mcp_server_time"), {})
    log, told_lines = tmp_path / "time.log", list[str]()
    return DemoServer(
        spec, log, asyncio.Lock(), told.append, told_lines.append, start_timeout_seconds=start_timeout_seconds
    )


async def test_every_call_of_a_burst_is_posted_exactly_once(
    service: Recorder, tmp_path: Path, no_process_is_left: set[psutil.Process]
) -> None:
    lines: list[str] = []
    progress: list[tuple[int, int]] = []
    async with demo_hub(service.url, tmp_path, lines.append, lambda *at: progress.append(at)) as hub:
        no_process_is_left |= _children()
        await hub.burst(40)
        calls = [event for event in service.events if event["type"] == "tool_call"]
        up = {server["name"] for server in hub.servers if server["state"] == "up"}
    done = Counter((call.server, call.tool, call.status, call.duration_ms) for call in hub.ledger.calls)
    assert done == Counter((c["server"], c["tool"], c["status"], c["duration_ms"]) for c in calls)
    assert len(calls) == 40
    assert progress[-1] == (40, 40)
    assert len({event["event_id"] for event in service.events}) == len(service.events)
    by_status = hub.ledger.summary()["by_status"]
    assert by_status["timeout"] == 3
    assert by_status["error"] >= 1
    assert by_status["ok"] > 20
    assert {"time", "fetch"} <= up
    changes = [(event["server"], event["outcome"]) for event in service.events if event["type"] == "server_event"]
    assert {(name, outcome) for name in up for outcome in ("connected", "disconnected")} <= set(changes)


async def test_a_call_is_posted_with_every_field_that_hubscope_reads(
    service: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _only(monkeypatch, tmp_path)
    async with demo_hub(service.url, tmp_path, print, lambda *at: None) as hub:
        await hub.burst(1)
    [call] = [event for event in service.events if event["type"] == "tool_call"]
    assert (call["hub"], call["client"], call["transport"]) == ("demo", "hubscope-demo", "stdio")
    assert (call["status"], call["error_type"]) == ("timeout", "timeout")
    assert 450 < call["duration_ms"] < 5_000
    assert call["request_bytes"] > 2
    assert datetime.fromisoformat(call["time"]).utcoffset() == timedelta(0)


async def test_a_refused_post_is_sent_again_with_the_same_ids(service: Recorder) -> None:
    service.answers = [(503, {}), (429, {})]
    async with EventPoster(service.url) as poster:
        poster.put(_server_event())
        await poster.flush()
    assert len(service.posts) == 3
    assert service.posts[0] == service.posts[1] == service.posts[2]


async def test_a_post_that_is_cut_off_is_sent_again_with_the_same_ids(service: Recorder) -> None:
    service.answers = [(HANG_UP, {})]
    async with EventPoster(service.url) as poster:
        poster.put(_server_event())
    assert len(service.posts) == 2
    assert service.posts[0] == service.posts[1]


async def test_a_service_that_stays_away_is_told_after_a_bounded_number_of_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hubscope.entrypoints.demo_poster.pause_seconds", lambda tries, retry_after: 0)
    with pytest.raises(DemoFailed, match="1 events were not acknowledged in 8 tries"):
        async with EventPoster(_nobody_listens()) as poster:
            poster.put(_server_event())


async def test_a_rejected_event_ends_the_demo_with_its_reason(service: Recorder) -> None:
    rejected = {"index": 0, "event_id": None, "code": "in_future", "detail": "time is ahead of the clock"}
    service.answers = [(200, {"accepted": 0, "duplicates": 0, "rejected": [rejected]})]
    with pytest.raises(DemoFailed, match="in_future: time is ahead"):
        async with EventPoster(service.url) as poster:
            poster.put(_server_event())


async def test_a_server_that_cannot_start_is_told_and_recorded_and_the_demo_goes_on(
    service: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"command": sys.executable, "args": ["-c", "raise SystemExit('no luck today')"]}
    absent = {"command": "no-such-program"}
    _only(
        monkeypatch, tmp_path, broken=broken, absent=absent, skipped={"command": "x", "requires": ["no-such-program"]}
    )
    lines: list[str] = []
    async with demo_hub(service.url, tmp_path, lines.append, lambda *at: None) as hub:
        await hub.flush()
        states = {server["name"]: server["state"] for server in hub.servers}
        failed = {e["server"]: e for e in service.events if e["type"] == "server_event" and e["outcome"] == "failed"}
    assert states == {"time": "up", "fetch": "up", "broken": "down", "absent": "down"}
    assert {name: event["state"] for name, event in failed.items()} == {"broken": "down", "absent": "down"}
    assert "broken: could not start (no luck today)" in lines
    assert "skipped: left out, it needs no-such-program" in lines


async def test_the_demo_does_not_start_without_a_server_that_it_needs(
    service: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _only(monkeypatch, tmp_path, fetch={"command": sys.executable, "args": ["-c", "raise SystemExit(3)"]})
    with pytest.raises(DemoFailed, match="see fetch above"):
        async with demo_hub(service.url, tmp_path, print, lambda *at: None):
            pytest.fail("the demo started")


async def test_a_cancelled_burst_leaves_no_process_and_still_posts_what_was_done(
    service: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_process_is_left: set[psutil.Process]
) -> None:
    _only(monkeypatch, tmp_path)
    halfway = asyncio.Event()

    async def run() -> None:
        def progress(done: int, total: int) -> None:
            if done == total // 2:
                halfway.set()

        async with demo_hub(service.url, tmp_path, print, progress) as hub:
            no_process_is_left.update(_children())
            ledgers.append(hub.ledger)
            await hub.burst(60)

    ledgers: list[Any] = []
    task = asyncio.create_task(run())
    await halfway.wait()
    task.cancel()
    # A second interrupt while it closes must not lose a server either.
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    posted = [event for event in service.events if event["type"] == "tool_call"]
    assert 30 <= len(posted) == len(ledgers[0].calls) < 60


async def test_a_trickle_ends_when_it_is_told_to(
    service: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _only(monkeypatch, tmp_path)
    monkeypatch.setattr("hubscope.entrypoints.demo.TRICKLE_PAUSE_SECONDS", 0.001)
    stop = asyncio.Event()
    async with demo_hub(service.url, tmp_path, print, lambda *at: None) as hub:
        trickle = asyncio.create_task(hub.trickle(stop))
        while len(hub.ledger.calls) < 50 and not trickle.done():
            await asyncio.wait([trickle], timeout=0.01)
        stop.set()
        await trickle
        assert set(hub.ledger.summary()["by_status"]) == {"ok", "error", "timeout"}
        assert sum(event["type"] == "tool_call" for event in service.events) == len(hub.ledger.calls)


@pytest.mark.parametrize("ending", ["asked", "standing still", "killed", "cancelled"])
async def test_no_process_of_a_server_is_left_however_it_ends(
    ending: str, tmp_path: Path, no_process_is_left: set[psutil.Process]
) -> None:
    events: list[ServerEvent] = []
    server = _time_server(tmp_path, events)
    running = asyncio.create_task(server.run())
    await server.ready.wait()
    [process] = _children()
    no_process_is_left.add(process)
    match ending:
        case "standing still":
            process.send_signal(signal.SIGSTOP)
        case "killed":
            process.kill()
            with pytest.raises(Exception, match="Connection closed"):
                await server.call("get_current_time", {"timezone": "UTC"}, 5)
        case "cancelled":
            running.cancel()
    server.stop()
    await asyncio.wait([running])
    assert [(event.outcome, event.state) for event in events] == [("connected", "up"), ("disconnected", "down")]
    assert server.state == "down"


async def test_a_server_that_never_answers_is_given_up(tmp_path: Path, no_process_is_left: set[psutil.Process]) -> None:
    events: list[ServerEvent] = []
    silent = ("-c", "import sys, time; sys.stdin.close(); time.sleep(600)")
    server = _time_server(tmp_path, events, *silent, start_timeout_seconds=0.5)
    await server.run()
    [event] = events
    assert (event.outcome, event.state, event.error_message) == ("failed", "down", "no answer within 0.5 s")


async def test_the_answer_is_asked_for_by_a_real_client() -> None:
    mcp = MCPServer("hubscope", log_level="ERROR")

    @mcp.tool(name="hub__analytics_advanced")
    def answer(timeRange: str, groupBy: str, format: str) -> dict[str, str]:
        if timeRange == "never":
            raise ToolError("timeRange: never is not allowed")
        return {"timeRange": timeRange, "groupBy": groupBy, "format": format}

    async with serving(mcp.streamable_http_app(stateless_http=True, json_response=True), lifespan="on") as url:
        content, text = await ask(url)
        assert content == {"timeRange": "1 hour", "groupBy": "minute", "format": "detailed"}
        assert "minute" in text
        with pytest.raises(DemoFailed, match="never is not allowed"):
            await ask(url, timeRange="never")


async def test_a_service_that_is_away_is_one_clear_error() -> None:
    with pytest.raises(DemoFailed, match="could not be called"):
        await ask(_nobody_listens())


def _server_event() -> ServerEvent:
    return ServerEvent(
        event_id=uuid7(),
        time=datetime.now(UTC),
        server="x",
        source="connection",
        outcome="connected",
        state="up",
    )


def _nobody_listens() -> str:
    """An address on this machine where connections are refused."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
