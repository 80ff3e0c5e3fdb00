"""MCP messages over pipes, on the event loop that `sql-mcp` runs on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification

from hubscope.entrypoints import loop
from hubscope.entrypoints.stdio import MOST_WAITING, Received, Sent

PING = b'{"jsonrpc":"2.0","id":%d,"method":"ping"}'


def pipe() -> tuple[Any, Any]:
    read, write = os.pipe()
    return os.fdopen(read, "rb", buffering=0), os.fdopen(write, "wb", buffering=0)


def pair() -> tuple[Any, Any]:
    """What Node gives its children instead of pipes."""
    return socket.socketpair()


async def read(ours: Any) -> Received:
    received = Received()
    await asyncio.get_running_loop().connect_read_pipe(lambda: received, ours)
    return received


async def told(received: Received) -> list[Any]:
    return [item.message if isinstance(item, SessionMessage) else type(item) async for item in received]


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    return loop.run_on_loop if request.param == "uvloop" else asyncio.run


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize("kind", [pipe, pair])
def test_messages_arrive_whole_and_in_order_however_they_are_cut(run: Run, kind: Callable[[], tuple[Any, Any]]) -> None:
    async def work() -> None:
        ours, theirs = kind()
        received = await read(ours)
        sent = b"\n".join(PING % n for n in range(3 * MOST_WAITING)) + b"\r\n" + PING % 9_999  # the last one unended

        async def write() -> None:
            for at in range(0, len(sent), 777):
                os.write(theirs.fileno(), sent[at : at + 777])
                await asyncio.sleep(0)
            theirs.close()

        _, messages = await asyncio.gather(write(), told(received))
        assert [each.id for each in messages] == [*range(3 * MOST_WAITING), 9_999]
        await received.aclose()

    run(work())


def test_what_is_no_message_comes_as_an_error_and_ends_nothing(run: Run) -> None:
    async def work() -> None:
        ours, theirs = pipe()
        received = await read(ours)
        os.write(theirs.fileno(), b"no json\n\n" + PING % 1 + b"\n" + b'{"jsonrpc":"2.0","method":"\xff\xfe"}\n')
        theirs.close()
        first, second, third, fourth = await told(received)
        assert issubclass(first, ValueError)
        assert issubclass(second, ValueError)
        assert third.id == 1
        assert fourth.method == "\ufffd\ufffd"

    run(work())


def note(text: str) -> SessionMessage:
    return SessionMessage(JSONRPCNotification(jsonrpc="2.0", method=text))


def test_a_client_that_reads_slowly_gets_all_of_a_large_answer(run: Run) -> None:
    async def work() -> None:
        theirs, ours = pipe()
        sent = Sent()
        await asyncio.get_running_loop().connect_write_pipe(lambda: sent, ours)
        reader = asyncio.get_running_loop().run_in_executor(None, theirs.readall)
        for _ in range(3):
            await sent.send(note("x" * 1_000_000))
        await sent.flushed()
        read = await reader
        theirs.close()
        assert [len(line) for line in read.splitlines()] == [1_000_000 + len('{"jsonrpc":"2.0","method":""}')] * 3

    run(work())


def test_a_client_that_is_gone_is_noticed(run: Run) -> None:
    async def work() -> None:
        theirs, ours = pipe()
        sent = Sent()
        await asyncio.get_running_loop().connect_write_pipe(lambda: sent, ours)
        theirs.close()

        async def talk() -> None:
            while True:
                await sent.send(note("hello"))
                await asyncio.sleep(0)

        with pytest.raises(anyio.BrokenResourceError):
            await talk()
        await sent.flushed()

    run(work())
