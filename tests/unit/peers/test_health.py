"""How a server is, from its probes: by table for what a person would expect, by property for what must always hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.peers.health import (
    Health,
    Step,
    Thresholds,
    Verdict,
    as_json,
    from_json,
    lapsed,
    paused,
    resumed,
    seen,
    valid_until,
)

START = datetime(2026, 11, 22, tzinfo=UTC)
LETTERS: dict[str, Verdict] = {"o": "ok", "s": "slow", "f": "failed", "d": "dead"}
FAILED: list[Verdict] = ["failed"]
OK: list[Verdict] = ["ok"]
SLOW: list[Verdict] = ["slow"]
VERDICTS = st.lists(st.sampled_from(("ok", "slow", "failed", "dead")), max_size=40)
THRESHOLDS = st.builds(Thresholds, st.integers(1, 5), st.integers(1, 5))


def at(probe: int) -> datetime:
    return START + timedelta(seconds=30 * probe)


def run(verdicts: list[Verdict], thresholds: Thresholds, health: Health | None = None) -> list[Step]:
    steps: list[Step] = []
    now = health or Health()
    for number, verdict in enumerate(verdicts):
        steps.append(seen(now, verdict, at(number), thresholds))
        now = steps[-1].health
    return steps


@pytest.mark.parametrize(
    ("probes", "states"),
    [
        ("o", "up"),
        ("of", "up degraded"),
        ("off", "up degraded down"),
        ("offo", "up degraded down down"),
        ("offoo", "up degraded down down up"),
        ("offofoo", "up degraded down down down down up"),
        ("ofofof", "up degraded degraded degraded degraded degraded"),
        ("ofoo", "up degraded degraded up"),
        ("f", "unknown"),
        ("ff", "unknown down"),
        ("fo", "unknown up"),
        ("os", "up up"),
        ("oss", "up up degraded"),
        ("ossoo", "up up degraded up up"),
        ("ososos", "up up up up up up"),
        ("ss", "up degraded"),
        ("offss", "up degraded down down degraded"),
        ("offso", "up degraded down down up"),
        ("offos", "up degraded down down degraded"),
        ("od", "up down"),
        ("d", "down"),
        ("odoo", "up down down up"),
    ],
)
def test_with_two_and_two_a_server_is(probes: str, states: str) -> None:
    assert [step.health.state for step in run([LETTERS[one] for one in probes], Thresholds(2, 2))] == states.split()


def test_an_outage_begins_with_the_first_failed_probe_of_its_streak() -> None:
    steps = run(["ok", "failed", "ok", "failed", "failed", "failed"], Thresholds(2, 3))
    assert steps[-1].health.state == "down"
    assert steps[-1].health.since == at(3)
    assert steps[-1].restated == (at(3), at(4))
    assert all(step.restated == () for step in steps[:-1])


def test_a_process_that_ended_is_down_from_then_on_not_from_its_last_slow_moment() -> None:
    steps = run(["ok", "failed", "dead"], Thresholds(2, 5))
    assert (steps[-1].health.state, steps[-1].health.since, steps[-1].restated) == ("down", at(2), ())


@given(VERDICTS, THRESHOLDS)
def test_nothing_is_down_without_a_streak_of_failures_or_proof(verdicts: list[Verdict], thresholds: Thresholds) -> None:
    before = Health()
    for number, step in enumerate(run(verdicts, thresholds)):
        if step.health.state == "down" and before.state != "down":
            streak = verdicts[: number + 1][-thresholds.unhealthy :]
            assert verdicts[number] == "dead" or (
                len(streak) == thresholds.unhealthy and set(streak) <= {"failed", "dead"}
            )
        before = step.health


@given(VERDICTS, THRESHOLDS)
def test_a_streak_of_failures_always_ends_in_down_and_one_of_good_answers_in_up(
    verdicts: list[Verdict], thresholds: Thresholds
) -> None:
    steps = run([*verdicts, *FAILED * thresholds.unhealthy], thresholds)
    assert steps[-1].health.state == "down"
    steps = run([*verdicts, *OK * thresholds.healthy], thresholds)
    assert steps[-1].health.state == "up"
    steps = run([*verdicts, *SLOW * max(thresholds.healthy, thresholds.unhealthy)], thresholds)
    assert steps[-1].health.state == "degraded"


@given(VERDICTS, THRESHOLDS)
def test_down_never_ends_before_so_many_good_answers(verdicts: list[Verdict], thresholds: Thresholds) -> None:
    steps = run(verdicts, thresholds)
    for number in range(1, len(steps)):
        if steps[number - 1].health.state == "down" and steps[number].health.state != "down":
            streak = verdicts[: number + 1][-thresholds.healthy :]
            assert len(streak) == thresholds.healthy
            assert set(streak) <= {"ok", "slow"}


@given(VERDICTS, THRESHOLDS)
def test_a_state_changes_only_with_its_since_and_an_outage_is_dated_to_a_probe_that_failed(
    verdicts: list[Verdict], thresholds: Thresholds
) -> None:
    before = Health()
    for number, step in enumerate(run(verdicts, thresholds)):
        now = step.health
        if now.state == before.state:
            assert now.since == before.since
        elif now.state == "down":
            assert now.since is not None
            first = round((now.since - START).total_seconds() / 30)
            assert set(verdicts[first : number + 1]) <= {"failed", "dead"}
            assert step.restated == (() if verdicts[number] == "dead" else tuple(at(n) for n in range(first, number)))
        else:
            assert now.since == at(number)
        before = now


@given(VERDICTS, THRESHOLDS)
def test_what_is_kept_is_what_was_known(verdicts: list[Verdict], thresholds: Thresholds) -> None:
    for step in run(verdicts, thresholds):
        assert from_json(as_json(step.health)) == step.health


@given(VERDICTS, THRESHOLDS)
def test_what_is_remembered_of_a_streak_is_bounded(verdicts: list[Verdict], thresholds: Thresholds) -> None:
    assert all(len(step.health.failed_at) < thresholds.unhealthy for step in run(verdicts, thresholds))


@given(VERDICTS, THRESHOLDS)
def test_a_maintenance_window_wipes_the_slate(verdicts: list[Verdict], thresholds: Thresholds) -> None:
    before = Health() if not verdicts else run(verdicts, thresholds)[-1].health
    during = paused(before, at(50))
    assert during == Health("maintenance", at(50))
    assert paused(during, at(51)) == during
    assert resumed(during, at(60)) == Health("unknown", at(60))
    assert resumed(before, at(60)) == before


def test_a_state_that_nobody_renewed_is_unknown_from_then_on() -> None:
    up = Health("up", at(0), good=5)
    assert lapsed(up, at(9)) == Health("unknown", at(9))
    assert lapsed(lapsed(up, at(9)), at(12)) == Health("unknown", at(9))
    assert valid_until(at(0), 30) == START + timedelta(seconds=75)


def test_a_clock_that_is_set_back_does_not_turn_time_around() -> None:
    up = Health("up", at(10), good=5)
    assert seen(up, "failed", at(3), Thresholds(1, 1)).health.since == at(10)
