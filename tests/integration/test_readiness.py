"""Readiness: a database that may lose what it has committed is refused, and so are keys that cannot be verified."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from hubscope.app import App, opened
from hubscope.entrypoints.http import asgi
from hubscope.errors import UnsafeDatabase
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.conftest import held
from tests.keys import PEPPER, make_key

pytestmark = [pytest.mark.store, pytest.mark.integration]


@asynccontextmanager
async def reached(
    settings: Settings, dsn: str, client: tuple[str, int] = ("127.0.0.1", 1)
) -> AsyncIterator[tuple[App, httpx2.AsyncClient]]:
    async with opened(settings, dsn) as app, asgi(app) as application:
        transport = httpx2.ASGITransport(app=application, client=client)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield app, http


async def test_a_database_that_may_lose_commits_is_not_ready(
    settings: Settings, database: str, admin: Connection
) -> None:
    """The server that tests share runs with fsync off: a real case."""
    assert await admin.fetchval("SHOW fsync") == "off"
    strict = settings.model_copy(update={"allow_unsafe_database": False})
    async with held(reached(strict, database)) as (app, http):
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "unsafe_database")
        assert "fsync = off" in answer.json()["detail"]
        assert "HUBSCOPE_ALLOW_UNSAFE_DATABASE" in answer.json()["detail"]
        with pytest.raises(UnsafeDatabase):
            await app.check_ready()
        assert "hubscope_database_unsafe 1.0" in (await http.get("/metrics")).text
    async with held(reached(settings, database)) as (_, http):
        assert (await http.get("/readyz")).status_code == 200


@pytest.mark.parametrize(("value", "safe"), [("off", False), ("local", True), ("remote_write", True), ("on", True)])
async def test_commits_that_are_not_waited_for_are_named(
    value: str, safe: bool, settings: Settings, database: str, admin: Connection
) -> None:
    await admin.execute(
        f"ALTER DATABASE {database.partition('@/')[2].partition('?')[0]} SET synchronous_commit = {value}"
    )
    strict = settings.model_copy(update={"allow_unsafe_database": False})
    async with held(reached(strict, database)) as (_, http):
        detail = (await http.get("/readyz")).json()["detail"]
    assert ("synchronous_commit = off" in detail) is not safe


async def test_strangers_are_not_told_why_a_service_is_not_ready(settings: Settings, database: str) -> None:
    strict = settings.model_copy(update={"allow_unsafe_database": False})
    async with held(reached(strict, database, ("192.0.2.1", 1))) as (_, http):
        answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert "fsync" not in answer.text


@pytest.mark.parametrize("pepper", [None, "another pepper than that one"])
async def test_a_process_that_cannot_verify_the_keys_is_not_ready(
    pepper: str | None, settings: Settings, database: str
) -> None:
    await make_key(database)
    async with held(reached(settings.model_copy(update={"key_pepper": pepper}), database)) as (_, http):
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "no_pepper")
        assert "HUBSCOPE_KEY_PEPPER" in answer.json()["detail"]
    async with held(reached(settings.model_copy(update={"key_pepper": PEPPER}), database)) as (_, http):
        assert (await http.get("/readyz")).status_code == 200
