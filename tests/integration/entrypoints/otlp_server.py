"""A small MCP server for tests, run as a program: it adds, fails on purpose, and breaks."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("calculator")


@server.tool()
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@server.tool()
def refuse(reason: str) -> str:
    """Always fails, and says why."""
    raise ToolError(f"refused: {reason}")


if __name__ == "__main__":
    server.run()
