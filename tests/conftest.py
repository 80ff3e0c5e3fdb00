"""Fixtures: one PostgreSQL for the whole run, a migrated template, and a clone of it for each test that wants one.

The server is hubscope's own embedded one, shared by all pytest processes: the first starts it, the last stops it. It
runs with fsync off, in memory where there is room; tests that are about surviving a crash start a server of their own.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import asyncpg
import httpx2
import pytest

from hubscope.app import App, migrate_store, opened
from hubscope.embedded import EmbeddedDatabase
from hubscope.entrypoints.http import asgi
from hubscope.settings import Settings, SqlSettings
from hubscope.store import Connection, Roles, connect
from tests.aged import ROLE_PREFIX as ROLE_PREFIX
from tests.aged import aged as aged
from tests.aged import narrow as narrow
from tests.aged import narrow_worker as narrow_worker
from tests.aged import wide as wide

ROLES = Roles.of(ROLE_PREFIX)
TEMPLATE = "hubscope_template"
SERVER_BYTES = 4 * 1024**3
"""More than the server of a run ever takes."""
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _hermetic_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    for name in {*Settings.variables(), *SqlSettings.variables()}:
        monkeypatch.delenv(name, raising=False)
    # The shared server runs with fsync off.
    monkeypatch.setenv("HUBSCOPE_ALLOW_UNSAFE_DATABASE", "true")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A new folder that other accounts can enter: as root, PostgreSQL is another, and pytest's own is closed."""
    path = Path(tempfile.mkdtemp(prefix="hubscope-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _roomy() -> Path:
    """Memory where there is plenty of it: each test makes a database of a thousand files, which takes a disk ten to
    thirty times as long as the test itself may."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > SERVER_BYTES:
        return memory
    return Path(tempfile.gettempdir())


@pytest.fixture(scope="session")
def server(testrun_uid: str) -> Iterator[EmbeddedDatabase]:
    """The PostgreSQL of this run."""
    path = _roomy() / f"hubscope-tests-{testrun_uid[:16]}"
    database = EmbeddedDatabase(path, fsync=False).attach()
    yield database
    if database.detach():
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def template(server: EmbeddedDatabase) -> str:
    """Name of a migrated, empty database to clone."""

    async def make() -> None:
        admin = await connect(server.dsn_of("postgres"), name="tests")
        try:
            if await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate", TEMPLATE):
                return
            await admin.execute(f"CREATE DATABASE {TEMPLATE}")
            settings = Settings.load(database_url=server.dsn_of(TEMPLATE), role_prefix=ROLE_PREFIX)
            await migrate_store(settings, server.dsn_of(TEMPLATE))
            await admin.execute(f"ALTER DATABASE {TEMPLATE} IS_TEMPLATE true")
        finally:
            await admin.close()

    with open(server.data_dir / "template.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asyncio.run(make())
    return TEMPLATE


async def _database(server: EmbeddedDatabase, template: str | None) -> AsyncIterator[str]:
    name = f"t_{uuid.uuid4().hex[:12]}"
    admin = await connect(server.dsn_of("postgres"), name="tests")
    try:
        await admin.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        yield server.dsn_of(name)
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
async def empty_database(server: EmbeddedDatabase) -> AsyncIterator[str]:
    """URL of a database with nothing in it."""
    async for dsn in _database(server, None):
        yield dsn


@pytest.fixture
async def database(server: EmbeddedDatabase, template: str) -> AsyncIterator[str]:
    """URL of a migrated store with no events in it, for this test alone."""
    async for dsn in _database(server, template):
        yield dsn


@pytest.fixture
def settings(database: str) -> Settings:
    """Settings of a process over `database`."""
    return Settings.load(database_url=database, role_prefix=ROLE_PREFIX)


@pytest.fixture
async def admin(database: str) -> AsyncIterator[Connection]:
    """A superuser's connection to `database`."""
    connection = await connect(database, name="tests")
    yield connection
    await connection.close()


@pytest.fixture
async def reader(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to `database` under the reader role."""
    connection = await connect(database, role=ROLES.reader, name="tests")
    yield connection
    await connection.close()


@pytest.fixture
async def app(settings: Settings, database: str) -> AsyncIterator[App]:
    """The service over `database`."""
    async with opened(settings, database) as opened_app:
        yield opened_app


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx2.AsyncClient]:
    """An HTTP client of the service, in this process."""
    async with held(asgi(app)) as application:
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:3401") as http:
            yield http


@asynccontextmanager
async def held(block: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a block in one task of its own: pytest sets fixtures up and down in different ones, which anyio's
    cancel scopes do not allow."""
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        try:
            async with block as value:
                entered.set_result(value)
                await leave.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    task = asyncio.create_task(hold())
    try:
        yield await entered
    finally:
        leave.set()
        await task


def pytest_report_header() -> str:
    return f"hubscope tests run as uid {os.geteuid()}"


# Suites, minutes, and no skip in CI


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long each suite took, added up over the processes that ran it, and one line per fault (tests/faults)."""
    seconds: defaultdict[str, float] = defaultdict(float)
    tests: Counter[str] = Counter()
    told: list[str] = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                suite = report.nodeid.split("/")[1] if report.nodeid.count("/") > 1 else "contracts"
                seconds[suite] += report.duration
                tests[suite] += report.when == "call"
                if report.when == "call":
                    told += [f"fault: {value}" for name, value in report.user_properties if name == "fault"]
    for suite, count in sorted(tests.items()):
        terminalreporter.write_line(f"{suite:12} {count:4} tests {seconds[suite] / 60:6.2f} min")
    for line in sorted(told):
        terminalreporter.write_line(line)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI everything a test needs is there: a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line(f"{len(reporter.stats['skipped'])} skipped in CI: a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
