"""Rollups: what they cost and what they save, at 1 M and 10 M events of the standard load.

The postgres engine is measured on the embedded PostgreSQL (fsync on, stock settings): events go through the product's
own writer, and folds run beside it as in production. Rollup and raw are asked in alternating rounds.
The timescale engine is measured on HUBSCOPE_BENCH_TIMESCALE_DSN (a superuser's URL of an empty database on a native
server); without it a small load is measured on TimescaleDB in WebAssembly, and told in the context only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from hubscope.access import LOCAL, Principal
from hubscope.app import App, migrate_store, opened
from hubscope.embedded import EmbeddedDatabase
from hubscope.ingest.names import Names
from hubscope.ingest.rows import record
from hubscope.ingest.writer import Writer
from hubscope.instruments import Instruments
from hubscope.settings import Settings
from hubscope.store import Connection, connect, roles_of
from hubscope.store.aggregates import refresh_forward, settle_late
from hubscope.store.pack import pack
from hubscope.store.policies import to_columnstore
from hubscope.store.retention import horizons, midnight, retain
from tests.bench.load import TENANTS, Load, days_of, facts, standard_load
from tests.bench.result import Result, middle, percentile, rounded, say
from tests.timescale.server import TimescaleServer, TimescaleUnavailable

SMALL: Final = 1_000_000
LARGE: Final = 10_000_000
POST: Final = 5_000
"""Events of one commit."""
TENANT: Final = TENANTS[0]
"""The busiest one."""
ROUNDS: Final = 7
RAW_ROUNDS: Final = 3
LIVE_RATE: Final = 2_000
LIVE_FILL: Final = 600_000
"""Events in the current hour before the live part begins (five minutes of the rate)."""
LIVE_SECONDS: Final = 30
TIMESCALE_EVENTS: Final = 100_000
ROLLUPS: Final = ("tool_calls_hourly", "tool_latency_hourly", "tool_calls_daily", "tool_latency_daily")

ROLLUP_P95: Final = """
SELECT
    server,
    tool,
    least(
        rollup.latency_value(min(bucket) FILTER (WHERE reached >= ceil(0.95 * total::double precision))),
        max(max_us) / 1000.0
    ) AS p95_ms
FROM (
    SELECT
        server,
        tool,
        bucket,
        max_us,
        sum(calls) OVER (PARTITION BY server, tool ORDER BY bucket) AS reached,
        sum(calls) OVER (PARTITION BY server, tool) AS total
    FROM (
        SELECT server, tool, bucket, sum(calls) AS calls, max(max_us) AS max_us
        FROM (
            SELECT server, tool, bucket, calls, max_us FROM analytics.fct_tool_latency_daily
            WHERE tenant_id = $1 AND day >= $2 AND day < $3
            UNION ALL
            SELECT server, tool, bucket, calls, max_us FROM analytics.fct_tool_latency_hourly
            WHERE tenant_id = $1 AND hour >= $3 AND hour < $4
        ) AS spans
        GROUP BY server, tool, bucket
    ) AS buckets
) AS ranked
GROUP BY server, tool
"""
RAW_P95: Final = """
SELECT server, tool, percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms
FROM raw.tool_calls
WHERE tenant_id = $1 AND time >= $2 AND time < $3 AND counted
GROUP BY server, tool
"""
BYTES: Final = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
WHERE relkind IN ('r', 'm') AND relnamespace = $1::text::regnamespace AND relname ~ $2
"""


@dataclass(slots=True)
class Filled:
    """What filling a store with a load took.

    Attributes:
        seconds: from the first post to the last fold.
        fold_seconds: in folds alone.
        figures: bytes and answer times, by name.
    """

    seconds: float = 0.0
    fold_seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)


async def run(arguments: argparse.Namespace) -> Result:
    """All figures of the bench `rollup`."""
    large = arguments.events or LARGE
    small = max(large // 10, 1)
    end = datetime.now(UTC)
    result = Result(context={"load": facts(standard_load(1, end)) | {"events": [small, large]}, "commit_events": POST})
    filled: dict[str, Filled] = {}
    for name, events in (("small", small), ("large", large)):
        async with store() as (settings, dsn):
            filled[name] = await _measure(settings, dsn, events, end, live=events == large)
    one, ten = filled["small"], filled["large"]
    result.figures = {
        "month_speedup_vs_raw_10m": rounded(ten.figures["raw_month_ms"] / ten.figures["month_ms"]),
        "month_growth_1m_to_10m": rounded(ten.figures["month_ms"] / one.figures["month_ms"]),
        "live_tail_p95_ms": rounded(ten.figures["live_tail_p95_ms"]),
        "refresh_s_10m": None,
        "bytes_per_event_raw": rounded(ten.figures["raw_bytes"] / large),
        "bytes_per_event_compressed": None,
        "bytes_per_event_rollup": rounded(ten.figures["rollup_bytes"] / large),
        "day_speedup_vs_raw_10m": rounded(ten.figures["raw_day_ms"] / ten.figures["day_ms"]),
        "fold_s_1m": rounded(one.fold_seconds),
        "fold_s_10m": rounded(ten.fold_seconds),
        "fill_s_10m": rounded(ten.seconds),
        "report_month_growth_1m_to_10m": rounded(ten.figures["report_month_ms"] / one.figures["report_month_ms"]),
    }
    for name, part in filled.items():
        size = {"small": small, "large": large}[name]
        result.context[f"at_{size}_events"] = {key: rounded(value) for key, value in part.figures.items()}
    await _timescale(result, large, end)
    return result


@asynccontextmanager
async def store() -> AsyncIterator[tuple[Settings, str]]:
    """A new store on an embedded PostgreSQL of its own, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hubscope-bench-"))
    folder.chmod(0o711)
    database = EmbeddedDatabase(folder / "data").attach()
    try:
        settings = Settings.load(database_url=database.dsn)
        await migrate_store(settings, database.dsn)
        yield settings, database.dsn
    finally:
        database.detach()
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def writing(settings: Settings, dsn: str) -> AsyncIterator[Writer]:
    """The product's writer over a store."""

    async def open_writer() -> Connection:
        return await connect(dsn, role=roles_of(settings, dsn).writer, name="bench")

    instruments = Instruments()
    writer = Writer(open_writer, settings, instruments, Names(settings, instruments))
    await writer.start()
    try:
        yield writer
    finally:
        await writer.close()


async def _measure(settings: Settings, dsn: str, events: int, end: datetime, *, live: bool) -> Filled:
    load = standard_load(events, end)
    filled = Filled()
    async with opened(settings, dsn) as app, writing(settings, dsn) as writer:
        worker = await connect(dsn, role=roles_of(settings, dsn).worker, name="bench")
        admin = await connect(dsn, name="bench")
        first, last = days_of(load)
        await admin.execute("SELECT ops.ensure_partitions($1::date, $2::date)", first, last + timedelta(days=1))
        owner = await connect(dsn, role=roles_of(settings, dsn).owner, name="bench")
        await _fill(settings, writer, worker, owner, load, filled)
        await owner.close()
        await admin.execute("VACUUM ANALYZE")
        await _sizes(admin, filled)
        await _check(worker, load)
        await _questions(worker, app, end, filled)
        if live:
            await _live(app, writer, worker, filled)
        await worker.close()
        await admin.close()
    return filled


async def _fill(
    settings: Settings, writer: Writer, worker: Connection, owner: Connection, load: Load, filled: Filled
) -> None:
    """Post everything, a few commits at once, with a fold every second and the worker's work of each night."""
    say(f"{len(load):,} events into a new store")
    started = time.perf_counter()
    done = asyncio.Event()

    async def fold() -> None:
        while True:
            last = done.is_set()
            begun = time.perf_counter()
            await worker.fetchval("SELECT rollup.fold($1)", 2000)
            filled.fold_seconds += time.perf_counter() - begun
            if last:
                return
            await asyncio.sleep(1)

    folding = asyncio.create_task(fold())
    waiting: set[asyncio.Future[Any]] = set()
    today = None
    for start, stop in load.batches(POST):
        records = [record(*call) for call in load.calls(start, stop)]
        waiting.add(writer.store(records, 1))
        if len(waiting) >= 3:
            finished, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
        if start and start % (len(load) // 10 // POST * POST or POST) == 0:
            rate = start / (time.perf_counter() - started)
            say(f"  {start:,} events, {rate:,.0f} a second")
        now = datetime.fromtimestamp(int(load.time_us[start:stop].max()) / 1_000_000, UTC)
        if now.date() != today:
            today = now.date()
            await _night(owner, settings, now)
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    done.set()
    await folding
    await _night(owner, settings, load.end)
    filled.seconds = time.perf_counter() - started


async def _night(owner: Connection, settings: Settings, now: datetime) -> None:
    """What the worker does each night, by the load's clock: retention and packing."""
    await retain(owner, "postgres", horizons(settings, now))
    await pack(owner, settings, now)


async def _sizes(admin: Connection, filled: Filled) -> None:
    filled.figures["raw_bytes"] = await admin.fetchval(BYTES, "raw", "^tool_calls")
    filled.figures["rollup_bytes"] = await admin.fetchval(BYTES, "rollup", "^(stored|packed)_")
    filled.figures["packed_bytes"] = await admin.fetchval(BYTES, "rollup", "^packed_")
    for name in ROLLUPS:
        filled.figures[f"{name}_bytes"] = await admin.fetchval(BYTES, "rollup", f"^stored_{name}$")
        filled.figures[f"{name}_rows"] = await admin.fetchval(f"SELECT count(*) FROM rollup.stored_{name}")


async def _check(worker: Connection, load: Load) -> None:
    """The rollup must hold exactly the load before any of its speed counts."""
    rows = await worker.fetch(
        "SELECT tenant_id, tool, sum(calls)::bigint AS n FROM rollup.tool_calls_daily GROUP BY tenant_id, tool"
    )
    if {(row["tenant_id"], row["tool"]): row["n"] for row in rows} != load.true_calls():
        raise RuntimeError("the rollup does not hold what was posted")


async def _questions(worker: Connection, app: App, end: datetime, filled: Filled) -> None:
    """p95 per tool over a day and over a month: from the rollup, and from raw."""
    tenant = Principal(tenant=TENANT, scopes=LOCAL.scopes)
    today = midnight(end)
    month = today - timedelta(days=29)
    day = (end - timedelta(hours=24)).replace(minute=0, second=0, microsecond=0)
    asked = {
        # from where on days, from where on hours, to where
        "month": (TENANT, month, today, end),
        "day": (TENANT, day, day, end),
    }
    times: dict[str, list[float]] = {}

    async def timed(name: str, awaitable: Any) -> None:
        begun = time.perf_counter()
        await awaitable
        times.setdefault(name, []).append((time.perf_counter() - begun) * 1000)

    async with app.readers.acquire() as reader:
        for round_ in range(ROUNDS):
            for name, cut in asked.items():
                await timed(f"{name}_ms", reader.fetch(ROLLUP_P95, *cut))
                if round_ < RAW_ROUNDS:
                    await timed(f"raw_{name}_ms", worker.fetch(RAW_P95, TENANT, cut[1], end))
    for _ in range(ROUNDS):
        for name, length, group in (("month", "30 days", "day"), ("day", "24 hours", "hour")):
            await timed(f"report_{name}_ms", _report(app, tenant, length, group))
    filled.figures |= {name: middle(values) for name, values in times.items()}
    say("  " + ", ".join(f"{name} {middle(values):,.1f}" for name, values in times.items()))


async def _report(app: App, tenant: Principal, length: str, group: str) -> None:
    await app.report(tenant, time_range=length, group_by=group, include_real_time=True, include_metadata=False, top=10)


async def _live(app: App, writer: Writer, worker: Connection, filled: Filled) -> None:
    """Answers about today while the current hour fills at a steady rate, folds running."""
    tenant = Principal(tenant=TENANT, scopes=LOCAL.scopes)
    now = datetime.now(UTC)
    say(f"  the current hour: {LIVE_FILL:,} events, then {LIVE_RATE:,} a second for {LIVE_SECONDS} s")
    source = standard_load(LIVE_FILL + LIVE_RATE * LIVE_SECONDS, now, seed=7)
    hour = int(now.replace(minute=0, second=0, microsecond=0).timestamp() * 1_000_000)
    source.time_us[:] = hour + source.time_us % max(int(now.timestamp() * 1_000_000) - hour, 1)
    source.id_high[:] ^= 0xABC  # other events than those of the month
    folded = asyncio.Event()

    async def fold() -> None:
        while not folded.is_set():
            await worker.fetchval("SELECT rollup.fold($1)", 2000)
            await asyncio.sleep(1)

    folding = asyncio.create_task(fold())
    for start in range(0, LIVE_FILL, POST):
        await writer.store([record(*call) for call in source.calls(start, start + POST)], 1)

    async def post() -> None:
        step = LIVE_RATE // 10
        begun = time.perf_counter()
        for number in range(LIVE_SECONDS * 10):
            start = LIVE_FILL + number * step
            await asyncio.sleep(max(0.0, begun + number / 10 - time.perf_counter()))
            await writer.store([record(*call) for call in source.calls(start, start + step)], 1)

    posting = asyncio.create_task(post())
    took: list[float] = []
    while not posting.done():
        begun = time.perf_counter()
        await _report(app, tenant, "24 hours", "hour")
        took.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0.1)
    await posting
    folded.set()
    await folding
    filled.figures["live_tail_p50_ms"] = percentile(took, 0.50)
    filled.figures["live_tail_p95_ms"] = percentile(took, 0.95)
    filled.figures["live_answers"] = len(took)


async def _timescale(result: Result, large: int, end: datetime) -> None:
    """Refresh and bytes on the timescale engine, as far as this machine has one."""
    native = os.environ.get("HUBSCOPE_BENCH_TIMESCALE_DSN")
    if native:
        figures = await _on_timescale(native, large, end)
        result.figures["refresh_s_10m"] = figures["refresh_s"]
        result.figures["bytes_per_event_compressed"] = figures["bytes_per_event_compressed"]
        result.context["timescale"] = figures
        return
    why = "no native TimescaleDB on this machine; see timescale_webassembly"
    result.context |= {"refresh_s_10m": why, "bytes_per_event_compressed": why}
    try:
        with TimescaleServer() as server:
            result.context["timescale_webassembly"] = await _on_timescale(server.dsn, TIMESCALE_EVENTS, end)
    except TimescaleUnavailable as error:
        result.context["timescale_webassembly"] = str(error)


async def _on_timescale(dsn: str, events: int, end: datetime) -> dict[str, float]:
    load = standard_load(events, end)
    settings = Settings.load(database_url=dsn, role_prefix="hubscope_bench", compress_after_days=2)
    await migrate_store(settings, dsn)
    say(f"{events:,} events into TimescaleDB")
    async with writing(settings, dsn) as writer:
        for start, stop in load.batches(POST):
            await writer.store([record(*call) for call in load.calls(start, stop)], 1)
    owner = await connect(dsn, role="hubscope_bench_owner", name="bench")
    try:
        size = "SELECT sum(public.hypertable_size(name::regclass)) FROM unnest($1::text[]) AS name"
        before = float(await owner.fetchval(size, ["raw.tool_calls"]))
        begun = time.perf_counter()
        await refresh_forward(owner)
        await settle_late(owner)
        refresh = time.perf_counter() - begun
        rollups = float(await owner.fetchval(size, [f"rollup.cagg_{name}" for name in ROLLUPS]))
        await to_columnstore(owner, settings)
        turned = await owner.fetchrow(
            "SELECT sum(before_compression_total_bytes) AS before, sum(after_compression_total_bytes) AS after"
            " FROM public.hypertable_compression_stats('raw.tool_calls')"
        )
    finally:
        await owner.close()
    ratio = float(turned["after"] / turned["before"])
    return {
        "events": events,
        "refresh_s": rounded(refresh),
        "bytes_per_event_raw": rounded(before / events),
        "bytes_per_event_compressed": rounded(before / events * ratio),
        "bytes_per_event_rollup": rounded(rollups / events),
    }
