"""The worker process: folds rollups, builds marts with dbt, checks data with Great Expectations, prunes.

dbt and Great Expectations run in one child process (`heavy`), one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from hubscope.chains.keep import forget_chains
from hubscope.errors import JobFailed
from hubscope.schedule import Job, run_once, tick_of
from hubscope.settings import Settings
from hubscope.store import AWAY, AWAY_OR_TOLD, Connection, Engine, away, connect, db_errors, roles_of
from hubscope.store.aggregates import refresh_forward, settle_late
from hubscope.store.maintenance import maintaining, make_audit_partitions
from hubscope.store.pack import pack
from hubscope.store.policies import to_columnstore
from hubscope.store.recount import recount
from hubscope.store.retention import horizons, retain

log = structlog.get_logger("hubscope.worker")
T = TypeVar("T")

FOLD_BATCHES = 2000
REFRESH_EVERY = timedelta(minutes=10)
SETTLE_EVERY = timedelta(minutes=1)
COLUMNSTORE_EVERY = timedelta(hours=6)
NIGHTLY = timedelta(hours=24)
ENGINE_POLL_S = 1.0
CHILD_EXIT_TIMEOUT_S = 2
RESULT_MAX_BYTES = 16 * 1024 * 1024


class Worker:
    """The jobs over one store.

    Args:
        settings: intervals.
        dsn: URL of the store.
        scratch: a folder for dbt's own files.
    """

    def __init__(self, settings: Settings, dsn: str, scratch: Path) -> None:
        self.settings = settings
        self._dsn = dsn
        self._roles = roles_of(settings, dsn)
        self._role = self._roles.worker
        self._refreshing = asyncio.Lock()
        self._scratch = scratch
        self._child: asyncio.subprocess.Process | None = None
        self._child_free = asyncio.Lock()
        self._fold_connection: Connection | None = None

    def timetable(self, engine: Engine) -> tuple[Job, ...]:
        """What runs how often on a store of this engine."""
        settings = self.settings
        rollups: tuple[Job, ...]
        if engine == "timescale":
            rollups = (
                Job("refresh_rollups", REFRESH_EVERY, self.refresh_rollups, at_start=True),
                Job("settle_late", SETTLE_EVERY, self.settle_late, recorded=False),
                Job("columnstore", COLUMNSTORE_EVERY, self.columnstore),
            )
        else:
            rollups = (
                Job("fold", timedelta(milliseconds=settings.fold_interval_ms), self.fold, recorded=False),
                Job("recount", NIGHTLY, self.recount),
                Job("pack", NIGHTLY, self.pack),
            )
        return (
            *rollups,
            Job("build_marts", timedelta(minutes=settings.marts_interval_minutes), self.build_marts, at_start=True),
            Job(
                "check_quality", timedelta(minutes=settings.quality_interval_minutes), self.check_quality, at_start=True
            ),
            Job("retention", NIGHTLY, self.retention),
            Job("prune_ops", NIGHTLY, self.prune_ops),
            Job("prune_chains", NIGHTLY, self.prune_chains),
        )

    async def connect(self) -> Connection:
        """A connection under the worker role."""
        return await connect(self._dsn, role=self._role, name="worker")

    async def fold(self) -> dict[str, Any]:
        """Move what is pending into the stored hours, until nothing is."""
        if self._fold_connection is None or self._fold_connection.is_closed():
            self._fold_connection = await self.connect()
        moved = batches = FOLD_BATCHES
        total = 0
        try:
            while moved == batches:
                moved = await self._fold_connection.fetchval("SELECT rollup.fold($1)", FOLD_BATCHES)
                total += moved
        except AWAY as error:
            self._fold_connection.terminate()
            self._fold_connection = None
            raise away(error) from error
        return {"batches": total}

    async def engine(self) -> Engine:
        """The engine of the store."""
        connection = await self.connect()
        try:
            found: Engine = await connection.fetchval("SELECT engine FROM ops.store")
            return found
        finally:
            await connection.close()

    async def refresh_rollups(self) -> dict[str, Any]:
        """Refresh the continuous aggregates as far as two hours ago."""
        return {"aggregates": await self._as_owner(refresh_forward)}

    async def settle_late(self) -> dict[str, Any]:
        """Refresh the hours that late events were marked for."""
        return {"marks": await self._as_owner(settle_late)}

    async def columnstore(self) -> dict[str, Any]:
        """Turn old chunks into columnstore."""
        return {"chunks": await self._as_owner(partial(to_columnstore, settings=self.settings))}

    async def pack(self) -> dict[str, Any]:
        """Pack days of latency that change no more."""
        return {"rows": await self._as_owner(partial(pack, settings=self.settings, now=datetime.now(UTC)))}

    async def retention(self) -> dict[str, Any]:
        """Take what is past its days; what went, by relation."""
        engine = await self.engine()
        wanted = horizons(self.settings, datetime.now(UTC))
        parts = await self._as_owner(partial(retain, engine=engine, wanted=wanted))
        await self._as_owner(make_audit_partitions)  # in case no service runs that would
        if wanted.daily is not None:
            connection = await self.connect()
            try:
                if await connection.fetchval("SELECT to_regclass('analytics.fct_tool_usage_daily') IS NOT NULL"):
                    await connection.execute("DELETE FROM analytics.fct_tool_usage_daily WHERE day < $1", wanted.daily)
            finally:
                await connection.close()
        taken: dict[str, Any] = {"bytes": sum(part.bytes for part in parts)}
        for part in parts:
            taken[part.relation] = taken.get(part.relation, 0) + 1
        return taken

    async def recount(self) -> dict[str, Any]:
        """Compare every rollup with raw, and repair what differs."""
        now = datetime.now(UTC)
        wanted = horizons(self.settings, now)
        days, repairs = await self._as_owner(partial(recount, horizons=wanted, now=now))
        for repair in repairs:
            log.error("rollup repaired", relation=repair.relation, day=f"{repair.day:%Y-%m-%d}", rows=repair.rows)
        return {"days": days, "repaired_rows": sum(repair.rows for repair in repairs)}

    async def _as_owner(self, function: Callable[[Connection], Awaitable[T]]) -> T:
        """Maintenance belongs to the owner of the tables, and one process at a time does it."""
        async with self._refreshing, maintaining(self._dsn, self._roles, "worker") as connection:
            return await function(connection)

    async def build_marts(self) -> dict[str, Any]:
        """Build every mart and run its data tests."""
        result: dict[str, Any] = await self._heavy("dbt")
        return result

    async def check_quality(self) -> dict[str, Any]:
        """Check the raw tables; findings go to ops.quality_results."""
        result = await self._heavy("quality")
        findings = result["findings"]
        checked_at = datetime.fromisoformat(result["checked_at"])
        connection = await self.connect()
        try:
            await connection.executemany(
                "INSERT INTO ops.quality_results (suite, checked_at, expectation, subject, ok, observed)"
                " VALUES ($1, $2, $3, $4, $5, $6::jsonb)",
                [
                    (
                        result["suite"],
                        checked_at,
                        one["expectation"],
                        one["subject"],
                        one["ok"],
                        json.dumps(one["observed"]),
                    )
                    for one in findings
                ],
            )
        finally:
            await connection.close()
        missed = [f"{one['expectation']}({one['subject']})" for one in findings if not one["ok"]]
        if missed:
            raise JobFailed(f"{len(missed)} of {len(findings)} expectations are not met: {', '.join(missed)}")
        return {"expectations": len(findings)}

    async def prune_ops(self) -> dict[str, Any]:
        """Delete records of jobs past their retention, and touched hours that every mart has taken in."""
        connection = await self.connect()
        try:
            horizon = datetime.now(UTC) - timedelta(days=self.settings.ops_retention_days)
            runs = await connection.execute("DELETE FROM ops.job_runs WHERE started_at < $1", horizon)
            results = await connection.execute("DELETE FROM ops.quality_results WHERE checked_at < $1", horizon)
            touched = "DELETE 0"
            if await connection.fetchval("SELECT to_regclass('analytics.fct_tool_usage_daily') IS NOT NULL"):
                touched = await connection.execute(
                    "DELETE FROM ops.touched_hours WHERE xid < ("
                    " SELECT max(built_through)::text::xid8 FROM analytics.fct_tool_usage_daily)"
                )
        finally:
            await connection.close()
        deleted = {"job_runs": runs, "quality_results": results, "touched_hours": touched}
        return {name: int(tag.split()[-1]) for name, tag in deleted.items()}

    async def prune_chains(self) -> dict[str, Any]:
        """Delete chains past their retention, and what older ones need to be resumed."""
        return await self._as_owner(partial(forget_chains, settings=self.settings, now=datetime.now(UTC)))

    async def _heavy(self, job: str) -> Any:
        """Run a job in the child process, which is started when first needed and again after it died."""
        async with self._child_free:
            if self._child is None or self._child.returncode is not None:
                self._child = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-W",
                    "ignore",  # their warnings are about their own insides
                    "-m",
                    "hubscope.heavy",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=RESULT_MAX_BYTES,
                    env=os.environ | {"PYTHONWARNINGS": "ignore"},  # for the processes that they start in turn
                )
            child = self._child
            assert child.stdin is not None
            assert child.stdout is not None
            task = {"job": job, "dsn": self._dsn, "role": self._role, "scratch": str(self._scratch)}
            try:
                child.stdin.write(json.dumps(task).encode() + b"\n")
                await child.stdin.drain()
                line = await child.stdout.readline()
            except (BrokenPipeError, ConnectionResetError):
                line = b""
            except asyncio.CancelledError:
                # A half-read answer would be taken for the next job's.
                await self._end_child()
                raise
            if not line:
                await self._end_child()
                raise JobFailed(f"{job}: the process that runs dbt and Great Expectations died; it is started anew")
            result = json.loads(line)
        if "error" in result:
            raise JobFailed(result["error"])
        return result["value"]

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None or child.returncode is not None:
            return
        assert child.stdin is not None
        child.stdin.close()
        try:
            await asyncio.wait_for(child.wait(), CHILD_EXIT_TIMEOUT_S)
        except TimeoutError:
            child.kill()  # in the middle of a job; it keeps nothing: transactions end with their connections
            await child.wait()

    async def close(self) -> None:
        """End the child process and the fold connection."""
        await self._end_child()
        if self._fold_connection is not None:
            self._fold_connection.terminate()


@asynccontextmanager
async def opened(settings: Settings, dsn: str) -> AsyncIterator[Worker]:
    """A worker for as long as the block runs."""
    scratch = Path(tempfile.mkdtemp(prefix="hubscope-dbt-"))
    worker = Worker(settings, dsn, scratch)
    try:
        yield worker
    finally:
        await worker.close()
        shutil.rmtree(scratch, ignore_errors=True)


async def run(settings: Settings, dsn: str, stop: asyncio.Event) -> None:
    """Work through the timetable until told to stop. SIGUSR1 has the marts built now, too."""
    async with opened(settings, dsn) as worker:
        engine = await _engine_of(worker, stop)
        if engine is None:
            return
        timetable = worker.timetable(engine)
        scheduler = AsyncIOScheduler(timezone=UTC)
        for job in timetable:
            scheduler.add_job(
                _guarded(job, worker.connect),
                "interval",
                seconds=tick_of(job).total_seconds(),
                id=job.name,
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
            )
        scheduler.start()
        starting = [
            asyncio.create_task(_guarded(job, worker.connect, forced=True)()) for job in timetable if job.at_start
        ]
        build = next(job for job in timetable if job.name == "build_marts")
        asked: set[asyncio.Task[None]] = set()

        def build_now() -> None:
            task = asyncio.create_task(_guarded(build, worker.connect, forced=True)())
            asked.add(task)
            task.add_done_callback(asked.discard)

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, build_now)
        log.info("worker started", engine=engine, jobs=[job.name for job in timetable])
        try:
            await stop.wait()
        finally:
            scheduler.shutdown(wait=False)
            for task in (*starting, *asked):
                task.cancel()
            await asyncio.gather(*starting, *asked, return_exceptions=True)


async def _engine_of(worker: Worker, stop: asyncio.Event) -> Engine | None:
    """The store's engine, once the database answers and is migrated; None when told to stop before."""
    told = False
    while not stop.is_set():
        try:
            return await worker.engine()
        except (*AWAY_OR_TOLD, db_errors.UndefinedTableError, db_errors.InvalidSchemaNameError) as error:
            if not told:
                log.warning("waiting for a migrated store", error=away(error).detail)
                told = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), ENGINE_POLL_S)
    return None


def _guarded(
    job: Job, open_connection: Callable[[], Awaitable[Connection]], *, forced: bool = False
) -> Callable[[], Coroutine[Any, Any, None]]:
    """A run that never throws: a worker outlives a database that is away and a job that fails."""

    async def guarded() -> None:
        try:
            await run_once(job, open_connection, forced=forced)
        except asyncio.CancelledError:
            raise
        except AWAY_OR_TOLD as error:
            log.warning("database away", job=job.name, error=away(error).detail)
        except Exception:
            log.exception("job broke", job=job.name)

    return guarded


async def stop_with_parent(stop: asyncio.Event) -> None:
    """Set `stop` when standard input ends: whoever started us with a pipe and died cannot tell us otherwise."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    with contextlib.suppress(OSError, ValueError):
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        stop.set()
