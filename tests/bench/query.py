"""The SQL server: `query` of 100 rows beside a tool that does nothing on the same server, and beside the servers that
people use today, on the same database and with the same client.

All servers run at once and are asked in turn, one call after another; a ratio is the median over the rounds. The
verdict cache holds what was found out about a text for a few seconds: `query` is measured with it off (every call is
parsed, checked and resolved anew) and as it is by default. It is the same text each time, as dashboards and custom
tools send it; a text that is new each time is in the context. The peers speak stdio, so the figures are of stdio;
streamable HTTP and plain asyncpg are in the context.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from hubscope.embedded import EmbeddedDatabase
from hubscope.store import connect
from tests.bench import peers
from tests.bench.peers import Peer, PeerUnavailable
from tests.bench.result import Result, middle, percentile, rounded, say
from tests.bench.service import environment

CALLS: Final = 1_400
ROUNDS: Final = 7
WARM_UP: Final = 30
TABLE_ROWS: Final = 10_000
ROWS: Final = 100
START_S: Final = 30.0
ROOT: Final = Path(__file__).resolve().parents[2]
SAMPLE: Final = f"""
CREATE TABLE public.calls (
    id bigint PRIMARY KEY,
    called_at timestamptz NOT NULL,
    server text NOT NULL,
    tool text NOT NULL,
    ok boolean NOT NULL,
    duration_ms double precision NOT NULL
);
INSERT INTO public.calls
SELECT n, '2026-01-01 00:00:00Z'::timestamptz + n * interval '7 seconds', 'server-' || n % 20, 'tool-' || n % 200,
    n % 33 > 0, round((3 + n % 977 * 1.7)::numeric, 3)
FROM generate_series(1, {TABLE_ROWS}) AS n;
ANALYZE public.calls;
"""
SQL: Final = (
    "SELECT id, called_at, server, tool, ok, duration_ms FROM public.calls WHERE ok AND duration_ms > 50"
    f" ORDER BY id LIMIT {ROWS}"
)
MARK: Final = "tool-"
"""Stands once in each row of an answer."""

Ask = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Way:
    """One thing that is asked, and how often its answer must hold a row's mark."""

    ask: Ask
    rows: int


async def run(arguments: argparse.Namespace) -> Result:
    """All figures of the bench `query`."""
    return await measure(arguments.events or CALLS, {"checked_peer": peers.checked, "unchecked_peer": peers.unchecked})


async def measure(calls: int, others: dict[str, Callable[[str], Peer]], rounds: int = ROUNDS) -> Result:
    """The same with so many calls of each way.

    Args:
        others: the peers, by the name that the context gives them; those that cannot be had are told there.
    """
    each = max(10, calls // rounds)
    result = Result(
        context={"calls_of_each": each * rounds, "rounds": rounds, "rows": ROWS, "sql": SQL, "client": "mcp (Python)"}
    )
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(_database())
        ways = await _ours(stack, dsn)
        for name, make in others.items():
            try:
                peer = await asyncio.to_thread(make, _for_everybody(dsn))
                ways[name] = await _peer(stack, peer)
                result.context[name] = peer.name + (f" ({peer.note})" if peer.note else "")
            except PeerUnavailable as error:
                result.context[name] = str(error)
        took = await _rounds(ways, each, rounds)
    _figures(took, result)
    return result


@asynccontextmanager
async def _database() -> AsyncIterator[str]:
    """A database with the sample, on an embedded PostgreSQL of its own."""
    folder = Path(tempfile.mkdtemp(prefix="hubscope-bench-"))
    folder.chmod(0o711)
    database = EmbeddedDatabase(folder / "data").attach()
    try:
        admin = await connect(database.dsn, name="bench")
        try:
            await admin.execute(SAMPLE)
        finally:
            await admin.close()
        yield database.dsn
    finally:
        database.detach()
        shutil.rmtree(folder, ignore_errors=True)


def _for_everybody(dsn: str) -> str:
    """The same URL with a host, which some readers of URLs insist on; the one in the query goes above it."""
    return dsn.replace("@/", "@localhost/", 1)


async def _ours(stack: AsyncExitStack, dsn: str) -> dict[str, Way]:
    """Our server over both transports, with and without the verdict cache, and the driver alone."""
    arguments = ["-m", "tests.bench.sql_server"]
    uncached = {"HUBSCOPE_SQL_VERDICT_SECONDS": "0"}
    pure = environment(HEALTH_PORT="0")
    clients = {
        "": await _stdio(stack, sys.executable, [*arguments, "stdio", dsn], pure | uncached),
        "_cached_verdict": await _stdio(stack, sys.executable, [*arguments, "stdio", dsn], pure),
        "_http": await _http(stack, [*arguments, "http", dsn], pure | uncached),
        "_http_cached_verdict": await _http(stack, [*arguments, "http", dsn], pure),
    }
    ways = {f"query{suffix}": Way(_call(client, "query", {"sql": SQL}), ROWS) for suffix, client in clients.items()}
    ways["query_new_text"] = Way(_new_texts(clients[""]), ROWS)
    for suffix in ("", "_http"):
        ways[f"noop{suffix}"] = Way(_call(clients[suffix], "noop", {}), 0)
    driver = await connect(dsn, name="bench")
    stack.push_async_callback(driver.close)

    async def fetch() -> str:
        return "\n".join(map(str, await driver.fetch(SQL)))

    ways["asyncpg"] = Way(fetch, ROWS)
    return ways


async def _stdio(stack: AsyncExitStack, command: str, arguments: list[str], env: dict[str, str]) -> Client:
    silence = stack.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115
    parameters = StdioServerParameters(command=command, args=arguments, env=env, cwd=ROOT)
    return await stack.enter_async_context(Client(stdio_client(parameters, errlog=silence)))


async def _http(stack: AsyncExitStack, arguments: list[str], env: dict[str, str]) -> Client:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=env, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip

    async def stop() -> None:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()

    stack.push_async_callback(stop)
    assert process.stdout is not None
    address = (await asyncio.wait_for(process.stdout.readline(), START_S)).decode().strip()
    return await stack.enter_async_context(Client(address))


async def _peer(stack: AsyncExitStack, peer: Peer) -> Way:
    """A peer that answers.

    Raises:
        PeerUnavailable: it does not.
    """
    try:
        async with asyncio.timeout(START_S):
            client = await _stdio(stack, peer.command, list(peer.arguments), environment(**peer.environment))
            way = Way(_call(client, peer.tool, {"sql": SQL}), ROWS)
            await _asked(peer.name, way)
    except Exception as error:  # whatever it dies of, it is not our bench that failed
        raise PeerUnavailable(f"{peer.name} does not answer: {type(error).__name__}: {error}"[:300]) from error
    return way


def _call(client: Client, tool: str, arguments: dict[str, Any]) -> Ask:
    async def ask() -> str:
        answer = await client.call_tool(tool, arguments)
        text = "".join(getattr(part, "text", "") for part in answer.content)
        if answer.is_error:
            raise RuntimeError(f"{tool} answered with an error: {text[:300]}")
        return text

    return ask


def _new_texts(client: Client) -> Ask:
    """The same query in a text that never came before, so that nothing that is kept of a text is of use."""
    numbers = itertools.count()

    async def ask() -> str:
        return await _call(client, "query", {"sql": f"{SQL} /* {next(numbers)} */"})()

    return ask


async def _asked(name: str, way: Way) -> None:
    """Ask once and look at the answer: a fast answer that is not whole does not count."""
    text = await way.ask()
    if text.count(MARK) != way.rows:
        raise RuntimeError(f"{name} answered {text.count(MARK)} rows, not {way.rows}: {text[:300]}")


async def _rounds(ways: dict[str, Way], each: int, rounds: int) -> dict[str, list[list[float]]]:
    """Every way asked so many times in every round: name -> a list of milliseconds per round."""
    took: dict[str, list[list[float]]] = {name: [] for name in ways}
    for name, way in ways.items():
        for _ in range(WARM_UP if each >= WARM_UP else 1):
            await _asked(name, way)
    names = list(ways)
    for round_ in range(rounds):
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            times = []
            for _ in range(each):
                begun = time.perf_counter()
                await ways[name].ask()
                times.append((time.perf_counter() - begun) * 1000)
            took[name].append(times)
        say("  " + ", ".join(f"{name} {percentile(times[-1], 0.5):.2f} ms" for name, times in took.items()))
    return took


def ratio(ours: list[list[float]], theirs: list[list[float]], quantile: float) -> float:
    """The median over the rounds of our percentile by theirs."""
    return middle(
        [percentile(a, quantile) / percentile(b, quantile) for a, b in zip(ours, theirs, strict=True)]
    )  # fmt: skip


def calls_ratio(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """The median over the rounds of our calls per second by theirs."""
    return middle([(len(a) / sum(a)) / (len(b) / sum(b)) for a, b in zip(ours, theirs, strict=True)])


def _figures(took: dict[str, list[list[float]]], result: Result) -> None:
    ours, cached, noop = took["query"], took["query_cached_verdict"], took["noop"]
    checked, unchecked = took.get("checked_peer"), took.get("unchecked_peer")
    # Every call checked anew, unless the name says otherwise.
    result.figures = _beside_peers(ours, checked, unchecked) | {
        "p50_vs_noop": rounded(ratio(ours, noop, 0.50)),
        "p50_vs_noop_cached_verdict": rounded(ratio(cached, noop, 0.50)),
    }
    result.context["with_verdict_cache"] = _beside_peers(cached, checked, unchecked)
    fresh = took["query_new_text"]
    result.context["each_text_new"] = _beside_peers(fresh, checked, unchecked) | {
        "p50_vs_noop": rounded(ratio(fresh, noop, 0.50))
    }
    result.context["ways"] = {
        name: {
            "p50_ms": rounded(middle([percentile(times, 0.50) for times in rounds])),
            "p99_ms": rounded(middle([percentile(times, 0.99) for times in rounds])),
            "calls_per_s": rounded(middle([len(times) / sum(times) * 1000 for times in rounds])),
        }
        for name, rounds in took.items()
    }


def _beside_peers(
    ours: list[list[float]], checked: list[list[float]] | None, unchecked: list[list[float]] | None
) -> dict[str, float | None]:
    return {
        "calls_vs_checked_peer": rounded(calls_ratio(ours, checked)) if checked else None,
        "p50_vs_unchecked_peer": rounded(ratio(ours, unchecked, 0.50)) if unchecked else None,
        "p99_vs_unchecked_peer": rounded(ratio(ours, unchecked, 0.99)) if unchecked else None,
    }
