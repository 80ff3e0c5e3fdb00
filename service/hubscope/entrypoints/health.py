"""/health in the shape that spec 004 gives it, /livez and /readyz."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psutil

import hubscope
from hubscope.app import App

_MEGABYTE = 1024 * 1024


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:.1f}MB"


async def health(app: App, *, whole: bool = True) -> tuple[int, dict[str, Any]]:
    """Status code and body: 200 healthy, 503 with the database away. Strangers are told no more than the status.

    CPython does not tell how much of its heap is in use. heap_total is the resident memory that belongs to no file and
    to no other process (rss - shared); heap_used is what would be given back if the process ended (unique set size).
    """
    connected = await app.reachable()
    if not whole:
        return (200 if connected else 503), {"status": "healthy" if connected else "unhealthy", "service": "hubscope"}
    process = psutil.Process()
    with process.oneshot():
        memory = process.memory_info()
        unique = process.memory_full_info().uss
    size, idle = app.readers.get_size(), app.readers.get_idle_size()
    return (200 if connected else 503), {
        "status": "healthy" if connected else "unhealthy",
        "service": "hubscope",
        "version": hubscope.__version__,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "database": "connected" if connected else "disconnected",
        "connection_pool": {"total": size, "active": size - idle, "idle": idle},
        "uptime": int(app.uptime_s),
        "memory_usage": {
            "rss": _megabytes(memory.rss),
            "heap_used": _megabytes(min(unique, memory.rss)),
            "heap_total": _megabytes(memory.rss - getattr(memory, "shared", 0)),
        },
        "engine": app.engine,
        "engine_reason": app.engine_reason,
        "access": await app.access(),
    }
