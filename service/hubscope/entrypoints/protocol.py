"""uvicorn's HTTP protocol with the limits that it lacks: deadlines, sizes, and a strict reading of the head.

uvicorn waits for the rest of a request as long as its client likes, keeps header fields without bound, and takes
trailers for headers. Here each connection has one moment by which something must have happened (`due`); a sweep over
all of them closes those that are late, so a request costs two assignments and no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import httptools
import structlog
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from hubscope.entrypoints.events import PATH
from hubscope.entrypoints.problems import Answer, Fields, problem
from hubscope.errors import HubscopeError, InvalidRequest, Overloaded
from hubscope.instruments import Instruments
from hubscope.settings import Settings

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope

log = structlog.get_logger("hubscope.http")

LINGER_MS: Final = 1_000
"""How long a refused client may go on sending before its connection is reset."""
ABORT: Final = "hubscope.abort"
"""In the ASGI scope: ends the connection at once, whatever waits in it."""
SHORT_POSTS: Final = PATH.encode()
SHORT_POST_BYTES: Final = 16 * 1024
"""Posts of events no longer than this that come in one piece are taken without a task of their own."""
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


AtOnce = Callable[[Any, bytes, Answer], bool]
"""Takes a request with its body and answers it later; False where it does not, and nothing has happened."""


def hardened(settings: Settings, instruments: Instruments, at_once: AtOnce) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn.Config(http=...), with the limits of these settings.

    Args:
        at_once: is asked about short posts of events before the application is, which needs a task for each.
    """

    class Protocol(_Protocol):
        limits = settings
        cut = staticmethod(lambda reason: instruments.connections_cut.labels(reason).inc())
        ask = staticmethod(at_once)

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


class _Cycle(RequestResponseCycle):
    """A request and its answer, which goes out in one piece where it is whole.

    uvicorn sends the head by itself: a second system call, and a fifth of what a small post costs.
    """

    _head: MutableMapping[str, Any] | None = None

    async def send(self, message: MutableMapping[str, Any]) -> None:  # type: ignore[override]
        head = self._head
        if head is None:
            if (
                not self.response_started
                and message["type"] == "http.response.start"
                and _is_whole(message, self.scope)
            ):
                self._head, self.response_started = message, True
                return
            await super().send(message)  # type: ignore[arg-type]
            return
        self._head = None
        body = message.get("body", b"")
        whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not whole or len(body) != int(dict(head["headers"])[b"content-length"]):
            self.response_started = False
            await super().send(head)  # type: ignore[arg-type]
            await super().send(message)  # type: ignore[arg-type]
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        self.answer(head["status"], head["headers"], body)

    def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """Send a whole answer, whose length its fields tell."""
        if self.disconnected:
            return
        self.response_started = True
        self.waiting_for_100_continue = False
        headers = [*self.default_headers, *fields]
        if (b"connection", b"close") in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
            raise RuntimeError("a header field of an answer holds a line end")
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], lines, body))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _is_whole(start: MutableMapping[str, Any], scope: HTTPScope) -> bool:
    """Whether the head says how long its body is, so that both may go out together."""
    return scope["method"] != "HEAD" and any(name == b"content-length" for name, _ in start.get("headers", ()))


class _Protocol(HttpToolsProtocol):
    limits: Settings
    cut: Callable[[str], None]
    ask: AtOnce
    cycle: _Cycle

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._phase = "head"
        self._due: float | None = None
        self._write_due: float | None = None
        self._head_bytes = 0
        self._field_bytes = 0
        self._begun_inside = False
        self._refused = False
        self._length: int | None = None
        self._held = False

    # Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
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
        if self._held:  # the rest of it is still to come, and may never: that is the application's to wait for
            self._held = False
            self._start_asgi_task(self.cycle, self.app)
        if self._phase == "head" and not self._refused and not self._begun_inside:
            # Inside a field that does not end, the parser has told us nothing yet.
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.max_header_bytes:
                self._refuse(HeadTooLarge(limit_bytes=self.limits.max_header_bytes), "head")

    def connection_lost(self, exc: Exception | None) -> None:
        self._due = self._write_due = None
        super().connection_lost(exc)

    # Parser

    # Written out rather than handed on to uvicorn's: each is called for every request or field.

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._field_bytes = 0
        if self._phase != "head":  # pipelined behind another one
            self._begun_inside = True
            self._head_bytes = 0
            self._wait("head", self.limits.header_timeout_ms)

    def on_url(self, url: bytes) -> None:
        self.url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + PER_FIELD_BYTES)
        if self._phase == "body":  # a trailer: it must not pass for a header that a proxy in front has looked at
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

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
        self._begin()

    def _begin(self) -> None:
        """What uvicorn does when a head is complete, with a cycle of ours and without what is switched off."""
        version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.scope = {  # type: ignore[typeddict-unknown-key]  # ABORT is ours
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": self.parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self.headers,
            "state": {},
            ABORT: self.transport.abort,
        }
        before = self.cycle
        self.cycle = _Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._held = self._is_short()
            if not self._held:
                self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _is_short(self) -> bool:
        """Whether this is a post of events that may have come in one piece."""
        return (
            self._length is not None
            and self._length <= SHORT_POST_BYTES
            and self.url == SHORT_POSTS
            and self.scope["method"] == "POST"
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
        )

    def _doubt(self) -> str | None:
        """What the parser lets pass although a proxy in front may read it another way (request smuggling)."""
        version = self.parser.get_http_version()
        if not self.url.startswith((b"/", b"*")):
            return "the request target must be a path"
        hosts = 0
        self._length = None
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                self._length = int(value) if value.isdigit() else None
            elif name == b"transfer-encoding" and (version != "1.1" or value.strip().lower() != b"chunked"):
                return "the only Transfer-Encoding that is taken is chunked, in HTTP/1.1"
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            return "the header 'host' must be there once"
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
        cycle = self.cycle
        if self._refused or cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._refused:
            return
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            if not self._held:
                cycle.message_event.set()
            else:
                self._held = False
                if not self.ask(self.scope, bytes(cycle.body), cycle.answer):
                    cycle.message_event.set()
                    self._start_asgi_task(cycle, self.app)
        self._rest()

    def on_response_complete(self) -> None:
        """As uvicorn's, without its timer for idle connections: the sweep looks after them."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
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
