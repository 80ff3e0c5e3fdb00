"""POST /v1/traces: OTLP over HTTP. The bare ASGI way of /v1/events, answered in the protocol's own terms.

Answers are of the request's kind, protobuf or JSON. 200 means committed, with the number of rejected spans where there
are any; other statuses carry a google.rpc.Status. Exporters send again after 429, 502, 503 and 504 and after no other.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from hubscope.entrypoints.events import EventsEndpoint, MethodNotAllowed, Receive, Scope, Send, _Gone
from hubscope.entrypoints.problems import problem, respond
from hubscope.errors import HubscopeError, ShuttingDown
from hubscope.ingest.otlp import JSON, PROTOBUF, media_type
from hubscope.ingest.spans import SpanReceipt

PATH: Final = "/v1/traces"
log = structlog.get_logger("hubscope.ingest")

_RPC_CODES: Final = {400: 3, 401: 16, 403: 7, 405: 12, 408: 4, 413: 3, 415: 3, 429: 8, 503: 14}
"""HTTP status -> code of google.rpc.Status; 13 (internal) for all others."""


class TracesEndpoint(EventsEndpoint):
    """Reads an export within the limits of /v1/events, hands it to ingest, answers in kind."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        content_type, kind = _kind(headers)
        status, extra = 200, []
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed
            principal = self._identify(scope)
            self._ingest.check(principal)
            body = await self._body(headers, receive)
            encoded = _answer(await self._ingest.spans(principal, body, content_type), kind)
        except _Gone:
            return
        except HubscopeError as error:
            status, encoded, extra = error.status, _problem(error, kind), _more(error)
            if isinstance(error, MethodNotAllowed):
                extra.append((b"allow", b"POST"))
        except asyncio.CancelledError:  # the service stops and has waited long enough: nothing is promised
            stopping = ShuttingDown()
            status, encoded, extra = stopping.status, _problem(stopping, kind), _more(stopping)
        except Exception:  # the last line: whatever it was, the client is told, and nothing of ours is shown
            log.exception("export failed")
            status, encoded = 500, _problem(HubscopeError(), kind)
        self._instruments.exports.labels(str(status)).inc()
        answer = [(b"content-type", kind.encode()), (b"content-length", str(len(encoded)).encode()), *extra]
        await respond(send, status, answer, encoded)


def refused(scope: Scope, error: HubscopeError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body for an export that was not let in, in the kind of the request."""
    _, kind = _kind(dict(scope["headers"]))
    _, headers, _ = problem(error)
    challenge = [(name, value) for name, value in headers if name in (b"www-authenticate", b"retry-after")]
    body = _problem(error, kind)
    return (
        error.status,
        [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), *challenge],
        body,
    )


def _kind(headers: dict[bytes, bytes]) -> tuple[str, str]:
    """The Content-Type as sent, and the kind of the answer: protobuf or JSON."""
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    return content_type, PROTOBUF if media_type(content_type) == PROTOBUF else JSON


def _more(error: HubscopeError) -> list[tuple[bytes, bytes]]:
    if error.retry_after_seconds is None:
        return []
    return [(b"retry-after", str(error.retry_after_seconds).encode())]


def _answer(receipt: SpanReceipt, kind: str) -> bytes:
    """An ExportTraceServiceResponse; without a partial success when every span was taken or ignored."""
    count = len(receipt.rejected)
    if kind == JSON:
        partial = {"rejectedSpans": str(count), "errorMessage": receipt.reasons}
        return msgspec.json.encode({"partialSuccess": partial} if count else {})
    response = ExportTraceServiceResponse()
    if count:
        response.partial_success.rejected_spans = count
        response.partial_success.error_message = receipt.reasons
    return bytes(response.SerializeToString())


def _problem(error: HubscopeError, kind: str) -> bytes:
    """A google.rpc.Status: `int32 code = 1; string message = 2;`."""
    code = _RPC_CODES.get(error.status, 13)
    if kind == JSON:
        return msgspec.json.encode({"code": code, "message": error.detail})
    message = error.detail.encode()
    return bytes((0x08, code, 0x12)) + _varint(len(message)) + message


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
