"""A database with the specification's sample schema and a canary, and gates to it.

The gates connect as superuser, which nobody should: so what holds here holds by the gates alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hubscope.sqlgate import Gate, Limits, Policy, Served
from hubscope.store import connect
from tests.sql_corpus import BLOCKED, SAMPLE

POLICY = Policy(allowed_schemas=("public",), blocked_tables=BLOCKED)
FILE = Path("/tmp/hubscope-canary")


@dataclass(frozen=True)
class Canary:
    """What would have moved if a query had done anything."""

    connection: asyncpg.Connection
    heard: list[Any]

    async def state(self) -> tuple[Any, ...]:
        """Everything that an escape could change. The notifications of committed transactions come with it."""
        row = await self.connection.fetchrow("""
            SELECT (SELECT count(*) FROM canary), (SELECT last_value || is_called::text FROM canary_seq),
                (SELECT count(*) FROM users), (SELECT count(*) FROM secrets),
                (SELECT count(*) FROM pg_class WHERE oid >= 16384), (SELECT count(*) FROM pg_proc WHERE oid >= 16384),
                (SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pg_largeobject_metadata),
                (SELECT count(*) FROM pg_prepared_xacts), (SELECT count(*) FROM pg_replication_slots),
                (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
                (SELECT count(*) FROM pg_extension), (SELECT string_agg(setting, ',') FROM pg_db_role_setting s
                    CROSS JOIN unnest(s.setconfig) AS setting)
        """)
        return (*row, len(self.heard), FILE.exists())


@pytest.fixture
async def sample(empty_database: str) -> str:
    """URL of the sample database."""
    connection = await connect(empty_database, name="tests")
    try:
        await connection.execute("SET search_path = public; " + SAMPLE)
    finally:
        await connection.close()
    return empty_database


@pytest.fixture
async def canary(sample: str) -> AsyncIterator[Canary]:
    """The canary of `sample`."""
    heard: list[Any] = []
    connection = await asyncpg.connect(sample)
    await connection.add_listener("canary", lambda *message: heard.append(message))
    yield Canary(connection, heard)
    await connection.close()


@asynccontextmanager
async def gate_to(dsn: str, policy: Policy = POLICY, *, writable: bool = False, **limits: Any) -> AsyncIterator[Gate]:
    """A gate, closed afterwards."""
    gate = Gate(Served(dsn, policy, Limits(**limits), writable=writable))
    try:
        yield gate
    finally:
        await gate.close()


@pytest.fixture
async def gate(sample: str) -> AsyncIterator[Gate]:
    """A gate to `sample` under the tests' policy; every verdict is fresh."""
    async with gate_to(sample, verdict_s=0, timeout_ms=20_000) as opened:
        yield opened


async def eventually(condition: Any, what: str) -> None:
    """Wait for something that the server does."""
    for _ in range(400):
        if await condition():
            return
        await asyncio.sleep(0.025)
    raise AssertionError(f"still waiting: {what}")
