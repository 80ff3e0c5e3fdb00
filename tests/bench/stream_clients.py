"""The readers of the bench `stream`: many streams over bare sockets in one lean process.

Reads its orders as one line of JSON from standard input, says `ready` when every stream has begun, reads until standard
input ends, then writes what each stream was sent to a file and says, as JSON, what else happened.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from array import array
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

import uvloop

_BLOCK: Final = re.compile(rb"(?:^|\n)(?:id: (\d+)\n)?(?:retry: (\d+)\n)?event: (\w+)\ndata: ")
FIRST_RETRY_MS: Final = 500
BACK_S: Final = 0.1


@lru_cache(maxsize=4096)
def blocks(text: bytes) -> list[tuple[int, int, bytes]]:
    """(id, retry in ms, event) of each block; 0 for what is not there. Streams of a tenant are sent the same bytes."""
    return [(int(seq or 0), int(retry or 0), event) for seq, retry, event in _BLOCK.findall(text)]


class Client(asyncio.Protocol):
    """One reader: what it got, and how it goes on.

    Attributes:
        seqs, times: number of each event, and when it came (time.monotonic).
        began: the number after which its first stream began.
    """

    def __init__(self, bench: Readers, tenant: int, request: bytes) -> None:
        self._bench = bench
        self.tenant = tenant
        self._request = request
        self._rest = b""
        self._transport: asyncio.BaseTransport | None = None
        self.seqs = array("q")
        self.times = array("d")
        self.began: int | None = None
        self.last = 0
        self.retry_ms = FIRST_RETRY_MS

    async def connect(self) -> None:
        while not self._bench.stopping:
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._bench.port)
                return
            except OSError:
                await asyncio.sleep(BACK_S)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._rest = b""
        after = b"last-event-id: %d\r\n" % self.last if self.began is not None else b""
        cast(asyncio.WriteTransport, transport).write(self._request + after + b"\r\n")

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        whole, end, self._rest = (self._rest + data).rpartition(b"\n\n")
        if not end:
            return
        for seq, retry_ms, event in blocks(whole):
            if event == b"begin":
                self.retry_ms = retry_ms
                if self.began is None:
                    self.began = self.last = seq
                    self._bench.begun += 1
                    if self._bench.begun == self._bench.clients:
                        print("ready", flush=True)
            elif event == b"gap":
                self._bench.gaps += 1
                self.last = seq
            elif event == b"end":
                self.retry_ms = retry_ms or self.retry_ms
                self._bench.ended += 1
                self.close()
            else:
                self.seqs.append(seq)
                self.times.append(now)
                self.last = seq

    def connection_lost(self, error: Exception | None) -> None:
        if not self._bench.stopping:
            self._bench.lost_connections += 1
            loop = asyncio.get_running_loop()
            loop.call_later(self.retry_ms / 1000, lambda: self._bench.again(self))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Readers:
    """All of them."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self.port: int = orders["port"]
        self.stopping = False
        self.begun = self.gaps = self.ended = self.lost_connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._all = []
        for tenant, key in enumerate(orders["keys"]):
            head = (
                f"GET /api/v1/stream?topics={orders['topics']} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                f"authorization: Bearer {key}\r\n"
            )
            self._all += [Client(self, tenant, head.encode()) for _ in range(orders["clients_each"])]
        self.clients = len(self._all)

    def again(self, client: Client) -> None:
        task = asyncio.get_running_loop().create_task(client.connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, path: Path) -> dict[str, Any]:
        """Read until standard input ends."""
        for client in self._all:
            await client.connect()
        await asyncio.to_thread(sys.stdin.read)
        self.stopping = True
        for client in self._all:
            client.close()
        with path.open("wb") as out:
            for client in self._all:
                array("q", [client.tenant, client.began or 0, len(client.seqs)]).tofile(out)
                client.seqs.tofile(out)
                client.times.tofile(out)
        return {"gaps": self.gaps, "told_to_come_back": self.ended, "lost_connections": self.lost_connections}


def main() -> None:
    """As the module says."""
    orders = json.loads(sys.stdin.readline())
    print(json.dumps(uvloop.run(Readers(orders).run(Path(orders["file"])))), flush=True)


if __name__ == "__main__":
    main()
