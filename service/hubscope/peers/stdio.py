"""A stdio server as a child process: started, spoken to line by line, ended for certain.

Beyond what the SDK's own transport does: a message has a longest size, what the server writes to stderr is kept for the
error that follows, the end of the process is noticed at once, and ending it takes no longer than it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio
import mcp_types as types
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from hubscope.peers.registration import Command
from hubscope.redact import redact_text

log = structlog.get_logger("hubscope.peers")

STDERR_LINES: Final = 20
STDERR_LINE_BYTES: Final = 500
CLOSE_S: Final = 1.0
"""How long a server has to end by itself after its standard input was closed, and again after SIGTERM."""

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@dataclass(slots=True, eq=False)
class Child:
    """The process behind a session.

    Attributes:
        pid: of the process, which leads a group of its own.
        stderr: the last lines it wrote there.
        trouble: why we cannot go on with it, if it was us who found out.
        returncode: once it has ended.
    """

    pid: int
    stderr: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_LINES))
    trouble: str | None = None
    returncode: int | None = None

    def kill(self) -> None:
        """End its whole group at once."""
        _signal(self.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """Why it ended, as far as it can be told."""
        if self.trouble is not None:
            return self.trouble
        if self.returncode is None:
            how = "it closed its output"
        elif self.returncode < 0:
            with contextlib.suppress(ValueError):
                return f"it was killed by {signal.Signals(-self.returncode).name}"
            how = f"it was killed by signal {-self.returncode}"
        else:
            how = f"it ended with exit code {self.returncode}"
        said = next((line for line in reversed(self.stderr) if line.strip()), "")
        return f"{how}; it said: {redact_text(said)}" if said else how


@asynccontextmanager
async def started(
    command: Command,
    *,
    max_bytes: int,
    on_start: Callable[[Child], None],
    on_end: Callable[[], None],
) -> AsyncIterator[Streams]:
    """A process for as long as the block runs.

    Args:
        command: what to start; it gets the few harmless variables of our environment and those of its own.
        max_bytes: longest message from it.
        on_start: called with the process.
        on_end: called when nothing more will come from it.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        command.command,
        *command.args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=get_default_environment() | dict(command.env),
        cwd=command.cwd,
        limit=max_bytes,
        start_new_session=True,
    )
    child = Child(process.pid)
    on_start(child)
    to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(_read(process, child, to_session, on_end), name=f"stdout of {process.pid}"),
        asyncio.create_task(_write(process, from_session), name=f"stdin of {process.pid}"),
        asyncio.create_task(_listen(process, child), name=f"stderr of {process.pid}"),
    ]
    try:
        yield from_server, to_server
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process, child)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for stream in (to_session, from_server, to_server, from_session):
                stream.close()
            # Whoever of its group is left holds our pipes; the transport would warn when it is collected.
            transport = getattr(process, "_transport", None)
            if transport is not None:
                transport.close()


async def _read(
    process: asyncio.subprocess.Process,
    child: Child,
    out: MemoryObjectSendStream[SessionMessage | Exception],
    on_end: Callable[[], None],
) -> None:
    assert process.stdout is not None
    try:
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the limit
                child.trouble = "a message of it is longer than HUBSCOPE_PEER_MAX_ANSWER_BYTES"
                return
            if not line:
                with contextlib.suppress(TimeoutError):  # the code comes a moment after the end of output
                    async with asyncio.timeout(0.5):
                        child.returncode = await process.wait()
                return
            if line.isspace():
                continue
            try:
                message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                # What a server prints to stdout by mistake must not cost the messages after it.
                log.debug("a line that is no message", pid=child.pid, line=line[:200])
                continue
            await out.send(SessionMessage(message))
    except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        return
    finally:
        out.close()
        on_end()


async def _write(process: asyncio.subprocess.Process, messages: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        async for item in messages:
            text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(text.encode() + b"\n")
            await process.stdin.drain()
    messages.close()


async def _listen(process: asyncio.subprocess.Process, child: Child) -> None:
    """Read stderr, so that the server never waits for somebody to; keep its end."""
    assert process.stderr is not None
    rest = b""
    while chunk := await process.stderr.read(8192):
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[-STDERR_LINE_BYTES:]
        for line in lines:
            text = line[:STDERR_LINE_BYTES].decode("utf-8", "replace").rstrip()
            child.stderr.append(text)
            log.debug("stderr", pid=child.pid, line=text)
    if rest:
        child.stderr.append(rest.decode("utf-8", "replace").rstrip())


async def _end(process: asyncio.subprocess.Process, child: Child) -> None:
    """Close its input, ask its group to end, then make it."""
    assert process.stdin is not None
    if process.returncode is None:
        process.stdin.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                _signal(child.pid, number)
            if await _ended(process, CLOSE_S):
                break
    _signal(child.pid, signal.SIGKILL)  # those of its group whom it left behind
    child.returncode = process.returncode


async def _ended(process: asyncio.subprocess.Process, within_s: float) -> bool:
    """Polled: `wait()` also waits for its pipes, which a grandchild may hold."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while process.returncode is None and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return process.returncode is not None


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
