"""The federation API over HTTP: paths, shapes and statuses as its clients know them, and who may do what."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute

from hubscope.access import Principal, Scope
from hubscope.app import App
from hubscope.entrypoints import admission, federation
from hubscope.entrypoints.http import asgi
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.conftest import ROLE_PREFIX
from tests.upstream import Listening, http_app, listening

BASE = "/api/v1/federation"
SERVER = {
    "id": "postgres-mcp-server-v1.0.0",
    "name": "PostgreSQL MCP Server",
    "description": "Advanced PostgreSQL database integration with read-only access",
    "version": "1.0.0",
    "category": "database",
    "protocol": "http",
    "capabilities": ["query", "describe_table", "list_tables", "analyze_query"],
    "health_check": {"enabled": False},
}
ID = SERVER["id"]


@pytest.fixture
def settings(database: str) -> Settings:
    return Settings.load(
        database_url=database,
        role_prefix=ROLE_PREFIX,
        peer_networks="127.0.0.1",
        peer_timeout_ms=1_000,
        peer_max_request_bytes=10_000,
        encryption_key="k" * 32,
    )


@pytest.fixture
async def upstream() -> AsyncIterator[Listening]:
    async with listening(http_app()) as server:
        yield server


async def register(client: httpx2.AsyncClient, upstream: Listening, **more: Any) -> httpx2.Response:
    return await client.post(f"{BASE}/servers", json={**SERVER, "endpoint": upstream.url, **more})


def problem(response: httpx2.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    return response.status_code, response.json()["code"]


async def test_a_server_is_registered_listed_shown_and_deleted(client: httpx2.AsyncClient, upstream: Listening) -> None:
    assert (await client.get(f"{BASE}/servers")).json() == {"servers": [], "total": 0}
    made = await register(client, upstream)
    assert made.status_code == 201
    assert made.json()["message"] == "Server registered successfully"
    assert made.json()["server_id"] == ID

    shown = (await client.get(f"{BASE}/servers/{ID}")).json()
    assert {name: shown[name] for name in SERVER if name != "health_check"} == {
        name: value for name, value in SERVER.items() if name != "health_check"
    }
    assert (shown["status"], shown["auth"], shown["metadata"], shown["tags"]) == ("unknown", {"type": "none"}, {}, [])
    assert (await client.get(f"{BASE}/servers")).json() == {"servers": [shown], "total": 1}
    category = await client.get(f"{BASE}/categories/database/servers")
    assert category.json() == {"category": "database", "servers": [shown], "total": 1}
    assert (await client.get(f"{BASE}/categories/none/servers")).json()["total"] == 0

    assert problem(await register(client, upstream)) == (409, "server_taken")
    gone = await client.delete(f"{BASE}/servers/{ID}")
    assert gone.json() == {"message": "Server unregistered successfully", "server_id": ID}
    # What was shown can be registered again.
    assert (await client.post(f"{BASE}/servers", json=shown)).status_code == 201


async def test_an_unknown_id_is_a_404(client: httpx2.AsyncClient) -> None:
    for method, path in (
        ("GET", "servers/none"),
        ("DELETE", "servers/none"),
        ("GET", "servers/none/health"),
        ("POST", "servers/none/invoke"),
        ("POST", "servers/none/maintenance"),
    ):
        hour = {"until": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
        body = {"method": "x"} if path.endswith("invoke") else hour
        done = await client.request(method, f"{BASE}/{path}", json=body if method == "POST" else None)
        assert problem(done) == (404, "unknown_server"), path


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("echo", {"text": "hi"}, {"structuredContent": {"result": "hi"}, "isError": False}),
        ("tools/call", {"name": "echo", "arguments": {"text": "hi"}}, {"structuredContent": {"result": "hi"}}),
        ("fail", {"why": "no"}, {"isError": True}),
        ("tools/list", {}, {}),
        ("resources/read", {"uri": "note://one"}, {}),
        ("resources/list", {}, {}),
    ],
)
async def test_invoke_makes_the_request_and_answers_its_result(
    client: httpx2.AsyncClient, upstream: Listening, method: str, params: Any, expected: dict[str, Any]
) -> None:
    await register(client, upstream)
    done = await client.post(f"{BASE}/servers/{ID}/invoke", json={"id": "7", "method": method, "params": params})
    assert done.status_code == 200
    body = done.json()
    assert body["id"] == "7"
    assert body["meta"]["server_id"] == ID
    assert expected.items() <= body["result"].items()
    if method == "resources/read":
        assert body["result"]["contents"][0]["text"] == "a note"
    if method == "tools/list":
        assert len(body["result"]["tools"]) == 6


async def test_the_servers_own_error_is_in_the_answer(client: httpx2.AsyncClient, upstream: Listening) -> None:
    await register(client, upstream)
    asked = {"method": "resources/read", "params": {"uri": "note://none"}}
    done = await client.post(f"{BASE}/servers/{ID}/invoke", json=asked)
    assert done.status_code == 200
    assert "result" not in done.json()
    assert done.json()["error"]["code"] < 0


async def test_a_server_that_cannot_be_reached_is_a_502(client: httpx2.AsyncClient, upstream: Listening) -> None:
    await register(client, upstream)
    await upstream.stop()
    done = await client.post(f"{BASE}/servers/{ID}/invoke", json={"method": "echo", "params": {"text": "x"}})
    assert problem(done) == (502, "upstream_failed")
    assert done.json()["reason"] == "connect_failed"
    health = await client.get(f"{BASE}/servers/{ID}/health")
    assert health.status_code == 503
    assert (health.json()["status"], health.json()["server_id"]) == ("unhealthy", ID)
    assert "cannot be reached" in health.json()["error"]


async def test_a_server_that_does_not_answer_is_a_504(client: httpx2.AsyncClient, upstream: Listening) -> None:
    await register(client, upstream)
    wait = {"method": "wait", "params": {"seconds": 30}}
    done = await client.post(f"{BASE}/servers/{ID}/invoke", json=wait)
    assert problem(done) == (504, "upstream_timeout")
    quick = await client.post(f"{BASE}/servers/{ID}/invoke", json=wait | {"metadata": {"timeout": "50ms"}})
    assert "0.05 s" in quick.json()["detail"]


async def test_a_timeout_over_the_limit_is_refused(client: httpx2.AsyncClient, upstream: Listening) -> None:
    await register(client, upstream)
    done = await client.post(f"{BASE}/servers/{ID}/invoke", json={"method": "x", "metadata": {"timeout": "1h"}})
    assert problem(done) == (400, "invalid_parameter")
    assert "HUBSCOPE_PEER_MAX_TIMEOUT" in done.json()["detail"]


async def test_health_and_metrics_tell_of_all_servers(client: httpx2.AsyncClient, upstream: Listening) -> None:
    await register(client, upstream)
    await client.post(f"{BASE}/servers/{ID}/invoke", json={"method": "echo", "params": {"text": "x"}})
    await client.post(f"{BASE}/servers/{ID}/invoke", json={"method": "fail", "params": {"why": "x"}})
    one = await client.get(f"{BASE}/servers/{ID}/health")
    assert (one.status_code, one.json()["status"], one.json()["error"]) == (200, "healthy", None)
    assert (await client.get(f"{BASE}/health")).json()["status"] == {ID: "unknown"}  # nobody watches it
    metrics = (await client.get(f"{BASE}/metrics")).json()
    assert metrics.pop("average_response_time_ms") > 0
    assert metrics == {
        "servers_registered": 1,
        "servers_active": 0,
        "requests_total": 2,
        "requests_successful": 1,
        "requests_failed": 1,
        "health_checks_total": 1,
        "health_checks_failed": 0,
    }


async def test_broadcast_asks_every_server_that_is_up(client: httpx2.AsyncClient, upstream: Listening) -> None:
    assert problem(await client.post(f"{BASE}/broadcast", json={"method": "echo"})) == (502, "upstream_failed")
    for number in range(3):
        watched = {"health_check": {"interval": "1s"}} if number else {}
        await register(client, upstream, id=f"s{number}", **watched)
    for _ in range(200):
        answer = await client.get(f"{BASE}/health")
        assert answer.status_code == 200, answer.text
        states = answer.json()["states"]
        if list(states.values()).count("up") == 2:
            break
        await asyncio.sleep(0.02)
    done = (await client.post(f"{BASE}/broadcast", json={"method": "echo", "params": {"text": "all"}})).json()
    assert done["total"] == 2
    assert {one["meta"]["server_id"] for one in done["responses"]} == {"s1", "s2"}
    assert all(one["result"]["structuredContent"] == {"result": "all"} for one in done["responses"])
    assert re.fullmatch(r"req_\d+", done["request_id"])


async def test_secrets_are_never_echoed(client: httpx2.AsyncClient, upstream: Listening) -> None:
    auth = {"type": "bearer", "config": {"token": "hunter2"}}
    texts = [(await register(client, upstream, auth=auth)).text]
    for path in ("servers", f"servers/{ID}", f"servers/{ID}/health", "categories/database/servers"):
        texts.append((await client.get(f"{BASE}/{path}")).text)
    texts.append((await register(client, upstream, auth=auth)).text)
    texts.append((await register(client, upstream, id="x", auth={"type": "basic", "config": auth["config"]})).text)
    assert not any("hunter2" in text for text in texts)
    assert json.loads(texts[1])["servers"][0]["auth"] == {"type": "bearer"}


async def test_a_command_is_never_taken_over_http(client: httpx2.AsyncClient) -> None:
    for body in (
        {"id": "x", "protocol": "stdio", "endpoint": "/bin/sh"},
        {"id": "x", "protocol": "http", "endpoint": "http://127.0.0.1:1", "command": "/bin/sh"},
        {"id": "x", "protocol": "http", "endpoint": "http://127.0.0.1:1", "trusted": True},
    ):
        assert problem(await client.post(f"{BASE}/servers", json=body)) == (400, "invalid_parameter")
    grpc = await client.post(f"{BASE}/servers", json={"id": "x", "protocol": "grpc", "endpoint": "grpc://x"})
    assert problem(grpc) == (400, "invalid_parameter")
    assert "gRPC" in grpc.json()["detail"]


async def test_a_body_over_the_limit_is_refused_with_the_limit(client: httpx2.AsyncClient) -> None:
    for path in ("servers", f"servers/{ID}/invoke", "broadcast", f"servers/{ID}/maintenance"):
        done = await client.post(f"{BASE}/{path}", content=b'{"method": "' + b"x" * 10_000 + b'"}')
        assert problem(done) == (413, "body_too_large"), path
        assert done.json()["limit_body_bytes"] == 10_000


async def test_a_body_that_is_no_json_object_is_refused(client: httpx2.AsyncClient) -> None:
    for body in (b"", b"{", b"[]", b"null", b'"x"', b"[" * 9_000, b"\xff"):
        done = await client.post(f"{BASE}/servers", content=body)
        assert problem(done) == (400, "invalid_request"), body[:10]


async def test_maintenance_windows_are_planned_listed_cancelled_and_audited(
    client: httpx2.AsyncClient, upstream: Listening, app: App, admin: Connection
) -> None:
    await register(client, upstream)
    until = datetime.now(UTC) + timedelta(hours=1)
    made = await client.post(f"{BASE}/servers/{ID}/maintenance", json={"until": until.isoformat(), "reason": "upgrade"})
    assert made.status_code == 201
    window = made.json()["id"]
    assert (await client.get(f"{BASE}/servers/{ID}")).json()["status"] == "maintenance"
    listed = (await client.get(f"{BASE}/maintenance")).json()
    assert [(one["id"], one["reason"], one["source"]) for one in listed["windows"]] == [(window, "upgrade", "api")]

    assert (await client.delete(f"{BASE}/servers/{ID}/maintenance/{window}")).status_code == 200
    assert (await client.get(f"{BASE}/servers/{ID}")).json()["status"] != "maintenance"
    assert problem(await client.delete(f"{BASE}/servers/{ID}/maintenance/{window}")) == (404, "unknown_window")
    assert (await client.get(f"{BASE}/maintenance")).json()["total"] == 0
    assert (await client.get(f"{BASE}/maintenance", params={"all": True})).json()["total"] == 1
    await app.peers.flushed()
    rows = await admin.fetch("SELECT name, payload FROM raw.hub_events WHERE type = 'audit' ORDER BY time, event_id")
    assert [row["name"] for row in rows] == ["server_registered", "maintenance_planned", "maintenance_cancelled"]
    assert json.loads(rows[1]["payload"]).items() >= {"server": ID, "reason": "upgrade", "by": "api"}.items()


NO_WINDOWS: tuple[dict[str, Any], ...] = (
    {},
    {"until": "soon"},
    {"until": "2030-01-01T00:00:00"},
    {"until": "2020-01-01T00:00:00Z"},
    {"from": "2030-01-02T00:00:00Z", "until": "2030-01-01T00:00:00Z"},
    {"from": "2030-01-01T00:00:00Z", "until": "2040-01-01T00:00:00Z"},
    {"until": "2030-01-01T00:00:00Z", "reason": 5},
    {"until": "2030-01-01T00:00:00Z", "why": "x"},
)


async def test_a_window_that_makes_no_sense_is_refused(client: httpx2.AsyncClient) -> None:
    for body in NO_WINDOWS:
        done = await client.post(f"{BASE}/servers/{ID}/maintenance", json=body)
        assert problem(done) == (400, "invalid_parameter"), body


READS = ("servers", f"servers/{ID}", "health", "metrics", "categories/x/servers", "maintenance")
CHANGES = (
    ("POST", "servers"),
    ("DELETE", f"servers/{ID}"),
    ("POST", f"servers/{ID}/maintenance"),
    ("DELETE", f"servers/{ID}/maintenance/01890000-0000-7000-8000-000000000000"),
)
CALLS = (("POST", f"servers/{ID}/invoke"), ("POST", "broadcast"))


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        ({Scope.READ}, {"read"}),
        ({Scope.CHAINS}, {"call"}),
        ({Scope.READ, Scope.CHAINS}, {"read", "call"}),
        ({Scope.READ, Scope.ADMIN}, {"read", "change"}),
        ({Scope.INGEST, Scope.SQL}, set()),
        ({Scope.ADMIN}, set()),  # changing asks for read, too
    ],
    ids=lambda value: "+".join(sorted(value)) or "nothing",
)
async def test_each_scope_may_do_its_own(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, scopes: set[Scope], may: set[str]
) -> None:
    principal = Principal("default", frozenset(scopes))

    async def of_this_machine(_door: Any, _scope: Any) -> Principal:
        return principal

    monkeypatch.setattr(admission.Door, "_of_this_machine", of_this_machine)
    paths = [("GET", path, "read") for path in READS]
    paths += [(method, path, "change") for method, path in CHANGES]
    paths += [(method, path, "call") for method, path in CALLS]
    for method, path, kind in paths:
        done = await client.request(method, f"{BASE}/{path}", json={} if method == "POST" else None)
        assert (done.status_code != 403) == (kind in may), (method, path)


def test_every_route_stands_in_the_table_of_scopes(app_routes: set[tuple[str, str]]) -> None:
    stated = {("GET", path) for path in READS} | set(CHANGES) | set(CALLS) | {("GET", f"servers/{ID}/health")}
    shapes = {(method, re.sub(r"categories/\w+", "categories/{category}", path)) for method, path in stated}
    shapes = {(method, path.replace(str(ID), "{server_id}")) for method, path in shapes}
    assert {
        (method, re.sub(r"maintenance/[0-9a-f-]{36}", "maintenance/{window_id}", path)) for method, path in shapes
    } == app_routes


@pytest.fixture
def app_routes(app: App) -> set[tuple[str, str]]:
    """Method and path, below the prefix, of every route."""
    return {
        (method, route.path.removeprefix(f"{BASE}/"))
        for route in federation.routes(app.peers, app.settings).routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }


async def test_a_client_that_hangs_up_cancels_the_call(
    client: httpx2.AsyncClient, upstream: Listening, app: App
) -> None:
    await register(client, upstream)

    gone = asyncio.Event()
    body = json.dumps({"method": "wait", "params": {"seconds": 30}, "metadata": {"timeout": "30s"}}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        return

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{BASE}/servers/{ID}/invoke",
        "raw_path": b"",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 3401),
        "scheme": "http",
        "http_version": "1.1",
    }
    async with asgi(app) as front:
        call = asyncio.create_task(front(scope, receive, send))
        await asyncio.sleep(0.3)
        assert not call.done()
        gone.set()
        await asyncio.wait_for(call, 10)
    await app.peers.flushed()
    metrics = (await client.get(f"{BASE}/metrics")).json()
    assert metrics["requests_failed"] == 1
