"""The stdio wrapper: what it adds to a tool call, with hubscope up and with hubscope down.

The same trivial server runs three times: called directly, through `hubscope wrap` with a real `hubscope serve` to
report to, and through `hubscope wrap` with nobody there. A plain client over pipes (no SDK) calls them in turns of
twenty calls. What is added is the difference of the percentiles of one round; the figure is the median over the rounds,
of calls that come every two milliseconds. Calls back to back are in the context.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from hubscope.access import LOCAL
from hubscope.store import connect
from tests.bench.result import Result, middle, percentile, rounded, say
from tests.bench.service import environment, service

CALLS: Final = 4_000
"""Of each way and pace."""
ROUNDS: Final = 8
TURN: Final = 20
WARM_UP: Final = 200
PACE_S: Final = 0.002
NOBODY: Final = "http://127.0.0.1:9"
"""A port on which connections are refused."""
ECHO: Final = Path(__file__).with_name("echo_server.py")
REPORTED_WITHIN_S: Final = 30.0
WAYS: Final = ("direct", "up", "down")
_ARGUMENTS: Final = {"path": "/var/lib/example/reports/2026", "pattern": "*.csv", "limit": 50, "recursive": True}


class Server:
    """A server process and its client's end of the pipes."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=env
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        self.calls = 0
        about = {"name": "bench", "version": "1"}
        self._ask("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about})
        os.write(self._to, b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')

    def call(self) -> float:
        """Milliseconds from a call's first byte written to its answer's last byte read."""
        self.calls += 1
        return self._ask("tools/call", {"name": "echo", "arguments": _ARGUMENTS})

    def _ask(self, method: str, params: dict[str, Any]) -> float:
        line = json.dumps({"jsonrpc": "2.0", "id": self.calls, "method": method, "params": params}).encode() + b"\n"
        begun = time.perf_counter()
        os.write(self._to, line)
        said = os.read(self._from, 65_536)
        while said and not said.endswith(b"\n"):
            said += os.read(self._from, 65_536)
        took = (time.perf_counter() - begun) * 1000
        if not said or json.loads(said)["id"] != self.calls or b'"isError": true' in said:
            raise RuntimeError(f"the server answered {said[:300]!r}")
        return took

    def close(self) -> None:
        """End the server as a client does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


async def run(arguments: argparse.Namespace) -> Result:
    """All figures of the bench `wrap`."""
    return await measure(arguments.events or CALLS)


async def measure(calls: int, rounds: int = ROUNDS) -> Result:
    """The same with so many calls of each way and pace, rounded to whole turns."""
    turns = max(1, calls // rounds // TURN)
    result = Result(
        context={"calls_of_each": turns * TURN * rounds, "rounds": rounds, "turn": TURN, "pace_ms": PACE_S * 1000}
    )
    async with service([LOCAL.tenant]) as running:
        with tempfile.TemporaryDirectory(prefix="hubscope-bench-") as spools, ExitStack() as stack:
            there = {"HUBSCOPE_URL": running.url, "HUBSCOPE_API_KEY": running.keys[LOCAL.tenant]}
            servers = {
                "direct": stack.enter_context(_server((), {})),
                "up": stack.enter_context(_server(("up",), there | {"HUBSCOPE_SPOOL_DIR": f"{spools}/up"})),
                "down": stack.enter_context(
                    _server(("down",), {"HUBSCOPE_URL": NOBODY, "HUBSCOPE_SPOOL_DIR": f"{spools}/down"})
                ),
            }
            for server in servers.values():
                for _ in range(WARM_UP):
                    server.call()
            for pace, pause_s in (("paced", PACE_S), ("back_to_back", 0.0)):
                say(f"  {pace}: {turns * TURN * rounds} calls each way")
                added, seen = await asyncio.to_thread(_rounds, servers, rounds, turns, pause_s)
                result.context[pace] = {name: rounded(middle(values)) for name, values in (seen | added).items()}
                if pace == "paced":
                    result.figures = {name: rounded(middle(values)) for name, values in added.items()}
            called = servers["up"].calls
        # The wrappers have ended by now: everything they saw must have arrived.
        result.context["reported_calls"] = await _reported(running.dsn, called)
    return result


@contextmanager
def _server(wrapped: Sequence[str], settings: dict[str, str]) -> Iterator[Server]:
    command = [sys.executable, str(ECHO)]
    if wrapped:
        command = [sys.executable, "-m", "hubscope", "wrap", "--name", wrapped[0], "--", *command]
    server = Server(command, environment(**settings))
    try:
        yield server
    finally:
        server.close()


def _rounds(
    servers: dict[str, Server], rounds: int, turns: int, pause_s: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """What is added, and what was seen: name -> one number in ms per round."""
    added: dict[str, list[float]] = {}
    seen: dict[str, list[float]] = {}
    for round_ in range(rounds):
        took: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(turns):
            shift = (round_ + turn) % len(WAYS)
            for way in WAYS[shift:] + WAYS[:shift]:
                server, times = servers[way], took[way]
                for _ in range(TURN):
                    times.append(server.call())
                    if pause_s:
                        time.sleep(pause_s)
        for way, times in took.items():
            for name, quantile in (("p50", 0.50), ("p99", 0.99)):
                seen.setdefault(f"{way}_{name}_ms", []).append(percentile(times, quantile))
        for name, value in differences(took).items():
            added.setdefault(name, []).append(value)
    return added, seen


def differences(took: dict[str, list[float]]) -> dict[str, float]:
    """How much later the wrapped calls' percentiles are than the direct ones', in ms, by the name of the figure."""
    return {
        f"added_{name}_ms{suffix}": percentile(took[way], quantile) - percentile(took["direct"], quantile)
        for way, suffix in (("up", ""), ("down", "_down"))
        for name, quantile in (("p50", 0.50), ("p99", 0.99))
    }


async def _reported(dsn: str, calls: int) -> int:
    """The calls that hubscope holds.

    Raises:
        RuntimeError: not all of them.
    """
    admin = await connect(dsn, name="bench")
    try:
        deadline = time.monotonic() + REPORTED_WITHIN_S
        held = 0
        while time.monotonic() < deadline:
            held = int(await admin.fetchval("SELECT count(*) FROM raw.tool_calls WHERE server = 'up'"))
            if held == calls:
                return held
            await asyncio.sleep(0.1)
        raise RuntimeError(f"{calls} calls were wrapped, hubscope holds {held}")
    finally:
        await admin.close()
