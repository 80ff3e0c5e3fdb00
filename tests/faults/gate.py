"""A small TCP proxy that breaks connections on purpose: between client and service, between service and database."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

CHUNK: Final = 64 * 1024
TRICKLE_BYTES: Final = 200
TRICKLE_PAUSE_S: Final = 0.005
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST

Target = Path | tuple[str, int]
"""A Unix socket, or host and port."""


class Way(Enum):
    """Which way bytes go."""

    THERE = "there"  # from whoever asks to whoever answers
    BACK = "back"


class Break(Enum):
    """What is done to bytes that go one way.

    RESET: they are dropped, and both sides of the connection are reset.
    CUT: half of them pass, and both sides are reset.
    SWALLOW: they, and all that follow on this connection, vanish; nobody is told (half-open).
    TRICKLE: they pass in small pieces with pauses.
    """

    RESET = "reset"
    CUT = "cut"
    SWALLOW = "swallow"
    TRICKLE = "trickle"


@dataclass(eq=False)
class _Pair:
    """One connection through the gate: the streams of both sides."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    dead: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        for writer in (self.near, self.far):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Gate:
    """Listens on a loopback port and passes everything on, until it is told to break something.

    Attributes:
        target: where connections are passed on to; may be changed at any time.
        port: where it listens; the same for its whole life.
        bites: how often something was broken.
    """

    def __init__(self, target: Target | None, seed: int = 0) -> None:
        self.target = target
        self.port = 0
        self.bites = 0
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._break: tuple[Break, Way, float, bytes] | None = None

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        for task in list(self._handlers):
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close in the next turns of the loop

    @contextmanager
    def broken(self, how: Break, way: Way, share: float = 1.0, having: bytes = b"") -> Iterator[None]:
        """While the block runs, break this share of what goes this way and holds these bytes.

        `heal` ends it earlier for what is not broken yet.
        What was swallowed stays half-open to the end of the block: neither side learns of the other's end.
        """
        self._break = (how, way, share, having)
        try:
            yield
        finally:
            self.heal()
            for pair in list(self._pairs):
                if pair.dead:  # nobody would ever find out
                    pair.reset()

    def heal(self) -> None:
        """Break nothing more."""
        self._break = None

    def refuse(self) -> None:
        """Reset every connection and refuse new ones, until `accept`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for pair in list(self._pairs):
            pair.reset()

    async def accept(self) -> None:
        """Listen again, on the same port."""
        await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._pass(reader, writer))
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await self._reach()
        except OSError:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
            return
        pair = _Pair(writer, far_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pump(pair, Way.THERE, reader, far_writer), self._pump(pair, Way.BACK, far_reader, writer)
            )
        finally:
            self._pairs.discard(pair)
            for one in (writer, far_writer):
                one.close()  # of what was reset nothing is left to send

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.target is None:
            raise ConnectionRefusedError
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection(*self.target)

    async def _pump(self, pair: _Pair, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                match self._fate(way, data):
                    case _ if pair.dead:
                        continue
                    case None:
                        writer.write(data)
                        await writer.drain()
                    case Break.RESET:
                        pair.reset()
                        return
                    case Break.CUT:
                        writer.write(data[: len(data) // 2])
                        await writer.drain()
                        await asyncio.sleep(0.01)  # a reset would overtake what is under way
                        pair.reset()
                        return
                    case Break.SWALLOW:
                        pair.dead = True
                    case Break.TRICKLE:
                        for start in range(0, len(data), TRICKLE_BYTES):
                            writer.write(data[start : start + TRICKLE_BYTES])
                            await writer.drain()
                            await asyncio.sleep(TRICKLE_PAUSE_S)
            if not pair.dead and writer.can_write_eof():
                writer.write_eof()
            elif pair.dead:
                return
        except OSError:
            if not pair.dead:
                pair.reset()

    def _fate(self, way: Way, data: bytes) -> Break | None:
        if self._break is None:
            return None
        how, which, share, having = self._break
        if way is not which or having not in data or self._random.random() >= share:
            return None
        self.bites += 1
        return how
