"""Stream: live updates to many readers while events are ingested and the service is restarted.

One `hubscope serve` over an embedded PostgreSQL (fsync on). 500 readers in one process of their own; eight writers over
connections of their own commit in transactions that overlap, and so in another order than they write; posts of tool
calls come in beside them. In the middle the service is stopped (SIGTERM) and started again; readers come back when they
were told to, with the last number they have. A delay is from the commit, as its writer knows it, to the socket,
and includes the time that the service was away.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sys
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hubscope.store import connect, roles_of
from tests.bench.drive import answer, request
from tests.bench.load import TENANTS
from tests.bench.posts import live_load, ndjson, posts
from tests.bench.result import Result, percentile, rounded, say
from tests.bench.service import Service, environment, restart, service

CLIENTS: Final = 500
EVENTS_PER_S: Final = 20
"""Of the topics that a reader wants."""
OTHERS_PER_S: Final = 5
"""Of a topic that it does not want."""
WRITERS: Final = 8
INGEST_PER_S: Final = 1_000
POST_EVENTS: Final = 100
SECONDS: Final = 120
TOPICS: Final = ("health", "metadata")
SETTLE_S: Final = 5.0
READY_S: Final = 60.0
OVERLAP_S: Final = 0.05
"""Longest time between writing and committing."""

P95_BAR_MS: Final = 1_000
INGEST_BAR: Final = 0.98
"""Share of INGEST_PER_S."""

TELL: Final = "SELECT hub.tell($1, $2, $3, $4, $4, now(), $5)"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    clients: int = CLIENTS
    seconds: float = SECONDS


@dataclass(slots=True)
class Told:
    """What was committed.

    Attributes:
        at: name of each event -> when its commit was known (time.monotonic).
        accepted: events that ingest has acknowledged.
        ingest_s: from the first post to the last answer.
        restart_s: for how long nothing listened, and when that began and ended.
    """

    at: dict[str, float] = field(default_factory=dict)
    accepted: int = 0
    ingest_s: float = 0.0
    down: tuple[float, float] = (0.0, 0.0)


async def run(arguments: argparse.Namespace) -> Result:
    """The figures of the bench `stream`; `--events`: how many are ingested, a thousand a second."""
    return await measure(Sizes(seconds=arguments.events / INGEST_PER_S) if arguments.events else Sizes())


async def measure(sizes: Sizes) -> Result:
    """Drive it all, and compare what was committed with what every reader got."""
    async with service(TENANTS) as running:
        bodies = [(post[0][0], ndjson(post)) for post in _posts(sizes)]
        file = running.folder / "read"
        async with _reading(running, sizes, file) as said:
            say(f"{sizes.clients} streams are open")
            told = Told()
            await asyncio.gather(
                _write(running, sizes, told), _ingest(running, sizes, bodies, told), _restart(running, sizes, told)
            )
            await asyncio.sleep(SETTLE_S)
        result = await _compared(running, sizes, told, file)
        result.context |= said
        return result


def _posts(sizes: Sizes) -> list[list[Any]]:
    events = int(INGEST_PER_S * sizes.seconds)
    return posts(live_load(events, datetime.now(UTC), seed=7).calls(0, events), POST_EVENTS)


@asynccontextmanager
async def _reading(running: Service, sizes: Sizes, file: Path) -> AsyncIterator[dict[str, Any]]:
    """The readers for as long as the block runs; what they say at their end."""
    orders = {
        "port": running.port,
        "keys": [running.keys[tenant] for tenant in TENANTS],
        "clients_each": sizes.clients // len(TENANTS),
        "topics": ",".join(TOPICS),
        "file": str(file),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.stream_clients",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said: dict[str, Any] = {}
    try:
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        async with asyncio.timeout(READY_S):
            assert (await process.stdout.readline()).strip() == b"ready"
        yield said
        process.stdin.close()
        async with asyncio.timeout(READY_S):
            said |= json.loads(await process.stdout.readline())
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _write(running: Service, sizes: Sizes, told: Told) -> None:
    """Eight writers share what is to be told; each commits a little after it wrote."""
    dice = random.Random(3)
    each = EVENTS_PER_S + OTHERS_PER_S
    plan = []
    for number in range(int(sizes.seconds * each)):
        for tenant in TENANTS:
            wanted = number % each < EVENTS_PER_S
            topic = TOPICS[number % len(TOPICS)] if wanted else "audit"
            plan.append((number / each, tenant, topic, f"{tenant} {number}"))
    upcoming = iter(plan)
    begun = time.monotonic()

    async def write() -> None:
        role = roles_of(running.settings, running.dsn).writer
        connection = await connect(running.dsn, role=role, name="bench")
        try:
            for due, tenant, topic, name in upcoming:
                await asyncio.sleep(max(0.0, begun + due - time.monotonic()))
                async with connection.transaction():
                    await connection.execute(TELL, tenant, topic, name, "server-01", json.dumps({"text": "x" * 200}))
                    await asyncio.sleep(dice.random() * OVERLAP_S)
                told.at[name] = time.monotonic()
        finally:
            await connection.close()

    await asyncio.gather(*(write() for _ in range(WRITERS)))


async def _ingest(running: Service, sizes: Sizes, bodies: list[tuple[str, bytes]], told: Told) -> None:
    """Posts at an even pace over one connection; what is not acknowledged is sent again, as a hub would."""
    begun = time.monotonic()
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    for number, (tenant, body) in enumerate(bodies):
        await asyncio.sleep(max(0.0, begun + number * POST_EVENTS / INGEST_PER_S - time.monotonic()))
        while True:
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
                writer.write(request(body, running.keys[tenant]))
                text = b""
                while (done := answer(text)) is None:
                    part = await reader.read(65_536)
                    if not part:
                        raise ConnectionResetError
                    text += part
                if done[0] == 200:
                    receipt = json.loads(done[1])
                    told.accepted += receipt["accepted"] + receipt["duplicates"]
                    break
                if done[0] not in (429, 503):
                    raise RuntimeError(f"ingest answers {done[0]}: {done[1][:300]!r}")
            except OSError:
                await _closed(writer)
                reader = writer = None
            await asyncio.sleep(0.1)
    told.ingest_s = time.monotonic() - begun
    await _closed(writer)


async def _closed(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _restart(running: Service, sizes: Sizes, told: Told) -> None:
    await asyncio.sleep(sizes.seconds / 2)
    began = time.monotonic()
    stop_s, start_s = await restart(running)
    told.down = (began, time.monotonic())
    say(f"stopped within {stop_s:.1f} s, started within {start_s:.1f} s")


async def _compared(running: Service, sizes: Sizes, told: Told, file: Path) -> Result:
    admin = await connect(running.dsn, name="bench")
    try:
        rows = await admin.fetch("SELECT tenant_id, seq, topic, name FROM hub.stream_events ORDER BY tenant_id, seq")
        waiting = await admin.fetchval("SELECT count(*) FROM hub.stream_outbox")
    finally:
        await admin.close()
    # What was told of anything else, such as the keys, has no time of commit, but may not be missing either.
    wanted = {
        tenant: {row["seq"]: row["name"] for row in rows if row["tenant_id"] == tenant and row["topic"] in TOPICS}
        for tenant in TENANTS
    }
    committed = {name for name in told.at if name in {row["name"] for row in rows}}
    delays: list[float] = []
    calm: list[float] = []
    lost = duplicates = out_of_order = strays = clients = 0
    down, up = told.down
    with file.open("rb") as read:
        while head := read.read(24):
            tenant, began, count = array("q", head)
            seqs, times = array("q"), array("d")
            seqs.fromfile(read, count)
            times.fromfile(read, count)
            expected = wanted[TENANTS[tenant]]
            seen = set(seqs)
            clients += 1
            duplicates += count - len(seen)
            out_of_order += sum(later < former for former, later in itertools.pairwise(seqs))
            lost += sum(seq > began and seq not in seen for seq in expected)
            strays += sum(seq not in expected for seq in seen)
            for seq, at in zip(seqs, times, strict=True):
                since = told.at.get(expected.get(seq, ""))
                if since is not None:
                    delays.append((at - since) * 1000)
                    if not down - 1 <= since <= up + 3:
                        calm.append(delays[-1])
    figures: dict[str, float | None] = {
        "clients": clients,
        "p50_delay_ms": rounded(percentile(delays, 0.5)),
        "p95_delay_ms": rounded(percentile(delays, 0.95)),
        "p99_delay_ms": rounded(percentile(delays, 0.99)),
        "p95_delay_apart_from_restart_ms": rounded(percentile(calm, 0.95)),
        "lost": lost + (len(told.at) - len(committed)) * sizes.clients // len(TENANTS) + waiting,
        "duplicates": duplicates,
        "out_of_order": out_of_order,
        "strays": strays,
        "cut_off": None,
        "deliveries_per_s": rounded(len(delays) / sizes.seconds),
        "ingest_per_s": rounded(told.accepted / told.ingest_s, 4),
    }
    figures["cut_off"] = await _cut_off(running)
    result = Result(figures)
    result.context |= {
        "seconds": sizes.seconds,
        "writers": WRITERS,
        "events_per_second_and_client": EVENTS_PER_S,
        "restart_s": rounded(up - down),
    }
    for bar, kept in (
        (f"{sizes.clients} clients", clients == sizes.clients),
        (f"p95 within {P95_BAR_MS} ms", percentile(delays, 0.95) <= P95_BAR_MS),
        ("none lost", figures["lost"] == 0),
        ("in order, each once, and no others", duplicates + out_of_order + strays == 0),
        ("nobody cut off", figures["cut_off"] == 0),
        (f"{INGEST_PER_S} events/s ingested", told.accepted / told.ingest_s >= INGEST_BAR * INGEST_PER_S),
    ):
        if not kept:
            result.missed.append(bar)
    return result


async def _cut_off(running: Service) -> float:
    """Readers that were cut off since the restart, as the service counts them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    key = running.keys[TENANTS[0]]
    writer.write(
        f"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n".encode()
    )
    text = (await reader.read()).decode()
    await _closed(writer)
    (line,) = [line for line in text.splitlines() if line.startswith('hubscope_stream_ended_total{reason="slow"}')]
    return float(line.split()[-1])
