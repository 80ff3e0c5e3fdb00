"""What was sent and what was acknowledged, and whether the store agrees. Knows nothing of how hubscope works inside."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from hubscope.store import Connection
from tests.integration.store.test_rollups import DIFFERENCES

BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)
TENANT: Final = "default"
STATUSES: Final = ("ok", "ok", "ok", "ok", "error", "timeout", "cancelled", "denied")
TABLES: Final = ("tool_calls", "server_events", "hub_events")

Event = dict[str, Any]


def made_up(dice: random.Random, now: datetime) -> Event:
    """An event as hubs send them: most are calls of this moment, some are checks or others, some are days late."""
    late = timedelta(days=dice.choice([0, 1, 2, 5]), minutes=dice.randrange(90)) if dice.random() < 0.1 else timedelta()
    about: Event = {
        "event_id": str(UUID(int=dice.getrandbits(128), version=4)),
        "time": (now - late).isoformat(),
        "hub": dice.choice(["", "north"]),
    }
    free = {"n": dice.randrange(10**6), "text": dice.choice(["", "plain", "ünï ☃", 'a "quote" \\ and'])}
    match dice.random():
        case share if share < 0.8:
            return about | {
                "type": "tool_call",
                "server": dice.choice(["files", "web"]),
                "tool": dice.choice(["read", "write", "list"]),
                "client": dice.choice(["", "desk"]),
                "status": dice.choice(STATUSES),
                "duration_ms": dice.choice([None, dice.lognormvariate(3, 2)]),
                "session_id": f"s{dice.randrange(20)}",
                "transport": dice.choice(["", "stdio", "http"]),
                "request_bytes": dice.randrange(5_000),
                "response_bytes": dice.choice([None, dice.randrange(10**6)]),
                "attrs": free,
            }
        case share if share < 0.9:
            return about | {
                "type": "server_event",
                "server": dice.choice(["files", "web"]),
                "source": dice.choice(["probe", "connection"]),
                "outcome": "answered",
                "state": dice.choice(["up", "degraded", "down"]),
                "latency_ms": dice.lognormvariate(2, 1),
                "tools": dice.randrange(30),
                "attrs": free,
            }
        case _:
            return about | {"type": "hub_event", "name": "config_changed", "payload": free}


@dataclass(slots=True)
class Sent:
    """One event and what is known of it.

    Attributes:
        tries: how often it was sent, answered or not.
        acknowledged: a receipt has said that it is stored.
        rejected: the code under which a receipt has refused it for good.
    """

    event: Event
    tries: int = 0
    acknowledged: bool = False
    rejected: str | None = None


@dataclass
class Verdict:
    """How the store differs from what was acknowledged; ids, or a sentence for each difference."""

    acknowledged: int
    lost: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    alien: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    receipts: list[str] = field(default_factory=list)
    rollups: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        """What is wrong, a few examples of each; empty when all is well."""
        kinds = ("lost", "duplicates", "alien", "altered", "receipts", "rollups")
        return {kind: getattr(self, kind)[:5] for kind in kinds if getattr(self, kind)}

    def __str__(self) -> str:
        return (
            f"acknowledged {self.acknowledged}, lost {len(self.lost)}, duplicates {len(self.duplicates)},"
            f" alien {len(self.alien)}, altered {len(self.altered)}"
        )


class Ledger:
    """All that producers know."""

    def __init__(self) -> None:
        self.sent: dict[str, Sent] = {}
        self.answers: Counter[str] = Counter()
        """Posts by how they ended: a status, or the kind of failure."""
        self.wrong: list[str] = []
        """Receipts that cannot be true."""
        self.repeated = 0
        """Events that receipts call duplicates."""
        self.accepted = 0
        """Events that receipts call new. No more than are stored: some receipts do not arrive."""

    @property
    def acknowledged(self) -> int:
        return sum(one.acknowledged for one in self.sent.values())

    @property
    def failures(self) -> int:
        """Posts that were not acknowledged."""
        return sum(count for answer, count in self.answers.items() if answer != "200")

    def send(self, events: Sequence[Event]) -> set[str]:
        """Remember events that are sent now, for the first time or again; the ids that no receipt spoke of yet."""
        for event in events:
            self.sent.setdefault(event["event_id"], Sent(event)).tries += 1
        return {event["event_id"] for event in events if not self.sent[event["event_id"]].acknowledged}

    def acknowledge(self, events: Sequence[Event], unknown: set[str], receipt: dict[str, Any]) -> None:
        """Remember a receipt for a post of these events, and whether it can be true.

        A receipt counts; it does not say which event was stored before. So it is held against what is possible: only
        what nobody had acknowledged can be newly accepted, only what was sent more than once can be a duplicate.

        Args:
            unknown: what `send` gave for this post.
        """
        rejected = {one["index"]: one["code"] for one in receipt["rejected"]}
        taken = [event["event_id"] for index, event in enumerate(events) if index not in rejected]
        accepted, duplicates = receipt["accepted"], receipt["duplicates"]
        if accepted + duplicates != len(taken):
            self.wrong.append(f"{accepted} + {duplicates} + {len(rejected)} of {len(events)} events")
        self.accepted += accepted
        self.repeated += duplicates
        if accepted > len(unknown):
            self.wrong.append(f"{accepted} accepted, {len(unknown)} of them for the first time")
        again = sum(self.sent[event_id].tries > 1 for event_id in taken)
        if duplicates > again:
            self.wrong.append(f"{duplicates} duplicates among {again} that were sent more than once")
        for event_id in taken:
            self.sent[event_id].acknowledged = True
        for index, code in rejected.items():
            self.sent[events[index]["event_id"]].rejected = code

    async def verdict(self, connection: Connection) -> Verdict:
        """Compare the store with what is known. In a quiet moment: nothing is under way.

        Args:
            connection: may read raw and rollup.
        """
        found = Verdict(self.acknowledged, receipts=list(self.wrong))
        stored: defaultdict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for table in TABLES:
            for row in await connection.fetch(f"SELECT * FROM raw.{table}"):
                stored[str(row["event_id"])].append((table, dict(row)))
        for event_id, one in self.sent.items():
            if one.acknowledged and event_id not in stored:
                found.lost.append(event_id)
        for event_id, rows in stored.items():
            sent = self.sent.get(event_id)
            if sent is None:
                found.alien.append(event_id)
                continue
            if sent.rejected is not None and not sent.acknowledged:
                found.alien.append(f"{event_id} was rejected ({sent.rejected}) and is stored")
            found.duplicates += [event_id] * (len(rows) - 1)
            found.altered += [f"{event_id}: {what}" for row in rows for what in differences(sent.event, *row)]
        if self.accepted > sum(map(len, stored.values())):
            found.receipts.append(f"{self.accepted} were accepted, {sum(map(len, stored.values()))} are stored")
        found.rollups = await rollup_differences(connection)
        return found


async def rollup_differences(connection: Connection) -> list[str]:
    """Where the rollups differ from a recount of raw."""
    rows = await connection.fetch(DIFFERENCES, [TENANT], BEGINNING)
    return [" ".join(str(value) for value in row.values()) for row in rows]


def differences(event: Event, table: str, row: dict[str, Any]) -> Iterator[str]:
    """The fields that are not stored as they were sent."""
    expected_table = {"tool_call": "tool_calls", "server_event": "server_events"}.get(event["type"], "hub_events")
    if table != expected_table:
        yield f"is in {table}"
    if row["tenant_id"] != TENANT:
        yield f"tenant {row['tenant_id']}"
    for name, sent in event.items():
        stored = row.get(name)
        match name:
            case "type" if table != "hub_events":
                continue
            case "time":
                same = stored == datetime.fromisoformat(sent)
            case "event_id":
                same = stored == uuid.UUID(sent)
            case "attrs" | "payload":
                same = stored is not None and json.loads(stored) == sent
            case _:
                same = stored == sent
        if not same:
            yield f"{name} is {stored!r}, sent was {sent!r}"
