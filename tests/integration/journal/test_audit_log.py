"""hub.security_audit_log: appended to, stamped by the server, never changed, and taken by the month."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from hubscope.journal import AuditRecord
from hubscope.journal.writer import APPEND
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from hubscope.store.maintenance import make_audit_partitions
from hubscope.store.retention import horizons, plan, retain
from tests.conftest import ROLES

pytestmark = [pytest.mark.store, pytest.mark.integration]


def record(**changes: Any) -> AuditRecord:
    return AuditRecord(
        **{
            "tenant": "acme",
            "event_type": "sql_query",
            "severity": "info",
            "resource_type": "database",
            "resource_id": "main",
            "action": "query",
            "status": "success",
            **changes,
        }
    )


async def test_the_writer_appends_and_the_server_says_when(database: str, admin: Connection) -> None:
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    writer = await connect(database, role=ROLES.writer, name="tests")
    before = await admin.fetchval("SELECT clock_timestamp()")
    try:
        await writer.execute(APPEND, *record(time=long_ago, permissions=("sql",), details={"sql": "SELECT 1"}).row())
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await writer.execute(
                "INSERT INTO hub.security_audit_log (id, time, recorded_at, event_type, severity, resource_type,"
                " resource_id, action, status) VALUES (gen_random_uuid(), now(), now() - interval '1 hour', 'x',"
                " 'info', 'x', 'x', 'x', 'x')"
            )
    finally:
        await writer.close()
    row = await admin.fetchrow("SELECT * FROM hub.security_audit_log")
    assert row is not None
    assert (row["tenant_id"], row["time"], row["permissions"]) == ("acme", long_ago, ["sql"])
    assert before <= row["recorded_at"] <= await admin.fetchval("SELECT clock_timestamp()")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE hub.security_audit_log SET status = 'success'",
        "DELETE FROM hub.security_audit_log",
        "TRUNCATE hub.security_audit_log",
        "DO $$ BEGIN EXECUTE format('DELETE FROM hub.security_audit_log_p%s', to_char(now(), 'YYYYMM')); END $$",
        "DO $$ BEGIN EXECUTE format('TRUNCATE hub.security_audit_log_p%s', to_char(now(), 'YYYYMM')); END $$",
        "INSERT INTO hub.security_audit_log SELECT * FROM hub.security_audit_log"
        " ON CONFLICT (tenant_id, recorded_at, id) DO UPDATE SET status = 'success'",
    ],
)
@pytest.mark.parametrize("role", ["owner", "writer", "worker", "reader", None])
async def test_nobody_changes_a_record_not_even_the_owner(
    role: str | None, statement: str, database: str, admin: Connection
) -> None:
    await admin.execute(APPEND, *record(status="refused").row())
    connection = await connect(database, role=getattr(ROLES, role) if role else None, name="tests")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()
    assert await admin.fetchval("SELECT array_agg(status) FROM hub.security_audit_log") == ["refused"]


async def test_partitions_stand_ready_for_the_weeks_to_come(admin: Connection) -> None:
    covered = await admin.fetchval(
        "SELECT count(*) FROM generate_series(now(), now() + interval '30 days', interval '1 day') AS day"
        " WHERE to_regclass(format('hub.security_audit_log_p%s', to_char(day AT TIME ZONE 'UTC', 'YYYYMM')))"
        " IS NOT NULL"
    )
    assert covered == 31
    assert await make_audit_partitions(admin) == 0


async def test_retention_takes_whole_months_and_leaves_the_rest(
    settings: Settings, database: str, admin: Connection
) -> None:
    owner = await connect(database, role=ROLES.owner, name="tests")
    now = datetime.now(UTC)
    try:
        await admin.fetchval(
            "SELECT ops.ensure_audit_partitions($1, $2)", (now - timedelta(days=99)).date(), now.date()
        )
        insert = APPEND.replace("details\n)", "details, recorded_at\n)").replace("$18::jsonb)", "$18::jsonb, $19)")
        for days in (98, 45, 0):
            at = now - timedelta(days=days)
            await admin.execute(insert, *record(description=str(days)).row(), at)
        kept = settings.model_copy(update={"retention_audit_days": 50})
        wanted = horizons(kept, now)
        planned = [part for part in await plan(owner, "postgres", wanted) if part.relation == "audit"]
        assert planned
        assert all(part.table == "hub.security_audit_log" and part.bytes for part in planned)
        taken = await retain(owner, "postgres", wanted)
        assert [part.name for part in taken if part.relation == "audit"] == [part.name for part in planned]
        assert await plan(owner, "postgres", wanted) == []
        left = await admin.fetch("SELECT description FROM hub.security_audit_log ORDER BY recorded_at")
        assert [row["description"] for row in left] == ["45", "0"]
        forever = horizons(settings.model_copy(update={"retention_audit_days": 0}), now + timedelta(days=9999))
        assert forever.audit is None
        assert not [part for part in await plan(owner, "postgres", forever) if part.relation == "audit"]
    finally:
        await owner.close()
