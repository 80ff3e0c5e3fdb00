"""/api/v1/federation: registered MCP servers over REST, in the shapes that clients of that API know.

Reading asks for the scope `read`, invoking and broadcasting for `chains` alone, changing the registry for `admin`
beside `read`. The door (admission.py) asks for what the path tells, the routes here for the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from fastapi import APIRouter, Request, Response

from hubscope.access import Principal, require
from hubscope.access import Scope as Right
from hubscope.entrypoints.admission import identify
from hubscope.errors import BodyTooLarge, InvalidParameter, InvalidRequest, ShuttingDown
from hubscope.peers import Federation, Invocation
from hubscope.peers.registry import STATUS_OF
from hubscope.settings import Settings

PREFIX: Final = "/api/v1/federation"
LONGEST_WINDOW_DAYS: Final = 366
T = TypeVar("T")

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": text, "content": {"application/problem+json": {}}}
    for status, text in (
        (400, "A field will not do; the problem names it."),
        (404, "There is no such server."),
        (502, "The upstream server could not be reached, or broke off."),
        (504, "The upstream server did not answer in time."),
    )
}


def routes(peers: Federation, settings: Settings) -> APIRouter:
    """The routes over an open federation."""
    api = APIRouter(prefix=PREFIX, tags=["federation"], responses=ERRORS)

    def answer(body: Any, status: int = 200) -> Response:
        return Response(msgspec.json.encode(body), status, media_type="application/json")

    def asks(request: Request, right: Right) -> Principal:
        principal = identify(request.scope)
        require(principal, right)
        return principal

    async def body_of(request: Request) -> dict[str, Any]:
        """The JSON object of a request, within HUBSCOPE_PEER_MAX_REQUEST_BYTES."""
        most = settings.peer_max_request_bytes
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise BodyTooLarge(
                    f"the body is larger than {most} bytes (HUBSCOPE_PEER_MAX_REQUEST_BYTES)", limit_body_bytes=most
                )
            parts.append(part)
        try:
            body = msgspec.json.decode(b"".join(parts))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None
        if not isinstance(body, dict):
            raise InvalidRequest("the body is not a JSON object")
        return body

    @api.get("/servers", summary="The registered servers")
    async def list_servers(request: Request) -> Response:
        servers = await peers.servers(asks(request, Right.READ))
        return answer({"servers": [one.shown() for one in servers], "total": len(servers)})

    @api.post("/servers", status_code=201, summary="Register a server (scope admin)")
    async def register(request: Request) -> Response:
        principal = asks(request, Right.ADMIN)
        one = await peers.register(principal, await body_of(request))
        shown = {
            "message": "Server registered successfully",
            "server_id": one.registration.id,
            "server": one.shown(),
        }
        return answer(shown, 201)

    @api.get("/servers/{server_id}", summary="One server")
    async def get_server(request: Request, server_id: str) -> Response:
        return answer((await peers.server(asks(request, Right.READ), server_id)).shown())

    @api.delete("/servers/{server_id}", summary="Take a server out (scope admin)")
    async def unregister(request: Request, server_id: str) -> Response:
        await peers.unregister(asks(request, Right.ADMIN), server_id)
        return answer({"message": "Server unregistered successfully", "server_id": server_id})

    @api.post("/servers/{server_id}/invoke", summary="Call a tool, or send an MCP request (scope chains)")
    async def invoke(request: Request, server_id: str) -> Response:
        principal = asks(request, Right.CHAINS)
        wanted = Invocation.of(await body_of(request), settings.peer_max_timeout_ms / 1000)
        done = await _unless_gone(request, peers.invoke(principal, server_id, wanted))
        return answer(done.shown())

    @api.post("/broadcast", summary="Send an MCP request to every server that is up (scope chains)")
    async def broadcast(request: Request) -> Response:
        principal = asks(request, Right.CHAINS)
        wanted = Invocation.of(await body_of(request), settings.peer_max_timeout_ms / 1000)
        done = await _unless_gone(request, peers.broadcast(principal, wanted))
        return answer({"request_id": wanted.id, "responses": [one.shown() for one in done], "total": len(done)})

    @api.get("/servers/{server_id}/health", summary="How a server is (503 when it is not healthy)")
    async def server_health(request: Request, server_id: str) -> Response:
        one, error = await peers.health(asks(request, Right.READ), server_id)
        status = STATUS_OF[one.state]
        shown = {
            "server_id": server_id,
            "status": status,
            "timestamp": datetime.now(UTC),
            "error": error,
            "health": one.shown()["health"],
        }
        return answer(shown, 503 if status == "unhealthy" else 200)

    @api.get("/health", summary="How every server is")
    async def health(request: Request) -> Response:
        servers = await peers.servers(asks(request, Right.READ))
        shown = {
            "status": {one.registration.id: STATUS_OF[one.state] for one in servers},
            "states": {one.registration.id: one.state for one in servers},
            "timestamp": datetime.now(UTC),
        }
        return answer(shown)

    @api.get("/metrics", summary="What this process did for the tenant, since it was started")
    async def metrics(request: Request) -> Response:
        return answer(await peers.metrics(asks(request, Right.READ)))

    @api.get("/categories/{category}/servers", summary="The servers of a category")
    async def of_category(request: Request, category: str) -> Response:
        servers = await peers.servers(asks(request, Right.READ), category=category)
        shown = [one.shown() for one in servers]
        return answer({"category": category, "servers": shown, "total": len(shown)})

    @api.get("/maintenance", summary="Maintenance windows that are open or to come; all=true: the others, too")
    async def windows(request: Request, server: str | None = None, all: bool = False) -> Response:
        found = await peers.windows(asks(request, Right.READ), server, every=all)
        return answer({"windows": [one.shown() for one in found], "total": len(found)})

    @api.post("/servers/{server_id}/maintenance", status_code=201, summary="Plan a maintenance window (scope admin)")
    async def plan(request: Request, server_id: str) -> Response:
        principal = asks(request, Right.ADMIN)
        body = await body_of(request)
        starts_at, ends_at, reason = _window(body)
        window_id = await peers.plan_window(principal, server_id, starts_at=starts_at, ends_at=ends_at, reason=reason)
        shown = {"id": str(window_id), "server_id": server_id, "from": starts_at, "until": ends_at, "reason": reason}
        return answer(shown, 201)

    @api.delete("/servers/{server_id}/maintenance/{window_id}", summary="End a window, or call it off (scope admin)")
    async def cancel(request: Request, server_id: str, window_id: UUID) -> Response:
        await peers.cancel_window(asks(request, Right.ADMIN), server_id, window_id)
        return answer({"message": "Maintenance window cancelled", "id": str(window_id), "server_id": server_id})

    return api


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The work's result; a client that hangs up cancels it, and with it what runs upstream."""
    task = asyncio.ensure_future(work)
    watch = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            raise ShuttingDown("the client has hung up")  # nobody reads this
        return task.result()
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _window(body: dict[str, Any]) -> tuple[datetime, datetime, str]:
    unknown = sorted(body.keys() - {"from", "until", "reason"})
    if unknown:
        raise InvalidParameter(f"{unknown[0][:80]!r} is no field of a window (allowed: from, until, reason)")
    starts_at = _time(body.get("from"), "from") if body.get("from") is not None else datetime.now(UTC)
    return check_window(starts_at, _time(body.get("until"), "until"), body.get("reason") or "")


def check_window(starts_at: datetime, ends_at: datetime, reason: Any) -> tuple[datetime, datetime, str]:
    """A window that makes sense.

    Raises:
        InvalidParameter.
    """
    if not starts_at < ends_at:
        raise InvalidParameter("until: after from")
    if ends_at <= datetime.now(UTC):
        raise InvalidParameter("until: in the future; what is over cannot be planned")
    if (ends_at - starts_at).days > LONGEST_WINDOW_DAYS:
        raise InvalidParameter(f"until: at most {LONGEST_WINDOW_DAYS} days after from")
    if not isinstance(reason, str) or len(reason) > 500 or "\0" in reason:
        raise InvalidParameter("reason: a text of at most 500 characters")
    return starts_at, ends_at, reason


def _time(value: Any, field: str) -> datetime:
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError
    except (TypeError, ValueError):
        raise InvalidParameter(f"{field}: a time with a zone, such as 2026-11-22T02:00:00Z") from None
    return at
