"""POST /v1/events: a bare ASGI handler on the shortest path from bytes to the ingest room."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec
import structlog

from hubscope.access import Principal
from hubscope.entrypoints.problems import Answer, Fields, problem, respond
from hubscope.errors import (
    BodyTooLarge,
    DecodedTooLarge,
    HubscopeError,
    InvalidRequest,
    Overloaded,
    ShuttingDown,
    UnsupportedMediaType,
)
from hubscope.ingest import Ingest, Posted
from hubscope.instruments import Instruments
from hubscope.model import Receipt
from hubscope.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PATH: Final = "/v1/events"
log = structlog.get_logger("hubscope.ingest")


class MethodNotAllowed(HubscopeError):
    """Only POST is allowed here."""

    status = 405
    code = "method_not_allowed"


class _Gone(Exception):
    """The client hung up before its request was whole."""


class EventsEndpoint:
    """Reads a post within its limits, hands it to ingest, answers with the receipt.

    Args:
        ingest: the room that commits.
        settings: body limits.
        instruments: posts by status.
        identify: who posts; raises for strangers.
    """

    def __init__(
        self, ingest: Ingest, settings: Settings, instruments: Instruments, identify: Callable[[Scope], Principal]
    ) -> None:
        self._ingest = ingest
        self._settings = settings
        self._instruments = instruments
        self._identify = identify
        self._buffered = 0
        self._counted = instruments.posts.labels("200")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed
            headers = dict(scope["headers"])
            principal = self._identify(scope)
            self._ingest.check(principal)
            body = await self._body(headers, receive)
            receipt = await self._ingest.post(principal, body, _content_type(headers))
            answer = _taken(receipt)
        except _Gone:
            return
        except (Exception, asyncio.CancelledError) as error:  # the last line: whatever it was, the client is told
            answer = _refused(error)
        self._count(answer[0])
        await respond(send, *answer)

    def at_once(self, principal: Principal, scope: Scope, body: bytes, answer: Answer) -> bool:
        """Take a post whose sender is known and whose body is here without a task of its own; it is answered later.

        Returns:
            False: something about it needs a wait, so it is for `__call__`; nothing has happened.
        """
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity") != b"identity" or len(body) > self._settings.max_body_bytes:
            return False
        try:
            posted = self._ingest.posted(principal, body, _content_type(headers))
        except Exception as error:  # the last line, as above
            self._tell(_refused(error), answer)
        else:
            posted.stored.add_done_callback(lambda _: self._tell(_outcome(posted), answer))
        return True

    def _tell(self, told: tuple[int, Fields, bytes], answer: Answer) -> None:
        self._count(told[0])
        answer(*told)

    def _count(self, status: int) -> None:
        (self._counted if status == 200 else self._instruments.posts.labels(str(status))).inc()

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The body, unzipped, within HUBSCOPE_MAX_BODY_BYTES as sent and HUBSCOPE_MAX_DECODED_BYTES after."""
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b"gzip"):
            raise UnsupportedMediaType(
                f"Content-Encoding {encoding.decode('latin-1')!r} is not accepted; allowed: gzip, identity"
            )
        told = headers.get(b"content-length", b"0")
        size = int(told) if told.isdigit() else 0
        body = await self._received(receive) if size <= self._settings.max_body_bytes else None
        if body is None:
            raise BodyTooLarge(f"the body is larger than {self._settings.max_body_bytes} bytes", **self._limits())
        if encoding == b"identity":
            return body
        unzip = zlib.decompressobj(wbits=31)
        try:
            decoded = unzip.decompress(body, self._settings.max_decoded_bytes + 1)
        except zlib.error as error:
            raise InvalidRequest(f"the body is not valid gzip: {error}") from None
        if len(decoded) > self._settings.max_decoded_bytes:
            raise DecodedTooLarge(
                f"the unzipped body is larger than {self._settings.max_decoded_bytes} bytes", **self._limits()
            )
        if not unzip.eof:
            raise InvalidRequest("the gzip body is cut off")
        if unzip.unused_data:  # what is in there would be lost with a receipt that does not say so
            raise InvalidRequest("the gzip body goes on after its end; send one gzip member")
        return decoded

    def _limits(self) -> dict[str, int]:
        """What a client that sent too much may send."""
        return {
            "limit_body_bytes": self._settings.max_body_bytes,
            "limit_decoded_bytes": self._settings.max_decoded_bytes,
            "limit_events": self._settings.max_batch_events,
        }

    async def _received(self, receive: Receive) -> bytes | None:
        """The body as sent; None if it is too large.

        Raises:
            Overloaded: all bodies under way take more than HUBSCOPE_MAX_BUFFERED_BYTES together.
        """
        parts: list[bytes] = []
        size = 0
        try:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._buffered += len(part)
                if size > self._settings.max_body_bytes:
                    return None
                if self._buffered > self._settings.max_buffered_bytes:
                    raise Overloaded(
                        f"posts of more than {self._settings.max_buffered_bytes} bytes together are under way",
                        limit_buffered_bytes=self._settings.max_buffered_bytes,
                    )
                more = message.get("more_body", False)
        finally:
            self._buffered -= size
        return b"".join(parts)


def _content_type(headers: dict[bytes, bytes]) -> str:
    return headers.get(b"content-type", b"").decode("latin-1")


def _outcome(posted: Posted) -> tuple[int, Fields, bytes]:
    try:
        return _taken(posted.receipt())
    except Exception as error:  # the last line, as above
        return _refused(error)


def _taken(receipt: Receipt) -> tuple[int, Fields, bytes]:
    encoded = msgspec.json.encode(receipt)
    return 200, [(b"content-type", b"application/json"), (b"content-length", str(len(encoded)).encode())], encoded


def _refused(error: BaseException) -> tuple[int, Fields, bytes]:
    """What a client is told; nothing of ours is shown."""
    if isinstance(error, asyncio.CancelledError):  # the service stops and has waited long enough: nothing is promised
        error = ShuttingDown()
    elif not isinstance(error, HubscopeError):
        log.error("post failed", exc_info=error)
        error = HubscopeError()
    status, fields, encoded = problem(error)
    if isinstance(error, MethodNotAllowed):
        fields.append((b"allow", b"POST"))
    return status, fields, encoded
