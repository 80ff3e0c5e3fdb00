"""Live updates in one process: numbering in its turn, one reader of the log, and the fan-out to streams.

A tenant somebody listens to has a ring: its newest events, encoded once. A stream is a place in that ring, so what it
costs does not depend on how much is told; one that falls out of the ring is cut off, and resumes from the log. Nothing
is read from the database for a stream but what lies before the ring.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from hubscope.errors import DatabaseAway, HubscopeError, ShuttingDown, StreamsFull, TooManyStreams
from hubscope.ids import uuid7
from hubscope.instruments import Instruments
from hubscope.journal.news import News, Wanted, control, heartbeat, news_of
from hubscope.settings import Settings
from hubscope.store import AWAY_OR_TOLD, Connection, Pool, away, borrowed, db_errors, load

QUERIES: Final = load(Path(__file__).with_name("queries.sql"))

BATCH: Final = 1_000
"""Most events that are numbered in one transaction."""
SENT_TOGETHER: Final = 200
"""Most events of one send."""
LOG_READ: Final = 500
"""Events that a stream reads from the log at once, before it has reached the ring."""
LOG_READERS: Final = 2
"""Streams that read from the log at once: the pool is there for answers."""
IDLE_LOOK_S: Final = 0.25
"""How often the sequencer looks while nobody listens here: somebody may, elsewhere."""
STANDBY_LOOK_S: Final = 1.0
"""How often a process looks whether the sequencer is gone."""
AWAY_PAUSE_S: Final = 1.0
PRUNE_EVERY_S: Final = 60.0
RETRY_MS: Final = (500, 1_500)
"""When a reader is asked to come back, at random: they must not all come in one moment."""
FAREWELL_S: Final = 0.5
"""How long a stream may take to say its last word."""

Ended = Literal["client", "slow", "key", "shutdown", "error"]

log = structlog.get_logger("hubscope.stream")


class _Ring:
    """The newest events of one tenant: from `first` to `last`, all of them."""

    def __init__(self, most: int) -> None:
        self.events: deque[News] = deque(maxlen=most)
        self.last = 0
        self.log_first = 1
        self.known = asyncio.Event()
        self.changed = asyncio.Event()
        self.beat = 0
        self.streams: set[Stream] = set()
        self._chunks: dict[tuple[Wanted, int], tuple[bytes, int, int]] = {}

    @property
    def first(self) -> int:
        """Number of the oldest event that is here; one after `last` when there is none."""
        return self.events[0].seq if self.events else self.last + 1

    def append(self, news: News) -> None:
        if news.seq != self.last + 1:  # the log was pruned before we read it
            self.events.clear()
        self.events.append(news)
        self.last = news.seq
        if self._chunks:
            self._chunks.clear()

    def wake(self) -> None:
        """Let every stream look."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def after(self, seq: int, wanted: Wanted) -> tuple[bytes, int, int]:
        """What goes out next to one who has everything up to `seq`: bytes, how many events, and up to where.

        Streams that want the same from the same place share it.
        """
        known = self._chunks.get((wanted, seq))
        if known is None:
            start = seq + 1 - self.first
            part = list(islice(self.events, start, start + SENT_TOGETHER))
            passed = [news.wire for news in part if wanted.passes(news)]
            known = self._chunks[wanted, seq] = (b"".join(passed), len(passed), part[-1].seq)
        return known


class Stream:
    """One reader of live updates.

    Attributes:
        seq: everything up to this number was sent, or is not wanted.
        ahead: the number that the reader named, where the log has never come so far.
        cut: ends the connection at once, whatever waits in it.
        ended: why it ended.
    """

    __slots__ = ("_live", "_sending", "ahead", "cut", "ended", "resumed", "ring", "seq", "tenant", "wanted")

    def __init__(self, tenant: str, wanted: Wanted, ring: _Ring, cut: Callable[[], None]) -> None:
        self.tenant = tenant
        self.wanted = wanted
        self.ring = ring
        self.cut = cut
        self.seq = 0
        self.ahead: int | None = None
        self.resumed = False
        self.ended: Ended = "client"
        self._live = False
        self._sending = False


class Streams:
    """The live updates of one process.

    Args:
        open_connection: a connection under the writer role, for numbering and reading.
        readers: for streams that resume from far back.
        settings: limits and intervals.
        instruments: where streams are counted.
    """

    def __init__(
        self,
        open_connection: Callable[[], Awaitable[Connection]],
        readers: Pool,
        settings: Settings,
        instruments: Instruments,
    ) -> None:
        self._open = open_connection
        self._readers = readers
        self._settings = settings
        self._instruments = instruments
        self._me = uuid7()
        self._connection: Connection | None = None
        self._rings: dict[str, _Ring] = {}
        self._of_tenant: Counter[str] = Counter()
        self._reading = asyncio.Semaphore(LOG_READERS)
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._next_prune = 0.0
        self._stuck: str | None = None
        instruments.stream_subscribers.set_function(lambda: self._of_tenant.total())

    def start(self) -> None:
        """Begin to number and to read. The database may be away."""
        self._tasks = [
            asyncio.create_task(self._run(), name="stream"),
            asyncio.create_task(self._keep_beating(), name="stream heartbeats"),
        ]

    def drain(self) -> None:
        """End every stream with a word; those that do not take it are cut off a moment later."""
        if self._stopping:
            return
        self._stopping = True
        for ring in self._rings.values():
            ring.wake()
        asyncio.get_running_loop().call_later(FAREWELL_S, self._cut_rest)

    def _cut_rest(self) -> None:
        for ring in self._rings.values():
            for stream in ring.streams:
                stream.ended = "shutdown"
                stream.cut()

    async def close(self) -> None:
        """Let another replica number, and stop."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._connection is not None:
            with contextlib.suppress(*AWAY_OR_TOLD, db_errors.PostgresError):
                async with asyncio.timeout(1.0):
                    await self._connection.execute(QUERIES["release"], self._me)
            self._connection.terminate()
            self._connection = None
        self._instruments.stream_sequencer.set(0)

    # Streams

    @contextlib.asynccontextmanager
    async def opened(
        self, tenant: str, wanted: Wanted, *, after: int | None, cut: Callable[[], None]
    ) -> AsyncIterator[Stream]:
        """A stream for as long as the block runs.

        Args:
            tenant: whose events; no other's ever pass.
            after: the last number that the reader has; None begins with what comes next.
            cut: see `Stream`.

        Raises:
            TooManyStreams, StreamsFull, ShuttingDown, DatabaseAway.
        """
        self._check(tenant)
        ring = self._rings.get(tenant)
        if ring is None:
            ring = self._rings[tenant] = _Ring(self._settings.stream_queue_events)
            self._wake.set()
        stream = Stream(tenant, wanted, ring, cut)
        ring.streams.add(stream)
        self._of_tenant[tenant] += 1
        try:
            try:
                async with asyncio.timeout(self._settings.pool_connection_timeout_ms / 1000):
                    await ring.known.wait()
            except TimeoutError:
                stream.ended = "error"
                raise DatabaseAway("the database does not say what is told") from None
            stream.resumed = after is not None
            stream.seq = ring.last if after is None else after
            if stream.seq > ring.last:  # another replica may have read further
                head = await self._head(tenant)
                if stream.seq > head:
                    stream.ahead, stream.seq = stream.seq, head
            yield stream
        finally:
            ring.streams.discard(stream)
            if not ring.streams and self._rings.get(tenant) is ring:
                del self._rings[tenant]  # nobody listens: nothing is read
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]
            self._instruments.stream_ended.labels(stream.ended).inc()

    async def _head(self, tenant: str) -> int:
        """The last number of a tenant's log."""
        async with borrowed(self._readers, self._settings) as connection:
            row = await connection.fetchrow(QUERIES["heads"], [tenant])
        return row["last_seq"] if row is not None else 0

    def _check(self, tenant: str) -> None:
        if self._stopping:
            raise ShuttingDown
        most, share = self._settings.stream_max_subscribers, self._settings.stream_max_subscribers_tenant
        if self._of_tenant[tenant] >= share:
            self._instruments.stream_refused.labels("tenant").inc()
            raise TooManyStreams(
                f"the tenant has {share} streams open here, its share (HUBSCOPE_STREAM_MAX_SUBSCRIBERS_TENANT)",
                limit_streams=share,
            )
        if self._of_tenant.total() >= most:
            self._instruments.stream_refused.labels("all").inc()
            raise StreamsFull(
                f"{most} streams are open here, the most there may be (HUBSCOPE_STREAM_MAX_SUBSCRIBERS)",
                limit_streams=most,
            )

    async def chunks(self, stream: Stream, still: Callable[[], Awaitable[bool]]) -> AsyncGenerator[bytes]:
        """What goes out on a stream, for ever: whole events, as many together as there are.

        Args:
            still: asked with each heartbeat whether the reader may go on.
        """
        async with contextlib.aclosing(self._parts(stream, still)) as parts:
            async for chunk in parts:
                stream._sending = True
                yield chunk
                stream._sending = False

    async def _parts(self, stream: Stream, still: Callable[[], Awaitable[bool]]) -> AsyncGenerator[bytes]:
        ring = stream.ring
        beat = ring.beat
        yield self._begin(stream)
        if stream.ahead is not None:  # not of this log, or it was put back to an older state
            yield control("gap", {"reason": "ahead", "from": stream.ahead + 1, "to": stream.seq}, seq=stream.seq)
        while True:
            changed = ring.changed
            if self._stopping:
                stream.ended = "shutdown"
                yield control("end", {"reason": "shutdown"}, retry_ms=random.randint(*RETRY_MS))
                return
            if beat != ring.beat:
                beat = ring.beat
                if not await still():
                    stream.ended = "key"
                    yield control("end", {"reason": "key"})
                    return
                yield heartbeat(stream.seq)
            elif stream.seq >= ring.last:
                stream._live = True
                await changed.wait()
            elif stream.seq + 1 >= ring.first:
                stream._live = True
                chunk, count, upto = ring.after(stream.seq, stream.wanted)
                if chunk:
                    yield chunk
                    self._instruments.stream_delivered.inc(count)
                stream.seq = upto
            else:
                async with contextlib.aclosing(self._from_log(stream)) as chunks:
                    async for chunk in chunks:
                        yield chunk

    def _begin(self, stream: Stream) -> bytes:
        ring, wanted = stream.ring, stream.wanted
        filters = {"server": wanted.servers, "chain": wanted.chains, "name": wanted.names}
        about = {
            "after": stream.seq,
            "resumed": stream.resumed,
            "topics": sorted(wanted.topics),
            "filters": {name: sorted(values) for name, values in filters.items() if values},
            "log": {"from": min(ring.log_first, ring.first), "to": ring.last},
            "heartbeat_seconds": self._settings.stream_heartbeat_ms / 1000,
        }
        # With the number that it begins after: who is cut off before the first event resumes from here.
        return control("begin", about, seq=stream.seq, retry_ms=random.randint(*RETRY_MS))

    async def _from_log(self, stream: Stream) -> AsyncGenerator[bytes]:
        """The next events that lie before the ring, or what is missing of them."""
        async with self._reading:
            try:
                async with borrowed(self._readers, self._settings) as connection:
                    rows = await connection.fetch(QUERIES["events_after"], [stream.tenant], [stream.seq], LOG_READ)
            except HubscopeError as error:
                log.debug("a stream cannot read the log now", error=error.detail)
                rows = None
        if rows is None:
            await asyncio.sleep(AWAY_PAUSE_S)
            return
        # Without rows all that is left of the log stands in the ring.
        next_seq = rows[0]["seq"] if rows else stream.ring.first
        if next_seq > stream.seq + 1:
            missing = {"reason": "expired", "from": stream.seq + 1, "to": next_seq - 1}
            yield control("gap", missing, seq=next_seq - 1)
            stream.seq = next_seq - 1
        for start in range(0, len(rows), SENT_TOGETHER):
            part = [news_of(row) for row in rows[start : start + SENT_TOGETHER]]
            passed = [news.wire for news in part if stream.wanted.passes(news)]
            if passed:
                yield b"".join(passed)
                self._instruments.stream_delivered.inc(len(passed))
            stream.seq = part[-1].seq

    # Numbering and reading

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self._turn()
                if self._stuck is not None:
                    log.info("live updates go on")
                    self._stuck = None
            except Exception as error:  # whatever it is, live updates go on after it
                reason = away(error).detail if isinstance(error, AWAY_OR_TOLD) else f"{type(error).__name__}: {error}"
                if self._stuck != reason:
                    log.warning("no live updates now", reason=reason)
                    self._stuck = reason
                self._drop()
                pause = AWAY_PAUSE_S
                await asyncio.sleep(pause)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _turn(self) -> float:
        """Number what is committed, if that is ours to do, and read what is new; for how many seconds to rest."""
        settings = self._settings
        async with asyncio.timeout(settings.commit_timeout_ms / 1000):
            connection = await self._opened()
            moved: int | None = await connection.fetchval(
                QUERIES["sequence"], self._me, settings.stream_lease_ms, BATCH, settings.stream_event_bytes
            )
            self._instruments.stream_sequencer.set(moved is not None)
            self._instruments.stream_numbered.inc(moved or 0)
            more = await self._read(connection) if self._rings else False
            if moved is not None and asyncio.get_running_loop().time() >= self._next_prune:
                self._next_prune = asyncio.get_running_loop().time() + PRUNE_EVERY_S
                await connection.execute(QUERIES["prune"], settings.stream_max_rows, settings.stream_retention_hours)
        if more or moved == BATCH:
            return 0.0
        if self._rings:
            return settings.stream_interval_ms / 1000
        return STANDBY_LOOK_S if moved is None else max(IDLE_LOOK_S, settings.stream_interval_ms / 1000)

    async def _read(self, connection: Connection) -> bool:
        """Fill the rings; whether there may be more at once."""
        fresh = [tenant for tenant, ring in self._rings.items() if not ring.known.is_set()]
        if fresh:
            heads = {row["tenant_id"]: row for row in await connection.fetch(QUERIES["heads"], fresh)}
            for tenant in fresh:
                self._meet(tenant, heads.get(tenant))
        rings = dict(self._rings)
        # A part of the ring at a time, so that streams come to their turn before it has gone past them.
        most = max(1, self._settings.stream_queue_events // 4)
        rows = await connection.fetch(
            QUERIES["events_after"], list(rings), [ring.last for ring in rings.values()], most
        )
        counts: Counter[str] = Counter()
        now = datetime.now(UTC)
        for row in rows:
            tenant = row["tenant_id"]
            counts[tenant] += 1
            rings[tenant].append(news_of(row))
            if rings[tenant].known.is_set():
                self._instruments.stream_delay_seconds.observe(max(0.0, (now - row["written_at"]).total_seconds()))
        for tenant, ring in rings.items():
            if not ring.known.is_set() and counts[tenant] < most:
                ring.known.set()
            if counts[tenant]:
                ring.wake()
                self._cut_slow(ring)
        return any(count == most for count in counts.values())

    def _meet(self, tenant: str, head: Any) -> None:
        """A ring begins with the end of the log, so that most who come back find there what they missed."""
        ring = self._rings.get(tenant)
        if ring is None or ring.known.is_set() or ring.events or head is None:
            return
        ring.log_first = head["first_seq"]
        ring.last = max(ring.log_first - 1, head["last_seq"] - self._settings.stream_queue_events)

    def _cut_slow(self, ring: _Ring) -> None:
        for stream in ring.streams:
            if stream._live and stream._sending and stream.seq + 1 < ring.first and stream.ended == "client":
                log.info(
                    "a slow reader of live updates was cut off", tenant=stream.tenant, behind=ring.last - stream.seq
                )
                stream.ended = "slow"
                stream.cut()

    async def _opened(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._open()
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _keep_beating(self) -> None:
        """Heartbeats of all streams, also while the database is away."""
        while True:
            await asyncio.sleep(self._settings.stream_heartbeat_ms / 1000)
            for ring in self._rings.values():
                ring.beat += 1
                ring.wake()
