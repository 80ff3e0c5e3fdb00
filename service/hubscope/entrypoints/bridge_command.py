"""`hubscope bridge URL`: report on a running mcp-hub until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from hubscope import bridge
from hubscope.bridge.run import hub_address
from hubscope.entrypoints.serve import stop_on_signals
from hubscope.errors import InvalidSetting
from hubscope.settings import Settings
from hubscope.wrap.options import destination


def options(
    settings: Settings, hub_url: str, name: str, given: Mapping[str, str | None], environment: Mapping[str, str]
) -> bridge.Options:
    """What one bridge needs to know: the command line above the settings.

    Args:
        given: `url` and `api_key_file` of the command line.
        environment: where hubscope is and the key come from it alone, never from hubscope.toml.

    Raises:
        InvalidSetting: a value that is not allowed.
    """
    if len(name) > 200 or len(name.encode("utf-8", "replace")) > 600 or (name and not name.isprintable()):
        raise InvalidSetting("--name must be at most 200 printable characters (at most 600 bytes of UTF-8)")
    url, api_key = destination(given, environment)
    return bridge.Options(
        hub_url=hub_address(hub_url),
        url=url,
        api_key=api_key,
        name=name,
        poll_seconds=settings.bridge_poll_seconds,
        probe_seconds=settings.bridge_probe_seconds,
        probe=settings.bridge_probe,
        stream=settings.bridge_stream,
        timeout_ms=settings.bridge_timeout_ms,
        max_answer_bytes=settings.bridge_max_answer_bytes,
        max_event_bytes=settings.bridge_max_event_bytes,
        error_message_chars=settings.bridge_error_message_chars,
        buffer_max_bytes=settings.bridge_buffer_max_bytes,
    )


async def run(chosen: bridge.Options, tell: Callable[[str], None]) -> None:
    """Until a signal says stop; what waits is then sent."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    await bridge.run(chosen, stop, tell)
