"""What is told, and when: each part of the product, from the call that changes something to what a reader sees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import pytest

from hubscope.access import LOCAL, Scope
from hubscope.app import App, migrate_store
from hubscope.entrypoints.serve import listen, serving
from hubscope.errors import Unavailable
from hubscope.ingest import Ingest
from hubscope.ingest.envelope import Window
from hubscope.instruments import Instruments
from hubscope.peers import Peers
from hubscope.schedule import Job, run_once
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from hubscope.store.move import move
from tests.chain_peers import stdio_peers
from tests.conftest import ROLES, held
from tests.events import server_event, tool_call
from tests.integration.chains.conftest import KEY, step
from tests.integration.entrypoints.test_stream import begun
from tests.integration.journal.test_audit_log import record
from tests.keys import PEPPER, make_key
from tests.sse import Block, Reader, reading
from tests.upstream import NO_DNS_CHECK, build, listening

pytestmark = [pytest.mark.realtime, pytest.mark.integration]

Serve = Callable[..., AbstractAsyncContextManager["Service"]]
SEQUENCE: Final = "SELECT hub.sequence_stream(gen_random_uuid(), 1, 10000, 100000)"
PLAN: Final = (
    "INSERT INTO hub.maintenance_windows (window_id, server_id, starts_at, ends_at)"
    " VALUES (gen_random_uuid(), 's', now(), now() + interval '1 hour')"
)
TOLD: Final = "SELECT topic, name FROM hub.stream_outbox ORDER BY id"


class Service:
    """A service that listens."""

    def __init__(self, url: str, app: App, http: httpx2.AsyncClient) -> None:
        self.app = app
        self.http = http
        self.port = urlsplit(url).port or 0

    def read(self, query: str = "", **more: Any) -> AbstractAsyncContextManager[Reader]:
        return reading(self.port, query, **more)

    async def post(self, *events: dict[str, Any]) -> None:
        answer = await self.http.post("/v1/events", json=list(events))
        assert answer.status_code == 200, answer.text


@pytest.fixture
def serve(settings: Settings, database: str, monkeypatch: pytest.MonkeyPatch) -> Serve:
    monkeypatch.setenv("HUBSCOPE_SQL_IN_SERVICE", "false")

    @asynccontextmanager
    async def start(*, called: Peers | None = None, **changes: Any) -> AsyncIterator[Service]:
        own = {"port": 0, "stream_interval_ms": 20, "encryption_key": KEY, "peer_networks": "127.0.0.1"}
        changed = settings.model_copy(update=own | changes)
        listener = listen(changed)
        try:
            async with (
                held(serving(changed, database, listener, called=called)) as (url, app),
                httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as http,
            ):
                yield Service(url, app, http)
        finally:
            listener.close()

    return start


def named(events: list[Block]) -> list[tuple[str, str, str]]:
    return [(event.event, event.data["name"], event.data["subject"]) for event in events]


# Chains


async def test_a_chain_is_followed_step_by_step(serve: Serve, tmp_path: Path) -> None:
    async with stdio_peers(tmp_path) as peers, serve(called=peers) as service, service.read("?topics=chain") as reader:
        await begun(reader)
        chain = [
            step("look", "a"),
            step("flaky", "b", arguments={"failures": 1}, retry={"max_attempts": 2, "backoff_ms": 1}),
            step("note", "c", conditions={"execute_if": "steps.a.status == 'failed'"}),
            step("put", "d"),
        ]
        answer = await service.http.post("/api/v1/chains", json={"chain": chain, "metadata": {"ticket": 7}})
        report = answer.json()
        assert report["status"] == "completed", report
        events: list[Block] = []
        while not events or events[-1].data["name"] != "chain_completed":
            events += await reader.events(1)
        assert {event.data["subject"] for event in events} == {report["chain_id"]}
        assert events[0].data["name"] == "chain_started"
        assert events[0].data["payload"]["metadata"] == {"ticket": 7}
        steps = [
            (event.data["payload"]["step"]["id"], event.data["name"], event.data["payload"]["step"]["attempts"])
            for event in events[1:-1]
        ]
        assert steps == [
            ("a", "step_running", 1),
            ("a", "step_completed", 1),
            ("b", "step_running", 1),
            ("b", "step_retrying", 1),
            ("b", "step_running", 2),
            ("b", "step_completed", 2),
            ("c", "step_skipped", 0),
            ("d", "step_running", 1),
            ("d", "step_completed", 1),
        ]
        settled = [event.data["payload"]["progress_percent"] for event in events]
        assert settled == sorted(settled)
        assert (settled[0], settled[-1]) == (0, 100)
        async with service.read(f"?chain={report['chain_id']}&lastEventId=0") as again:
            await begun(again)
            assert await again.events(len(events)) == events
        async with service.read(f"?name=step_completed&server=work&chain={report['chain_id']}", after=0) as some:
            await begun(some)
            assert [one.data["payload"]["step"]["id"] for one in await some.events(3)] == ["a", "b", "d"]


async def test_a_chain_that_is_not_tracked_is_not_told(serve: Serve, tmp_path: Path, admin: Connection) -> None:
    async with stdio_peers(tmp_path) as peers, serve(called=peers) as service:
        body = {"chain": [step("look", "a")], "enableTracking": False}
        assert (await service.http.post("/api/v1/chains", json=body)).json()["status"] == "completed"
    assert await admin.fetchval("SELECT count(*) FROM hub.stream_events") == 0
    assert await admin.fetch(TOLD) == []


# Servers


async def test_a_server_is_followed_from_its_registration_to_its_end(serve: Serve) -> None:
    offering = build()

    async def more() -> str:
        return "more"

    mcp = offering.streamable_http_app(stateless_http=True, json_response=True, transport_security=NO_DNS_CHECK)
    async with (
        listening(mcp) as upstream,
        serve(probe_lease_ms=600) as service,
        service.read("?topics=metadata,health") as reader,
    ):
        await begun(reader)
        check = {"interval": "1s", "timeout": "1s", "healthy_threshold": 1, "unhealthy_threshold": 1}
        body = {
            "id": "up",
            "name": "up",
            "endpoint": upstream.url,
            "protocol": "http",
            "auth": {"type": "bearer", "config": {"token": "hunter2-hunter2"}},
            "health_check": check,
        }
        path = "/api/v1/federation/servers"
        answer = await service.http.post(path, json=body)
        assert answer.status_code == 201, answer.text
        events = await reader.events(2)
        assert named(events) == [("metadata", "server_registered", "up"), ("health", "server_up", "up")]
        assert events[1].data["payload"]["source"] in ("probe", "connection")
        offering.add_tool(more, name="more")
        (change,) = await reader.events(1)
        assert named([change]) == [("metadata", "tools_list_changed", "up")]
        assert change.data["payload"]["reported"]["added"] == ["more"]
        until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        window = (await service.http.post(f"{path}/up/maintenance", json={"until": until, "reason": "r"})).json()
        events += await reader.events(2)
        assert named(events[2:]) == [("health", "maintenance_planned", "up"), ("health", "server_maintenance", "up")]
        await service.http.delete(f"{path}/up/maintenance/{window['id']}")
        events += await reader.events(2)
        assert named(events[4:])[0] == ("health", "maintenance_cancelled", "up")
        assert (await service.http.delete(f"{path}/up")).status_code == 200
        while events[-1].data["name"] != "server_unregistered":
            events += await reader.events(1)
        whole = json.dumps([event.data for event in events])
        assert "hunter2" not in whole
        assert str(urlsplit(upstream.url).port) not in whole


# What is reported


async def test_reports_are_told_but_for_calls_and_repetitions(serve: Serve, admin: Connection) -> None:
    now = datetime.now(UTC)

    def of(kind: str, name: str, **more: Any) -> dict[str, Any]:
        return {"type": kind, "time": now.isoformat(), "name": name, **more}

    async with serve() as service, service.read() as reader:
        await begun(reader)
        await service.post(
            tool_call(),
            server_event(server="a", state="up", time=(now - timedelta(seconds=9)).isoformat()),
            server_event(server="a", state="down", time=(now - timedelta(seconds=8)).isoformat()),
            server_event(server="a", state="down", time=(now - timedelta(seconds=7)).isoformat()),
            server_event(server="b", state="up"),
        )
        assert named(await reader.events(3)) == [
            ("health", "server_up", "a"),
            ("health", "server_down", "a"),
            ("health", "server_up", "b"),
        ]
        await service.post(
            server_event(server="a", state="up", time=(now - timedelta(seconds=60)).isoformat()),  # of before
            server_event(server="b", state="up"),
            of("hub_event", "hub_alive"),
            of("hub_event", "mcp_request", payload={"server": "a"}),
            of("hub_event", "tools_list_changed", payload={"server": "a", "token": "password=hunter2"}),
            of("hub_event", "hub_away"),
            of("audit", "key_used", hub="north"),
            {"type": "chain", "time": now.isoformat(), "chain_id": "c-1", "status": "running"},
            {"type": "chain_step", "time": now.isoformat(), "chain_id": "c-1", "step_index": 0, "status": "failed"},
        )
        events = await reader.events(5)
        assert named(events) == [
            ("metadata", "tools_list_changed", "a"),
            ("health", "hub_away", ""),
            ("audit", "key_used", ""),
            ("chain", "chain_running", "c-1"),
            ("chain", "step_failed", "c-1"),
        ]
        assert events[0].data["server"] == "a"
        assert events[2].data["payload"]["reported_by"] == "north"
        assert "hunter2" not in json.dumps([event.data for event in events])
        same = server_event(server="c", state="up")
        for _ in range(3):  # the same post again: it was told
            await service.post(same, of("hub_event", "config_changed", event_id=same["event_id"]))
        assert named(await reader.events(2)) == [("metadata", "config_changed", ""), ("health", "server_up", "c")]
        await asyncio.gather(*(service.post(server_event(server="d", state="up")) for _ in range(20)))
        await service.post(of("hub_event", "config_changed"))
        assert named(await reader.events(2)) == [("health", "server_up", "d"), ("metadata", "config_changed", "")]


async def test_two_writers_that_hear_of_the_same_change_tell_it_once(database: str, admin: Connection) -> None:
    """Each in a transaction that began before the other's commit."""
    tell = (
        "SELECT hub.tell_reported('{t}', '{health}', ARRAY['server_' || $1], '{a}', '{a}', ARRAY[$2::timestamptz],"
        " ARRAY['{}'::jsonb], ARRAY[''], ARRAY[$1::text])"
    )
    now = datetime.now(UTC)
    first = await connect(database, role=ROLES.writer, name="tests")
    second = await connect(database, role=ROLES.writer, name="tests")
    try:
        for state, seconds in (("up", 0), ("down", 1)):
            at = now + timedelta(seconds=seconds)
            transaction = first.transaction()
            await transaction.start()
            assert await first.fetchval(tell, state, at) == 1
            waiting = asyncio.create_task(second.fetchval(tell, state, at))
            pid = second.get_server_pid()
            async with asyncio.timeout(20):
                while not await admin.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid):  # noqa: ASYNC110 (it is in the database)
                    await asyncio.sleep(0.01)
            await transaction.commit()
            assert await waiting == 0
    finally:
        await first.close()
        await second.close()
    assert [row["name"] for row in await admin.fetch(TOLD)] == ["server_up", "server_down"]


async def test_posts_of_calls_ask_the_database_for_nothing_more(
    settings: Settings, database: str, admin: Connection
) -> None:
    """Nothing is told without `tell_reported`, and calls are stored without it."""
    signature = "hub.tell_reported(text[], text[], text[], text[], text[], timestamptz[], jsonb[], text[], text[])"
    await admin.execute(f"REVOKE ALL ON FUNCTION {signature} FROM {ROLES.writer}")
    ingest = Ingest(lambda: connect(database, role=ROLES.writer, name="tests"), settings, Instruments())
    await ingest.start()
    try:
        call = tool_call()
        for _ in range(2):  # by COPY, then the way of duplicates
            await ingest.post(LOCAL, json.dumps([call, tool_call()]).encode(), "application/json")
        with pytest.raises(Unavailable):
            await ingest.post(LOCAL, json.dumps([server_event()]).encode(), "application/json")
    finally:
        await ingest.close(5)
    assert await admin.fetchval("SELECT count(*) FROM raw.tool_calls") == 3


async def test_history_is_no_news(settings: Settings, database: str, admin: Connection) -> None:
    ingest = Ingest(lambda: connect(database, role=ROLES.writer, name="tests"), settings, Instruments(), tell=False)
    await ingest.start()

    async def prepare(_days: Any) -> None:
        return None

    try:
        body = "\n".join(json.dumps(event) for event in (server_event(), server_event(state="down")))
        oldest = Window.around(datetime.now(UTC), max_age=timedelta(days=1), max_skew=timedelta(seconds=60)).oldest
        receipt = await ingest.history(LOCAL, body.encode(), 2, oldest=oldest, prepare=prepare)
    finally:
        await ingest.close(5)
    assert receipt.accepted == 2
    assert await admin.fetch(TOLD) == []


# Audit, jobs


async def test_an_audit_record_is_told_to_who_may_read_it(serve: Serve, database: str) -> None:
    _, admin_key = await make_key(database, Scope.READ, Scope.ADMIN, name="a")
    _, read_key = await make_key(database, Scope.READ, name="r")
    async with (
        serve(key_pepper=PEPPER) as service,
        service.read(key=admin_key) as auditor,
        service.read(key=read_key) as other,
    ):
        await begun(auditor)
        await begun(other)
        await service.app.journal.append(record(tenant="default", description="looked"))
        (event,) = await auditor.events(1)
        assert event.event == "audit"
        assert event.data["payload"]["description"] == "looked"
        assert "tenant_id" not in event.data["payload"]
        await service.app.ingest.post(LOCAL, json.dumps([server_event(server="after")]).encode(), "application/json")
        assert named(await other.events(1)) == [("health", "server_up", "after")]


async def test_a_job_that_renews_what_is_read_is_told_to_every_tenant(
    serve: Serve, database: str, admin: Connection
) -> None:
    _, key = await make_key(database, tenant="acme")

    async def work() -> dict[str, Any]:
        return {"models": 12}

    async def worker() -> Connection:
        return await connect(database, role=ROLES.worker, name="tests")

    async with serve(key_pepper=PEPPER) as service, service.read("?topics=analytics", key=key) as reader:
        await begun(reader)
        assert await run_once(Job("fold_like", timedelta(hours=1), work), worker)  # nobody's business
        assert await run_once(Job("build_marts", timedelta(hours=1), work), worker)
        (event,) = await reader.events(1)
        assert (event.data["name"], event.data["subject"]) == ("marts_built", "build_marts")
        assert event.data["payload"].keys() == {"job", "ok", "seconds"}
        assert event.data["payload"]["ok"] is True
    tenants = await admin.fetch("SELECT tenant_id FROM hub.stream_events WHERE name = 'marts_built' ORDER BY 1")
    assert [row["tenant_id"] for row in tenants] == ["acme", "default"]


# Together or not at all


async def test_what_is_rolled_back_is_not_told(admin: Connection) -> None:
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute(PLAN)
    assert len(await admin.fetch(TOLD)) == 1
    await transaction.rollback()
    assert await admin.fetch(TOLD) == []
    await admin.execute(PLAN)
    assert [tuple(row) for row in await admin.fetch(TOLD)] == [("health", "maintenance_planned")]


async def test_a_store_that_is_moved_goes_on_with_its_numbers_and_tells_nothing_again(
    admin: Connection, empty_database: str, settings: Settings
) -> None:
    for _ in range(3):
        await admin.execute(PLAN)
    await admin.execute(SEQUENCE)
    await admin.execute(PLAN)
    await migrate_store(settings.model_copy(update={"database_url": empty_database}), empty_database)
    new = await connect(empty_database, role=ROLES.owner, name="tests")
    try:
        await move(admin, new)
        assert len(await new.fetch(TOLD)) == 1
        await new.execute(PLAN)
        await new.execute(SEQUENCE)
        rows = await new.fetch("SELECT seq FROM hub.stream_events ORDER BY seq")
        assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    finally:
        await new.close()
