"""What was acknowledged is never lost, whatever dies: producers, a fault, and then a quiet look at the store.

Each fault is played HUBSCOPE_FAULTS_ROUNDS times under load (`make faults`: many times). One line per fault says what
was acknowledged and what of it was lost, stored twice, not sent by anybody, or changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import psutil
import pytest

from hubscope.settings import Settings
from hubscope.store import Connection
from tests.faults.conftest import SmallDisk
from tests.faults.gate import Break, Gate, Way
from tests.faults.house import GONE, Database, House, house
from tests.faults.ledger import Event, made_up
from tests.faults.producers import BATCH_MAX, Load, Make, ordinary

ROUNDS: Final = int(os.environ.get("HUBSCOPE_FAULTS_ROUNDS", "1"))

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 60 * ROUNDS)]

Fault = Callable[[House, Load], Awaitable[None]]
Record = Callable[[str, object], None]


async def played(
    name: str, one: House, fault: Fault, record: Record, make: Make = ordinary, rounds: int = ROUNDS
) -> None:
    """Fault by fault under load, then the verdict."""
    async with one.database.kept(), one.folding(), one.load(make) as load:
        await load.progress()
        for _ in range(rounds):
            await fault(one, load)
            await load.progress()
    verdict = await one.quiet()
    answers = ", ".join(f"{count} x {answer}" for answer, count in sorted(one.ledger.answers.items()))
    record("fault", f"{name}: {verdict} (posts: {answers})")
    assert verdict.faults == {}, verdict
    assert "Traceback" not in one.service.said, one.service.said[-4000:]


# The service


async def the_service_is_killed(one: House, load: Load) -> None:
    await one.service.stop(signal.SIGKILL)
    await load.failures(1)
    await one.restart()


async def the_service_is_told_to_stop(one: House, load: Load) -> None:
    assert await one.service.stop(signal.SIGTERM) == 0
    await one.restart()


# The database


async def the_database_is_killed(one: House, load: Load) -> None:
    one.database.kill()
    await load.failures(1)


async def a_backend_is_killed(one: House, load: Load) -> None:
    connection = await one.connect()
    try:
        pid = await connection.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = 'hubscope writer'")
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
        await load.failures(1)  # all of them end, and the postmaster starts anew
    finally:
        connection.terminate()


async def the_database_is_frozen(one: House, load: Load) -> None:
    with one.database.frozen():
        await load.failures()


async def a_table_is_locked(one: House, load: Load) -> None:
    connection = await one.connect()
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE raw.tool_calls IN ACCESS EXCLUSIVE MODE")
            await load.failures()
    finally:
        await connection.close()


async def connections_are_used_up(one: House, load: Load) -> None:
    """Others hold all of them, and the service has lost its own."""
    taken: list[Connection] = []
    first = await one.connect()

    async def take() -> None:
        while True:
            with contextlib.suppress(*GONE):
                while True:
                    taken.append(await one.connect())
            await first.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'hubscope %'"
                " AND application_name <> 'hubscope faults' AND datname = current_database()"
            )
            await asyncio.sleep(0.02)

    task = asyncio.create_task(take())
    try:
        await load.failures()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for connection in (first, *taken):
            connection.terminate()


async def nothing_can_be_written(one: House, load: Load) -> None:
    """The write-ahead log included: PostgreSQL panics, and cannot even recover."""
    with one.database.files_no_longer_than(64 * 1024):
        await load.failures()


# The network


async def refused(gate: Gate, load: Load) -> None:
    gate.refuse()
    try:
        await load.failures()
    finally:
        await gate.accept()


def network(
    how: Break, way: Way, share: float, times: int, *, front: bool, meanwhile: bool = False, having: bytes = b""
) -> Fault:
    """Break connections at one of the gates so many times.

    Args:
        meanwhile: while those stay half-open, others must get on.
        having: only where these bytes go by.
    """

    async def fault(one: House, load: Load) -> None:
        gate = one.front if front else one.back
        goal = gate.bites + times
        with gate.broken(how, way, share, having):
            await load.until(lambda: gate.bites >= goal, f"{times} times {how.value} {way.value}")
            gate.heal()
            if meanwhile:
                await load.progress(500)

    return fault


async def clients_are_refused(one: House, load: Load) -> None:
    await refused(one.front, load)


async def the_database_refuses(one: House, load: Load) -> None:
    await refused(one.back, load)


FAULTS: Final[dict[str, Fault]] = {
    "service killed": the_service_is_killed,
    "service stopped under load": the_service_is_told_to_stop,
    "database killed": the_database_is_killed,
    "database backend killed": a_backend_is_killed,
    "database frozen": the_database_is_frozen,
    "table locked": a_table_is_locked,
    "connections used up": connections_are_used_up,
    "nothing can be written": nothing_can_be_written,
    "client refused": clients_are_refused,
    "client reset before the post": network(Break.RESET, Way.THERE, 0.3, 20, front=True),
    "client reset in the post": network(Break.CUT, Way.THERE, 0.3, 20, front=True),
    "client reset before the reply": network(Break.RESET, Way.BACK, 0.3, 20, front=True),
    "client reset in the reply": network(Break.CUT, Way.BACK, 0.3, 20, front=True),
    "client half-open, posts vanish": network(Break.SWALLOW, Way.THERE, 0.2, 4, front=True, meanwhile=True),
    "client half-open, replies vanish": network(Break.SWALLOW, Way.BACK, 0.2, 4, front=True, meanwhile=True),
    "client slow": network(Break.TRICKLE, Way.THERE, 1.0, 40, front=True),
    "database refused": the_database_refuses,
    "database reset before the request": network(Break.RESET, Way.THERE, 0.05, 10, front=False),
    "database reset before the reply": network(Break.RESET, Way.BACK, 0.05, 10, front=False),
    "database reset in the reply": network(Break.CUT, Way.BACK, 0.05, 10, front=False),
    # A COPY without its end keeps its rows until TCP keepalive ends it, which loopback cannot play: no `meanwhile`, or
    # only replies to a COPY that is whole.
    "database half-open, requests vanish": network(Break.SWALLOW, Way.THERE, 0.05, 3, front=False),
    "database half-open, replies vanish": network(
        Break.SWALLOW, Way.BACK, 0.05, 3, front=False, meanwhile=True, having=b"COPY"
    ),
    "database slow": network(Break.TRICKLE, Way.BACK, 1.0, 40, front=False),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_nothing_that_was_acknowledged_is_lost(name: str, crashable: Database, record_property: Record) -> None:
    async with house(crashable) as one:
        await played(name, one, FAULTS[name], record_property)


# The disk


async def the_disk_is_full(disk: SmallDisk, load: Load) -> None:
    """First new pages cannot be had, then no write-ahead log, then PostgreSQL dies of it."""
    disk.fill(left_bytes=256 * 1024)
    try:
        await load.failures(20)
    finally:
        disk.empty()


async def test_nothing_is_lost_when_the_disk_is_full(
    small_disk: SmallDisk | None, crashable: Database, record_property: Record
) -> None:
    """A small disk where we may make one; elsewhere files that cannot grow."""
    if small_disk is None:
        async with house(crashable) as one:
            await played("disk full (files cannot grow)", one, nothing_can_be_written, record_property)
        return
    disk = small_disk
    database = await asyncio.to_thread(Database, disk.folder / "data")
    try:
        async with house(database) as one:
            await played("disk full", one, lambda _, load: the_disk_is_full(disk, load), record_property)
    finally:
        disk.empty()
        await asyncio.to_thread(database.close)


# What is sent


def again_and_in_another_order(dice: random.Random) -> list[list[Event]]:
    """The same events in several posts at once, some twice in one, each post in an order of its own."""
    now = datetime.now(UTC)
    events = [made_up(dice, now) for _ in range(dice.randint(2, BATCH_MAX))]
    posts = [dice.sample(events, dice.randint(1, len(events))) for _ in range(2)]
    return [events, *(post + dice.choices(post, k=2) for post in posts)]


async def test_events_that_are_sent_again_and_in_another_order_are_stored_once(
    crashable: Database, record_property: Record
) -> None:
    async with house(crashable) as one:
        fault = network(Break.RESET, Way.BACK, 0.2, 20, front=True)
        await played("duplicates and another order", one, fault, record_property, make=again_and_in_another_order)
        assert one.ledger.repeated > 100


MARGIN: Final = timedelta(minutes=2)
"""Longer than a post may take until it is acknowledged."""
ZONES: Final = (UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-9, minutes=-30)))


class WrongClocks:
    """Makes events of hubs whose clocks are wrong: around the borders of what is accepted, of days and hours, in any
    zone; and knows under which code each must be refused."""

    def __init__(self) -> None:
        settings = Settings.load()
        self._age = timedelta(days=settings.max_event_age_days)
        self._skew = timedelta(seconds=settings.max_clock_skew_seconds)
        self.expected: dict[str, str | None] = {}

    def __call__(self, dice: random.Random) -> list[list[Event]]:
        now = datetime.now(UTC)
        oldest, newest = now - self._age, now + self._skew
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        instant = timedelta(microseconds=1)
        times: list[tuple[datetime, str | None]] = [
            *((oldest - early, "too_old") for early in (instant, MARGIN, timedelta(days=400))),
            *((newest + late, "in_future") for late in (2 * MARGIN, timedelta(days=400))),
            (datetime(1970, 1, 1, tzinfo=UTC), "too_old"),
            (oldest + MARGIN, None),
            (newest - instant, None),
            *((midnight + around, None) for around in (-instant, timedelta(0), instant, timedelta(days=-3))),
            (now.replace(minute=0, second=0, microsecond=0), None),
        ]
        dice.shuffle(times)
        post = []
        for time, code in times:
            event = made_up(dice, now) | {"time": time.astimezone(dice.choice(ZONES)).isoformat()}
            self.expected[event["event_id"]] = code
            post.append(event)
        return [post]


async def test_events_of_hubs_with_wrong_clocks_are_kept_or_refused_and_nothing_between(
    crashable: Database, record_property: Record
) -> None:
    clocks = WrongClocks()
    async with house(crashable) as one:
        await played("wrong clocks", one, the_service_is_killed, record_property, make=clocks)
    refused_as = {event_id: one.ledger.sent[event_id].rejected for event_id in clocks.expected}
    assert refused_as == clocks.expected
