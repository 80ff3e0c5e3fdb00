"""Watching real servers: those that die, hang, slow down and close; by one process at a time; into the store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hubscope.model import ServerEvent
from hubscope.store import Connection
from tests.integration.peers.house import LOCAL, House, federation, until
from tests.upstream import command, http_app, listening

QUICK = {"interval": "400ms", "timeout": "400ms", "slow": "100ms"}


def of_file(path: Path, mode: Path | None = None, **more: Any) -> Path:
    """An operator's file with one stdio server, `s`."""
    one = command(mode)
    entry = {
        "command": one.command,
        "args": list(one.args),
        "env": dict(one.env),
        "cwd": one.cwd,
        "health_check": QUICK,
    }
    file = path / "servers.json"
    file.write_text(json.dumps({"mcpServers": {"s": entry | more}}))
    return file


async def register(house: House, url: str, server: str = "s", **more: Any) -> None:
    check = QUICK | more.pop("health_check", {})
    await house.peers.register(
        LOCAL, {"id": server, "endpoint": url, "protocol": "http", "health_check": check, **more}
    )


async def is_(house: House, state: str, server: str = "s") -> None:
    async def reached() -> bool:
        return await house.state(server) == state

    await until(reached, f"{server} is {state}: {house.states(server)}")


def child(house: House) -> Any:
    session = house.peers._sessions.peek(("default", "s"))
    assert session is not None
    assert session.child is not None
    return session.child


async def test_a_stdio_server_that_is_killed_is_down_before_its_next_probe_and_up_when_it_is_started_again(
    database: str, tmp_path: Path
) -> None:
    file = of_file(tmp_path)  # starting it takes longer than a probe may: that is no failure of it
    async with federation(database, servers_file=file) as house:
        await is_(house, "up")
        probes = len(house.probes("s"))
        os.kill(child(house).pid, signal.SIGKILL)
        await until(lambda: ("transport_closed", "down") in house.states("s"), "its end is told")
        closed = next(one for _, one in house.events if isinstance(one, ServerEvent) and one.state == "down")
        assert closed.source == "connection"
        assert closed.error_message == "the server has ended: it was killed by SIGKILL"
        assert len([one for one in house.probes("s")[probes:] if one.time < closed.time]) <= 2
        await is_(house, "up")
        # Its coming up again fails no probe; one may have been under way when it was killed.
        failed = [one.outcome for one in house.probes("s") if one.outcome not in ("ok", "slow", "starting")]
        assert failed in ([], ["transport_closed"])


async def test_a_stdio_server_that_hangs_is_down_after_two_probes_since_the_first_and_then_started_over(
    database: str, tmp_path: Path
) -> None:
    mode = tmp_path / "mode"
    file = of_file(tmp_path, mode)
    async with federation(database, servers_file=file) as house:
        await is_(house, "up")
        pid = child(house).pid
        mode.write_text("hang")
        await is_(house, "down")
        failed = [one for one in house.probes("s") if one.error_type == "timeout"]
        assert [one.state for one in failed[:2]] == ["degraded", "down"]
        server = await house.peers.server(LOCAL, "s")
        assert server.health.since == failed[0].time
        # What was recorded of the first is stated again: in the order of time it is down from then on.
        timeline = [one for one in house.states("s") if one[0] in ("timeout", "restated")][:3]
        assert timeline == [("timeout", "degraded"), ("restated", "down"), ("timeout", "down")]
        mode.write_text("")
        await is_(house, "up")
        assert child(house).pid != pid


async def test_a_hanging_server_with_calls_under_way_is_not_ended(database: str, tmp_path: Path) -> None:
    mode = tmp_path / "mode"
    file = of_file(tmp_path, mode)
    async with federation(database, servers_file=file) as house:
        await is_(house, "up")
        pid = child(house).pid
        await house.peers.call(LOCAL, "s", "echo", {"text": "x"}, timeout_s=30)
        call = asyncio.create_task(house.peers.call(LOCAL, "s", "wait", {"seconds": 3}, timeout_s=30))
        mode.write_text("hang")
        await is_(house, "down")
        assert child(house).pid == pid
        assert (await call).content[0]["text"] == "done"


async def test_a_server_that_slows_down_is_degraded_after_two_probes_and_up_after_two(
    database: str, tmp_path: Path
) -> None:
    mode = tmp_path / "mode"
    async with federation(database) as house, listening(http_app(mode)) as server:
        await register(house, server.url)
        await is_(house, "up")
        before = len(house.probes("s"))
        mode.write_text("slow 0.2")
        await is_(house, "degraded")
        slow = [one for one in house.probes("s")[before:] if one.outcome == "slow"]
        assert [one.state for one in slow] == ["up", "degraded"]
        assert all(one.latency_ms is not None and one.latency_ms >= 200 for one in slow)
        mode.write_text("")
        await is_(house, "up")


async def test_a_server_that_closes_its_port_is_down_after_two_probes_and_up_when_it_is_back(database: str) -> None:
    async with federation(database) as house:
        async with listening(http_app()) as server:
            await register(house, server.url)
            await is_(house, "up")
        await is_(house, "down")
        failed = [one for one in house.probes("s") if one.error_type is not None]
        assert [(one.error_type, one.state) for one in failed[:2]] == [
            ("connect_failed", "degraded"),
            ("connect_failed", "down"),
        ]
        async with listening(http_app(), server.port):
            await is_(house, "up")
            last = house.probes("s")[-1]
            assert last.tools == 6
            assert last.valid_until == last.time + timedelta(seconds=1)


async def test_a_health_path_is_asked_instead(database: str) -> None:
    status = 200
    asked: list[tuple[str, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        asked.append((scope["path"], dict(scope["headers"]).get(b"authorization", b"")))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async with listening(app) as server, federation(database, encryption_key="k" * 32) as house:
        auth = {"type": "bearer", "config": {"token": "t0ken"}}
        await register(house, server.url + "/base", health_check={"path": "/ready"}, auth=auth)
        await is_(house, "up")
        status = 500
        await is_(house, "down")
        assert house.probes("s")[-1].error_message == "/ready answers with status 500"
    assert set(asked) == {("/base/ready", b"Bearer t0ken")}


async def test_thresholds_are_obeyed(database: str) -> None:
    async with federation(database) as house:
        async with listening(http_app()) as server:
            await register(house, server.url, health_check={"unhealthy_threshold": 3, "healthy_threshold": 1})
            await is_(house, "up")
        await is_(house, "down")
        failed = [one.state for one in house.probes("s") if one.error_type is not None]
        assert failed[:3] == ["degraded", "degraded", "down"]
        async with listening(http_app(), server.port):
            await is_(house, "up")


async def test_one_replica_probes_and_another_takes_over(database: str) -> None:
    """While both live, one of them; when it is gone without a word, the other one, within the lease; when it leaves in
    order, at once. What it knew goes along."""
    async with listening(http_app()) as server, federation(database) as second, federation(database) as first:
        await register(first, server.url)
        await until(lambda: bool(first.peers.prober.watched or second.peers.prober.watched), "somebody watches")
        await asyncio.sleep(1.0)
        one, other = (first, second) if first.peers.prober.watched else (second, first)
        assert (one.peers.prober.watched, other.peers.prober.watched) == ([("default", "s")], [])
        assert one.probes("s")
        assert not other.probes("s")
        await is_(first, "up")
        # It freezes: nothing of it runs any more, nothing is said.
        task = one.peers.prober._task
        assert task is not None
        task.cancel()
        await until(lambda: bool(other.probes("s")), "the other one takes over")
        assert other.states("s")[0] == ("connected", "up")
        since = (await other.peers.server(LOCAL, "s")).health.since
        assert since is not None
        assert since < other.probes("s")[0].time
        # The first comes back with what it knew: under a lease that is not its own it changes nothing.
        stale = one.peers.prober._watched[("default", "s")]
        stale.health = type(stale.health)("down", datetime.now(UTC))
        await one.peers.prober._keep(stale, None, datetime.now(UTC) + timedelta(hours=1))
        assert await other.state("s") == "up"


async def test_leases_are_given_up_when_a_process_leaves(database: str, admin: Connection) -> None:
    async with listening(http_app()) as server:
        async with federation(database, probe_lease_ms=600_000) as first:
            await register(first, server.url)
            await is_(first, "up")
        assert await admin.fetchval("SELECT lease_holder FROM hub.servers") is None
        async with federation(database) as second:
            await until(lambda: bool(second.probes("s")), "the next one watches at once")


async def test_what_nobody_looks_at_is_unknown(database: str, admin: Connection) -> None:
    async with listening(http_app()) as server, federation(database) as house:
        await register(house, server.url)
        await is_(house, "up")
        task = house.peers.prober._task
        assert task is not None
        task.cancel()
        await admin.execute("UPDATE hub.servers SET valid_until = now() - interval '1 second'")
        seen = await house.peers.server(LOCAL, "s")
        assert (seen.state, seen.health.since) == ("unknown", seen.valid_until)


async def test_in_a_maintenance_window_nobody_looks_and_after_it_nothing_is_known(database: str) -> None:
    async with federation(database) as house:
        async with listening(http_app()) as server:
            await register(house, server.url)
            await is_(house, "up")
            now = datetime.now(UTC)
            window = await house.peers.plan_window(
                LOCAL, "s", starts_at=now, ends_at=now + timedelta(hours=1), reason="upgrade"
            )
            await is_(house, "maintenance")
            await until(lambda: house.states("s")[-1] == ("maintenance", "maintenance"), "it is told")
        probes = len(house.probes("s"))
        await asyncio.sleep(0.6)  # it is gone now, and nobody says so
        assert len(house.probes("s")) == probes
        assert house.probes("s")[-1].valid_until == now + timedelta(hours=1)
        async with listening(http_app(), server.port):
            await house.peers.cancel_window(LOCAL, "s", window)
            await is_(house, "up")
        told = house.states("s")
        begun = told.index(("maintenance", "maintenance"))
        assert told[begun + 1] == ("maintenance_over", "unknown")
        # A probe that a busy machine makes late does not make it down.
        assert {state for _, state in told[begun + 2 :]} <= {"unknown", "up"}


async def test_probing_can_be_switched_off(database: str) -> None:
    async with listening(http_app()) as server, federation(database, enable_probes=False) as house:
        await register(house, server.url)
        await asyncio.sleep(0.5)
        assert await house.state("s") == "unknown"
        assert not house.probes("s")
        # Whoever asks about it has it asked.
        found, error = await house.peers.health(LOCAL, "s")
        assert (found.state, error) == ("up", None)


async def test_a_server_may_ask_not_to_be_watched(database: str) -> None:
    async with listening(http_app()) as server, federation(database) as house:
        await register(house, server.url, health_check={"enabled": False})
        await register(house, server.url, "t")
        await is_(house, "up", "t")
        assert await house.state("s") == "unknown"


async def test_only_so_many_probes_run_at_once(database: str) -> None:
    running, most = 0, 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running, most
        if scope["type"] != "http":
            return
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async with listening(app) as server, federation(database, probe_concurrency=2) as house:
        for number in range(8):
            await register(house, server.url, f"s{number}", health_check={"path": "/health"})
        await until(lambda: all(house.probes(f"s{number}") for number in range(8)), "all were probed")
    assert most == 2


async def test_without_the_database_the_watch_goes_on_while_its_lease_lasts_and_the_store_has_it_all_later(
    database: str, admin: Connection
) -> None:
    async with listening(http_app()) as server, federation(database, stored=True) as house:
        await register(house, server.url)
        await is_(house, "up")
        await house.peers.flushed()
        rows = await admin.fetch("SELECT * FROM raw.server_events ORDER BY time, event_id")
        assert [(row["source"], row["outcome"], row["state"]) for row in rows[:2]] == [
            ("connection", "connected", "up"),
            ("probe", "ok", "up"),
        ]
        assert rows[1]["valid_until"] > rows[1]["time"]
        assert await admin.fetchval("SELECT state FROM analytics.dim_servers WHERE server = 's'") == "up"


@pytest.mark.parametrize("bad", ["encryption key is gone"])
async def test_one_server_that_cannot_be_opened_does_not_end_the_watch_over_others(bad: str, database: str) -> None:
    async with listening(http_app()) as server:
        async with federation(database, encryption_key="k" * 32) as house:
            auth = {"type": "bearer", "config": {"token": "t"}}
            await register(house, server.url, "a", auth=auth)
            await is_(house, "up", "a")
        async with federation(database, encryption_key="o" * 32) as house:
            await register(house, server.url, "b")
            await is_(house, "up", "b")
