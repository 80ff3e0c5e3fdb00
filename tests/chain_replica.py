"""One replica of the service, as a process that a test can kill: `python -m tests.chain_replica FOLDER`.

The store and everything else come from the environment; the tools are those of `tests.chain_server` over FOLDER. Prints
its port.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn

from hubscope.app import opened
from hubscope.entrypoints.http import asgi
from hubscope.settings import Settings
from tests.chain_peers import stdio_peers


async def main(folder: Path) -> None:
    """Serve until told to stop."""
    settings = Settings.load()
    assert settings.database_url is not None
    async with (
        stdio_peers(folder) as peers,
        opened(settings, settings.database_url, peers=peers) as app,
        asgi(app) as application,
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            config = uvicorn.Config(application, log_level="warning", lifespan="off")
            await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
