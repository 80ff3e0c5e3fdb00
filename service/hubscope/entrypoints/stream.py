"""GET /api/v1/stream: live updates as server-sent events (WHATWG HTML, 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import structlog
from sse_starlette import EventSourceResponse

from hubscope.access import Principal, require
from hubscope.access import Scope as Right
from hubscope.entrypoints.admission import Door, identify
from hubscope.entrypoints.events import MethodNotAllowed, Receive, Scope, Send
from hubscope.entrypoints.problems import problem, respond
from hubscope.entrypoints.protocol import ABORT
from hubscope.errors import HubscopeError, InvalidParameter, ShuttingDown, Unavailable
from hubscope.journal import FILTERS, TOPICS, Streams, Topic, Wanted

PATH: Final = "/api/v1/stream"
TOPIC_RIGHTS: Final[Mapping[Topic, Right]] = {
    "chain": Right.CHAINS,
    "metadata": Right.READ,
    "audit": Right.ADMIN,
    "health": Right.READ,
    "analytics": Right.READ,
}
"""What a topic asks for beside `read`, which the path does."""
PARAMETERS: Final = ("topics", "server", "chain", "name", "lastEventId")
LONGEST_VALUE: Final = 200
MOST_VALUES: Final = 50
LARGEST_SEQ: Final = 2**63 - 1
HEADERS: Final = {"Cache-Control": "no-store, no-transform"}

log = structlog.get_logger("hubscope.stream")

OPENAPI: Final[dict[str, Any]] = {
    "get": {
        "tags": ["stream"],
        "summary": "Live updates as server-sent events",
        "parameters": [
            {
                "name": "topics",
                "in": "query",
                "description": "Which topics, separated by commas. Without: all that the key may read.",
                "schema": {"type": "array", "items": {"type": "string", "enum": list(TOPICS)}},
                "style": "form",
                "explode": False,
            },
            *(
                {
                    "name": name,
                    "in": "query",
                    "description": f"Only events of this {name}; may be repeated. For the topics"
                    f" {', '.join(sorted(FILTERS[name]))}.",
                    "schema": {"type": "array", "items": {"type": "string", "maxLength": LONGEST_VALUE}},
                }
                for name in FILTERS
            ),
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "Go on after this number. `lastEventId` in the query is the same; the header wins.",
                "schema": {"type": "integer", "minimum": 0},
            },
        ],
        "responses": {
            "200": {"description": "Events, until one of the two ends it.", "content": {"text/event-stream": {}}},
            **{
                status: {"description": text, "content": {"application/problem+json": {}}}
                for status, text in (
                    ("400", "A parameter will not do; the problem names it."),
                    ("403", "The key lacks the scope of a topic that was named."),
                    ("429", "The tenant has as many streams as it may: again after Retry-After seconds."),
                    ("503", "As many streams as there may be, or no database: again after Retry-After seconds."),
                )
            },
        },
    }
}


class StreamEndpoint:
    """Checks what is asked for, and sends what is told.

    Args:
        streams: the live updates.
        door: asked again with each heartbeat, so that a stream does not outlive its key.
    """

    def __init__(self, streams: Streams, door: Door) -> None:
        self._streams = streams
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            if scope["method"] != "GET":
                raise MethodNotAllowed("only GET is allowed here")
            principal = identify(scope)
            asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            wanted, after = wanted_of(principal, asked), last_event_id(scope["headers"], asked)
            async with self._streams.opened(
                principal.tenant, wanted, after=after, cut=scope.get(ABORT, lambda: None)
            ) as stream:
                response = EventSourceResponse(
                    self._streams.chunks(stream, lambda: self._still(scope)),
                    headers=HEADERS,
                    ping=0,  # heartbeats carry the position, so they come in order with the events
                )
                try:
                    await response(scope, receive, sending)
                except asyncio.CancelledError:  # the service stops and has waited long enough
                    stream.ended = "shutdown"
                    raise
                except Exception:
                    stream.ended = "error"
                    log.exception("a stream broke")
                    raise
        except HubscopeError as error:
            await _refuse(send, error)
        except asyncio.CancelledError:
            if not begun:
                await _refuse(send, ShuttingDown())
        except Exception:  # the last line: nothing of ours is shown
            if not begun:
                log.exception("a stream could not be opened")
                await _refuse(send, HubscopeError())

    async def _still(self, scope: Scope) -> bool:
        """Whether the key still opens the door."""
        try:
            await self._door.admit(scope)
        except Unavailable:  # nobody can tell now
            return True
        except HubscopeError:
            return False
        return True


def wanted_of(principal: Principal, asked: list[tuple[str, str]]) -> Wanted:
    """What a request asks for.

    Raises:
        InvalidParameter: naming the parameter and what is allowed.
        ScopeMissing: a topic that was named, or all that the filters leave, asks for more than the key has.
    """
    given: dict[str, list[str]] = {}
    for name, value in asked:
        if name not in PARAMETERS:
            raise InvalidParameter(f"{name[:80]!r} is no parameter (allowed: {', '.join(PARAMETERS)})")
        given.setdefault(name, []).append(value)
    filters = {name: _values(name, given[name]) for name in FILTERS if name in given}
    fitting = [topic for topic in TOPICS if all(topic in FILTERS[name] for name in filters)]
    if "topics" in given:
        topics = [topic for value in given["topics"] for topic in value.split(",")]
        for topic in topics:
            if topic not in TOPICS:
                raise InvalidParameter(f"topics: {topic[:80]!r} is no topic (allowed: {', '.join(TOPICS)})")
            for name in filters:
                if topic not in FILTERS[name]:
                    raise InvalidParameter(
                        f"{name}: events of the topic {topic} have none (it filters {', '.join(sorted(FILTERS[name]))})"
                    )
            require(principal, TOPIC_RIGHTS[cast(Topic, topic)])
    else:
        topics = [topic for topic in fitting if TOPIC_RIGHTS[topic] in principal.scopes]
        if not topics:
            require(principal, TOPIC_RIGHTS[fitting[0]])
    return Wanted(
        frozenset(cast(list[Topic], topics)),
        servers=filters.get("server", frozenset()),
        chains=filters.get("chain", frozenset()),
        names=filters.get("name", frozenset()),
    )


def _values(name: str, values: list[str]) -> frozenset[str]:
    if len(values) > MOST_VALUES:
        raise InvalidParameter(f"{name}: at most {MOST_VALUES} of them")
    for value in values:
        if not 0 < len(value) <= LONGEST_VALUE:
            raise InvalidParameter(f"{name}: 1 to {LONGEST_VALUE} characters")
    return frozenset(values)


def last_event_id(headers: list[tuple[bytes, bytes]], asked: list[tuple[str, str]]) -> int | None:
    """The number after which to go on; None begins with what comes next.

    The header wins: a browser that reconnects sends it beside the address that it was first given.

    Raises:
        InvalidParameter.
    """
    told = [("Last-Event-ID", value.decode("latin-1")) for name, value in headers if name == b"last-event-id"]
    told += [(name, value) for name, value in asked if name == "lastEventId"]
    for name, value in told:
        if value == "":  # what a browser has before the first event
            continue
        if not (value.isascii() and value.isdigit()) or int(value[:20]) > LARGEST_SEQ or len(value) > 19:
            raise InvalidParameter(f"{name}: a whole number from 0 on, as it came in the id of an event")
        return int(value)
    return None


async def _refuse(send: Send, error: HubscopeError) -> None:
    status, headers, body = problem(error)
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", b"GET"))
    await respond(send, status, headers, body)
