"""GET /api/v1/stream: raw sockets to the real service over a real store."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import pytest

from hubscope.access import LOCAL, Scope
from hubscope.entrypoints.stream import TOPIC_RIGHTS
from hubscope.journal import TOPICS
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.events import server_event, tool_call
from tests.integration.entrypoints import served
from tests.keys import make_key
from tests.sse import Block, Reader, reading

pytestmark = [pytest.mark.realtime, pytest.mark.integration]

Serve = Callable[..., AbstractAsyncContextManager["Service"]]
TELL: Final = "SELECT hub.tell($1, $2, $3, $4, $5, now(), $6)"


class Service(served.Service):
    """One that is listened to."""

    def read(self, query: str = "", **more: Any) -> AbstractAsyncContextManager[Reader]:
        return reading(self.port, query, **more)

    def metric(self, name: str, **labels: str) -> float:
        return self.app.instruments.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def serve(settings: Settings, database: str, monkeypatch: pytest.MonkeyPatch) -> Serve:
    monkeypatch.setenv("HUBSCOPE_SQL_IN_SERVICE", "false")  # its audit records would stand between ours

    return served.server(settings, database, Service, stream_interval_ms=20, stream_lease_ms=1_000)


async def tell(
    connection: Connection,
    name: str = "n",
    *,
    topic: str = "metadata",
    tenant: str = "default",
    subject: str = "s",
    server: str | None = "s",
    **payload: Any,
) -> None:
    await connection.execute(TELL, tenant, topic, name, subject, server, json.dumps(payload))


async def told(reader: Reader, count: int) -> list[str]:
    """The names of the next events, after the one that says where the stream begins."""
    return [block.data["name"] for block in await reader.events(count)]


async def begun(reader: Reader) -> Block:
    block = await reader.event()
    assert block is not None
    assert block.event == "begin"
    return block


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# Form


async def test_an_event_has_its_number_its_topic_and_its_data(serve: Serve, admin: Connection) -> None:
    async with serve() as service, service.read() as reader:
        assert (reader.status, reader.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert reader.headers["cache-control"] == "no-store, no-transform"
        assert reader.headers["x-accel-buffering"] == "no"
        first = await begun(reader)
        assert (first.id, first.data["after"], first.data["resumed"]) == (0, 0, False)
        assert first.data["topics"] == sorted(TOPICS)
        assert first.retry_ms is not None
        assert 500 <= first.retry_ms <= 1_500
        at = datetime.now(UTC)
        await tell(admin, "tools_list_changed", subject="files", server="files", count=3, text="two\nlines\u2028é")
        (event,) = await reader.events(1)
    assert (event.id, event.event) == (1, "metadata")
    assert abs(datetime.fromisoformat(event.data.pop("time")) - at) < timedelta(seconds=10)
    assert event.data == {
        "seq": 1,
        "topic": "metadata",
        "name": "tools_list_changed",
        "subject": "files",
        "server": "files",
        "payload": {"count": 3, "text": "two\nlines\u2028é"},
    }


@pytest.mark.parametrize(
    ("query", "after", "words"),
    [
        ("?topics=weather", None, "topics: 'weather' is no topic (allowed: chain, metadata, audit, health, analytics)"),
        ("?topics=", None, "topics: '' is no topic"),
        ("?topic=chain", None, "'topic' is no parameter (allowed: topics, server, chain, name, lastEventId)"),
        ("?server=", None, "server: 1 to 200 characters"),
        (f"?name={'x' * 201}", None, "name: 1 to 200 characters"),
        ("?" + "&".join(["name=x"] * 51), None, "name: at most 50 of them"),
        ("?topics=analytics&server=s", None, "server: events of the topic analytics have none (it filters chain,"),
        ("?topics=health&chain=c", None, "chain: events of the topic health have none (it filters chain)"),
        ("?lastEventId=x", None, "lastEventId: a whole number"),
        ("?lastEventId=-1", None, "lastEventId: a whole number"),
        ("?lastEventId=" + "9" * 30, None, "lastEventId: a whole number"),
        ("", "1.5", "Last-Event-ID: a whole number"),
    ],
)
async def test_a_parameter_that_will_not_do_is_named(query: str, after: Any, words: str, serve: Serve) -> None:
    async with serve() as service, service.read(query, after=after) as reader:
        assert (reader.status, reader.headers["content-type"]) == (400, "application/problem+json")
        problem = await reader.problem()
        assert problem["code"] == "invalid_parameter"
        assert problem["detail"].startswith(words), problem


async def test_only_get_is_allowed(serve: Serve) -> None:
    async with serve() as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /api/v1/stream HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
    assert head.startswith("HTTP/1.1 405 ")
    assert "allow: GET" in head


async def test_what_came_together_goes_out_together(serve: Serve, admin: Connection) -> None:
    async with serve() as service, service.read() as reader:
        await begun(reader)
        async with admin.transaction():
            for number in range(50):
                await tell(admin, str(number))
        assert await told(reader, 50) == [str(number) for number in range(50)]
        assert max(reader.reads) > 1


# Who may


async def test_a_topic_asks_for_its_scope(serve: Serve, database: str) -> None:
    only = {scope: (await make_key(database, Scope.READ, scope, name=scope))[1] for scope in Scope}
    _, ingest = await make_key(database, Scope.INGEST, name="no read")
    async with serve() as service:
        async with service.read("?topics=health", key=ingest) as reader:
            assert reader.status == 403
        for topic, right in TOPIC_RIGHTS.items():
            for scope, key in only.items():
                async with service.read(f"?topics={topic}", key=key) as reader:
                    assert reader.status == (200 if right in (Scope.READ, scope) else 403), (topic, scope)
                    if reader.status == 403:
                        assert (await reader.problem())["scope"] == right
        async with service.read(key=only[Scope.READ]) as reader:
            assert (await begun(reader)).data["topics"] == ["analytics", "health", "metadata"]
        async with service.read("?chain=x", key=only[Scope.READ]) as reader:
            assert reader.status == 403
        async with service.read() as reader:
            assert reader.status == 401


async def test_no_tenant_sees_anothers_events_not_even_their_number(
    serve: Serve, database: str, admin: Connection
) -> None:
    keys = {tenant: (await make_key(database, tenant=tenant, name=tenant))[1] for tenant in ("red", "blue")}
    async with serve() as service, AsyncExitStack() as stack:
        readers = {
            tenant: await stack.enter_async_context(service.read(key=key, after=0)) for tenant, key in keys.items()
        }
        for number in range(20):
            for topic in TOPICS:
                tenant = "red" if number % 3 else "blue"
                await tell(admin, tenant, topic=topic, tenant=tenant, subject="same", server="same")
        await tell(admin, "blue", tenant="blue")
        await tell(admin, "red", tenant="red")
        for tenant, reader in readers.items():
            await begun(reader)
            count = (13 if tenant == "red" else 7) * len(TOPICS) + 1
            events = await reader.events(count)
            assert {event.data["name"] for event in events} == {tenant}
            assert [event.id for event in events] == list(range(1, count + 1))


async def test_a_stream_ends_with_its_key(serve: Serve, database: str, admin: Connection) -> None:
    _, key = await make_key(database)
    async with serve(stream_heartbeat_ms=50, key_cache_ms=50) as service, service.read(key=key) as reader:
        await begun(reader)
        await admin.execute("UPDATE hub.api_keys SET revoked_at = now()")
        block = await reader.event()
        assert block is not None
        assert (block.event, block.data) == ("end", {"reason": "key"})
        assert await reader.block() is None
        await until(lambda: service.metric("hubscope_stream_ended_total", reason="key") == 1)


# Filters

FILTERS: Final = {
    "?topics=health": {"h1", "h2"},
    "?topics=health,metadata": {"h1", "h2", "m1"},
    "?topics=health&topics=metadata": {"h1", "h2", "m1"},
    "?server=files": {"h1", "m1", "c2"},
    "?server=files&server=web": {"h1", "h2", "m1", "c2"},
    "?topics=health&server=web": {"h2"},
    "?chain=run-1": {"c1", "c2"},
    "?chain=run-1&server=files": {"c2"},
    "?name=h1&name=a1": {"h1", "a1"},
    "?name=h1&topics=audit": set(),
    "?name=h%31": {"h1"},
}


@pytest.mark.parametrize("query", FILTERS)
async def test_a_filter_passes_what_it_names(query: str, serve: Serve, admin: Connection) -> None:
    async with serve() as service, service.read(query + "&lastEventId=0") as live:
        await begun(live)
        await tell(admin, "h1", topic="health", server="files")
        await tell(admin, "h2", topic="health", server="web")
        await tell(admin, "m1", server="files")
        await tell(admin, "a1", topic="audit", server=None)
        await tell(admin, "c1", topic="chain", subject="run-1", server=None)
        await tell(admin, "c2", topic="chain", subject="run-1", server="files")
        await tell(admin, "c3", topic="chain", subject="run-2", server=None)
        expected = FILTERS[query]
        assert set(await told(live, len(expected))) == expected
        async with service.read("?lastEventId=0") as whole:  # what the filter let out has come by
            await begun(whole)
            assert len(await told(whole, 7)) == 7
        async with service.read(query, after=0) as late:
            await begun(late)
            assert set(await told(late, len(expected))) == expected


# Going on


async def test_a_reader_goes_on_after_the_last_event_it_had(serve: Serve, admin: Connection) -> None:
    async with serve() as service:
        async with service.read() as reader:
            await begun(reader)
            for number in range(1, 6):
                await tell(admin, str(number))
            assert await told(reader, 3) == ["1", "2", "3"]
            last = 3
        async with service.read(after=last) as reader:
            first = await begun(reader)
            assert (first.id, first.data["resumed"]) == (3, True)
            assert await told(reader, 2) == ["4", "5"]
        async with service.read("?lastEventId=4") as reader:
            await begun(reader)
            assert await told(reader, 1) == ["5"]
        async with service.read("?lastEventId=1", after=4) as reader:  # the header is newer than the address
            await begun(reader)
            assert await told(reader, 1) == ["5"]
        async with service.read() as reader:
            assert (await begun(reader)).id == 5


async def test_a_reader_goes_on_from_far_back_across_a_restart(serve: Serve, admin: Connection) -> None:
    count = 1_300
    async with serve() as service, service.read("?topics=metadata") as reader:
        await begun(reader)
        await tell(admin, "0")
        assert await told(reader, 1) == ["0"]
        await admin.execute(
            "SELECT hub.tell('default', CASE WHEN n % 10 = 0 THEN 'audit' ELSE 'metadata' END, n::text, 's', 's',"
            f" now(), '{{}}') FROM generate_series(1, {count}) AS n"
        )
    async with serve(stream_queue_events=50) as service:  # other replicas serve it: most is not in memory
        async with service.read("?topics=metadata", after=1) as reader:
            await begun(reader)
            wanted = [str(number) for number in range(1, count + 1) if number % 10]
            assert await told(reader, len(wanted)) == wanted
            await tell(admin, "live")
            assert await told(reader, 1) == ["live"]
        assert service.metric("hubscope_stream_ended_total", reason="slow") == 0


async def test_what_is_not_in_the_log_any_more_is_said(serve: Serve, admin: Connection) -> None:
    async with serve() as service:
        async with service.read() as reader:
            await begun(reader)
            for number in range(1, 11):
                await tell(admin, str(number))
            await told(reader, 10)
        await admin.execute("SELECT hub.prune_stream(3, '-infinity')")
        async with service.read(after=2) as reader:
            assert (await begun(reader)).data["log"] == {"from": 8, "to": 10}
            gap = await reader.event()
            assert gap is not None
            assert (gap.event, gap.id, gap.data) == ("gap", 7, {"reason": "expired", "from": 3, "to": 7})
            assert await told(reader, 3) == ["8", "9", "10"]
        async with service.read(after=7) as reader:
            await begun(reader)
            assert await told(reader, 3) == ["8", "9", "10"]
        await admin.execute("SELECT hub.prune_stream(0, '-infinity')")
        async with service.read(after=7) as reader:
            await begun(reader)
            gap = await reader.event()
            assert gap is not None
            assert gap.data == {"reason": "expired", "from": 8, "to": 10}
            await tell(admin, "11")
            assert await told(reader, 1) == ["11"]


async def test_a_number_that_the_log_never_had_is_said(serve: Serve, admin: Connection) -> None:
    async with serve() as service, service.read(after=99) as reader:
        await begun(reader)
        gap = await reader.event()
        assert gap is not None
        assert (gap.event, gap.id, gap.data) == ("gap", 0, {"reason": "ahead", "from": 100, "to": 0})
        await tell(admin, "1")
        assert await told(reader, 1) == ["1"]


async def test_a_reader_that_is_ahead_of_this_replica_waits_for_it(serve: Serve, admin: Connection) -> None:
    """Another replica has read further: that is no gap, and nothing is told twice."""
    async with serve(stream_interval_ms=2_000) as service, service.read() as slow:
        await begun(slow)
        await asyncio.sleep(0.1)  # its first turn is over; the next one is in two seconds
        for number in range(1, 4):
            await tell(admin, str(number))
        await admin.execute("UPDATE ops.stream_sequencer SET until = '-infinity'")
        await admin.execute("SELECT hub.sequence_stream($1, 100, 10, 10000)", uuid4())
        async with service.read(after=2) as reader:
            assert (await begun(reader)).id == 2
            assert await told(reader, 1) == ["3"]


# Heartbeats, slow readers, limits, the end


async def test_a_quiet_stream_beats_and_moves_the_position_of_its_reader(serve: Serve, admin: Connection) -> None:
    async with serve(stream_heartbeat_ms=100) as service, service.read("?topics=audit") as reader:
        await begun(reader)
        await tell(admin, "1")
        async with asyncio.timeout(20):
            while reader.last_id != 1:
                block = await reader.block()
                assert block is not None
                assert (block.comment, block.data) == ("heartbeat", None)


async def test_a_healthy_stream_outlives_every_deadline_of_http(serve: Serve, admin: Connection) -> None:
    deadlines = dict.fromkeys(
        ("header_timeout_ms", "body_timeout_ms", "write_timeout_ms", "keep_alive_timeout_ms"), 100
    )
    async with serve(**deadlines) as service, service.read() as reader:
        await begun(reader)
        await asyncio.sleep(0.5)
        await tell(admin, "late")
        assert await told(reader, 1) == ["late"]


async def test_a_slow_reader_is_cut_off_and_loses_nothing_when_it_resumes(serve: Serve, admin: Connection) -> None:
    events = 400
    async with serve(stream_queue_events=40) as service, service.read(receive_bytes=4_096) as slow:
        async with service.read() as quick:
            await begun(slow)
            await begun(quick)
            for number in range(events):
                await tell(admin, str(number), text="x" * 15_000)
                if number % 20 == 0:
                    await told(quick, 20 if number else 1)
            await until(lambda: service.metric("hubscope_stream_ended_total", reason="slow") == 1)
            got = []
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
                while True:
                    got += await told(slow, 1)
            assert 0 < len(got) < events
            async with service.read(after=slow.last_id) as again:
                await begun(again)
                got += await told(again, events - len(got))
            assert got == [str(number) for number in range(events)]
        await until(lambda: service.metric("hubscope_stream_ended_total", reason="client") == 2)
        assert service.metric("hubscope_stream_ended_total", reason="slow") == 1


async def test_a_stream_too_many_is_told_so(serve: Serve, database: str) -> None:
    keys = {tenant: (await make_key(database, tenant=tenant, name=tenant))[1] for tenant in ("red", "blue")}
    async with serve(stream_max_subscribers=3, stream_max_subscribers_tenant=2) as service, AsyncExitStack() as stack:
        for tenant in ("red", "red", "blue"):
            reader = await stack.enter_async_context(service.read(key=keys[tenant]))
            assert reader.status == 200
        for tenant, status, code in (("red", 429, "too_many_streams"), ("blue", 503, "streams_full")):
            async with service.read(key=keys[tenant]) as reader:
                assert (reader.status, reader.headers["retry-after"]) == (status, "5")
                assert (await reader.problem())["code"] == code
        assert service.metric("hubscope_stream_subscribers") == 3
        assert service.metric("hubscope_stream_refused_total", reason="tenant") == 1
        assert service.metric("hubscope_stream_refused_total", reason="all") == 1
        await stack.aclose()
        await until(lambda: service.metric("hubscope_stream_subscribers") == 0)
        async with service.read(key=keys["red"]) as reader:
            assert reader.status == 200


async def test_streams_end_at_once_with_a_word_when_the_service_stops(serve: Serve, admin: Connection) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serve(drain_timeout_ms=10_000))
        readers = [await stack.enter_async_context(service.read()) for _ in range(3)]
        for reader in readers:
            await begun(reader)
        await tell(admin, "last")
        for reader in readers:
            assert await told(reader, 1) == ["last"]

        async def last_words(reader: Reader) -> Block | None:
            block = await reader.event()
            assert await reader.block() is None  # the answer ends as it should
            return block

        words = [asyncio.create_task(last_words(reader)) for reader in readers]
        started = loop.time()
        service.app.streams.drain()
        for block in await asyncio.gather(*words):
            assert block is not None
            assert (block.event, block.data) == ("end", {"reason": "shutdown"})
            assert block.retry_ms is not None
        assert loop.time() - started < 5
        async with service.read() as late:
            assert late.status == 503
        assert service.metric("hubscope_stream_ended_total", reason="shutdown") == 3


async def test_streams_hold_no_connection_to_the_database(serve: Serve, settings: Settings, admin: Connection) -> None:
    async with serve(pool_max=settings.writers + 7) as service, AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(service.read()) for _ in range(40)]
        for reader in readers:
            await begun(reader)
        assert await service.app.reachable()
        await tell(admin, "one")
        for reader in readers:
            assert await told(reader, 1) == ["one"]


async def test_a_stream_survives_a_database_that_is_away(serve: Serve, admin: Connection) -> None:
    async with serve(stream_heartbeat_ms=100) as service, service.read() as reader:
        await begun(reader)
        await tell(admin, "before")
        assert await told(reader, 1) == ["before"]
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hubscope stream'"
            " AND datname = current_database()"
        )
        await tell(admin, "after")
        assert await told(reader, 1) == ["after"]


# Calls cost nothing


async def test_calls_are_no_news_and_changes_of_servers_are(serve: Serve, admin: Connection) -> None:
    async def post(service: Service, *events: dict[str, Any]) -> None:
        await service.app.ingest.post(LOCAL, json.dumps(events).encode(), "application/json")

    async with serve() as service, service.read() as reader:
        await begun(reader)
        await post(service, tool_call(), tool_call())
        await post(service, server_event(state="up"), server_event(state="up"))
        await post(service, server_event(state="up"), tool_call())
        await post(service, server_event(state="down", outcome="timeout", error_type="timeout"))
        events = await reader.events(2)
        assert [event.data["name"] for event in events] == ["server_up", "server_down"]
        assert events[1].data["payload"]["before"] == "up"
        assert await admin.fetchval("SELECT count(*) FROM hub.stream_outbox") == 0
