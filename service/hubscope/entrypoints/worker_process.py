"""The worker as a child process of `up` and `demo`: started, started again when it dies, ended with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from hubscope.settings import Settings

log = structlog.get_logger("hubscope.serve")

STOP_TIMEOUT_S: Final = 15
RESTART_PAUSE_S: Final = 1.0
"""Before the first new start; doubled after each one that did not last, up to the longest."""
RESTART_PAUSE_MAX_S: Final = 60.0
LASTED_S: Final = 60.0
"""A worker that lived so long died of something new: the pause begins anew."""


class WorkerProcess:
    """A worker that is kept alive. `pid` is the process that runs now."""

    def __init__(self, settings: Settings, dsn: str) -> None:
        log_format = settings.log_format
        if log_format == "auto":
            log_format = "console" if sys.stderr.isatty() else "json"
        self._environment = os.environ | {
            "HUBSCOPE_DATABASE_URL": dsn,
            "HUBSCOPE_LOG_FORMAT": log_format,
            "LOG_LEVEL": settings.log_level,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        assert self._process is not None
        return self._process.pid

    def build_marts_now(self) -> None:
        """Ask for a build outside the timetable; a worker that is just being started builds anyway."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)

    async def start(self) -> None:
        """Start it. It ends by itself when we die and its input closes."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hubscope",
            "worker",
            "--stop-with-parent",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,  # Ctrl-C reaches us; we end the worker in order
        )

    async def keep(self) -> None:
        """Start it again whenever it ends; runs until cancelled."""
        pause = RESTART_PAUSE_S
        while True:
            assert self._process is not None
            started = time.monotonic()
            code = await self._process.wait()
            if time.monotonic() - started > LASTED_S:
                pause = RESTART_PAUSE_S
            log.error("worker died, starting it again", exit_code=code, pause_s=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RESTART_PAUSE_MAX_S)
            await self.start()

    async def stop(self) -> None:
        """End it in order, or at once if it takes too long."""
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        if process.stdin is not None:
            process.stdin.close()


@asynccontextmanager
async def worker_process(settings: Settings, dsn: str) -> AsyncIterator[WorkerProcess]:
    """A worker for as long as the block runs."""
    worker = WorkerProcess(settings, dsn)
    await worker.start()
    keeping = asyncio.create_task(worker.keep(), name="worker process")
    try:
        yield worker
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await worker.stop()
