"""The harness itself: a service that acknowledges before it commits is found out, and so is a store that differs."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx2
import pytest

from hubscope.store import Connection
from tests.faults.house import HONEST, Database, house
from tests.faults.ledger import Ledger, made_up
from tests.faults.producers import Load

pytestmark = pytest.mark.faults

HASTY: Final = Path(__file__).with_name("hasty.py")


async def test_a_service_that_acknowledges_before_it_commits_is_found_out(
    crashable: Database, record_property: Callable[[str, object], None]
) -> None:
    async with house(crashable, (str(HASTY),)) as one:
        async with one.load() as load:
            await load.progress()
            await one.service.stop(signal.SIGKILL)
            one.service.program = HONEST
            await one.restart()
        verdict = await one.quiet()
    record_property("fault", f"control, acknowledges before it commits: {verdict}")
    assert verdict.faults.keys() == {"lost", "receipts"}


FOLD: Final = "SELECT rollup.fold()"
"""Until then rollups read raw itself, and follow what is done to it."""
TAMPERED: Final[dict[str, tuple[str, set[str]]]] = {
    "nothing": ("SELECT 1", set()),
    "a row is gone": (
        f"{FOLD}; DELETE FROM raw.tool_calls WHERE event_id = (SELECT min(event_id::text)::uuid FROM raw.tool_calls)",
        {"lost", "receipts", "rollups"},
    ),
    "a row is there twice": (
        "INSERT INTO raw.hub_events (tenant_id, event_id, time, type, name, payload)"
        " SELECT tenant_id, event_id, time - interval '1 microsecond', type, name, payload FROM raw.hub_events LIMIT 1",
        {"duplicates", "altered"},
    ),
    "a row of nobody": (
        "INSERT INTO raw.hub_events (event_id, time, type, name) VALUES (gen_random_uuid(), now(), 'audit', 'x')",
        {"alien"},
    ),
    "a number has changed": (
        f"{FOLD}; UPDATE raw.tool_calls SET request_bytes = request_bytes + 1 WHERE event_id ="
        " (SELECT min(event_id::text)::uuid FROM raw.tool_calls)",
        {"altered", "rollups"},
    ),
    "free data has changed": (
        "UPDATE raw.hub_events SET payload = payload || '{\"n\": -1}'"
        " WHERE event_id = (SELECT min(event_id::text)::uuid FROM raw.hub_events)",
        {"altered"},
    ),
    "a rollup has lost what was added": ("DELETE FROM rollup.pending", {"rollups"}),
}


@pytest.mark.parametrize(("tampering", "found"), TAMPERED.values(), ids=TAMPERED)
async def test_whatever_differs_from_what_was_acknowledged_is_found(
    tampering: str, found: set[str], client: httpx2.AsyncClient, admin: Connection
) -> None:
    ledger, dice, now = Ledger(), random.Random(3), datetime.now(UTC)
    load = Load("http://127.0.0.1:3401", ledger)
    for _ in range(3):
        await load.deliver(client, [made_up(dice, now) for _ in range(40)])
    assert (ledger.acknowledged, (await ledger.verdict(admin)).faults) == (120, {})
    await admin.execute(tampering)
    assert (await ledger.verdict(admin)).faults.keys() == found


async def test_receipts_that_cannot_be_true_are_found() -> None:
    dice, now = random.Random(3), datetime.now(UTC)
    events = [made_up(dice, now) for _ in range(4)]
    ledger = Ledger()
    unknown = ledger.send(events)
    ledger.acknowledge(events, unknown, {"accepted": 3, "duplicates": 0, "rejected": []})
    assert ledger.wrong == ["3 + 0 + 0 of 4 events"]
    ledger.wrong.clear()
    new = [made_up(dice, now)]
    ledger.acknowledge(new, ledger.send(new), {"accepted": 0, "duplicates": 1, "rejected": []})
    assert ledger.wrong == ["1 duplicates among 0 that were sent more than once"]
    ledger.wrong.clear()
    ledger.acknowledge(events, ledger.send(events), {"accepted": 4, "duplicates": 0, "rejected": []})
    assert ledger.wrong == ["4 accepted, 0 of them for the first time"]
