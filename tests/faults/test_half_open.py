"""A connection to the database whose other end has gone without a word, at each moment of a commit."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from hubscope.access import LOCAL
from hubscope.app import opened
from hubscope.errors import CommitUnknown, Unavailable
from hubscope.model import Receipt
from hubscope.settings import Settings
from tests.conftest import ROLE_PREFIX
from tests.events import tool_call
from tests.faults.gate import Break, Gate, Way

pytestmark = pytest.mark.faults

DEADLINE_S = 20.0
MOMENTS = {
    "before the commit": (False, Way.THERE, b"COPY", Receipt(1, 0, [])),
    "after the commit": (False, Way.BACK, b"COPY", Receipt(0, 1, [])),
    "in the transaction after a duplicate": (True, Way.BACK, b"COPY", Receipt(1, 0, [])),
    "before the commit after a duplicate": (True, Way.THERE, b"COMMIT", Receipt(1, 0, [])),
    "after the commit after a duplicate": (True, Way.BACK, b"COMMIT", Receipt(0, 1, [])),
}
"""Whether commits tell what is new, what is swallowed, and what the same event is when it is sent again."""


@pytest.mark.parametrize(("staged", "way", "having", "again"), MOMENTS.values(), ids=MOMENTS)
async def test_a_post_is_answered_and_its_retry_is_taken_although_the_server_has_heard_nothing(
    staged: bool, way: Way, having: bytes, again: Receipt, database: str
) -> None:
    parts = urlsplit(database)
    socket = {name: values[0] for name, values in parse_qs(parts.query).items()}
    async with Gate(Path(socket["host"]) / f".s.PGSQL.{socket['port']}") as gate:
        dsn = f"postgresql://{parts.username}@127.0.0.1:{gate.port}{parts.path}?sslmode=disable"
        settings = Settings.load(
            database_url=dsn,
            role_prefix=ROLE_PREFIX,
            commit_timeout_ms=300,
            pool_connection_timeout_ms=2_000,
            writers=1,
        )
        async with opened(settings, dsn) as app:

            async def post(*events: object) -> Receipt:
                body = json.dumps(events).encode()
                return await asyncio.wait_for(app.ingest.post(LOCAL, body, "application/json"), DEADLINE_S)

            async def retried(*events: object) -> Receipt:
                while True:
                    try:
                        return await post(*events)
                    except Unavailable:
                        await asyncio.sleep(0.05)

            known = tool_call()
            await retried(known)  # its names are known from here on
            if staged:
                assert await retried(known) == Receipt(0, 1, [])
            event = tool_call()
            with gate.broken(Break.SWALLOW, way, having=having):
                with pytest.raises(CommitUnknown):
                    await post(event)
                assert gate.bites == 1
                gate.heal()
                assert await asyncio.wait_for(retried(event), DEADLINE_S) == again
