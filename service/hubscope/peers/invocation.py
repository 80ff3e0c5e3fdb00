"""A request to a registered server and its answer, in the shapes that clients of the federation API know. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hubscope.errors import InvalidParameter
from hubscope.peers.registration import duration

METHODS: Final = frozenset(
    {
        "ping",
        "tools/call",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "prompts/list",
        "prompts/get",
        "completion/complete",
    }
)
"""What `invoke` passes on by its MCP name; a method without a slash that is not here is a tool's name."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What `invoke` was asked: the request of the federation API (MCPRequest), checked.

    Attributes:
        method: an MCP method, or a tool's name.
        timeout_s: how long it may take (`metadata.timeout`); None leaves it to the settings.
    """

    id: str
    method: str
    params: Mapping[str, Any]
    timeout_s: float | None = None

    @classmethod
    def of(cls, body: Mapping[str, Any], longest_s: float) -> Invocation:
        """From the body of a request.

        Raises:
            InvalidParameter.
        """
        unknown = sorted(body.keys() - {"id", "jsonrpc", "method", "params", "metadata"})
        if unknown:
            raise InvalidParameter(
                f"{unknown[0][:80]!r} is no field of a request (allowed: id, method, params, metadata)"
            )
        given, method = body.get("id"), body.get("method")
        params, metadata = body.get("params"), body.get("metadata")
        if given is not None and (not isinstance(given, str | int) or len(str(given)) > 200):
            raise InvalidParameter("id: a text or number of at most 200 characters")
        if not isinstance(method, str) or not 1 <= len(method) <= 200 or not method.isprintable():
            raise InvalidParameter("method: the name of a tool, or of an MCP method such as tools/list")
        if "/" in method and method not in METHODS:
            raise InvalidParameter(
                f"method: {method!r} cannot be passed on (allowed: the name of a tool, {', '.join(sorted(METHODS))}; a"
                " tool with a slash in its name is called by tools/call)"
            )
        if params is not None and not isinstance(params, Mapping):
            raise InvalidParameter("params: an object")
        if metadata is not None and not isinstance(metadata, Mapping):
            raise InvalidParameter("metadata: an object")
        timeout_s = None
        asked = (metadata or {}).get("timeout")
        if asked is not None:
            try:
                timeout_s = duration(asked)
            except ValueError:
                raise InvalidParameter('metadata.timeout: a length of time such as "10s"') from None
            if not 0 < timeout_s <= longest_s:
                raise InvalidParameter(
                    f"metadata.timeout: more than 0 and at most {longest_s:g}s (HUBSCOPE_PEER_MAX_TIMEOUT)"
                )
        return cls(str(given) if given not in (None, "") else f"req_{time.time_ns()}", method, params or {}, timeout_s)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to `invoke`: the shape that clients of the federation API know.

    Attributes:
        result: the MCP result as the server gave it.
        error: the server's own JSON-RPC error; then there is no result.
    """

    id: str
    server_id: str
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    duration_ms: float = 0.0

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        shown: dict[str, Any] = {"id": self.id}
        if self.error is not None:
            shown["error"] = self.error
        else:
            shown["result"] = self.result
        shown["meta"] = {"server_id": self.server_id, "duration_ms": round(self.duration_ms, 3)}
        return shown
