"""The one way in: a post in the name of a principal becomes a receipt."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec
from prometheus_client import Counter as Metric

from hubscope.access import Principal, Rates
from hubscope.ingest.envelope import NDJSON_TYPES, Batch, Window, checked, derived_id, read
from hubscope.ingest.names import Names, monotonic
from hubscope.ingest.rows import record
from hubscope.ingest.scrub import scrubbed, to_scrub
from hubscope.ingest.spans import SpanLimits, SpanReceipt, read_traces
from hubscope.ingest.writer import Fate, Outcome, Refused, Writer
from hubscope.instruments import Instruments
from hubscope.model import EVENT_TYPES, Event, Receipt, Rejected
from hubscope.settings import Settings
from hubscope.store import Connection

PAUSE_AFTER_S: Final = 0.02
_NAME_OF = {kind: name for name, kind in EVENT_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Posted:
    """A post that is in the queue.

    Attributes:
        stored: done with the commit, or when nothing is promised any more.
        receipt: what to answer then; raises what `Ingest.post` raises.
    """

    stored: asyncio.Future[list[Outcome]]
    receipt: Callable[[], Receipt]


class Ingest:
    """Decode, check, commit, count.

    Args:
        open_connection: makes a connection under the writer role.
        settings: limits.
        instruments: where outcomes are counted.
        tell: live updates of what is stored; history is no news.
    """

    def __init__(
        self,
        open_connection: Callable[[], Awaitable[Connection]],
        settings: Settings,
        instruments: Instruments,
        *,
        tell: bool = True,
    ) -> None:
        self._settings = settings
        self._instruments = instruments
        self._names = Names(settings, instruments)
        self._writer = Writer(open_connection, settings, instruments, self._names, tell=tell)
        self._rates = Rates(settings)
        self._max_age = timedelta(days=settings.max_event_age_days)
        self._max_skew = timedelta(seconds=settings.max_clock_skew_seconds)
        self._counted: dict[tuple[type[Event], Fate], Metric] = {}
        self._free = {"max_free_bytes": settings.max_attrs_bytes, "max_free_depth": settings.max_attrs_depth}

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
        batch = self._read(principal, body, content_type)
        return await self._commit(principal.tenant, batch.events, batch.places, batch.rejected, len(body))

    def posted(self, principal: Principal, body: bytes, content_type: str) -> Posted:
        """`check` and `post` without a wait, for a short post.

        Raises:
            as they do, but for what comes of the commit.
        """
        self._rates.check(principal.tenant)
        batch = self._read(principal, body, content_type)
        suspects = to_scrub(batch.events)
        events = batch.events
        if suspects:
            events = list(events)
            for place in suspects:
                events[place] = scrubbed(events[place], self._settings.error_message_max_chars)
        stored = self._queued(principal.tenant, events, len(body))
        return Posted(stored, lambda: self._receipt(events, batch.places, stored.result(), batch.rejected))

    def _read(self, principal: Principal, body: bytes, content_type: str) -> Batch:
        batch = read(
            body,
            content_type,
            tenant=principal.tenant,
            window=self._window(),
            max_events=self._settings.max_batch_events,
            **self._free,
        )
        self._rates.spend(principal.tenant, len(batch.events) + len(batch.rejected))
        return batch

    async def record(self, principal: Principal, events: Sequence[Event]) -> Receipt:
        """Commit events that this process saw itself: its own calls, its probes. No share is spent on them.

        Returns:
            The receipt, after the commit. What the store cannot hold is rejected, as in a post.

        Raises:
            TooManyRequests (ShareExceeded), Unavailable (QueueFull, DatabaseAway, CommitUnknown, ShuttingDown): the
                same again later.
        """
        window = self._window()
        taken: list[Event] = []
        places: list[int] = []
        rejected: list[Rejected] = []
        size = 0
        for place, event in enumerate(events):
            problem = checked(event, window)
            if problem is None:
                event_id = event.event_id or derived_id(principal.tenant, event)
                taken.append(event if event.event_id else msgspec.structs.replace(event, event_id=event_id))
                places.append(place)
                size += len(msgspec.json.encode(event))
            else:
                rejected.append(Rejected(place, str(event.event_id), *problem))
        return await self._commit(principal.tenant, taken, places, rejected, size)

    async def history(
        self,
        principal: Principal,
        body: bytes,
        max_events: int,
        *,
        oldest: datetime,
        prepare: Callable[[Iterable[date]], Awaitable[None]],
    ) -> Receipt:
        """Commit events of the past: NDJSON, as `post` takes it, back to `oldest` rather than to the usual window.

        Args:
            max_events: how many lines there are.
            prepare: makes room for the days (UTC) that the events are of; called before anything is stored.

        Raises:
            as `post`, without a tenant's rate: history is the operator's own.
        """
        window = Window(oldest, self._window().newest)
        batch = read(body, NDJSON_TYPES[0], tenant=principal.tenant, window=window, max_events=max_events, **self._free)
        await prepare({event.time.astimezone(UTC).date() for event in batch.events})
        return await self._commit(principal.tenant, batch.events, batch.places, batch.rejected, len(body))

    async def spans(self, principal: Principal, body: bytes, content_type: str) -> SpanReceipt:
        """Commit the tool calls of one OTLP export.

        Args:
            principal: in whose name.
            body: an ExportTraceServiceRequest as sent, after gzip.
            content_type: protobuf or JSON.

        Returns:
            The receipt, after the commit. Spans that are no tool calls are ignored.

        Raises:
            InvalidRequest, UnsupportedMediaType, TooLarge: nothing was taken.
            TooManyRequests (RateExceeded, ShareExceeded): the tenant's share is used up; send the same again later.
            Unavailable (QueueFull, DatabaseAway, CommitUnknown, ShuttingDown): send the same again.
        """
        settings = self._settings
        traces = read_traces(
            body,
            content_type,
            window=self._window(),
            max_calls=settings.max_batch_events,
            limits=SpanLimits(settings.otlp_max_attributes, settings.otlp_max_attribute_chars),
        )
        self._rates.spend(principal.tenant, len(traces.events) + len(traces.rejected))
        receipt = await self._commit(principal.tenant, traces.events, traces.places, traces.rejected, len(body))
        count = self._instruments.spans.labels
        count("accepted").inc(receipt.accepted)
        count("duplicate").inc(receipt.duplicates)
        count("rejected").inc(len(receipt.rejected))
        count("ignored").inc(traces.ignored)
        return SpanReceipt(receipt.accepted, receipt.duplicates, traces.ignored, receipt.rejected)

    def _window(self) -> Window:
        """The times that are accepted now."""
        return Window.around(datetime.now(UTC), max_age=self._max_age, max_skew=self._max_skew)

    async def _commit(
        self, tenant: str, events: Sequence[Event], places: Sequence[int], refused: list[Rejected], size: int
    ) -> Receipt:
        """Whatever way events come, this is the one on which they are scrubbed, stored and counted."""
        events = await self._scrubbed(events)
        return self._receipt(events, places, await self._queued(tenant, events, size), refused)

    def _queued(self, tenant: str, events: Sequence[Event], size: int) -> asyncio.Future[list[Outcome]]:
        """Put the rows of events in the queue; what will become of each."""
        settled = self._names.settle_all(tenant, events, monotonic())
        records = [
            record(tenant, event.event_id, event, settled=False)  # type: ignore[arg-type]  # each has its id by now
            if known is None
            else record(tenant, event.event_id, known.event, known.counted)  # type: ignore[arg-type]
            for event, known in zip(events, settled, strict=True)
        ]
        return self._writer.store(records, size)

    def _receipt(
        self, events: Sequence[Event], places: Sequence[int], outcomes: Sequence[Outcome], refused: list[Rejected]
    ) -> Receipt:
        rejected = list(refused)
        told: dict[tuple[type[Event], Outcome], int]
        told = Counter(zip(map(type, events), outcomes, strict=True)) if len(events) > 1 else {}
        if len(events) == 1:  # a counter takes longer than the rest of what is done for one event
            told[type(events[0]), outcomes[0]] = 1
        accepted = duplicates = 0
        for (kind, outcome), number in told.items():
            if outcome is Fate.ACCEPTED:
                accepted += number
            elif outcome is Fate.DUPLICATE:
                duplicates += number
            else:
                continue
            self._count(kind, outcome, number)
        if accepted + duplicates < len(events):
            rejected += [
                Rejected(place, str(event.event_id), "unstorable", outcome.detail)
                for place, event, outcome in zip(places, events, outcomes, strict=True)
                if isinstance(outcome, Refused)
            ]
        if rejected:
            rejected.sort(key=lambda one: one.index)
            self._instruments.events.labels("any", "rejected").inc(len(rejected))
        return Receipt(accepted, duplicates, rejected)

    def _count(self, kind: type[Event], outcome: Fate, number: int) -> None:
        counted = self._counted.get((kind, outcome))
        if counted is None:
            counted = self._instruments.events.labels(_NAME_OF[kind], outcome.value)
            self._counted[kind, outcome] = counted
        counted.inc(number)

    async def _scrubbed(self, events: Sequence[Event]) -> Sequence[Event]:
        """The events without secrets."""
        suspects = to_scrub(events)
        if not suspects:
            return events
        cap = self._settings.error_message_max_chars
        clean = list(events)
        paused = monotonic()
        for place in suspects:
            if monotonic() - paused > PAUSE_AFTER_S:  # much to redact: other posts are answered meanwhile
                await asyncio.sleep(0)
                paused = monotonic()
            clean[place] = scrubbed(clean[place], cap)
        return clean
