"""`hubscope bridge URL`: attached to a running mcp-hub (npm `mcp-hub`), which needs no change for it.

    link      the hub's event stream and REST API: bounded, cheap, may fail
    sse       the stream's bytes into events; those nobody reads (logs) are never put together
    seen      what of the hub's answers is taken: an allow-list, so that no secret in them gets further than the decoder
    watch     what was seen, into events of envelope version 1. Pure: told the time, does no I/O
    run       the loop: poll, follow, probe, send

The hub tells of no tool call, neither on its stream nor in its answers: calls are captured by `hubscope wrap`.
"""

from hubscope.bridge.run import Options, run

__all__ = ["Options", "run"]
