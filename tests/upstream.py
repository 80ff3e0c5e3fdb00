"""A small real MCP server that tests call, over stdio or HTTP: `python -m tests.upstream [--mode FILE]`.

What it does next stands in a file that the test writes: "hang" leaves every list unanswered, "slow S" answers after S
seconds, anything else answers at once. Notifications that calls were cancelled are appended to FILE.cancelled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations

from hubscope.peers.registration import Command

ROOT = Path(__file__).resolve().parent.parent
NO_DNS_CHECK = TransportSecuritySettings(enable_dns_rebinding_protection=False)


def build(mode: Path | None = None) -> MCPServer[Any]:
    """The server."""
    server: MCPServer[Any] = MCPServer("upstream", version="1.0", log_level="ERROR")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def echo(text: str) -> str:
        """Say it again."""
        return text

    @server.tool(annotations=ToolAnnotations(idempotent_hint=True))
    async def give(size: int) -> str:
        """Give so many characters."""
        return "x" * size

    @server.tool()
    async def fail(why: str) -> str:
        """Fail."""
        raise ToolError(why)

    @server.tool()
    async def wait(seconds: float, ctx: Context[Any, Any]) -> str:
        """Wait, telling how far."""
        try:
            for done in range(3):
                await ctx.report_progress(done + 1, 3, f"part {done + 1}")
                await asyncio.sleep(seconds / 3)
        except asyncio.CancelledError:
            if mode is not None:
                with open(f"{mode}.cancelled", "a") as file:
                    file.write("cancelled\n")
            raise
        return "done"

    @server.tool()
    async def environment(name: str) -> str:
        """A variable of the server's environment."""
        return os.environ.get(name, "")

    @server.tool()
    async def die() -> str:
        """End the process at once."""
        os._exit(3)

    @server.resource("note://one")
    def note() -> str:
        return "a note"

    inner = server.list_tools

    async def list_tools(*arguments: Any, **options: Any) -> Any:
        asked = mode.read_text().split() if mode is not None and mode.exists() else []
        if asked[:1] == ["hang"]:
            await asyncio.sleep(3600)
        if asked[:1] == ["slow"]:
            await asyncio.sleep(float(asked[1]))
        return await inner(*arguments, **options)

    server.list_tools = list_tools  # type: ignore[method-assign]
    return server


def command(mode: Path | None = None, **env: str) -> Command:
    """What starts it over stdio."""
    arguments = ("-m", "tests.upstream", *(("--mode", str(mode)) if mode is not None else ()))
    return Command(
        sys.executable, arguments, {"PYTHONPATH": os.environ.get("PYTHONPATH", "") or str(ROOT), **env}, str(ROOT)
    )


class Listening:
    """An HTTP server in this process, on a port that the system chose."""

    def __init__(self, app: Any, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, log_config=None, lifespan="on", access_log=False, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Listening:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return self

    async def stop(self) -> None:
        """Close the port and every connection. Once is enough."""
        self._server.should_exit = True
        self._server.force_exit = True
        assert self._task is not None
        await self._task
        self._socket.close()


@asynccontextmanager
async def listening(app: Any, port: int = 0) -> AsyncIterator[Listening]:
    """An ASGI application on a port, for as long as the block runs."""
    server = await Listening(app, port).start()
    try:
        yield server
    finally:
        await server.stop()


def http_app(mode: Path | None = None, *, stateless: bool = True, streamed: bool = False, sse: bool = False) -> Any:
    """The server as an ASGI application: /mcp, answering with JSON or a stream, or /sse."""
    if sse:
        return build(mode).sse_app(transport_security=NO_DNS_CHECK)
    return build(mode).streamable_http_app(
        stateless_http=stateless, json_response=stateless and not streamed, transport_security=NO_DNS_CHECK
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", type=Path)
    build(parser.parse_args().mode).run("stdio")
