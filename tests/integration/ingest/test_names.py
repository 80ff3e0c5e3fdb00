"""Bounded names and one counting vantage per server: over a real database, after a restart, and across replicas."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.ingest.names import OTHER, REREAD_S, Names, _in_force, _with
from hubscope.instruments import Instruments
from hubscope.model import Event, ToolCall
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from tests.conftest import ROLES
from tests.events import server_event, tool_call
from tests.integration.ingest.test_writer import Hub

pytestmark = [pytest.mark.bridge, pytest.mark.integration]

StartHub = Callable[..., Awaitable[Hub]]


@pytest.fixture
async def start_hub(database: str, settings: Settings) -> AsyncIterator[StartHub]:
    """Start an ingest room with settings changed as the test needs: a process of its own, but for the process."""
    hubs: list[Hub] = []

    async def start(**changes: int) -> Hub:
        hubs.append(Hub(settings.model_copy(update=changes), database))
        await hubs[-1].ingest.start()
        return hubs[-1]

    yield start
    for hub in hubs:
        await hub.ingest.close()


@pytest.fixture
async def writer(database: str) -> AsyncIterator[Connection]:
    connection = await connect(database, role=ROLES.writer, name="tests")
    yield connection
    await connection.close()


def names(settings: Settings, **changes: int) -> Names:
    """What one process knows."""
    return Names(settings.model_copy(update=changes), Instruments())


def event(**changes: Any) -> ToolCall:
    decoded = msgspec.json.decode(json.dumps(tool_call(**changes)), type=Event)
    assert isinstance(decoded, ToolCall)
    return decoded


async def settled(known: Names, connection: Connection, one: ToolCall, now: float = 0.0) -> Any:
    """As ingest does it: from memory, or else after asking the database."""
    answer = known.settle("default", one, now)
    if answer is None:
        await known.learn(connection, [("default", one)], now)
        answer = known.settle("default", one, now, final=True)
    assert answer is not None
    return answer


async def counts(known: Names, connection: Connection, now: float = 0.0, **changes: Any) -> bool:
    counted: bool = (await settled(known, connection, event(**changes), now)).counted
    return counted


# Names


@pytest.mark.parametrize(("kind", "setting"), [("server", "max_servers"), ("tool", "max_tools"), ("client", "max_clients"), ("hub", "max_hubs")])  # noqa: E501 # fmt: skip
async def test_past_the_limit_a_name_is_stored_as_other(
    start_hub: StartHub, admin: Connection, kind: str, setting: str
) -> None:
    hub = await start_hub(**{setting: 2})
    # Half of them in one post, the others one by one: the limit is the same.
    sent = [tool_call(**{kind: f"n{number}"}, attrs={"a": 1}) for number in range(6)]
    await hub.post(*sent[:4])
    for one in sent[4:]:
        assert (await hub.post(one)).accepted == 1
    rows = await admin.fetch(f"SELECT {kind} AS name, tool, attrs FROM raw.tool_calls ORDER BY time")
    assert [row["name"] for row in rows] == ["n0", "n1"] + [OTHER] * 4
    for number, row in enumerate(rows):
        kept = json.loads(row["attrs"])
        assert kept.pop("a") == 1
        lost = {kind: f"n{number}"} | ({"tool": "list_directory"} if kind == "server" else {})
        assert kept == ({} if number < 2 else {"_other": lost})
    assert hub.instruments.registry.get_sample_value("hubscope_ingest_other_names_total", {"kind": kind}) == 4
    assert await admin.fetchval("SELECT sum(calls) FROM rollup.tool_calls_hourly") == 6
    assert await admin.fetchval(f"SELECT count(DISTINCT {kind}) FROM rollup.tool_calls_hourly") == 3


async def test_a_whole_post_is_settled_as_its_events_are_one_by_one(settings: Settings, writer: Connection) -> None:
    known = names(settings)
    better, worse = event(server="a", vantage="server"), event(server="a", vantage="client")
    post = [event(server="a"), better, worse, event(server="b"), event(server="c")]
    assert known.settle_all("default", post, 0.0) == [None] * len(post)
    for one in post[:4]:
        await settled(known, writer, one)
    for _ in range(2):  # met for the first time, and known from then on
        assert known.settle_all("default", post, 0.0) == [known.settle("default", one, 0.0) for one in post]
    assert known.settle_all("default", post, 0.0)[4] is None
    assert known.settle_all("default", post, REREAD_S + 1) == [None] * len(post)


async def test_a_server_without_room_takes_no_tool_slots(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub(max_servers=1, max_tools=3)
    await hub.post(tool_call(server="a", tool="t"), *(tool_call(server=f"s{n}", tool=f"t{n}") for n in range(9)))
    await hub.post(tool_call(server="a", tool="u"), tool_call(server="a", tool="v"), tool_call(server="a", tool="w"))
    rows = await admin.fetch("SELECT server, tool FROM raw.tool_calls")
    assert Counter(tuple(row) for row in rows) == {
        ("a", "t"): 1, ("a", "u"): 1, ("a", "v"): 1, ("a", OTHER): 1, (OTHER, OTHER): 9,
    }  # fmt: skip


async def test_server_events_share_the_servers_slots(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub(max_servers=1)
    await hub.post(server_event(server="a"), server_event(server="b"), tool_call(server="a"), tool_call(server="b"))
    assert await admin.fetchval("SELECT array_agg(server ORDER BY server) FROM raw.server_events") == [OTHER, "a"]
    assert await admin.fetchval("SELECT array_agg(server ORDER BY server) FROM raw.tool_calls") == [OTHER, "a"]


async def test_an_admitted_name_stays_admitted_after_a_restart(start_hub: StartHub, admin: Connection) -> None:
    first = await start_hub(max_tools=2)
    await first.post(tool_call(tool="a"), tool_call(tool="b"), tool_call(tool="c"))
    await first.ingest.close()
    again = await start_hub(max_tools=2)
    await again.post(tool_call(tool="d"), tool_call(tool="b"), tool_call(tool="a"))
    rows = await admin.fetch("SELECT tool FROM raw.tool_calls ORDER BY time")
    assert [row["tool"] for row in rows] == ["a", "b", OTHER, OTHER, "b", "a"]


async def test_the_limit_holds_across_replicas(start_hub: StartHub, admin: Connection) -> None:
    hubs = [await start_hub(max_tools=10) for _ in range(3)]
    posts = [hub.post(*(tool_call(tool=f"{place}-{n}") for n in range(10))) for place, hub in enumerate(hubs)]
    await asyncio.gather(*posts)
    stored = await admin.fetch("SELECT DISTINCT tool FROM raw.tool_calls")
    admitted = sorted({row["tool"] for row in stored} - {OTHER})
    assert len(admitted) == 10
    for hub in hubs:  # what one admitted is known to all
        await hub.post(*(tool_call(tool=tool, client="again") for tool in admitted))
    assert (
        await admin.fetchval("SELECT count(*) FROM raw.tool_calls WHERE client = 'again' AND tool = ANY($1)", admitted)
        == 30
    )


async def test_a_name_is_admitted_without_its_secret(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub()
    for _ in range(2):
        await hub.post(tool_call(server="https://u:hunter2@h/mcp", client="token=hunter2"))
    assert await admin.fetch("SELECT DISTINCT server, client FROM raw.tool_calls") == [
        ("https://u:[redacted]@h/mcp", "token=[redacted]")
    ]
    assert "hunter2" not in str(await admin.fetch("SELECT * FROM hub.known_names"))


async def test_tenants_have_limits_of_their_own(settings: Settings, writer: Connection) -> None:
    known = names(settings, max_servers=1)
    for tenant in ("one", "two"):
        await known.learn(writer, [(tenant, event(server=f"of {tenant}"))], 0.0)
        answer = known.settle(tenant, event(server=f"of {tenant}"), 0.0)
        assert answer is not None
        assert answer.event.server == f"of {tenant}"  # type: ignore[union-attr]


async def test_a_full_tenant_asks_the_database_no_more(settings: Settings, writer: Connection) -> None:
    known = names(settings, max_servers=1, max_tools=1, max_clients=1, max_hubs=1)
    await settled(known, writer, event(client="c", hub="h"))
    for number in range(3):
        for kind in ("server", "tool", "client", "hub"):
            answer = known.settle("default", event(**{"client": "c", "hub": "h", kind: f"n{number}"}), 1.0)
            assert answer is not None
            assert getattr(answer.event, kind) == OTHER
    assert known.settle("default", event(client="c", hub="h"), REREAD_S + 1) is None  # it reads anew after a while


@pytest.mark.parametrize(
    ("attrs", "kept"),
    [
        ("null", {"_other": {"tool": "t"}}),
        ("{}", {"_other": {"tool": "t"}}),
        ("{ }", {"_other": {"tool": "t"}}),
        ('{"a": {}} ', {"a": {}, "_other": {"tool": "t"}}),
        ('{"_other": 1}', {"_other": {"tool": "t"}}),
    ],
)
def test_what_was_sent_is_kept_in_attrs(attrs: str, kept: Any) -> None:
    assert json.loads(bytes(_with(msgspec.Raw(attrs.encode()), {"tool": "t"}))) == kept


# Vantages


async def test_the_first_observer_counts_and_a_lesser_one_does_not(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub()
    await hub.post(tool_call(vantage="wrapper"))
    await hub.post(tool_call(vantage="hub"), tool_call(vantage="client"), tool_call(vantage="wrapper"))
    rows = await admin.fetch("SELECT vantage, counted FROM raw.tool_calls ORDER BY time")
    assert [tuple(row) for row in rows] == [("wrapper", True), ("hub", False), ("client", False), ("wrapper", True)]
    assert await admin.fetchval("SELECT sum(calls) FROM rollup.tool_calls_hourly") == 2
    assert await admin.fetchval("SELECT sum(calls) FROM rollup.tool_latency_hourly") == 2
    assert await admin.fetchval("SELECT count(*) FROM analytics.fct_tool_calls") == 2


async def test_of_two_at_once_the_better_observer_counts(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub()
    await hub.post(tool_call(vantage="hub"), tool_call(vantage="server"))
    assert await admin.fetchval("SELECT array_agg(vantage) FROM raw.tool_calls WHERE counted") == ["server"]


async def test_hub_and_own_calls_are_different_calls(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub()
    await hub.post(tool_call(vantage="hub"), tool_call(vantage="own"))
    assert await admin.fetchval("SELECT count(*) FROM raw.tool_calls WHERE counted") == 2


async def test_a_retry_by_another_way_changes_nothing(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub()
    call = tool_call(vantage="hub")
    await hub.post(call)
    receipt = await hub.post(call, tool_call(vantage="server"))
    assert (receipt.accepted, receipt.duplicates) == (1, 1)
    assert await admin.fetchval("SELECT array_agg(vantage) FROM raw.tool_calls WHERE counted") == ["hub"]


async def test_a_better_observer_takes_over_ahead_of_time(settings: Settings, writer: Connection) -> None:
    known, replica = names(settings), names(settings)
    assert await counts(known, writer, vantage="hub")
    assert await counts(replica, writer, vantage="hub")
    before = await writer.fetchval("SELECT now()")
    assert not await counts(known, writer, vantage="server")  # it will, but not yet
    since = await writer.fetchval("SELECT max(since) FROM hub.counting_vantages WHERE vantage = 'server'")
    # Nothing of that time can have been accepted, and every replica reads anew before anything of it can be.
    assert since >= before + timedelta(seconds=settings.max_clock_skew_seconds + 2 * REREAD_S)
    assert since <= before + timedelta(seconds=settings.max_clock_skew_seconds + 2 * REREAD_S + 120)
    for process in (known, replica):
        for moment, counting in ((since - timedelta(microseconds=1), "hub"), (since, "server")):
            for vantage in ("server", "wrapper", "hub", "client"):
                counted = await counts(process, writer, REREAD_S + 1, vantage=vantage, time=moment.isoformat())
                assert counted == (vantage == counting), (moment, vantage)
    assert await writer.fetchval("SELECT count(*) FROM hub.counting_vantages") == 2


async def test_two_replicas_that_decide_at_once_decide_once(settings: Settings, database: str) -> None:
    connections = [await connect(database, role=ROLES.writer, name="tests") for _ in range(4)]
    try:
        for vantage in ("hub", "server"):
            await asyncio.gather(*(counts(names(settings), one, vantage=vantage) for one in connections))
        rows = await connections[0].fetch("SELECT vantage FROM hub.counting_vantages ORDER BY since")
        assert [row["vantage"] for row in rows] == ["hub", "server"]
    finally:
        for one in connections:
            await one.close()


async def test_an_observer_that_falls_silent_gives_way(settings: Settings, writer: Connection) -> None:
    known = names(settings, vantage_silence_minutes=1)
    assert await counts(known, writer, vantage="server")
    assert not await counts(known, writer, vantage="wrapper", now=10.0)
    assert await counts(known, writer, vantage="server", now=20.0)  # not silent: the clock starts again
    assert not await counts(known, writer, vantage="wrapper", now=50.0)
    assert not await counts(known, writer, vantage="wrapper", now=105.0)
    assert await writer.fetchval("SELECT count(*) FROM hub.counting_vantages") == 1
    assert not await counts(known, writer, vantage="wrapper", now=111.0)  # a minute after the first it saw alone
    assert await writer.fetchval("SELECT count(*) FROM hub.counting_vantages") == 2
    since = await writer.fetchval("SELECT max(since) FROM hub.counting_vantages")
    assert await counts(known, writer, vantage="wrapper", now=112.0, time=since.isoformat())
    assert not await counts(known, writer, vantage="server", now=113.0, time=since.isoformat())


async def test_an_observer_that_another_replica_hears_is_not_silent(
    start_hub: StartHub, settings: Settings, writer: Connection
) -> None:
    known = names(settings, vantage_silence_minutes=1)
    assert await counts(known, writer, vantage="server")
    assert not await counts(known, writer, vantage="wrapper", now=0.0)
    other = await start_hub()
    await other.post(tool_call(vantage="server"))
    assert not await counts(known, writer, vantage="wrapper", now=61.0)
    assert await writer.fetchval("SELECT count(*) FROM hub.counting_vantages") == 1


async def test_a_client_that_does_not_name_the_server_never_counts(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub()
    await hub.post(tool_call(vantage="client", server="unknown"))
    await hub.post(tool_call(vantage="client", server="named"), tool_call(vantage="server", server="unknown"))
    rows = await admin.fetch("SELECT vantage, server FROM raw.tool_calls WHERE counted ORDER BY time")
    assert [tuple(row) for row in rows] == [("client", "named"), ("server", "unknown")]


async def test_servers_without_a_slot_all_count(start_hub: StartHub, admin: Connection) -> None:
    hub = await start_hub(max_servers=1)
    await hub.post(tool_call(server="a"))
    await hub.post(
        *(tool_call(server=f"s{n}", vantage=vantage) for n, vantage in enumerate(("server", "hub", "wrapper")))
    )
    assert await admin.fetchval("SELECT count(*) FROM raw.tool_calls WHERE counted AND server = $1", OTHER) == 3


TIMES = st.integers(0, 2 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@given(st.lists(st.tuples(TIMES, st.integers(0, 3)), min_size=1, max_size=6), TIMES)
def test_at_any_time_exactly_one_vantage_is_in_force(rows: list[tuple[datetime, int]], time: datetime) -> None:
    vantages = sorted(rows)
    begun = [rank for since, rank in vantages if since <= time]
    assert _in_force(vantages, time) == (begun[-1] if begun else vantages[0][1])
