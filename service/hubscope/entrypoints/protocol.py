"""uvicorn's HTTP protocol with the limits that it lacks: deadlines, sizes, and a strict reading of the head.

uvicorn waits for the rest of a request as long as its client likes, keeps header fields without bound, and takes
trailers for headers. Here each connection has one moment by which something must have happened (`due`); a sweep over
all of them closes those that are late, so a request costs two assignments and no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hubscope.entrypoints.problems import problem
from hubscope.errors import HubscopeError, InvalidRequest, Overloaded
from hubscope.instruments import Instruments
from hubscope.settings import Settings

log = structlog.get_logger("hubscope.http")

LINGER_MS: Final = 1_000
"""How long a refused client may go on sending before its connection is reset."""
JOINED_BYTES: Final = 64 * 1024
ABORT: Final = "hubscope.abort"
"""In the ASGI scope: ends the connection at once, whatever waits in it."""
PER_FIELD_BYTES: Final = 32
"""What a header field counts beside its text, as in HPACK: very many tiny fields cost memory, too."""


class RequestTimeout(HubscopeError):
    """The request did not arrive in time."""

    status = 408
    code = "request_timeout"


class HeadTooLarge(HubscopeError):
    """The request line and header fields are larger than allowed."""

    status = 431
    code = "head_too_large"


def hardened(settings: Settings, instruments: Instruments) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn.Config(http=...), with the limits of these settings."""

    class Protocol(_Protocol):
        limits = settings
        cut = staticmethod(lambda reason: instruments.connections_cut.labels(reason).inc())

    return Protocol


async def sweep(connections: Callable[[], Any], settings: Settings) -> None:
    """Close late connections, for ever. A deadline is kept to within a tenth of the shortest of them."""
    shortest = min(
        settings.header_timeout_ms, settings.body_timeout_ms, settings.write_timeout_ms, settings.keep_alive_timeout_ms
    )
    pause = min(1.0, shortest / 1000 / 10)
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(pause)
        now = loop.time()
        for connection in list(connections()):
            if isinstance(connection, _Protocol):
                try:
                    connection.close_if_late(now)
                except Exception:  # one connection's trouble must not end the deadlines of all
                    log.exception("a late connection could not be closed")


class _Joined:
    """A transport that sends together what is written in one step of the event loop: an answer's head and its body.

    Two sends would be a fifth of what a small post costs. More than JOINED_BYTES go out at once, so that flow control
    hears of them.
    """

    __slots__ = ("_loop", "_parts", "_size", "_transport", "is_closing", "pause_reading", "resume_reading")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        # Asked for with every request.
        self.is_closing, self.pause_reading = transport.is_closing, transport.pause_reading
        self.resume_reading = transport.resume_reading
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)
        self._size += len(data)
        if self._size > JOINED_BYTES:
            self._send()

    def _send(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._transport.write(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def write_eof(self) -> None:
        self._send()
        self._transport.write_eof()

    def abort(self) -> None:
        self._parts.clear()
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(HttpToolsProtocol):
    limits: Settings
    cut: Callable[[str], None]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._phase = "head"
        self._due: float | None = None
        self._write_due: float | None = None
        self._head_bytes = 0
        self._field_bytes = 0
        self._begun_inside = False
        self._refused = False

    # Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Joined(transport, self.loop))  # type: ignore[arg-type]  # all that is used of one
        self._wait("head", self.limits.header_timeout_ms)
        if len(self.connections) > self.limits.max_connections:
            self._refuse(Overloaded("too many connections"), "connections")

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._phase == "idle":
            self._wait("head", self.limits.header_timeout_ms)
            self._head_bytes = 0
        self._begun_inside = False
        super().data_received(data)
        if self._phase == "head" and not self._refused and not self._begun_inside:
            # Inside a field that does not end, the parser has told us nothing yet.
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.max_header_bytes:
                self._refuse(HeadTooLarge(limit_bytes=self.limits.max_header_bytes), "head")

    def connection_lost(self, exc: Exception | None) -> None:
        self._due = self._write_due = None
        super().connection_lost(exc)

    # Parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._field_bytes = 0
        if self._phase != "head":  # pipelined behind another one
            self._begun_inside = True
            self._head_bytes = 0
            self._wait("head", self.limits.header_timeout_ms)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase == "body":  # a trailer: it must not pass for a header that a proxy in front has looked at
            self._count(len(name) + len(value) + PER_FIELD_BYTES)
            return
        self._count(len(name) + len(value) + PER_FIELD_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        if self._field_bytes > self.limits.max_header_bytes:
            self._refuse(HeadTooLarge(limit_bytes=self.limits.max_header_bytes), "head")
            return
        doubt = self._doubt()
        if doubt is not None:
            self._refuse(InvalidRequest(doubt), "malformed")
            return
        self._wait("body", self.limits.body_timeout_ms)
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]  # ours
        super().on_headers_complete()

    def _doubt(self) -> str | None:
        """What the parser lets pass although a proxy in front may read it another way (request smuggling)."""
        version = self.parser.get_http_version()
        if not self.url.startswith((b"/", b"*")):
            return "the request target must be a path"
        names = [name for name, _ in self.headers]
        if names.count(b"host") != 1 and (version == "1.1" or b"host" in names):
            return "the header 'host' must be there once"
        for name, value in self.headers:
            if name == b"transfer-encoding" and (version != "1.1" or value.strip().lower() != b"chunked"):
                return "the only Transfer-Encoding that is taken is chunked, in HTTP/1.1"
        return None

    def send_400_response(self, msg: str) -> None:
        """What the parser itself refuses, such as Content-Length beside Transfer-Encoding."""
        if not self._refused:
            self._refuse(InvalidRequest("the request is not valid HTTP/1.1"), "malformed")

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing is upgraded to: the request is answered, what follows is not read, and then we hang up."""
        self._refused = True
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused:
            return
        super().on_message_complete()
        self._rest()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._phase == "answer":
            self._rest()

    # Client that does not read

    def pause_writing(self) -> None:
        self._write_due = self.loop.time() + self.limits.write_timeout_ms / 1000
        super().pause_writing()

    def resume_writing(self) -> None:
        self._write_due = None
        super().resume_writing()

    # Deadlines

    def close_if_late(self, now: float) -> None:
        """Called by the sweep."""
        if self._write_due is not None and now > self._write_due:
            self.cut("unread")
            self._write_due = None
            self.transport.abort()
        elif self._due is not None and now > self._due:
            if self._phase == "body" and self.flow.read_paused:
                self._wait("body", self.limits.body_timeout_ms)  # it is we who do not read
                return
            self._due = None
            if self._phase == "closing":
                self.transport.abort()
            elif self._phase == "idle" or (self._phase == "head" and self._head_bytes == 0):
                self.cut("idle")
                self.transport.close()
            else:
                limit = self.limits.header_timeout_ms if self._phase == "head" else self.limits.body_timeout_ms
                self._refuse(RequestTimeout(limit_ms=limit), self._phase)

    def _wait(self, phase: str, timeout_ms: int) -> None:
        self._phase = phase
        self._due = self.loop.time() + timeout_ms / 1000

    def _rest(self) -> None:
        """The request is whole: wait for our answer to it, or, if that is out already, for the next request."""
        if self.cycle is None or self.cycle.response_complete:
            self._wait("idle", self.limits.keep_alive_timeout_ms)
        else:
            self._phase, self._due = "answer", None

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > self.limits.max_header_bytes and not self._refused:
            self._refuse(HeadTooLarge(limit_bytes=self.limits.max_header_bytes), "head")

    def _refuse(self, error: HubscopeError, reason: str) -> None:
        """Answer for the application, unless it has begun to, and hang up."""
        self.cut(reason)
        self._refused = True
        self._due = None
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy and self._phase != "body":
            # It is a later request that will not do: the earlier ones are answered first, and then we hang up.
            self.cycle.keep_alive = False
            return
        if self.pipeline:  # both of that: neither can be told apart from the other any more
            self.transport.abort()
            return
        # After an answer that came before the end of its request there is nothing left to say.
        if (self._phase == "head") if not busy else (not self.cycle.response_started):
            status, headers, body = problem(error)
            self.transport.write(
                b"HTTP/1.1 %d \r\n" % status
                + b"".join(b"%s: %s\r\n" % header for header in headers)
                + b"connection: close\r\n\r\n"
                + body
            )
        if busy:
            self.cycle.disconnected = True  # the application is told that its client is gone
            self.cycle.message_event.set()
        if reason == "connections":
            self.transport.close()
        elif not self.transport.is_closing():
            # To close with bytes unread would reset the connection and take the answer away: read and drop the rest.
            self.transport.write_eof()
            self.flow.resume_reading()
            self._wait("closing", LINGER_MS)
