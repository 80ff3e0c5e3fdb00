"""Answers on the wire in one piece, and errors as such: RFC 9457 problem JSON, from the one error tree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

import msgspec

from hubscope.errors import HubscopeError, ScopeMissing

CONTENT_TYPE = "application/problem+json"
Fields = list[tuple[bytes, bytes]]
Answer = Callable[[int, Fields, bytes], None]
"""Sends a whole answer: status, header fields with its length, body."""


def problem(error: HubscopeError) -> tuple[int, Fields, bytes]:
    """Status, headers and body of an error. Retry-After is in seconds."""
    body = msgspec.json.encode(problem_body(error.status, error.code, error.detail) | error.context)
    headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
    if isinstance(error, ScopeMissing):
        headers.append((b"www-authenticate", f'Bearer error="insufficient_scope", scope="{error.scope}"'.encode()))
    elif error.challenge is not None:
        headers.append((b"www-authenticate", error.challenge.encode()))
    return error.status, headers, body


async def respond(
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    status: int,
    headers: Fields,
    body: bytes,
) -> None:
    """Send a whole answer over ASGI."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def problem_body(status: int, code: str, detail: str) -> dict[str, Any]:
    """The members that every problem has."""
    return {
        "type": f"urn:hubscope:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
