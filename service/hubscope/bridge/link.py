"""The way to one mcp-hub: its REST API with httpx2, its event stream on a socket of its own.

The stream is not read with httpx2, because in a storm of log lines each of them is a chunk of its own, and a client
written in Python takes tens of microseconds for one. Here a parser in C takes the chunks off and `Splitter` looks for
line ends. Both ways are bounded in bytes and in time.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Final

import httptools
import httpx2

from hubscope.bridge import seen
from hubscope.bridge.sse import Splitter
from hubscope.bridge.watch import Probe
from hubscope.errors import HubAway

HEAD_MAX_BYTES: Final = 64 * 1024
HEARTBEAT_SILENCE_S: Final = 35.0
"""The hub's heartbeat comes every 10 s: a stream that is silent for so long is dead."""

Deliver = Callable[[seen.Signal | None], None]
"""Takes what the stream told; None where something was told that could not be read."""


class Link:
    """REST and stream of one hub. Close it.

    Args:
        url: where the hub is, without `/api`.
        timeout_s: longest that an answer may take, from the first byte sent to the last received.
        max_answer_bytes: longest answer that is read.
        max_event_bytes: longest event of the stream that is read.
        error_chars: longest error text that is kept.
    """

    def __init__(
        self, url: str, *, timeout_s: float, max_answer_bytes: int, max_event_bytes: int, error_chars: int
    ) -> None:
        self.splitter = Splitter(seen.READ, max_event_bytes)
        self._url = httpx2.URL(url)
        self._base = url
        self._timeout_s = timeout_s
        self._max = max_answer_bytes
        self._chars = error_chars
        here = self._url.host in ("127.0.0.1", "::1", "localhost")  # where a proxy would only be in the way
        self._http = httpx2.AsyncClient(timeout=timeout_s, trust_env=not here)

    async def close(self) -> None:
        await self._http.aclose()

    async def poll(self) -> tuple[seen.Snapshot, float]:
        """How the hub and its servers are, and how many milliseconds it took to say so.

        Raises:
            HubAway: no answer, or none that an mcp-hub gives.
        """
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._ask("GET", "/api/health")
        except TimeoutError:
            raise HubAway(f"no answer within {self._timeout_s:g} s") from None
        except httpx2.HTTPError as error:
            raise HubAway(_words(error)) from None
        if status != 200:
            raise HubAway(f"it answers with status {status}")
        took_ms = (time.perf_counter() - began) * 1_000
        try:
            return seen.snapshot(body, self._chars), took_ms
        except ValueError as error:
            raise HubAway(str(error)) from None

    async def probe(self, server: str) -> Probe:
        """Have the hub ask one of its servers for its lists."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._ask("POST", "/api/servers/refresh", {"server_name": server})
        except TimeoutError:
            return Probe(timed_out=True, error=f"no answer within {self._timeout_s:g} s")
        except (HubAway, httpx2.HTTPError) as error:
            return Probe(error=str(error) if isinstance(error, HubAway) else _words(error))
        took_ms = (time.perf_counter() - began) * 1_000
        if status != 200:
            return Probe(error=seen.refusal(body, self._chars) or f"status {status}")
        found, at = seen.refreshed(body, self._chars)
        if found is None:
            return Probe(error="an answer that cannot be read")
        return Probe(found, at, took_ms)

    async def _ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        read = bytearray()
        async with self._http.stream(method, self._base + path, json=body) as answer:
            async for part in answer.aiter_bytes():
                read += part
                if len(read) > self._max:
                    raise HubAway(f"its answer is longer than {self._max} bytes (HUBSCOPE_BRIDGE_MAX_ANSWER_BYTES)")
        return answer.status_code, bytes(read)

    async def follow(self, deliver: Deliver, connected: Callable[[], None]) -> str:
        """Read the event stream until it ends.

        Args:
            deliver: is given each signal, at once.
            connected: called when the hub has accepted.

        Returns:
            Why it ended.
        """
        loop = asyncio.get_running_loop()
        splitter = self.splitter
        splitter.reset()

        def read(body: bytes) -> None:
            for name, data in splitter.feed(body):
                deliver(None if data is None else seen.signal(name, data, self._chars))

        stream = _Stream(loop, read, connected)
        secure = ssl.create_default_context() if self._url.scheme == "https" else None
        port = self._url.port or (443 if secure else 80)
        try:
            async with asyncio.timeout(self._timeout_s):
                transport, _ = await loop.create_connection(lambda: stream, self._url.host, port, ssl=secure)
        except (OSError, TimeoutError) as error:
            return _words(error)
        try:
            path = self._url.raw_path.rstrip(b"/") + b"/api/events"
            host = self._url.netloc
            transport.write(
                b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nAccept: text/event-stream\r\n"
                b"Cache-Control: no-cache\r\nUser-Agent: hubscope-bridge\r\n\r\n"
            )
            patience = self._timeout_s
            while not stream.ended.done():
                await asyncio.wait([stream.ended], timeout=patience)
                patience = HEARTBEAT_SILENCE_S
                if not stream.ended.done() and not (stream.accepted and stream.heard()):
                    return "it is silent"
            return stream.ended.result()
        finally:
            transport.abort()


class _Stream(asyncio.Protocol):
    """One response whose body never ends."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, read: Callable[[bytes], None], connected: Callable[[], None]
    ) -> None:
        self.ended: asyncio.Future[str] = loop.create_future()
        self.accepted = False
        self._read = read
        self._connected = connected
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._head = 0
        self._heard = False

    def heard(self) -> bool:
        """Whether anything came since this was last asked."""
        heard, self._heard = self._heard, False
        return heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if not self.accepted:
            self._head += len(data)
            if self._head > HEAD_MAX_BYTES:
                self._end("its head is too long")
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._end("what it sends is not HTTP")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(_words(error) if error is not None else "the hub closed it")

    # What the parser calls

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            self._end(f"it answers with status {status}")
            return
        self.accepted = True
        self._connected()

    def on_body(self, body: bytes) -> None:
        if self.accepted and not self.ended.done():
            self._read(body)

    def on_message_complete(self) -> None:
        self._end("the hub ended it")

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
        if self._transport is not None:
            self._transport.abort()


def _words(error: BaseException) -> str:
    """What happened, without addresses and paths."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ssl.SSLError):
            text = cause.strerror
            return "connection refused" if isinstance(cause, ConnectionRefusedError) else text[:200].lower()
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
