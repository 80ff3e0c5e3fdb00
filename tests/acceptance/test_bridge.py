"""`hubscope bridge` between the real mcp-hub program and a real service: what happens in the hub is in the database."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hubscope.store import Connection
from tests.acceptance.test_wrap import DEADLINE_S, Hub, until
from tests.mcp_hub.program import TIME, running

pytestmark = [pytest.mark.acceptance, pytest.mark.bridge]


@pytest.fixture
def service(database: str, tmp_path: Path) -> Iterator[Hub]:
    made = Hub(database, tmp_path)
    made.start()
    yield made
    made.kill()


@contextmanager
def bridge(service: Hub, url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The bridge as a process."""
    command = [sys.executable, "-m", "hubscope", "bridge", url, "--name", "mine"]
    environment = service.environment(HUBSCOPE_BRIDGE_POLL_SECONDS="1", HUBSCOPE_BRIDGE_PROBE_SECONDS="2")
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_server_killed_and_a_hub_started_again_are_in_the_database(
    service: Hub, admin: Connection, tmp_path: Path
) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()

    async def rows(condition: str) -> list[Any]:
        query = f"SELECT * FROM raw.server_events WHERE hub = 'mine' AND server = 'time' AND {condition} ORDER BY time"

        async def there() -> bool:
            return bool(await admin.fetch(query))

        await until(there, condition)
        return list(await admin.fetch(query))

    async def told(name: str) -> None:
        async def there() -> bool:
            return bool(await admin.fetchval("SELECT count(*) FROM raw.hub_events WHERE name = $1", name))

        await until(there, name)

    with running(folder, {"time": {"command": TIME}}) as hub, bridge(service, hub.url, tmp_path / "log") as process:
        up, *_ = await rows("source = 'connection' AND state = 'up'")
        assert (up["tools"], up["transport"]) == (2, "stdio")
        assert up["valid_until"] > up["time"]
        await rows("source = 'probe' AND state = 'up'")
        await asyncio.to_thread(hub.kill, "mcp-server-time")
        await rows("source = 'connection' AND state = 'down' AND outcome = 'transport_closed'")
        await asyncio.to_thread(hub.stop)
        await told("hub_away")
        await asyncio.to_thread(hub.start)
        await told("hub_back")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0
    await told("hub_detached")
    said = (tmp_path / "log").read_text()
    assert "attached to mcp-hub 4.2.1" in said
    assert "the hub is away" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "URL is not the address of an mcp-hub"),
        (["http://user:pw@127.0.0.1:1"], "URL is not the address of an mcp-hub"),
        (["http://127.0.0.1:1", "--name", "a\nb"], "--name must be"),
        (["http://127.0.0.1:1", "--url", "nowhere"], "HUBSCOPE_URL is not the address of hubscope"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_clear_error(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hubscope", "bridge", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("hubscope: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
