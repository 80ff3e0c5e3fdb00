"""Chains over real servers and a real store: order, failures, retries, cancelling, tracking, analytics."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hubscope.access import LOCAL, Principal, Scope
from hubscope.app import App, opened
from hubscope.chains import Chains, forget_chains
from hubscope.errors import ChainNotResumable, InvalidChain, ScopeMissing, TooManyChains, UnknownChain
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.chain_peers import StdioPeers, journal
from tests.integration.chains.conftest import run, statuses, step

pytestmark = pytest.mark.integration

CHAINS = "hub.enhanced_tool_chain_executions"
STEPS = "hub.enhanced_chain_execution_steps"
QUICK = {"max_attempts": 3, "backoff_ms": 1}


async def until(condition: Any, what: str) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # in another process
            await asyncio.sleep(0.005)
    assert condition(), what


async def test_steps_run_in_order_and_hand_results_on(app: App, tmp_path: Path) -> None:
    report = await run(
        app,
        step("look", "a", arguments={"value": {"items": [{"n": 1}, {"n": 2}]}}),
        step("note", "b", input_mapping={"value": "steps.a.result.value.items[*].n"}),
        step("note", "c", input_mapping={"/value": {"cel": "{'n': steps.b.result.value.size() + variables.more}"}}),
        variables={"more": 40},
    )
    assert report.status == "completed"
    assert [one.result for one in report.steps][1:] == [
        {"key": "b", "value": [1, 2], "times": 1},
        {"key": "c", "value": {"n": 42}, "times": 1},
    ]
    assert journal(tmp_path) == [("look", "a"), ("note", "b"), ("note", "c")]


async def test_members_of_a_group_really_run_at_once_and_no_more_than_allowed(
    app: App, peers: StdioPeers, tmp_path: Path
) -> None:
    group = [step("gate", f"g{number}", parallel_group="all") for number in range(4)]
    running = asyncio.create_task(run(app, *group, step("note", "last"), options={"max_parallel": 3}))
    await until(lambda: len(journal(tmp_path)) == 3, "three are under way")
    assert peers.running == 3
    (tmp_path / "g0.open").touch()
    await until(lambda: len(journal(tmp_path)) == 4, "the fourth begins when one ends")
    for number in range(4):
        (tmp_path / f"g{number}.open").touch()
    report = await running
    assert report.status == "completed"
    assert peers.most == 3
    assert report.analytics is not None
    assert report.analytics.parallel_efficiency is not None
    assert journal(tmp_path)[-1] == ("note", "last")


@pytest.mark.parametrize(
    ("fail_fast", "expected"),
    [
        (True, {"a": "completed", "b": "failed", "c": "skipped (fail_fast)", "d": "skipped (fail_fast)"}),
        (False, {"a": "completed", "b": "failed", "c": "completed", "d": "skipped (dependency)"}),
    ],
)
async def test_a_failing_step_stops_what_it_should(app: App, fail_fast: bool, expected: dict[str, str]) -> None:
    report = await run(
        app,
        step("look", "a"),
        step("fail", "b"),
        step("look", "c"),
        step("look", "d", depends_on=["b"]),
        options={"fail_fast": fail_fast},
    )
    assert (report.status, statuses(report)) == ("failed", expected)


async def test_a_condition_decides_for_its_step_also_when_what_it_reads_failed(app: App) -> None:
    report = await run(
        app,
        step("fail", "a"),
        step("note", "mend", conditions={"execute_if": "steps.a.status == 'failed'"}),
        step("note", "never", conditions={"execute_if": "steps.a.status == 'completed'"}),
        step("note", "broken", conditions={"execute_if": "steps.a.result.n > 1"}),
        options={"fail_fast": False},
    )
    assert statuses(report) == {
        "a": "failed",
        "mend": "completed",
        "never": "skipped (condition)",
        "broken": "failed",
    }
    assert report.steps[3].error_type == "condition_failed"


async def test_a_failure_is_retried_with_growing_pauses_until_it_works(app: App, admin: Connection) -> None:
    report = await run(app, step("flaky", "f", arguments={"failures": 2}, retry=QUICK))
    assert report.status == "completed"
    assert [one.outcome for one in report.steps[0].attempts] == ["tool_error", "tool_error", "ok"]
    stored = json.loads(await admin.fetchval(f"SELECT attempts FROM {STEPS}"))
    assert [(one["number"], one["outcome"]) for one in stored] == [(1, "tool_error"), (2, "tool_error"), (3, "ok")]


async def test_attempts_end_at_their_number_and_at_failures_that_are_not_named(app: App, tmp_path: Path) -> None:
    report = await run(
        app,
        step("flaky", "a", arguments={"failures": 9}, retry=QUICK),
        step("flaky", "b", arguments={"failures": 9}, retry={**QUICK, "on": ["timeout"]}),
        options={"fail_fast": False},
    )
    assert [len(one.attempts) for one in report.steps] == [3, 1]
    assert len(journal(tmp_path)) == 4


@pytest.mark.parametrize(
    ("tool", "more", "attempts"),
    [("gate", {}, 1), ("gate", {"idempotent": True}, 3), ("guarded", {}, 3), ("guarded", {"idempotent": False}, 1)],
)
async def test_a_call_that_may_have_run_is_repeated_only_where_that_is_harmless(
    app: App, tmp_path: Path, tool: str, more: dict[str, Any], attempts: int
) -> None:
    report = await run(app, step(tool, "g", timeout="200ms", retry=QUICK, **more))
    assert (report.status, report.steps[0].error_type) == ("failed", "timeout")
    assert [one.outcome for one in report.steps[0].attempts] == ["timeout"] * attempts
    assert journal(tmp_path) == [(tool, "g")] * attempts


async def test_a_server_that_dies_in_a_call_fails_its_step(app: App) -> None:
    report = await run(app, step("die", "d", retry=QUICK))
    assert (report.status, report.steps[0].error_type) == ("failed", "upstream_failed")
    assert len(report.steps[0].attempts) == 1  # it may have run


async def test_a_chain_ends_at_its_timeout_and_breaks_running_calls_off(app: App) -> None:
    report = await run(app, step("gate", "g"), step("note", "n"), options={"timeout": 300})
    assert report.status == "timed_out"
    assert statuses(report) == {"g": "cancelled", "n": "skipped (stopped)"}


async def test_whatever_is_wrong_is_told_at_once_and_nothing_runs(app: App, admin: Connection, tmp_path: Path) -> None:
    with pytest.raises(InvalidChain) as refused:
        await run(
            app,
            step("look", "a"),
            {"server_name": "nowhere", "tool_name": "x"},
            step("missing", "c", depends_on=["zz"]),
            step("look", "d", conditions={"execute_if": "steps.a.result +"}),
            step("look", "e", input_mapping={"value": "steps.a["}),
            step("look", "f", conditions={"execute_if": "1 + 1"}),
            step("look", "g", conditions={"execute_if": "unknown_name == 1"}),
        )
    found = [(problem["path"], problem["code"]) for problem in refused.value.context["problems"]]
    assert found == [
        ("$.chain[2].depends_on[0]", "unknown_step"),
        ("$.chain[3].conditions.execute_if", "invalid_expression"),
        ("$.chain[4].input_mapping.value", "invalid_expression"),
        ("$.chain[5].conditions.execute_if", "invalid_expression"),
        ("$.chain[6].conditions.execute_if", "invalid_expression"),
        ("$.chain[1].server_name", "unknown_server"),
        ("$.chain[2].tool_name", "unknown_tool"),
    ]
    assert journal(tmp_path) == []
    assert await admin.fetchval(f"SELECT count(*) FROM {CHAINS}") == 0


async def test_progress_stands_in_the_store_while_it_happens_and_is_told_after(
    settings: Settings, database: str, peers: StdioPeers, admin: Connection, tmp_path: Path
) -> None:
    seen: list[tuple[float, float, str]] = []

    async def progress(done: float, total: float, words: str) -> None:
        seen.append((done, total, words))

    async with opened(settings, database, called=peers) as app:
        assert app.chains is not None
        running = asyncio.create_task(
            app.chains.run(LOCAL, [step("look", "a"), step("gate", "b"), step("look", "c")], progress=progress)
        )
        await until(lambda: ("gate", "b") in journal(tmp_path), "the second is under way")
        row = await admin.fetchrow(f"SELECT status, progress_percent, completed_steps, total_steps FROM {CHAINS}")
        assert tuple(row) == ("running", 33, 1, 3)
        rows = await admin.fetch(f"SELECT status FROM {STEPS} ORDER BY step_index")
        assert [one[0] for one in rows] == ["completed", "running", "pending"]
        (tmp_path / "b.open").touch()
        await running
    row = await admin.fetchrow(f"SELECT status, progress_percent, completed_steps, lease_expires_at FROM {CHAINS}")
    assert tuple(row) == ("completed", 100, 3, None)
    assert seen
    assert seen[-1][:2] in {(2, 3), (3, 3)}


async def test_cancelling_who_waits_cancels_the_chain_and_its_running_calls(
    app: App, admin: Connection, peers: StdioPeers, tmp_path: Path
) -> None:
    running = asyncio.create_task(run(app, step("gate", "g"), step("note", "n")))
    await until(lambda: journal(tmp_path) != [], "the first is under way")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert app.chains is not None
    await until(lambda: not app.chains._runs, "the chain has ended")
    assert await admin.fetchval(f"SELECT status FROM {CHAINS}") == "cancelled"
    rows = await admin.fetch(f"SELECT status, reason FROM {STEPS} ORDER BY step_index")
    assert [tuple(row) for row in rows] == [("cancelled", None), ("skipped", "stopped")]
    assert peers.running == 0


async def test_a_chain_can_be_cancelled_from_anywhere(app: App, admin: Connection, tmp_path: Path) -> None:
    assert app.chains is not None
    running = asyncio.create_task(run(app, step("gate", "g")))
    await until(lambda: journal(tmp_path) != [], "it is under way")
    chain_id = str(await admin.fetchval(f"SELECT chain_id FROM {CHAINS}"))
    await app.chains.cancel(LOCAL, chain_id)
    assert (await running).status == "cancelled"
    with pytest.raises(ChainNotResumable, match="is cancelled: there is nothing to cancel"):
        await app.chains.cancel(LOCAL, chain_id)


async def test_without_tracking_nothing_is_written_and_calls_belong_to_no_chain(
    app: App, admin: Connection, peers: StdioPeers
) -> None:
    report = await run(app, step("look", "a"), step("fail", "b"), tracking=False)
    assert (report.status, report.tracked, report.resumable) == ("failed", False, False)
    assert report.analytics is not None
    assert await admin.fetchval(f"SELECT count(*) FROM {CHAINS}") == 0
    assert [call[3] for call in peers.calls] == [None, None]
    assert app.chains is not None
    with pytest.raises(UnknownChain):
        await app.chains.get(LOCAL, report.chain_id)


async def test_without_analytics_there_are_none_and_the_chain_counts_in_no_others(app: App) -> None:
    assert app.chains is not None
    first = await run(app, step("look", "a"))
    quiet = await run(app, step("look", "a"), analytics=False)
    assert (quiet.status, quiet.analytics, quiet.tracked) == ("completed", None, True)
    third = await run(app, step("look", "a"))
    assert first.analytics is not None
    assert third.analytics is not None
    assert [(one.id, one.runs, one.completed) for one in third.analytics.completion] == [("a", 2, 2)]
    since = datetime.now(UTC) - timedelta(hours=1)
    found = await app.chains.analytics(LOCAL, since=since, window="1 hour")
    assert (found.chains, found.by_status) == (2, {"completed": 2})


async def test_analytics_tell_which_steps_could_run_together(app: App) -> None:
    slow = [step("guarded", f"s{number}", timeout="150ms") for number in range(2)]
    report = await run(app, *slow, options={"fail_fast": False})
    assert report.analytics is not None
    found = report.analytics.optimization
    assert found is not None
    assert found.parallel == [["s0", "s1"]]
    assert found.side_effects == []
    assert found.saved_ms > 100
    assert report.analytics.critical_path == ["s0", "s1"]


async def test_a_tenant_sees_its_own_chains_only(app: App) -> None:
    assert app.chains is not None
    report = await run(app, step("look", "a"))
    other = Principal("other", frozenset(Scope))
    for asked in (app.chains.get(other, report.chain_id), app.chains.resume(other, report.chain_id)):
        with pytest.raises(UnknownChain):
            await asked
    assert await app.chains.newest(other) == []
    assert [one.chain_id for one in await app.chains.newest(LOCAL)] == [report.chain_id]


async def test_the_scope_chains_is_needed(app: App) -> None:
    assert app.chains is not None
    with pytest.raises(ScopeMissing):
        await app.chains.run(Principal("default", frozenset({Scope.READ})), [step("look", "a")])


async def test_past_the_limit_no_chain_is_started(
    settings: Settings, database: str, peers: StdioPeers, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"chain_max_running": 1})
    async with opened(settings, database, called=peers) as app:
        first = asyncio.create_task(run(app, step("gate", "g")))
        await until(lambda: journal(tmp_path) != [], "the first is under way")
        with pytest.raises(TooManyChains, match="HUBSCOPE_CHAIN_MAX_RUNNING"):
            await run(app, step("look", "a"))
        (tmp_path / "g.open").touch()
        await first
        assert (await run(app, step("look", "a"))).status == "completed"


async def test_one_tenant_cannot_take_every_place(
    settings: Settings, database: str, peers: StdioPeers, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"chain_max_running_tenant": 1})
    async with opened(settings, database, called=peers) as app:
        first = asyncio.create_task(run(app, step("gate", "g")))
        await until(lambda: journal(tmp_path) != [], "the first is under way")
        with pytest.raises(TooManyChains, match="HUBSCOPE_CHAIN_MAX_RUNNING_TENANT"):
            await run(app, step("look", "a"))
        other = Principal("other", frozenset(Scope))
        assert (await app.chains.run(other, [step("look", "a")])).status == "completed"
        (tmp_path / "g.open").touch()
        await first


async def test_all_results_of_a_chain_together_are_bounded(
    settings: Settings, database: str, peers: StdioPeers
) -> None:
    settings = settings.model_copy(update={"chain_result_bytes": 2_000})
    async with opened(settings, database, called=peers) as app:
        report = await run(app, *(step("big", arguments={"bytes": 1_900}) for _ in range(18)))
    assert [one.result_truncated for one in report.steps] == [False] * 16 + [True] * 2


async def test_a_result_that_is_too_large_to_read_fails_the_step_that_reads_it(
    settings: Settings, database: str, peers: StdioPeers
) -> None:
    settings = settings.model_copy(update={"chain_result_bytes": 2_000})
    async with opened(settings, database, called=peers) as app:
        report = await run(
            app,
            step("big", id="large", arguments={"bytes": 4_000}),
            step("note", "n", input_mapping={"value": "steps.large.result.text"}),
        )
    assert statuses(report) == {"large": "completed", "n": "failed"}
    assert report.steps[0].result_truncated
    assert report.steps[1].error_type == "result_truncated"
    assert "HUBSCOPE_CHAIN_RESULT_BYTES" in (report.steps[1].error_message or "")


async def test_nothing_in_the_store_shows_arguments_results_or_secrets(app: App, admin: Connection) -> None:
    await run(
        app,
        step("look", "a", arguments={"value": "hunter2-argument"}),
        step("fail", "b", arguments={"message": "password=hunter2-message"}),
        metadata={"api_key": "hunter2-metadata", "team": "a"},
        variables={"v": "hunter2-variable"},
    )
    for table in (CHAINS, STEPS):
        for row in await admin.fetch(f"SELECT t::text FROM {table} AS t"):
            assert "hunter2" not in row[0]
            assert b"hunter2".hex() not in row[0]
    assert json.loads(await admin.fetchval(f"SELECT metadata FROM {CHAINS}")) == {"api_key": "[redacted]", "team": "a"}


async def test_chains_that_foreign_hubs_report_stay_events(app: App, admin: Connection) -> None:
    event = {"type": "chain", "time": datetime.now(UTC).isoformat(), "chain_id": "theirs", "status": "running"}
    receipt = await app.ingest.post(LOCAL, json.dumps([event]).encode(), "application/json")
    assert receipt.accepted == 1
    assert await admin.fetchval("SELECT count(*) FROM raw.hub_events WHERE type = 'chain'") == 1
    assert await admin.fetchval(f"SELECT count(*) FROM {CHAINS}") == 0


async def test_what_runs_and_how_it_ended_is_measured(app: App, tmp_path: Path) -> None:
    running = asyncio.create_task(run(app, step("gate", "g")))
    await until(lambda: journal(tmp_path) != [], "it is under way")
    assert b"hubscope_chains_running 1.0" in await app.metrics()
    (tmp_path / "g.open").touch()
    await running
    text = await app.metrics()
    assert b"hubscope_chains_running 0.0" in text
    assert b'hubscope_chains_total{status="completed"} 1.0' in text


async def test_what_a_chain_needed_to_go_on_goes_when_it_is_done(app: App, admin: Connection) -> None:
    await run(app, step("look", "a"), step("look", "b"))
    assert await admin.fetchval(f"SELECT sealed_definition IS NULL FROM {CHAINS}")
    assert await admin.fetchval(f"SELECT bool_and(sealed_result IS NULL) FROM {STEPS}")


async def test_old_chains_go_and_what_they_need_to_go_on_before_them(
    app: App, admin: Connection, settings: Settings
) -> None:
    assert app.chains is not None
    report = await run(app, step("look", "a"), step("fail", "b"))
    now = datetime.now(UTC)
    assert (await app.chains.get(LOCAL, report.chain_id)).resumable
    assert await forget_chains(admin, settings, now + timedelta(days=6)) == {"deleted": 0, "no_longer_resumable": 0}
    assert await forget_chains(admin, settings, now + timedelta(days=8)) == {"deleted": 0, "no_longer_resumable": 1}
    assert not (await app.chains.get(LOCAL, report.chain_id)).resumable
    assert await admin.fetchval(f"SELECT bool_and(sealed_result IS NULL) FROM {STEPS}")
    with pytest.raises(ChainNotResumable):
        await app.chains.resume(LOCAL, report.chain_id)
    assert (await app.chains.get(LOCAL, report.chain_id)).status == "failed"
    assert await forget_chains(admin, settings, now + timedelta(days=91)) == {"deleted": 1, "no_longer_resumable": 0}
    assert await admin.fetchval(f"SELECT count(*) FROM {STEPS}") == 0


async def test_without_a_key_chains_run_and_say_that_they_cannot_be_resumed(
    settings: Settings, database: str, peers: StdioPeers
) -> None:
    async with opened(settings.model_copy(update={"encryption_key": None}), database, called=peers) as app:
        assert isinstance(app.chains, Chains)
        report = await run(app, step("look", "a"), step("fail", "b"))
        assert (report.status, report.resumable) == ("failed", False)
        assert "HUBSCOPE_ENCRYPTION_KEY" in (report.not_resumable_because or "")
        with pytest.raises(ChainNotResumable, match="HUBSCOPE_ENCRYPTION_KEY"):
            await app.chains.resume(LOCAL, report.chain_id)
