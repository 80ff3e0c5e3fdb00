"""Shares: one tenant neither fills the queue nor outruns its rate at the cost of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import msgspec
import pytest

from hubscope.access import Principal, Scope
from hubscope.app import App, opened
from hubscope.entrypoints.http import asgi
from hubscope.errors import QueueFull, RateExceeded, ShareExceeded, ShuttingDown
from hubscope.model import Receipt
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.conftest import held
from tests.events import tool_call

pytestmark = [pytest.mark.bridge, pytest.mark.integration]

A, B, C = (Principal(tenant, frozenset({Scope.INGEST})) for tenant in "abc")


def post(app: App, principal: Principal, count: int, **fields: Any) -> asyncio.Task[Receipt]:
    body = msgspec.json.encode([tool_call(**fields) for _ in range(count)])
    return asyncio.create_task(app.ingest.post(principal, body, "application/json"))


@pytest.fixture
async def small(settings: Settings, database: str) -> AsyncIterator[App]:
    """A service whose queue holds ten events."""
    async with opened(settings.model_copy(update={"queue_max_events": 10}), database) as app:
        yield app


async def queued(app: App, count: int) -> None:
    async with asyncio.timeout(20):
        while app.instruments.registry.get_sample_value("hubscope_ingest_queue_events") != count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_tenant_fills_no_more_than_its_share_of_the_queue(small: App, admin: Connection) -> None:
    async with admin.transaction():
        await admin.execute("LOCK TABLE raw.tool_calls IN ACCESS EXCLUSIVE MODE")
        posts = [post(small, A, 5)]
        await queued(small, 5)
        with pytest.raises(ShareExceeded) as refused:
            await post(small, A, 1)
        assert (refused.value.status, refused.value.retry_after_seconds) == (429, 1)
        assert refused.value.context["limit_events"] == 5
        posts.append(post(small, B, 5))  # the others' half is theirs
        await queued(small, 10)
        with pytest.raises(QueueFull):
            await post(small, C, 1)
    assert [receipt.accepted for receipt in await asyncio.gather(*posts)] == [5, 5]
    assert (await post(small, A, 5)).accepted == 5
    assert small.ingest._writer._of_tenant == {}


async def test_the_share_is_counted_in_bytes_too(settings: Settings, database: str, admin: Connection) -> None:
    async with opened(settings.model_copy(update={"queue_max_bytes": 8_000}), database) as app:
        async with admin.transaction():
            await admin.execute("LOCK TABLE raw.tool_calls IN ACCESS EXCLUSIVE MODE")
            posts = [post(app, A, 1, error_message="x" * 2_500)]
            await queued(app, 1)
            with pytest.raises(ShareExceeded) as refused:
                await post(app, A, 1, error_message="x" * 2_500)
            assert refused.value.context["limit_bytes"] == 4_000
            posts.append(post(app, B, 1, error_message="x" * 2_500))
            await queued(app, 2)
        assert [receipt.accepted for receipt in await asyncio.gather(*posts)] == [1, 1]


async def test_a_tenant_over_its_rate_waits_and_others_do_not(settings: Settings, database: str) -> None:
    limited = settings.model_copy(update={"tenant_events_per_second": 1, "tenant_burst_events": 5})
    async with opened(limited, database) as app:
        assert (await post(app, A, 20)).accepted == 20
        with pytest.raises(RateExceeded) as refused:
            await post(app, A, 1)
        assert refused.value.status == 429
        assert 10 <= (refused.value.retry_after_seconds or 0) <= 16
        with pytest.raises(RateExceeded):
            app.ingest.check(A)  # before its body is read
        app.ingest.check(B)
        assert (await post(app, B, 5)).accepted == 5


async def test_what_cannot_be_committed_in_time_is_given_up_and_never_acknowledged(
    settings: Settings, database: str, admin: Connection
) -> None:
    """A service that stops ends in time, however long the database takes."""
    async with opened(settings.model_copy(update={"writers": 1, "commit_max_events": 1}), database) as app:
        async with admin.transaction():
            await admin.execute("LOCK TABLE raw.tool_calls IN ACCESS EXCLUSIVE MODE")
            posts = [post(app, A, 1) for _ in range(3)]
            await queued(app, 3)
            loop = asyncio.get_running_loop()
            began = loop.time()
            await app.ingest.close(0.3)
            assert loop.time() - began < 5
            outcomes = await asyncio.gather(*posts, return_exceptions=True)
        codes = sorted(outcome.code for outcome in outcomes)  # type: ignore[union-attr]
        assert codes == ["commit_unknown", "shutting_down", "shutting_down"]
        with pytest.raises(ShuttingDown):
            await post(app, A, 1)


@pytest.mark.parametrize(
    ("changes", "code", "limits"),
    [
        (
            {"tenant_events_per_second": 1, "tenant_burst_events": 1},
            "rate_exceeded",
            {"limit_events_per_second": 1},
        ),
        ({"queue_max_events": 3}, "share_exceeded", {"limit_events": 1, "limit_bytes": 33_554_432}),
    ],
    ids=["rate", "share"],
)
async def test_a_client_is_told_its_limit_and_when_to_come_back(
    changes: dict[str, int], code: str, limits: dict[str, int], settings: Settings, database: str
) -> None:
    async with held(reached(settings.model_copy(update=changes), database)) as http:
        events = [tool_call(), tool_call()]
        answers = [await http.post("/v1/events", json=events) for _ in range(2)]
    answer = answers[-1]
    assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
    assert answer.json()["code"] == code
    assert {name: value for name, value in answer.json().items() if name.startswith("limit_")} == limits
    assert int(answer.headers["retry-after"]) >= 1


@asynccontextmanager
async def reached(settings: Settings, dsn: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with opened(settings, dsn) as app, asgi(app) as application:
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield http
