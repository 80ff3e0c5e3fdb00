"""Each tenant's rate: a token bucket of events per second, per process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hubscope.errors import RateExceeded
from hubscope.settings import Settings

FORGET_ABOVE: Final = 10_000
"""So many buckets are kept at most; full ones, which say nothing, are forgotten first."""


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class Rates:
    """Events per second of each tenant (HUBSCOPE_TENANT_EVENTS_PER_SECOND, HUBSCOPE_TENANT_BURST_EVENTS).

    A post is let in while the bucket is not empty and may leave it in debt, so a post larger than what is left is not
    refused for ever: over time a tenant gets its rate, exceeded by a burst and one post at most.

    Args:
        settings: rate and burst.
        monotonic: seconds; tests bring their own.
    """

    def __init__(self, settings: Settings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = settings.tenant_events_per_second
        self._burst = float(settings.tenant_burst_events)
        self._monotonic = monotonic
        self._buckets: dict[str, _Bucket] = {}

    def check(self, tenant: str) -> None:
        """Before anything is read for a tenant.

        Raises:
            RateExceeded: with the seconds after which it may go on.
        """
        if self._rate is None:
            return
        level = self._bucket(tenant).level
        if level <= 0:
            raise RateExceeded(
                f"tenant {tenant} sends more than {self._rate} events/s (HUBSCOPE_TENANT_EVENTS_PER_SECOND)",
                # The next whole second at which something is in the bucket, not that at which it is just empty.
                retry_after_seconds=math.floor(-level / self._rate) + 1,
                limit_events_per_second=self._rate,
            )

    def spend(self, tenant: str, events: int) -> None:
        """Take the events of a post off the tenant's bucket.

        Raises:
            RateExceeded: other posts of the tenant have emptied it meanwhile; nothing is taken.
        """
        if self._rate is None or events == 0:
            return
        self.check(tenant)
        self._bucket(tenant).level -= events

    def _bucket(self, tenant: str) -> _Bucket:
        now = self._monotonic()
        bucket = self._buckets.get(tenant)
        if bucket is None:
            if len(self._buckets) >= FORGET_ABOVE:
                self._forget(now)
            bucket = self._buckets[tenant] = _Bucket(self._burst, now)
        else:
            self._fill(bucket, now)
        return bucket

    def _fill(self, bucket: _Bucket, now: float) -> None:
        assert self._rate is not None
        bucket.level = min(self._burst, bucket.level + (now - bucket.at) * self._rate)
        bucket.at = now

    def _forget(self, now: float) -> None:
        for tenant, bucket in list(self._buckets.items()):
            self._fill(bucket, now)
            if bucket.level >= self._burst:
                del self._buckets[tenant]
