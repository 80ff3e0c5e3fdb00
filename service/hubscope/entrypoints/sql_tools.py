"""Tools of the operator's own: `[tools.<name>]` in hubscope.toml, SQL with typed parameters, under the same gates."""

from __future__ import annotations

import inspect as python_inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from hubscope.errors import InvalidSetting, QueryRefused
from hubscope.settings import custom_tools
from hubscope.sqlgate import Gate, Result

TYPES: Final[dict[str, Any]] = {
    "text": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "list": list[Any],
    "object": dict[str, Any],
}
_NAME: Final = re.compile(r"^[a-z][a-z0-9_]{0,63}$")
_TAKEN: Final = frozenset(
    {"query", "list_tables", "describe_table", "analyze_query", "list_resources", "read_resource"}
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a tool; the first is $1."""

    name: str
    type: str
    description: str
    required: bool


@dataclass(frozen=True, slots=True)
class CustomTool:
    """A tool as hubscope.toml names it."""

    name: str
    description: str
    sql: str
    parameters: tuple[Parameter, ...]
    database: str | None = None


Run = Callable[[CustomTool, Context[Any], dict[str, Any]], Awaitable[Result]]


def load(gates: Mapping[str, Gate]) -> tuple[CustomTool, ...]:
    """The tools of hubscope.toml, each checked by the guard of its database.

    Args:
        gates: by name; the first is for tools that name no database.

    Raises:
        InvalidSetting: naming the tool and what is wrong with it.
    """
    return tuple(_tool(gates, name, table) for name, table in custom_tools().items())


def _tool(gates: Mapping[str, Gate], name: str, table: Any) -> CustomTool:
    where = f"hubscope.toml: [tools.{name}]"
    if not _NAME.match(name) or name in _TAKEN:
        raise InvalidSetting(f"{where} is no name for a tool (a-z, 0-9 and _, and none of {', '.join(sorted(_TAKEN))})")
    known = {"sql", "description", "params", "database"}
    if not isinstance(table, Mapping) or not {"sql", "description"} <= table.keys() <= known:
        raise InvalidSetting(f"{where} takes description, sql, params and database")
    database = table.get("database")
    if database is not None and database not in gates:
        raise InvalidSetting(f"{where} names the database {database!r}; there are: {', '.join(gates)}")
    gate = gates[database or next(iter(gates))]
    params = table.get("params", {})
    if not isinstance(params, Mapping):
        raise InvalidSetting(f"{where} takes params as tables, [tools.{name}.params.<parameter>]")
    parameters = tuple(_parameter(where, each, about) for each, about in params.items())
    try:
        inspected = gate.check(str(table["sql"]))
    except QueryRefused as error:
        raise InvalidSetting(f"{where}: {error.detail}") from None
    used = {number for _, number in inspected.parameters}
    if used != set(range(1, len(parameters) + 1)):
        raise InvalidSetting(f"{where} has {len(parameters)} params, its sql uses {sorted(used) or 'none'}")
    return CustomTool(name, str(table["description"]), str(table["sql"]), parameters, database)


def _parameter(where: str, name: str, about: Any) -> Parameter:
    known = {"type", "description", "required"}
    if not _NAME.match(name) or not isinstance(about, Mapping) or not about.keys() <= known:
        raise InvalidSetting(f"{where}: the parameter {name} takes type, description and required")
    kind = about.get("type", "text")
    if kind not in TYPES:
        raise InvalidSetting(f"{where}: the type of {name} is {kind!r}; allowed: {', '.join(TYPES)}")
    return Parameter(name, kind, str(about.get("description", "")), bool(about.get("required", True)))


def add_tools(server: MCPServer[Any], tools: tuple[CustomTool, ...], run: Run) -> None:
    """Register the tools; `run` asks the database."""
    for tool in tools:
        server.add_tool(
            _handler(tool, run),
            name=tool.name,
            title=tool.name.replace("_", " ").capitalize(),
            description=tool.description,
            annotations=ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False),
            structured_output=False,
        )


def _handler(tool: CustomTool, run: Run) -> Callable[..., Awaitable[CallToolResult]]:
    async def answer(context: Context[Any], **arguments: Any) -> CallToolResult:
        result = await run(tool, context, arguments)
        body = {
            "arguments": arguments,
            "columns": [{"name": name, "type": type_name} for name, type_name in result.columns],
            "rows": result.rows,
            "truncated": result.truncated is not None,
            "generated_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        return CallToolResult(content=[TextContent(type="text", text=msgspec.json.encode(body).decode())])

    signature = [
        python_inspect.Parameter("context", python_inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Context[Any])
    ]
    for each in tool.parameters:
        kind = TYPES[each.type] if each.required else TYPES[each.type] | None
        signature.append(
            python_inspect.Parameter(
                each.name,
                python_inspect.Parameter.KEYWORD_ONLY,
                annotation=Annotated[kind, Field(description=each.description)],
                default=python_inspect.Parameter.empty if each.required else None,
            )
        )
    answer.__signature__ = python_inspect.Signature(signature, return_annotation=CallToolResult)  # type: ignore[attr-defined]
    return answer
