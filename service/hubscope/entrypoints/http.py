"""Everything HTTP on one port: ingest and MCP by the shortest way, the rest through FastAPI."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from mcp.server.mcpserver import Context
from mcp.server.transport_security import TransportSecuritySettings
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

import hubscope
from hubscope.access import Principal
from hubscope.app import App
from hubscope.entrypoints import chains, federation, mcp, sql_service
from hubscope.entrypoints.admission import PRINCIPAL, Door, identify
from hubscope.entrypoints.events import PATH as EVENTS_PATH
from hubscope.entrypoints.events import EventsEndpoint, Receive, Scope, Send
from hubscope.entrypoints.health import health
from hubscope.entrypoints.problems import CONTENT_TYPE as PROBLEM_TYPE
from hubscope.entrypoints.problems import Answer, problem, problem_body, respond
from hubscope.entrypoints.stream import OPENAPI as STREAM_OPENAPI
from hubscope.entrypoints.stream import PATH as STREAM_PATH
from hubscope.entrypoints.stream import StreamEndpoint
from hubscope.entrypoints.traces import PATH as TRACES_PATH
from hubscope.entrypoints.traces import TracesEndpoint, refused
from hubscope.errors import HubscopeError, InvalidParameter, KeyRequired, ShuttingDown, Unavailable
from hubscope.ingest.otlp import JSON, PROTOBUF
from hubscope.insight import as_json
from hubscope.insight.analytics import TOP_DEFAULT, TOP_MAX
from hubscope.insight.window import FORMS, GroupBy
from hubscope.model import Event, Receipt

MCP_PATH: Final = "/mcp"


class Front:
    """The ASGI application, with a shorter way in for posts of events."""

    def __init__(
        self, answer: Callable[[Scope, Receive, Send], Awaitable[None]], door: Door, events: EventsEndpoint
    ) -> None:
        self._answer = answer
        self._door = door
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)

    def at_once(self, scope: Scope, body: bytes, answer: Answer) -> bool:
        """See `EventsEndpoint.at_once`. Whom the door does not know without a wait is for the application, too."""
        principal = self._door.known(scope)
        return principal is not None and self._events.at_once(principal, scope, body, answer)


@asynccontextmanager
async def asgi(app: App) -> AsyncIterator[Front]:
    """The ASGI application over an open app.

    Raises:
        InvalidSetting: of the scrape token or the SQL server's settings.
    """
    door = Door(app.keyring, app.settings)
    async with sql_service.mounted(app) as sql, _house(app, door, sql) as front:
        yield front


@asynccontextmanager
async def _house(app: App, door: Door, sql: sql_service.SqlService | None) -> AsyncIterator[Front]:
    meta_tools = mcp.build(app, _asking)
    # Keys, Host and Origin are checked in front of everything, once (`Door`), so the SDK need not do it again.
    mcp_app = meta_tools.streamable_http_app(
        streamable_http_path=MCP_PATH,
        stateless_http=True,
        # One JSON body where the answer comes at once; a stream where progress is told before it. Closing it cancels.
        json_response=False,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    events = EventsEndpoint(app.ingest, app.settings, app.instruments, identify)
    traces = TracesEndpoint(app.ingest, app.settings, app.instruments, identify)
    stream = StreamEndpoint(app.streams, door)
    rest = _rest(app, sql)

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        try:
            await door.admit(scope)
        except HubscopeError as error:
            app.instruments.refused.labels(error.code).inc()
            if path == EVENTS_PATH:
                app.instruments.posts.labels(str(error.status)).inc()
            if path == TRACES_PATH:
                app.instruments.exports.labels(str(error.status)).inc()
                await respond(send, *refused(scope, error))
            else:
                await respond(send, *problem(error))
            return
        if path == EVENTS_PATH:
            await events(scope, receive, send)
            return
        if path == TRACES_PATH:
            await traces(scope, receive, send)
            return
        if path == STREAM_PATH:
            await stream(scope, receive, send)
            return
        try:
            if path == sql_service.PATH and sql is not None:
                await sql.answer(scope, receive, send)
            else:
                await (mcp_app if path == MCP_PATH else rest)(scope, receive, send)
        except asyncio.CancelledError:  # the service stops and has waited long enough
            with contextlib.suppress(RuntimeError):  # the answer has begun: its end will be missing
                await respond(send, *problem(ShuttingDown()))

    async with meta_tools.session_manager.run():
        yield Front(front, door, events)


def _asking(context: Context[Any, Any]) -> Principal:
    """Who asks a tool: the HTTP request that this very call came with, whatever other calls are under way."""
    request = context.request_context.request
    if not isinstance(request, Request):
        raise KeyRequired
    return identify(request.scope)


def _rest(app: App, sql: sql_service.SqlService | None) -> FastAPI:
    api = FastAPI(
        title="hubscope",
        version=hubscope.__version__,
        description="Observability-centric analytics for MCP hubs. Errors are RFC 9457 problem JSON.",
    )

    def answer(error: HubscopeError) -> Response:
        status, headers, body = problem(error)
        named = {name.decode(): value.decode() for name, value in headers}
        return Response(body, status, headers=named)

    @api.exception_handler(HubscopeError)
    async def _known(_request: Request, error: HubscopeError) -> Response:
        return answer(error)

    @api.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer(InvalidParameter(f"{first['loc'][-1]}: {first['msg'][0].lower()}{first['msg'][1:]}"))

    @api.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        body = problem_body(error.status_code, "http", str(error.detail))
        return Response(json.dumps(body), error.status_code, error.headers, media_type=PROBLEM_TYPE)

    @api.get("/health", tags=["health"], summary="Is the service healthy? (503 when the database is away)")
    async def get_health(request: Request) -> Response:
        whole = PRINCIPAL in request.scope
        status, body = await health(app, whole=whole)
        if whole and sql is not None:
            body["sql"] = await sql.server.databases()
        return Response(json.dumps(body), status, media_type="application/json")

    @api.get("/livez", tags=["health"], summary="Does the process answer?")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @api.get("/readyz", tags=["health"], summary="Can it take events and answer questions?")
    async def readyz(request: Request) -> dict[str, str]:
        try:
            await app.check_ready()
            await app.keyring.live()  # keys that cannot be verified here would be refused
        except Unavailable as error:
            if PRINCIPAL in request.scope:
                raise
            raise Unavailable("not ready (this machine's /readyz and the log say why)") from error
        return {"status": "ready"}

    @api.get("/metrics", tags=["health"], summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        more = b"" if sql is None else await sql.server.metrics()
        return Response(await app.metrics() + more, media_type=CONTENT_TYPE_LATEST)

    @api.get("/api/v1/analytics", tags=["analytics"], summary="The REST twin of hub__analytics_advanced")
    async def analytics(
        request: Request,
        timeRange: Annotated[str, Query(description=f"How far back: {FORMS}.")] = "24 hours",
        includeRealTime: bool = True,
        groupBy: GroupBy = "hour",
        includeMetadata: bool = False,
        top: Annotated[int, Query(ge=1, le=TOP_MAX)] = TOP_DEFAULT,
    ) -> dict[str, Any]:
        report = await app.report(
            identify(request.scope),
            time_range=timeRange,
            group_by=groupBy,
            include_real_time=includeRealTime,
            include_metadata=includeMetadata,
            top=top,
        )
        return as_json(report)

    @api.get("/api/v1/integration-status", tags=["analytics"], summary="The REST twin of hub__integration_status")
    async def integration_status(request: Request) -> dict[str, Any]:
        return as_json(await app.status(identify(request.scope)))

    api.include_router(federation.routes(app.peers, app.settings))
    api.include_router(chains.routes(app.chains))

    api.openapi = _with_events(api.openapi)  # type: ignore[method-assign]
    return api


def _with_events(openapi: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """OpenAPI knows FastAPI's routes; what is served in front of it is described here."""

    def described() -> dict[str, Any]:
        document = openapi()
        if EVENTS_PATH in document["paths"]:
            return document
        (event, receipt), components = msgspec.json.schema_components(
            (Event, Receipt), ref_template="#/components/schemas/{name}"
        )
        document.setdefault("components", {}).setdefault("schemas", {}).update(components)
        wrapped = {
            "type": "object",
            "required": ["events"],
            "properties": {"events": {"type": "array", "items": event}},
        }
        array = {"type": "array", "items": event}
        document["paths"][EVENTS_PATH] = {
            "post": {
                "tags": ["ingest"],
                "summary": "Record events; 2xx means committed",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"oneOf": [array, wrapped]}},
                        "application/x-ndjson": {"schema": event},
                    },
                },
                "responses": {
                    "200": {
                        "description": "Committed; rejected events are listed.",
                        "content": {"application/json": {"schema": receipt}},
                    },
                    **{
                        status: {"description": text, "content": {"application/problem+json": {}}}
                        for status, text in (
                            ("400", "The body cannot be read. Permanent."),
                            ("401", "No API key, or one that will not do. Permanent."),
                            ("403", "The key lacks the scope ingest, or a foreign Host or Origin. Permanent."),
                            ("408", "The request did not arrive in time. Try again."),
                            ("413", "Over a limit; the limits are in the body. Permanent."),
                            ("415", "Not JSON, NDJSON or gzip. Permanent."),
                            ("429", "The tenant's share is used up: the same again after Retry-After seconds."),
                            ("503", "Try the same again after Retry-After seconds."),
                        )
                    },
                },
            }
        }
        document["paths"][TRACES_PATH] = {
            "post": {
                "tags": ["ingest"],
                "summary": "Record the tool calls of an OTLP export; 2xx means committed",
                "externalDocs": {"url": "https://opentelemetry.io/docs/specs/otlp/#otlphttp"},
                "requestBody": {
                    "required": True,
                    "description": "An ExportTraceServiceRequest.",
                    "content": {PROTOBUF: {}, JSON: {}},
                },
                "responses": {
                    status: {"description": text, "content": {PROTOBUF: {}, JSON: {}}}
                    for status, text in (
                        ("200", "Committed; an ExportTraceServiceResponse, with the number of rejected spans."),
                        ("400", "The body cannot be read. Permanent; a google.rpc.Status, as all below."),
                        ("413", "Over a limit. Permanent."),
                        ("415", "Not protobuf, JSON or gzip. Permanent."),
                        ("503", "Send the same again after Retry-After seconds."),
                    )
                },
            }
        }
        document["paths"][STREAM_PATH] = STREAM_OPENAPI
        return document

    return described
