"""What an event may be called, and whether it counts: bounded names, and one counting vantage per server.

Both are known in memory and looked up for every event; both are decided once, in the database, so that a restart and
another replica say the same (docs/decisions/0012, 0014).

- **Names.** A tenant has so many servers, tools (per server), clients and hubs. A name that was admitted stays so; past
  the limit it is stored as `_other` and kept in attrs.
- **Vantage.** A call may be reported by several observers. Each server has one whose rows count; tenant, server and the
  event's time alone decide which, and it changes only for times that lie ahead.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from msgspec import Raw

from hubscope.ingest.envelope import NO_VALUE
from hubscope.ingest.spans import UNNAMED_SERVER
from hubscope.instruments import Instruments
from hubscope.model import Event, ServerEvent, ToolCall
from hubscope.redact import redact_text
from hubscope.settings import Settings
from hubscope.store import Connection, load

QUERIES: Final = load(Path(__file__).parent / "queries.sql")
OTHER: Final = "_other"
REREAD_S: Final = 60.0
"""How old what this process knows may be; a switch of vantage lies further ahead than this (twice)."""

PLAIN_MOST: Final = 20_000
"""Combinations of names that are remembered per tenant between two readings; past it they are met anew."""

VANTAGES: Final = ("server", "wrapper", "hub", "client")
"""From the most complete observer to the least. Hub and own are callers and see different calls: they rank the same."""
RANK: Final[Mapping[str, int]] = {name: rank for rank, name in enumerate(VANTAGES)} | {"own": VANTAGES.index("hub")}

log = structlog.get_logger("hubscope.ingest")


class Settled(msgspec.Struct, frozen=True, gc=False):
    """An event under the names it is stored with, and whether it is part of the rollups."""

    event: Event
    counted: bool


@dataclass(slots=True)
class _Server:
    """One admitted server.

    Attributes:
        tools: its admitted tools.
        vantages: (from which event time on, rank), oldest first; the first is in force from the beginning.
        overlooked_since: when a lesser observer saw the first call after the last one that counted; None if none did.
    """

    tools: set[str] = field(default_factory=set)
    vantages: list[tuple[datetime, int]] = field(default_factory=list)
    overlooked_since: float | None = None


@dataclass(slots=True)
class _Tenant:
    servers: dict[str, _Server]
    clients: set[str]
    hubs: set[str]
    full: set[str]
    read_at: float
    plain: dict[tuple[str, ...], _Server] = field(default_factory=dict)
    """Hub, server, tool, client and vantage of calls that are stored as they come and count at any time -> server."""


class Names:
    """The names and vantages of all tenants, as far as this process has met them.

    Args:
        settings: how many of each kind.
        instruments: where names past a limit are counted.
    """

    def __init__(self, settings: Settings, instruments: Instruments) -> None:
        self._limits = {
            "hub": settings.max_hubs,
            "server": settings.max_servers,
            "tool": settings.max_tools,
            "client": settings.max_clients,
        }
        self._silence_s = settings.vantage_silence_minutes * 60.0
        self._ahead_s = settings.max_clock_skew_seconds + 2 * REREAD_S
        self._instruments = instruments
        self._tenants: dict[str, _Tenant] = {}
        self._told: set[tuple[str, str]] = set()

    def settle_all(self, tenant: str, events: Iterable[Event], now: float) -> list[Settled | None]:
        """`settle` for each event of a post."""
        known = self._tenants.get(tenant)
        plain = known.plain if known is not None and now - known.read_at <= REREAD_S else {}
        settled: list[Settled | None] = []
        for event in events:
            server = (
                plain.get((event.hub, event.server, event.tool, event.client, event.vantage))
                if type(event) is ToolCall
                else None
            )
            if server is None:
                settled.append(self.settle(tenant, event, now))
            else:
                server.overlooked_since = None
                settled.append(Settled(event, True))
        return settled

    def settle(self, tenant: str, event: Event, now: float, *, final: bool = False) -> Settled | None:
        """The event as it is stored.

        Args:
            now: time.monotonic().
            final: the database was asked; what is still unknown is past a limit.

        Returns:
            None when the database has to be asked first (`learn`): for a new name, a better observer, or news.
        """
        if not isinstance(event, ToolCall | ServerEvent):
            return Settled(event, True)
        known = self._tenants.get(tenant)
        if known is None or (now - known.read_at > REREAD_S and not final):
            return None
        server = known.servers.get(event.server)
        if isinstance(event, ServerEvent):
            if server is not None and event.hub in known.hubs:
                return Settled(event, True)
        elif (
            server is not None
            and event.tool in server.tools
            and event.client in known.clients
            and event.hub in known.hubs
        ):
            counted = self._counts(server, event, now, final)
            if counted and len(server.vantages) == 1:
                if len(known.plain) >= PLAIN_MOST:
                    known.plain.clear()
                known.plain[event.hub, event.server, event.tool, event.client, event.vantage] = server
            return None if counted is None else Settled(event, counted)
        return self._folded(tenant, known, event, now, final)

    def _folded(
        self, tenant: str, known: _Tenant, event: ToolCall | ServerEvent, now: float, final: bool
    ) -> Settled | None:
        """The slow way: a name without secrets, or `_other` where there is no room for it."""
        places: list[tuple[str, str, Iterable[str]]] = [
            ("hub", event.hub, known.hubs),
            ("server", event.server, known.servers),
        ]
        if isinstance(event, ToolCall):
            places.append(("client", event.client, known.clients))
        names: dict[str, str] = {}
        past: dict[str, str] = {}
        for kind, sent, admitted in places:
            clean = names[kind] = redact_text(sent)
            if clean not in admitted:
                if kind not in known.full and not final:
                    return None
                past[kind], names[kind] = clean, OTHER
        server = known.servers.get(names["server"])
        if isinstance(event, ToolCall):
            clean = names["tool"] = redact_text(event.tool)
            if server is None or clean not in server.tools:
                if server is not None and "tool" not in known.full and not final:
                    return None
                past["tool"], names["tool"] = clean, OTHER
        for kind in past:
            self._instruments.other_names.labels(kind).inc()
            if (tenant, kind) not in self._told:
                self._told.add((tenant, kind))
                log.warning(
                    "no room for more names", tenant=tenant, kind=kind, limit=self._limits[kind], stored_as=OTHER
                )
        changed: Any = msgspec.structs.replace(event, **names)
        if past:
            changed = msgspec.structs.replace(changed, attrs=_with(event.attrs, past))
        if isinstance(event, ServerEvent) or server is None:
            # Behind `_other` stand many servers with observers of their own: all of it counts.
            return Settled(changed, not _is_unnamed(event))
        counted = self._counts(server, changed, now, final)
        return None if counted is None else Settled(changed, counted)

    def _counts(self, server: _Server, event: ToolCall, now: float, final: bool) -> bool | None:
        """Whether an observation counts; None when a vantage has to be decided first."""
        if _is_unnamed(event):
            return False
        rank = RANK[event.vantage]
        vantages = server.vantages
        if not final and (not vantages or rank < vantages[-1][1]):
            return None
        if not vantages:
            return True
        in_force = _in_force(vantages, event.time)
        if rank == in_force:
            server.overlooked_since = None
            return True
        if rank > in_force and rank > vantages[-1][1]:
            if server.overlooked_since is None:
                server.overlooked_since = now
            elif now - server.overlooked_since > self._silence_s and not final:
                return None
        return False

    async def learn(self, connection: Connection, events: Sequence[tuple[str, Event]], now: float) -> None:
        """Read what the database knows, admit new names as far as there is room, and decide about vantages.

        Args:
            connection: under the writer role, outside a transaction.
            events: tenant and event, of which `settle` knew too little.
            now: time.monotonic().
        """
        of_tenant: dict[str, list[ToolCall | ServerEvent]] = {}
        for tenant, event in events:
            if isinstance(event, ToolCall | ServerEvent):
                of_tenant.setdefault(tenant, []).append(event)
        for tenant, theirs in of_tenant.items():
            known = self._tenants.get(tenant)
            if known is None or now - known.read_at > REREAD_S:
                known = await self._read(connection, tenant, now)
            wanted = self._wanted(known, theirs)
            calls = [event for event in theirs if isinstance(event, ToolCall) and not _is_unnamed(event)]
            if any(wanted.values()):
                async with connection.transaction():
                    await connection.execute(QUERIES["lock_names"], tenant)
                    for kind, names in wanted.items():
                        if names:
                            servers, tools = zip(*names, strict=True)
                            await connection.execute(
                                QUERIES["admit_names"], tenant, kind, servers, tools, self._limits[kind]
                            )
                known = await self._read(connection, tenant, now)
            if await self._decide(connection, tenant, known, calls, now):
                await self._read(connection, tenant, now)

    def _wanted(self, known: _Tenant, events: Sequence[ToolCall | ServerEvent]) -> dict[str, list[tuple[str, str]]]:
        """New names by kind, as (server, name), in the order met; servers before their tools."""
        wanted: dict[str, dict[tuple[str, str], None]] = {"hub": {}, "server": {}, "client": {}, "tool": {}}
        for event in events:
            hub, server = redact_text(event.hub), redact_text(event.server)
            if hub not in known.hubs:
                wanted["hub"]["", hub] = None
            if server not in known.servers:
                wanted["server"]["", server] = None
            if isinstance(event, ToolCall):
                client, tool = redact_text(event.client), redact_text(event.tool)
                if client not in known.clients:
                    wanted["client"]["", client] = None
                if server not in known.servers or tool not in known.servers[server].tools:
                    wanted["tool"][server, tool] = None
        return {kind: [] if kind in known.full else list(names) for kind, names in wanted.items()}

    async def _decide(
        self, connection: Connection, tenant: str, known: _Tenant, calls: Sequence[ToolCall], now: float
    ) -> bool:
        """Vantages of servers met for the first time, of better observers, and of observers that fell silent."""
        best: dict[str, int] = {}
        for event in calls:
            name = redact_text(event.server)
            best[name] = min(best.get(name, len(VANTAGES)), RANK[event.vantage])
        decided = False
        for name, rank in best.items():
            server = known.servers.get(name)
            if server is None:
                continue
            vantage = VANTAGES[rank]
            if not server.vantages:
                await connection.execute(QUERIES["first_vantage"], tenant, name, vantage)
            elif rank < server.vantages[-1][1]:
                await connection.execute(QUERIES["switch_vantage"], tenant, name, vantage, self._ahead_s)
            elif server.overlooked_since is not None and now - server.overlooked_since > self._silence_s:
                if await connection.fetchval(QUERIES["counted_lately"], tenant, name, self._silence_s):
                    server.overlooked_since = now
                    continue
                await connection.execute(QUERIES["switch_vantage"], tenant, name, vantage, self._ahead_s)
            else:
                continue
            decided = True
            log.info("counting vantage decided", tenant=tenant, server=name, vantage=vantage)
        return decided

    async def _read(self, connection: Connection, tenant: str, now: float) -> _Tenant:
        before = self._tenants.get(tenant)
        known = _Tenant({}, {""}, {""}, set(), now)
        held = dict.fromkeys(self._limits, 0)
        rows = await connection.fetch(QUERIES["known_names"], tenant)
        for kind, _, name in rows:
            held[kind] += 1
            if kind == "server":
                known.servers[name] = _Server()
            elif kind == "client":
                known.clients.add(name)
            elif kind == "hub":
                known.hubs.add(name)
        for kind, server, name in rows:
            if kind == "tool" and server in known.servers:
                known.servers[server].tools.add(name)
        for name, since, vantage in await connection.fetch(QUERIES["counting_vantages"], tenant):
            if name in known.servers:
                known.servers[name].vantages.append((since, RANK[vantage]))
        known.full = {kind for kind, count in held.items() if count >= self._limits[kind]}
        if before is not None:
            for name in known.servers.keys() & before.servers.keys():
                known.servers[name].overlooked_since = before.servers[name].overlooked_since
        self._tenants[tenant] = known
        return known


def _is_unnamed(event: ToolCall | ServerEvent) -> bool:
    """A client's span that does not say which server it called: the server's own row is the one that counts."""
    return isinstance(event, ToolCall) and event.vantage == "client" and event.server == UNNAMED_SERVER


def _in_force(vantages: Sequence[tuple[datetime, int]], time: datetime) -> int:
    for since, rank in reversed(vantages):
        if time >= since:
            return rank
    return vantages[0][1]


def _with(attrs: Raw, past: Mapping[str, str]) -> Raw:
    """attrs with the names that had no room, under "_other": at most four names of at most 200 characters."""
    text = bytes(attrs).rstrip()
    member = b'"_other":' + msgspec.json.encode(past) + b"}"
    if text in NO_VALUE or text[1:-1].strip() == b"":
        return Raw(b"{" + member)
    return Raw(text[:-1] + b"," + member)


def monotonic() -> float:
    """The clock that `settle` and `learn` mean."""
    return time.monotonic()
