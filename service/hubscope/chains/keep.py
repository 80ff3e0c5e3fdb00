"""How long chains are kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from hubscope.settings import Settings
from hubscope.store import Connection

# By the owner of the tables: nobody who serves may delete what happened.
_FORGET: Final = "DELETE FROM hub.enhanced_tool_chain_executions WHERE status <> 'running' AND updated_at < $1"
_UNSEAL: Final = """
UPDATE hub.enhanced_tool_chain_executions
SET
    sealed_definition = NULL,
    not_resumable_because = coalesce(not_resumable_because, 'what it needs was kept for its days')
WHERE sealed_definition IS NOT NULL AND status <> 'running' AND updated_at < $1
"""
_UNSEAL_STEPS: Final = """
UPDATE hub.enhanced_chain_execution_steps AS step
SET sealed_result = NULL
FROM hub.enhanced_tool_chain_executions AS chain
WHERE
    step.sealed_result IS NOT NULL
    AND chain.tenant_id = step.tenant_id
    AND chain.chain_id = step.chain_id
    AND chain.status <> 'running'
    AND chain.updated_at < $1
"""


async def forget_chains(connection: Connection, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete chains past their days, and what older ones need to be resumed. Wants a connection under the owner role.

    Returns:
        How many of each.
    """
    deleted = await connection.execute(_FORGET, now - timedelta(days=settings.retention_chain_days))
    horizon = now - timedelta(days=settings.chain_resume_days)
    async with connection.transaction():
        await connection.execute(_UNSEAL_STEPS, horizon)
        closed = await connection.execute(_UNSEAL, horizon)
    return {"deleted": int(deleted.split()[-1]), "no_longer_resumable": int(closed.split()[-1])}
