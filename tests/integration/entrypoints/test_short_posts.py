"""Short posts of events that come in one piece: taken without a task of their own, and answered as all others are."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from hubscope.access import Scope
from hubscope.entrypoints.events import EventsEndpoint
from hubscope.ingest import Ingest
from hubscope.store import Connection
from tests.events import tool_call
from tests.integration.entrypoints.served import PATIENCE_S, Serve, Service, code, status
from tests.keys import make_key

pytestmark = [pytest.mark.bridge, pytest.mark.integration]

JSON: Final = "content-type: application/json"
LIMITS: Final[dict[str, Any]] = {"max_batch_events": 3, "max_body_bytes": 9_000, "max_decoded_bytes": 20_000}


def request(
    body: bytes, *fields: str, path: str = "/v1/events", host: str = "localhost", method: str = "POST"
) -> bytes:
    head = [f"{method} {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


def events(*changed: dict[str, Any]) -> bytes:
    return json.dumps([tool_call(**change) for change in changed]).encode()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The next answer on a connection that goes on."""
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        if status(head) == 100:
            head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return head + await reader.readexactly(int(length.partition(b":")[2]))


async def asked(service: Service, *parts: bytes) -> bytes:
    """The answer to a request in these pieces, each of which is there before the next is sent."""
    reader, writer = await service.connect()
    for part in parts:
        writer.write(part)
        await writer.drain()
        if len(parts) > 1:
            await asyncio.sleep(0.05)
    try:
        return await answer(reader)
    finally:
        writer.close()


def head_of(told: bytes) -> list[bytes]:
    """An answer's head without its date and its length."""
    head = told.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return sorted(line for line in head if not line.startswith((b"date:", b"content-length:")))


def body_of(told: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(told.partition(b"\r\n\r\n")[2])
    return body


def counted(receipt: dict[str, Any]) -> int:
    """Of how many events a receipt tells."""
    return int(receipt["accepted"] + receipt["duplicates"] + len(receipt["rejected"]))


@pytest.fixture
def taken_by_application(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of requests that the endpoint was called for as an application."""
    met: list[str] = []
    call = EventsEndpoint.__call__

    async def noted(self: EventsEndpoint, scope: Any, receive: Any, send: Any) -> None:
        met.append(scope["method"])
        await call(self, scope, receive, send)

    monkeypatch.setattr(EventsEndpoint, "__call__", noted)
    return met


async def primed(service: Service, database: str, *scopes: Scope) -> str:
    """The header field of a key that was checked a moment ago."""
    _, key = await make_key(database, *scopes)
    field = f"authorization: Bearer {key}"
    await asked(service, request(events({}), JSON, field))
    return field


BODIES: Final[dict[str, tuple[Callable[[], bytes], tuple[str, ...], int]]] = {
    "two events": (lambda: events({}, {"tool": "other"}), (JSON,), 200),
    "the same event twice": (lambda: events(*[{"event_id": "019aa5a0-0000-7000-8000-000000000001"}] * 2), (JSON,), 200),
    "an error with a secret": (lambda: events({"status": "error", "error_message": "password=hunter22"}), (JSON,), 200),
    "one that is too old": (lambda: events({"time": "2001-01-01T00:00:00Z", "event_id": None}, {}), (JSON,), 200),
    "lines": (lambda: json.dumps(tool_call()).encode() + b"\n", ("content-type: application/x-ndjson",), 200),
    "no events": (lambda: b"[]", (JSON,), 200),
    "no body": (lambda: b"", (JSON,), 400),
    "no JSON": (lambda: b"[{", (JSON,), 400),
    "no content type": (lambda: b"[]", (), 415),
    "too many events": (lambda: events({}, {}, {}, {}), (JSON,), 413),
    "too large": (lambda: b"[" + b" " * 9_000 + b"]", (JSON,), 413),
    "zipped": (lambda: gzip.compress(events({})), (JSON, "content-encoding: gzip"), 200),
    "an unknown encoding": (lambda: b"[]", (JSON, "content-encoding: br"), 415),
    "a page elsewhere": (lambda: b"[]", (JSON, "origin: http://elsewhere.example"), 403),
    "two origins": (lambda: b"[]", (JSON, "origin: http://localhost", "origin: http://localhost"), 400),
    "hang up afterwards": (lambda: events({}), (JSON, "connection: close"), 200),
}


@pytest.mark.parametrize(("body", "fields", "expected"), BODIES.values(), ids=BODIES)
async def test_a_post_in_one_piece_is_answered_as_one_in_two(
    body: Callable[[], bytes], fields: tuple[str, ...], expected: int, serve: Serve, database: str
) -> None:
    async with serve(**LIMITS) as service:
        key = await primed(service, database)
        whole = request(body(), *fields, key)
        at_once, in_two = await asked(service, whole), await asked(service, whole[:-1], whole[-1:])
        assert status(at_once) == expected
        assert head_of(in_two) == head_of(at_once)
        if expected == 200:  # the second time they are duplicates
            assert counted(body_of(in_two)) == counted(body_of(at_once))
        else:
            assert body_of(in_two) == body_of(at_once)


WAYS: Final[dict[str, tuple[dict[str, Any], bool]]] = {
    "a key": ({}, False),
    "a key in other letters": ({"scheme": "BEARER"}, False),
    "no key": ({"scheme": None}, True),
    "basic": ({"scheme": "Basic"}, True),
    "a query": ({"path": "/v1/events?x=1"}, True),
    "it asks before it goes on": ({"fields": ("expect: 100-continue",)}, True),
    "a long one": ({"body": b"[" + b" " * 20_000 + b"]"}, True),
    "zipped": ({"body": gzip.compress(b"[]"), "fields": ("content-encoding: gzip",)}, True),
    "another method": ({"method": "PUT"}, True),
}


@pytest.mark.parametrize(("changed", "by_application"), WAYS.values(), ids=WAYS)
async def test_what_needs_no_wait_needs_no_task(
    changed: dict[str, Any], by_application: bool, serve: Serve, database: str, taken_by_application: list[str]
) -> None:
    async with serve(loopback_trust="always") as service:
        key = await primed(service, database)
        taken_by_application.clear()
        scheme = changed.get("scheme", "Bearer")
        shown = [] if scheme is None else [key.replace("Bearer", scheme)]
        fields = (JSON, *shown, *changed.get("fields", ()))
        whole = request(
            changed.get("body", b"[]"),
            *fields,
            path=changed.get("path", "/v1/events"),
            method=changed.get("method", "POST"),
        )
        told = await asked(service, whole)
        if scheme == "Basic":  # the door says no, and nobody else is asked
            assert (status(told), taken_by_application) == (401, [])
        else:
            assert bool(taken_by_application) == by_application


async def test_secrets_are_taken_out_of_it(serve: Serve, database: str, admin: Connection) -> None:
    async with serve() as service:
        key = await primed(service, database)
        said = {"status": "error", "error_message": "password=hunter22", "attrs": {"token": "hunter22"}}
        assert status(await asked(service, request(events(said), JSON, key))) == 200
        row = await admin.fetchrow(
            "SELECT error_message, attrs::text AS attrs FROM raw.tool_calls WHERE status = 'error'"
        )
        assert "hunter22" not in f"{row['error_message']} {row['attrs']}"


async def test_a_key_without_the_right_is_refused(serve: Serve, database: str) -> None:
    async with serve() as service:
        _, reader_key = await make_key(database, Scope.READ)
        reading = f"authorization: Bearer {reader_key}"
        await asked(service, request(b"", reading, path="/api/v1/analytics", method="GET"))  # it is known now
        told = await asked(service, request(events({}), JSON, reading))
        assert (status(told), code(told)) == (403, "missing_scope")


async def test_posts_behind_each_other_are_answered_in_turn(serve: Serve, database: str, admin: Connection) -> None:
    async with serve() as service:
        key = await primed(service, database)
        reader, writer = await service.connect()
        sent = [events({}), b"[{", events({}, {}), events({})]
        writer.write(b"".join(request(body, JSON, key) for body in sent))
        told = [await answer(reader) for _ in sent]
        writer.close()
        assert [status(one) for one in told] == [200, 400, 200, 200]
        assert [body_of(one).get("accepted") for one in told] == [1, None, 2, 1]
        assert await admin.fetchval("SELECT count(*) FROM raw.tool_calls") == 5


async def test_a_connection_goes_on_for_as_long_as_it_is_used(
    serve: Serve, database: str, taken_by_application: list[str]
) -> None:
    async with serve() as service:
        key = await primed(service, database)
        taken_by_application.clear()
        reader, writer = await service.connect()
        for _ in range(20):
            writer.write(request(events({}), JSON, key))
            assert status(await answer(reader)) == 200
        writer.close()
        assert taken_by_application == []
        assert service.app.instruments.registry.get_sample_value("hubscope_ingest_posts_total", {"status": "200"}) == 21


async def test_what_a_client_that_hangs_up_has_sent_is_committed(
    serve: Serve, database: str, admin: Connection
) -> None:
    async with serve() as service:
        key = await primed(service, database)
        async with admin.transaction():
            await admin.execute("LOCK TABLE raw.tool_calls IN SHARE ROW EXCLUSIVE MODE")
            _, writer = await service.connect()
            writer.write(request(events({}), JSON, key))
            await writer.drain()
            await until(lambda: service.app.ingest._writer._events == 1)
            writer.transport.abort()
        await until(lambda: service.app.ingest._writer._events == 0)
        assert await admin.fetchval("SELECT count(*) FROM raw.tool_calls") == 2


async def test_a_post_that_is_under_way_when_the_service_stops_is_told_that_nothing_is_promised(
    serve: Serve, database: str, admin: Connection
) -> None:
    async with admin.transaction():
        async with serve(drain_timeout_ms=300) as service:
            key = await primed(service, database)
            await admin.execute("LOCK TABLE raw.tool_calls IN SHARE ROW EXCLUSIVE MODE")
            reader, writer = await service.connect()
            writer.write(request(events({}), JSON, key))
            await until(lambda: service.app.ingest._writer._events == 1)
        async with asyncio.timeout(PATIENCE_S):
            told = await reader.read()
        writer.close()
    assert (status(told), code(told)) == (503, "commit_unknown")


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
async def test_an_unforeseen_failure_tells_the_client_and_shows_nothing_of_ours(
    when: str, serve: Serve, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret of ours")

    async with serve() as service:
        key = await primed(service, database)
        monkeypatch.setattr(Ingest, "posted" if when == "before the commit" else "_receipt", fail)
        told = await asked(service, request(events({}), JSON, key))
        assert (status(told), code(told)) == (500, "internal")
        assert b"secret" not in told
        assert service.app.instruments.registry.get_sample_value("hubscope_ingest_posts_total", {"status": "500"}) == 1


async def test_a_tenant_over_its_rate_is_told_when_to_come_back(serve: Serve, database: str) -> None:
    async with serve(tenant_events_per_second=1, tenant_burst_events=2) as service:
        key = await primed(service, database)
        told = [await asked(service, request(events({}, {}), JSON, key)) for _ in range(2)]
        assert [status(one) for one in told] == [200, 429]
        assert b"retry-after" in told[1]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (the service tells nobody)
            await asyncio.sleep(0.01)
