"""Long-lived sessions with real servers: opened when needed and again when they broke, bounded, closed for certain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hubscope.errors import Overloaded, ShuttingDown
from hubscope.peers.guard import GuardedBackend, networks_of
from hubscope.peers.http import Trouble
from hubscope.peers.registration import Command, Registration
from hubscope.peers.sessions import RpcError, Sessions
from hubscope.settings import Settings
from tests.upstream import command, http_app, listening

KEY = ("default", "s")


def settings_of(**more: Any) -> Settings:
    return Settings.load(peer_networks="127.0.0.1", **more)


@contextlib.asynccontextmanager
async def opened(settings: Settings | None = None) -> AsyncIterator[Sessions]:
    settings = settings or settings_of()
    sessions = Sessions(settings, GuardedBackend(networks_of(settings.peer_networks)))
    try:
        yield sessions
    finally:
        await sessions.close()


def stdio(mode: Path | None = None, **env: str) -> Registration:
    return Registration("s", "s", "", "stdio", command=command(mode, **env), trusted=True)


def over_http(url: str, protocol: Any = "http") -> Registration:
    return Registration("s", "s", url, protocol)


async def say(sessions: Sessions, registration: Registration, text: str = "hi") -> str:
    """What `echo` answers."""
    call = {"name": "echo", "arguments": {"text": text}}
    answer = await sessions.request(KEY, registration, "tools/call", call)
    return str(answer["content"][0]["text"])


@pytest.mark.parametrize(
    ("protocol", "options"),
    [("http", {}), ("http", {"stateless": False}), ("sse", {"sse": True})],
    ids=["streamable http", "streamable http with sessions", "sse"],
)
async def test_a_server_is_spoken_to_over_each_http_transport(protocol: str, options: dict[str, Any]) -> None:
    async with opened() as sessions, listening(http_app(**options)) as server:
        registration = over_http(server.url, protocol)
        assert await say(sessions, registration) == "hi"
        first = sessions.peek(KEY)
        assert await say(sessions, registration, "ho") == "ho"
        assert sessions.peek(KEY) is first
        with pytest.raises(RpcError):
            await sessions.request(KEY, registration, "no/such", None)
        told: list[tuple[float, float | None, str | None]] = []

        async def progress(*one: Any) -> None:
            told.append(one)

        wait = {"name": "wait", "arguments": {"seconds": 0.05}}
        await sessions.request(KEY, registration, "tools/call", wait, progress=progress)
        if options:  # a server that answers with plain JSON has no way to tell
            assert told[0] == (1.0, 3.0, "part 1")


async def test_a_stdio_server_gets_its_own_environment_and_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBSCOPE_DATABASE_URL", "postgresql://secret")
    async with opened() as sessions:
        registration = stdio(GREETING="hello")
        for name, value in (("GREETING", "hello"), ("HUBSCOPE_DATABASE_URL", "")):
            call = {"name": "environment", "arguments": {"name": name}}
            answer = await sessions.request(KEY, registration, "tools/call", call)
            assert answer["content"][0]["text"] == value


async def test_a_process_that_ends_is_noticed_told_and_started_again() -> None:
    ended: list[Trouble] = []
    async with opened() as sessions:
        sessions.on_end = lambda _key, trouble: ended.append(trouble)
        registration = stdio()
        await say(sessions, registration)
        session = sessions.peek(KEY)
        assert session is not None
        assert session.child is not None
        os.kill(session.child.pid, signal.SIGKILL)
        await session.gone()
        await asyncio.sleep(0)
        assert sessions.peek(KEY) is None
        assert [(one.error_type, one.message) for one in ended] == [
            ("transport_closed", "the server has ended: it was killed by SIGKILL")
        ]
        assert await say(sessions, registration) == "hi"
        with pytest.raises(Trouble, match="exit code 3") as trouble:
            await sessions.request(KEY, registration, "tools/call", {"name": "die", "arguments": {}})
        assert trouble.value.sent


async def test_a_server_that_ends_while_it_starts_is_told_with_its_last_words() -> None:
    async with opened() as sessions:
        broken = Registration(
            "s",
            "s",
            "",
            "stdio",
            command=Command("/bin/sh", ("-c", "echo no database, password=hunter2 >&2; exit 4")),
            trusted=True,
        )
        with pytest.raises(Trouble, match=r"exit code 4; it said: no database, password=\[redacted\]") as trouble:
            await sessions.get(KEY, broken)
        assert not trouble.value.sent
        # It is not started over and over: for a moment the answer is the same without a try.
        with pytest.raises(Trouble) as again:
            await sessions.get(KEY, broken)
        assert again.value is trouble.value
        missing = Registration("s", "s", "", "stdio", command=Command("/nowhere/server"), trusted=True)
        with pytest.raises(Trouble, match="cannot be started: No such file"):
            await sessions.get(KEY, missing)


async def test_a_server_that_never_shakes_hands_is_given_up() -> None:
    async with opened(settings_of(peer_connect_timeout_ms=200)) as sessions:
        silent = Registration("s", "s", "", "stdio", command=Command("/bin/sleep", ("60",)), trusted=True)
        with pytest.raises(Trouble, match="handshake in time") as trouble:
            await sessions.get(KEY, silent)
        assert trouble.value.error_type == "connect_timeout"


async def test_closing_ends_every_process_and_what_it_has_started(tmp_path: Path) -> None:
    """A server that ignores the end of its input and SIGTERM, and has a child of its own."""
    script = tmp_path / "stubborn.py"
    script.write_text(
        "import signal, subprocess, sys, runpy\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "from tests.upstream import build\n"
        "try:\n    build().run('stdio')\nfinally:\n    import time; time.sleep(600)\n"
    )
    base = command()
    stubborn = Registration(
        "s", "s", "", "stdio", command=Command(sys.executable, (str(script),), base.env, base.cwd), trusted=True
    )
    async with opened() as sessions:
        await say(sessions, stubborn)
        session = sessions.peek(KEY)
        assert session is not None
        assert session.child is not None
        pids = [session.child.pid, int((tmp_path / "child").read_text())]
        assert all(psutil.pid_exists(pid) for pid in pids)
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


async def test_an_answer_over_the_limit_fails_its_call_alone() -> None:
    async with opened(settings_of(peer_max_answer_bytes=20_000)) as sessions, listening(http_app()) as server:
        registration = over_http(server.url)
        wait = {"name": "wait", "arguments": {"seconds": 0.3}}
        slow = asyncio.create_task(sessions.request(KEY, registration, "tools/call", wait))
        with pytest.raises(Trouble) as trouble:
            await sessions.request(KEY, registration, "tools/call", {"name": "give", "arguments": {"size": 30_000}})
        assert trouble.value.error_type == "answer_too_large"
        assert (await slow)["content"][0]["text"] == "done"
        await sessions.request(KEY, registration, "tools/call", {"name": "give", "arguments": {"size": 3_000}})


async def test_a_stdio_message_over_the_limit_ends_that_server() -> None:
    async with opened(settings_of(peer_max_answer_bytes=20_000)) as sessions:
        with pytest.raises(Trouble, match="HUBSCOPE_PEER_MAX_ANSWER_BYTES"):
            await sessions.request(KEY, stdio(), "tools/call", {"name": "give", "arguments": {"size": 30_000}})
        assert await say(sessions, stdio()) == "hi"


async def test_the_session_unused_longest_gives_way() -> None:
    async with opened(settings_of(peer_max_sessions=2)) as sessions, listening(http_app()) as server:
        registration = over_http(server.url)
        for name in ("a", "b", "a", "c"):
            await sessions.request(("default", name), registration, "tools/list", None)
            await asyncio.sleep(0.002)  # the clock that orders them has to move
        assert [name for name in "abc" if sessions.peek(("default", name)) is not None] == ["a", "c"]

        wait = {"name": "wait", "arguments": {"seconds": 0.3}}
        busy = [
            asyncio.create_task(sessions.request(("default", name), registration, "tools/call", wait)) for name in "ac"
        ]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded, match="HUBSCOPE_PEER_MAX_SESSIONS"):
            await sessions.get(("default", "d"), registration)
        await asyncio.gather(*busy)


async def test_an_idle_session_is_closed() -> None:
    async with opened() as sessions, listening(http_app()) as server:
        await say(sessions, over_http(server.url))
        sessions.close_idle(60)
        assert sessions.peek(KEY) is not None
        sessions.close_idle(0)
        assert sessions.peek(KEY) is None


async def test_a_server_that_was_started_again_is_connected_to_anew() -> None:
    """It does not know our session any more, and has not run what it refused: the same is sent on a new one."""
    async with opened() as sessions:
        async with listening(http_app(stateless=False)) as server:
            registration = over_http(server.url)
            await say(sessions, registration)
        with pytest.raises(Trouble) as away:
            await say(sessions, registration)
        assert (away.value.error_type, away.value.sent) == ("connect_failed", False)
        async with listening(http_app(stateless=False), server.port):
            assert await say(sessions, registration) == "hi"


async def test_a_server_that_was_registered_anew_gets_a_session_of_its_own() -> None:
    async with opened() as sessions, listening(http_app()) as one, listening(http_app()) as other:
        await say(sessions, over_http(one.url))
        first = sessions.peek(KEY)
        await say(sessions, over_http(other.url))
        assert first is not None
        assert sessions.peek(KEY) is not first
        await first.gone()


async def test_nothing_is_opened_while_closing() -> None:
    async with opened() as sessions:
        await sessions.close()
        with pytest.raises(ShuttingDown):
            await sessions.get(KEY, stdio())


@pytest.mark.parametrize("protocol", ["stdio", "http", "http with sessions", "sse"])
async def test_a_call_that_is_cancelled_is_cancelled_upstream(protocol: str, tmp_path: Path) -> None:
    mode = tmp_path / "mode"
    async with contextlib.AsyncExitStack() as stack:
        sessions = await stack.enter_async_context(opened())
        if protocol == "stdio":
            registration = stdio(mode)
        else:
            app = http_app(mode, stateless=protocol == "http", streamed=True, sse=protocol == "sse")
            server = await stack.enter_async_context(listening(app))
            registration = over_http(server.url, "sse" if protocol == "sse" else "http")
        begun = asyncio.Event()

        async def progress(*_: Any) -> None:
            begun.set()

        wait = {"name": "wait", "arguments": {"seconds": 60}}
        call = asyncio.create_task(sessions.request(KEY, registration, "tools/call", wait, progress=progress))
        await asyncio.wait_for(begun.wait(), 20)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        for _ in range(500):
            if Path(f"{mode}.cancelled").exists():
                break
            await asyncio.sleep(0.01)
        assert Path(f"{mode}.cancelled").read_text() == "cancelled\n"
        assert await say(sessions, registration) == "hi"


async def test_who_waits_for_a_session_that_is_closed_meanwhile_is_told_and_not_cancelled() -> None:
    async with opened() as sessions:
        silent = Registration("s", "s", "", "stdio", command=Command("/bin/sleep", ("60",)), trusted=True)
        waiting = asyncio.create_task(sessions.get(KEY, silent))
        await asyncio.sleep(0.1)
        sessions.drop(KEY)
        with pytest.raises(Trouble, match="closed while it was being opened"):
            await waiting
