"""Real MCP servers as `Peers`, for tests of chains: stdio processes behind the SDK's client."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters

from hubscope.access import Principal
from hubscope.errors import UnknownServer, UnknownTool, UpstreamFailed, UpstreamTimeout
from hubscope.peers import CallResult, Progress, ToolInfo

ROOT = Path(__file__).resolve().parents[1]


class StdioPeers:
    """Servers by name, each a process that is started when it is first needed.

    Attributes:
        calls: (server, tool, arguments, chain_id, step_index) of every call that was asked for.
        running, most: calls under way now, and the most there ever were.
    """

    def __init__(self, servers: Mapping[str, StdioServerParameters]) -> None:
        self._servers = servers
        self._clients: dict[str, asyncio.Future[Client]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._leave = asyncio.Event()
        self.calls: list[tuple[str, str, dict[str, Any], str | None, int | None]] = []
        self.running = self.most = 0

    async def close(self) -> None:
        self._leave.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def call(
        self,
        principal: Principal,
        server: str,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float,
        chain_id: str | None = None,
        step_index: int | None = None,
        progress: Progress | None = None,
    ) -> CallResult:
        self.calls.append((server, tool, dict(arguments), chain_id, step_index))
        client = await self._client(server)
        loop = asyncio.get_running_loop()
        started = loop.time()
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async with asyncio.timeout(timeout_s):
                result = await client.call_tool(tool, dict(arguments))
        except TimeoutError:
            raise UpstreamTimeout(f"no answer within {timeout_s} s", sent=True) from None
        except MCPError as error:
            if "unknown tool" in error.error.message.lower():
                raise UnknownTool(error.error.message) from None
            raise UpstreamFailed(error.error.message, sent=True) from None
        finally:
            self.running -= 1
        content = [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content]
        failed = bool(result.is_error)
        return CallResult(
            failed,
            content,
            result.structured_content,
            (loop.time() - started) * 1000,
            "tool_error" if failed else None,
            next((block["text"] for block in content if block["type"] == "text"), None) if failed else None,
        )

    async def tools(self, principal: Principal, server: str) -> list[ToolInfo]:
        client = await self._client(server)
        return [
            ToolInfo(
                tool.name,
                tool.description or "",
                tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else {},
                tool.input_schema,
            )
            for tool in (await client.list_tools()).tools
        ]

    async def _client(self, server: str) -> Client:
        if server not in self._servers:
            raise UnknownServer(f"there is no server {server!r}")
        if server not in self._clients:
            self._clients[server] = asyncio.get_running_loop().create_future()
            self._tasks.append(asyncio.create_task(self._hold(server, self._clients[server])))
        try:
            return await asyncio.shield(self._clients[server])
        except OSError as error:
            raise UpstreamFailed(str(error), sent=False) from None

    async def _hold(self, server: str, found: asyncio.Future[Client]) -> None:
        try:
            async with AsyncExitStack() as stack:
                found.set_result(await stack.enter_async_context(Client(self._servers[server])))
                await self._leave.wait()
        except BaseException as error:
            if not found.done():
                found.set_exception(OSError(str(error)))
                return
            raise


def work_server(folder: Path) -> StdioServerParameters:
    """`tests.chain_server` over a folder."""
    return StdioServerParameters(
        command=sys.executable, args=["-m", "tests.chain_server", str(folder)], cwd=ROOT, env=_python_path()
    )


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}


@asynccontextmanager
async def stdio_peers(folder: Path, **more: StdioServerParameters) -> AsyncIterator[StdioPeers]:
    """A `work` server over a folder, and others, for as long as the block runs."""
    peers = StdioPeers({"work": work_server(folder), **more})
    try:
        yield peers
    finally:
        await peers.close()


def servers_json(**servers: StdioServerParameters) -> str:
    """The same servers in the `mcpServers` JSON of HUBSCOPE_SERVERS_FILE; `_` in a name becomes `-`."""
    return json.dumps(
        {
            "mcpServers": {
                name.replace("_", "-"): {
                    "command": one.command,
                    "args": one.args,
                    "env": one.env or {},
                    **({"cwd": str(one.cwd)} if one.cwd else {}),
                }
                for name, one in servers.items()
            }
        }
    )


def journal(folder: Path) -> list[tuple[str, str]]:
    """(tool, key) of every call that the work server began."""
    path = folder / "journal"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(tool, key) for tool, key in map(json.loads, lines)]
