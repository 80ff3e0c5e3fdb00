"""For hubs written in Python: record what happens, in the background, and lose nothing that memory has room for.

    async with bootstrap(my_hub, name="my-hub"):      # every my_hub.call_tool(...) is recorded from here on
        await my_hub.run()

or, by hand, with `Client`:

    async with Client("http://127.0.0.1:3401") as hub:
        with hub.call("filesystem", "list_directory", client="claude"):
            result = await session.call_tool("list_directory", {...})

`check_integration_health()` says whether what is recorded arrives and is answered from.
"""

from hubscope.client.health import IntegrationHealth, check_integration_health
from hubscope.client.recorder import DEFAULT_URL, Call, Client, Totals
from hubscope.client.wiring import Integration, bootstrap

__all__ = [
    "DEFAULT_URL",
    "Call",
    "Client",
    "Integration",
    "IntegrationHealth",
    "Totals",
    "bootstrap",
    "check_integration_health",
]
