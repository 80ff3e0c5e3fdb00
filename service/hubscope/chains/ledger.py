"""Where a running chain is written down: the spec's tables, under a lease."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from hubscope.access import Vault
from hubscope.chains.plan import Plan
from hubscope.chains.state import (
    ChainStatus,
    Counts,
    StepState,
    attempts_from,
    attempts_json,
    config_of,
    told,
)
from hubscope.errors import CannotUnseal, ChainLost, ChainNotResumable, DatabaseAway, Unavailable, UnknownChain
from hubscope.ids import uuid7
from hubscope.redact import redact_json
from hubscope.settings import Settings
from hubscope.store import Connection, Pool, borrowed, load

QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
RETRY_PAUSE_S: Final = 0.2
LAST_WRITE_S: Final = 5.0
"""How long the last words of a chain that was stopped may take."""

log = structlog.get_logger("hubscope.chains")


class Ledger(Protocol):
    """What a run tells about itself. Every method may raise ChainLost: then the run must stop calling tools."""

    async def write(self, state: StepState, counts: Counts, duration_ms: float) -> bool:
        """A step changed; returns only when that is committed. True when somebody asked to cancel the chain."""

    async def renew(self, duration_ms: float) -> bool:
        """The run is alive. True when somebody asked to cancel the chain."""

    async def finish(
        self, status: ChainStatus, states: list[StepState], counts: Counts, duration_ms: float, message: str | None
    ) -> None:
        """The run is over; nothing is written after this."""


class NoLedger:
    """For chains that are not to be tracked."""

    async def write(self, state: StepState, counts: Counts, duration_ms: float) -> bool:
        """Forget it."""
        return False

    async def renew(self, duration_ms: float) -> bool:
        """Nobody to tell."""
        return False

    async def finish(
        self, status: ChainStatus, states: list[StepState], counts: Counts, duration_ms: float, message: str | None
    ) -> None:
        """Nothing to close."""


@dataclass(slots=True)
class Taken:
    """A chain that was taken over to go on.

    Attributes:
        definition: chain, execution_options, variables, metadata, as first sent.
        states: as they were left.
        duration_ms: how long it has run before.
        runs: how often it was started, this time included.
        counts, before: how far it was, and its status.
    """

    ledger: StoreLedger
    definition: dict[str, Any]
    states: list[dict[str, Any]]
    duration_ms: float
    analytics: bool
    runs: int
    counts: Counts
    before: ChainStatus


class StoreLedger:
    """The ledger of one run of one chain.

    Args:
        pool: connections under the writer role.
        settings: lease, bounds.
        vault: seals what is needed to resume; None where there is no key.
        reads: indexes of steps that others read: without their results the chain cannot be resumed.
        kept_bytes: how much is sealed for the chain already.
    """

    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        *,
        tenant: str,
        chain_id: UUID,
        vault: Vault | None,
        reads: frozenset[int] = frozenset(),
        kept_bytes: int = 0,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._tenant = tenant
        self._chain_id = chain_id
        self._vault = vault
        self.reads = reads
        self._kept_bytes = kept_bytes
        self._owner = uuid7()
        self._turn = asyncio.Lock()
        self._lease_s = settings.chain_lease_ms / 1000
        self._until = time.monotonic() + self._lease_s
        self._written: dict[int, str] = {}
        self.not_resumable_because: str | None = None

    async def open(self, plan: Plan, definition: Mapping[str, Any], *, analytics: bool) -> None:
        """Write a new chain and its steps down.

        Raises:
            DatabaseAway: nothing was started.
        """
        text = json.dumps(definition, ensure_ascii=False).encode()
        sealed = None
        if self._vault is None:
            self.not_resumable_because = "there is no key to seal what it needs with (HUBSCOPE_ENCRYPTION_KEY)"
        elif len(text) > self._settings.chain_resume_bytes:
            self.not_resumable_because = _too_large("its definition", len(text), self._settings)
        else:
            sealed = self._vault.seal(text, tenant=self._tenant, purpose=_purpose(self._chain_id))
            self._kept_bytes = len(text)
        steps = [
            {
                "step_id": str(uuid7()),
                "step_index": step.index,
                "step_name": step.id,
                "server_name": step.server,
                "tool_name": step.tool,
                "parallel_group": step.group,
                "depends_on": sorted(step.needs),
                "comes_after": sorted(step.after),
            }
            for step in plan.steps
        ]
        config = json.dumps(config_of(plan), ensure_ascii=False)
        self._until = time.monotonic() + self._lease_s
        try:
            async with borrowed(self._pool, self._settings) as connection, connection.transaction():
                await connection.execute(
                    QUERIES["insert_chain"],
                    self._tenant,
                    self._chain_id,
                    config,
                    plan.chain_type,
                    signature(plan),
                    len(plan.steps),
                    redact_json(json.dumps(dict(plan.metadata), ensure_ascii=False)),
                    analytics,
                    self._owner,
                    self._lease_s,
                    sealed,
                    self.not_resumable_because,
                )
                await connection.execute(QUERIES["insert_steps"], self._tenant, self._chain_id, json.dumps(steps))
        except Unavailable as error:
            raise DatabaseAway(
                f"the chain could not be written down, nothing has run: {away_in_words(error)}"
            ) from error

    async def write(self, state: StepState, counts: Counts, duration_ms: float) -> bool:
        """See `Ledger.write`."""
        self._seal(state)
        row = (
            state.index,
            state.status,
            state.reason,
            attempts_json(state.attempts),
            state.started_at,
            state.completed_at,
            state.duration_ms,
            state.error_type,
            told(state.error_message),
            state.result_bytes,
            state.result_truncated,
            state.sealed,
        )
        async with self._turn:
            cancel = await self._leased(
                QUERIES["write_step"],
                self._lease_s,
                counts.percent,
                counts.settled,
                counts.failed,
                counts.skipped,
                duration_ms,
                self.not_resumable_because,
                *row,
            )
            self._written[state.index] = f"{state.status} {len(state.attempts)}"
            return cancel

    async def renew(self, duration_ms: float) -> bool:
        """See `Ledger.renew`."""
        return await self._leased(QUERIES["renew"], self._lease_s, duration_ms)

    async def finish(
        self, status: ChainStatus, states: list[StepState], counts: Counts, duration_ms: float, message: str | None
    ) -> None:
        """See `Ledger.finish`."""
        async with asyncio.timeout(max(LAST_WRITE_S, self._lease_s)):
            for state in states:
                if self._written.get(state.index, "pending 0") != f"{state.status} {len(state.attempts)}":
                    await self.write(state, counts, duration_ms)
            await self._leased(
                QUERIES["finish"],
                status,
                counts.percent,
                counts.settled,
                counts.failed,
                counts.skipped,
                duration_ms,
                told(message),
            )
            if status == "completed":  # nothing will ask for them
                async with borrowed(self._pool, self._settings) as connection:
                    await connection.execute(QUERIES["forget_results"], self._tenant, self._chain_id)

    def note(self, state: StepState) -> None:
        """A step stands in the store as it is here."""
        self._written[state.index] = f"{state.status} {len(state.attempts)}"

    async def _leased(self, sql: str, *rest: Any) -> bool:
        """Run a statement that holds only for the owner of the lease, until the lease has run out.

        Raises:
            ChainLost: another process has the chain, or the database was away for as long as the lease.
        """
        while True:
            asked = time.monotonic()
            try:
                async with borrowed(self._pool, self._settings) as connection:
                    row = await connection.fetchrow(sql, self._tenant, self._chain_id, self._owner, *rest)
            except Unavailable as error:
                if time.monotonic() + RETRY_PAUSE_S >= self._until:
                    raise ChainLost(f"chain {self._chain_id} was stopped here: {away_in_words(error)}") from error
                await asyncio.sleep(RETRY_PAUSE_S)
                continue
            if row is None:
                raise ChainLost(f"chain {self._chain_id} was stopped here: its lease is no longer held")
            self._until = asked + self._lease_s
            return bool(row[0])

    def _seal(self, state: StepState) -> None:
        """Keep a result for a later run, if there is room."""
        if state.status != "completed" or state.sealed is not None or not state.kept or self._vault is None:
            if state.status == "completed" and state.result_truncated and state.index in self.reads:
                self._unresumable(f"the result of {state.id} was truncated: it is larger than what may be read")
            return
        text = json.dumps(state.result, ensure_ascii=False).encode()
        if self._kept_bytes + len(text) > self._settings.chain_resume_bytes:
            state.result_truncated = True
            if state.index in self.reads:
                self._unresumable(
                    _too_large(
                        f"what is kept with the result of {state.id}", self._kept_bytes + len(text), self._settings
                    )
                )
            return
        self._kept_bytes += len(text)
        state.sealed = self._vault.seal(text, tenant=self._tenant, purpose=_purpose(self._chain_id, state.index))

    def _unresumable(self, reason: str) -> None:
        if self.not_resumable_because is None:
            self.not_resumable_because = reason


async def take(pool: Pool, settings: Settings, vault: Vault | None, *, tenant: str, chain_id: UUID) -> Taken:
    """Take a chain over that stopped, or whose process is gone.

    Raises:
        UnknownChain, ChainNotResumable: it is running, done, or what it needs is not there.
    """
    ledger = StoreLedger(pool, settings, tenant=tenant, chain_id=chain_id, vault=vault)
    async with borrowed(pool, settings) as connection, connection.transaction():
        before = await connection.fetchval(QUERIES["lock_chain"], tenant, chain_id)
        row = await connection.fetchrow(
            QUERIES["take"], tenant, chain_id, ledger._owner, settings.chain_lease_ms / 1000
        )
        if row is None:
            await _why_not(connection, tenant, chain_id)
        if row["not_resumable_because"] is not None:
            raise ChainNotResumable(f"chain {chain_id} cannot be resumed: {row['not_resumable_because']}")
        if row["sealed_definition"] is None:
            raise ChainNotResumable(
                f"chain {chain_id} cannot be resumed: what it needs was kept for HUBSCOPE_CHAIN_RESUME_DAYS"
            )
        if vault is None:
            raise ChainNotResumable("there is no key to open what it needs with (HUBSCOPE_ENCRYPTION_KEY)")
        try:
            definition = vault.open(row["sealed_definition"], tenant=tenant, purpose=_purpose(chain_id))
            states = [
                _state(step, vault, tenant, chain_id)
                for step in await connection.fetch(QUERIES["select_steps"], tenant, chain_id)
            ]
        except CannotUnseal as error:
            raise ChainNotResumable(f"chain {chain_id} cannot be resumed: {error.detail}") from error
        ledger._kept_bytes = len(definition) + sum(len(state["sealed"] or b"") for state in states)
    return Taken(
        ledger,
        json.loads(definition),
        states,
        row["duration_ms"],
        row["analytics"],
        row["runs"],
        Counts(row["completed_steps"], row["total_steps"], row["failed_steps"], row["skipped_steps"]),
        "interrupted" if before == "running" else before,
    )


def _state(row: Any, vault: Vault, tenant: str, chain_id: UUID) -> dict[str, Any]:
    """Fields of a StepState from its row."""
    sealed = row["sealed_result"]
    result = None
    if sealed is not None:
        result = json.loads(vault.open(sealed, tenant=tenant, purpose=_purpose(chain_id, row["step_index"])))
    return {
        "status": row["status"],
        "reason": row["reason"],
        "attempts": attempts_from(row["attempts"]),
        "started_at": row["started_at"],
        "completed_at": row["completed_at"],
        "error_type": row["error_type"],
        "error_message": row["error_message"],
        "result": result,
        "result_bytes": row["result_bytes"],
        "result_truncated": row["result_truncated"],
        "kept": sealed is not None,
        "sealed": sealed,
    }


async def _why_not(connection: Connection, tenant: str, chain_id: UUID) -> None:
    row = await connection.fetchrow(QUERIES["select_chain"], tenant, chain_id)
    if row is None:
        raise UnknownChain(f"there is no chain {chain_id}")
    if row["status"] == "completed":
        raise ChainNotResumable(f"chain {chain_id} is completed: there is nothing to resume")
    raise ChainNotResumable(f"chain {chain_id} is running, and its lease is being renewed")


def signature(plan: Plan) -> str:
    """The same for chains with the same graph of the same tools."""
    graph = [[step.id, step.server, step.tool, sorted(step.needs), sorted(step.after)] for step in plan.steps]
    return hashlib.sha256(json.dumps(graph).encode()).hexdigest()[:16]


def away_in_words(error: Unavailable) -> str:
    """Why a short write did not come through; a statement that was stopped waited for others here."""
    return error.detail if isinstance(error, DatabaseAway) else "the database does not answer in time"


def _purpose(chain_id: UUID, index: int | None = None) -> str:
    """What a sealed text is for: one chain's definition, or one step's result."""
    return f"chain definition {chain_id}" if index is None else f"chain result {chain_id} {index}"


def _too_large(what: str, size: int, settings: Settings) -> str:
    return f"{what} has {size} bytes, at most {settings.chain_resume_bytes} are kept (HUBSCOPE_CHAIN_RESUME_BYTES)"
