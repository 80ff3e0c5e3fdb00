"""What is tested here runs on the loop that the service runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from hubscope.entrypoints.loop import new_event_loop
from hubscope.settings import Settings
from tests.integration.entrypoints.served import Serve, Service, server


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """One loop, and no mark of it in the names of the tests."""
    return {"served": new_event_loop}


@pytest.fixture
def serve(settings: Settings, database: str) -> Serve:
    return server(settings, database, Service)
