"""Event identities: the layout of RFC 9562 and their order."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from uuid import RFC_4122

import pytest

from hubscope.ids import uuid7


def test_an_id_has_version_7_and_the_variant_of_the_rfc() -> None:
    made = uuid7()
    assert (made.version, made.variant) == (7, RFC_4122)


def test_an_id_begins_with_the_unix_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    stamp = uuid7().int >> 80
    # Ids made faster than one tick (1/4096 ms) run ahead of the clock, here by the few that other tests made.
    assert before <= stamp <= time.time_ns() // 1_000_000 + 5


def test_ids_made_one_after_another_are_in_strictly_rising_order() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert all(earlier < later for earlier, later in pairwise(made))


def test_ids_made_by_several_threads_are_all_different() -> None:
    with ThreadPoolExecutor(4) as threads:
        made = [one for batch in threads.map(lambda _: [uuid7() for _ in range(2_000)], range(4)) for one in batch]
    assert len(set(made)) == len(made)


def test_ids_keep_rising_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = uuid7()
    monkeypatch.setattr("hubscope.ids.time.time_ns", lambda: 10**18)
    assert uuid7() > before


def test_the_random_bits_of_two_ids_of_one_moment_differ() -> None:
    low = (1 << 62) - 1
    assert len({uuid7().int & low for _ in range(1_000)}) == 1_000
