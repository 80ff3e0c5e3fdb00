"""Ingest: what a real `hubscope serve` commits, beside what PostgreSQL itself does with the same rows.

One server process over an embedded PostgreSQL (fsync on, stock settings), posts under API keys with redaction and
rollup bookkeeping on. The yardsticks work on a second store on the same server, migrated in the same way: `psql \\copy`
of the very rows that were posted, and `pgbench` inserting a row of them singly. Rounds alternate, each with fresh rows,
and a ratio is the median over the rounds. Rollups are folded between the timed parts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx2
import msgspec
import psutil

from hubscope.ids import uuid7
from hubscope.ingest.rows import COLUMNS
from hubscope.model import Receipt, ToolCall
from hubscope.store import Connection, connect, roles_of
from tests.bench.drive import Driven, drive, request
from tests.bench.load import TENANTS, facts
from tests.bench.posts import Call, copy_text, insert_statement, live_load, ndjson, posts
from tests.bench.result import Result, middle, percentile, rounded, say
from tests.bench.service import Service, program, second_store, service

EVENTS: Final = 280_000
POST_EVENTS: Final = 500
BATCH_CONNECTIONS: Final = 16
SINGLE_CONNECTIONS: Final = 64
WATCHED: Final = "watched"
"""A tenant of its own for the freshness of single events."""
LIVE_RATE: Final = 2_000
"""Events a second beside the watched ones."""
OVERLOAD_CONNECTIONS: Final = 256
STOPPED_SHARE: Final = 0.9
"""Under overload the table is locked for this share of each second: the clients offer ten times what is left."""
MEGABYTE: Final = 1024 * 1024
RSS_BOUND_MB: Final = 512
"""Said in docs/reference/events.md."""

_TIME: Final = re.compile(r"^Time: ([\d.]+) ms", re.MULTILINE)
_TPS: Final = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
_LATENCY: Final = re.compile(r"^latency average = ([\d.]+) ms", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    Attributes:
        rounds, posted: batched rounds, and events in each of the two kinds of posts of a round.
        single_rounds, singles: the same for events that are posted singly.
        watched: events whose way into an answer is timed.
        overload_s: seconds of overload.
    """

    rounds: int = 7
    posted: int = EVENTS // 7
    single_rounds: int = 5
    singles: int = EVENTS // 10
    watched: int = 60
    overload_s: float = 20.0

    @classmethod
    def of(cls, events: int) -> Sizes:
        """Scaled to so many batched events."""
        share = events / EVENTS
        return cls(
            posted=max(POST_EVENTS * len(TENANTS), events // cls().rounds),
            singles=max(SINGLE_CONNECTIONS * 4, events // 10),
            watched=max(5, min(60, round(60 * share))),
            overload_s=max(3.0, min(20.0, 20.0 * share)),
        )


@dataclass(slots=True)
class Bench:
    """The service, the yardstick and what was measured so far: name -> one number per round."""

    service: Service
    admin: Connection
    worker: Connection
    yardstick: str
    measured: dict[str, list[float]] = field(default_factory=dict)
    seed: int = 1

    def note(self, name: str, value: float) -> None:
        self.measured.setdefault(name, []).append(value)

    def fresh(self, events: int) -> list[Call]:
        """Rows that nobody has posted yet."""
        self.seed += 1
        return live_load(events, datetime.now(UTC), seed=self.seed).calls(0, events)

    async def fold(self) -> None:
        """Fold all that is pending."""
        while await self.worker.fetchval("SELECT rollup.fold($1)", 2000):
            pass


async def run(arguments: argparse.Namespace) -> Result:
    """All figures of the bench `ingest`."""
    return await measure(Sizes.of(arguments.events) if arguments.events else Sizes())


async def measure(sizes: Sizes) -> Result:
    """The same at given sizes."""
    result = Result()
    async with service([*TENANTS, WATCHED]) as running:
        yardstick = await second_store(running.database, "yardstick")
        admin = await connect(running.dsn, name="bench")
        worker = await connect(running.dsn, role=roles_of(running.settings, running.dsn).worker, name="bench")
        bench = Bench(running, admin, worker, yardstick)
        try:
            result.context |= _about(running, sizes)
            await _warm(bench)
            stored = await _batched(bench, sizes)
            await _single(bench, sizes)
            await _settled(bench)
            await _freshness(bench, sizes, result)
            await _overload(bench, sizes, result, stored)
            await _check(bench)
        finally:
            await worker.close()
            await admin.close()
    _figures(bench.measured, result)
    return result


def _about(running: Service, sizes: Sizes) -> dict[str, Any]:
    settings = running.settings
    return {
        "load": facts(live_load(1, datetime.now(UTC), seed=1)) | {"events": sizes.rounds * sizes.posted * 2},
        "post_events": POST_EVENTS,
        "rounds": sizes.rounds,
        "single_rounds": sizes.single_rounds,
        "connections": {"batched": BATCH_CONNECTIONS, "single": SINGLE_CONNECTIONS},
        "on": "API keys, redaction, rollup bookkeeping, fsync, acknowledgement after commit",
        "writers": settings.writers,
        "yardstick": "psql \\copy and pgbench -M prepared into a second store on the same server",
    }


async def _warm(bench: Bench) -> None:
    """Names are met, keys read, connections opened, files grown before anything is timed."""
    calls = bench.fresh(POST_EVENTS * len(TENANTS) * 2)
    _all_taken(_drive(bench, posts(calls, POST_EVENTS), BATCH_CONNECTIONS), len(calls))
    await _copy(bench, calls)
    await bench.fold()


async def _batched(bench: Bench, sizes: Sizes) -> list[Call]:
    """Posts of 500 and `\\copy`, alternating; once all new, once with one event in each post that is there already."""
    stored: list[Call] = []
    for round_ in range(sizes.rounds):
        for kind in ("batched", "one_duplicate"):
            calls = bench.fresh(sizes.posted)
            sent = posts(calls, POST_EVENTS)
            if kind == "one_duplicate":
                sent = with_duplicates(sent, stored)
            duplicates = sum(len(post) for post in sent) - len(calls)
            rates: dict[str, float] = {}
            for who in ("hubscope", "copy") if round_ % 2 else ("copy", "hubscope"):
                if who == "copy":
                    rates[who] = len(calls) / await _copy(bench, calls)
                else:
                    driven = _drive(bench, sent, BATCH_CONNECTIONS)
                    _all_taken(driven, len(calls), duplicates)
                    rates[who] = len(calls) / driven.seconds
                    bench.note(f"{kind}_p99_ms", percentile(driven.latencies_ms, 0.99))
            bench.note(f"{kind}_events_per_s", rates["hubscope"])
            bench.note(f"copy_beside_{kind}_events_per_s", rates["copy"])
            bench.note(f"{kind}_vs_copy", rates["hubscope"] / rates["copy"])
            stored = calls
            await bench.fold()
        say(
            f"  batched {bench.measured['batched_events_per_s'][-1]:,.0f} events/s, with duplicates"
            f" {bench.measured['one_duplicate_events_per_s'][-1]:,.0f}, copy"
            f" {bench.measured['copy_beside_batched_events_per_s'][-1]:,.0f}"
        )
    return stored


def with_duplicates(sent: Sequence[list[Call]], stored: Sequence[Call]) -> list[list[Call]]:
    """Each post with one event of its tenant that is stored already, in its middle; what its tenant lacks, without."""
    of_tenant: dict[str, itertools.cycle[Call]] = {}
    for tenant in {call[0] for call in stored}:
        of_tenant[tenant] = itertools.cycle([call for call in stored if call[0] == tenant])
    return [
        [*post[: len(post) // 2], next(of_tenant[post[0][0]]), *post[len(post) // 2 :]]
        if post[0][0] in of_tenant
        else post
        for post in sent
    ]


async def _single(bench: Bench, sizes: Sizes) -> None:
    """Single events over 64 connections, and pgbench with 64 clients, alternating."""
    script = bench.service.folder / "insert.sql"
    script.write_text(insert_statement(next(call for call in bench.fresh(20) if call[2].duration_ms is not None)))
    for round_ in range(sizes.single_rounds):
        for who in ("hubscope", "pgbench") if round_ % 2 else ("pgbench", "hubscope"):
            if who == "pgbench":
                rate, latency = await _pgbench(bench, script, sizes.singles)
                bench.note("pgbench_events_per_s", rate)
                bench.note("pgbench_avg_ms", latency)
                continue
            calls = bench.fresh(sizes.singles)
            driven = _drive(bench, [[call] for call in calls], SINGLE_CONNECTIONS)
            _all_taken(driven, len(calls))
            bench.note("single_events_per_s", len(calls) / driven.seconds)
            bench.note("single_p50_ms", percentile(driven.latencies_ms, 0.50))
            bench.note("single_p99_ms", percentile(driven.latencies_ms, 0.99))
        await bench.fold()
        last = {name: values[-1] for name, values in bench.measured.items()}
        bench.note("single_vs_pgbench", last["single_events_per_s"] / last["pgbench_events_per_s"])
        bench.note("single_p99_vs_pgbench_avg", last["single_p99_ms"] / last["pgbench_avg_ms"])
        say(
            f"  single {last['single_events_per_s']:,.0f} events/s, p99 {last['single_p99_ms']:.1f} ms; pgbench"
            f" {last['pgbench_events_per_s']:,.0f}, average {last['pgbench_avg_ms']:.1f} ms"
        )


def _drive(bench: Bench, sent: Sequence[Sequence[Call]], connections: int) -> Driven:
    """Send posts that were made before the clock runs."""
    requests = [request(ndjson(post), bench.service.keys[post[0][0]]) for post in sent]
    gc.collect()
    gc.disable()
    try:
        return drive(bench.service.port, requests, min(connections, len(requests)))
    finally:
        gc.enable()


def _all_taken(driven: Driven, accepted: int, duplicates: int = 0) -> None:
    """Only what was acknowledged as it should be counts as measured.

    Raises:
        RuntimeError: something was refused or lost.
    """
    receipts = [msgspec.json.decode(body, type=Receipt) for status, body in driven.answers if status == 200]
    told = (sum(one.accepted for one in receipts), sum(one.duplicates for one in receipts))
    if driven.broken or len(receipts) < len(driven.answers) or told != (accepted, duplicates):
        others = [body[:300] for status, body in driven.answers if status != 200][:1]
        raise RuntimeError(f"accepted and duplicates are {told}, not {(accepted, duplicates)}: {others}")


async def _copy(bench: Bench, calls: Sequence[Call]) -> float:
    """Seconds that `psql \\copy` takes for the rows of the calls, by psql's own clock."""
    path = bench.service.folder / "rows.copy"
    path.write_text(copy_text(calls))
    path.chmod(0o644)
    copy = f"\\copy raw.tool_calls ({', '.join(COLUMNS['tool_calls'])}) FROM '{path}'"
    said = await _program("psql", "-X", "-v", "ON_ERROR_STOP=1", "-d", bench.yardstick, "-c", "\\timing on", "-c", copy)
    found = _TIME.search(said)
    if found is None or f"COPY {len(calls)}" not in said:
        raise RuntimeError(f"psql said {said!r}")
    path.unlink()
    return float(found[1]) / 1000


async def _pgbench(bench: Bench, script: Path, inserts: int) -> tuple[float, float]:
    """Inserts a second and the average latency in ms of 64 clients."""
    each = max(1, inserts // SINGLE_CONNECTIONS)
    clients = ("-c", str(SINGLE_CONNECTIONS), "-j", "2", "-t", str(each))
    said = await _program("pgbench", "-n", "-M", "prepared", *clients, "-f", str(script), "-d", bench.yardstick)
    rate, latency = _TPS.search(said), _LATENCY.search(said)
    if rate is None or latency is None or f"processed: {each * SINGLE_CONNECTIONS}/" not in said:
        raise RuntimeError(f"pgbench said {said!r}")
    return float(rate[1]), float(latency[1])


async def _program(name: str, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"}
    done = await asyncio.to_thread(
        subprocess.run, [program(name), *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    return done.stdout


async def _settled(bench: Bench) -> None:
    """What the parts before left behind is not to be felt in what follows."""
    await bench.fold()
    await bench.admin.execute("CHECKPOINT")


@asynccontextmanager
async def _folding(bench: Bench) -> AsyncIterator[None]:
    """A fold every second, as the worker does it."""

    async def fold() -> None:
        while True:
            await bench.worker.fetchval("SELECT rollup.fold($1)", 2000)
            await asyncio.sleep(1)

    task = asyncio.create_task(fold())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _freshness(bench: Bench, sizes: Sizes, result: Result) -> None:
    """From an event's acknowledgement to the arrival of an answer that holds it, while others stream in."""
    say(f"  freshness: {sizes.watched} events beside {LIVE_RATE} a second")
    took: list[float] = []
    asked = 0
    step = LIVE_RATE // 10
    beside = bench.fresh(step * (sizes.watched * 5 + 50))
    url = bench.service.url

    async def stream(http: httpx2.AsyncClient) -> None:
        begun = time.perf_counter()
        for number, start in enumerate(range(0, len(beside), step)):
            await asyncio.sleep(max(0.0, begun + number / 10 - time.perf_counter()))
            for post in posts(beside[start : start + step], step):
                await _post(http, post, bench.service.keys[post[0][0]])

    mine = {"authorization": f"Bearer {bench.service.keys[WATCHED]}"}
    async with httpx2.AsyncClient(base_url=url, timeout=30) as http, _folding(bench):
        streaming = asyncio.create_task(stream(http))
        for number in range(sizes.watched):
            event = ToolCall(time=datetime.now(UTC), server="watched", tool="watched", status="ok", duration_ms=1.0)
            await _post(http, [(WATCHED, uuid7(), event)], bench.service.keys[WATCHED])
            acknowledged = time.perf_counter()
            while True:
                asked += 1
                answer = (await http.get("/api/v1/analytics", params={"timeRange": "1 hour"}, headers=mine)).json()
                if answer["overview"] is not None and answer["overview"]["usage"]["calls"] > number:
                    break
                await asyncio.sleep(0.005)
            took.append((time.perf_counter() - acknowledged) * 1000)
            await asyncio.sleep(0.2)
        streaming.cancel()
        with suppress(asyncio.CancelledError):
            await streaming
    bench.note("freshness_p95_ms", percentile(took, 0.95))
    result.context["freshness"] = {
        "p50_ms": rounded(percentile(took, 0.50)),
        "max_ms": rounded(max(took)),
        "events": len(took),
        "asked": asked,
        "asked_of": "GET /api/v1/analytics, the function behind hub__analytics_advanced",
        "beside_events_per_s": LIVE_RATE,
    }


async def _post(http: httpx2.AsyncClient, calls: Sequence[Call], key: str) -> None:
    headers = {"content-type": "application/x-ndjson", "authorization": f"Bearer {key}"}
    answer = await http.post("/v1/events", content=ndjson(calls), headers=headers)
    if answer.status_code != 200:
        raise RuntimeError(f"a post was answered {answer.status_code}: {answer.text[:300]}")


async def _overload(bench: Bench, sizes: Sizes, result: Result, stored: Sequence[Call]) -> None:
    """Memory of the service while clients offer ten times what the database takes and never wait."""
    say(f"  overload for {sizes.overload_s:.0f} s: {OVERLOAD_CONNECTIONS} connections, the table mostly locked")
    process = psutil.Process(bench.service.pid)
    idle = process.memory_info().rss
    most = idle
    calls = [(tenant, _again(event_id), call) for tenant, event_id, call in stored or bench.fresh(POST_EVENTS)]
    requests = [request(ndjson(post), bench.service.keys[post[0][0]]) for post in posts(calls, POST_EVENTS)]
    until = time.perf_counter() + sizes.overload_s
    blocker = await connect(bench.service.dsn, name="bench")
    driving = asyncio.create_task(
        asyncio.to_thread(drive, bench.service.port, itertools.cycle(requests), OVERLOAD_CONNECTIONS, until=until)
    )
    try:
        while not driving.done():
            locked = time.perf_counter() < until
            async with blocker.transaction():
                if locked:
                    await blocker.execute("LOCK TABLE raw.tool_calls IN SHARE ROW EXCLUSIVE MODE")
                for _ in range(round(STOPPED_SHARE / 0.05)):
                    most = max(most, process.memory_info().rss)
                    await asyncio.sleep(0.05)
                    if locked and time.perf_counter() >= until:
                        break
            await asyncio.sleep(1 - STOPPED_SHARE)
        driven = await driving
    finally:
        await blocker.close()
    most = max(most, process.memory_info().rss)
    receipts = [msgspec.json.decode(body, type=Receipt) for status, body in driven.answers if status == 200]
    settings = bench.service.settings
    bench.note("rss_max_mb", most / MEGABYTE)
    if most > RSS_BOUND_MB * MEGABYTE:
        raise RuntimeError(f"the service took {most / MEGABYTE:.0f} MB, which is above {RSS_BOUND_MB}")
    result.context["overload"] = {
        "seconds": rounded(driven.seconds),
        "connections": OVERLOAD_CONNECTIONS,
        "table_locked_share": STOPPED_SHARE,
        "rss_before_mb": rounded(idle / MEGABYTE),
        "posts_by_status": {str(status): n for status, n in sorted(Counter(s for s, _ in driven.answers).items())},
        "broken_connections": driven.broken,
        "offered_events_per_s": rounded((len(driven.answers) + driven.broken) * POST_EVENTS / driven.seconds),
        "taken_events_per_s": rounded(sum(one.accepted + one.duplicates for one in receipts) / driven.seconds),
        "queue_max_events": settings.queue_max_events,
        "queue_max_bytes": settings.queue_max_bytes,
        "max_buffered_bytes": settings.max_buffered_bytes,
        "rss_bound_mb": RSS_BOUND_MB,
    }


def _again(event_id: UUID) -> UUID:
    """Another id of the same moment."""
    return UUID(int=event_id.int ^ 0xABCDEF)


async def _check(bench: Bench) -> None:
    """After all of it the rollup must hold what raw holds.

    Raises:
        RuntimeError: it does not.
    """
    await bench.fold()
    raw = await bench.admin.fetchval("SELECT count(*) FROM raw.tool_calls WHERE counted")
    rollup = await bench.admin.fetchval("SELECT sum(calls)::bigint FROM rollup.tool_calls_hourly")
    if raw != rollup:
        raise RuntimeError(f"raw holds {raw} calls, the rollup {rollup}")


def _figures(measured: dict[str, list[float]], result: Result) -> None:
    named = {
        "batched_vs_copy": "batched_vs_copy",
        "batched_one_duplicate_vs_copy": "one_duplicate_vs_copy",
        "single_vs_pgbench": "single_vs_pgbench",
        "single_p99_vs_pgbench_avg": "single_p99_vs_pgbench_avg",
        "freshness_p95_ms": "freshness_p95_ms",
        "rss_max_mb": "rss_max_mb",
    }
    result.figures = {figure: rounded(middle(measured[name])) for figure, name in named.items()}
    result.context["medians"] = {name: rounded(middle(values)) for name, values in measured.items()}
    ratios = ("_vs_copy", "_vs_pgbench", "_vs_pgbench_avg")
    result.context["each_round"] = {
        name: [rounded(value) for value in values] for name, values in measured.items() if name.endswith(ratios)
    }
