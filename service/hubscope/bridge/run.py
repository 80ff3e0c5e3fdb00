"""The bridge at work: poll the hub, follow its stream, probe its servers, send what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import urlsplit

from hubscope.bridge.link import Link
from hubscope.bridge.seen import HubState, ListChanged, ServersUpdated, Signal
from hubscope.bridge.watch import Watch
from hubscope.client import Client
from hubscope.delivery import pause_seconds
from hubscope.errors import HubAway, InvalidSetting
from hubscope.model import Event

SOON_S: Final = 0.2
"""How long after something that the stream told the hub is looked at again."""
DOUBT_S: Final = 1.1
"""How long until another look where one more second of uptime decides."""
PROBES_AT_ONCE: Final = 8

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that one bridge needs to know.

    Attributes:
        hub_url: where the hub is, such as http://127.0.0.1:37373.
        url: where hubscope is.
        api_key: what to say there; never shown.
        name: which hub reports; empty for a tenant's only one.
        poll_seconds: how often the hub is asked how it is.
        probe_seconds: how often each server's state is reported (and, with `refresh`, each server is asked).
        probe: `status` believes what the hub says; `refresh` has it ask each server for its lists.
        stream: follow the hub's event stream.
        timeout_ms: longest that an answer of the hub may take.
        max_answer_bytes, max_event_bytes: longest answer and longest event of the stream that are read.
        error_message_chars: longest error message that is sent; 0 sends none.
        buffer_max_bytes: most bytes of events that wait for hubscope.
    """

    hub_url: str
    url: str
    api_key: str | None = None
    name: str = ""
    poll_seconds: float = 10
    probe_seconds: float = 60
    probe: Literal["status", "refresh"] = "status"
    stream: bool = True
    timeout_ms: int = 5_000
    max_answer_bytes: int = 32 * 1024 * 1024
    max_event_bytes: int = 1024 * 1024
    error_message_chars: int = 500
    buffer_max_bytes: int = 8 * 1024 * 1024


def hub_address(text: str) -> str:
    """The address of a hub, without a slash or `/api` at its end.

    Raises:
        InvalidSetting: it is none, or it holds a user or a query, which could be secrets.
    """
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or parts.username is not None or not text.isascii():
        raise InvalidSetting("URL is not the address of an mcp-hub, such as http://127.0.0.1:37373")
    return text.rstrip("/").removesuffix("/api").rstrip("/")


async def run(options: Options, stop: asyncio.Event, tell: Tell) -> None:
    """Report on a hub until `stop` is set. A hub or a hubscope that is away is waited for."""
    async with Client(
        options.url, api_key=options.api_key, hub=options.name, max_bytes=options.buffer_max_bytes
    ) as client:
        bridge = Bridge(options, client, tell)
        try:
            await bridge.run(stop)
        finally:
            await bridge.close()


class Bridge:
    """One hub, attached to one client. `run` it once."""

    def __init__(self, options: Options, client: Client, tell: Tell) -> None:
        self.watch = Watch(options.probe_seconds)
        self.link = Link(
            options.hub_url,
            timeout_s=options.timeout_ms / 1_000,
            max_answer_bytes=options.max_answer_bytes,
            max_event_bytes=options.max_event_bytes,
            error_chars=options.error_message_chars,
        )
        self._options = options
        self._client = client
        self._tell = tell
        self._look = asyncio.Event()
        self._streaming = False
        self._skipped = 0
        self._latency_ms: float | None = None
        self._said = ""

    async def close(self) -> None:
        await self.link.close()

    async def run(self, stop: asyncio.Event) -> None:
        tasks = [asyncio.create_task(self._poll(), name="poll"), asyncio.create_task(self._probe(), name="probe")]
        if self._options.stream:
            tasks.append(asyncio.create_task(self._follow(), name="follow"))
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # none of ours ends by itself, unless it is broken
        finally:
            for task in (stopped, *tasks):
                task.cancel()
            await asyncio.gather(stopped, *tasks, return_exceptions=True)
            self._record(self.watch.detached(_now()))

    async def look(self) -> bool:
        """Poll once. True if the hub answered."""
        try:
            seen, self._latency_ms = await self.link.poll()
        except HubAway as error:
            was_away = self.watch.away
            self._record(self.watch.missed(error.detail, _now()))
            if self.watch.away and not was_away:
                self._say(f"the hub is away ({error.detail}); waiting for it")
            return False
        self._record(self.watch.observed(seen, _now(), whole=not self._streaming))
        version = f" {seen.version}" if seen.version else ""
        self._say(f"attached to mcp-hub{version} at {self._options.hub_url}, {len(seen.servers)} servers")
        return True

    async def _poll(self) -> None:
        failures = 0
        while True:
            self._look.clear()
            if await self.look():
                failures = 0
                pause = DOUBT_S if self.watch.in_doubt else self._options.poll_seconds
            else:
                failures += 1
                pause = min(pause_seconds(failures, None), self._options.poll_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._look.wait()
                await asyncio.sleep(SOON_S)  # what one change tells in ten events is looked at once

    async def _probe(self) -> None:
        turns = asyncio.Semaphore(PROBES_AT_ONCE)

        async def one(name: str) -> None:
            async with turns:
                answer = await self.link.probe(name)
            self._record(self.watch.probed(name, answer, _now()))

        while True:
            await asyncio.sleep(self._options.probe_seconds)
            skipped = self.link.splitter.skipped
            about: dict[str, object] = {"stream": self._streaming, "skipped_stream_events": skipped - self._skipped}
            if self._latency_ms is not None:
                about["latency_ms"] = round(self._latency_ms, 3)
            self._skipped = skipped
            names = self.watch.to_probe if self._options.probe == "refresh" and not self.watch.away else []
            self._record(self.watch.pulse(_now(), besides=frozenset(names), **about))
            await asyncio.gather(*(one(name) for name in names))

    async def _follow(self) -> None:
        failures = 0

        def connected() -> None:
            nonlocal failures
            failures = 0
            self._streaming = True
            self._look.set()

        while True:
            await self.link.follow(self._hear, connected)
            if self._streaming:
                self._look.set()  # the hub may have gone
            self._streaming = False
            failures += 1
            await asyncio.sleep(pause_seconds(failures, None))

    def _hear(self, signal: Signal | None) -> None:
        if signal is None or isinstance(signal, HubState | ListChanged | ServersUpdated):
            self._look.set()
        if signal is not None:
            self._record(self.watch.told(signal, _now()))

    def _record(self, events: Iterable[Event]) -> None:
        for event in events:
            self._client.record(event)

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            self._tell(sentence)


def _now() -> datetime:
    return datetime.now(UTC)
