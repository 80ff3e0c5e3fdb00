"""A federation over a store, without HTTP in front of it, and a way to wait for what it finds out by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hubscope.access import LOCAL, Principal
from hubscope.errors import UnknownServer
from hubscope.ingest import Ingest
from hubscope.instruments import Instruments
from hubscope.model import Event, ServerEvent, ToolCall
from hubscope.peers import Federation
from hubscope.settings import Settings
from hubscope.store import Connection, connect, open_pool
from tests.conftest import ROLE_PREFIX, ROLES

__all__ = ["LOCAL", "House", "federation", "until"]


class House:
    """A federation and what it recorded.

    Attributes:
        peers: the federation.
        events: in the order they were recorded.
    """

    def __init__(self, peers: Federation, events: list[tuple[str, Event]]) -> None:
        self.peers = peers
        self.events = events

    def states(self, server: str) -> list[tuple[str, str]]:
        """outcome and state of each server event, in the order of their times."""
        found = [one for _, one in self.events if isinstance(one, ServerEvent) and one.server == server]
        return [(one.outcome, one.state) for one in sorted(found, key=lambda one: (one.time, one.event_id))]

    def probes(self, server: str) -> list[ServerEvent]:
        """Its probes, in the order they were recorded, without restatements."""
        return [
            one
            for _, one in self.events
            if isinstance(one, ServerEvent)
            and one.server == server
            and one.source == "probe"
            and one.outcome != "restated"
        ]

    def calls(self) -> list[ToolCall]:
        return [one for _, one in self.events if isinstance(one, ToolCall)]

    async def state(self, server: str) -> str:
        """How a server is, for whoever asks; empty while it is not there yet."""
        with contextlib.suppress(UnknownServer):
            return (await self.peers.server(LOCAL, server)).state
        return ""


@asynccontextmanager
async def federation(dsn: str, *, stored: bool = False, **more: Any) -> AsyncIterator[House]:
    """A federation over a store.

    Args:
        stored: events go through ingest into the store, too.
        more: settings.
    """
    settings = Settings.load(
        **{"database_url": dsn, "role_prefix": ROLE_PREFIX, "peer_networks": "127.0.0.1", "probe_lease_ms": 600} | more
    )
    instruments = Instruments()
    pool = await open_pool(dsn, role=ROLES.writer, size=2, name="peers", settings=settings)

    async def open_writer() -> Connection:
        return await connect(dsn, role=ROLES.writer, name="writer")

    ingest = Ingest(open_writer, settings, instruments)
    if stored:
        await ingest.start()
    events: list[tuple[str, Event]] = []

    async def record(principal: Principal, some: Sequence[Event]) -> None:
        events.extend((principal.tenant, one) for one in some)
        if stored:
            receipt = await ingest.record(principal, some)
            assert not receipt.rejected

    peers = Federation(settings, pool, record, instruments)
    await peers.start()
    try:
        yield House(peers, events)
    finally:
        await peers.close(5)
        if stored:
            await ingest.close(5)
        await pool.close()


async def until(condition: Callable[[], Awaitable[bool] | bool], what: str, within_s: float = 20) -> None:
    """Wait for something that happens by itself."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.02)
