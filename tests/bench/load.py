"""The standard load of every bench: a month of a busy hub, the same for everybody.

30 days, 5 tenants, 20 servers with 10 tools each, a daily rhythm, lognormal durations, 3 % errors in bursts, 1 % late,
0.5 % sent twice, UUIDv7 ids. Everything is drawn from one seed; the true counts and percentiles come with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from hubscope.model import ToolCall
from hubscope.store.retention import midnight

SEED: Final = 20261121
DAYS: Final = 30
TENANTS: Final = tuple(f"tenant-{n}" for n in range(5))
SERVERS: Final = tuple(f"server-{n:02}" for n in range(20))
TOOLS: Final = tuple(f"tool-{n:03}" for n in range(200))
"""Tool n belongs to server n % 20."""
CLIENTS: Final = ("claude", "cursor", "")
STATUSES: Final = ("ok", "error", "timeout")
ZIPF: Final = 1.1
"""Exponent of the shares of tools; tenants share by 1 / rank."""
ERROR_SHARE: Final = 0.03
BURST_SHARE: Final = 0.05
"""Share of a server's hours in which half of all its errors happen."""
LATE_SHARE: Final = 0.01
DUPLICATE_SHARE: Final = 0.005
UNTIMED_SHARE: Final = 0.01
_HOUR_US: Final = 3_600_000_000
_RHYTHM: Final = 1.0 + 0.8 * np.sin((np.arange(24) - 8) / 24 * 2 * np.pi)
"""Load of each hour (UTC) of a day relative to the mean: quietest at 2, busiest at 14."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Load:
    """The events in the order in which they arrive, as columns.

    Attributes:
        end: the time of the newest event, at most.
        time_us: microseconds since the epoch.
        tenant, tool, client, status: indexes into the tuples above.
        duration_ms: NaN where the call did not tell.
        id_high, id_low: the halves of the UUIDv7.
        again: positions of events that are sent a second time, right after the batch that holds them.
    """

    end: datetime
    time_us: Ints
    tenant: Ints
    tool: Ints
    client: Ints
    status: Ints
    duration_ms: Floats
    request_bytes: Ints
    response_bytes: Ints
    id_high: NDArray[np.uint64]
    id_low: NDArray[np.uint64]
    again: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.time_us)

    def calls(self, start: int, stop: int) -> list[tuple[str, UUID, ToolCall]]:
        """Events start..stop as (tenant, event_id, call)."""
        part = slice(start, stop)
        return [
            (
                TENANTS[tenant],
                UUID(int=(high << 64) | low),
                ToolCall(
                    time=datetime.fromtimestamp(us / 1_000_000, UTC),
                    server=SERVERS[tool % 20],
                    tool=TOOLS[tool],
                    status=STATUSES[status],
                    duration_ms=None if duration != duration else duration,
                    error_type=None if status == 0 else "upstream_error",
                    client=CLIENTS[client],
                    transport="stdio" if tool % 2 else "http",
                    request_bytes=request,
                    response_bytes=response,
                    attrs=_ATTRS[tool % 4],
                ),
            )
            for us, tenant, tool, client, status, duration, request, response, high, low in zip(
                self.time_us[part].tolist(),
                self.tenant[part].tolist(),
                self.tool[part].tolist(),
                self.client[part].tolist(),
                self.status[part].tolist(),
                self.duration_ms[part].tolist(),
                self.request_bytes[part].tolist(),
                self.response_bytes[part].tolist(),
                self.id_high[part].tolist(),
                self.id_low[part].tolist(),
                strict=True,
            )
        ]

    def batches(self, size: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of whole batches, in the order of arrival."""
        for start in range(0, len(self), size):
            yield start, min(start + size, len(self))

    def true_calls(self) -> dict[tuple[str, str], int]:
        """(tenant, tool) -> calls."""
        keys, counts = np.unique(self.tenant * len(TOOLS) + self.tool, return_counts=True)
        return {
            (TENANTS[key // len(TOOLS)], TOOLS[key % len(TOOLS)]): count
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True)
        }

    def true_percentile(self, tenant: int, tool: int, quantile: float, since_us: int = 0) -> float | None:
        """Exact: the duration in ms of rank ceil(q * n); None without a timed call."""
        chosen = self.duration_ms[
            (self.tenant == tenant) & (self.tool == tool) & (self.time_us >= since_us) & ~np.isnan(self.duration_ms)
        ]
        if not len(chosen):
            return None
        rank = max(1, int(np.ceil(quantile * len(chosen))))
        return float(np.partition(chosen, rank - 1)[rank - 1])


_ATTRS: Final = tuple(
    msgspec.Raw(text)
    for text in (
        b'{"model":"large","retries":0}',
        b'{"model":"small","retries":0,"region":"eu"}',
        b'{"model":"large","retries":1,"cached":false}',
        b'{"model":"small"}',
    )
)


def standard_load(events: int, end: datetime, seed: int = SEED) -> Load:
    """The standard load.

    Args:
        events: how many different ones.
        end: when the 30 days end.
        seed: of everything that is drawn.
    """
    draw = np.random.default_rng(seed)
    end_us = int(end.timestamp() * 1_000_000)
    start_us = end_us - DAYS * 24 * _HOUR_US
    # A daily rhythm: an hour of the span is drawn by its weight, the moment in it evenly.
    hours = np.arange(DAYS * 24)
    first_hour = datetime.fromtimestamp(start_us / 1_000_000, UTC).hour
    weights = _RHYTHM[(hours + first_hour) % 24]
    hour = draw.choice(hours, events, p=weights / weights.sum())
    time_us = start_us + hour * _HOUR_US + draw.integers(0, _HOUR_US, events)
    shares = 1 / np.arange(1, len(TENANTS) + 1)
    tenant = draw.choice(len(TENANTS), events, p=shares / shares.sum())
    popularity = 1 / np.arange(1, len(TOOLS) + 1) ** ZIPF
    # Every tenant likes other tools best.
    rank = draw.choice(len(TOOLS), events, p=popularity / popularity.sum())
    orders = np.array([draw.permutation(len(TOOLS)) for _ in TENANTS])
    tool = orders[tenant, rank]
    # Half of all errors fall into bursts: a few hours of each server.
    bursts = draw.random((len(SERVERS), DAYS * 24)) < BURST_SHARE
    in_burst = bursts[tool % len(SERVERS), hour]
    chance = np.where(in_burst, ERROR_SHARE / 2 / BURST_SHARE, ERROR_SHARE / 2 / (1 - BURST_SHARE))
    failed = draw.random(events) < chance
    status = np.where(failed, np.where(draw.random(events) < 0.2, 2, 1), 0)
    # A median per tool from 3 ms to 3 s, a spread of its own.
    median = 3.0 * 1000 ** draw.random(len(TOOLS))
    spread = 0.3 + 0.6 * draw.random(len(TOOLS))
    duration = np.minimum(median[tool] * np.exp(spread[tool] * draw.standard_normal(events)), 1e8)
    duration = np.round(duration, 3)
    duration[draw.random(events) < UNTIMED_SHARE] = np.nan
    # Late events arrive minutes to days after they happened, but within the window that ingest accepts.
    delay = np.zeros(events, np.int64)
    late = draw.random(events) < LATE_SHARE
    delay[late] = np.minimum(
        np.exp(draw.normal(np.log(2 * _HOUR_US), 1.5, int(late.sum()))), 6.0 * 24 * _HOUR_US
    ).astype(np.int64)
    arrival = np.argsort(time_us + delay, kind="stable")
    milliseconds = (time_us // 1000).astype(np.uint64)
    id_high = (milliseconds << np.uint64(16)) | np.uint64(0x7000) | draw.integers(0, 2**12, events).astype(np.uint64)
    id_low = np.uint64(0x8000000000000000) | draw.integers(0, 2**62, events).astype(np.uint64)
    return Load(
        end=end,
        time_us=time_us[arrival],
        tenant=tenant[arrival],
        tool=tool[arrival],
        client=draw.choice(len(CLIENTS), events, p=(0.6, 0.3, 0.1)),
        status=status[arrival],
        duration_ms=duration[arrival],
        request_bytes=draw.integers(40, 2_000, events),
        response_bytes=draw.integers(100, 20_000, events),
        id_high=id_high[arrival],
        id_low=id_low[arrival],
        again=np.sort(draw.choice(events, int(events * DUPLICATE_SHARE), replace=False)),
    )


def days_of(load: Load) -> tuple[datetime, datetime]:
    """First and last day (UTC) that the load touches."""
    return midnight(load.end - timedelta(days=DAYS)), midnight(load.end)


def facts(load: Load) -> dict[str, Any]:
    """What a bench tells of its load."""
    return {"events": len(load), "days": DAYS, "tenants": len(TENANTS), "tools": len(TOOLS), "seed": SEED}
