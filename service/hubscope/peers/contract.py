"""What other rooms know of the MCP servers of the hub: they are called by name, and have tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from hubscope.access import Principal

Progress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Called with how far a call is, the whole (None when the server does not know it) and the server's own words."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a tool answered.

    Attributes:
        is_error: the tool said that it failed (`isError`). A call that never got an answer raises instead.
        content: the content blocks as on the wire: {"type": "text", "text": ...} and so on. Untrusted.
        structured: `structuredContent`, if the tool gave any. Untrusted.
        duration_ms: from sending the request to having the whole answer.
        error_type: "tool_error" when `is_error`.
        message: the first text of a failed tool's answer. Untrusted, not redacted.
    """

    is_error: bool
    content: list[dict[str, Any]]
    structured: Any | None
    duration_ms: float
    error_type: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ToolInfo:
    """A tool as its server describes it. All of it is untrusted.

    Attributes:
        annotations: as on the wire (`readOnlyHint`, `idempotentHint`, ...); empty when the server gave none.
        input_schema: JSON Schema of its arguments.
    """

    name: str
    description: str = ""
    annotations: Mapping[str, Any] = field(default_factory=dict)
    input_schema: Mapping[str, Any] = field(default_factory=dict)

    @property
    def read_only(self) -> bool:
        """Whether the server says that the tool changes nothing; false when it does not say (MCP's default)."""
        return self.annotations.get("readOnlyHint") is True

    @property
    def idempotent(self) -> bool:
        """Whether the server says that a second call with the same arguments changes nothing more.

        False when it does not say (MCP's default). A read-only tool is idempotent whatever it says.
        """
        return self.read_only or self.annotations.get("idempotentHint") is True


class Peers(Protocol):
    """The MCP servers that a tenant can call."""

    async def call(
        self,
        principal: Principal,
        server: str,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float,
        chain_id: str | None = None,
        step_index: int | None = None,
        progress: Progress | None = None,
    ) -> CallResult:
        """Call a tool, and record the call.

        Cancelling the awaiting task cancels the call upstream (`notifications/cancelled`).

        Args:
            principal: in whose name; only its tenant's servers are seen.
            server: its id.
            timeout_s: from now to the answer, waiting for a connection or a free place included.
            chain_id, step_index: for a step of a tool chain; they are recorded with the call.
            progress: called for each progress notification of the server.

        Raises:
            UnknownServer: there is no such server.
            UnknownTool: the server has no such tool.
            UpstreamTimeout: no answer in time; whether the tool ran is not known.
            UpstreamFailed: the server cannot be reached, broke off, or answered with a protocol error. Its `sent`
                tells whether the request may have reached the server.
        """

    async def tools(self, principal: Principal, server: str) -> list[ToolInfo]:
        """The tools of a server, as it lists them now or said recently.

        Raises:
            UnknownServer, UpstreamTimeout, UpstreamFailed.
        """
