"""What the answers of hubscope mean to those who post, and how long they wait."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.delivery import Verdict, judge, pause_seconds


def receipt(**changes: Any) -> bytes:
    return json.dumps({"accepted": 2, "duplicates": 1, "rejected": []} | changes).encode()


PROBLEM = b'{"type": "urn:x", "code": "unavailable", "detail": "not now"}'


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, receipt(), Verdict.TAKEN),
        (200, receipt(accepted=3), Verdict.LATER),
        (200, b"<html>", Verdict.HELD),
        (400, PROBLEM, Verdict.REFUSED),
        (415, PROBLEM, Verdict.REFUSED),
        (413, PROBLEM, Verdict.SPLIT),
        (401, PROBLEM, Verdict.HELD),
        (403, PROBLEM, Verdict.HELD),
        (404, b"", Verdict.HELD),
        (301, b"", Verdict.HELD),
        (204, b"", Verdict.HELD),
        (429, PROBLEM, Verdict.LATER),
        (500, b"", Verdict.LATER),
        (502, b"\xff", Verdict.LATER),
        (503, PROBLEM, Verdict.LATER),
    ],
)
def test_each_status_says_what_to_do(status: int, body: bytes, verdict: Verdict) -> None:
    assert judge(status, {}, body, 3).verdict is verdict


def test_rejected_events_are_counted_with_the_first_reason() -> None:
    rejected = [{"index": 0, "event_id": None, "code": "too_old", "detail": "time: ..."}, {"index": 1, "code": "new"}]
    outcome = judge(200, {}, receipt(accepted=1, duplicates=0, rejected=rejected), 3)
    assert (outcome.verdict, outcome.rejected, outcome.reason) == (Verdict.TAKEN, 2, "too_old: time: ...")


def test_a_reason_names_the_problem() -> None:
    assert judge(503, {}, PROBLEM, 1).reason == "status 503, unavailable: not now"


@pytest.mark.parametrize(
    ("header", "seconds"), [("2", 2.0), ("0", 0.0), ("x", None), ("-1", None), ("inf", None), (None, None)]
)
def test_retry_after_is_read_where_it_makes_sense(header: str | None, seconds: float | None) -> None:
    headers = {} if header is None else {"retry-after": header}
    assert judge(503, headers, b"", 1).retry_after_seconds == seconds


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_to_a_bound_and_are_never_the_same_for_all(tries: int, chance: float) -> None:
    longest = min(0.25 * 2 ** min(tries - 1, 100), 5.0)
    assert longest / 2 <= pause_seconds(tries, None, lambda: chance) <= longest


@given(st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_what_the_service_asks_for_is_kept_up_to_a_minute(asked: float, chance: float) -> None:
    assert min(asked, 60) <= pause_seconds(1, asked, lambda: chance) <= min(asked, 60) * 1.1
