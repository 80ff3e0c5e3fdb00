"""Numbering of live updates: whatever order transactions commit in, and whoever dies, each reader sees each event once,
in one order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hubscope.journal.stream import QUERIES
from hubscope.store import Connection, connect
from tests.conftest import ROLES

pytestmark = [pytest.mark.store, pytest.mark.realtime, pytest.mark.integration]

WRITERS: Final = 4
HOLDERS: Final = tuple(uuid4() for _ in range(2))
LEASE_MS: Final = 60_000
TELL: Final = "SELECT hub.tell($1, 'metadata', $2, 's', 's', now(), '{}')"
NOBODY: Final = "UPDATE ops.stream_sequencer SET until = '-infinity'"


async def numbered(
    connection: Connection, holder: UUID = HOLDERS[0], *, most: int = 1_000, most_bytes: int = 10_000
) -> int | None:
    moved: int | None = await connection.fetchval(QUERIES["sequence"], holder, LEASE_MS, most, most_bytes)
    return moved


async def logged(connection: Connection, tenant: str, after: int = 0) -> list[tuple[int, str]]:
    rows = await connection.fetch(QUERIES["events_after"], [tenant], [after], 10_000)
    return [(row["seq"], row["name"]) for row in rows]


@asynccontextmanager
async def writing(database: str) -> AsyncIterator[Connection]:
    connection = await connect(database, role=ROLES.writer, name="tests")
    try:
        yield connection
    finally:
        connection.terminate()


@pytest.fixture
async def writer(database: str) -> AsyncIterator[Connection]:
    async with writing(database) as connection:
        yield connection


# Any interleaving


@dataclass(frozen=True)
class Write:
    """A writer tells something, in a transaction that it begins if it has none."""

    writer: int
    tenant: str


@dataclass(frozen=True)
class End:
    """A writer ends its transaction."""

    writer: int
    commit: bool


@dataclass(frozen=True)
class Number:
    """A process numbers, in however small parts; `dies`: before its commit, so that nobody hears of it."""

    holder: int
    most: int
    dies: bool


@dataclass(frozen=True)
class Look:
    """Readers read on; one of a batch, or all there is."""


@dataclass(frozen=True)
class Lapse:
    """The lease of whoever numbers runs out."""


TENANTS: Final = ("a", "b")
STEPS: Final = st.lists(
    st.builds(Write, st.integers(0, WRITERS - 1), st.sampled_from(TENANTS))
    | st.builds(End, st.integers(0, WRITERS - 1), st.booleans() | st.just(True))
    | st.builds(Number, st.integers(0, 1), st.sampled_from([1, 2, 1_000]), st.booleans())
    | st.builds(Look)
    | st.builds(Lapse),
    min_size=1,
    max_size=40,
)


@dataclass
class Stage:
    """Writers, sequencers and a reader of each tenant, over one store."""

    database: str
    admin: Connection
    tenants: dict[str, str]
    stack: AsyncExitStack
    writers: list[Connection] = field(default_factory=list)
    open: dict[int, Any] = field(default_factory=dict)
    pending: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    committed: dict[str, list[str]] = field(default_factory=dict)
    by_writer: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    seen: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    told: int = 0

    async def play(self, step: Any) -> None:
        match step:
            case Write(number, tenant):
                connection = self.writers[number]
                if number not in self.open:
                    self.open[number] = connection.transaction()
                    await self.open[number].start()
                self.told += 1
                name = f"event {self.told}"
                await connection.execute(TELL, self.tenants[tenant], name)
                self.pending.setdefault(number, []).append((tenant, name))
            case End(number, commit) if number in self.open:
                transaction, told = self.open.pop(number), self.pending.pop(number, [])
                if not commit:
                    await transaction.rollback()
                    return
                await transaction.commit()
                for tenant, name in told:
                    self.committed.setdefault(tenant, []).append(name)
                    self.by_writer.setdefault((number, tenant), []).append(name)
            case Number(holder, most, dies):
                async with writing(self.database) as connection:
                    transaction = connection.transaction()
                    await transaction.start()
                    await numbered(connection, HOLDERS[holder], most=most)
                    if dies:
                        pid = connection.get_server_pid()
                        await self.admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)
                    else:
                        await transaction.commit()
            case Look():
                await self.look()
            case Lapse():
                await self.admin.execute(NOBODY)

    async def look(self) -> None:
        for tenant, name in self.tenants.items():
            seen = self.seen.setdefault(tenant, [])
            seen += await logged(self.admin, name, seen[-1][0] if seen else 0)

    async def finish(self) -> None:
        for number in list(self.open):
            await self.play(End(number, True))
        await self.admin.execute(NOBODY)
        while await numbered(self.admin):
            pass
        await self.look()

    def check(self) -> None:
        for tenant in self.tenants:
            seen = self.seen[tenant]
            names = [name for _, name in seen]
            assert [seq for seq, _ in seen] == list(range(1, len(seen) + 1))
            assert sorted(names) == sorted(self.committed.get(tenant, []))
            for (_, of), wrote in self.by_writer.items():
                if of == tenant:
                    assert [name for name in names if name in set(wrote)] == wrote


def on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    asyncio.run_coroutine_threadsafe(work, loop).result(60)


async def holds(proof: Callable[[], None]) -> None:
    """Run a property in a thread; its examples run on this loop."""
    await asyncio.to_thread(proof)


async def test_whatever_commits_in_whatever_order_is_seen_once_and_in_one_order(
    database: str, admin: Connection
) -> None:
    loop = asyncio.get_running_loop()

    async def play(steps: Sequence[Any]) -> None:
        async with AsyncExitStack() as stack:
            tenants = {name: f"{name}-{uuid4().hex[:12]}" for name in TENANTS}
            stage = Stage(database, admin, tenants, stack)
            stage.writers = [await stack.enter_async_context(writing(database)) for _ in range(WRITERS)]
            for step in steps:
                await stage.play(step)
            await stage.finish()
            stage.check()

    @examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(STEPS)
    def prove(steps: list[Any]) -> None:
        on(loop, play(steps))

    await holds(prove)


async def test_many_writers_and_two_sequencers_at_once_leave_no_gap(database: str, admin: Connection) -> None:
    """The same for real concurrency: eight writers commit as they like while two processes fight for the numbers and a
    reader reads on."""
    stop = asyncio.Event()
    seen: list[tuple[int, str]] = []

    async def write(number: int) -> list[str]:
        told = []
        async with writing(database) as connection:
            for turn in range(40):
                names = [f"{number} {turn} {part}" for part in range(1 + turn % 3)]
                transaction = connection.transaction()
                await transaction.start()
                for name in names:
                    await connection.execute(TELL, "t", name)
                if turn % 7 == 3:
                    await transaction.rollback()
                else:
                    await transaction.commit()
                    told += names
        return told

    async def number(holder: UUID) -> None:
        async with writing(database) as connection:
            while not stop.is_set():
                await connection.fetchval(QUERIES["sequence"], holder, 1, 7, 10_000)  # a lease of a millisecond
                await asyncio.sleep(0)

    async def read() -> None:
        async with writing(database) as connection:
            while not stop.is_set():
                seen.extend(await logged(connection, "t", seen[-1][0] if seen else 0))

    others = [asyncio.create_task(each) for each in (number(HOLDERS[0]), number(HOLDERS[1]), read())]
    told = await asyncio.gather(*(write(each) for each in range(8)))
    stop.set()
    await asyncio.gather(*others)
    await admin.execute(NOBODY)
    await numbered(admin)
    seen += await logged(admin, "t", seen[-1][0] if seen else 0)
    assert [seq for seq, _ in seen] == list(range(1, sum(map(len, told)) + 1))
    for mine in told:
        assert [name for _, name in seen if name in set(mine)] == mine


# One at a time


async def test_one_process_numbers_and_the_others_wait_for_the_end_of_its_lease(
    writer: Connection, admin: Connection
) -> None:
    await writer.execute(TELL, "t", "one")
    assert await numbered(writer, HOLDERS[0]) == 1
    await writer.execute(TELL, "t", "two")
    assert await numbered(writer, HOLDERS[1]) is None
    await admin.execute(NOBODY)
    assert await numbered(writer, HOLDERS[1]) == 1
    assert await numbered(writer, HOLDERS[0]) is None
    await writer.execute(QUERIES["release"], HOLDERS[0])  # not its own any more
    assert await numbered(writer, HOLDERS[0]) is None
    await writer.execute(QUERIES["release"], HOLDERS[1])
    assert await numbered(writer, HOLDERS[0]) == 0


async def test_a_process_that_hangs_in_its_transaction_holds_nobody_up(database: str, writer: Connection) -> None:
    async with writing(database) as hanging:
        await hanging.execute("BEGIN")
        await numbered(hanging, HOLDERS[0])
        async with asyncio.timeout(20):
            assert await numbered(writer, HOLDERS[1]) is None


async def test_looking_at_an_empty_outbox_writes_nothing(writer: Connection) -> None:
    await numbered(writer)
    async with writer.transaction():
        assert await numbered(writer) == 0
        assert await writer.fetchval("SELECT pg_current_xact_id_if_assigned()") is None


# The log


async def test_the_log_is_bounded_by_age_and_by_rows_of_each_tenant(writer: Connection, admin: Connection) -> None:
    for tenant, count in (("busy", 10), ("quiet", 3)):
        for number in range(count):
            await writer.execute(TELL, tenant, str(number))
    await numbered(writer)
    await writer.execute(QUERIES["prune"], 4, 1)
    assert await logged(admin, "busy") == [(7, "6"), (8, "7"), (9, "8"), (10, "9")]
    assert len(await logged(admin, "quiet")) == 3
    await admin.execute("UPDATE hub.stream_events SET numbered_at = now() - $1::interval", timedelta(hours=2))
    await writer.execute(TELL, "quiet", "fresh")
    await numbered(writer)
    await writer.execute(QUERIES["prune"], 4, 1)
    assert await logged(admin, "busy") == []
    assert await logged(admin, "quiet") == [(4, "fresh")]
    heads = await admin.fetch("SELECT tenant_id, first_seq, last_seq FROM hub.stream_heads ORDER BY 1")
    assert [tuple(row) for row in heads] == [("busy", 11, 10), ("quiet", 4, 4)]
    await writer.execute(TELL, "busy", "again")
    await numbered(writer)
    assert await logged(admin, "busy") == [(11, "again")]


async def test_a_payload_that_is_too_large_is_left_out_and_said_so(writer: Connection, admin: Connection) -> None:
    large = json.dumps({"text": "x" * 500})
    await writer.execute("SELECT hub.tell('t', 'audit', 'n', 's', NULL, now(), $1)", large)
    await numbered(writer, most_bytes=300)
    payload = json.loads(await admin.fetchval("SELECT payload FROM hub.stream_events"))
    assert payload == {"truncated": True, "bytes": len(large)}


async def test_a_topic_that_there_is_not_cannot_be_told(writer: Connection) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await writer.execute("SELECT hub.tell('t', 'gossip', 'n', 's', NULL, now(), '{}')")
