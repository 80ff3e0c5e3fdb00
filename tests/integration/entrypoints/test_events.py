"""POST /v1/events: bodies, limits, encodings and failures, and that 2xx means committed."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, cast

import httpx2
import pytest
import uvicorn

from hubscope.app import App, opened
from hubscope.entrypoints.http import asgi
from hubscope.errors import CommitUnknown, DatabaseAway, HubscopeError, QueueFull, ShuttingDown
from hubscope.ingest import Ingest
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.conftest import held
from tests.events import server_event, tool_call

pytestmark = [pytest.mark.bridge, pytest.mark.integration]

PATH: Final = "/v1/events"
JSON: Final = {"content-type": "application/json"}
NDJSON: Final = {"content-type": "application/x-ndjson"}
GZIP: Final = JSON | {"content-encoding": "gzip"}
NOBODY: Final = "postgresql://nobody@127.0.0.1:1/nowhere"
# Nobody needs a key: a database that is away could not tell who has one.
LIMITS: Final[dict[str, Any]] = {
    "loopback_trust": "always",
    "max_body_bytes": 4_000,
    "max_decoded_bytes": 20_000,
    "max_batch_events": 3,
    "drain_timeout_ms": 200,  # what is recorded of a refusal waits so long for the database
}


def calls(count: int) -> list[dict[str, Any]]:
    return [tool_call() for _ in range(count)]


def encoded(*events: dict[str, Any]) -> bytes:
    return json.dumps(events).encode()


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The answer as a problem in the shape of RFC 9457, checked."""
    assert response.headers["content-type"] == "application/problem+json"
    body = cast(dict[str, Any], response.json())
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"] == f"urn:hubscope:error:{code}"
    assert body["title"] == HTTPStatus(status).phrase
    assert body["detail"]
    assert ("retry-after" in response.headers) == (status == 503)
    return body


def answered(app: App) -> dict[str, float]:
    """How many posts were answered with which status, as the metrics tell it."""
    samples = [sample for family in app.instruments.posts.collect() for sample in family.samples]
    return {sample.labels["status"]: sample.value for sample in samples}


async def stored(admin: Connection) -> int:
    count: int = await admin.fetchval("SELECT count(*) FROM raw.tool_calls")
    return count


@asynccontextmanager
async def client_of(settings: Settings, dsn: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a service with settings of the test's own, in this process."""
    async with opened(settings, dsn) as app, asgi(app) as application:
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:3401") as client:
            yield client


@pytest.fixture
async def lone_client() -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a service with small limits whose database is away: what gets past them is answered 503."""
    settings = Settings.load(database_url=NOBODY, **LIMITS)
    async with held(client_of(settings, NOBODY)) as client:
        yield client


@asynccontextmanager
async def listening(app: App) -> AsyncIterator[int]:
    """The service behind a real socket: its port."""
    async with asgi(app) as application:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = uvicorn.Config(application, lifespan="off", log_config=None, timeout_graceful_shutdown=2)
            server = uvicorn.Server(config)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield listener.getsockname()[1]
            finally:
                server.should_exit = True
                await running


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 (the condition is in the database)
            await asyncio.sleep(0.005)


# Taken


async def test_a_receipt_adds_up_to_what_was_sent(client: httpx2.AsyncClient, admin: Connection) -> None:
    known, new = calls(2)
    await client.post(PATH, content=encoded(known), headers=JSON)
    response = await client.post(
        PATH, content=encoded(known, tool_call(status="no"), new, new, server_event(), {"type": "x"}), headers=JSON
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    receipt = response.json()
    assert set(receipt) == {"accepted", "duplicates", "rejected"}
    assert (receipt["accepted"], receipt["duplicates"]) == (2, 2)
    assert [(one["index"], one["code"]) for one in receipt["rejected"]] == [(1, "invalid_field"), (5, "unknown_type")]
    assert all(set(one) == {"index", "event_id", "code", "detail"} for one in receipt["rejected"])
    assert await stored(admin) == 2


async def test_what_is_acknowledged_is_there_for_everyone_at_once(
    client: httpx2.AsyncClient, admin: Connection
) -> None:
    for sent in range(1, 11):
        response = await client.post(PATH, content=encoded(tool_call()), headers=JSON)
        assert response.json()["accepted"] == 1
        assert await stored(admin) == sent
        assert await admin.fetchval("SELECT sum(calls) FROM rollup.tool_calls_hourly") == sent


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_body_without_a_length_is_taken_in_chunks(app: App, size: int, admin: Connection) -> None:
    body = encoded(*calls(3))

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    async with listening(app) as port, httpx2.AsyncClient() as client:
        request = client.build_request("POST", f"http://127.0.0.1:{port}{PATH}", content=chunks(), headers=JSON)
        assert "content-length" not in request.headers
        response = await client.send(request)
    assert response.json() == {"accepted": 3, "duplicates": 0, "rejected": []}
    assert await stored(admin) == 3


@pytest.mark.parametrize("encoding", ["gzip", " GZIP "])
@pytest.mark.parametrize("kind", [JSON, NDJSON], ids=["array", "lines"])
async def test_a_body_may_be_zipped(
    client: httpx2.AsyncClient, admin: Connection, encoding: str, kind: dict[str, str]
) -> None:
    events = calls(50)
    body = encoded(*events) if kind is JSON else "\n".join(json.dumps(event) for event in events).encode()
    headers = kind | {"content-encoding": encoding}
    response = await client.post(PATH, content=gzip.compress(body), headers=headers)
    assert response.json() == {"accepted": 50, "duplicates": 0, "rejected": []}
    assert await stored(admin) == 50


async def test_a_plain_body_may_say_that_it_is_plain(client: httpx2.AsyncClient) -> None:
    headers = JSON | {"content-encoding": "identity"}
    response = await client.post(PATH, content=encoded(tool_call()), headers=headers)
    assert response.json()["accepted"] == 1


# Refused


def zipped(*events: dict[str, Any]) -> bytes:
    return gzip.compress(encoded(*events))


EVENTS = calls(3)
REFUSED = {
    "no JSON": ({"content": b"[1", "headers": JSON}, 400, "invalid_request", "not valid JSON"),
    "an empty body": ({"content": b"", "headers": JSON}, 400, "invalid_request", "empty"),
    "one event as JSON": (
        {"content": json.dumps(EVENTS[0]).encode(), "headers": JSON},
        400,
        "invalid_request",
        "x-ndjson",
    ),
    "no content type": ({"content": encoded(*EVENTS)}, 415, "unsupported_media_type", "(none)"),
    "plain text": (
        {"content": encoded(*EVENTS), "headers": {"content-type": "text/plain"}},
        415,
        "unsupported_media_type",
        "text/plain",
    ),
    "brotli": (
        {"content": b"x", "headers": JSON | {"content-encoding": "br"}},
        415,
        "unsupported_media_type",
        "allowed: gzip, identity",
    ),
    "gzip twice": (
        {"content": gzip.compress(zipped(*EVENTS)), "headers": JSON | {"content-encoding": "gzip, gzip"}},
        415,
        "unsupported_media_type",
        "gzip",
    ),
    "no gzip": ({"content": encoded(*EVENTS), "headers": GZIP}, 400, "invalid_request", "gzip"),
    "zlib instead of gzip": (
        {"content": zlib.compress(encoded(*EVENTS)), "headers": GZIP},
        400,
        "invalid_request",
        "gzip",
    ),
    "gzip of nothing at all": ({"content": b"", "headers": GZIP}, 400, "invalid_request", "cut off"),
    "gzip cut off": ({"content": zipped(*EVENTS)[:-9], "headers": GZIP}, 400, "invalid_request", "cut off"),
    "gzip without its checksum": ({"content": zipped(*EVENTS)[:-8], "headers": GZIP}, 400, "invalid_request", "cut"),
    "gzip with a wrong checksum": (
        {"content": zipped(*EVENTS)[:-8] + b"\0" * 8, "headers": GZIP},
        400,
        "invalid_request",
        "gzip",
    ),
    "gzip and more": ({"content": zipped(*EVENTS) + b"more", "headers": GZIP}, 400, "invalid_request", "its end"),
    "gzip of two members": (
        {
            "content": b"".join(gzip.compress(json.dumps(event).encode() + b"\n") for event in EVENTS),
            "headers": GZIP | NDJSON,
        },
        400,
        "invalid_request",
        "its end",
    ),
    "zipped text": ({"content": gzip.compress(b"hello"), "headers": GZIP}, 400, "invalid_request", "neither"),
    "another host": (
        {"content": encoded(*EVENTS), "headers": JSON | {"host": "hub.example.com"}},
        403,
        "forbidden_origin",
        "hub.example.com",
    ),
    "a host that starts like ours": (
        {"content": encoded(*EVENTS), "headers": JSON | {"host": "127.0.0.1.example.com:3401"}},
        403,
        "forbidden_origin",
        "127.0.0.1.example.com",
    ),
    "a page elsewhere": (
        {"content": encoded(*EVENTS), "headers": JSON | {"origin": "https://example.com"}},
        403,
        "forbidden_origin",
        "https://example.com",
    ),
    "a page of nowhere": (
        {"content": encoded(*EVENTS), "headers": JSON | {"origin": "null"}},
        403,
        "forbidden_origin",
        "null",
    ),
}


@pytest.mark.parametrize(("request_of", "status", "code", "word"), REFUSED.values(), ids=REFUSED)
async def test_a_post_that_cannot_be_taken_is_refused_whole_with_the_reason(
    lone_client: httpx2.AsyncClient, request_of: dict[str, Any], status: int, code: str, word: str
) -> None:
    body = problem(await lone_client.post(PATH, **request_of), status, code)
    assert word in body["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:3401"},
        {"host": "LOCALHOST"},
        {"host": "[::1]:3401"},
        {"host": "127.0.0.1"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://127.0.0.1:3401"},
        {"origin": "http://[::1]:8080"},
    ],
    ids=str,
)
async def test_this_machine_may_post_by_any_of_its_names(
    lone_client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    response = await lone_client.post(PATH, content=b"[]", headers=JSON | headers)
    assert response.json() == {"accepted": 0, "duplicates": 0, "rejected": []}


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_only_post_is_allowed(lone_client: httpx2.AsyncClient, method: str) -> None:
    response = await lone_client.request(method, PATH)
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 500):
        yield body[start : start + 500]


def over_events(kind: dict[str, str]) -> dict[str, Any]:
    events = [json.dumps(event) for event in calls(4)]
    body = f"[{','.join(events)}]" if kind is JSON else "\n".join(events)
    return {"content": body.encode(), "headers": kind}


LARGE: Final = b" " * 5_000 + b"[]"


@pytest.mark.parametrize(
    ("request_of", "word"),
    [
        (lambda: {"content": LARGE, "headers": JSON}, "4000 bytes"),
        (lambda: {"content": in_pieces(LARGE), "headers": JSON}, "4000 bytes"),
        (lambda: {"content": b"[]", "headers": JSON | {"content-length": "4001"}}, "4000 bytes"),
        (lambda: {"content": LARGE, "headers": GZIP}, "4000 bytes"),
        (lambda: {"content": gzip.compress(b" " * 20_000 + b"[]"), "headers": GZIP}, "20000 bytes"),
        (lambda: {"content": gzip.compress(b"\0" * 3_000_000), "headers": GZIP}, "20000 bytes"),
        (lambda: over_events(JSON), "3 events"),
        (lambda: over_events(NDJSON), "3 events"),
        (lambda: {"content": gzip.compress(b"[" + b"1," * 9_000 + b"1]"), "headers": GZIP}, "3 events"),
    ],
    ids=["told", "untold", "only told", "zipped", "unzipped", "bomb", "array", "lines", "numbers"],
)
async def test_a_body_over_a_limit_is_refused_whole_with_the_limits(
    request_of: Callable[[], dict[str, Any]], word: str, lone_client: httpx2.AsyncClient
) -> None:
    code = "too_many_events" if "events" in word else "body_too_large" if "4000" in word else "decoded_too_large"
    body = problem(await lone_client.post(PATH, **request_of()), 413, code)
    assert word in body["detail"]
    limits = {"limit_events": 3}
    if "bytes" in word:
        limits |= {"limit_body_bytes": 4_000, "limit_decoded_bytes": 20_000}
    assert {name: value for name, value in body.items() if name.startswith("limit_")} == limits


@pytest.mark.parametrize(
    ("size", "headers"), [(4_000, JSON), (20_000, GZIP)], ids=["max_body_bytes", "max_decoded_bytes"]
)
async def test_a_body_at_the_limits_is_taken(
    size: int, headers: dict[str, str], settings: Settings, database: str, admin: Connection
) -> None:
    body = encoded(*calls(3)).ljust(size)
    async with client_of(settings.model_copy(update=LIMITS), database) as client:
        response = await client.post(PATH, content=gzip.compress(body) if headers is GZIP else body, headers=headers)
    assert response.json()["accepted"] == 3
    assert await stored(admin) == 3


# Not now


async def test_a_post_while_the_database_is_away_may_be_sent_again(lone_client: httpx2.AsyncClient) -> None:
    response = await lone_client.post(PATH, content=encoded(tool_call()), headers=JSON)
    body = problem(response, 503, "database_away")
    assert response.headers["retry-after"] == "2"
    assert "nobody" not in body["detail"]


@pytest.mark.parametrize("failure", [QueueFull, DatabaseAway, CommitUnknown, ShuttingDown])
async def test_what_may_work_in_a_moment_says_when_to_try_again(
    failure: type[HubscopeError], lone_client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(Ingest, "post", fail)
    response = await lone_client.post(PATH, content=encoded(tool_call()), headers=JSON)
    problem(response, 503, failure.code)
    assert int(response.headers["retry-after"]) >= 1


async def test_an_unforeseen_failure_tells_the_client_and_shows_nothing_of_ours(
    lone_client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Ingest, "post", fail)
    response = await lone_client.post(PATH, content=encoded(tool_call()), headers=JSON)
    problem(response, 500, "internal")
    assert "secret" not in response.text


async def test_posts_are_counted_by_status(client: httpx2.AsyncClient, app: App) -> None:
    for body in (encoded(tool_call()), b"[]", b"[", b""):
        await client.post(PATH, content=body, headers=JSON)
    await client.get(PATH)
    assert answered(app) == {"200": 2, "400": 2, "405": 1}


# Over a real socket


async def test_a_client_that_hangs_up_halfway_leaves_nothing(app: App, admin: Connection) -> None:
    body = "".join(json.dumps(event) + "\n" for event in calls(3)).encode()
    async with listening(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n"
        two_lines = body[: body.rindex(b"\n", 0, -1) + 1]
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + two_lines)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with httpx2.AsyncClient() as client:
            response = await client.post(f"http://127.0.0.1:{port}{PATH}", content=encoded(tool_call()), headers=JSON)
    assert response.json()["accepted"] == 1
    assert await stored(admin) == 1
    assert answered(app) == {"200": 1}


async def test_the_events_of_a_client_that_hangs_up_before_the_answer_are_committed(
    app: App, admin: Connection
) -> None:
    body = encoded(*calls(3))

    async def queued() -> bool:
        return app.instruments.registry.get_sample_value("hubscope_ingest_queue_events") == 3

    async def there() -> bool:
        return await stored(admin) == 3

    async with listening(app) as port:
        async with admin.transaction():
            await admin.execute("LOCK TABLE raw.tool_calls IN ACCESS EXCLUSIVE MODE")
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            await until(queued)
            writer.close()
            await writer.wait_closed()
        await until(there)


async def test_a_connection_goes_on_after_a_post_that_was_refused(
    settings: Settings, database: str, admin: Connection
) -> None:
    async with (
        opened(settings.model_copy(update=LIMITS), database) as app,
        listening(app) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=httpx2.Limits(max_connections=1)) as client,
    ):
        for request_of in (
            {"content": LARGE * 100, "headers": JSON},
            {"content": in_pieces(LARGE), "headers": JSON},
            {"content": b"[", "headers": JSON},
        ):
            refused = await client.post(PATH, **request_of)
            assert refused.status_code in (400, 413)
            response = await client.post(PATH, content=encoded(tool_call()), headers=JSON)
            assert response.json()["accepted"] == 1
    assert await stored(admin) == 3
