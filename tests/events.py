"""Events for tests: the smallest valid one of a type, changed as a test needs."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any


def tool_call(**changes: Any) -> dict[str, Any]:
    """A tool_call of now that every check accepts."""
    return {
        "type": "tool_call",
        "event_id": str(uuid.uuid4()),
        "time": datetime.now(UTC).isoformat(),
        "server": "filesystem",
        "tool": "list_directory",
        "status": "ok",
        "duration_ms": 12.5,
    } | changes


def server_event(**changes: Any) -> dict[str, Any]:
    """A server_event of now that every check accepts."""
    return {
        "type": "server_event",
        "event_id": str(uuid.uuid4()),
        "time": datetime.now(UTC).isoformat(),
        "server": "filesystem",
        "source": "connection",
        "outcome": "connected",
        "state": "up",
    } | changes
