"""A stdio server for tests: its tool `grow` adds a tool and says so, `shout` writes very many lines to stderr."""

from __future__ import annotations

import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("changing")


@server.tool()
async def grow(name: str, context: Context) -> str:
    """Add a tool."""

    def added() -> str:
        return name

    server.add_tool(added, name=name, description="A tool that was added")
    await context.session.send_tool_list_changed()
    return name


@server.tool()
async def shout(lines: int) -> int:
    """Write lines to stderr, each by itself."""
    for number in range(lines):
        os.write(2, b"line %d of a storm, %s\n" % (number, b"x" * 100))
    return lines


if __name__ == "__main__":
    sys.exit(server.run("stdio"))
