"""Two replicas as processes over one store: whoever dies, each reader sees each event once, in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from hubscope.store import Connection
from tests.chain_peers import ROOT
from tests.conftest import ROLE_PREFIX
from tests.integration.entrypoints.test_stream import begun, tell, told
from tests.sse import reading

pytestmark = [pytest.mark.realtime, pytest.mark.integration]

LEASE_MS: Final = 1_000
HOLDER: Final = "SELECT holder::text FROM ops.stream_sequencer WHERE until > clock_timestamp()"


@dataclass
class Replica:
    process: asyncio.subprocess.Process
    port: int

    async def die(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def replica(database: str, folder: Path) -> AsyncIterator[Replica]:
    environment = os.environ | {
        "HUBSCOPE_DATABASE_URL": database,
        "HUBSCOPE_ROLE_PREFIX": ROLE_PREFIX,
        "HUBSCOPE_STREAM_INTERVAL": "20",
        "HUBSCOPE_STREAM_LEASE": str(LEASE_MS),
        "HUBSCOPE_SQL_IN_SERVICE": "false",
        "HUBSCOPE_DATA_DIR": str(folder),
        "PYTHONPATH": f"{ROOT}/service:{ROOT}",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chain_replica", stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            url = (await process.stdout.readline()).decode().strip()
        yield Replica(process, urlsplit(url).port or 0)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def holder(admin: Connection, other_than: str | None = None) -> str:
    """Who numbers now."""
    async with asyncio.timeout(20):
        while (found := await admin.fetchval(HOLDER)) is None or found == other_than:  # noqa: ASYNC110 (it is in the database)
            await asyncio.sleep(0.02)
    assert isinstance(found, str)
    return found


async def test_another_replica_goes_on_when_the_one_that_numbers_is_killed(
    database: str, admin: Connection, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(replica(database, tmp_path))
        before = await holder(admin)
        second = await stack.enter_async_context(replica(database, tmp_path))
        doomed = await stack.enter_async_context(reading(first.port))
        other = await stack.enter_async_context(reading(second.port))
        for reader in (doomed, other):
            await begun(reader)
        for number in range(5):
            await tell(admin, str(number))
        assert await told(doomed, 5) == await told(other, 5) == list("01234")
        assert await holder(admin) == before
        await first.die()
        for number in range(5, 10):
            await tell(admin, str(number))
        assert await told(other, 5) == list("56789")
        assert await holder(admin) != before
        async with reading(second.port, after=doomed.last_id) as again:  # where the load balancer sends it
            assert (await begun(again)).id == 5
            assert await told(again, 5) == list("56789")


async def test_a_replica_that_is_stopped_lets_go_at_once(database: str, admin: Connection, tmp_path: Path) -> None:
    async with replica(database, tmp_path) as one:
        await holder(admin)
        one.process.terminate()
        await one.process.wait()
        assert await admin.fetchval(HOLDER) is None


async def test_readers_who_come_back_through_deaths_of_replicas_miss_nothing(
    database: str, admin: Connection, tmp_path: Path
) -> None:
    """Writers that overlap tell all the while, the replica that numbers is killed three times, readers go wherever one
    listens."""
    written, done = asyncio.Event(), asyncio.Event()
    ports: list[int] = []
    total = 0

    async def write() -> None:
        nonlocal total
        while not written.is_set():
            async with admin.transaction():
                for _ in range(3):
                    await tell(admin, str(total))
                    total += 1
            await asyncio.sleep(0.005)

    async def read(number: int, seen: list[tuple[int, str]]) -> None:
        last: int | None = 0
        while not (done.is_set() and len(seen) == total):
            try:
                async with reading(ports[number % len(ports)], after=last) as reader:
                    await begun(reader)
                    while not (done.is_set() and len(seen) == total):
                        (event,) = await reader.events(1)
                        seen.append((event.id or 0, event.data["name"]))
                        last = event.id
            except (OSError, asyncio.IncompleteReadError, AssertionError, KeyError):
                await asyncio.sleep(0.05)
            number += 1

    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(replica(database, tmp_path)) for _ in range(2)]
        ports += [one.port for one in running]
        seen: list[list[tuple[int, str]]] = [[] for _ in range(4)]
        writing = asyncio.create_task(write())
        readers = [asyncio.create_task(read(number, each)) for number, each in enumerate(seen)]
        for turn in range(3):
            await asyncio.sleep(0.5)
            one = running[turn % 2]
            await one.die()
            running[turn % 2] = fresh = await stack.enter_async_context(replica(database, tmp_path))
            ports[turn % 2] = fresh.port
        written.set()
        await writing
        total += 1
        done.set()
        await tell(admin, str(total - 1))  # so that each has something to read, and can see that it is over
        async with asyncio.timeout(60):
            await asyncio.gather(*readers)
    for each in seen:
        assert each == [(number + 1, str(number)) for number in range(total)]
