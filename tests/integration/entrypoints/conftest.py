"""What is tested here runs on the loop that the service runs on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hubscope.entrypoints.loop import new_event_loop
from hubscope.entrypoints.serve import listen, serving
from hubscope.settings import Settings
from tests.conftest import held
from tests.integration.entrypoints.served import Serve, Service
from tests.keys import PEPPER


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """One loop, and no mark of it in the names of the tests."""
    return {"served": new_event_loop}


@pytest.fixture
def serve(settings: Settings, database: str) -> Serve:
    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[Service]:
        changed = settings.model_copy(update={"port": 0, "key_pepper": PEPPER} | changes)
        listener = listen(changed)
        try:
            async with held(serving(changed, database, listener)) as (url, app):
                yield Service(url, app)
        finally:
            listener.close()

    return start
