"""Events on their way into the store: in order, again while it is away, bounded, and never a poisoned one for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from hubscope.access import LOCAL, Principal
from hubscope.errors import DatabaseAway, HubscopeError, InvalidRequest
from hubscope.instruments import Instruments
from hubscope.model import Event, HubEvent
from hubscope.peers import outbox
from hubscope.peers.outbox import Outbox

ACME = Principal("acme", LOCAL.scopes)


def event(name: str) -> HubEvent:
    return HubEvent(time=datetime.now(UTC), name=name)


class Store:
    """Takes events, unless it is told to fail."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, list[str]]] = []
        self.failures: list[Exception] = []

    async def record(self, principal: Principal, events: Sequence[Event]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.groups.append((principal.tenant, [one.name for one in events if isinstance(one, HubEvent)]))


async def test_events_are_recorded_in_order_and_by_tenant() -> None:
    store = Store()
    box = Outbox(store.record, Instruments())
    box.put(LOCAL, event("a"), event("b"))
    box.put(ACME, event("c"))
    box.put(LOCAL, event("d"))
    box.start()
    await asyncio.wait_for(box.flushed(), 5)
    assert store.groups == [("default", ["a", "b"]), ("acme", ["c"]), ("default", ["d"])]
    await box.close(1)


async def test_while_the_database_is_away_the_same_events_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "pause_seconds", lambda _tries, _asked: 0)
    store = Store()
    store.failures = [DatabaseAway(), DatabaseAway()]
    box = Outbox(store.record, Instruments())
    box.start()
    box.put(LOCAL, event("a"))
    await asyncio.wait_for(box.flushed(), 5)
    assert store.groups == [("default", ["a"])]
    await box.close(1)


@pytest.mark.parametrize("error", [InvalidRequest("no"), HubscopeError("no"), ValueError("surprise")])
async def test_events_that_will_never_be_taken_do_not_hold_up_the_next(error: Exception) -> None:
    store, instruments = Store(), Instruments()
    store.failures = [error]
    box = Outbox(store.record, instruments)
    box.start()
    box.put(LOCAL, event("a"))
    await asyncio.wait_for(box.flushed(), 5)
    box.put(LOCAL, event("b"))
    await asyncio.wait_for(box.flushed(), 5)
    assert store.groups == [("default", ["b"])]
    assert instruments.registry.get_sample_value("hubscope_peer_events_lost_total") == 1
    await box.close(1)


async def test_when_it_is_full_the_oldest_go_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_EVENTS", 3)
    store, instruments = Store(), Instruments()
    box = Outbox(store.record, instruments)
    box.put(LOCAL, *(event(name) for name in "abcde"))
    box.start()
    await asyncio.wait_for(box.flushed(), 5)
    assert store.groups == [("default", ["c", "d", "e"])]
    assert instruments.registry.get_sample_value("hubscope_peer_events_lost_total") == 2
    await box.close(1)


async def test_what_is_not_recorded_in_time_is_counted_as_lost() -> None:
    store, instruments = Store(), Instruments()
    store.failures = [DatabaseAway() for _ in range(100)]
    box = Outbox(store.record, instruments)
    box.start()
    box.put(LOCAL, event("a"), event("b"))
    await box.close(0.01)
    box.put(LOCAL, event("c"))
    assert instruments.registry.get_sample_value("hubscope_peer_events_lost_total") == 3
    await box.close(1)
