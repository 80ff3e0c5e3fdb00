"""One replica of the service, as a process that a test can kill: `python -m tests.chain_replica`.

Everything comes from the environment, its MCP servers too (HUBSCOPE_SERVERS_FILE). Prints its address.
"""

from __future__ import annotations

import asyncio
import signal

from hubscope.entrypoints.serve import listen, serving
from hubscope.settings import Settings


async def main() -> None:
    """Serve until told to stop."""
    settings = Settings.load()
    assert settings.database_url is not None
    listener = listen(settings.model_copy(update={"port": 0}))
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with serving(settings, settings.database_url, listener) as (address, _):
        print(address, flush=True)
        await told.wait()


if __name__ == "__main__":
    asyncio.run(main())
