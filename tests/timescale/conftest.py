"""Fixtures over TimescaleDB: one test server per pytest process, set back to a clean database for each test.

With HUBSCOPE_TEST_TIMESCALE_DSN (a superuser's URL of a native server with TimescaleDB) each test gets a database of
its own there instead, made and dropped by it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.timescale.server import TimescaleServer

NATIVE_DSN: Final = os.environ.get("HUBSCOPE_TEST_TIMESCALE_DSN")


@pytest.fixture(scope="session")
def timescale_server() -> Iterator[TimescaleServer]:
    """The test server of this process; what is in its database is whatever the last test left there."""
    with TimescaleServer() as server:
        yield server


@pytest.fixture
async def timescale_database(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """URL of a database with TimescaleDB and nothing else in it, as a superuser, for this test alone."""
    if NATIVE_DSN:
        async for dsn in _native_database(NATIVE_DSN):
            yield dsn
        return
    server: TimescaleServer = request.getfixturevalue("timescale_server")
    if not server.fresh:
        server.reset()
    server.fresh = False
    yield server.dsn


async def _native_database(server: str) -> AsyncIterator[str]:
    name = f"t_{uuid.uuid4().hex[:12]}"
    parts = urlsplit(server)
    dsn = f"{parts.scheme}://{parts.netloc}/{name}" + (f"?{parts.query}" if parts.query else "")
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        try:
            inside = await asyncpg.connect(dsn)
            await inside.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
            await inside.close()
            yield dsn
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
