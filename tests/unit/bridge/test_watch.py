"""What is seen of a hub becomes these events and no others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from hubscope.bridge.seen import ConfigChanged, HubState, Kind, ListChanged, Server, ServersUpdated, Signal, Snapshot
from hubscope.bridge.watch import CONNECTING_GRACE, PROBES_PER_STATE, SIGNALS_MAX, Probe, Watch
from hubscope.model import Event, HubEvent, ServerEvent

T0 = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
STARTED = "2026-11-21T19:59:00.000Z"
LATER = "2026-11-21T20:00:30.000Z"
UP = Server(
    "time", "connected", "stdio", 60, STARTED,
    offers=(("tools", frozenset({"now", "convert"})), ("resources", frozenset()), ("prompts", frozenset())),
    version=("mcp-time", "1.0"),
)  # fmt: skip
Offers = tuple[tuple[Kind, frozenset[str]], ...]
EMPTY: Offers = (("tools", frozenset()), ("resources", frozenset()), ("prompts", frozenset()))
DEAD = replace(UP, uptime_s=0)
PROBE_SECONDS = 60


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def look(*servers: Server, seconds: float = 0, state: str = "ready", unreadable: int = 0) -> Snapshot:
    return Snapshot(state, "4.2.1", at(seconds), servers, unreadable)


def watching(*servers: Server) -> Watch:
    """A bridge that has seen these servers."""
    watch = Watch(PROBE_SECONDS)
    watch.observed(look(*servers), at(0))
    return watch


def states(events: list[Event]) -> list[tuple[str, str, str, str | None]]:
    return [(e.server, e.outcome, e.state, e.error_type) for e in events if isinstance(e, ServerEvent)]


def told(events: list[Event]) -> list[tuple[str, dict[str, Any]]]:
    return [(e.name, msgspec.json.decode(e.payload)) for e in events if isinstance(e, HubEvent)]


def test_the_first_sight_of_a_hub_reports_it_and_each_server() -> None:
    first, second = Watch(PROBE_SECONDS).observed(look(UP), at(0))
    assert told([first]) == [("hub_attached", {"version": "4.2.1", "state": "ready", "servers": 1})]
    assert isinstance(second, ServerEvent)
    assert (second.source, second.outcome, second.state) == ("connection", "connected", "up")
    assert (second.tools, second.resources, second.prompts, second.transport) == (2, 0, 0, "stdio")
    assert msgspec.json.decode(second.attrs) == {"server_name": "mcp-time", "server_version": "1.0"}


def test_nothing_changed_is_nothing_reported() -> None:
    watch = watching(UP)
    for number in range(1, 20):
        assert watch.observed(look(replace(UP, uptime_s=60 + number), seconds=number), at(number)) == []


# What the hub says of a server -> what is reported of it at the first sight
STANDINGS: list[tuple[Server, tuple[str, str, str | None]]] = [
    (UP, ("connected", "up", None)),
    (replace(UP, uptime_s=0), ("connected", "unknown", None)),
    (replace(UP, offers=EMPTY), ("connected", "up", None)),
    (Server("time", "connecting", last_started=T0.isoformat()), ("connecting", "unknown", None)),
    (
        Server("time", "connecting", last_started=(T0 - CONNECTING_GRACE - timedelta(seconds=1)).isoformat()),
        ("connecting", "down", "connect_timeout"),
    ),
    (Server("time", "connecting"), ("connecting", "unknown", None)),
    (Server("time", "disconnected"), ("disconnected", "down", "disconnected")),
    (Server("time", "disconnected", error="spawn ENOENT"), ("disconnected", "down", "connect_failed")),
    (Server("time", "unauthorized"), ("unauthorized", "down", "unauthorized")),
    (Server("time", "disabled", uptime_s=500), ("disabled", "maintenance", None)),
    (Server("time", "never heard of"), ("unknown_status", "unknown", None)),
]


@pytest.mark.parametrize(("server", "expected"), STANDINGS, ids=lambda value: str(value)[:60])
def test_each_status_of_the_hub_has_its_state(server: Server, expected: tuple[str, str, str | None]) -> None:
    assert states(Watch(PROBE_SECONDS).observed(look(server), at(0))) == [("time", *expected)]


@pytest.mark.parametrize(("server", "expected"), STANDINGS, ids=lambda value: str(value)[:60])
def test_a_change_to_a_status_is_reported_once(server: Server, expected: tuple[str, str, str | None]) -> None:
    watch = watching(Server("time", "something else"))
    events = watch.observed(look(server), at(0))
    assert states(events) == ([] if expected[0] == "unknown_status" else [("time", *expected)])
    if expected[1:] != ("unknown", None) or expected[0] != "connected":
        assert watch.observed(look(server), at(1)) == []


LOST = ("time", "transport_closed", "down", "transport_closed")


def test_a_server_whose_uptime_falls_to_zero_is_down_at_once() -> None:
    """mcp-hub goes on calling it connected."""
    watch = watching(UP)
    assert states(watch.observed(look(DEAD, seconds=10), at(10))) == [LOST]
    assert watch.observed(look(DEAD, seconds=20), at(20)) == []
    assert not watch.in_doubt


def test_a_server_that_was_dead_before_is_down_at_the_second_look() -> None:
    watch = watching(DEAD)
    assert watch.in_doubt
    assert states(watch.observed(look(DEAD, seconds=1.1), at(1.1))) == [LOST]
    assert not watch.in_doubt


def test_a_server_that_connected_this_very_second_is_no_dead_one() -> None:
    watch = watching(DEAD)
    assert watch.observed(look(DEAD, seconds=0.5), at(0.5)) == []
    assert states(watch.observed(look(replace(UP, uptime_s=1), seconds=1.1), at(1.1))) == [
        ("time", "connected", "up", None)
    ]


@pytest.mark.parametrize("between", ["restarted", "disconnected"])
def test_a_server_that_connected_again_is_not_taken_for_lost(between: str) -> None:
    watch = watching(UP)
    if between == "disconnected":
        watch.observed(look(Server("time", "disconnected"), seconds=5), at(5))
    fresh = replace(UP, uptime_s=0, last_started=LATER)
    assert states(watch.observed(look(fresh, seconds=31), at(31))) == [("time", "connected", "unknown", None)]
    assert states(watch.observed(look(replace(fresh, uptime_s=1), seconds=32), at(32))) == [
        ("time", "connected", "up", None)
    ]


def test_a_lost_server_that_is_started_again_is_up() -> None:
    watch = watching(UP)
    watch.observed(look(DEAD, seconds=10), at(10))
    back = replace(UP, uptime_s=5, last_started=LATER)
    (event,) = watch.observed(look(back, seconds=35), at(35))
    assert states([event]) == [("time", "connected", "up", None)]
    assert isinstance(event, ServerEvent)
    assert msgspec.json.decode(event.attrs)["reconnected"] is True


def test_a_reconnection_between_two_looks_is_reported() -> None:
    again = replace(UP, uptime_s=5, last_started=LATER)
    assert states(watching(UP).observed(look(again, seconds=35), at(35))) == [("time", "connected", "up", None)]


def test_the_clock_of_the_hub_decides_how_long_it_took() -> None:
    """A bridge whose own clock is hours away."""
    watch = Watch(PROBE_SECONDS)
    hours = timedelta(hours=5)
    watch.observed(look(DEAD), at(0) + hours)
    assert watch.observed(look(DEAD, seconds=0.5), at(0.5) + hours) == []
    assert states(watch.observed(look(DEAD, seconds=1.5), at(1.5) - hours)) == [LOST]


def test_a_server_that_is_no_longer_there_was_removed() -> None:
    watch = watching(UP, replace(UP, name="git"))
    (event,) = watch.observed(look(UP), at(10))
    assert states([event]) == [("git", "removed", "unknown", None)]
    assert isinstance(event, ServerEvent)
    assert event.valid_until is None


def test_a_server_that_cannot_be_read_has_not_gone() -> None:
    assert watching(UP).observed(look(unreadable=1), at(10)) == []


def changed(*tools: str, **more: Any) -> Server:
    return replace(UP, offers=(("tools", frozenset(tools)), *EMPTY[1:]), **more)


def test_a_changed_list_names_what_came_and_what_went() -> None:
    watch = watching(UP)
    expected = {"server": "time", "count": 2, "count_before": 2, "announced": False}
    expected |= {"added": ["zones"], "removed": ["convert"]}
    assert told(watch.observed(look(changed("now", "zones")), at(10))) == [("tools_list_changed", expected)]
    assert watch.observed(look(changed("now", "zones")), at(20)) == []


def test_a_list_that_a_server_says_has_changed_is_reported_once_whatever_its_names() -> None:
    watch = watching(UP)
    assert watch.told(ListChanged("time", "tools"), at(1)) == []
    ((name, about),) = told(watch.observed(look(UP), at(2)))
    assert (name, about["announced"], about["count"]) == ("tools_list_changed", True, 2)
    assert watch.observed(look(UP), at(3)) == []
    assert watch.told(ListChanged("nobody", "tools"), at(4)) == []


def test_the_names_of_resources_stay_here() -> None:
    """They are addresses, which may hold a password."""
    watch = watching(UP)
    offers: Offers = (UP.offers[0], ("resources", frozenset({"postgresql://bob:pw@db"})), UP.offers[2])
    ((name, about),) = told(watch.observed(look(replace(UP, offers=offers)), at(1)))
    assert (name, about) == (
        "resources_list_changed", {"server": "time", "count": 1, "count_before": 0, "announced": False}
    )  # fmt: skip


def test_a_server_of_which_no_list_is_left_is_degraded() -> None:
    """The hub empties the lists that a server does not answer for."""
    watch = watching(UP)
    events = watch.observed(look(replace(UP, offers=EMPTY)), at(10))
    assert states(events) == [("time", "lists_lost", "degraded", "lists_lost")]
    assert told(events) == []
    assert states(watch.observed(look(UP), at(20))) == [("time", "connected", "up", None)]


def test_a_server_that_says_it_has_nothing_any_more_is_up() -> None:
    watch = watching(UP)
    watch.told(ListChanged("time", "tools"), at(1))
    events = watch.observed(look(replace(UP, offers=EMPTY)), at(10))
    assert (states(events), [name for name, _ in told(events)]) == ([], ["tools_list_changed"])


@pytest.mark.parametrize("state", ["starting", "restarting", "stopping"])
def test_while_the_hub_starts_or_stops_its_servers_nobody_is_blamed(state: str) -> None:
    watch = watching(UP)
    events = watch.observed(look(Server("time", "disconnected"), state=state), at(1))
    assert (states(events), told(events)) == ([], [("hub_state", {"state": state, "before": "ready"})])
    assert states(watch.observed(look(UP), at(2))) == []


def test_a_restart_of_the_hub_is_told_by_its_states() -> None:
    watch = watching(UP)
    events = [*watch.told(HubState("restarting", 7), at(1)), *watch.told(HubState("restarted", 7), at(2))]
    assert told(events) == [
        ("hub_state", {"state": "restarting", "before": "ready"}),
        ("hub_state", {"state": "restarted", "before": "restarting"}),
        ("hub_restarted", {"how": "servers"}),
    ]
    # With the stream there, an answer that was on its way does not turn the state back.
    assert watch.observed(look(UP, state="restarting"), at(3), whole=False) == []


def test_another_process_in_the_hubs_place_is_a_restart() -> None:
    watch = watching(UP)
    watch.told(HubState("ready", 7), at(1))
    assert told(watch.told(HubState("ready", 8), at(2))) == [
        ("hub_restarted", {"how": "process", "pid": 8, "pid_before": 7})
    ]


def test_a_hub_that_does_not_answer_twice_is_away_and_its_servers_unknown() -> None:
    watch = watching(UP)
    assert watch.missed("connection refused", at(10)) == []
    events = watch.missed("connection refused", at(11))
    assert told(events) == [("hub_away", {"reason": "connection refused", "last_state": "ready", "servers": 1})]
    assert states(events) == [("time", "hub_away", "unknown", "hub_away")]
    assert watch.away
    assert watch.missed("connection refused", at(12)) == []
    assert watch.pulse(at(60)) == []
    events = watch.observed(look(UP), at(71))
    assert told(events) == [("hub_back", {"away_seconds": 60.0, "state": "ready", "version": "4.2.1"})]
    assert states(events) == [("time", "connected", "up", None)]


def test_one_answer_that_is_missing_is_no_news() -> None:
    watch = watching(UP)
    for number in range(5):
        assert watch.missed("no answer within 5 s", at(number)) == []
        assert watch.observed(look(UP), at(number)) == []


def test_a_hub_that_was_never_there_is_reported_away() -> None:
    watch = Watch(PROBE_SECONDS)
    watch.missed("connection refused", at(0))
    assert [name for name, _ in told(watch.missed("connection refused", at(1)))] == ["hub_away"]
    assert watch.detached(at(2)) == []


@pytest.mark.parametrize(
    ("signal", "name", "about"),
    [
        (ConfigChanged(True), "config_changed", {"significant": True}),
        (ServersUpdated(("a",), (), ("c",)), "servers_updated", {"added": ["a"], "modified": ["c"]}),
        (ServersUpdated(modified=("c",), reason="x"), "servers_updated", {"modified": ["c"], "reason": "x"}),
    ],
)
def test_what_the_hub_tells_is_reported_once_between_two_looks(
    signal: Signal, name: str, about: dict[str, Any]
) -> None:
    watch = watching(UP)
    assert told(watch.told(signal, at(1))) == [(name, about)]
    assert watch.told(signal, at(1)) == []
    watch.observed(look(UP), at(2))
    assert len(watch.told(signal, at(3))) == 1


def test_a_storm_of_signals_is_bounded() -> None:
    watch = watching(UP)
    storm = [event for number in range(10_000) for event in watch.told(ServersUpdated((f"s{number}",)), at(1))]
    assert len(storm) == SIGNALS_MAX


def test_names_that_are_very_many_are_cut() -> None:
    watch = watching(UP)
    ((_, about),) = told(watch.observed(look(changed(*(f"tool{number:04}" for number in range(1_000)))), at(1)))
    assert (about["count"], len(about["added"])) == (1_000, 50)


def test_the_pulse_repeats_every_state() -> None:
    watch = watching(UP, Server("git", "disabled"), Server("x", "disconnected", error="spawn ENOENT"))
    events = watch.pulse(at(60), latency_ms=1.5)
    assert told(events) == [
        ("hub_alive", {
            "state": "ready", "version": "4.2.1", "servers": 3, "up": 1, "maintenance": 1, "down": 1, "latency_ms": 1.5
        })
    ]  # fmt: skip
    probes = [event for event in events if isinstance(event, ServerEvent)]
    assert {event.source for event in probes} == {"probe"}
    assert [(e.server, e.outcome, e.state, e.tools) for e in probes] == [
        ("time", "alive", "up", 2), ("git", "disabled", "maintenance", None), ("x", "disconnected", "down", None)
    ]  # fmt: skip


def test_every_state_is_valid_for_two_and_a_half_probes() -> None:
    watch = Watch(PROBE_SECONDS)
    events = [*watch.observed(look(UP), at(0)), *watch.pulse(at(60)), *watch.probed("time", Probe(UP), at(61))]
    found = [event for event in events if isinstance(event, ServerEvent)]
    assert len(found) == 3
    for event in found:
        assert event.valid_until == event.time + timedelta(seconds=PROBES_PER_STATE * PROBE_SECONDS)


def test_an_answered_probe_has_a_latency() -> None:
    watch = watching(UP)
    assert watch.to_probe == ["time"]
    (event,) = watch.probed("time", Probe(UP, at(10), 12.5), at(10))
    assert isinstance(event, ServerEvent)
    assert (event.source, event.outcome, event.state, event.latency_ms) == ("probe", "answered", "up", 12.5)


def test_a_server_that_does_not_answer_its_probe_is_degraded_and_then_down() -> None:
    watch = watching(UP)
    silent = Probe(timed_out=True, error="no answer within 5 s")
    assert states(watch.probed("time", silent, at(60))) == [("time", "probe_timeout", "degraded", "probe_timeout")]
    assert watch.observed(look(replace(UP, uptime_s=70)), at(70)) == []  # the hub knows nothing of it
    assert states(watch.probed("time", silent, at(120))) == [("time", "probe_timeout", "down", "probe_timeout")]
    assert states(watch.pulse(at(121))) == [("time", "probe_timeout", "down", "probe_timeout")]
    assert states(watch.probed("time", Probe(UP, at(180), 3.0), at(180))) == [
        ("time", "connected", "up", None), ("time", "answered", "up", None)
    ]  # fmt: skip


def test_a_probe_that_the_hub_refuses_says_why() -> None:
    (event,) = watching(UP).probed("time", Probe(error="Server connection not found"), at(60))
    assert isinstance(event, ServerEvent)
    assert (event.outcome, event.state, event.error_message) == (
        "probe_failed", "degraded", "Server connection not found"
    )  # fmt: skip


def test_servers_that_cannot_answer_are_not_asked() -> None:
    watch = watching(UP, Server("a", "disabled"), Server("b", "disconnected"), replace(UP, name="c"))
    watch.observed(look(DEAD, replace(UP, name="c"), seconds=9), at(9))
    assert watch.to_probe == ["c"]
    assert watch.probed("time", Probe(UP), at(10)) != []  # was asked before it was known: an answer is an answer
    assert watch.probed("nobody", Probe(timed_out=True), at(10)) == []


def test_the_end_of_the_bridge_is_an_event() -> None:
    assert told(watching(UP).detached(at(9))) == [("hub_detached", {"state": "ready"})]


def test_events_have_ids_of_their_own_and_keep_their_order() -> None:
    watch = Watch(PROBE_SECONDS)
    events = [*watch.observed(look(UP, replace(UP, name="git")), at(0)), *watch.pulse(at(60))]
    ids = [event.event_id for event in events]
    assert None not in ids
    assert sorted(ids, key=str) == ids
    assert len(set(ids)) == len(ids)
