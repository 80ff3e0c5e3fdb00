"""Audit records on their way into the table: a bounded queue, batches, one connection.

`log`: nobody ever waits. What finds the queue full, cannot be stored, or is left when the process stops, is counted and
logged whole, so that it is not in the table but not gone. `refuse`: who asks waits for the commit of the record, and no
longer than HUBSCOPE_AUDIT_TIMEOUT; then there is no answer.

A batch whose commit has an unknown outcome is written again under the same ids: a record is there at least once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from hubscope.errors import AuditAway
from hubscope.instruments import Instruments
from hubscope.journal.record import AuditRecord
from hubscope.settings import Settings
from hubscope.store import AWAY_OR_TOLD, Connection, away, db_errors, load

APPEND: Final = load(Path(__file__).with_name("queries.sql"))["append"]
BATCH: Final = 500
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
WITHHELD: Final = "no answer is given without an audit record, and none can be written now; try again later"

log = structlog.get_logger("hubscope.audit")


class _Waiting(NamedTuple):
    record: AuditRecord
    done: asyncio.Future[None] | None


class Journal:
    """The audit log of one process.

    Args:
        open_connection: a connection under the writer role.
        settings: bounds, and what happens when a record cannot be written.
        instruments: where outcomes are counted.
    """

    def __init__(
        self, open_connection: Callable[[], Awaitable[Connection]], settings: Settings, instruments: Instruments
    ) -> None:
        self._open = open_connection
        self._settings = settings
        self._instruments = instruments
        self._refuses = settings.audit_on_failure == "refuse"
        self._queue: deque[_Waiting] = deque()
        self._some = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._connection: Connection | None = None
        self._stuck: str | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="audit")

    async def close(self, within_s: float) -> None:
        """Write what waits, for so many seconds; what is left then is lost, and logged."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        while self._queue:
            self._lose(self._queue.popleft(), "stopped")
        self._shown()
        if self._connection is not None:
            self._connection.terminate()

    def check(self) -> None:
        """Before anything is done: would its record have a place?

        Raises:
            AuditAway: records cannot be written now, and nothing is answered without one.
        """
        if self._refuses and self._stuck is not None:
            self._instruments.audit_refused.inc()
            raise AuditAway(WITHHELD)

    async def append(self, record: AuditRecord) -> None:
        """Hand a record over. Returns at once, or, where nothing is answered without its record, once it is committed.

        Raises:
            AuditAway: it was not written within HUBSCOPE_AUDIT_TIMEOUT. It may still be, later.
        """
        done = asyncio.get_running_loop().create_future() if self._refuses else None
        waiting = _Waiting(record, done)
        if len(self._queue) >= self._settings.audit_queue_max_records:
            self._lose(waiting, "queue_full")
        else:
            self._queue.append(waiting)
            self._some.set()
            self._empty.clear()
            self._shown()
        if done is None:
            return
        try:
            async with asyncio.timeout(self._settings.audit_timeout_ms / 1000):
                await done
        except TimeoutError:
            self._instruments.audit_refused.inc()
            raise AuditAway(WITHHELD) from None
        except AuditAway:
            self._instruments.audit_refused.inc()
            raise

    def _lose(self, waiting: _Waiting, outcome: str) -> None:
        self._instruments.audit_records.labels(outcome).inc()
        log.error("audit record not stored", outcome=outcome, record=_told(waiting.record))
        if waiting.done is not None and not waiting.done.done():
            waiting.done.set_exception(AuditAway(WITHHELD))

    def _shown(self) -> None:
        self._instruments.audit_queue.set(len(self._queue))
        if not self._queue:
            self._some.clear()
            self._empty.set()

    async def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            await self._some.wait()
            batch = [self._queue[i] for i in range(min(BATCH, len(self._queue)))]
            try:
                lost = await self._write([each.record for each in batch])
            except Exception as error:  # whatever it is, records must not be lost by a task that ended
                reason = away(error).detail if isinstance(error, AWAY_OR_TOLD) else f"{type(error).__name__}: {error}"
                if self._stuck != reason:
                    log.warning("audit records wait", reason=reason, waiting=len(self._queue))
                self._stuck = reason
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            pause = FIRST_PAUSE_S
            if self._stuck is not None:
                log.info("audit records are written again", waiting=len(self._queue))
                self._stuck = None
            for place, waiting in enumerate(batch):
                self._queue.popleft()
                if place in lost:
                    self._lose(waiting, "unstorable")
                    continue
                self._instruments.audit_records.labels("written").inc()
                if waiting.done is not None and not waiting.done.done():
                    waiting.done.set_result(None)
            self._shown()

    async def _write(self, records: Sequence[AuditRecord]) -> frozenset[int]:
        """Commit records, together if they can be. The places of those that the database itself refused."""
        rows = {place: row for place, record in enumerate(records) if (row := _row(record)) is not None}
        unreadable = frozenset(range(len(records))) - rows.keys()
        try:
            async with asyncio.timeout(self._settings.commit_timeout_ms / 1000):
                connection = await self._opened()
                try:
                    await connection.executemany(APPEND, rows.values())
                except db_errors.DataError:
                    return unreadable | await self._one_by_one(connection, rows)
            return unreadable
        except BaseException:
            if self._connection is not None:  # it may be anywhere in a conversation
                self._connection.terminate()
                self._connection = None
            raise

    async def _one_by_one(self, connection: Connection, rows: Mapping[int, Sequence[object]]) -> frozenset[int]:
        """One record that cannot be stored never costs its neighbours."""
        refused = set()
        for place, row in rows.items():
            try:
                await connection.execute(APPEND, *row)
            except db_errors.DataError:
                refused.add(place)
        return frozenset(refused)

    async def _opened(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._open()
        return self._connection


def _row(record: AuditRecord) -> tuple[object, ...] | None:
    """What goes into the table; None for details that are no JSON, which must not hold up the others."""
    try:
        return record.row()
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        log.exception("an audit record has details that are no JSON")
        return None


def _told(record: AuditRecord) -> object:
    """The record for the log, whatever is in it."""
    return msgspec.to_builtins(record, str_keys=True, enc_hook=repr)
