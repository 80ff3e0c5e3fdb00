"""Servers of tenants: registered, called by name, told apart; every call recorded, no secret told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from hubscope.access import Principal
from hubscope.errors import (
    CannotUnseal,
    InvalidParameter,
    NoEncryptionKey,
    UnknownServer,
    UnknownTool,
    UpstreamFailed,
    UpstreamTimeout,
)
from hubscope.model import AuditEvent, HubEvent
from hubscope.peers import Invocation, Peers
from hubscope.peers.registry import ServerIsTheOperators, ServerTaken, TooManyServers
from hubscope.store import Connection
from tests.integration.peers.house import LOCAL, House, federation, until
from tests.integration.peers.test_prober import of_file
from tests.upstream import http_app, listening

ACME = Principal("acme", LOCAL.scopes)
UNWATCHED = {"health_check": {"enabled": False}}


async def register(house: House, url: str, server: str = "s", principal: Principal = LOCAL, **more: Any) -> None:
    await house.peers.register(principal, {"id": server, "endpoint": url, "protocol": "http", **UNWATCHED, **more})


async def test_a_tool_is_called_by_name_and_the_call_is_recorded(database: str, admin: Connection) -> None:
    async with listening(http_app()) as server, federation(database, stored=True) as house:
        peers: Peers = house.peers
        await register(house, server.url)
        tools = {tool.name: tool for tool in await peers.tools(LOCAL, "s")}
        assert (tools["echo"].read_only, tools["give"].idempotent, tools["fail"].idempotent) == (True, True, False)
        assert tools["echo"].input_schema["required"] == ["text"]

        done = await peers.call(LOCAL, "s", "echo", {"text": "hi"}, timeout_s=10, chain_id="c1", step_index=2)
        assert (done.is_error, done.structured, done.content) == (
            False,
            {"result": "hi"},
            [{"type": "text", "text": "hi"}],
        )
        failed = await peers.call(LOCAL, "s", "fail", {"why": "no luck, password=hunter2"}, timeout_s=10)
        assert (failed.is_error, failed.error_type) == (True, "tool_error")
        assert failed.message is not None
        assert "no luck" in failed.message
        with pytest.raises(UnknownTool, match="'nope'"):
            await peers.call(LOCAL, "s", "nope", {}, timeout_s=10)
        with pytest.raises(UnknownServer, match="'t'"):
            await peers.call(LOCAL, "t", "echo", {}, timeout_s=10)

        await house.peers.flushed()
        rows = await admin.fetch("SELECT * FROM raw.tool_calls ORDER BY time")
        assert [(row["tool"], row["status"], row["error_type"]) for row in rows] == [
            ("echo", "ok", None),
            ("fail", "error", "tool_error"),
            ("nope", "error", "tool_error"),
        ]
        assert {(row["vantage"], row["transport"], row["client"]) for row in rows} == {("own", "http", "hubscope")}
        assert (rows[0]["chain_id"], rows[0]["step_index"], rows[0]["request_bytes"]) == ("c1", 2, 13)
        assert rows[0]["duration_ms"] == pytest.approx(done.duration_ms)
        assert "hunter2" not in str([dict(row) for row in rows])


async def test_a_call_ends_as_it_ends_and_says_whether_it_may_have_run(database: str, tmp_path: Path) -> None:
    async with federation(database) as house:
        async with listening(http_app()) as server:
            await register(house, server.url)
            with pytest.raises(UpstreamTimeout, match=r"within 0\.2 s") as late:
                await house.peers.call(LOCAL, "s", "wait", {"seconds": 30}, timeout_s=0.2)
            assert late.value.sent
            call = asyncio.create_task(house.peers.call(LOCAL, "s", "wait", {"seconds": 30}, timeout_s=60))
            await asyncio.sleep(0.2)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        with pytest.raises(UpstreamFailed, match="cannot be reached") as gone:
            await house.peers.call(LOCAL, "s", "echo", {"text": "x"}, timeout_s=5)
        assert (gone.value.sent, gone.value.error_type, gone.value.status) == (False, "connect_failed", 502)
        await house.peers.flushed()
        assert [(one.status, one.error_type) for one in house.calls()] == [
            ("timeout", "timeout"),
            ("cancelled", None),
            ("error", "connect_failed"),
        ]


async def test_a_call_of_a_process_that_ends_under_it_may_have_run(database: str, tmp_path: Path) -> None:
    async with federation(database, servers_file=of_file(tmp_path), enable_probes=False) as house:
        await until_there(house)
        with pytest.raises(UpstreamFailed, match="exit code 3") as gone:
            await house.peers.call(LOCAL, "s", "die", {}, timeout_s=20)
        assert gone.value.sent
        assert (await house.peers.call(LOCAL, "s", "echo", {"text": "x"}, timeout_s=20)).structured == {"result": "x"}


async def until_there(house: House, server: str = "s") -> None:
    async def there() -> bool:
        return await house.state(server) != ""

    await until(there, f"{server} is in the store")


async def test_progress_is_passed_on(database: str) -> None:
    async with listening(http_app(streamed=True)) as server, federation(database) as house:
        await register(house, server.url)
        told: list[tuple[float, float | None, str | None]] = []

        async def progress(*one: Any) -> None:
            told.append(one)

        await house.peers.call(LOCAL, "s", "wait", {"seconds": 0.1}, timeout_s=10, progress=progress)
        assert told[0] == (1.0, 3.0, "part 1")


async def test_calls_wait_for_their_turn_within_their_timeout(database: str) -> None:
    async with listening(http_app()) as server, federation(database, peer_max_calls=1) as house:
        await register(house, server.url)
        first = asyncio.create_task(house.peers.call(LOCAL, "s", "wait", {"seconds": 0.5}, timeout_s=10))
        await asyncio.sleep(0.1)
        with pytest.raises(UpstreamTimeout) as late:
            await house.peers.call(LOCAL, "s", "echo", {"text": "x"}, timeout_s=0.1)
        assert not late.value.sent
        second = await house.peers.call(LOCAL, "s", "echo", {"text": "x"}, timeout_s=10)
        assert first.done()
        assert not second.is_error


async def test_recording_own_calls_can_be_switched_off(database: str) -> None:
    async with listening(http_app()) as server, federation(database, enable_auto_persistence=False) as house:
        await register(house, server.url)
        await house.peers.call(LOCAL, "s", "echo", {"text": "x"}, timeout_s=10)
        await house.peers.invoke(LOCAL, "s", Invocation.of({"method": "tools/list"}, 600))
        await house.peers.flushed()
        assert [type(event) for _, event in house.events] == [AuditEvent]


async def test_requests_that_call_no_tool_are_hub_events(database: str) -> None:
    async with listening(http_app()) as server, federation(database) as house:
        await register(house, server.url)
        await house.peers.invoke(LOCAL, "s", Invocation.of({"method": "tools/list"}, 600))
        await house.peers.flushed()
        [event] = [event for _, event in house.events if isinstance(event, HubEvent)]
        assert event.name == "mcp_request"
        assert b'"method":"tools/list"' in bytes(event.payload)


# Tenants, ids, limits


async def test_a_tenant_sees_and_calls_its_own_servers_only(database: str) -> None:
    async with listening(http_app()) as server, federation(database) as house:
        await register(house, server.url, "mine")
        await register(house, server.url, "theirs", ACME)
        await register(house, server.url, "both")
        await register(house, server.url, "both", ACME)
        assert [one.registration.id for one in await house.peers.servers(LOCAL)] == ["both", "mine"]
        assert [one.registration.id for one in await house.peers.servers(ACME)] == ["both", "theirs"]
        for forbidden in (
            house.peers.call(LOCAL, "theirs", "echo", {"text": "x"}, timeout_s=5),
            house.peers.tools(LOCAL, "theirs"),
            house.peers.server(LOCAL, "theirs"),
            house.peers.unregister(LOCAL, "theirs"),
            house.peers.health(LOCAL, "theirs"),
        ):
            with pytest.raises(UnknownServer):
                await forbidden
        await house.peers.unregister(LOCAL, "both")
        await house.peers.call(ACME, "both", "echo", {"text": "x"}, timeout_s=5)
        await house.peers.flushed()
        assert {tenant for tenant, one in house.events if getattr(one, "server", "") == "both"} == {"acme"}


async def test_an_id_is_taken_once_and_free_again_when_its_server_is_deleted(database: str) -> None:
    async with listening(http_app()) as server, federation(database) as house:
        await register(house, server.url)
        with pytest.raises(ServerTaken):
            await register(house, server.url)
        await house.peers.call(LOCAL, "s", "echo", {"text": "x"}, timeout_s=5)
        await house.peers.unregister(LOCAL, "s")
        with pytest.raises(UnknownServer):
            await house.peers.call(LOCAL, "s", "echo", {"text": "x"}, timeout_s=5)
        with pytest.raises(UnknownServer):
            await house.peers.unregister(LOCAL, "s")
        await register(house, server.url)


async def test_a_tenant_registers_only_so_many_servers(database: str) -> None:
    async with federation(database, max_registrations=3) as house:
        outcomes = await asyncio.gather(
            *(register(house, "http://127.0.0.1:9", f"s{number}") for number in range(6)), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in outcomes) == ["NoneType"] * 3 + ["TooManyServers"] * 3
        with pytest.raises(TooManyServers, match="HUBSCOPE_MAX_REGISTRATIONS"):
            await register(house, "http://127.0.0.1:9")
        await register(house, "http://127.0.0.1:9", principal=ACME)


async def test_a_server_inside_is_refused_when_it_is_registered(database: str) -> None:
    async with federation(database, peer_networks="") as house:
        with pytest.raises(InvalidParameter, match="HUBSCOPE_PEER_NETWORKS"):
            await register(house, "http://127.0.0.1:3401")
        config = {"token_url": "http://169.254.169.254/", "client_id": "i", "client_secret": "s"}
        with pytest.raises(InvalidParameter, match=r"auth\.config\.token_url"):
            await register(house, "http://93.184.215.14", auth={"type": "oauth2", "config": config})


# Secrets


async def test_a_secret_is_sealed_opened_for_its_server_and_never_told(database: str, admin: Connection) -> None:
    key = "k" * 32
    auth = {"type": "basic", "config": {"username": "ann", "password": "hunter2"}}
    async with federation(database, encryption_key=key) as house:
        await register(house, "http://127.0.0.1:9", auth=auth)
        await register(house, "http://127.0.0.1:9", principal=ACME, auth=auth)
        shown = str([(await house.peers.server(LOCAL, "s")).shown(), repr(await house.peers.server(LOCAL, "s"))])
        assert "hunter2" not in shown
        assert "'auth': {'type': 'basic'}" in shown
        opened = house.peers._opened(await house.peers.server(LOCAL, "s"))
        assert opened.auth.config == auth["config"]
        await house.peers.flushed()
        assert "hunter2" not in str(house.events)
        dump = str(
            [dict(row) for table in ("servers", "server_secrets") for row in await admin.fetch(f"TABLE hub.{table}")]
        )
        assert "hunter2" not in dump

        # A row that somebody copies to another tenant cannot be opened there.
        await admin.execute(
            "UPDATE hub.server_secrets SET sealed = (SELECT sealed FROM hub.server_secrets WHERE tenant_id = 'default')"
            " WHERE tenant_id = 'acme'"
        )
        with pytest.raises(CannotUnseal):
            await house.peers.call(ACME, "s", "echo", {}, timeout_s=5)
    # A key that is replaced: the new one in front, the old one behind it.
    async with federation(database, encryption_key=f"{'n' * 32},{key}") as house:
        assert house.peers._opened(await house.peers.server(LOCAL, "s")).auth.config == auth["config"]
    async with federation(database, encryption_key="n" * 32) as house:
        with pytest.raises(CannotUnseal, match="HUBSCOPE_ENCRYPTION_KEY"):
            await house.peers.call(LOCAL, "s", "echo", {}, timeout_s=5)


async def test_without_a_key_a_server_with_a_secret_is_not_registered(database: str) -> None:
    async with federation(database) as house:
        with pytest.raises(NoEncryptionKey, match="HUBSCOPE_ENCRYPTION_KEY"):
            await register(house, "http://127.0.0.1:9", auth={"type": "bearer", "config": {"token": "t"}})
        assert await house.peers.servers(LOCAL) == []
        await register(house, "http://127.0.0.1:9")


# The operator's file


async def test_the_operators_servers_are_there_cannot_be_deleted_and_go_with_the_file(
    database: str, admin: Connection, tmp_path: Path
) -> None:
    window = {"from": "2030-01-01T00:00:00Z", "until": "2030-01-02T00:00:00Z", "reason": "move"}
    file = of_file(tmp_path, maintenance=[window], category="clock")
    for _ in range(2):
        async with federation(database, servers_file=file, peer_networks="") as house:
            await until_there(house)
            one = await house.peers.server(LOCAL, "s")
            assert (one.source, one.registration.protocol, one.registration.endpoint) == ("file", "stdio", "")
            assert one.shown()["category"] == "clock"
            assert "PYTHONPATH" not in str(one.shown())
            [planned] = await house.peers.windows(LOCAL, "s", every=False)
            assert (planned.reason, planned.source) == ("move", "file")
            with pytest.raises(ServerIsTheOperators, match="HUBSCOPE_SERVERS_FILE"):
                await house.peers.unregister(LOCAL, "s")
            done = await house.peers.call(LOCAL, "s", "echo", {"text": "x"}, timeout_s=30)
            assert done.structured == {"result": "x"}
    # A process without the file cannot call it, and says why.
    async with federation(database) as house:
        with pytest.raises(UnknownServer, match="another process's file"):
            await house.peers.call(LOCAL, "s", "echo", {"text": "x"}, timeout_s=5)
        assert house.peers.prober.watched == []
    # Long after the last process that had it, it is gone.
    await admin.execute("UPDATE hub.servers SET updated_at = now() - interval '1 hour'")
    (tmp_path / "other").mkdir()
    other = of_file(tmp_path / "other")
    other.write_text(other.read_text().replace('"s":', '"t":'))
    async with federation(database, servers_file=other) as house:
        await until_there(house, "t")
        assert [one.registration.id for one in await house.peers.servers(LOCAL)] == ["t"]


async def test_closing_takes_no_longer_than_it_may(database: str, tmp_path: Path) -> None:
    """With a stdio server that will not end by itself, and a call under way."""
    file = tmp_path / "servers.json"
    file.write_text(
        '{"mcpServers": {"s": {"command": "/bin/sh", "args": ["-c", "trap \'\' TERM; sleep 60; sleep 60"]}}}'
    )
    async with federation(database, servers_file=file, enable_probes=False) as house:
        await until_there(house)
        call = asyncio.create_task(house.peers.call(LOCAL, "s", "x", {}, timeout_s=60))
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        await house.peers.close(1.0)
        assert time.monotonic() - begun < 10  # far from the 60 s that the server would take
        with pytest.raises((UpstreamFailed, asyncio.CancelledError)):
            await call
