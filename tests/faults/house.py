"""A real service over a real PostgreSQL of its own, with a gate on both sides of it, and the ways to hurt them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx2
import psutil

from hubscope.app import migrate_store
from hubscope.embedded import EmbeddedDatabase
from hubscope.errors import HubscopeError
from hubscope.settings import Settings, SqlSettings
from hubscope.store import Connection, Roles, connect
from tests.events import tool_call
from tests.faults.gate import Gate
from tests.faults.ledger import Ledger, Verdict, rollup_differences
from tests.faults.producers import PATIENCE_S, Load, Make, ordinary

ROLE_PREFIX: Final = "hubscope_faults"
ROLES: Final = Roles.of(ROLE_PREFIX)
TEMPLATE: Final = "faults_template"
HONEST: Final = ("-m", "hubscope")
FOLD_PAUSE_S: Final = 0.1
LIMITS: Final = {
    "HUBSCOPE_POOL_CONNECTION_TIMEOUT": "500",
    "HUBSCOPE_COMMIT_TIMEOUT": "1000",
    "HUBSCOPE_DRAIN_TIMEOUT": "5000",
    "HUBSCOPE_COMMIT_MAX_EVENTS": "200",
    "LOG_LEVEL": "warning",
}
"""Little patience with the database, so that a fault shows soon."""

GONE: Final = (HubscopeError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a connection gives that is in the way of a fault."""


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"still waiting: {what}"
        await asyncio.sleep(0.02)


def _limit_files(processes: Sequence[psutil.Process], soft: int, hard: int) -> None:
    """RLIMIT_FSIZE of processes that run, in bytes; of those that have ended meanwhile there is nothing to limit."""
    shown = [str(limit) if limit != resource.RLIM_INFINITY else "unlimited" for limit in (soft, hard)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            user, group = process.uids().real, process.gids().real
            if user == os.geteuid():
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))
            else:  # root may do that to others only with a capability that containers lack: be the other
                command = ["prlimit", f"--pid={process.pid}", f"--fsize={':'.join(shown)}"]
                done = subprocess.run(command, user=user, group=group, extra_groups=[], capture_output=True, text=True)
                assert done.returncode == 0 or not process.is_running(), done.stderr


class Database:
    """A PostgreSQL that may be killed: fsync is on."""

    def __init__(self, data_dir: Path) -> None:
        self.server = EmbeddedDatabase(data_dir).attach()
        asyncio.run(self._make_template())

    async def _make_template(self) -> None:
        admin = await connect(self.server.dsn_of("postgres"), name="faults")
        try:
            await admin.execute(f"CREATE DATABASE {TEMPLATE}")
            dsn = self.server.dsn_of(TEMPLATE)
            await migrate_store(Settings.load(database_url=dsn, role_prefix=ROLE_PREFIX), dsn)
        finally:
            await admin.close()

    @property
    def socket(self) -> Path:
        """The Unix socket that it listens on."""
        query = parse_qs(urlsplit(self.server.dsn).query)
        return Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"

    @property
    def processes(self) -> list[psutil.Process]:
        """The postmaster, then its children."""
        pid = int((self.server.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def kill(self) -> None:
        """SIGKILL all of it at once."""
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    async def revive(self) -> None:
        """Start it again if it is dead; recovery included."""
        await asyncio.to_thread(self.server.revive)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP all of it while the block runs."""
        frozen = self.processes
        try:
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            yield
        finally:
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextmanager
    def files_no_longer_than(self, size: int) -> Iterator[None]:
        """While the block runs, no file can be written beyond this many bytes, as on a disk that is full."""
        limited = self.processes
        before, longest = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            _limit_files(limited, size, longest)
            yield
        finally:
            # Those that were started meanwhile have inherited the limit.
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                limited += self.processes
            _limit_files(limited, before, longest)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While the block runs, start it again whenever it has died, as a supervisor does."""
        stop = asyncio.Event()

        async def keep() -> None:
            while not stop.is_set():
                with contextlib.suppress(HubscopeError, OSError):
                    await self.revive()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 0.2)

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            stop.set()
            await task

    def close(self) -> None:
        """Stop it."""
        self.server.detach()


@dataclass
class Service:
    """A `hubscope serve` process, or another program that takes its arguments."""

    program: Sequence[str]
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    logs: list[Path] = field(default_factory=list)

    async def start(self) -> tuple[str, int]:
        """Start it and wait until it listens: where."""
        said = self.folder / f"stderr-{len(self.logs)}"
        self.logs.append(said)
        with said.open("wb") as stderr:
            self.process = process = subprocess.Popen(
                [sys.executable, *self.program, "serve"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=self.folder,
            )
        pattern = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
        await until(lambda: bool(pattern.search(said.read_text())) or process.poll() is not None, "the service listens")
        found = pattern.search(said.read_text())
        assert found, said.read_text()
        return "127.0.0.1", int(found[1])

    async def stop(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end: its exit code."""
        assert self.process is not None
        process = self.process
        process.send_signal(number)
        await until(lambda: process.poll() is not None, f"the service ends after {number.name}")
        return process.returncode

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)

    @property
    def said(self) -> str:
        return "\n".join(log.read_text() for log in self.logs)


@dataclass
class House:
    """Service, database, and the gates: clients -> front -> service -> back -> database.

    Attributes:
        dsn: URL of the store, past the gate.
        ledger: what producers know.
    """

    database: Database
    dsn: str
    front: Gate
    back: Gate
    service: Service
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def url(self) -> str:
        """Of the service, through the gate."""
        return f"http://127.0.0.1:{self.front.port}"

    def load(self, make: Make = ordinary) -> Load:
        return Load(self.url, self.ledger, make=make)

    async def restart(self) -> None:
        """Start the service again after its end."""
        self.front.target = await self.service.start()

    async def connect(self, role: str | None = None) -> Connection:
        """A connection of our own, past the gate."""
        return await connect(self.dsn, role=role, name="faults")

    @asynccontextmanager
    async def folding(self) -> AsyncIterator[None]:
        """While the block runs, rollups are folded all the time, as the worker does, whatever becomes of it."""

        async def fold() -> None:
            while True:
                with contextlib.suppress(*GONE):
                    connection = await self.connect(ROLES.worker)
                    try:
                        while True:
                            await connection.fetchval("SELECT rollup.fold($1)", 20, timeout=5)
                            await asyncio.sleep(FOLD_PAUSE_S)
                    finally:
                        connection.terminate()
                await asyncio.sleep(FOLD_PAUSE_S)

        task = asyncio.create_task(fold())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def quiet(self) -> Verdict:
        """With no fault and no load any more: is all well again, and was anything lost?

        Raises:
            AssertionError: the service does not recover, or a fresh event does not get through.
        """
        await self._ready()
        connection = await self.connect()
        try:
            await self._fresh_event()
            verdict = await self.ledger.verdict(connection)
            while await connection.fetchval("SELECT rollup.fold()"):
                pass
            verdict.rollups += await rollup_differences(connection)
        finally:
            await connection.close()
        return verdict

    async def _ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        async with httpx2.AsyncClient(trust_env=False, timeout=5) as http:
            while True:
                with contextlib.suppress(httpx2.HTTPError):
                    answer = await http.get(f"{self.url}/readyz")
                    if answer.status_code == 200:
                        return
                assert asyncio.get_running_loop().time() < deadline, f"not ready again: {self.service.said[-2000:]}"
                await asyncio.sleep(0.05)

    async def _fresh_event(self) -> None:
        """It gets through at the first try, is counted, and the report shows it."""
        event = tool_call(tool=f"fresh {uuid.uuid4().hex}")
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
            unknown = self.ledger.send([event])
            answer = await http.post(f"{self.url}/v1/events", json=[event])
            assert answer.status_code == 200, answer.text
            assert answer.json() == {"accepted": 1, "duplicates": 0, "rejected": []}
            self.ledger.acknowledge([event], unknown, answer.json())
            report = await http.get(f"{self.url}/api/v1/analytics", params={"top": 100})
            assert report.status_code == 200, report.text
        assert [row["usage"]["calls"] for row in report.json()["top_tools"] if row["tool"] == event["tool"]] == [1]


@asynccontextmanager
async def house(database: Database, program: Sequence[str] = HONEST) -> AsyncIterator[House]:
    """A service over a new store of this server."""
    await database.revive()
    name = f"f_{uuid.uuid4().hex[:12]}"
    admin = await connect(database.server.dsn_of("postgres"), name="faults")
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    finally:
        await admin.close()
    with tempfile.TemporaryDirectory(prefix="hubscope-faults-") as folder:
        async with Gate(database.socket, seed=1) as back, Gate(None, seed=2) as front:
            known = {*Settings.variables(), *SqlSettings.variables()}
            environment = {key: value for key, value in os.environ.items() if key not in known} | LIMITS
            environment |= {
                "HUBSCOPE_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{back.port}/{name}?sslmode=disable",
                "HUBSCOPE_ROLE_PREFIX": ROLE_PREFIX,
                "HEALTH_PORT": "0",
            }
            service = Service(program, environment, Path(folder))
            one = House(database, database.server.dsn_of(name), front, back, service)
            try:
                await one.restart()
                yield one
            finally:
                service.end()
    await database.revive()
    admin = await connect(database.server.dsn_of("postgres"), name="faults")
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        await admin.close()
