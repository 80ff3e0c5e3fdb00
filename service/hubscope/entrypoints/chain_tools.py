"""Tool chains for MCP clients: hub__chain_tools_enhanced."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field, WithJsonSchema

from hubscope.access import Principal
from hubscope.chains import ChainReport, Chains, as_markdown
from hubscope.chains.plan import ID, MAX_ATTEMPTS, RETRYABLE
from hubscope.errors import HubscopeError, InvalidChain, InvalidParameter

_DURATION: Final = {
    "anyOf": [
        {"type": "number", "minimum": 1},
        {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?\\s*(ms|s|m|h)$"},
    ],
    "description": 'Milliseconds, or a text such as "30s".',
}
_RETRY: Final = {
    "type": "object",
    "additionalProperties": False,
    "description": "When a failed attempt is followed by another. A call of which nobody knows whether it ran is"
    " repeated only when the tool is idempotent or read-only.",
    "properties": {
        "max_attempts": {"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS, "default": 3},
        "backoff_ms": {"type": "integer", "minimum": 0, "default": 1000},
        "multiplier": {"type": "number", "minimum": 1, "maximum": 10, "default": 2},
        "max_backoff_ms": {"type": "integer", "minimum": 0, "default": 30000},
        "on": {"type": "array", "items": {"enum": list(RETRYABLE)}, "default": list(RETRYABLE)},
    },
}
_MAPPING: Final = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "additionalProperties": False, "properties": {"jmespath": {"type": "string"}}},
        {"type": "object", "additionalProperties": False, "properties": {"cel": {"type": "string"}}},
    ]
}
CHAIN_SCHEMA: Final[dict[str, Any]] = {
    "type": "array",
    "minItems": 1,
    "description": "The steps, in order. A step without depends_on runs after everything written before it; neighbours"
    " of one parallel_group run together; depends_on: [] waits for nothing.",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["server_name", "tool_name"],
        "properties": {
            "id": {"type": "string", "pattern": f"^{ID.pattern}$", "description": "Default: step_0, step_1, ..."},
            "server_name": {"type": "string"},
            "tool_name": {"type": "string"},
            "arguments": {"type": "object", "default": {}},
            "depends_on": {"type": "array", "items": {"type": "string"}, "description": "Ids of steps that it needs."},
            "parallel_group": {"type": "string"},
            "input_mapping": {
                "type": "object",
                "description": "Argument (or JSON Pointer) to where its value comes from: JMESPath, or {cel: ...}, over"
                " steps.<id>.result, variables and metadata.",
                "additionalProperties": _MAPPING,
            },
            "conditions": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "execute_if": {
                        "type": "string",
                        "description": "CEL, such as steps.list.status == 'completed' && variables.go",
                    }
                },
            },
            "timeout": _DURATION,
            "retry": _RETRY,
            "idempotent": {
                "type": "boolean",
                "description": "Whether a second call is harmless. Default: what the tool's annotations say.",
            },
        },
    },
}
OPTIONS_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "fail_fast": {
            "type": "boolean",
            "default": True,
            "description": "Start nothing new after a failure. Without, all runs that does not need the failed step.",
        },
        "timeout": _DURATION,
        "max_parallel": {"type": "integer", "minimum": 1},
        "retry": _RETRY,
    },
}
Formatted = Annotated[
    Literal["detailed", "json"],
    Field(description="Text of the answer: markdown (detailed) or JSON (json). structuredContent is in both."),
]
_OBJECT: Final[dict[str, Any]] = {"type": "object"}


def add_chain_tool(server: MCPServer[Any], chains: Chains, who: Callable[[Context[Any, Any]], Principal]) -> None:
    """Put hub__chain_tools_enhanced on a server; `who` tells in whose name a call is made."""

    # What a chain may be is checked by `chains.plan`, which tells everything that is wrong at once, with paths; so the
    # parameters have a schema for clients and no other check.
    @server.tool(
        name="hub__chain_tools_enhanced",
        title="Tool chain",
        description=(
            "Run tools of the hub's servers one after another or in parallel, with conditions, mappings of results to"
            " arguments, retries and timeouts. Checked as a whole before anything runs; every step is recorded; a chain"
            " that stopped can be resumed without repeating what is done."
        ),
        annotations=ToolAnnotations(
            title="Tool chain",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=False,
            open_world_hint=True,
        ),
    )
    async def chain_tools_enhanced(
        context: Context[Any, Any],
        chain: Annotated[Any, WithJsonSchema(CHAIN_SCHEMA)] = None,
        execution_options: Annotated[Any, WithJsonSchema(OPTIONS_SCHEMA)] = None,
        variables: Annotated[
            Any, WithJsonSchema({**_OBJECT, "description": "For conditions and mappings (an addition)."})
        ] = None,
        metadata: Annotated[
            Any, WithJsonSchema({**_OBJECT, "description": "Stored with the chain, and there for its expressions."})
        ] = None,
        enableTracking: Annotated[
            bool, Field(description="Write the chain down: without, it can be neither looked up nor resumed.")
        ] = True,
        enableAnalytics: Annotated[
            bool, Field(description="Add analytics to the answer, and count the chain in those of others.")
        ] = True,
        resume: Annotated[
            str | None,
            Field(description="Instead of `chain`: the id of a chain that stopped, to go on with it (an addition)."),
        ] = None,
        retryUnknown: Annotated[
            bool,
            Field(
                description="With `resume`: also call steps again of which nobody knows whether they ran (an addition)."
            ),
        ] = False,
        format: Formatted = "detailed",
    ) -> Annotated[CallToolResult, ChainReport]:
        async def progress(done: float, total: float, words: str) -> None:
            await context.report_progress(done, total, words)

        try:
            report = await asked(
                chains,
                who(context),
                chain=chain,
                execution_options=execution_options,
                variables=variables,
                metadata=metadata,
                tracking=enableTracking,
                analytics=enableAnalytics,
                resume=resume,
                retry_unknown=retryUnknown,
                progress=progress,
            )
        except InvalidChain as error:
            problems = "\n".join(f"- {one['path']}: {one['message']}" for one in error.context["problems"])
            raise ToolError(f"The chain was refused, nothing has run:\n{problems}") from error
        except HubscopeError as error:
            raise ToolError(error.detail) from error
        structured = report.model_dump(mode="json")
        text = json.dumps(structured, ensure_ascii=False) if format == "json" else as_markdown(report)
        return CallToolResult(
            content=[TextContent(type="text", text=text)],
            structured_content=structured,
            is_error=report.status != "completed",
        )


async def asked(
    chains: Chains,
    principal: Principal,
    *,
    chain: Any,
    execution_options: Any,
    variables: Any,
    metadata: Any,
    tracking: bool,
    analytics: bool,
    resume: str | None,
    retry_unknown: bool,
    progress: Any = None,
) -> ChainReport:
    """Run or resume, as asked.

    Raises:
        InvalidParameter: both, or neither.
    """
    if resume is not None:
        if any(one is not None for one in (chain, execution_options, variables, metadata)):
            raise InvalidParameter("resume: goes without chain, execution_options, variables and metadata")
        return await chains.resume(principal, resume, retry_unknown=retry_unknown, progress=progress)
    if chain is None:
        raise InvalidParameter("chain: a list of steps is needed, or resume with the id of a chain")
    return await chains.run(
        principal,
        chain,
        options=execution_options,
        variables=variables,
        metadata=metadata,
        tracking=tracking,
        analytics=analytics,
        progress=progress,
    )
