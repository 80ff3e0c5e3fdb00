"""Chains that stop in the middle: what is marked, what is called again, and what cannot go on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from hubscope.access import LOCAL
from hubscope.app import App, opened
from hubscope.chains.ledger import StoreLedger
from hubscope.chains.plan import parse
from hubscope.chains.state import Counts, StepState
from hubscope.errors import ChainLost, ChainNotResumable, DatabaseAway
from hubscope.ids import uuid7
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.chain_peers import ROOT, StdioPeers, journal, servers_json, work_server
from tests.conftest import ROLE_PREFIX
from tests.integration.chains.conftest import KEY, run, statuses, step
from tests.integration.chains.test_service import CHAINS, STEPS, until

pytestmark = pytest.mark.integration

QUICK = {"max_attempts": 3, "backoff_ms": 1}

# Twenty steps: two parallel groups, a condition each way, a retry, a failing step and who depends on it. Columns: the
# step, its state when all goes well, and its state when the service is killed while the second group is under way and
# another replica resumes it (`kill_*` wait for the test).
COMPLETED, SKIPPED = "completed", "skipped (condition)"
FOUND = "steps.fetch.result.value"
TABLE: list[tuple[dict[str, Any], str, str]] = [
    (step("look", "fetch", arguments={"value": {"items": [1, 2, 3], "ok": True}}), COMPLETED, COMPLETED),
    (step("look", "read_a", parallel_group="read"), COMPLETED, COMPLETED),
    (step("look", "read_b", parallel_group="read"), COMPLETED, COMPLETED),
    (step("note", "read_c", parallel_group="read"), COMPLETED, COMPLETED),
    (step("put", "read_d", parallel_group="read"), COMPLETED, COMPLETED),
    (step("note", "once"), COMPLETED, COMPLETED),
    (step("note", "yes", conditions={"execute_if": f"{FOUND}.ok && variables.go"}), COMPLETED, COMPLETED),
    (step("note", "no", conditions={"execute_if": f"!{FOUND}.ok"}), SKIPPED, SKIPPED),
    (step("flaky", "flaky", arguments={"failures": 2}, retry=QUICK), COMPLETED, COMPLETED),
    (step("fail", "boom", retry=QUICK), "failed", "failed"),
    (step("note", "after_boom", depends_on=["boom"]), "skipped (dependency)", "skipped (dependency)"),
    (step("note", "mend", conditions={"execute_if": "steps.boom.status == 'failed'"}), COMPLETED, COMPLETED),
    (step("put", "write_a", parallel_group="write"), COMPLETED, COMPLETED),
    (step("guarded", "kill_safe", parallel_group="write"), COMPLETED, COMPLETED),
    (step("gate", "kill_unsafe", parallel_group="write"), COMPLETED, "unknown"),
    (step("note", "write_b", parallel_group="write"), COMPLETED, COMPLETED),
    (step("note", "mapped", input_mapping={"value": f"{FOUND}.items[1]"}), COMPLETED, COMPLETED),
    (step("note", "counted", input_mapping={"value": {"cel": f"size({FOUND}.items)"}}), COMPLETED, COMPLETED),
    (step("note", "after_no", depends_on=["no", "fetch"]), "skipped (dependency)", "skipped (dependency)"),
    (step("note", "after_kill", depends_on=["kill_unsafe"]), COMPLETED, "skipped (dependency)"),
]  # fmt: skip
STEPS_OF_TABLE = [row[0] for row in TABLE]
WHEN_WELL = {row[0]["id"]: row[1] for row in TABLE}
WHEN_KILLED = {row[0]["id"]: row[2] for row in TABLE}
OPTIONS = {"fail_fast": False}
VARIABLES = {"go": True}


async def test_twenty_steps_end_as_their_table_says(app: App, admin: Connection, tmp_path: Path) -> None:
    for key in ("kill_safe", "kill_unsafe"):
        (tmp_path / f"{key}.open").touch()
    assert len(TABLE) == 20
    report = await run(app, *STEPS_OF_TABLE, options=OPTIONS, variables=VARIABLES)
    assert report.status == "failed"
    assert statuses(report) == WHEN_WELL
    stored = await admin.fetch(f"SELECT step_name, status, reason FROM {STEPS} ORDER BY step_index")
    assert {
        row["step_name"]: row["status"] + (f" ({row['reason']})" if row["reason"] else "") for row in stored
    } == WHEN_WELL
    by_id = {one.id: one for one in report.steps}
    assert [one.outcome for one in by_id["flaky"].attempts] == ["tool_error", "tool_error", "ok"]
    assert len(by_id["boom"].attempts) == 3
    assert (by_id["mapped"].result["value"], by_id["counted"].result["value"]) == (2, 3)
    row = await admin.fetchrow(f"SELECT completed_steps, failed_steps, skipped_steps, progress_percent FROM {CHAINS}")
    assert tuple(row) == (20, 1, 3, 100)


# Two real processes


@dataclass
class Replica:
    process: subprocess.Popen[str]
    url: str

    def kill(self) -> None:
        """As by the kernel: nothing can be put in order."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def environment(database: str, tmp_path: Path) -> dict[str, str]:
    servers = tmp_path / "servers.json"
    servers.write_text(servers_json(work=work_server(tmp_path)))
    return os.environ | {
        "HUBSCOPE_DATABASE_URL": database,
        "HUBSCOPE_ROLE_PREFIX": ROLE_PREFIX,
        "HUBSCOPE_ENCRYPTION_KEY": KEY,
        "HUBSCOPE_CHAIN_LEASE_MS": "3000",
        "HUBSCOPE_ALLOW_UNSAFE_DATABASE": "true",
        "HUBSCOPE_SERVERS_FILE": str(servers),
    }


@asynccontextmanager
async def replica(environment: dict[str, str]) -> AsyncIterator[Replica]:
    """A process of the service; its servers end with it, also when it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chain_replica"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    children: list[psutil.Process] = []
    try:
        address = await asyncio.to_thread(process.stdout.readline)
        async with httpx2.AsyncClient(base_url=address.strip(), trust_env=False) as http, asyncio.timeout(30):
            while (await http.get("/api/v1/federation/servers/work")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the operator's servers are registered as soon as the database is there
        yield Replica(process, address.strip())
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
    finally:
        try:
            await asyncio.to_thread(process.wait, 30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        _, left = await asyncio.to_thread(psutil.wait_procs, children, 10)
        for child in left:
            child.kill()


async def test_a_chain_whose_service_is_killed_is_resumed_by_another_replica(
    environment: dict[str, str], admin: Connection, tmp_path: Path
) -> None:
    body = {"chain": STEPS_OF_TABLE, "execution_options": OPTIONS, "variables": VARIABLES}
    second_group = {("put", "write_a"), ("guarded", "kill_safe"), ("gate", "kill_unsafe"), ("note", "write_b")}
    async with httpx2.AsyncClient(timeout=60) as http:
        async with replica(environment) as first:
            posted = asyncio.create_task(http.post(f"{first.url}/api/v1/chains", json=body))
            await until(lambda: second_group <= set(journal(tmp_path)), "the second group is under way")

            async def recorded() -> bool:
                ended: int = await admin.fetchval(f"SELECT completed_steps FROM {CHAINS}")
                written: int = await admin.fetchval(
                    f"SELECT count(*) FROM {STEPS} WHERE step_name IN ('write_a', 'write_b') AND status = 'completed'"
                )
                return ended >= 14 and written == 2  # they are of another process

            async with asyncio.timeout(30):
                while not await recorded():  # noqa: ASYNC110  # it is in the database
                    await asyncio.sleep(0.01)
            before = journal(tmp_path)
            first.kill()
            with pytest.raises(httpx2.HTTPError):
                await posted
        chain_id = str(await admin.fetchval(f"SELECT chain_id FROM {CHAINS}"))
        async with replica(environment) as second:
            chain = f"{second.url}/api/v1/chains/{chain_id}"

            async def resume(**how: bool) -> dict[str, Any]:
                async with asyncio.timeout(30):
                    while True:
                        answer = await http.post(f"{chain}/resume", json=how)
                        if answer.status_code != 409:  # the lease has run out
                            break
                        await asyncio.sleep(0.05)
                assert answer.status_code == 200, answer.text
                found: dict[str, Any] = answer.json()
                return found

            (tmp_path / "kill_safe.open").touch()
            report = await resume()
            told = {
                one["id"]: one["status"] + (f" ({one['reason']})" if one["reason"] else "") for one in report["steps"]
            }
            assert told == WHEN_KILLED
            assert (report["status"], report["runs"], report["resumable"]) == ("failed", 2, True)
            after = journal(tmp_path)
            # What was recorded is not called again; what may be repeated, and what failed, is.
            assert sorted(after[len(before) :]) == sorted(
                [("guarded", "kill_safe"), ("note", "mapped"), ("note", "counted")] + [("fail", "boom")] * 3
            )
            # Only when told to, the one that nobody knows of is called again.
            (tmp_path / "kill_unsafe.open").touch()
            report = await resume(retryUnknown=True)
            told = {
                one["id"]: one["status"] + (f" ({one['reason']})" if one["reason"] else "") for one in report["steps"]
            }
            assert told == WHEN_WELL
            assert sorted(journal(tmp_path)[len(after) :]) == sorted(
                [("gate", "kill_unsafe"), ("note", "after_kill")] + [("fail", "boom")] * 3
            )
            got = (await http.get(chain)).json()
            assert (got["runs"], got["status"], got["completed_steps"]) == (3, "failed", 20)


# Leases


async def test_only_an_expired_lease_is_marked_interrupted(app: App, admin: Connection, tmp_path: Path) -> None:
    assert app.chains is not None
    running = asyncio.create_task(run(app, step("gate", "g")))
    await until(lambda: journal(tmp_path) != [], "it is under way")
    first = await admin.fetchval(f"SELECT lease_expires_at FROM {CHAINS}")
    async with asyncio.timeout(30):
        while await admin.fetchval(f"SELECT lease_expires_at FROM {CHAINS}") == first:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await app.chains.expire() == 0
    chain_id = str(await admin.fetchval(f"SELECT chain_id FROM {CHAINS}"))
    with pytest.raises(ChainNotResumable, match="is running, and its lease is being renewed"):
        await app.chains.resume(LOCAL, chain_id)
    (tmp_path / "g.open").touch()
    assert (await running).status == "completed"
    await admin.execute(
        f"UPDATE {CHAINS} SET status = 'running', lease_expires_at = clock_timestamp() - interval '1 ms'"
    )
    assert (await app.chains.get(LOCAL, chain_id)).status == "interrupted"
    assert await app.chains.expire() == 1
    assert await admin.fetchval(f"SELECT status FROM {CHAINS}") == "interrupted"


async def test_who_loses_the_lease_stops_and_writes_nothing_more(
    app: App, admin: Connection, peers: StdioPeers, tmp_path: Path
) -> None:
    running = asyncio.create_task(run(app, step("gate", "g"), step("note", "n")))
    await until(lambda: journal(tmp_path) != [], "it is under way")
    await admin.execute(f"UPDATE {CHAINS} SET lease_owner = gen_random_uuid(), lease_expires_at = 'infinity'")
    with pytest.raises(ChainLost, match="its lease is no longer held"):
        await running
    assert peers.running == 0
    assert journal(tmp_path) == [("gate", "g")]
    assert await admin.fetchval(f"SELECT status FROM {STEPS} WHERE step_index = 0") == "running"


async def test_a_chain_stops_calling_tools_when_the_database_is_away_for_longer_than_its_lease(
    settings: Settings, database: str, peers: StdioPeers, admin: Connection, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"pool_connection_timeout_ms": 200})
    async with opened(settings, database, called=peers) as app:
        running = asyncio.create_task(run(app, step("gate", "g"), step("note", "n")))
        await until(lambda: journal(tmp_path) != [], "it is under way")
        async with admin.transaction():
            await admin.execute(f"LOCK TABLE {CHAINS} IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(ChainLost):
                await running
    assert journal(tmp_path) == [("gate", "g")]


async def test_a_chain_is_not_started_when_it_cannot_be_written_down(
    settings: Settings, database: str, peers: StdioPeers, admin: Connection, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"pool_connection_timeout_ms": 200})
    async with opened(settings, database, called=peers) as app, admin.transaction():
        await admin.execute(f"LOCK TABLE {CHAINS} IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseAway, match="nothing has run"):
            await run(app, step("note", "n"))
    assert journal(tmp_path) == []


async def test_a_service_that_stops_in_order_leaves_its_chains_to_be_resumed_at_once(
    settings: Settings, database: str, peers: StdioPeers, admin: Connection, tmp_path: Path
) -> None:
    async with opened(settings, database, called=peers) as app:
        running = asyncio.create_task(run(app, step("look", "a"), step("guarded", "g"), step("note", "n")))
        await until(lambda: ("guarded", "g") in journal(tmp_path), "the second is under way")
    assert (await running).status == "interrupted"
    (tmp_path / "g.open").touch()
    async with opened(settings, database, called=peers) as app:
        assert app.chains is not None
        chain_id = str(await admin.fetchval(f"SELECT chain_id FROM {CHAINS}"))
        report = await app.chains.resume(LOCAL, chain_id)
    assert report.status == "completed"
    assert journal(tmp_path) == [("look", "a"), ("guarded", "g"), ("guarded", "g"), ("note", "n")]
    assert [one.result and one.result["key"] for one in report.steps] == ["a", "g", "n"]


async def test_the_end_of_a_chain_may_be_told_twice(app: App, settings: Settings, admin: Connection) -> None:
    """Whoever lost the connection in the middle of the commit does not know, and says it again."""
    plan = parse([step("look", "a")]).plan
    assert plan is not None
    ledger = StoreLedger(app.chains._pool, settings, tenant="default", chain_id=uuid7(), vault=None)
    await ledger.open(plan, {}, analytics=True)
    states = [StepState(0, "a", "work", "look", "completed")]
    for _ in range(2):
        await ledger.finish("completed", states, Counts.of(states), 1.0, None)
    with pytest.raises(ChainLost):
        await ledger.finish("failed", states, Counts.of(states), 1.0, None)
    assert await admin.fetchval(f"SELECT status FROM {CHAINS}") == "completed"


# What can be resumed


async def test_a_failed_chain_goes_on_where_it_failed(app: App, tmp_path: Path) -> None:
    assert app.chains is not None
    first = await run(app, step("note", "a"), step("flaky", "f", arguments={"failures": 1}), step("note", "z"))
    assert statuses(first) == {"a": "completed", "f": "failed", "z": "skipped (fail_fast)"}
    assert first.resumable
    second = await app.chains.resume(LOCAL, first.chain_id)
    assert (second.status, second.runs) == ("completed", 2)
    assert [len(one.attempts) for one in second.steps] == [1, 2, 1]
    assert journal(tmp_path) == [("note", "a"), ("flaky", "f"), ("flaky", "f"), ("note", "z")]
    with pytest.raises(ChainNotResumable, match="is completed"):
        await app.chains.resume(LOCAL, first.chain_id)


async def test_a_condition_is_decided_anew_when_what_it_read_is_called_again(app: App, tmp_path: Path) -> None:
    assert app.chains is not None
    first = await run(
        app,
        step("flaky", "f", arguments={"failures": 1}),
        step("note", "good", conditions={"execute_if": "steps.f.status == 'completed'"}),
        step("note", "bad", conditions={"execute_if": "steps.f.status == 'failed'"}),
        options={"fail_fast": False},
    )
    assert statuses(first) == {"f": "failed", "good": "skipped (condition)", "bad": "completed"}
    second = await app.chains.resume(LOCAL, first.chain_id)
    # What was done because of the failure is done, and stays.
    assert statuses(second) == {"f": "completed", "good": "completed", "bad": "completed"}
    assert journal(tmp_path).count(("note", "bad")) == 1


async def test_with_fail_fast_nothing_goes_on_past_a_step_whose_outcome_is_unknown(app: App, tmp_path: Path) -> None:
    assert app.chains is not None
    first = await run(app, step("gate", "g", timeout=200), step("note", "n"))
    second = await app.chains.resume(LOCAL, first.chain_id)
    assert (second.status, statuses(second)) == ("failed", {"g": "unknown", "n": "skipped (fail_fast)"})
    assert "resume with retryUnknown" in second.message
    (tmp_path / "g.open").touch()
    third = await app.chains.resume(LOCAL, first.chain_id, retry_unknown=True)
    assert (third.status, third.runs) == ("completed", 3)
    assert journal(tmp_path) == [("gate", "g"), ("gate", "g"), ("note", "n")]


async def test_two_who_resume_at_once_do_not_run_it_twice(app: App, tmp_path: Path) -> None:
    assert app.chains is not None
    first = await run(app, step("flaky", "f", arguments={"failures": 1}), step("note", "z"))
    answers = await asyncio.gather(
        *(app.chains.resume(LOCAL, first.chain_id) for _ in range(3)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["ChainNotResumable"] * 2 + ["ChainReport"]
    assert journal(tmp_path).count(("note", "z")) == 1


async def test_a_chain_whose_results_were_truncated_is_not_resumable_and_says_so(
    settings: Settings, database: str, peers: StdioPeers
) -> None:
    settings = settings.model_copy(update={"chain_resume_bytes": 3_000})
    async with opened(settings, database, called=peers) as app:
        assert app.chains is not None
        chain = [
            step("big", id="large", arguments={"bytes": 4_000}),
            step("flaky", "f", arguments={"failures": 1}),
            step("note", "n", input_mapping={"value": {"cel": "size(steps.large.result.text)"}}),
        ]
        report = await run(app, *chain)
        assert (report.status, report.resumable) == ("failed", False)
        assert "the result of large" in (report.not_resumable_because or "")
        assert "HUBSCOPE_CHAIN_RESUME_BYTES" in (report.not_resumable_because or "")
        with pytest.raises(ChainNotResumable, match="the result of large"):
            await app.chains.resume(LOCAL, report.chain_id)
        assert (await app.chains.get(LOCAL, report.chain_id)).steps[0].result_truncated
        # A result that nobody reads is not needed.
        report = await run(app, chain[0], step("flaky", "f2", arguments={"failures": 1}), step("note", "n2"))
        assert report.resumable
        assert (await app.chains.resume(LOCAL, report.chain_id)).status == "completed"


async def test_what_was_sealed_under_another_key_is_not_resumed_and_the_chain_stays_as_it_was(
    app: App, settings: Settings, database: str, peers: StdioPeers
) -> None:
    report = await run(app, step("fail", "f"))
    async with opened(settings.model_copy(update={"encryption_key": "z" * 40}), database, called=peers) as other:
        assert other.chains is not None
        with pytest.raises(ChainNotResumable, match="sealed under the key"):
            await other.chains.resume(LOCAL, report.chain_id)
        assert (await other.chains.get(LOCAL, report.chain_id)).status == "failed"
