"""Chains over real servers and a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hubscope.access import LOCAL
from hubscope.app import App, opened
from hubscope.chains import ChainReport
from hubscope.settings import Settings
from tests.chain_peers import StdioPeers, stdio_peers
from tests.conftest import held

KEY = "k" * 40


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As everywhere, with a key to seal what chains need to go on."""
    return settings.model_copy(update={"encryption_key": KEY, "chain_lease_ms": 3_000})


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[StdioPeers]:
    """The server `work` (tests.chain_server) over `tmp_path`."""
    async with held(stdio_peers(tmp_path)) as running:
        yield running


@pytest.fixture
async def app(settings: Settings, database: str, peers: StdioPeers) -> AsyncIterator[App]:
    """The service with chains."""
    async with opened(settings, database, called=peers) as opened_app:
        yield opened_app


def step(tool: str, key: str = "", **more: Any) -> dict[str, Any]:
    """A step that calls the work server; its key is its id, unless it has another."""
    arguments = more.pop("arguments", {})
    if key:
        arguments = {"key": key, **arguments}
        more = {"id": key, **more}
    return {"server_name": "work", "tool_name": tool, "arguments": arguments, **more}


async def run(app: App, *steps: dict[str, Any], **more: Any) -> ChainReport:
    """Run a chain in the name of this machine."""
    assert app.chains is not None
    return await app.chains.run(LOCAL, list(steps), **more)


def statuses(report: ChainReport) -> dict[str, str]:
    """id -> status, with the reason where it was skipped."""
    return {one.id: one.status + (f" ({one.reason})" if one.reason else "") for one in report.steps}
