"""The demo's MCP servers: how they are declared, started, stopped for a moment, and never left behind.

The declaration is the `mcpServers` JSON that MCP clients use, with two additions per server: `requires`, the programs
it cannot run without, and `inherit`, patterns of environment variables it is given (a stdio server otherwise gets
HOME, PATH and the like only). `fetch` gets a PATH without programs: where it finds `node`, its HTML reader installs
packages into the Python environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from string import Template
from typing import Any, Final, TextIO

import psutil
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CONNECTION_CLOSED, CallToolResult, Implementation

from hubscope import __version__
from hubscope.errors import HubscopeError
from hubscope.ids import uuid7
from hubscope.model import ServerEvent

DECLARATION: Final = Path(__file__).with_name("demo_servers.json")
START_TIMEOUT_SECONDS: Final = 30.0
HUB: Final = "demo"
CLIENT: Final = "hubscope-demo"


class DemoFailed(HubscopeError):
    """The demo cannot go on."""

    code = "demo_failed"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """How one stdio server is started. `env` is the whole of what it gets beyond the client's few defaults."""

    name: str
    command: str
    args: tuple[str, ...]
    env: dict[str, str]
    requires: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """The required programs that are not on PATH."""
        return [program for program in self.requires if shutil.which(program) is None]


def read_specs(text: str, places: Mapping[str, str], environ: Mapping[str, str]) -> list[ServerSpec]:
    """The servers of an `mcpServers` document, with `${PLACE}` replaced.

    Raises:
        DemoFailed: for a placeholder that `places` does not have.
    """

    def filled(value: str) -> str:
        try:
            return Template(value).substitute(places)
        except (KeyError, ValueError) as error:
            raise DemoFailed(f"{value!r} in the servers' declaration has an unknown placeholder: {error}") from None

    specs = []
    for name, entry in json.loads(text)["mcpServers"].items():
        patterns = entry.get("inherit", ())
        inherited = {key: value for key, value in environ.items() if any(fnmatchcase(key, p) for p in patterns)}
        specs.append(
            ServerSpec(
                name=name,
                command=filled(entry["command"]),
                args=tuple(filled(arg) for arg in entry.get("args", ())),
                env=inherited | {key: filled(value) for key, value in entry.get("env", {}).items()},
                requires=tuple(entry.get("requires", ())),
            )
        )
    return specs


def shipped_specs(workdir: Path, service_url: str) -> list[ServerSpec]:
    """The servers of the shipped declaration, with `${PYTHON}`, `${WORKDIR}` and `${HUBSCOPE_URL}` replaced."""
    places = {"PYTHON": sys.executable, "WORKDIR": str(workdir), "HUBSCOPE_URL": service_url}
    return read_specs(DECLARATION.read_text(encoding="utf-8"), places, os.environ)


class DemoServer:
    """One stdio server and the client that talks to it.

    `run` opens and closes the client in one task, as its cancel scopes demand; calls may come from any task.

    Attributes:
        state: `starting`, then `up` or `down`.
        ready: set once the state is no longer `starting`.
        tools: number of tools it lists.
        session_id: one per connection.
    """

    def __init__(
        self,
        spec: ServerSpec,
        log: Path,
        spawning: asyncio.Lock,
        report: Callable[[ServerEvent], None],
        tell: Callable[[str], None],
        *,
        start_timeout_seconds: float = START_TIMEOUT_SECONDS,
    ) -> None:
        """`log` takes the server's stderr; `spawning` is shared by all servers of one hub."""
        self.spec = spec
        self.state = "starting"
        self.ready = asyncio.Event()
        self.tools = 0
        self.session_id = str(uuid7())
        self._log = log
        self._spawning = spawning
        self._report = report
        self._tell = tell
        self._start_timeout_seconds = start_timeout_seconds
        self._client: Client | None = None
        self._closing = asyncio.Event()
        self._processes: set[psutil.Process] = set()
        self._trouble: str | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    async def run(self) -> None:
        """Start, connect, and stay until `stop`; afterwards no process of the server is left. Raises nothing."""
        loop = asyncio.get_running_loop()
        # Killing the process is how a start is abandoned: the connection then closes and the client unwinds by itself,
        # where a cancelled task could lose its way out and leave the process behind.
        watchdog = loop.call_later(self._start_timeout_seconds, self._abandon_start)
        try:
            with self._log.open("w", encoding="utf-8") as errlog:
                await self._serve(errlog, watchdog)
        except Exception as error:
            if self.state == "starting":
                self._failed(self._trouble or self._complaint() or first_cause(error))
            else:
                self._tell(f"{self.name}: closed with {first_cause(error)}")
        finally:
            watchdog.cancel()
            self._kill()
            self.state = "down"
            self.ready.set()

    async def _serve(self, errlog: TextIO, watchdog: asyncio.TimerHandle) -> None:
        started = time.perf_counter()
        who = Implementation(name=CLIENT, version=__version__)
        async with Client(self._transport(errlog), client_info=who) as client:
            self.tools = len((await client.list_tools()).tools)
            watchdog.cancel()
            latency_ms = (time.perf_counter() - started) * 1000
            self._family()
            self._client, self.state = client, "up"
            self._send("connected", "up", latency_ms=latency_ms, tools=self.tools)
            self._tell(f"{self.name}: connected in {latency_ms:.0f} ms, {self.tools} tools")
            self.ready.set()
            try:
                await self._closing.wait()
            finally:
                self._client, self.state = None, "down"
                self._resume()
                self._send("disconnected", "down", error_message=self._trouble)

    @asynccontextmanager
    async def _transport(self, errlog: TextIO) -> AsyncIterator[Any]:
        spec = self.spec
        parameters = StdioServerParameters(command=spec.command, args=list(spec.args), env=spec.env)
        async with AsyncExitStack() as stack:
            # One start at a time, so that the new child process is this server's.
            async with self._spawning:
                before = set(psutil.Process().children())
                streams = await stack.enter_async_context(stdio_client(parameters, errlog=errlog))
                self._processes = set(psutil.Process().children()) - before
            if self._closing.is_set():
                self._kill()
            yield streams

    async def call(self, tool: str, arguments: dict[str, Any], timeout_seconds: float) -> CallToolResult:
        """One tool call.

        Raises:
            MCPError: the server's refusal, a time-out, or a closed connection (the server then counts as down).
        """
        if self._client is None:
            raise MCPError(code=CONNECTION_CLOSED, message="Connection closed")
        try:
            return await self._client.call_tool(tool, arguments, read_timeout_seconds=timeout_seconds)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED and not self._closing.is_set():
                self.state, self._trouble = "down", "the connection closed by itself"
                self._tell(f"{self.name}: {self._trouble}")
                self.stop()
            raise

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Every process of the server stands still (SIGSTOP) inside the block and goes on (SIGCONT) after it."""
        try:
            for process in self._family():
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
            yield
        finally:
            self._resume()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._closing.set()
        if self._client is None:
            self._trouble = self._trouble or "stopped before it answered"
            self._kill()

    def _family(self) -> set[psutil.Process]:
        """The server's processes: `npx` is a tree, and a child outlives a parent that died, so all seen are kept."""
        for process in list(self._processes):
            with suppress(psutil.NoSuchProcess):
                self._processes.update(process.children(recursive=True))
        return self._processes

    def _resume(self) -> None:
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _kill(self) -> None:
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _abandon_start(self) -> None:
        self._trouble = f"no answer within {self._start_timeout_seconds:g} s"
        self._kill()

    def _complaint(self) -> str | None:
        """What the server said on stderr before it ended: npm's first error line, else the last line."""
        lines = [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return next((line for line in lines if line.startswith("npm error")), lines[-1] if lines else None)

    def _failed(self, reason: str) -> None:
        self._tell(f"{self.name}: could not start ({reason})")
        self._send("failed", "down", error_type="start_failed", error_message=reason[:2000])

    def _send(self, outcome: str, state: Any, **fields: Any) -> None:
        now = datetime.now(UTC)
        event = ServerEvent(
            event_id=uuid7(),
            time=now,
            hub=HUB,
            server=self.name,
            source="connection",
            outcome=outcome,
            state=state,
            transport="stdio",
            **fields,
        )
        self._report(event)


def first_cause(error: BaseException) -> str:
    """The first cause inside exception groups, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".splitlines()[0]
