"""The writer of the audit log: nobody waits for it, nothing is lost in silence, and refusing is a choice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from hubscope.errors import AuditAway, DatabaseAway
from hubscope.instruments import Instruments
from hubscope.journal import Journal
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from tests.conftest import ROLES
from tests.integration.journal.test_audit_log import record

pytestmark = [pytest.mark.store, pytest.mark.integration]


class Door:
    """Opens connections under the writer role, or is shut."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.shut = False
        self.last: Connection | None = None

    async def open(self) -> Connection:
        if self.shut:
            raise DatabaseAway("shut by the test")
        self.last = await connect(self.dsn, role=ROLES.writer, name="audit")
        return self.last


@pytest.fixture
def door(database: str) -> Door:
    return Door(database)


@asynccontextmanager
async def writing(
    opening: Callable[[], Awaitable[Connection]], settings: Settings, *, within_s: float = 5, **changes: Any
) -> AsyncIterator[tuple[Journal, Instruments]]:
    instruments = Instruments()
    journal = Journal(opening, settings.model_copy(update=changes), instruments)
    journal.start()
    try:
        yield journal, instruments
    finally:
        await journal.close(within_s)


def count(instruments: Instruments, outcome: str) -> float:
    value = instruments.registry.get_sample_value("hubscope_audit_records_total", {"outcome": outcome})
    assert value is not None
    return value


async def actions(admin: Connection) -> list[str]:
    rows = await admin.fetch("SELECT action FROM hub.security_audit_log ORDER BY id")
    return [row["action"] for row in rows]


async def test_records_come_in_order_and_all_of_them(door: Door, settings: Settings, admin: Connection) -> None:
    async with writing(door.open, settings) as (journal, instruments):
        for number in range(1_200):
            await journal.append(record(action=f"{number:04}"))
    assert await actions(admin) == [f"{number:04}" for number in range(1_200)]
    assert count(instruments, "written") == 1_200


async def test_what_is_noted_while_the_database_is_away_is_written_when_it_is_back(
    door: Door, settings: Settings, admin: Connection
) -> None:
    async with writing(door.open, settings) as (journal, _):
        await journal.append(record(action="before"))
        await journal._empty.wait()
        door.shut = True
        assert door.last is not None
        await admin.execute("SELECT pg_terminate_backend($1)", door.last.get_server_pid())
        await journal.append(record(action="meanwhile"))  # and does not wait
        journal.check()
        door.shut = False
    assert await actions(admin) == ["before", "meanwhile"]


async def test_the_queue_is_bounded_and_what_is_lost_is_counted_and_logged(door: Door, settings: Settings) -> None:
    door.shut = True
    structlog.reset_defaults()
    with capture_logs() as logs:
        async with writing(door.open, settings, within_s=0.05, audit_queue_max_records=3) as (journal, instruments):
            for number in range(5):
                await journal.append(record(action=str(number)))
    assert (count(instruments, "queue_full"), count(instruments, "stopped"), count(instruments, "written")) == (2, 3, 0)
    lost = [entry["record"]["action"] for entry in logs if entry["event"] == "audit record not stored"]
    assert lost == ["3", "4", "0", "1", "2"]


async def test_a_record_that_cannot_be_stored_costs_itself_only(
    door: Door, settings: Settings, admin: Connection
) -> None:
    async with writing(door.open, settings) as (journal, instruments):
        await journal.append(record(action="one"))
        await journal.append(record(action="refused by the database", tenant="\0"))
        await journal.append(record(action="no JSON", details={"x": object()}))
        await journal.append(record(action="ugly", description="a\0b\ud800", details={"sql": "\0", "x\0": ["\udfff"]}))
    assert await actions(admin) == ["one", "ugly"]
    assert (count(instruments, "written"), count(instruments, "unstorable")) == (2, 2)


async def test_without_its_record_nothing_is_answered_where_that_is_wished(
    door: Door, settings: Settings, admin: Connection
) -> None:
    wished: dict[str, Any] = {"audit_on_failure": "refuse", "audit_timeout_ms": 2_000}
    async with writing(door.open, settings, **wished) as (journal, instruments):
        journal.check()
        await journal.append(record(action="kept"))
        assert await actions(admin) == ["kept"]  # committed before append returned
        assert door.last is not None
        door.shut = True
        await admin.execute("SELECT pg_terminate_backend($1)", door.last.get_server_pid())
        settings_now = journal._settings
        journal._settings = settings_now.model_copy(update={"audit_timeout_ms": 50})
        with pytest.raises(AuditAway, match="no answer is given without an audit record"):
            await journal.append(record(action="late"))
        with pytest.raises(AuditAway):
            journal.check()
        assert instruments.registry.get_sample_value("hubscope_audit_refused_total") == 2
        door.shut = False
        journal._settings = settings_now
        await journal.append(record(action="again"))
        journal.check()
    assert await actions(admin) == ["kept", "late", "again"]
