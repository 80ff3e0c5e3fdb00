"""docs/how-to/record-from-node.md: its code, run as it stands by a real Node, into the service itself."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubscope.app import App
from hubscope.store import Connection
from tests.conftest import held
from tests.integration.entrypoints.test_events import listening
from tests.scripted_service import Service, serving
from tests.timescale.server import NODE

pytestmark = [pytest.mark.integration, pytest.mark.bridge]

DEADLINE_S = 60.0
PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/record-from-node.md").read_text(encoding="utf-8")
CALLS = """
import { record, recorded, flushed } from './hubscope.mjs';
class TimeoutError extends Error { name = 'TimeoutError' }
await recorded('fs', 'read', async () => ({ content: [] }), { client: 'claude' });
await recorded('fs', 'write', async () => ({ isError: true }));
await recorded('fs', 'hang', async () => { throw new TimeoutError('too late') }).catch(() => {});
await recorded('fs', 'break', async () => { throw new RangeError('no') }).catch(() => {});
record({ type: 'server_event', server: 'fs', source: 'connection', outcome: 'connected', state: 'up' });
await flushed();
console.log('flushed');
"""


def code(name: str) -> str:
    """A file of the page."""
    (found,) = re.findall(rf"```js\n// {name}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


async def node(folder: Path, script: str, url: str) -> str:
    (folder / "hubscope.mjs").write_text(code("hubscope.mjs"))
    (folder / "main.mjs").write_text(script)
    environment = {"PATH": os.environ["PATH"], "HUBSCOPE_URL": url}
    process = await asyncio.create_subprocess_exec(
        NODE, "main.mjs", cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert (process.returncode, err) == (0, b"")
    return out.decode()


@pytest.fixture
async def service_url(app: App) -> AsyncIterator[str]:
    async with held(listening(app)) as port:
        yield f"http://127.0.0.1:{port}"


async def test_calls_of_a_node_hub_are_recorded(service_url: str, admin: Connection, tmp_path: Path) -> None:
    assert await node(tmp_path, CALLS, service_url) == "flushed\n"
    rows = await admin.fetch("SELECT * FROM raw.tool_calls ORDER BY time, event_id")
    assert {(row["tool"], row["status"], row["error_type"], row["client"]) for row in rows} == {
        ("read", "ok", None, "claude"),
        ("write", "error", "tool_error", ""),
        ("hang", "timeout", "TimeoutError", ""),
        ("break", "error", "RangeError", ""),
    }
    assert await admin.fetchval("SELECT state FROM raw.server_events") == "up"


async def test_a_span_of_a_node_hub_is_a_call(service_url: str, admin: Connection, tmp_path: Path) -> None:
    assert (await node(tmp_path, code("span.mjs"), service_url)).startswith("200 ")
    (row,) = await admin.fetch("SELECT * FROM raw.tool_calls")
    assert (row["server"], row["tool"], row["status"], row["duration_ms"]) == ("filesystem", "read_file", "ok", 12.0)


async def test_a_node_hub_sends_the_same_ids_again(tmp_path: Path) -> None:
    with serving(Service(read=lambda event: event)) as service:
        service.script = [(503, {"Retry-After": "0"}, {}), (500, {}, {})]
        seen: list[list[str]] = []
        answer = service.answer

        def watched(headers: dict[str, str], body: bytes) -> object:
            # The page posts an array, which the scripted service reads by the line.
            events = re.findall(rb'"event_id":"([^"]+)"', body)
            seen.append([each.decode() for each in events])
            return (
                answer(headers, b"") if service.script else (200, {}, {"accepted": 5, "duplicates": 0, "rejected": []})
            )

        service.answer = watched  # type: ignore[method-assign,assignment]
        assert await node(tmp_path, CALLS, service.url) == "flushed\n"
    assert len(seen) == 3
    assert len(seen[0]) == 5
    assert seen[0] == seen[1] == seen[2]


async def test_a_node_hub_whose_hubscope_is_away_is_not_held_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    script = CALLS.replace("await flushed();", "").replace(
        "console.log('flushed')", "console.log('on'); process.exit()"
    )
    assert await node(tmp_path, script, url) == "on\n"
