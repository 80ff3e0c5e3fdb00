"""The writer over a real database: limits, duplicates, poison, a database that hangs or goes away, and the end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from hubscope.access import LOCAL
from hubscope.errors import CommitUnknown, DatabaseAway, QueueFull, ShuttingDown
from hubscope.ingest import Ingest, writer
from hubscope.instruments import Instruments
from hubscope.model import Receipt
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from tests.conftest import ROLES
from tests.events import server_event, tool_call

pytestmark = [pytest.mark.bridge, pytest.mark.integration]

POISON: Final = 1e300  # replaced by a number that JSON allows and PostgreSQL's numeric cannot hold
WRITERS: Final = "FROM pg_stat_activity WHERE application_name = 'hubscope writer' AND datname = current_database()"


class Hub:
    """An ingest room over the test's database, and how to post to it."""

    def __init__(self, settings: Settings, dsn: str) -> None:
        self.dsn = dsn
        self.instruments = Instruments()
        self.ingest = Ingest(self._connect, settings, self.instruments)

    async def _connect(self) -> Connection:
        return await connect(self.dsn, role=ROLES.writer, name="writer", timeout_s=2)

    async def post(self, *events: dict[str, Any]) -> Receipt:
        body = json.dumps(events).replace("1e+300", "1e999999")
        return await self.ingest.post(LOCAL, body.encode(), "application/json")

    def posting(self, *events: dict[str, Any]) -> asyncio.Task[Receipt]:
        return asyncio.create_task(self.post(*events))

    @property
    def waiting(self) -> tuple[float, float]:
        """Events and bytes in the queue, as the metrics tell them."""
        registry = self.instruments.registry
        return (
            registry.get_sample_value("hubscope_ingest_queue_events") or 0,
            registry.get_sample_value("hubscope_ingest_queue_bytes") or 0,
        )


StartHub = Callable[..., Awaitable[Hub]]


@pytest.fixture
async def start_hub(database: str, settings: Settings) -> AsyncIterator[StartHub]:
    """Start an ingest room with settings changed as the test needs."""
    hubs: list[Hub] = []

    async def start(dsn: str = database, **changes: int) -> Hub:
        hubs.append(Hub(settings.model_copy(update=changes), dsn))
        await hubs[-1].ingest.start()
        return hubs[-1]

    yield start
    for hub in hubs:
        await hub.ingest.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 (the condition is in the database)
            await asyncio.sleep(0.005)


async def stuck_writers(admin: Connection) -> set[int]:
    await admin.execute("SELECT pg_stat_clear_snapshot()")  # inside a transaction it would not change
    return {row["pid"] for row in await admin.fetch(f"SELECT pid {WRITERS} AND wait_event_type = 'Lock'")}


async def until_stuck(admin: Connection, count: int = 1) -> set[int]:
    """Wait until so many writers wait for a lock; their process ids."""

    async def enough() -> bool:
        return len(await stuck_writers(admin)) >= count

    await until(enough)
    return await stuck_writers(admin)


async def until_queued(hub: Hub, events: int) -> None:
    async def queued() -> bool:
        return hub.waiting[0] == events

    await until(queued)


@asynccontextmanager
async def no_commits(admin: Connection) -> AsyncIterator[None]:
    """Commits of tool calls hang for as long as the block runs."""
    async with admin.transaction():
        await admin.execute("LOCK TABLE raw.tool_calls IN ACCESS EXCLUSIVE MODE")
        yield


async def stored_calls(admin: Connection) -> int:
    """How many calls raw holds; the rollup must say the same."""
    stored: int = await admin.fetchval("SELECT count(*) FROM raw.tool_calls")
    assert await admin.fetchval("SELECT coalesce(sum(calls), 0) FROM rollup.tool_calls_hourly") == stored
    return stored


def calls(count: int) -> list[dict[str, Any]]:
    return [tool_call() for _ in range(count)]


# Limits


@pytest.mark.parametrize("limit", ["events", "bytes"])
async def test_a_full_queue_is_refused_at_once(limit: str, start_hub: StartHub, admin: Connection) -> None:
    first, second, third = calls(2), calls(2), calls(1)
    size = len(json.dumps(first))
    hub = await start_hub(**{f"queue_max_{limit}": 3 if limit == "events" else size + 400}, tenant_queue_percent=100)
    async with no_commits(admin):
        waiting = [hub.posting(*first)]
        await until_stuck(admin)
        with pytest.raises(QueueFull) as refused:
            async with asyncio.timeout(1):
                await hub.post(*second)
        assert refused.value.status == 503
        assert refused.value.retry_after_seconds == 1
        assert refused.value.detail.startswith("2 events")
        assert hub.waiting[0] == 2
        waiting.append(hub.posting(*third))  # what fits is taken all the same
        await until_queued(hub, 3)
    assert [receipt.accepted for receipt in await asyncio.gather(*waiting)] == [2, 1]
    assert hub.waiting == (0, 0)
    assert (await hub.post(*second)).accepted == 2


async def test_every_writer_has_a_connection_of_its_own(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub(writers=3, commit_max_events=1)
    async with no_commits(admin):
        posts = [hub.posting(tool_call()) for _ in range(5)]
        assert len(await until_stuck(admin, 3)) == 3
        assert await admin.fetchval(f"SELECT count(*) {WRITERS}") == 3
    assert [receipt.accepted for receipt in await asyncio.gather(*posts)] == [1] * 5
    assert await admin.fetchval(f"SELECT count(*) {WRITERS}") == 3


async def test_a_commit_takes_no_more_than_its_share(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub(writers=1, commit_max_events=3)
    async with no_commits(admin):
        posts = [hub.posting(tool_call())]
        await until_stuck(admin)
        for size, queued in ((2, 3), (2, 5), (1, 6), (7, 13)):
            posts.append(hub.posting(*calls(size)))
            await until_queued(hub, queued)
    assert [receipt.accepted for receipt in await asyncio.gather(*posts)] == [1, 2, 2, 1, 7]
    together = await admin.fetch(
        "SELECT count(*) AS n FROM raw.tool_calls GROUP BY xmin::text::bigint ORDER BY xmin::text::bigint"
    )
    # Whole posts while they fit; a post larger than the share goes in several commits.
    assert [row["n"] for row in together] == [1, 2, 3, 3, 3, 1]


@pytest.mark.parametrize("cause", ["a lock", "a stopped backend"])
async def test_a_commit_that_hangs_is_answered_as_unknown(cause: str, start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub(writers=1, commit_timeout_ms=1500)  # room for a busy machine
    await hub.post(tool_call())
    event = tool_call()
    [backend] = [row["pid"] for row in await admin.fetch(f"SELECT pid {WRITERS}")]
    if cause == "a lock":
        async with no_commits(admin), asyncio.timeout(15):
            with pytest.raises(CommitUnknown, match="1500 ms") as unknown:
                await hub.post(event)
    else:
        os.kill(backend, signal.SIGSTOP)
        try:
            async with asyncio.timeout(15):
                with pytest.raises(CommitUnknown, match="1500 ms") as unknown:
                    await hub.post(event)
                assert (await hub.post(tool_call())).accepted == 1  # a new connection, while the old one hangs still
        finally:
            os.kill(backend, signal.SIGCONT)
    assert (unknown.value.status, unknown.value.retry_after_seconds) == (503, 1)
    again = await hub.post(event)
    assert again.accepted + again.duplicates == 1
    assert await admin.fetchval("SELECT count(*) FROM raw.tool_calls WHERE event_id = $1", event["event_id"]) == 1
    assert hub.waiting == (0, 0)


# Duplicates


async def test_an_event_sent_again_in_the_same_post_is_a_duplicate(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub()
    one, other = calls(2)
    assert await hub.post(one, other, one, one) == Receipt(accepted=2, duplicates=2)
    assert await stored_calls(admin) == 2


async def test_an_event_sent_again_in_another_post_is_a_duplicate(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub()
    one, other, third = calls(3)
    assert await hub.post(one, other) == Receipt(accepted=2, duplicates=0)
    assert await hub.post(one, third, other) == Receipt(accepted=1, duplicates=2)
    assert await hub.post(other, one, third) == Receipt(accepted=0, duplicates=3)
    assert await stored_calls(admin) == 3


async def test_events_of_concurrent_posts_are_accepted_exactly_once_in_all(
    start_hub: StartHub, admin: Connection
) -> None:
    hub = await start_hub(writers=4, commit_max_events=60)
    events = calls(40) + [server_event() for _ in range(10)]
    shuffled = random.Random(1)
    posts = [shuffled.sample(events, len(events)) for _ in range(12)]
    receipts = await asyncio.gather(*(hub.post(*post) for post in posts))
    assert sum(receipt.accepted for receipt in receipts) == 50
    assert sum(receipt.duplicates for receipt in receipts) == 11 * 50
    assert all(receipt.accepted + receipt.duplicates == 50 for receipt in receipts)
    assert await stored_calls(admin) == 40


async def test_the_same_id_with_another_time_is_another_event(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub()
    first = tool_call()
    later = first | {"time": (datetime.fromisoformat(first["time"]) - timedelta(microseconds=1)).isoformat()}
    same = first | {"time": datetime.fromisoformat(first["time"]).isoformat().replace("+00:00", "Z")}
    assert await hub.post(first) == Receipt(1, 0)
    assert await hub.post(later, same) == Receipt(1, 1)
    assert await stored_calls(admin) == 2


@pytest.mark.parametrize("known_before", [False, True])
async def test_the_same_id_on_an_event_of_another_kind_is_another_event(
    known_before: bool, start_hub: StartHub, admin: Connection
) -> None:
    hub = await start_hub()
    known, call = calls(2)
    change = server_event(event_id=call["event_id"], time=call["time"])
    if known_before:
        await hub.post(known)
    assert await hub.post(change, known, call) == Receipt(3 - known_before, known_before)
    assert await hub.post(call, change) == Receipt(0, 2)
    assert await stored_calls(admin) == 2


async def test_of_the_same_event_with_two_contents_the_first_is_kept_and_counted(
    start_hub: StartHub, admin: Connection
) -> None:
    hub = await start_hub()
    firsts = [tool_call(server="first", duration_ms=1) for _ in range(60)]
    others = [event | {"server": f"other {turn}", "duration_ms": 1e6} for turn in range(4) for event in firsts]
    assert await hub.post(*firsts, *others) == Receipt(60, 240)
    assert await hub.post(*others) == Receipt(0, 240)
    assert [dict(row) for row in await admin.fetch("SELECT DISTINCT server FROM raw.tool_calls")] == [
        {"server": "first"}
    ]
    rollup = await admin.fetch("SELECT server, calls, duration_max_us FROM rollup.tool_calls_hourly")
    assert [tuple(row) for row in rollup] == [("first", 60, 1_000)]


async def test_writers_that_deadlock_try_again(database: str, start_hub: StartHub, admin: Connection) -> None:
    await admin.execute(f"ALTER DATABASE {database.rpartition('/')[2].partition('?')[0]} SET deadlock_timeout = '50ms'")
    hub = await start_hub(writers=1)
    one, other = calls(2)
    insert = (
        "INSERT INTO raw.tool_calls (event_id, time, server, tool, status) SELECT * FROM jsonb_to_record($1::jsonb)"
        " AS sent (event_id uuid, time timestamptz, server text, tool text, status text)"
    )
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("SET LOCAL deadlock_timeout = '20s'")  # so that the writer is the one that gives way
    await admin.execute(insert, json.dumps(other))
    post = hub.posting(one, other)
    await until_stuck(admin)
    await admin.execute(insert, json.dumps(one))
    await transaction.rollback()
    assert await post == Receipt(2, 0)
    assert await stored_calls(admin) == 2


# What only the database refuses


def bad_number() -> dict[str, Any]:
    return tool_call(attrs={"big": POISON})


def beyond_time() -> dict[str, Any]:
    return server_event(valid_until="9999-12-31T23:59:59-14:00")


def forbidden() -> dict[str, Any]:
    return tool_call(tool="forbidden")


@pytest.mark.parametrize("staged", [False, True], ids=["copied", "staged"])
@pytest.mark.parametrize("poison", [bad_number, beyond_time, forbidden])
async def test_an_event_that_only_the_database_refuses_costs_only_itself(
    poison: Callable[[], dict[str, Any]], staged: bool, start_hub: StartHub, admin: Connection
) -> None:
    await admin.execute("ALTER TABLE raw.tool_calls ADD CHECK (tool <> 'forbidden')")
    hub = await start_hub(writers=1)
    first = tool_call()
    if staged:
        assert (await hub.post(first, first)).duplicates == 1
    events = [*calls(5), poison(), *calls(3), server_event(), poison(), tool_call()]
    async with no_commits(admin):
        held_up = hub.posting(first)  # after a duplicate, commits tell what is new
        await until_stuck(admin)
        bad, neighbour = hub.posting(*events), hub.posting(*calls(2), server_event())
        await until_queued(hub, 1 + len(events) + 3)
    assert await held_up == (Receipt(0, 1) if staged else Receipt(1, 0))
    assert await neighbour == Receipt(3, 0)
    receipt = await bad
    assert (receipt.accepted, receipt.duplicates) == (10, 0)
    told = [(one.index, one.event_id, one.code) for one in receipt.rejected]
    assert told == [(5, events[5]["event_id"], "unstorable"), (10, events[10]["event_id"], "unstorable")]
    for one in receipt.rejected:
        assert "the database refused the event" in one.detail
        assert "list_directory" not in one.detail
    assert await stored_calls(admin) == 12
    assert (await hub.post(*events)).duplicates == 10


@pytest.mark.parametrize("staged", [False, True], ids=["copied", "staged"])
async def test_a_day_without_a_partition_gets_one(staged: bool, start_hub: StartHub, admin: Connection) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    hub = await start_hub(writers=1)
    known = tool_call()
    for _ in range(2 if staged else 0):
        await hub.post(known)
    await admin.execute(f"DROP TABLE raw.tool_calls_p{yesterday:%Y%m%d}")
    assert await hub.post(tool_call(), tool_call(time=yesterday.isoformat()), server_event()) == Receipt(3, 0)
    assert await stored_calls(admin) == 2 + staged


# A database that is away


@pytest.mark.parametrize("when", ["idle", "committing"])
async def test_a_writer_whose_connection_is_cut_connects_again(
    when: str, start_hub: StartHub, admin: Connection
) -> None:
    hub = await start_hub(writers=2)
    event = tool_call()
    await asyncio.gather(hub.post(tool_call()), hub.post(tool_call()))
    cut = f"SELECT count(pg_terminate_backend(pid)) {WRITERS}"
    if when == "committing":
        async with no_commits(admin):
            post = hub.posting(event)
            await until_stuck(admin)
            assert await admin.fetchval(cut)
            with pytest.raises(DatabaseAway) as away:
                await post
        assert (away.value.status, away.value.retry_after_seconds) == (503, 2)
    else:
        assert await admin.fetchval(cut)

    async def is_taken() -> bool:
        try:
            return (await hub.post(event)).accepted == 1
        except DatabaseAway:
            return False

    await until(is_taken)
    assert await hub.post(event) == Receipt(0, 1)
    assert await stored_calls(admin) == 3
    assert hub.waiting == (0, 0)


async def test_a_database_that_comes_later_is_found(database: str, start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub("postgresql://nobody@127.0.0.1:1/nowhere")
    event = tool_call()
    for _ in range(2):
        with pytest.raises(DatabaseAway, match="cannot be used now"):
            await hub.post(event)
    hub.dsn = database
    assert await hub.post(event) == Receipt(1, 0)
    assert await stored_calls(admin) == 1


async def test_a_read_only_database_counts_as_away(database: str, start_hub: StartHub, admin: Connection) -> None:
    name = database.rpartition("/")[2].partition("?")[0]
    hub = await start_hub(writers=1)
    event = tool_call()
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(DatabaseAway):
        await hub.post(event)
    await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert await hub.post(event) == Receipt(1, 0)


async def test_a_failure_that_nobody_thought_of_is_answered_and_the_writer_goes_on(
    start_hub: StartHub, admin: Connection
) -> None:
    hub = await start_hub(writers=1)
    event = tool_call()
    await admin.execute("ALTER TABLE rollup.pending RENAME TO gone")
    with pytest.raises(CommitUnknown):
        await hub.post(event)
    await admin.execute("ALTER TABLE rollup.gone RENAME TO pending")
    assert await hub.post(event) == Receipt(1, 0)
    assert await stored_calls(admin) == 1


# The end


async def test_what_waits_is_committed_before_the_writer_closes(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub(writers=1, commit_max_events=2)
    async with no_commits(admin):
        posts = [hub.posting(*calls(2)) for _ in range(4)]
        await until_stuck(admin)
        await until_queued(hub, 8)
        closing = asyncio.create_task(hub.ingest.close())
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await hub.post(tool_call())
        assert not closing.done()
    await closing
    assert [receipt.accepted for receipt in await asyncio.gather(*posts)] == [2] * 4
    assert await stored_calls(admin) == 8
    assert await admin.fetchval(f"SELECT count(*) {WRITERS}") == 0


async def test_a_closed_writer_lets_go_of_its_connections(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub(writers=2)
    await hub.post(tool_call())
    await hub.ingest.close()

    async def none_left() -> bool:
        return not await admin.fetchval(f"SELECT count(*) {WRITERS}")

    await until(none_left)


async def test_a_poster_that_goes_away_leaves_its_events_and_its_neighbours(
    start_hub: StartHub, admin: Connection
) -> None:
    hub = await start_hub(writers=1)
    async with no_commits(admin):
        first = hub.posting(tool_call())
        await until_stuck(admin)
        gone, neighbour = hub.posting(*calls(2)), hub.posting(tool_call())
        await until_queued(hub, 4)
        for task in (first, gone):  # one in the middle of its commit, one still in the queue
            task.cancel()
        assert [type(end) for end in await asyncio.gather(first, gone, return_exceptions=True)] == [
            asyncio.CancelledError,
            asyncio.CancelledError,
        ]
    assert await neighbour == Receipt(1, 0)
    assert await stored_calls(admin) == 4
    assert hub.waiting == (0, 0)


async def test_events_are_counted_by_type_and_outcome(start_hub: StartHub) -> None:
    hub = await start_hub()
    known = tool_call()
    await hub.post(known, known, server_event(), bad_number(), tool_call(status="no"))
    counted = {
        (sample.labels["type"], sample.labels["outcome"]): sample.value
        for family in hub.instruments.events.collect()
        for sample in family.samples
    }
    assert counted == {
        ("tool_call", "accepted"): 1,
        ("tool_call", "duplicate"): 1,
        ("server_event", "accepted"): 1,
        ("any", "rejected"): 2,
    }


async def test_a_writer_that_hangs_keeps_a_small_post_waiting_no_longer_than_a_moment(
    start_hub: StartHub, admin: Connection
) -> None:
    hub = await start_hub(writers=2)
    await hub.post(tool_call(server="a"), server_event(server="a"))
    async with admin.transaction():
        await admin.execute("LOCK TABLE raw.server_events IN SHARE ROW EXCLUSIVE MODE")
        hung = asyncio.create_task(hub.post(server_event(server="a")))
        await until_stuck(admin)
        assert await hub.post(tool_call(server="a")) == Receipt(1, 0)
        assert not hung.done()
    assert await hung == Receipt(1, 0)


async def test_small_posts_that_come_during_a_commit_are_committed_together(
    start_hub: StartHub, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LINGER_S", 60.0)
    hub = await start_hub(writers=2)
    await hub.post(tool_call(server="a"))
    commits = "hubscope_ingest_commit_duration_seconds_count"
    before = hub.instruments.registry.get_sample_value(commits) or 0
    async with asyncio.TaskGroup() as posts, no_commits(admin):
        posts.create_task(hub.post(tool_call(server="a")))
        await until_stuck(admin)
        for count in range(2, 20):
            posts.create_task(hub.post(tool_call(server="a")))
            await until_queued(hub, count)
    assert (hub.instruments.registry.get_sample_value(commits) or 0) - before == 2
