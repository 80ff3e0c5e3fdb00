"""What there is in the database as MCP resources: postgres://table|schema|function/..., with completion."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import quote, unquote

from mcp import MCPError
from mcp.server.mcpserver import MCPServer
from mcp_types import Completion, CompletionArgument, CompletionContext, Resource, ResourceTemplateReference

from hubscope.entrypoints.stdio import serve_stdio
from hubscope.errors import HubscopeError
from hubscope.sqlgate import Gate
from hubscope.sqlgate.catalogue import describe_table, list_functions, list_tables

JSON: Final = "application/json"
MOST_LISTED: Final = 500
MOST_COMPLETED: Final = 100
_INVALID_PARAMS: Final = -32602


class SqlMcpServer(MCPServer[Any]):
    """An MCP server whose list of resources is read from the database each time."""

    gate: Gate

    async def run_stdio_async(self) -> None:
        """Serve over standard input and output; without threads where they are pipes."""
        if not await serve_stdio(self._lowlevel_server):
            await super().run_stdio_async()

    async def list_resources(self) -> list[Resource]:
        """Schemas, tables and functions that are served; nothing while the database is away."""
        try:
            tables = await list_tables(self.gate, None)
            functions = await list_functions(self.gate, None)
        except HubscopeError:
            return []
        found = [_resource("schema", schema) for schema in tables.schemas]
        found += [_resource("table", table.schema_name, table.name, table.comment) for table in tables.tables]
        names = sorted({(function.schema_name, function.name) for function in functions})
        found += [_resource("function", *name) for name in names]
        return found[:MOST_LISTED]


def _resource(kind: str, schema: str, name: str | None = None, comment: str | None = None) -> Resource:
    path = quote(schema, safe="") + (f"/{quote(name, safe='')}" if name is not None else "")
    return Resource(
        uri=f"postgres://{kind}/{path}",
        name=schema if name is None else f"{schema}.{name}",
        title=f"{kind} {schema if name is None else name}",
        description=comment,
        mime_type=JSON,
    )


def add_resources(server: SqlMcpServer, gate: Gate) -> None:
    """The three templates and their completion."""
    server.gate = gate

    @server.resource(
        "postgres://table/{schema_name}/{table_name}",
        name="table",
        title="Table",
        description="Columns, keys, indexes, partitions and statistics of a table or view.",
        mime_type=JSON,
    )
    async def table(schema_name: str, table_name: str) -> str:
        try:
            return _text(asdict(await describe_table(gate, unquote(table_name), unquote(schema_name))))
        except HubscopeError as error:
            raise MCPError(code=_INVALID_PARAMS, message=error.detail) from error

    @server.resource(
        "postgres://schema/{schema_name}",
        name="schema",
        title="Schema",
        description="Tables, views and functions of a schema.",
        mime_type=JSON,
    )
    async def schema(schema_name: str) -> str:
        try:
            tables = await list_tables(gate, unquote(schema_name))
            functions = await list_functions(gate, unquote(schema_name))
        except HubscopeError as error:
            raise MCPError(code=_INVALID_PARAMS, message=error.detail) from error
        return _text(asdict(tables) | {"functions": [asdict(function) for function in functions]})

    @server.resource(
        "postgres://function/{schema_name}/{function_name}",
        name="function",
        title="Function",
        description="Arguments, result and properties of a function, one entry for each overload. Not its source.",
        mime_type=JSON,
    )
    async def function(schema_name: str, function_name: str) -> str:
        try:
            found = await list_functions(gate, unquote(schema_name), unquote(function_name))
        except HubscopeError as error:
            raise MCPError(code=_INVALID_PARAMS, message=error.detail) from error
        return _text([asdict(each) for each in found])

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(ref: Any, argument: CompletionArgument, context: CompletionContext | None) -> Completion | None:
        if not isinstance(ref, ResourceTemplateReference):
            return None
        try:
            names = await _names(gate, ref.uri, argument.name, (context.arguments if context else None) or {})
        except HubscopeError:
            names = []
        fitting = sorted({name for name in names if name.startswith(argument.value)})
        return Completion(values=fitting[:MOST_COMPLETED], total=len(fitting), has_more=len(fitting) > MOST_COMPLETED)


async def _names(gate: Gate, uri: str, argument: str, given: dict[str, str]) -> list[str]:
    if argument == "schema_name":
        return (await list_tables(gate, None)).schemas
    schema = given.get("schema_name")
    if argument == "table_name":
        return [table.name for table in (await list_tables(gate, schema)).tables]
    if argument == "function_name":
        return [function.name for function in await list_functions(gate, schema)]
    return []


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
