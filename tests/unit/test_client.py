"""The client for hubs: nothing is lost that there is room for, nothing is counted twice, and nobody waits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from hubscope.client import Client, Totals
from hubscope.model import HubEvent
from tests.scripted_service import Service, serving


def whole(event: dict[str, Any]) -> dict[str, Any]:
    return event


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(Service(read=whole)) as started:
        yield started


def event(name: str = "x") -> HubEvent:
    return HubEvent(time=datetime.now(UTC), name=name)


async def test_what_is_recorded_is_acknowledged_when_the_block_ends(service: Service) -> None:
    async with Client(service.url, api_key="hsk_x", hub="mine", linger_s=30) as hub:
        ids = [hub.record(event(str(number))) for number in range(1_200)]
    assert hub.totals == Totals(recorded=1_200, acknowledged=1_200)
    assert [sent["event_id"] for sent in service.taken] == [str(event_id) for event_id in ids]
    assert {sent["hub"] for sent in service.taken} == {"mine"}
    assert service.posts[0][0]["authorization"] == "Bearer hsk_x"


async def test_a_retry_sends_the_same_ids(service: Service) -> None:
    service.script = [(503, {"Retry-After": "0"}, {}), (500, {"Retry-After": "0"}, {})]
    async with Client(service.url, linger_s=0) as hub:
        event_id = hub.record(event())
        assert await hub.flush(30)
        assert hub.totals == Totals(recorded=1, acknowledged=1)
    assert [sent["event_id"] for sent in service.taken] == [str(event_id)]


async def test_a_batch_that_is_too_large_goes_in_pieces_and_each_piece_once(service: Service) -> None:
    service.most_events = 3
    async with Client(service.url) as hub:
        for number in range(20):
            hub.record(event(str(number)))
    assert [sent["name"] for sent in service.taken] == [str(number) for number in range(20)]
    assert hub.totals == Totals(recorded=20, acknowledged=20)
    assert hub._bytes == 0


async def test_events_that_are_refused_are_counted_and_cost_no_others(service: Service) -> None:
    rejected = [{"index": 0, "code": "too_old", "detail": "time: ..."}]
    service.script = [(200, {}, {"accepted": 1, "duplicates": 0, "rejected": rejected}), (400, {}, {})]
    async with Client(service.url, linger_s=0) as hub:
        for count in (2, 1, 1):
            for _ in range(count):
                hub.record(event())
            assert await hub.flush(30)
    assert hub.totals == Totals(recorded=4, acknowledged=2, refused=2)


async def test_memory_is_bounded_and_the_oldest_go_first(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    async with Client(url, max_bytes=10_000, close_timeout_s=0.05, linger_s=30) as hub:
        for number in range(1_000):
            hub.record(event(str(number)))
        assert hub._bytes <= 10_000
        assert b'"999"' in hub._waiting[-1]
        assert b'"0"' not in b"".join(hub._waiting)
    assert hub.totals == Totals(recorded=1_000, dropped=1_000)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


async def test_a_service_that_is_away_is_not_waited_for(service: Service) -> None:
    service.hangs = True
    async with Client(service.url, linger_s=0, close_timeout_s=0.05) as hub:
        hub.record(event())
        assert not await hub.flush(0.05)
    assert hub.totals == Totals(recorded=1, dropped=1)


@pytest.mark.parametrize(
    ("raised", "status", "error_type"),
    [
        (None, "ok", None),
        (ValueError("no"), "error", "ValueError"),
        (TimeoutError(), "timeout", "TimeoutError"),
        (asyncio.CancelledError(), "cancelled", "CancelledError"),
    ],
)
async def test_a_call_is_recorded_as_it_ends(
    service: Service, raised: BaseException | None, status: str, error_type: str | None
) -> None:
    async with Client(service.url) as hub:
        with suppress(ValueError, TimeoutError, asyncio.CancelledError), hub.call("fs", "read", client="c"):
            if raised is not None:
                raise raised
    (sent,) = service.taken
    assert (sent["server"], sent["tool"], sent["client"]) == ("fs", "read", "c")
    assert (sent["status"], sent["error_type"]) == (status, error_type)
    assert sent["error_message"] == ("no" if error_type == "ValueError" else None)
    assert sent["duration_ms"] >= 0


async def test_a_result_that_is_an_error_can_be_said_to_be_one(service: Service) -> None:
    async with Client(service.url) as hub:
        with hub.call("fs", "read") as call:
            call.status, call.error_type = "error", "tool_error"
    assert (service.taken[0]["status"], service.taken[0]["error_type"]) == ("error", "tool_error")


async def test_leaving_ends_a_client_that_waits_for_company_with_nothing_to_send(service: Service) -> None:
    """What set it off went out with the batch before."""
    async with Client(service.url, linger_s=30) as hub:
        hub._news.set()
        await asyncio.sleep(0.05)
    assert hub.totals == Totals()
