"""A store moves whole into a new one, on plain PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hubscope.access import LOCAL
from hubscope.app import App
from hubscope.errors import InvalidRequest
from hubscope.journal.writer import APPEND
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from hubscope.store.move import move
from hubscope.worker import Worker
from tests.conftest import ROLE_PREFIX, ROLES
from tests.events import tool_call
from tests.integration.journal.test_audit_log import record
from tests.integration.store.test_rollups import RECOUNTS

pytestmark = [pytest.mark.store, pytest.mark.integration]


async def everything(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """Every row of raw, without the transaction that stored it, and of the rollups."""
    relations = ["raw.tool_calls", "raw.server_events", *(f"rollup.{name}" for name in RECOUNTS)]
    return {
        relation: sorted(
            [
                tuple(value for name, value in row.items() if name != "xact")
                for row in await connection.fetch(f"SELECT * FROM {relation}")
            ],
            key=repr,
        )
        for relation in [*relations, "rollup.archived_tool_calls", "ops.retained", "hub.security_audit_log"]
    }


async def test_the_command_moves_everything_also_what_raw_no_longer_has(
    aged: App,
    narrow_worker: Worker,
    database: str,
    empty_database: str,
    admin: Connection,
) -> None:
    await narrow_worker.fold()
    await narrow_worker.retention()
    await admin.execute(APPEND, *record(description="moved, too").row())
    # Not folded yet: what is pending in the old store stands in the rollups of the new one.
    await aged.ingest.post(LOCAL, json.dumps([tool_call()]).encode(), "application/json")
    environment = os.environ | {"HUBSCOPE_DATABASE_URL": empty_database, "HUBSCOPE_ROLE_PREFIX": ROLE_PREFIX}

    def hubscope_move() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hubscope", "move", "--from", database]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    done = hubscope_move()
    assert done.returncode == 0, done.stderr
    assert "events are in the new store" in done.stderr
    new = await connect(empty_database, name="tests")
    try:
        assert await everything(new) == await everything(admin)
        assert (await everything(new))["rollup.archived_tool_calls"]
        assert (await everything(new))["hub.security_audit_log"]
        assert await new.fetchval("SELECT count(*) FROM rollup.pending") == 0
        # All were stored anew by one transaction; none is still one of the old store's.
        assert await new.fetchval("SELECT count(DISTINCT xact) FROM raw.tool_calls WHERE xact IS NOT NULL") == 1
    finally:
        await new.close()
    again = hubscope_move()
    assert again.returncode == 1
    assert "the new store is not empty" in again.stderr


async def test_a_store_of_another_version_is_not_moved(
    admin: Connection, database: str, settings: Settings, empty_database: str
) -> None:
    await admin.execute("DELETE FROM ops.migrations WHERE version = (SELECT max(version) FROM ops.migrations)")
    owner = await connect(database, role=ROLES.owner, name="tests")
    bare = await connect(empty_database, name="tests")
    try:
        with pytest.raises(InvalidRequest, match="old store is at migration"):
            await move(admin, owner)
        with pytest.raises(InvalidRequest, match="no hubscope store"):
            await move(bare, owner)
    finally:
        await owner.close()
        await bare.close()
