"""Tool chains over HTTP: the REST twins of hub__chain_tools_enhanced under /api/v1/chains."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from hubscope.chains import ChainAnalytics, ChainReport, Chains, ChainSummary
from hubscope.chains.service import LIST_MAX
from hubscope.entrypoints.admission import identify
from hubscope.entrypoints.chain_tools import CHAIN_SCHEMA, OPTIONS_SCHEMA, asked
from hubscope.insight.window import FORMS, parse_range

Status = Literal["running", "completed", "failed", "cancelled", "timed_out", "interrupted"]


class ChainRequest(BaseModel):
    """A chain to run: the parameters of hub__chain_tools_enhanced."""

    model_config = ConfigDict(extra="forbid")

    chain: Annotated[Any, WithJsonSchema(CHAIN_SCHEMA)]
    execution_options: Annotated[Any, WithJsonSchema(OPTIONS_SCHEMA)] = None
    variables: Annotated[Any, WithJsonSchema({"type": "object"})] = None
    metadata: Annotated[Any, WithJsonSchema({"type": "object"})] = None
    enable_tracking: Annotated[bool, Field(alias="enableTracking")] = True
    enable_analytics: Annotated[bool, Field(alias="enableAnalytics")] = True


class ResumeRequest(BaseModel):
    """How to go on with a chain."""

    model_config = ConfigDict(extra="forbid")

    retry_unknown: Annotated[bool, Field(alias="retryUnknown")] = False


def routes(chains: Chains) -> APIRouter:
    """The routes; all of them ask for the scope `chains` (`admission.RIGHTS`)."""
    router = APIRouter(prefix="/api/v1/chains", tags=["chains"])

    @router.post("", summary="Run a chain; the REST twin of hub__chain_tools_enhanced")
    async def run(request: Request, body: ChainRequest) -> ChainReport:
        return await _unless_gone(
            request,
            asked(
                chains,
                identify(request.scope),
                chain=body.chain,
                execution_options=body.execution_options,
                variables=body.variables,
                metadata=body.metadata,
                tracking=body.enable_tracking,
                analytics=body.enable_analytics,
                resume=None,
                retry_unknown=False,
            ),
        )

    @router.get("", summary="The newest chains")
    async def newest(
        request: Request, status: Status | None = None, limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 50
    ) -> dict[str, list[ChainSummary]]:
        return {"chains": await chains.newest(identify(request.scope), status=status, limit=limit)}

    @router.get("/analytics", summary="Completion by step, parallel efficiency, slowest step over many chains")
    async def analytics(
        request: Request, timeRange: Annotated[str, Query(description=f"How far back: {FORMS}.")] = "7 days"
    ) -> ChainAnalytics:
        since = datetime.now(UTC) - parse_range(timeRange)
        return await chains.analytics(identify(request.scope), since=since, window=timeRange)

    @router.get("/{chain_id}", summary="How a chain is")
    async def state(request: Request, chain_id: str) -> ChainReport:
        return await chains.get(identify(request.scope), chain_id)

    @router.post("/{chain_id}/resume", summary="Go on with a chain that stopped")
    async def resume(
        request: Request, chain_id: str, body: Annotated[ResumeRequest | None, Body()] = None
    ) -> ChainReport:
        again = body.retry_unknown if body is not None else False
        return await _unless_gone(request, chains.resume(identify(request.scope), chain_id, retry_unknown=again))

    @router.post("/{chain_id}/cancel", status_code=202, summary="Ask for the end of a running chain")
    async def cancel(request: Request, chain_id: str) -> dict[str, str]:
        await chains.cancel(identify(request.scope), chain_id)
        return {"status": "cancelling"}

    return router


async def _unless_gone(request: Request, work: Coroutine[Any, Any, ChainReport]) -> ChainReport:
    """Work that is cancelled when the client goes away: whoever hangs up does not want it any more."""
    task = asyncio.ensure_future(work)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await task
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
