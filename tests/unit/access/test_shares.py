"""The token bucket of a tenant, on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubscope.access.shares import FORGET_ABOVE, Rates
from hubscope.errors import RateExceeded
from hubscope.settings import Settings


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def rates(clock: Clock, rate: int | None = 10, burst: int = 50) -> Rates:
    return Rates(Settings.load(tenant_events_per_second=rate, tenant_burst_events=burst), monotonic=clock)


def test_a_burst_is_taken_at_once_and_the_rest_at_the_rate() -> None:
    clock = Clock()
    limits = rates(clock)
    limits.spend("a", 50)
    with pytest.raises(RateExceeded) as refused:
        limits.check("a")
    assert refused.value.retry_after_seconds == 1
    assert refused.value.context == {"limit_events_per_second": 10}
    clock.now += 0.5
    limits.check("a")
    limits.spend("a", 5)
    with pytest.raises(RateExceeded):
        limits.spend("a", 1)


def test_a_post_larger_than_what_is_left_is_taken_and_paid_for_later() -> None:
    clock = Clock()
    limits = rates(clock)
    limits.spend("a", 1_050)
    with pytest.raises(RateExceeded) as refused:
        limits.check("a")
    assert refused.value.retry_after_seconds == 101  # after 100 s there is nothing in the bucket yet
    clock.now += refused.value.retry_after_seconds
    limits.check("a")


def test_one_tenant_does_not_spend_for_another() -> None:
    limits = rates(Clock())
    limits.spend("a", 10_000)
    limits.spend("b", 50)


def test_without_a_rate_there_is_no_limit() -> None:
    limits = rates(Clock(), rate=None)
    for _ in range(100):
        limits.check("a")
        limits.spend("a", 1_000_000)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40)), max_size=60))
@example([(0.0, 20), (0.0, 40), (0.0, 1)])  # the debt is a whole number of seconds
def test_over_time_a_tenant_gets_its_rate_a_burst_and_one_post_at_most(posts: list[tuple[float, int]]) -> None:
    clock = Clock()
    limits = rates(clock)
    started, taken = clock.now, 0
    for pause, events in posts:
        clock.now += pause
        try:
            limits.spend("a", events)
        except RateExceeded as error:
            clock.now += error.retry_after_seconds or 0
            limits.spend("a", events)  # whoever waits as told is let in
        taken += events
        assert taken <= 50 + 40 + 10 * (clock.now - started) + 1e-6


def test_tenants_that_rest_are_forgotten() -> None:
    clock = Clock()
    limits = rates(clock)
    for number in range(FORGET_ABOVE):
        limits.spend(f"t{number}", 1)
    clock.now += 60
    limits.spend("one more", 1)
    assert len(limits._buckets) == 1
