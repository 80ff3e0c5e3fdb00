"""A reader of server-sent events on a bare socket: it sees every byte, and can stop reading."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

PATIENCE_S: Final = 20.0


@dataclass(frozen=True)
class Block:
    """What stands between two empty lines."""

    id: int | None = None
    event: str = ""
    data: Any = None
    comment: str = ""
    retry_ms: int | None = None


class Reader:
    """An open stream: its head, then its blocks.

    Attributes:
        last_id: as a browser would remember it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._text = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.last_id: int | None = None
        self.reads: list[int] = []

    async def head(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}

    async def problem(self) -> dict[str, Any]:
        """The body of an answer that is no stream."""
        body: dict[str, Any] = json.loads(await self._reader.readexactly(int(self.headers["content-length"])))
        return body

    async def _chunk(self) -> bytes:
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def block(self) -> Block | None:
        """The next block; None at the end of the answer."""
        while b"\n\n" not in self._text:
            async with asyncio.timeout(PATIENCE_S):
                chunk = await self._chunk()
            if not chunk:
                return None
            self._text += chunk
            self.reads.append(chunk.count(b"\ndata: "))
        text, _, self._text = self._text.partition(b"\n\n")
        found: dict[str, Any] = {}
        for line in text.decode().split("\n"):
            name, _, value = line.partition(": ")
            found[name or "comment"] = value
        block = Block(
            id=int(found["id"]) if "id" in found else None,
            event=found.get("event", ""),
            data=json.loads(found["data"]) if "data" in found else None,
            comment=found.get("comment", ""),
            retry_ms=int(found["retry"]) if "retry" in found else None,
        )
        if block.id is not None:
            self.last_id = block.id
        return block

    async def event(self) -> Block | None:
        """The next block that is an event of a topic, or about the stream; heartbeats are passed over."""
        async with asyncio.timeout(PATIENCE_S):
            while (block := await self.block()) is not None and block.data is None:
                pass
        return block

    async def events(self, count: int) -> list[Block]:
        """So many events."""
        found: list[Block] = []
        while len(found) < count:
            block = await self.event()
            assert block is not None, found
            found.append(block)
        return found

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()


@asynccontextmanager
async def reading(
    port: int, query: str = "", *, after: int | None = None, key: str | None = None, receive_bytes: int | None = None
) -> AsyncIterator[Reader]:
    """A stream of a service on this machine, from its head on."""
    plug = socket.socket()
    plug.setblocking(False)
    if receive_bytes is not None:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await asyncio.get_running_loop().sock_connect(plug, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=plug, limit=2**16 if receive_bytes is None else receive_bytes)
    more = f"last-event-id: {after}\r\n" if after is not None else ""
    more += f"authorization: Bearer {key}\r\n" if key is not None else ""
    writer.write(f"GET /api/v1/stream{query} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n".encode())
    one = Reader(reader, writer)
    try:
        await one.head()
        yield one
    finally:
        one.close()
