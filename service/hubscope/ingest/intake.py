"""The one way in: a post in the name of a principal becomes a receipt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from hubscope.access import Principal, Rates
from hubscope.ingest.envelope import Window, read
from hubscope.ingest.rows import record
from hubscope.ingest.writer import Fate, Refused, Writer
from hubscope.instruments import Instruments
from hubscope.model import EVENT_TYPES, Receipt, Rejected
from hubscope.settings import Settings
from hubscope.store import Connection

_NAME_OF = {kind: name for name, kind in EVENT_TYPES.items()}


class Ingest:
    """Decode, check, commit, count.

    Args:
        open_connection: makes a connection under the writer role.
        settings: limits.
        instruments: where outcomes are counted.
    """

    def __init__(
        self, open_connection: Callable[[], Awaitable[Connection]], settings: Settings, instruments: Instruments
    ) -> None:
        self._settings = settings
        self._instruments = instruments
        self._writer = Writer(open_connection, settings, instruments)
        self._rates = Rates(settings)

    async def start(self) -> None:
        await self._writer.start()

    async def close(self, timeout_s: float | None = None) -> None:
        """Commit what waits and stop; what is not committed in time is given up (its posts were not acknowledged)."""
        await self._writer.close(timeout_s)

    def check(self, principal: Principal) -> None:
        """Whether this principal may post now, before its post is read.

        Raises:
            RateExceeded: its tenant has sent too much of late.
        """
        self._rates.check(principal.tenant)

    async def post(self, principal: Principal, body: bytes, content_type: str) -> Receipt:
        """Commit the events of one post.

        Args:
            principal: in whose name; its tenant becomes the first column of every row.
            body: as sent, after gzip.
            content_type: JSON or NDJSON.

        Returns:
            The receipt, after the commit: accepted + duplicates + rejected is the number of events sent.

        Raises:
            InvalidRequest, UnsupportedMediaType, TooLarge: nothing was taken.
            TooManyRequests (RateExceeded, ShareExceeded): the tenant's share is used up; send the same again later.
            Unavailable (QueueFull, DatabaseAway, CommitUnknown, ShuttingDown): send the same again.
        """
        window = Window.around(
            datetime.now(UTC),
            max_age_days=self._settings.max_event_age_days,
            max_skew_seconds=self._settings.max_clock_skew_seconds,
        )
        batch = read(
            body,
            content_type,
            tenant=principal.tenant,
            window=window,
            max_events=self._settings.max_batch_events,
            max_free_bytes=self._settings.max_attrs_bytes,
            max_free_depth=self._settings.max_attrs_depth,
        )
        self._rates.spend(principal.tenant, len(batch.items) + len(batch.rejected))
        records = [record(principal.tenant, item.event_id, item.event) for item in batch.items]
        # Shielded: a client that hangs up does not take its neighbours' commit along.
        outcomes = await asyncio.shield(self._writer.store(records, len(body)))
        rejected = list(batch.rejected)
        accepted = duplicates = 0
        count = self._instruments.events.labels
        for item, outcome in zip(batch.items, outcomes, strict=True):
            kind = _NAME_OF[type(item.event)]
            match outcome:
                case Fate.ACCEPTED:
                    accepted += 1
                    count(kind, "accepted").inc()
                case Fate.DUPLICATE:
                    duplicates += 1
                    count(kind, "duplicate").inc()
                case Refused(detail):
                    rejected.append(Rejected(item.index, str(item.event_id), "unstorable", detail))
        if rejected:
            rejected.sort(key=lambda one: one.index)
            count("any", "rejected").inc(len(rejected))
        return Receipt(accepted, duplicates, rejected)
