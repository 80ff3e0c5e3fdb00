"""An MCP server for tests of chains, run over stdio: `python -m tests.chain_server FOLDER`.

Every call leaves a line in FOLDER/journal when it begins, so that a test can count what really happened. `gate` and
`guarded` wait until FOLDER/<name>.open exists.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

READ_ONLY = ToolAnnotations(read_only_hint=True)


def build(folder: Path) -> MCPServer[Any]:
    """The server over a folder."""
    server: MCPServer[Any] = MCPServer("work", log_level="ERROR")

    def noted(tool: str, key: str) -> int:
        """Write a call down; how often there was one with this key, this one included."""
        line = json.dumps([tool, key])
        with (folder / "journal").open("a") as journal:
            journal.write(line + "\n")
        return (folder / "journal").read_text().splitlines().count(line)

    async def opened(key: str) -> None:
        while not (folder / f"{key}.open").exists():  # noqa: ASYNC110  # another process makes it
            await asyncio.sleep(0.005)

    @server.tool(annotations=READ_ONLY)
    async def look(key: str, value: Any = None) -> dict[str, Any]:
        """Read something."""
        noted("look", key)
        return {"key": key, "value": value}

    @server.tool()
    async def note(key: str, value: Any = None) -> dict[str, Any]:
        """Do something that should not be done twice."""
        return {"key": key, "value": value, "times": noted("note", key)}

    @server.tool(annotations=ToolAnnotations(idempotent_hint=True))
    async def put(key: str, value: Any = None) -> dict[str, Any]:
        """Do something that may be done twice."""
        noted("put", key)
        return {"key": key, "value": value}

    @server.tool(annotations=READ_ONLY)
    async def flaky(key: str, failures: int) -> dict[str, Any]:
        """Fail so many times, then work."""
        times = noted("flaky", key)
        if times <= failures:
            raise ToolError(f"not yet: {times} of {failures}")
        return {"times": times}

    @server.tool()
    async def fail(key: str, message: str = "it broke") -> dict[str, Any]:
        """Fail."""
        noted("fail", key)
        raise ToolError(message)

    @server.tool()
    async def gate(key: str) -> dict[str, Any]:
        """Wait to be let through; should not be done twice."""
        noted("gate", key)
        await opened(key)
        return {"key": key}

    @server.tool(annotations=READ_ONLY)
    async def guarded(key: str) -> dict[str, Any]:
        """Wait to be let through; may be done twice."""
        noted("guarded", key)
        await opened(key)
        return {"key": key}

    @server.tool()
    async def die(key: str) -> dict[str, Any]:
        """Leave without a word."""
        noted("die", key)
        import os

        os._exit(1)

    @server.tool(annotations=READ_ONLY)
    async def big(bytes: int) -> dict[str, Any]:
        """Answer much."""
        noted("big", str(bytes))
        return {"text": "x" * bytes}

    @server.tool(annotations=READ_ONLY)
    async def said(text: str) -> str:
        """Give a text back."""
        return text

    return server


if __name__ == "__main__":
    asyncio.run(build(Path(sys.argv[1])).run_stdio_async())
