"""`hubscope sql-mcp` with one tool more that does nothing: what an answer costs at least on the same server.

Run as `python -m tests.bench.sql_server stdio|http DSN`; with http it prints its address as the first line of stdout.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, TextContent

from hubscope.entrypoints import serve, sql_mcp
from hubscope.entrypoints.loop import run_on_loop
from hubscope.entrypoints.sql_lines import LinesBehind
from hubscope.entrypoints.sql_server import SqlServer
from hubscope.entrypoints.sql_tools import CustomTool
from hubscope.settings import Settings, SqlSettings
from hubscope.sqlgate import Gate, served

_build = sql_mcp.build


def build(sql_server: SqlServer, tools: tuple[CustomTool, ...] = ()) -> MCPServer[Any]:
    """The product's server and the tool `noop`."""
    server = _build(sql_server, tools)

    @server.tool(name="noop", structured_output=False)
    async def noop() -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text="{}")])

    return server


def main(transport: str, dsn: str) -> None:
    """Serve until standard input closes (stdio) or SIGTERM comes (http)."""
    sql_mcp.build = build
    sql_server = SqlServer({"main": Gate(served(SqlSettings.load(), dsn))}, LinesBehind(sys.stderr, 10_000))
    if transport == "stdio":
        run_on_loop(sql_mcp.run_stdio(sql_server))
        return

    async def listen() -> None:
        stop = asyncio.Event()
        serve.stop_on_signals(stop)
        with serve.listen(Settings.load()) as listener:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            await sql_mcp.run_http(sql_server, listener, stop, lambda: print(address, flush=True))

    run_on_loop(listen())


if __name__ == "__main__":
    main(*sys.argv[1:])
