"""The way to a hub: what it answers is bounded in bytes and in time, and trouble is one sentence."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from hubscope.bridge.link import Link
from hubscope.bridge.seen import HubState, Signal
from hubscope.errors import HubAway
from tests.unit.bridge.hub import Hub, serving

INFO: dict[str, Any] = {"name": "time", "status": "connected", "uptime": 5}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as started:
        yield started


def linked(url: str, timeout_s: float = 30, most: int = 100_000) -> Link:
    return Link(url, timeout_s=timeout_s, max_answer_bytes=most, max_event_bytes=10_000, error_chars=500)


@pytest.fixture
async def link(hub: Hub) -> AsyncIterator[Link]:
    made = linked(hub.url)
    yield made
    await made.close()


async def test_a_poll_tells_how_the_hub_is_and_how_long_it_took(hub: Hub, link: Link) -> None:
    hub.health["servers"] = [INFO]
    seen, took_ms = await link.poll()
    assert (seen.state, [each.name for each in seen.servers], hub.asked) == ("ready", ["time"], ["/api/health"])
    assert took_ms > 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 503}, "it answers with status 503"),
        ({"body": b"<html>"}, "not an mcp-hub's answer"),
        ({"body": b"{}"}, "not an mcp-hub's answer"),
    ],
)
async def test_an_answer_that_is_no_hubs_counts_as_away(
    hub: Hub, link: Link, answer: dict[str, Any], said: str
) -> None:
    for name, value in answer.items():
        setattr(hub, name, value)
    with pytest.raises(HubAway, match=said):
        await link.poll()


async def test_a_hub_that_is_silent_counts_as_away_after_the_timeout(hub: Hub) -> None:
    hub.hangs = True
    link = linked(hub.url, timeout_s=0.05)
    with pytest.raises(HubAway, match=r"no answer within 0\.05 s"):
        await link.poll()
    assert await link.follow(lambda _: None, lambda: None) == "it is silent"
    await link.close()


async def test_a_hub_that_is_not_there_is_said_without_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    link = linked(f"http://127.0.0.1:{port}")
    with pytest.raises(HubAway) as error:
        await link.poll()
    assert error.value.detail == "connection refused"
    assert await link.follow(lambda _: None, lambda: None) == "connection refused"
    await link.close()


async def test_an_answer_over_the_limit_is_not_read_to_its_end(hub: Hub) -> None:
    hub.body = b" " * 50_000_000
    link = linked(hub.url, most=2_000)
    with pytest.raises(HubAway, match="longer than 2000 bytes"):
        await link.poll()
    await link.close()


async def test_the_stream_gives_signals_and_counts_what_it_skips(hub: Hub, link: Link) -> None:
    ready = b"event: hub_state\ndata: " + json.dumps({"state": "ready", "pid": 7}).encode() + b"\n\n"
    long = b"event: subscription_event\ndata: " + b"x" * 20_000 + b"\n\n"
    hub.stream = ready + b"event: log\ndata: {}\n\n" * 2_000 + long + b"event: heartbeat\ndata: {}\n\n" + ready
    hub.stream_ends = True
    heard: list[Signal | None] = []
    connected: list[bool] = []
    assert await link.follow(heard.append, lambda: connected.append(True)) == "the hub ended it"
    assert heard == [HubState("ready", 7), None, HubState("ready", 7)]
    assert (link.splitter.skipped, link.splitter.oversized, connected) == (2_001, 1, [True])


async def test_a_stream_that_is_refused_says_so(hub: Hub, link: Link) -> None:
    hub.stream_status = 404
    assert await link.follow(lambda _: None, lambda: None) == "it answers with status 404"


async def test_what_is_not_http_ends_the_stream() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n" * 100)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        link = linked(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await link.follow(lambda _: None, lambda: None) == "what it sends is not HTTP"
        await link.close()


async def test_a_head_without_end_is_cut_off() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"x-a: " + b"y" * 1_000 + b"\r\n")
            try:
                await writer.drain()
            except OSError:
                break

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        link = linked(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await link.follow(lambda _: None, lambda: None) == "its head is too long"
        await link.close()


async def test_a_probe_has_the_hub_ask_one_server(hub: Hub, link: Link) -> None:
    hub.refreshed = (200, {"status": "ok", "server": INFO, "timestamp": "2026-11-21T20:00:00Z"})
    probe = await link.probe("time")
    assert probe.server is not None
    assert (probe.server.name, probe.timed_out, hub.asked) == ("time", False, ["/api/servers/refresh time"])
    assert probe.latency_ms is not None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            (500, {"error": "no such server, token=abcd1234efgh", "data": {"args": 1}}),
            "no such server, token=[redacted]",
        ),
        ((500, {}), "status 500"),
        ((200, {}), "an answer that cannot be read"),
    ],
)
async def test_a_probe_that_fails_says_why(hub: Hub, link: Link, answer: tuple[int, dict[str, Any]], said: str) -> None:
    hub.refreshed = answer
    probe = await link.probe("time")
    assert (probe.server, probe.timed_out, probe.error) == (None, False, said)
