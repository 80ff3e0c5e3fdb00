"""The group-commit writer: posts wait in a bounded queue, a few writers commit whatever waits together.

A post is answered after the commit that holds its events. Rows go straight into raw by COPY; only after COPY met a
duplicate do they go through a staging table that can tell which rows are new, until all of them are. What the
transaction adds to the rollups is appended in the same transaction and counts inserted rows, not attempted ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final

import structlog

from hubscope.errors import CommitUnknown, DatabaseAway, QueueFull, ShareExceeded, ShuttingDown
from hubscope.ids import uuid7
from hubscope.ingest.names import Names, monotonic
from hubscope.ingest.news import news
from hubscope.ingest.rows import COLUMNS, Key, Record, hour_of, pending, touched_hours
from hubscope.ingest.rows import record as make_record
from hubscope.instruments import Instruments
from hubscope.settings import Settings
from hubscope.store import AWAY, Connection, away, copy_and, db_errors, load, spelled

HERE: Final = Path(__file__).parent
QUERIES: Final = {
    **load(HERE / "queries.sql"),
    **load(HERE / "queries.postgres.sql"),
    **load(HERE / "queries.timescale.sql"),
}
DEADLOCK_TRIES: Final = 5
WORTH_A_COMMIT: Final = 200
"""Events that wait for which a second writer begins a commit beside the first one's."""
LINGER_S: Final = 0.01
"""How long fewer wait for it at most."""

log = structlog.get_logger("hubscope.ingest")


class Fate(Enum):
    """What became of one record."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that the database itself will not take."""

    detail: str


Outcome = Fate | Refused


_Query = tuple[Any, ...]
"""A statement and the values of its parameters."""


@dataclass(slots=True)
class _Waiting:
    """One post in the queue."""

    records: Sequence[Record]
    size: int
    done: asyncio.Future[list[Outcome]]
    since: float


class Writer:
    """Commits records in groups. One per process.

    Args:
        open_connection: makes a connection under the writer role; called again after each loss.
        settings: queue, group and time limits.
        instruments: where commits and the queue are measured.
        names: what is asked about records that are not settled.
        tell: live updates of what is stored; history is no news.
    """

    def __init__(
        self,
        open_connection: Callable[[], asyncio.Future[Connection]] | Callable[[], object],
        settings: Settings,
        instruments: Instruments,
        names: Names,
        *,
        tell: bool = True,
    ) -> None:
        self._tell = tell
        self._open_connection = open_connection
        self._settings = settings
        self._names = names
        self._instruments = instruments
        self._queue: deque[_Waiting] = deque()
        self._events = 0
        self._bytes = 0
        self._of_tenant: dict[str, list[int]] = {}  # tenant -> events and bytes waiting; none, no entry
        self._arrived = asyncio.Event()
        self._queued = 0  # events in the queue; those on their way into the database count in _events, too
        self._at_work = 0
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        instruments.queue_events.set_function(lambda: self._events)
        instruments.queue_bytes.set_function(lambda: self._bytes)

    async def start(self) -> None:
        """Start the writers; the database need not be there yet."""
        self._tasks = [
            asyncio.create_task(self._run(number), name=f"writer {number}") for number in range(self._settings.writers)
        ]

    async def close(self, timeout_s: float | None = None) -> None:
        """Refuse new posts, commit what waits, stop.

        Args:
            timeout_s: after this time what still waits is given up: its posts are answered ShuttingDown, or, where a
                commit is under way, CommitUnknown.
        """
        self._closing.set()
        self._arrived.set()
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s) if self._tasks else (set(), set())
        for task in late:
            task.cancel()
        if late:
            log.warning("stopped before everything was committed", events=self._events)
            await asyncio.wait(late)
            while self._queue:
                self._answer(self._queue.popleft(), ShuttingDown())
            self._queued = 0
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    def store(self, records: Sequence[Record], size: int) -> asyncio.Future[list[Outcome]]:
        """Put records in the queue at once.

        Args:
            records: the rows of one post.
            size: about how many bytes they take.

        Returns:
            What became of each, in order, after the commit. Whoever waits for it may be cancelled (a client that hangs
            up): the commit is the writers' and goes on. It may raise

            DatabaseAway, CommitUnknown, ShuttingDown: nothing is promised; the same events may be sent again.

        Raises:
            QueueFull, ShareExceeded, ShuttingDown: nothing was taken.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Outcome]] = loop.create_future()
        if not records:
            done.set_result([])
            return done
        if self._closing.is_set():
            raise ShuttingDown
        settings = self._settings
        if self._events + len(records) > settings.queue_max_events or self._bytes + size > settings.queue_max_bytes:
            raise QueueFull(
                f"{self._events} events ({self._bytes} bytes) are waiting already; at most {settings.queue_max_events}"
                f" events and {settings.queue_max_bytes} bytes wait"
            )
        self._refuse_more_than_a_share(records[0].tenant, len(records), size)
        waiting = _Waiting(records, size, done, loop.time())
        self._count(waiting, +1)
        self._queue.append(waiting)
        self._queued += len(records)
        self._arrived.set()
        return done

    def _refuse_more_than_a_share(self, tenant: str, count: int, size: int) -> None:
        """One tenant cannot fill the queue: there is always room for the others."""
        events, length = self._of_tenant.get(tenant, (0, 0))
        most_events = self._settings.tenant_share(self._settings.queue_max_events)
        most_bytes = self._settings.tenant_share(self._settings.queue_max_bytes)
        if events + count > most_events or length + size > most_bytes:
            raise ShareExceeded(
                f"{events} events ({length} bytes) of tenant {tenant} are waiting already; at most {most_events} events"
                f" and {most_bytes} bytes of one tenant wait",
                limit_events=most_events,
                limit_bytes=most_bytes,
            )

    def _count(self, waiting: _Waiting, sign: int) -> None:
        self._events += sign * len(waiting.records)
        self._bytes += sign * waiting.size
        tenant = waiting.records[0].tenant
        share = self._of_tenant.setdefault(tenant, [0, 0])
        share[0] += sign * len(waiting.records)
        share[1] += sign * waiting.size
        if share[0] == 0:
            del self._of_tenant[tenant]

    async def _take(self) -> list[_Waiting]:
        """The next group: whole posts up to the commit limit, at least one. Empty at the end of the last one."""
        while not self._closing.is_set():
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            elif (lingers := self._better_left_s()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(lingers):
                        await self._closing.wait()
            else:
                break
        group: list[_Waiting] = []
        events = 0
        most = self._fair_share()
        while self._queue and (not group or events + len(self._queue[0].records) <= most):
            group.append(self._queue.popleft())
            events += len(group[-1].records)
        self._queued -= events
        return group

    def _fair_share(self) -> int:
        """Most events of the next commit: what waits is divided among the writers that are free.

        If one took all of it, we would lay out rows while the database waits and then wait while it stores them. With
        two commits on their way, each has something to do while the other is at work.
        """
        free = max(1, self._settings.writers - self._at_work)
        return min(self._settings.commit_max_events, max(WORTH_A_COMMIT, -(-self._queued // free)))

    def _better_left_s(self) -> float:
        """For how many seconds a writer had better leave the queue to one that is at work.

        A few small posts are cheaper in that one's next commit than in a commit of their own; but one that hangs must
        not keep them waiting.
        """
        if self._at_work == 0 or self._queued >= WORTH_A_COMMIT:
            return 0.0
        return self._queue[0].since + LINGER_S - asyncio.get_running_loop().time()

    async def _run(self, number: int) -> None:
        session = _Session(self._open_connection, self._settings, self._names, self._tell)
        try:
            while group := await self._take():
                started = time.perf_counter()
                self._at_work += 1
                try:
                    outcomes = await session.store([record for waiting in group for record in waiting.records])
                except asyncio.CancelledError:  # closing took too long
                    for waiting in group:
                        self._answer(waiting, CommitUnknown())
                    raise
                except Exception as error:  # answered to each post of the group; a writer never dies of a post
                    known = error if isinstance(error, DatabaseAway | CommitUnknown) else CommitUnknown()
                    if known is not error:
                        log.exception("commit failed", writer=number)
                    for waiting in group:
                        self._answer(waiting, known)
                else:
                    self._instruments.commit_seconds.observe(time.perf_counter() - started)
                    position = 0
                    for waiting in group:
                        self._answer(waiting, outcomes[position : position + len(waiting.records)])
                        position += len(waiting.records)
                finally:
                    self._at_work -= 1
        finally:
            await session.close()

    def _answer(self, waiting: _Waiting, answer: list[Outcome] | Exception) -> None:
        self._count(waiting, -1)
        if waiting.done.done():
            return  # the client went away; its events are committed all the same
        if isinstance(answer, Exception):
            waiting.done.set_exception(answer)
        else:
            waiting.done.set_result(answer)


class _Session:
    """One writer's connection and what it knows about the database."""

    def __init__(self, open_connection: Callable[[], object], settings: Settings, names: Names, tell: bool) -> None:
        self._tell = tell
        self._open_connection = open_connection
        self._settings = settings
        self._names = names
        self._connection: Connection | None = None
        self._engine = ""
        self._duplicates_lately = False

    async def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(*AWAY):
                await self._connection.close(timeout=2)
            self._connection = None

    async def store(self, records: Sequence[Record]) -> list[Outcome]:
        """Commit records in their share, taking apart what the database refuses until the refused ones stand alone."""
        share = self._settings.commit_max_events
        outcomes: list[Outcome] = []
        try:
            for start in range(0, len(records), share):
                outcomes += await self._in_time(self._store_part(records[start : start + share]))
            return outcomes
        except TimeoutError:
            self._drop()
            raise CommitUnknown(
                f"the commit took longer than {self._settings.commit_timeout_ms} ms; send the same events again"
            ) from None
        except AWAY as error:
            self._drop()
            raise away(error) from error
        except BaseException:
            self._drop()
            raise

    async def _in_time(self, work: Coroutine[None, None, list[Outcome]]) -> list[Outcome]:
        """Await work on the connection for as long as a commit may take.

        At the end of that time, and when we are cancelled, the connection is cut first: where the other end has gone
        without a word (half-open), a cancelled transaction would wait for the answer to its ROLLBACK for ever.

        Raises:
            TimeoutError: it took longer.
        """
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task}, timeout=self._settings.commit_timeout_ms / 1000)
            if task.done():
                return task.result()
            raise TimeoutError
        finally:
            if not task.done():
                self._drop()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _store_part(self, records: Sequence[Record]) -> list[Outcome]:
        connection = await self._ready()
        return await self._divide(connection, await self._settled(connection, records))

    async def _settled(self, connection: Connection, records: Sequence[Record]) -> Sequence[Record]:
        """The records under the names they are stored with, once the database was asked about those that need it."""
        open_ones = [(record.tenant, record.event) for record in records if not record.settled]
        if not open_ones:
            return records
        now = monotonic()
        await self._names.learn(connection, open_ones, now)
        return [one if one.settled else self._settle(one, now) for one in records]

    def _settle(self, open_one: Record, now: float) -> Record:
        tenant, event_id, _ = open_one.key
        settled = self._names.settle(tenant, open_one.event, now, final=True)
        assert settled is not None
        return make_record(tenant, event_id, settled.event, settled.counted)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _ready(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._open_connection()  # type: ignore[misc]
            self._engine = await self._connection.fetchval(QUERIES["engine"])
        return self._connection

    async def _divide(self, connection: Connection, records: Sequence[Record]) -> list[Outcome]:
        try:
            return await self._commit(connection, records)
        except (
            db_errors.DataError,
            db_errors.IntegrityConstraintViolationError,
            db_errors.ProgramLimitExceededError,
            OverflowError,  # the driver's, of a value that it cannot encode
        ) as error:
            if len(records) == 1:
                log.warning("event refused by the database", table=records[0].table, error=type(error).__name__)
                return [Refused(_plain(error))]
        middle = len(records) // 2
        first = await self._divide(connection, records[:middle])
        return first + await self._divide(connection, records[middle:])

    async def _commit(self, connection: Connection, records: Sequence[Record]) -> list[Outcome]:
        """One transaction for all of them, once there is a partition for each."""
        try:
            return await self._commit_now(connection, records)
        except db_errors.CheckViolationError as error:
            # No partition for the row is the one such error without a constraint; its words may be translated.
            if error.constraint_name is not None:
                raise
            await self._make_partitions(connection)
        return await self._commit_now(connection, records)

    async def _commit_now(self, connection: Connection, records: Sequence[Record]) -> list[Outcome]:
        """By COPY, unless some are likely to be there already: a COPY that fails is work for nothing."""
        if not self._duplicates_lately:
            with contextlib.suppress(db_errors.UniqueViolationError, db_errors.DeadlockDetectedError):
                await self._copy(connection, records)
                return [Fate.ACCEPTED] * len(records)
        outcomes = await self._commit_staged(connection, records)
        self._duplicates_lately = Fate.DUPLICATE in outcomes
        return outcomes

    async def _copy(self, connection: Connection, records: Sequence[Record]) -> None:
        tables = _by_table(records)
        books, told = self._books(records), self._told(tables)
        if len(tables) == 1 and not told:  # calls, which is what nearly all of it is: in one round trip
            table, rows = tables[0][0], [record.columns for record in records]
            await copy_and(connection, f"raw.{table}", COLUMNS[table], rows, [spelled(*query) for query in books])
            return
        async with connection.transaction():
            for table, part in tables:
                await connection.copy_records_to_table(
                    table, schema_name="raw", columns=COLUMNS[table], records=[record.columns for record in part]
                )
            for query in (*books, *told):
                await connection.execute(*query)

    async def _commit_staged(self, connection: Connection, records: Sequence[Record]) -> list[Outcome]:
        """The same through staging tables, which tell what is new. Writers may deadlock on duplicates: try again."""
        for attempt in range(1, DEADLOCK_TRIES + 1):
            try:
                return await self._insert_in_turn(connection, records)
            except (db_errors.DeadlockDetectedError, db_errors.SerializationError):
                if attempt == DEADLOCK_TRIES:
                    raise
        raise AssertionError("unreachable")

    async def _insert_in_turn(self, connection: Connection, records: Sequence[Record]) -> list[Outcome]:
        """One attempt: a transaction of three round trips where all records are of one table."""
        outcomes: list[Outcome] = [Fate.ACCEPTED] * len(records)
        begin = ["BEGIN"]
        try:
            for table, places in _places_by_table(records):
                for place in await self._insert_new(connection, table, [records[at] for at in places], begin):
                    outcomes[places[place]] = Fate.DUPLICATE
                begin = []
            told = zip(records, outcomes, strict=True)
            inserted = [record for record, fate in told if fate is Fate.ACCEPTED]
            for query in self._told(_by_table(inserted)):
                await connection.execute(*query)
            await connection.execute("; ".join((*(spelled(*query) for query in self._books(inserted)), "COMMIT")))
        except BaseException:
            if not connection.is_closed():  # whether the transaction has begun, the driver may not have heard yet
                await connection.execute("ROLLBACK")
            raise
        return outcomes

    async def _insert_new(
        self, connection: Connection, table: str, part: Sequence[Record], begin: Sequence[str]
    ) -> Iterable[int]:
        """Insert what is not there yet; the places of what was, or of what stands in the part before."""
        columns = ", ".join(COLUMNS[table])
        make = (
            f"CREATE TEMP TABLE IF NOT EXISTS stage_{table} (place integer, LIKE raw.{table} INCLUDING DEFAULTS)"
            " ON COMMIT DELETE ROWS"
        )
        await copy_and(
            connection,
            f"pg_temp.stage_{table}",
            ("place", *COLUMNS[table]),
            [(place, *record.columns) for place, record in enumerate(part)],
            [],
            ahead=[*begin, make],
            shape=f"SELECT NULL::integer AS place, {columns} FROM raw.{table} LIMIT 0",
        )
        row = await connection.fetchrow(_INSERT_NEW.format(table=table, columns=columns))
        known: list[int] = row["known"]
        if row["inserted"] + len(known) < len(part):
            # Of the same event twice the first is the one that was inserted.
            known = sorted({*known, *_repeated(part)})
        return known

    def _books(self, inserted: Sequence[Record]) -> list[_Query]:
        """What the rollups need to know of newly stored rows, for the transaction that stores them."""
        if self._engine == "timescale":
            this_hour = hour_of(datetime.now(UTC))
            # The database decides by its own clock; ours only spares it the question for what is of this hour.
            late = sorted(touched for touched in touched_hours(inserted) if touched[1] < this_hour)
            return [(QUERIES["add_late_marks"], *map(list, zip(*late, strict=True)), uuid7())] if late else []
        touched = [(tenant, _array(calls), _array(checks)) for tenant, calls, checks in pending(inserted)]
        return [(QUERIES["add_pending"], *map(list, zip(*touched, strict=True)))] if touched else []

    def _told(self, tables: Sequence[tuple[str, Sequence[Record]]]) -> list[_Query]:
        """Live updates of newly stored events, for the transaction that stores them. Calls are none, at no cost."""
        if not self._tell:
            return []
        rows = [row for table, part in tables if table != "tool_calls" for row in news(part)]
        return [(QUERIES["tell_reported"], *map(list, zip(*rows, strict=True)))] if rows else []

    async def _make_partitions(self, connection: Connection) -> None:
        today = datetime.now(UTC).date()
        await connection.execute(
            QUERIES["ensure_partitions"],
            today - timedelta(days=self._settings.max_event_age_days + 1),
            today + timedelta(days=2),
        )


_INSERT_NEW: Final = """
WITH inserted AS (
    INSERT INTO raw.{table} ({columns})
    SELECT {columns} FROM pg_temp.stage_{table} ORDER BY tenant_id, event_id, time, place
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, event_id, time
)
SELECT
    (SELECT count(*) FROM inserted) AS inserted,
    ARRAY(
        SELECT staged.place FROM pg_temp.stage_{table} AS staged
        WHERE NOT EXISTS (
            SELECT FROM inserted
            WHERE
                inserted.tenant_id = staged.tenant_id
                AND inserted.event_id = staged.event_id
                AND inserted.time = staged.time
        )
    ) AS known
"""
"""In key order, so that two writers with the same duplicates wait for each other rather than deadlock."""


def _repeated(part: Sequence[Record]) -> Iterable[int]:
    """The places of events that stand in the part before."""
    met: set[Key] = set()
    for place, record in enumerate(part):
        if record.key in met:
            yield place
        met.add(record.key)


def _places_by_table(records: Sequence[Record]) -> list[tuple[str, list[int]]]:
    found: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        found.setdefault(record.table, []).append(place)
    return sorted(found.items())


def _by_table(records: Iterable[Record]) -> list[tuple[str, list[Record]]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.table, []).append(record)
    return sorted(found.items())


def _array(times: Iterable[datetime]) -> str:
    """As PostgreSQL reads an array."""
    return "{" + ",".join(time.isoformat() for time in times) + "}"


def _plain(error: Exception) -> str:
    """The error's words without a database's CONTEXT, which would quote the row."""
    return f"the database refused the event: {str(error).splitlines()[0][:300]}"
