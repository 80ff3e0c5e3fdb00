"""The one promise of the rollups: at any instant they equal a recount of raw. And what a latency bucket is."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hubscope.access import LOCAL, Principal
from hubscope.ingest import Ingest
from hubscope.instruments import Instruments
from hubscope.model import CALL_STATUSES, Receipt
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from hubscope.store.pack import pack
from hubscope.store.recount import recount
from hubscope.store.retention import Horizons, retain
from tests.conftest import ROLES
from tests.events import server_event, tool_call

pytestmark = [pytest.mark.store, pytest.mark.realtime]

T = TypeVar("T")
EDGES: Final = [0.1 * 2 ** (step / 8) for step in range(181)]
LARGEST_ERROR: Final = (2 ** (1 / 8) - 1) / (2 ** (1 / 8) + 1)
MIDNIGHT: Final = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

CALLS_OF_RAW: Final = """
SELECT
    tenant_id, date_trunc('{unit}', time, 'UTC'), hub, server, tool, transport, client,
    count(*),
    count(*) FILTER (WHERE status = 'ok'),
    count(*) FILTER (WHERE status = 'error'),
    count(*) FILTER (WHERE status = 'timeout'),
    count(*) FILTER (WHERE status = 'cancelled'),
    count(*) FILTER (WHERE status = 'denied'),
    count(duration_ms),
    coalesce(sum(round(duration_ms * 1000)::bigint), 0)::bigint,
    coalesce(max(round(duration_ms * 1000)::bigint), 0),
    coalesce(sum(request_bytes), 0)::bigint,
    coalesce(sum(response_bytes), 0)::bigint,
    max(time)
FROM raw.tool_calls
WHERE counted AND tenant_id = ANY($1) AND time >= $2
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
LATENCY_OF_RAW: Final = """
SELECT
    tenant_id, date_trunc('{unit}', time, 'UTC'), hub, server, tool, rollup.latency_bucket(duration_ms),
    count(*),
    max(round(duration_ms * 1000)::bigint)
FROM raw.tool_calls
WHERE counted AND tenant_id = ANY($1) AND time >= $2 AND duration_ms IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6
"""
CHECKS_OF_RAW: Final = """
SELECT
    tenant_id, date_trunc('hour', time, 'UTC'), hub, server, source,
    count(*),
    count(*) FILTER (WHERE state = 'up'),
    count(*) FILTER (WHERE state = 'degraded'),
    count(*) FILTER (WHERE state = 'down'),
    count(*) FILTER (WHERE state = 'maintenance'),
    count(*) FILTER (WHERE state = 'unknown'),
    count(latency_ms),
    coalesce(sum(round(latency_ms * 1000)::bigint), 0)::bigint,
    coalesce(max(round(latency_ms * 1000)::bigint), 0),
    max(time)
FROM raw.server_events
WHERE tenant_id = ANY($1) AND time >= $2
GROUP BY 1, 2, 3, 4, 5
"""
RECOUNTS: Final = {
    "tool_calls_hourly": CALLS_OF_RAW.format(unit="hour"),
    "tool_calls_daily": CALLS_OF_RAW.format(unit="day"),
    "tool_latency_hourly": LATENCY_OF_RAW.format(unit="hour"),
    "tool_latency_daily": LATENCY_OF_RAW.format(unit="day"),
    "server_checks_hourly": CHECKS_OF_RAW,
}


def unit_of(relation: str) -> str:
    return "day" if relation.endswith("_daily") else "hour"


DIFFERENCES: Final = " UNION ALL ".join(
    f"SELECT '{name}', side, row FROM ("
    f"SELECT 'too much' AS side, to_jsonb(t) AS row FROM ({ours} EXCEPT ALL ({recount})) AS t UNION ALL"
    f" SELECT 'missing', to_jsonb(t) FROM (({recount}) EXCEPT ALL {ours}) AS t) AS sides"
    for name, recount in RECOUNTS.items()
    for ours in [f"SELECT * FROM rollup.{name} WHERE tenant_id = ANY($1) AND {unit_of(name)} >= $2"]
)
"""Where the rollups and a recount differ from a midnight ($2) on; in one statement, so of one instant."""
OLDER: Final = " UNION ALL ".join(
    f"SELECT '{name}', to_jsonb(t)::text FROM rollup.{name} AS t WHERE tenant_id = ANY($1) AND {unit_of(name)} < $2"
    for name in RECOUNTS
)
SEQUENCES: Final = 200
HALVES: Final = 2
"""The sequences are played in so many tests, which run side by side on databases of their own."""
BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)


class Store:
    """Writers, folders and a checker over one database."""

    def __init__(self, ingest: Ingest, folders: Sequence[Connection], checker: Connection) -> None:
        self._ingest = ingest
        self._folders = itertools.cycle([(folder, asyncio.Lock()) for folder in folders])
        self._checker, self._checking = checker, asyncio.Lock()
        self.raw_since = BEGINNING
        """From when on raw is whole; what the rollups say of the time before may not change."""
        self._older: list[tuple[Any, ...]] = []

    async def post(self, tenant: str, *events: dict[str, Any]) -> Receipt:
        principal = Principal(tenant=tenant, scopes=LOCAL.scopes)
        return await self._ingest.post(principal, json.dumps(events).encode(), "application/json")

    async def fold(self, max_batches: int | None = 2_000) -> int:
        folder, free = next(self._folders)
        async with free:
            moved: int = await folder.fetchval("SELECT rollup.fold($1)", max_batches)
        return moved

    async def check(self, *tenants: str) -> None:
        """Fail unless the rollups equal a recount now, and say of the time before raw what they said.

        The instant is fixed before the question is planned: a plan would not know of a partition that is made between
        the two, while its rows were there to be counted by whoever reads it by name.
        """
        async with self._checking, self._checker.transaction(isolation="repeatable_read", readonly=True):
            await self._checker.execute("SELECT 1")
            wrong = await self._checker.fetch(DIFFERENCES, tenants, self.raw_since)
            older = await self._checker.fetch(OLDER, tenants, self.raw_since)
        assert [tuple(row) for row in wrong] == []
        assert sorted(tuple(row) for row in older) == self._older

    async def raw_is_gone(self, tenants: Sequence[str], since: datetime) -> None:
        """Remember what the rollups say of the time before."""
        async with self._checking:
            self._older = sorted(tuple(row) for row in await self._checker.fetch(OLDER, tenants, since))
        self.raw_since = since

    def raw_is_whole(self) -> None:
        """Begin anew."""
        self.raw_since, self._older = BEGINNING, []

    async def fetch(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        async with self._checking:
            return [tuple(row) for row in await self._checker.fetch(query, *args)]


@pytest.fixture
async def store(database: str, settings: Settings) -> AsyncIterator[Store]:
    async def open_writer() -> Connection:
        return await connect(database, role=ROLES.writer, name="writer")

    ingest = Ingest(open_writer, settings.model_copy(update={"writers": 3, "commit_max_events": 15}), Instruments())
    await ingest.start()
    workers = [await connect(database, role=ROLES.worker, name="tests") for _ in range(3)]
    yield Store(ingest, workers[:2], workers[2])
    await ingest.close()
    for worker in workers:
        await worker.close()


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Connection]:
    """A connection under the owner role, which retains and recounts."""
    connection = await connect(database, role=ROLES.owner, name="tests")
    yield connection
    await connection.close()


async def holds(prove: Callable[[], None]) -> None:
    """Run a property test beside the event loop that its examples run on (see `on`)."""
    await asyncio.to_thread(prove)


def on(loop: asyncio.AbstractEventLoop, example: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(example, loop).result(60)


# The promise

PLACES = st.fixed_dictionaries(
    {
        "server": st.sampled_from(["files", "web"]),
        "tool": st.sampled_from(["read", "write"]),
        "hub": st.sampled_from(["", "north"]),
        "client": st.sampled_from(["", "desk"]),
        "transport": st.sampled_from(["", "stdio", "http"]),
    }
)
TIMES = st.builds(
    lambda days, hours, after, zone: (MIDNIGHT - timedelta(days=days, hours=hours) + after).astimezone(zone),
    st.sampled_from([0, 0, 1, 5]),
    st.integers(0, 2),
    st.sampled_from([timedelta(0), timedelta(microseconds=-1), timedelta(microseconds=1), timedelta(minutes=-30)]),
    st.sampled_from([UTC, UTC, timezone(timedelta(hours=5, minutes=45))]),
)
DURATIONS = st.one_of(
    st.none(),
    st.sampled_from([0, 0.1, 12.8, EDGES[77], EDGES[-1], 1e9, 0.0005, 2.0005]),
    st.floats(0, 1e6),
)
CALLS = st.builds(
    lambda number, time, status, duration, sizes, vantage, place: tool_call(
        event_id=str(UUID(int=number)),
        time=time.isoformat(),
        status=status,
        duration_ms=duration,
        request_bytes=sizes[0],
        response_bytes=sizes[1],
        vantage=vantage,
        **place,
    ),
    st.integers(1, 12),  # few ids and few times: duplicates are common, and so is another content under the same id
    TIMES,
    st.sampled_from(CALL_STATUSES),
    DURATIONS,
    st.tuples(st.none() | st.integers(0, 2**40), st.none() | st.integers(0, 2**40)),
    st.sampled_from(["hub", "hub", "server", "client"]),  # one of them counts, the others are in raw alone
    PLACES,
)
CHECKS = st.builds(
    lambda number, time, latency, more: server_event(
        event_id=str(UUID(int=number)), time=time.isoformat(), latency_ms=latency, **more
    ),
    st.integers(1, 12),
    TIMES,
    DURATIONS,
    st.fixed_dictionaries(
        {
            "server": st.sampled_from(["files", "web"]),
            "hub": st.sampled_from(["", "north"]),
            "source": st.sampled_from(["probe", "connection"]),
            "state": st.sampled_from(["up", "degraded", "down", "maintenance", "unknown"]),
        }
    ),
)


@dataclass(frozen=True)
class Post:
    tenant: int
    events: list[dict[str, Any]]


@dataclass(frozen=True)
class Fold:
    max_batches: int


@dataclass(frozen=True)
class Retain:
    """Take what is older than three days out of raw."""


@dataclass(frozen=True)
class Pack:
    """Pack the latency of all days before today."""


@dataclass(frozen=True)
class Recount:
    """The nightly check; there is never anything to repair."""


def still_accepted(post: Post, since: datetime) -> list[dict[str, Any]]:
    """The events of a post that ingest would take: none from before raw."""
    return [event for event in post.events if datetime.fromisoformat(event["time"]) >= since]


POSTS = st.builds(Post, st.integers(0, 1), st.lists(CALLS | CALLS | CHECKS, min_size=1, max_size=25))
FOLDS = st.builds(Fold, st.sampled_from([1, 2, 2_000]))
KEPT: Final = (
    "SELECT count(*) FROM (SELECT tenant_id FROM raw.tool_calls UNION ALL SELECT tenant_id FROM raw.server_events)"
    " AS stored WHERE tenant_id = ANY($1)"
)
STEPS = st.lists(
    st.lists(POSTS | FOLDS | st.builds(Retain) | st.builds(Recount) | st.builds(Pack), min_size=1, max_size=1)
    | st.lists(POSTS | FOLDS | st.builds(Recount) | st.builds(Pack), min_size=2, max_size=5),
    min_size=1,
    max_size=8,
)
"""What happens one after the other; in each step one thing, or several at once."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("half", range(HALVES))
async def test_the_rollups_equal_a_recount_of_raw_after_every_step(half: int, store: Store, owner: Connection) -> None:
    loop = asyncio.get_running_loop()
    numbers = itertools.count()
    wanted = Horizons(MIDNIGHT - timedelta(days=3), BEGINNING, BEGINNING, None)
    alone = asyncio.Lock()

    async def retain_now(tenants: list[str]) -> None:
        await store.raw_is_gone(tenants, wanted.raw)
        await retain(owner, "postgres", wanted)

    async def pack_now() -> None:
        async with alone:
            await pack(owner, Settings.load(pack_after_days=1), datetime.now(UTC))

    async def recount_now() -> None:
        async with alone:
            assert (await recount(owner, wanted, datetime.now(UTC)))[1] == []

    async def play(steps: list[list[Post | Fold | Retain | Recount | Pack]]) -> None:
        number = next(numbers)
        tenants = [f"north {number}", f"south {number}"]
        accepted = sent = asked = gone = 0
        store.raw_is_whole()
        for step in steps:
            events = [
                (tenants[one.tenant], still_accepted(one, store.raw_since)) for one in step if isinstance(one, Post)
            ]
            posts = [store.post(tenant, *some) for tenant, some in events if some]
            asked += sum(len(some) for _, some in events)
            folds = [store.fold(one.max_batches) for one in step if isinstance(one, Fold)]
            looks = [store.check(*tenants)] if len(step) > 1 else []
            recounts = [recount_now() for one in step if isinstance(one, Recount)]
            recounts += [pack_now() for one in step if isinstance(one, Pack)]
            if any(isinstance(one, Retain) for one in step):
                before = await store.fetch(KEPT, tenants)
                await retain_now(tenants)
                gone += before[0][0] - (await store.fetch(KEPT, tenants))[0][0]
            receipts, _, _, _ = await asyncio.gather(
                asyncio.gather(*posts), asyncio.gather(*folds), asyncio.gather(*looks), asyncio.gather(*recounts)
            )
            assert all(receipt.rejected == [] for receipt in receipts)
            accepted += sum(receipt.accepted for receipt in receipts)
            sent += sum(receipt.accepted + receipt.duplicates for receipt in receipts)
            await store.check(*tenants)
        assert sent == asked
        assert await store.fetch(KEPT, tenants) == [(accepted - gone,)]
        while await store.fold():
            pass
        await store.check(*tenants)
        assert await store.fetch("SELECT 1 FROM rollup.pending WHERE tenant_id = ANY($1)", tenants) == []

    @examples(max_examples=SEQUENCES // HALVES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(STEPS)
    def prove(steps: list[list[Post | Fold | Retain | Recount | Pack]]) -> None:
        on(loop, play(steps))

    await holds(prove)


READ: Final = """
SELECT relname, seq_scan + idx_scan > 0 AS scanned, seq_tup_read, idx_tup_fetch
FROM pg_stat_xact_user_tables
WHERE schemaname = 'raw' AND relname LIKE 'tool_calls_p%' AND (seq_scan > 0 OR idx_scan > 0)
"""
LOCKED: Final = """
SELECT class.relname
FROM pg_locks INNER JOIN pg_class AS class ON class.oid = pg_locks.relation
WHERE pid = pg_backend_pid() AND class.relnamespace = 'raw'::regnamespace AND class.relkind IN ('r', 'p')
"""


async def test_of_raw_only_what_is_pending_in_the_hours_asked_for_is_read_and_only_that_partition_is_locked(
    store: Store, admin: Connection, database: str
) -> None:
    yesterday = MIDNIGHT - timedelta(hours=1)
    await admin.execute("SELECT ops.ensure_partitions(current_date - 60, current_date + 1)")
    await store.post("default", tool_call(time=MIDNIGHT.isoformat()))
    await admin.execute("ANALYZE raw.tool_calls")  # statistics of a nearly empty partition
    for _ in range(30):
        await store.post("default", *(tool_call(time=MIDNIGHT.isoformat(), duration_ms=1) for _ in range(15)))
    while await store.fold():
        pass
    for count in (3, 2):
        await store.post("default", *(tool_call(time=MIDNIGHT.isoformat(), duration_ms=1) for _ in range(count)))
    await store.post("default", tool_call(time=yesterday.isoformat()))
    partition = f"tool_calls_p{MIDNIGHT:%Y%m%d}"
    reader = await connect(database, role=ROLES.reader, name="tests")
    try:
        async with reader.transaction():
            calls = await reader.fetchval(
                "SELECT sum(calls) FROM analytics.fct_tool_usage_hourly WHERE tenant_id = 'default' AND hour >= $1",
                MIDNIGHT,
            )
            assert calls == 1 + 30 * 15 + 3 + 2
            assert [row["relname"] for row in await reader.fetch(LOCKED)] == [partition]
            assert [tuple(row) for row in await reader.fetch(READ)] == [(partition, True, 0, 3 + 2)]
    finally:
        await reader.close()


async def test_a_fold_reads_of_raw_only_what_it_takes_however_much_waits(store: Store, admin: Connection) -> None:
    await store.post("default", tool_call(time=MIDNIGHT.isoformat()))
    await admin.execute("ANALYZE raw.tool_calls")
    for _ in range(30):
        await store.post("default", *(tool_call(time=MIDNIGHT.isoformat(), duration_ms=1) for _ in range(10)))
    assert await store.fold(1) == 1
    async with admin.transaction():
        assert await admin.fetchval("SELECT rollup.fold(2)") == 2
        # Once for calls, once for latency.
        assert [tuple(row)[2:] for row in await admin.fetch(READ)] == [(0, 2 * 2 * 10)]


async def test_a_packed_day_takes_less_room_and_says_the_same(store: Store, owner: Connection) -> None:
    dice = random.Random(5)
    days = [MIDNIGHT - timedelta(days=age) for age in (0, 1, 2, 4)]
    for day in days:
        for _ in range(4):
            calls = [tool_call(time=day.isoformat(), duration_ms=dice.lognormvariate(3, 2)) for _ in range(200)]
            await store.post("default", *calls)
    while await store.fold():
        pass

    async def stored() -> list[tuple[Any, ...]]:
        return await store.fetch("SELECT day FROM rollup.stored_tool_latency_daily GROUP BY day ORDER BY day DESC")

    async def packed() -> list[tuple[Any, ...]]:
        return await store.fetch("SELECT day FROM rollup.packed_tool_latency_daily GROUP BY day ORDER BY day DESC")

    size = "SELECT coalesce(sum(pg_column_size(t.*)), 0)::int FROM rollup.{}_tool_latency_daily AS t WHERE day < $1"
    ((before,),) = await store.fetch(size.format("stored"), days[1])
    default, now = Settings.load(), datetime.now(UTC)
    assert default.pack_after_days == 2
    assert await pack(owner, default.model_copy(update={"pack_after_days": 0}), now) == 0
    moved = await pack(owner, default, now)
    assert moved > 50
    assert await pack(owner, default, now) == 0
    assert (await packed(), await stored()) == ([(days[3],)], [(day,) for day in days[:3]])
    ((after,),) = await store.fetch(size.format("packed"), days[1])
    ((left,),) = await store.fetch(size.format("stored"), days[1])
    assert after < (before - left) / 3
    await store.check("default")
    # A late event unpacks its day; another night packs it again.
    await store.post("default", tool_call(time=days[3].isoformat(), duration_ms=77.0))
    await store.check("default")
    await store.fold()
    assert await packed() == []
    await store.check("default")
    assert await pack(owner, default, now) >= moved
    await store.check("default")


async def test_two_folders_and_many_writers_at_once_lose_nothing(store: Store) -> None:
    dice = random.Random(4)
    known = [
        tool_call(
            server=f"server {dice.randrange(3)}",
            time=(MIDNIGHT - timedelta(minutes=dice.randrange(180))).isoformat(),
            duration_ms=dice.lognormvariate(3, 2),
        )
        for _ in range(200)
    ]
    writing = asyncio.Event()

    async def write() -> int:
        receipts = [await store.post("default", *dice.sample(known, 10)) for _ in range(25)]
        return sum(receipt.accepted for receipt in receipts)

    async def keep(what: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
        done = []
        while not writing.is_set():
            done.append(await what())
        return done

    others = [asyncio.create_task(keep(what)) for what in (store.fold, store.fold, lambda: store.check("default"))]
    accepted = sum(await asyncio.gather(*(write() for _ in range(4))))
    writing.set()
    first, second, checks = await asyncio.gather(*others)
    [(kept,)] = await store.fetch("SELECT count(*) FROM raw.tool_calls")
    assert 150 < accepted == kept <= len(known)
    assert checks
    assert sum(first) + sum(second) > 0
    await store.fold()
    assert await store.fetch("SELECT 1 FROM rollup.pending") == []
    await store.check("default")
    assert await store.fetch("SELECT sum(calls) FROM rollup.stored_tool_calls_hourly") == [(accepted,)]


# The fold


@asynccontextmanager
async def folding(store: Store) -> AsyncIterator[int]:
    """A fold that has done its work and is not committed yet; how many batches it moved."""
    folder, free = next(store._folders)
    async with free, folder.transaction():
        yield await folder.fetchval("SELECT rollup.fold()")


async def test_a_fold_moves_no_more_batches_than_it_is_asked_to(store: Store) -> None:
    for _ in range(3):
        await store.post("default", tool_call())
    assert [await store.fold(2), await store.fold(2), await store.fold(2)] == [2, 1, 0]
    await store.check("default")


async def test_a_fold_beside_another_one_does_nothing_and_readers_see_each_call_once(store: Store) -> None:
    await store.post("default", tool_call(), tool_call())
    async with folding(store) as moved:
        assert moved == 1
        assert await store.fold() == 0
        await store.check("default")
        await store.post("default", tool_call())
        await store.check("default")
    await store.check("default")
    assert await store.fold() == 1
    await store.check("default")


async def test_a_fold_that_is_rolled_back_loses_nothing(store: Store) -> None:
    await store.post("default", tool_call())

    async def fail() -> None:
        async with folding(store):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await fail()
    await store.check("default")
    assert await store.fetch("SELECT 1 FROM rollup.stored_tool_calls_hourly") == []
    assert await store.fetch("SELECT 1 FROM ops.touched_hours") == []
    assert await store.fold() == 1
    await store.check("default")


async def test_the_hours_that_a_fold_touched_are_noted_each_time(store: Store) -> None:
    def at(hours: int) -> dict[str, Any]:
        return tool_call(time=(MIDNIGHT - timedelta(hours=hours)).isoformat())

    noted = "SELECT tenant_id, (extract(epoch FROM $1 - hour) / 3600)::int FROM ops.touched_hours ORDER BY 1, 2"
    await store.post("a", at(0), at(0), at(5))
    await store.post("b", at(5))
    assert await store.fetch(noted, MIDNIGHT) == []
    async with folding(store):
        pass
    assert await store.fetch(noted, MIDNIGHT) == [("a", 0), ("a", 5), ("b", 5)]
    await store.post("a", at(5))
    assert await store.fold() == 1
    assert await store.fetch(noted, MIDNIGHT) == [("a", 0), ("a", 5), ("a", 5), ("b", 5)]
    assert await store.fold() == 0
    [(folds,)] = await store.fetch("SELECT count(DISTINCT xid) FROM ops.touched_hours")
    assert folds == 2


# Latency buckets


async def test_an_end_belongs_to_its_bucket_and_nothing_above_it_does(reader: Connection) -> None:
    [edges] = await reader.fetchrow("SELECT rollup.latency_edges()")
    assert edges == pytest.approx(EDGES, rel=1e-15)
    assert edges[::8] == [0.1 * 2**power for power in range(23)]
    around = [near for edge in edges for near in (math.nextafter(edge, 0), edge, math.nextafter(edge, math.inf))]
    buckets = await reader.fetchval(
        "SELECT array_agg(rollup.latency_bucket(ms) ORDER BY place) FROM unnest($1::float8[]) WITH ORDINALITY AS t (ms,"
        " place)",
        around,
    )
    assert buckets == [bucket for step in range(181) for bucket in (step, step, step + 1)]
    assert buckets == [bisect_left(edges, ms) for ms in around]


async def test_the_bucket_of_a_duration(reader: Connection) -> None:
    expected = {
        None: None,
        -0.0: 0,
        5e-324: 0,
        0.1: 0,
        0.2: 8,
        102.4: 80,
        593_164.1601515723: 180,
        600_000.0: 181,
        1e12: 181,
        math.inf: 181,
    }
    found = await reader.fetch("SELECT ms, rollup.latency_bucket(ms) FROM unnest($1::float8[]) AS ms", [*expected])
    assert dict(map(tuple, found)) == expected


async def test_buckets_follow_the_formula(reader: Connection) -> None:
    loop = asyncio.get_running_loop()
    edges = await reader.fetchval("SELECT rollup.latency_edges()")

    async def compare(durations: list[float]) -> None:
        counted = await reader.fetchval(
            "SELECT array_agg(rollup.latency_bucket(ms) ORDER BY place) FROM unnest($1::float8[]) WITH ORDINALITY AS t"
            " (ms, place)",
            durations,
        )
        assert counted == [bisect_left(edges, ms) for ms in durations]
        for ms, bucket in zip(durations, counted, strict=True):
            exact = math.log(ms / 0.1) / math.log(2 ** (1 / 8))
            if abs(exact - round(exact)) > 1e-9:
                assert bucket == min(max(math.ceil(exact), 0), 181)

    @examples(deadline=None)
    @given(
        st.lists(
            st.floats(1e-6, 1e9) | st.floats(-4, 20).map(math.exp) | st.sampled_from(EDGES), min_size=1, max_size=50
        )
    )
    def prove(durations: list[float]) -> None:
        on(loop, compare(durations))

    await holds(prove)


PERCENTILE: Final = """
WITH durations AS (SELECT unnest($1::float8[]) AS ms),
buckets AS (SELECT rollup.latency_bucket(ms) AS bucket, count(*)::numeric AS calls FROM durations GROUP BY 1)
SELECT
    (SELECT rollup.latency_percentile(array_agg(bucket), array_agg(calls), $2, $3) FROM buckets),
    (SELECT rollup.latency_percentile(array_agg(rollup.latency_bucket(ms)), array_agg(1::numeric), $2, $3)
     FROM durations),
    (SELECT percentile_disc($2) WITHIN GROUP (ORDER BY ms) FROM durations)
"""


async def test_a_percentile_is_within_4_4_percent_of_the_exact_one(reader: Connection) -> None:
    loop = asyncio.get_running_loop()

    async def compare(durations: list[float], q: float) -> None:
        from_buckets, from_single_calls, exact = await reader.fetchrow(PERCENTILE, durations, q, max(durations))
        assert from_buckets == from_single_calls  # the same bucket twice, as from two hours, adds up
        assert from_buckets <= max(durations)
        if exact <= EDGES[0]:
            assert from_buckets == min(EDGES[0], max(durations))
        elif exact > EDGES[-1]:
            assert from_buckets == max(durations)
        else:
            assert abs(from_buckets - exact) <= (LARGEST_ERROR + 1e-9) * exact
            assert LARGEST_ERROR < 0.044

    @examples(deadline=None, max_examples=150)
    @given(
        durations=st.lists(
            st.floats(-3, 14).map(math.exp) | st.sampled_from(EDGES) | st.floats(0, 1e6), min_size=1, max_size=60
        ),
        q=st.sampled_from([0.0, 0.5, 0.9, 0.95, 0.99, 1.0]) | st.floats(0, 1),
    )
    def prove(durations: list[float], q: float) -> None:
        on(loop, compare(durations, q))

    await holds(prove)


async def test_the_percentile_of_a_few_buckets(reader: Connection) -> None:
    top = 700_000.0
    cases: list[tuple[list[int] | None, list[int] | None, float, float | None, float | None]] = [
        # buckets, calls, q, max_ms, percentile
        ([], [], 0.5, None, None),
        (None, None, 0.5, None, None),
        ([3], [0], 0.5, 0.12, None),
        ([0], [1], 0.5, 0.02, 0.02),
        ([0, 0], [1, 1], 0.99, 0.1, 0.1),
        ([181], [1], 0.5, top, top),
        ([0, 181], [99, 1], 0.99, top, 0.1),
        ([0, 181], [98, 2], 0.99, top, top),
        ([181, 0], [2, 98], 0.98, top, 0.1),
    ]
    percentile = "SELECT rollup.latency_percentile($1::smallint[], $2::numeric[], $3, $4)"
    found = [await reader.fetchval(percentile, *case[:4]) for case in cases]
    assert found == [case[4] for case in cases]
