"""One replica of the service, as a process that a test can kill: `python -m tests.chain_replica FOLDER`.

The store and everything else come from the environment; the tools are those of `tests.chain_server` over FOLDER. Prints
its address.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from hubscope.entrypoints.serve import listen, serving
from hubscope.settings import Settings
from tests.chain_peers import stdio_peers


async def main(folder: Path) -> None:
    """Serve until told to stop."""
    settings = Settings.load()
    assert settings.database_url is not None
    listener = listen(settings.model_copy(update={"port": 0}))
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with (
        stdio_peers(folder) as peers,
        serving(settings, settings.database_url, listener, peers=peers) as (address, _),
    ):
        print(address, flush=True)
        await told.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
