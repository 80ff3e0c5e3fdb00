"""The real service on a real socket, and raw conversations with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from hubscope.app import App
from hubscope.entrypoints.serve import listen, serving
from hubscope.settings import Settings
from tests.conftest import held
from tests.keys import PEPPER

PATIENCE_S: Final = 20.0


class Service:
    """A service that listens."""

    def __init__(self, url: str, app: App) -> None:
        self.app = app
        self.port = urlsplit(url).port or 0

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, **options)

    async def say(self, *parts: str | bytes) -> bytes:
        """Send this, and read until the service closes."""
        reader, writer = await self.connect()
        for part in parts:
            writer.write(part.encode("latin-1") if isinstance(part, str) else part)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    def cut(self, reason: str) -> float:
        return (
            self.app.instruments.registry.get_sample_value("hubscope_http_connections_cut_total", {"reason": reason})
            or 0
        )


S = TypeVar("S", bound=Service)
Serve = Callable[..., AbstractAsyncContextManager[Service]]
"""Starts one with settings changed as the test needs."""


def server(
    settings: Settings, database: str, kind: Callable[[str, App], S], **usual: Any
) -> Callable[..., AbstractAsyncContextManager[S]]:
    """What starts services of a kind, with these settings unless the test needs others."""

    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[S]:
        changed = settings.model_copy(update={"port": 0, "key_pepper": PEPPER} | usual | changes)
        listener = listen(changed)
        try:
            async with held(serving(changed, database, listener)) as (url, app):
                yield kind(url, app)
        finally:
            listener.close()

    return start


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer[9:12])


def code(answer: bytes) -> str:
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["code"])
