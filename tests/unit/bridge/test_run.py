"""The bridge at work against a hub that is told what to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from hubscope.bridge import Options, run
from hubscope.bridge.run import hub_address
from hubscope.errors import InvalidSetting
from tests.scripted_service import Service
from tests.scripted_service import serving as serving_hubscope
from tests.unit.bridge.hub import Hub, serving

DEADLINE_S = 30.0


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as started:
        yield started


@pytest.fixture
def service() -> Iterator[Service]:
    with serving_hubscope(Service(read=lambda event: event)) as started:
        yield started


async def bridging(options: Options, until: Callable[[], bool]) -> list[str]:
    """Run a bridge until something has happened; what it said."""
    said: list[str] = []
    stop = asyncio.Event()
    task = asyncio.create_task(run(options, stop, said.append))
    async with asyncio.timeout(DEADLINE_S):
        while not until():
            assert not task.done(), task
            await asyncio.sleep(0.01)
        stop.set()
        await task
    return said


def names(service: Service) -> list[str]:
    return [event["name"] for event in service.taken if event["type"] == "hub_event"]


async def test_what_is_seen_reaches_hubscope(hub: Hub, service: Service) -> None:
    hub.health["servers"] = [{"name": "time", "status": "connected", "uptime": 5}]
    hub.stream = b"event: hub_state\ndata: " + json.dumps({"state": "ready", "pid": 7}).encode() + b"\n\n"
    options = Options(hub_url=hub.url, url=service.url, api_key="hsk_x", name="mine", probe_seconds=0.05)
    said = await bridging(options, lambda: "hub_alive" in names(service))
    assert said == [f"attached to mcp-hub 4.2.1 at {hub.url}, 1 servers"]
    assert {event["hub"] for event in service.taken} == {"mine"}
    assert service.posts[0][0]["authorization"] == "Bearer hsk_x"
    assert names(service)[-1] == "hub_detached"
    assert {(e["server"], e["state"]) for e in service.taken if e["type"] == "server_event"} == {("time", "up")}


async def test_a_storm_of_log_lines_is_skipped_and_counted(hub: Hub, service: Service) -> None:
    line = b"event: log\ndata: " + json.dumps({"type": "warn", "message": "x" * 200}).encode() + b"\n\n"
    hub.stream = line * 5_000
    options = Options(hub_url=hub.url, url=service.url, probe_seconds=0.05)

    def counted() -> int:
        found = [e["payload"] for e in service.taken if e["type"] == "hub_event" and e["name"] == "hub_alive"]
        return sum(payload["skipped_stream_events"] for payload in found)

    await bridging(options, lambda: counted() == 5_000)
    assert hub.asked.count("/api/health") <= 3  # not one of them was a reason to look


async def test_without_the_stream_the_hub_is_only_polled(hub: Hub, service: Service) -> None:
    options = Options(hub_url=hub.url, url=service.url, stream=False, poll_seconds=0.01)
    await bridging(options, lambda: hub.asked.count("/api/health") > 5)
    assert "/api/events" not in hub.asked


async def test_a_hub_that_is_away_is_waited_for(hub: Hub, service: Service) -> None:
    hub.status = hub.stream_status = 503
    options = Options(hub_url=hub.url, url=service.url, poll_seconds=0.05)

    def step() -> bool:
        if "hub_away" in names(service):
            hub.status = 200
        return "hub_back" in names(service)

    said = await bridging(options, step)
    assert said[0] == "the hub is away (it answers with status 503); waiting for it"
    assert said[1].startswith("attached to mcp-hub")


async def test_with_refresh_each_server_is_asked(hub: Hub, service: Service) -> None:
    info: dict[str, Any] = {"name": "time", "status": "connected", "uptime": 5}
    hub.health["servers"] = [info, {"name": "off", "status": "disabled"}]
    hub.refreshed = (200, {"server": info})
    options = Options(hub_url=hub.url, url=service.url, probe="refresh", probe_seconds=0.05, stream=False)

    def answered() -> bool:
        return any(event.get("outcome") == "answered" for event in service.taken)

    await bridging(options, answered)
    assert {asked for asked in hub.asked if "refresh" in asked} == {"/api/servers/refresh time"}
    assert all(e["latency_ms"] > 0 for e in service.taken if e.get("outcome") == "answered")
    await bridging(replace(options, probe="status"), lambda: len(service.posts) > 3)


@pytest.mark.parametrize(
    "text", ["http://h:1", "http://h:1/", "http://h:1/api", "http://h:1/api/", "https://h/hub/api/", "http://[::1]:5"]
)
def test_a_hubs_address_is_taken_with_or_without_its_prefix(text: str) -> None:
    assert hub_address(text) == text.rstrip("/").removesuffix("/api")


@pytest.mark.parametrize(
    "text", ["", "h:1", "ftp://h", "http://", "http://u:p@h", "http://h?k=1", "http://h#x", "http://h:0"]
)
def test_what_is_no_address_of_a_hub_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="URL is not the address of an mcp-hub"):
        hub_address(text)
