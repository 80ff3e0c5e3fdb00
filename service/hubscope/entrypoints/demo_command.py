"""`hubscope demo`: the service, its worker, real MCP servers, real calls, and the answer, in front of your eyes."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hubscope.access import LOCAL
from hubscope.entrypoints.demo import DemoHub, ask, demo_hub
from hubscope.entrypoints.serve import Service, running, stop_on_signals
from hubscope.errors import JobFailed
from hubscope.settings import Settings
from hubscope.store import borrowed

CALLS = 240
BUILD_TIMEOUT_S = 180
BUILD_POLL_S = 0.1

Tell = Callable[[str], None]


async def run(
    settings: Settings, *, once: bool, as_json: bool, out: Console, err: Console, ready: Callable[[Service], None]
) -> int:
    """Run the demo.

    Args:
        settings: of this process; a store that they name is left alone, since the demo makes traffic.
        once: make the calls, print the answer and return.
        as_json: print the answer as JSON: {"answer", "calls", "summary", "servers"}.
        out, err: the answer goes to out, progress to err.
        ready: shows where to look, once there is something to see.

    Returns:
        The exit code: 130 when it was interrupted before the answer.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    flow = asyncio.current_task()
    assert flow is not None
    answered = False

    async def interrupt() -> None:
        await stop.wait()
        if not answered:
            flow.cancel()

    watch = asyncio.create_task(interrupt())
    with _directory(settings, once) as own, _steps(err) as (progress, tell):
        if not settings.embedded:
            tell("the demo makes traffic of its own: it leaves the store you named alone and uses an embedded one")
        try:
            async with (
                running(own, "demo", tell) as service,
                _traffic(service, key := _key(service), progress, tell) as hub,
            ):
                await _burst(hub, progress)
                await _marts(service, own, progress)
                answer, text = await ask(service.url, key)
                answered = True
                progress.stop()
                if as_json:
                    summary = {"answer": answer, "summary": hub.ledger.summary(), "servers": hub.servers}
                    print(json.dumps(summary | {"calls": [asdict(call) for call in hub.ledger.calls]}, indent=2))
                elif out.is_terminal:
                    out.print(Markdown(text))
                else:
                    print(text, end="", flush=True)
                if not once:
                    ready(service)
                    await hub.trickle(stop)
                    tell("stopping")
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            tell("stopped")
            return 130
        finally:
            watch.cancel()
    return 0


@contextmanager
def _directory(settings: Settings, once: bool) -> Iterator[Settings]:
    """The demo's settings: embedded always; with --once a directory and a port of its own, unless they were chosen."""
    changes: dict[str, object] = {"database_url": None, "postgres_host": None}
    if "log_level" not in settings.model_fields_set:
        changes["log_level"] = "warning"  # the demo tells its own story; the worker only speaks up when something fails
    scratch: str | None = None
    if once and "data_dir" not in settings.model_fields_set:
        scratch = tempfile.mkdtemp(prefix="hubscope-demo-")
        changes["data_dir"] = Path(scratch)
        if "port" not in settings.model_fields_set:
            changes["port"] = 0
    try:
        yield settings.model_copy(update=changes)
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _steps(err: Console) -> Iterator[tuple[Progress, Tell]]:
    """A progress display with lines above it; plain lines where nobody watches."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )

    def tell(line: str) -> None:
        err.print(f"[dim]·[/dim] {line}", highlight=False, soft_wrap=True)

    with progress:
        yield progress, tell


def _key(service: Service) -> str:
    """The demo calls its own service: where there are API keys, with one that only this process knows."""
    return service.app.keyring.lend(LOCAL)


@asynccontextmanager
async def _traffic(service: Service, key: str, progress: Progress, tell: Tell) -> AsyncIterator[DemoHub]:
    """Real MCP servers, connected."""
    task = progress.add_task("calling real MCP servers", total=CALLS, visible=False)
    workdir = Path(tempfile.mkdtemp(prefix="hubscope-demo-files-"))
    tell(f"the service listens on {service.url}; starting MCP servers")

    def called(done: int, total: int) -> None:
        words = f"calling real MCP servers, {done} of {total}"
        progress.update(task, description=words, completed=done, total=total, visible=done < total)

    try:
        async with demo_hub(service.url, workdir, tell, called, key) as hub:
            yield hub
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


async def _burst(hub: DemoHub, progress: Progress) -> None:
    started = time.monotonic()
    await hub.burst(CALLS)
    summary = hub.ledger.summary()
    outcomes = ", ".join(f"{count} {status}" for status, count in sorted(summary["by_status"].items()))
    progress.console.print(
        f"[dim]·[/dim] {summary['calls']} calls in {time.monotonic() - started:.1f} s ({outcomes}), all committed",
        highlight=False,
    )


async def _marts(service: Service, settings: Settings, progress: Progress) -> None:
    """Have the worker build the marts now, and wait until they hold what was just called.

    Raises:
        JobFailed: the build failed, or took longer than BUILD_TIMEOUT_S.
    """
    assert service.worker is not None
    asked = datetime.now(UTC)
    service.worker.build_marts_now()
    progress.add_task("building the marts with dbt", total=None)
    deadline = time.monotonic() + BUILD_TIMEOUT_S
    while time.monotonic() < deadline:
        async with borrowed(service.app.readers, settings) as connection:
            row = await connection.fetchrow("SELECT last_build_started_at, last_build_ok FROM analytics.mart_status")
        if row["last_build_started_at"] is not None and row["last_build_started_at"] > asked:
            progress.console.print("[dim]·[/dim] the marts are built", highlight=False)
            return
        if row["last_build_ok"] is False:
            raise JobFailed("dbt could not build the marts; the worker's log above says why")
        await asyncio.sleep(BUILD_POLL_S)
    raise JobFailed(f"dbt did not build the marts within {BUILD_TIMEOUT_S} s")
