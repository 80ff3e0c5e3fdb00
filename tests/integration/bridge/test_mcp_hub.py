"""The bridge against the real mcp-hub program, which manages real stdio servers."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hubscope.bridge import Options, run
from hubscope.bridge.link import Link
from hubscope.bridge.run import Bridge
from hubscope.bridge.watch import SURE_AFTER, Watch
from hubscope.client import Client
from hubscope.model import Event, ServerEvent
from tests.mcp_hub.program import CHANGING, TIME, McpHub, running
from tests.scripted_service import Service
from tests.scripted_service import serving as serving_hubscope

pytestmark = [pytest.mark.integration, pytest.mark.bridge]

DEADLINE_S = 60.0
SECRET = "canary-9c41e7"
SERVERS: dict[str, Any] = {
    "time": {"command": TIME, "args": ["--local-timezone", "UTC"], "env": {"TOKEN": SECRET}},
    "changing": {"command": sys.executable, "args": [CHANGING, f"--password={SECRET}"]},
    "off": {"command": TIME, "disabled": True},
    "missing": {"command": f"/nowhere/{SECRET}/mcp-server"},
    "remote": {"url": f"http://127.0.0.1:9/{SECRET}", "headers": {"Authorization": f"Bearer {SECRET}"}},
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[McpHub]:
    with running(tmp_path, SERVERS, watch=True) as started:
        yield started


@pytest.fixture
def service() -> Iterator[Service]:
    with serving_hubscope(Service(read=lambda event: event)) as started:
        yield started


def options(hub: McpHub, service: Service, **more: Any) -> Options:
    return Options(hub_url=hub.url, url=service.url, **({"poll_seconds": 1, "probe_seconds": 1} | more))


@asynccontextmanager
async def bridging(chosen: Options) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(run(chosen, stop, lambda _: None))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, DEADLINE_S)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def states(service: Service, server: str, source: str = "connection") -> list[tuple[str, str]]:
    return [
        (event["outcome"], event["state"])
        for event in service.taken
        if event["type"] == "server_event" and event["server"] == server and event["source"] == source
    ]


def told(service: Service, name: str) -> list[dict[str, Any]]:
    return [e["payload"] for e in service.taken if e["type"] == "hub_event" and e["name"] == name]


async def test_the_states_of_all_kinds_of_servers_are_read(hub: McpHub, service: Service) -> None:
    async with bridging(options(hub, service)):
        await until(lambda: len({e["server"] for e in service.taken if e["type"] == "server_event"}) == 5)
        await until(lambda: ("connected", "up") in states(service, "time"))
    assert states(service, "off") == [("disabled", "maintenance")]
    assert states(service, "missing") == [("disconnected", "down")]
    assert states(service, "remote") == [("disconnected", "down")]
    up = next(e for e in service.taken if e.get("server") == "time" and e.get("state") == "up")
    assert (up["tools"], up["transport"], up["attrs"]["server_name"]) == (2, "stdio", "mcp-time")
    assert up["valid_until"] > up["time"]
    assert told(service, "hub_attached")[0]["version"] == "4.2.1"


async def test_a_killed_server_is_down_within_two_polls(hub: McpHub) -> None:
    watch = Watch(60)
    link = Link(hub.url, timeout_s=30, max_answer_bytes=2**25, max_event_bytes=2**20, error_chars=500)
    polls = 0

    async def look() -> list[Event]:
        nonlocal polls
        polls += 1
        return watch.observed((await link.poll())[0], datetime.now(UTC))

    def of_time(events: list[Event]) -> list[ServerEvent]:
        return [event for event in events if isinstance(event, ServerEvent) and event.server == "time"]

    found = of_time(await look())
    while found[-1].state != "up":
        await asyncio.sleep(SURE_AFTER.total_seconds())
        found += of_time(await look())
    hub.kill("mcp-server-time")
    polls, found = 0, []
    while not found:
        assert polls < 2
        await asyncio.sleep(SURE_AFTER.total_seconds())  # the shortest poll there is
        found = of_time(await look())
    assert [(event.outcome, event.state) for event in found] == [("transport_closed", "down")]
    # Somebody starts it again.
    hub.ask("POST", "servers/stop", server_name="time")
    hub.ask("POST", "servers/start", server_name="time")
    async with asyncio.timeout(DEADLINE_S):
        while not found or found[-1].state != "up":
            await asyncio.sleep(SURE_AFTER.total_seconds())
            found += of_time(await look())
    await link.close()


async def test_a_server_that_hangs_is_found_by_asking_it(hub: McpHub, service: Service) -> None:
    chosen = options(hub, service, probe="refresh", timeout_ms=1_000)
    stopped = hub.child("mcp-server-time")
    async with bridging(chosen):
        await until(lambda: ("answered", "up") in states(service, "time", "probe"))
        stopped.suspend()
        await until(lambda: ("probe_timeout", "down") in states(service, "time", "probe"))
        stopped.resume()
        await until(lambda: states(service, "time", "probe")[-1] == ("answered", "up"))
    found = states(service, "time", "probe")
    assert found.index(("probe_timeout", "degraded")) < found.index(("probe_timeout", "down"))
    answered = [e for e in service.taken if e.get("outcome") == "answered"]
    assert all(event["latency_ms"] > 0 for event in answered)


async def test_a_changed_list_of_tools_is_reported_with_its_names(hub: McpHub, service: Service) -> None:
    async with bridging(options(hub, service)):
        await until(lambda: ("connected", "up") in states(service, "changing"))
        grow = {"server_name": "changing", "tool": "grow", "arguments": {"name": "grown"}}
        await asyncio.to_thread(hub.ask, "POST", "servers/tools", **grow)
        await until(lambda: bool(told(service, "tools_list_changed")))
    (change, *_) = told(service, "tools_list_changed")
    assert (change["server"], change["count"], change["count_before"]) == ("changing", 3, 2)
    assert change["added"] == ["grown"]


async def test_a_restart_of_the_servers_is_reported(hub: McpHub, service: Service) -> None:
    async with bridging(options(hub, service)):
        await until(lambda: ("connected", "up") in states(service, "time"))
        await asyncio.to_thread(hub.ask, "POST", "restart")
        await until(lambda: {"how": "servers"} in told(service, "hub_restarted"))
        await until(lambda: len(states(service, "time")) > 1 and states(service, "time")[-1][1] == "up")
    assert [each["state"] for each in told(service, "hub_state")][-2:] == ["restarting", "restarted"]
    assert "down" not in {state for _, state in states(service, "time")}


async def test_a_hub_that_ends_and_comes_back_is_reported(hub: McpHub, service: Service) -> None:
    async with bridging(options(hub, service)):
        await until(lambda: ("connected", "up") in states(service, "time"))
        await asyncio.to_thread(hub.stop, gently=True)
        await until(lambda: ("hub_away", "unknown") in states(service, "time"))
        await asyncio.to_thread(hub.start)
        await until(lambda: states(service, "time")[-1] == ("connected", "up"))
        await until(lambda: bool(told(service, "hub_restarted")))
    assert len(told(service, "hub_away")) == len(told(service, "hub_back")) == 1
    assert told(service, "hub_back")[0]["away_seconds"] > 0
    assert told(service, "hub_restarted")[0]["how"] == "process"


async def test_a_configuration_is_reported_changed_and_none_of_it_sent(hub: McpHub, service: Service) -> None:
    async with bridging(options(hub, service)):
        await until(lambda: ("connected", "up") in states(service, "time"))
        hub.write({name: SERVERS[name] for name in SERVERS if name != "changing"} | {"added": SERVERS["time"]})
        await until(lambda: bool(told(service, "config_changed")))
        await until(lambda: ("connected", "up") in states(service, "added"))
        await until(lambda: states(service, "changing")[-1] == ("removed", "unknown"))
    assert {"added": ["added"], "removed": ["changing"]} in told(service, "servers_updated")
    assert SECRET in json.dumps(SERVERS)
    assert SECRET not in json.dumps(service.taken)


async def test_a_storm_of_log_lines_costs_nothing(hub: McpHub, service: Service) -> None:
    calm = threading.Event()

    def storm() -> None:
        while not calm.is_set():
            told = hub.ask("POST", "servers/tools", server_name="changing", tool="shout", arguments={"lines": 2_000})
            assert "result" in told, told

    async with Client(service.url) as client:
        bridge = Bridge(options(hub, service, probe_seconds=3_600), client, lambda _: None)
        stop = asyncio.Event()
        task = asyncio.create_task(bridge.run(stop))
        splitter = bridge.link.splitter
        storming: asyncio.Task[None] | None = None
        try:
            await until(lambda: ("connected", "up") in states(service, "changing"))
            sent = client.totals.recorded
            storming = asyncio.create_task(asyncio.to_thread(storm))
            await until(lambda: splitter.skipped > 100)
            # What it was about is still seen while the storm goes on, and none of its lines became an event.
            hub.kill("mcp-server-time")
            await until(lambda: states(service, "time")[-1] == ("transport_closed", "down"))
            assert not storming.done()
            assert client.totals.recorded - sent <= 3
            assert len(splitter._partial) <= 1024 * 1024
        finally:
            calm.set()
            stop.set()
            await asyncio.wait_for(task, DEADLINE_S)
            await bridge.close()
            if storming is not None:
                await storming
