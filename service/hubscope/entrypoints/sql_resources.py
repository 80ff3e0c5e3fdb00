"""What there is in the databases as MCP resources: postgres://table|schema|function/..., with completion.

Of several databases, those of the default have these addresses; every one has postgres://<database>/table/... .
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import asdict
from functools import partial
from typing import Any, Final
from urllib.parse import quote, unquote

from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import Completion, CompletionArgument, CompletionContext, Resource, ResourceTemplateReference
from opentelemetry import trace

from hubscope.entrypoints.sql_server import Caller, SqlServer
from hubscope.entrypoints.stdio import serve_stdio
from hubscope.errors import HubscopeError
from hubscope.sqlgate import Gate
from hubscope.sqlgate.catalogue import describe_table, list_functions, list_tables

JSON: Final = "application/json"
SCHEME: Final = "postgres://"
MOST_LISTED: Final = 500
MOST_COMPLETED: Final = 100
_INVALID_PARAMS: Final = -32602

_SPANS: Final = "mcp.server._otel"

_ASKING: ContextVar[Caller] = ContextVar("asking")


class SpansIfTaken:
    """The SDK's spans, where a tracer provider is there to take them.

    To make them for nobody takes 2 to 5 % of a query. Looked at in each call: a provider may be set later.

    Args:
        spans: the SDK's middleware.
    """

    def __init__(self, spans: Any) -> None:
        self._spans = spans

    async def __call__(self, ctx: Any, call_next: Any) -> Any:
        """Answer, inside a span or not."""
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return await call_next(ctx)
        return await self._spans(ctx, call_next)


class SqlMcpServer(MCPServer[Any]):
    """An MCP server whose list of resources is read from the databases each time."""

    sql_server: SqlServer

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        chain = self._lowlevel_server.middleware
        chain[:] = [SpansIfTaken(each) if type(each).__module__ == _SPANS else each for each in chain]

    async def _handle_list_resources(self, ctx: Any, params: Any) -> Any:
        """The SDK asks without saying who asks; the audit wants to know."""
        _ASKING.set(Caller.of(Context(request_context=ctx, mcp_server=self)))
        return await super()._handle_list_resources(ctx, params)

    async def run_stdio_async(self) -> None:
        """Serve over standard input and output; without threads where they are pipes."""
        if not await serve_stdio(self._lowlevel_server):
            await super().run_stdio_async()

    async def list_resources(self) -> list[Resource]:
        """Schemas, tables and functions that are served; nothing of a database that is away."""
        found: list[Resource] = []
        for database in self.sql_server.gates:
            of = partial(self._of, _start(self.sql_server, database))
            try:
                found += await self.sql_server.call("list_resources", _ASKING.get(Caller()), database, {}, of)
            except ToolError:
                continue
        return found[:MOST_LISTED]

    async def _of(self, start: str, gate: Gate) -> list[Resource]:
        tables = await list_tables(gate, None)
        functions = await list_functions(gate, None)
        found = [_resource(start, "schema", schema) for schema in tables.schemas]
        found += [_resource(start, "table", table.schema_name, table.name, table.comment) for table in tables.tables]
        names = sorted({(function.schema_name, function.name) for function in functions})
        return found + [_resource(start, "function", *name) for name in names]


def _start(sql_server: SqlServer, database: str) -> str:
    """How the addresses of a database begin in lists."""
    return SCHEME if database == sql_server.default else f"{SCHEME}{database}/"


def _resource(start: str, kind: str, schema: str, name: str | None = None, comment: str | None = None) -> Resource:
    path = quote(schema, safe="") + (f"/{quote(name, safe='')}" if name is not None else "")
    return Resource(
        uri=f"{start}{kind}/{path}",
        name=schema if name is None else f"{schema}.{name}",
        title=f"{kind} {schema if name is None else name}",
        description=comment,
        mime_type=JSON,
    )


def add_resources(server: SqlMcpServer, sql_server: SqlServer) -> None:
    """Three templates for each way to address a database, and their completion."""
    server.sql_server = sql_server
    starts = {SCHEME: sql_server.default}
    if len(sql_server.gates) > 1:
        starts |= {f"{SCHEME}{name}/": name for name in sql_server.gates}
    for start, database in starts.items():
        _add_templates(server, sql_server, start, database)

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(ref: Any, argument: CompletionArgument, context: CompletionContext | None) -> Completion | None:
        if not isinstance(ref, ResourceTemplateReference):
            return None
        place = ref.uri.removeprefix(SCHEME).partition("/")[0]
        gate = sql_server.gates.get(place, sql_server.gates[sql_server.default])
        try:
            names = await _names(gate, argument.name, (context.arguments if context else None) or {})
        except HubscopeError:
            names = []
        fitting = sorted({name for name in names if name.startswith(argument.value)})
        return Completion(values=fitting[:MOST_COMPLETED], total=len(fitting), has_more=len(fitting) > MOST_COMPLETED)


def _add_templates(server: SqlMcpServer, sql_server: SqlServer, start: str, database: str) -> None:
    of = "" if start == SCHEME else f" of {database}"

    async def read(context: Context[Any], uri: str, answer: Callable[[Gate], Awaitable[Any]]) -> str:
        try:
            found = await sql_server.call("read_resource", Caller.of(context), database, {"uri": uri}, answer)
        except ToolError as error:
            raise MCPError(code=_INVALID_PARAMS, message=str(error)) from error
        return json.dumps(found, ensure_ascii=False, separators=(",", ":"))

    @server.resource(
        start + "table/{schema_name}/{table_name}",
        name=f"table{of}",
        title=f"Table{of}",
        description="Columns, keys, indexes, partitions and statistics of a table or view.",
        mime_type=JSON,
    )
    async def table(schema_name: str, table_name: str, context: Context[Any]) -> str:
        async def answer(gate: Gate) -> Any:
            return asdict(await describe_table(gate, unquote(table_name), unquote(schema_name)))

        return await read(context, f"{start}table/{schema_name}/{table_name}", answer)

    @server.resource(
        start + "schema/{schema_name}",
        name=f"schema{of}",
        title=f"Schema{of}",
        description="Tables, views and functions of a schema.",
        mime_type=JSON,
    )
    async def schema(schema_name: str, context: Context[Any]) -> str:
        async def answer(gate: Gate) -> Any:
            tables = await list_tables(gate, unquote(schema_name))
            functions = await list_functions(gate, unquote(schema_name))
            return asdict(tables) | {"functions": [asdict(function) for function in functions]}

        return await read(context, f"{start}schema/{schema_name}", answer)

    @server.resource(
        start + "function/{schema_name}/{function_name}",
        name=f"function{of}",
        title=f"Function{of}",
        description="Arguments, result and properties of a function, one entry for each overload. Not its source.",
        mime_type=JSON,
    )
    async def function(schema_name: str, function_name: str, context: Context[Any]) -> str:
        async def answer(gate: Gate) -> Any:
            found = await list_functions(gate, unquote(schema_name), unquote(function_name))
            return [asdict(each) for each in found]

        return await read(context, f"{start}function/{schema_name}/{function_name}", answer)


async def _names(gate: Gate, argument: str, given: dict[str, str]) -> list[str]:
    if argument == "schema_name":
        return (await list_tables(gate, None)).schemas
    schema = given.get("schema_name")
    if argument == "table_name":
        return [table.name for table in (await list_tables(gate, schema)).tables]
    if argument == "function_name":
        return [function.name for function in await list_functions(gate, schema)]
    return []
