"""MCP over standard input and output, read and written by the event loop itself.

The SDK's own transport hands every line to a thread and back, three times in a call, which takes longer than most
calls do; it is used where standard input or output is no pipe (a terminal, a file), for which there is no other way.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage

MOST_WAITING: Final = 64
"""Lines that were read and not yet taken, before reading waits."""

FLUSH_TIMEOUT_S: Final = 5.0
"""How long answers may take to be written when we end."""


async def serve_stdio(server: Server[Any]) -> bool:
    """Serve the client at the other end of our standard input and output until it closes the former.

    While serving, file descriptor 0 is empty and 1 is standard error, so that nothing else mixes with the messages.

    Returns:
        False when they are no pipes; nothing was read or written then.
    """
    if not all(map(_is_pipe, (0, 1))):
        return False
    loop = asyncio.get_running_loop()
    with _taken(0, "rb") as stdin, _taken(1, "wb") as stdout:
        _, received = await loop.connect_read_pipe(Received, stdin)
        _, sent = await loop.connect_write_pipe(Sent, stdout)
        try:
            await server.run(received, sent, server.create_initialization_options())
        finally:
            await received.aclose()
            await sent.flushed()
    return True


def _is_pipe(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


@contextlib.contextmanager
def _taken(descriptor: int, mode: str) -> Iterator[BinaryIO]:
    """The stream behind a standard descriptor, which meanwhile leads elsewhere, also for programs that we start."""
    ours = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    elsewhere = os.open(os.devnull, os.O_RDONLY) if mode == "rb" else os.dup(2)
    os.dup2(elsewhere, descriptor)
    os.close(elsewhere)
    back = os.dup(ours)
    try:
        with os.fdopen(ours, mode, buffering=0) as stream:  # the transport closes it
            yield stream  # type: ignore[misc]
    finally:
        os.set_blocking(back, True)
        os.dup2(back, descriptor)
        os.close(back)


class _Stream:
    """What both directions have in common: the SDK's streams are context managers."""

    async def aclose(self) -> None:
        """Close it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Received(_Stream, asyncio.Protocol):
    """Messages from the client, one per line."""

    def __init__(self) -> None:
        self._transport: asyncio.ReadTransport | None = None
        self._rest: list[bytes] = []
        self._lines: deque[bytes] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is open."""
        self._transport = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Some bytes: lines, and the beginning of another."""
        first, *more = data.split(b"\n")
        self._rest.append(first)
        if not more:
            return
        self._lines.append(b"".join(self._rest))
        self._lines.extend(more[:-1])
        self._rest = [more[-1]]
        if len(self._lines) > MOST_WAITING and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The client closed our standard input; what it wrote last may have no line break."""
        self.connection_lost(None)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more will come."""
        if not self._ended:
            self._ended = True
            last = b"".join(self._rest)
            if last:
                self._lines.append(last)
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def receive(self) -> SessionMessage | Exception:
        """The next message, or what is wrong with it.

        Raises:
            EndOfStream: there will be none.
        """
        while not self._lines:
            if self._ended:
                raise anyio.EndOfStream
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        line = self._lines.popleft()
        if len(self._lines) == MOST_WAITING and not self._ended and self._transport is not None:
            self._transport.resume_reading()
        try:
            return SessionMessage(types.jsonrpc_message_adapter.validate_json(_text(line), by_name=False))
        except ValueError as error:
            return error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Read no more."""
        if self._transport is not None:
            self._transport.close()
        self.connection_lost(None)


def _text(line: bytes) -> bytes | str:
    """As the SDK reads it: bytes that are no UTF-8 are replaced, and what they stand in is answered for all that."""
    return line if line.isascii() else line.decode("utf-8", errors="replace")


class Sent(_Stream, asyncio.Protocol):
    """Messages to the client."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is open."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It has read."""
        self._room.set()

    def connection_lost(self, error: Exception | None) -> None:
        """All was written, or the client went away."""
        self._gone.set()
        self._room.set()

    async def send(self, item: SessionMessage, /) -> None:
        """Write a message; waits while the client does not keep up.

        Raises:
            BrokenResourceError: the client went away.
        """
        await self._room.wait()
        if self._transport is None or self._transport.is_closing():
            raise anyio.BrokenResourceError
        text: str = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        self._transport.write(text.encode() + b"\n")

    async def aclose(self) -> None:
        """Write what was sent, and no more."""
        if self._transport is not None:
            self._transport.close()

    async def flushed(self) -> None:
        """Close, and wait until everything is written."""
        await self.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self._gone.wait()
