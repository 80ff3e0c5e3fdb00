"""What was seen of a hub, into events. Pure: it is told the time and what was seen, and keeps the little it must.

How a server is (`standing`) follows from what the hub says of it now and before, and from how it answered its last
probe. Changes become server events of source `connection`, `pulse` repeats each server's state as source `probe`; both
are valid for two and a half probe intervals, so that a bridge that is killed leaves no server up for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Raw

from hubscope.bridge.seen import (
    KINDS,
    NAMES_MAX,
    ConfigChanged,
    HubState,
    Kind,
    ListChanged,
    Server,
    ServersUpdated,
    Signal,
    Snapshot,
)
from hubscope.ids import uuid7
from hubscope.model import Event, HubEvent, ServerEvent, ServerState

PROBES_PER_STATE: Final = 2.5
"""A state holds for so many probe intervals."""
CONNECTING_GRACE: Final = timedelta(seconds=30)
"""So long a server may take to connect before it counts as down (npx and uvx download first)."""
SURE_AFTER: Final = timedelta(seconds=1)
"""The hub tells uptime in whole seconds: one that is still 0 after this long is none."""
POLLS_UNTIL_AWAY: Final = 2
SIGNALS_MAX: Final = 100
"""Most different signals that are reported between two polls."""
UNSETTLED: Final = frozenset({"starting", "restarting", "stopping"})
"""States of the hub in which it starts or stops its servers: what they are then is nobody's fault."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a server is: the word for it, the state, and why."""

    outcome: str
    state: ServerState
    error_type: str | None = None
    error_message: str | None = None

    @property
    def key(self) -> tuple[str, str, str | None]:
        """What makes it another one: words alone do not."""
        return self.outcome, self.state, self.error_type


@dataclass(frozen=True, slots=True)
class Probe:
    """How a server answered a probe of its own.

    Attributes:
        server: what it answered; None where it did not.
        time: when, by the hub's clock; None where it does not say.
        latency_ms: how long that took.
        timed_out: it did not answer in time.
        error: what the hub said instead.
    """

    server: Server | None = None
    time: datetime | None = None
    latency_ms: float | None = None
    timed_out: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of a server.

    Attributes:
        standing: as last reported; None while the hub is away.
        zero_since: by the hub's clock, since when it is connected with an uptime of 0.
        offers: the lists it had when it was last up.
        failed: probes in a row that it did not answer.
    """

    server: Server
    standing: Standing | None = None
    zero_since: datetime | None = None
    lost: bool = False
    offers: tuple[tuple[Kind, frozenset[str]], ...] = ()
    failed: int = 0
    failure: Probe | None = None
    announced: frozenset[Kind] = field(default_factory=frozenset)


def standing(server: Server, known: Known, at: datetime) -> Standing:
    """How a server is.

    Args:
        server: as the hub describes it now.
        known: what is remembered, with `lost`, `zero_since` and `failed` brought up to date (`brought_up_to_date`).
        at: now, by the hub's clock.
    """
    error = server.error or None
    match server.status:
        case "connected" if known.lost:
            words = "its connection has closed; the hub still calls it connected"
            return Standing("transport_closed", "down", "transport_closed", error or words)
        case "connected" if known.failed:
            assert known.failure is not None
            kind = "probe_timeout" if known.failure.timed_out else "probe_failed"
            return Standing(kind, "down" if known.failed > 1 else "degraded", kind, known.failure.error or None)
        case "connected" if known.zero_since is not None:
            return Standing("connected", "unknown")  # just now, or long gone: the next poll tells
        case "connected" if _nothing_left(server, known):
            return Standing("lists_lost", "degraded", "lists_lost", "it offers nothing of what it had")
        case "connected":
            return Standing("connected", "up")
        case "connecting":
            begun = _parsed(server.last_started)
            if begun is not None and at - begun > CONNECTING_GRACE:
                return Standing("connecting", "down", "connect_timeout", error)
            return Standing("connecting", "unknown")
        case "disconnected":
            return Standing("disconnected", "down", "disconnected" if error is None else "connect_failed", error)
        case "unauthorized":
            return Standing("unauthorized", "down", "unauthorized", "it waits for somebody to authorize the hub")
        case "disabled":
            return Standing("disabled", "maintenance")
        case _:
            return Standing("unknown_status", "unknown")


def brought_up_to_date(server: Server, known: Known, at: datetime) -> Known:
    """What a new sight of a server says of its transport.

    mcp-hub goes on calling a killed stdio server connected, but its uptime falls to 0. Uptime is told in whole
    seconds, so a server that connected this very second looks the same: it is lost if it had been up since the same
    start, or if a second has passed and nothing changed.
    """
    if server.status != "connected" or server.uptime_s > 0:
        return replace(known, lost=False, zero_since=None)
    before = known.server
    if before.status != "connected" or before.last_started != server.last_started:
        return replace(known, lost=False, zero_since=at)
    since = known.zero_since
    gone = known.lost or before.uptime_s > 0 or (since is not None and at - since >= SURE_AFTER)
    return replace(known, lost=gone, zero_since=since or at)


class Watch:
    """One hub, from the first sight to the last.

    Args:
        probe_seconds: how often `pulse` will be called.
    """

    def __init__(self, probe_seconds: float) -> None:
        self._valid = timedelta(seconds=PROBES_PER_STATE * probe_seconds)
        self._known: dict[str, Known] = {}
        self._state = ""
        self._version = ""
        self._pid: int | None = None
        self._missed = 0
        self._away_since: datetime | None = None
        self._attached = False
        self._told: set[Signal] = set()  # since the last poll: the same is not reported twice

    @property
    def away(self) -> bool:
        """The hub does not answer."""
        return self._away_since is not None

    @property
    def in_doubt(self) -> bool:
        """Another look in a moment would tell more than this one did."""
        return any(known.zero_since is not None and not known.lost for known in self._known.values())

    @property
    def to_probe(self) -> list[str]:
        """Servers that can be asked: connected as far as anybody knows."""
        return [
            name
            for name, known in self._known.items()
            if known.server.status == "connected" and not known.lost and known.zero_since is None
        ]

    # The hub

    def observed(self, seen: Snapshot, at: datetime, *, whole: bool = True) -> list[Event]:
        """The hub answered a poll.

        Args:
            whole: its state is taken from here, too: there is no stream that would tell it sooner.
        """
        found: list[Event] = []
        self._missed = 0
        self._told.clear()
        if not self._attached or self._version != seen.version:
            found.append(_hub("hub_attached", at, version=seen.version, state=seen.state, servers=len(seen.servers)))
            self._attached, self._version = True, seen.version
            self._state = self._state or seen.state
        if self._away_since is not None:
            away = round((at - self._away_since).total_seconds(), 3)
            found.append(_hub("hub_back", at, away_seconds=away, state=seen.state, version=seen.version))
            self._away_since = None
            self._state = seen.state
        if whole and seen.state != self._state:
            found += self._turned(seen.state, at)
        if seen.state in UNSETTLED:
            return found
        clock = seen.time or at
        for server in seen.servers:
            found += self._saw(server, at, clock)
        present = {server.name for server in seen.servers}
        if not seen.unreadable:  # one that could not be read has not gone
            for name in [name for name in self._known if name not in present]:
                gone = self._known.pop(name)
                found.append(self._event(gone.server, Standing("removed", "unknown"), at, expires=False))
        return found

    def missed(self, reason: str, at: datetime) -> list[Event]:
        """The hub did not answer a poll."""
        self._missed += 1
        if self._missed < POLLS_UNTIL_AWAY or self._away_since is not None:
            return []
        self._away_since = at
        found: list[Event] = [_hub("hub_away", at, reason=reason, last_state=self._state, servers=len(self._known))]
        for name, known in self._known.items():
            found.append(self._event(known.server, Standing("hub_away", "unknown", "hub_away", reason), at))
            self._known[name] = replace(known, standing=None, failed=0, failure=None, lost=False, zero_since=None)
        return found

    def told(self, signal: Signal, at: datetime) -> list[Event]:
        """The hub's stream told something."""
        if not isinstance(signal, HubState):
            if signal in self._told or len(self._told) >= SIGNALS_MAX:
                return []
            self._told.add(signal)
        match signal:
            case HubState():
                found: list[Event] = []
                if self._pid is not None and signal.pid is not None and signal.pid != self._pid:
                    found.append(_hub("hub_restarted", at, how="process", pid=signal.pid, pid_before=self._pid))
                self._pid = signal.pid or self._pid
                if signal.state != self._state:
                    found += self._turned(signal.state, at, signal.error)
                return found
            case ListChanged():
                if (known := self._known.get(signal.server)) is not None:
                    announced = known.announced | {signal.kind}
                    self._known[signal.server] = replace(known, announced=announced)
                return []
            case ConfigChanged():
                return [_hub("config_changed", at, significant=signal.significant)]
            case ServersUpdated():
                groups = {"added": signal.added, "removed": signal.removed, "modified": signal.modified}
                about = {name: _some(names) for name, names in groups.items() if names}
                return [_hub("servers_updated", at, **about, **({"reason": signal.reason} if signal.reason else {}))]

    def detached(self, at: datetime) -> list[Event]:
        """The bridge ends; what the states are will not be known."""
        return [_hub("hub_detached", at, state=self._state)] if self._attached else []

    # Its servers

    def pulse(self, at: datetime, besides: frozenset[str] = frozenset(), **about: Any) -> list[Event]:
        """Each server's state once more, and the hub's.

        Args:
            besides: servers that are about to be asked themselves.
            about: more of the hub's own event.
        """
        if self.away or not self._attached:
            return []
        states = [known.standing.state for known in self._known.values() if known.standing is not None]
        counts: dict[str, Any] = {str(state): states.count(state) for state in sorted(set(states))}
        found: list[Event] = [
            _hub("hub_alive", at, state=self._state, version=self._version, servers=len(self._known), **counts, **about)
        ]
        for name, known in self._known.items():
            if known.standing is not None and name not in besides:
                shown = known.standing
                if shown.state == "up":
                    shown = replace(shown, outcome="alive")
                found.append(self._event(known.server, shown, at, source="probe"))
        return found

    def probed(self, name: str, probe: Probe, at: datetime) -> list[Event]:
        """A server was asked for its lists."""
        known = self._known.get(name)
        if known is None or self.away or known.server.status != "connected":
            return []  # gone in the meantime
        if probe.server is not None:
            self._known[name] = replace(known, failed=0, failure=None)
            found = self._saw(probe.server, at, probe.time or at)
            known = self._known[name]
            assert known.standing is not None
            shown = known.standing
            if shown.state == "up":
                shown = replace(shown, outcome="answered")
            return [*found, self._event(known.server, shown, at, source="probe", latency_ms=probe.latency_ms)]
        known = replace(known, failed=known.failed + 1, failure=probe)
        now = standing(known.server, known, at)
        self._known[name] = replace(known, standing=now)
        return [self._event(known.server, now, at, source="probe")]

    def _saw(self, server: Server, at: datetime, clock: datetime) -> list[Event]:
        before = self._known.get(server.name)
        known = brought_up_to_date(server, before or Known(server), clock)
        if before is None:
            known = replace(known, zero_since=clock if _zero(server) else None)
        if server.status != "connected" or server.last_started != known.server.last_started:
            known = replace(known, failed=0, failure=None)
        now = standing(server, known, clock)
        found: list[Event] = []
        again = (
            before is not None and server.status == "connected" and server.last_started != before.server.last_started
        )
        if before is None or before.standing is None or before.standing.key != now.key or again:
            found.append(self._event(server, now, at, reconnected=again))
        if now.state == "up":
            if before is not None and before.offers:
                found += _list_changes(server, before, at)
            known = replace(known, offers=server.offers, announced=frozenset())
        self._known[server.name] = replace(known, server=server, standing=now)
        return found

    def _turned(self, state: str, at: datetime, error: str = "") -> list[Event]:
        """The hub's state is another one."""
        before, self._state = self._state, state
        about = {"state": state} | ({"before": before} if before else {}) | ({"error": error} if error else {})
        found: list[Event] = [_hub("hub_state", at, **about)]
        if state == "restarted":
            found.append(_hub("hub_restarted", at, how="servers"))
        return found

    def _event(
        self,
        server: Server,
        now: Standing,
        at: datetime,
        *,
        source: Any = "connection",
        expires: bool = True,
        latency_ms: float | None = None,
        reconnected: bool = False,
    ) -> ServerEvent:
        about: dict[str, Any] = {"reconnected": True} if reconnected else {}
        for name, value in zip(("server_name", "server_version"), server.version, strict=True):
            if value:
                about[name] = value
        counted = now.state in ("up", "degraded")
        return ServerEvent(
            event_id=uuid7(),
            time=at,
            server=server.name,
            source=source,
            outcome=now.outcome,
            state=now.state,
            valid_until=at + self._valid if expires else None,
            latency_ms=latency_ms,
            transport=server.transport,
            tools=server.count("tools") if counted else None,
            resources=server.count("resources") if counted else None,
            prompts=server.count("prompts") if counted else None,
            error_type=now.error_type,
            error_message=now.error_message,
            attrs=_json(about) if about else Raw(b"null"),
        )


def _list_changes(server: Server, before: Known, at: datetime) -> list[Event]:
    """Lists that are not what they were, or of which the server said so."""
    then, now = dict(before.offers), dict(server.offers)
    found: list[Event] = []
    for kind in KINDS:
        old, new = then.get(kind, frozenset()), now.get(kind, frozenset())
        if old == new and kind not in before.announced:
            continue
        about: dict[str, Any] = {"server": server.name, "count": len(new), "count_before": len(old)}
        about["announced"] = kind in before.announced
        if kind != "resources":  # the names of resources are addresses, which may hold anything
            about |= {word: _some(names) for word, names in (("added", new - old), ("removed", old - new)) if names}
        found.append(_hub(f"{kind}_list_changed", at, **about))
    return found


def _nothing_left(server: Server, known: Known) -> bool:
    """The hub has none of the lists it had: it empties those that a server does not answer for.

    Not so where the server itself said that they changed.
    """
    return not known.announced and _offered(known.offers) and not _offered(server.offers)


def _offered(offers: tuple[tuple[Kind, frozenset[str]], ...]) -> bool:
    return any(names for _, names in offers)


def _zero(server: Server) -> bool:
    return server.status == "connected" and server.uptime_s <= 0


def _some(names: Sequence[str] | frozenset[str]) -> list[str]:
    return sorted(names)[:NAMES_MAX]


def _parsed(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


def _hub(name: str, at: datetime, **about: Any) -> HubEvent:
    return HubEvent(event_id=uuid7(), time=at, name=name, payload=_json(about))


def _json(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))
