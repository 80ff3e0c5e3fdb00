"""Chains of tool calls: run, resume, look up, cancel, and learn from."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from hubscope.access import Principal, Scope, Vault, require
from hubscope.chains import ledger as books
from hubscope.chains.again import idempotent_of, reopen
from hubscope.chains.expressions import Evaluator
from hubscope.chains.ledger import QUERIES, Ledger, NoLedger, StoreLedger, signature
from hubscope.chains.news import News, Progress
from hubscope.chains.plan import Draft, Limits, Plan, Problem, parse, refuse
from hubscope.chains.report import (
    ChainAnalytics,
    ChainReport,
    ChainSummary,
    Completion,
    analyse,
    chain_analytics,
    completions,
    message_of,
    step_report,
)
from hubscope.chains.run import Run
from hubscope.chains.state import ChainStatus, Counts, StepState, attempts_from
from hubscope.errors import (
    ChainNotResumable,
    HubscopeError,
    InvalidParameter,
    NoEncryptionKey,
    ShuttingDown,
    TooManyChains,
    UnknownChain,
    UnknownServer,
    UpstreamFailed,
)
from hubscope.ids import uuid7
from hubscope.peers import Peers, ToolInfo
from hubscope.settings import Settings
from hubscope.store import Pool, borrowed

log = structlog.get_logger("hubscope.chains")

HISTORY_CHAINS: Final = 100
ANALYTICS_CHAINS: Final = 1_000
LIST_MAX: Final = 200
CLOSE_S: Final = 5.0
TOOLS_TIMEOUT_S: Final = 20.0


def limits_of(settings: Settings) -> Limits:
    """What a chain may be, by the settings."""
    return Limits(
        steps=settings.chain_max_steps,
        bytes=settings.chain_max_bytes,
        expression_chars=settings.chain_expression_chars,
        step_timeout_ms=settings.chain_step_timeout_ms,
        timeout_ms=settings.chain_timeout_ms,
        max_parallel=settings.chain_max_parallel,
    )


class Chains:
    """Runs chains in this process. One per process.

    Args:
        pool: connections under the writer role; two are enough.
        peers: the servers whose tools are called.
        vault: gives the vault, or raises NoEncryptionKey; asked when a chain begins.
        ended: called with the status of each chain that ended here, or `lost`; for the metrics.
        stopping: whether the service is being stopped: who waits for a chain is cancelled then, and the chain is
            interrupted.
    """

    def __init__(
        self,
        pool: Pool,
        peers: Peers,
        settings: Settings,
        *,
        vault: Callable[[], Vault],
        ended: Callable[[str], None] = lambda _: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pool = pool
        self._peers = peers
        self._settings = settings
        self._vault = vault
        self._ended = ended
        self._stopping = stopping
        self._evaluator = Evaluator(
            timeout_ms=settings.chain_expression_timeout_ms,
            max_bytes=2 * settings.chain_result_bytes + settings.chain_max_bytes,
        )
        self._runs: dict[Run, asyncio.Task[ChainReport]] = {}
        self._places: Counter[str] = Counter()
        self._expiring: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def running(self) -> int:
        """Chains that run here now."""
        return len(self._runs)

    async def start(self) -> None:
        """Begin to look for chains whose process is gone."""
        self._expiring = asyncio.create_task(self._keep_expiring(), name="chains expire")

    async def close(self) -> None:
        """Interrupt what runs, so that another replica can resume it at once, and let go."""
        self._closing = True
        if self._expiring is not None:
            self._expiring.cancel()
            await asyncio.wait([self._expiring])
        for run in self._runs:
            run.stop("interrupted")
        if self._runs:
            await asyncio.wait(self._runs.values(), timeout=CLOSE_S)
        await self._evaluator.close()

    async def run(
        self,
        principal: Principal,
        chain: Any,
        *,
        options: Any = None,
        variables: Any = None,
        metadata: Any = None,
        tracking: bool = True,
        analytics: bool = True,
        progress: Progress | None = None,
    ) -> ChainReport:
        """Check a chain, run it, and tell how it went. Cancelling the awaiting task cancels the chain.

        Args:
            tracking: write it down; without, it can be neither looked up nor resumed.
            analytics: add analytics to the answer, and let the chain count in those of others.

        Raises:
            InvalidChain: with everything that is wrong; nothing has run.
            ScopeMissing, TooManyChains, ShuttingDown, DatabaseAway: nothing has run.
            ChainLost: the database was away for too long, or another process has taken the chain over.
        """
        require(principal, Scope.CHAINS)
        with self._place(principal.tenant):
            draft = parse(
                chain, options=options, variables=variables, metadata=metadata, limits=limits_of(self._settings)
            )
            tools = await self._check(principal, draft)
            plan = draft.plan
            assert plan is not None
            chain_id = uuid7()
            ledger: Ledger = NoLedger()
            if tracking:
                kept = StoreLedger(
                    self._pool,
                    self._settings,
                    tenant=principal.tenant,
                    chain_id=chain_id,
                    vault=self._vault_or_none(),
                    reads=frozenset().union(*(step.reads for step in plan.steps)),
                )
                definition = {
                    "chain": chain,
                    "execution_options": options,
                    "variables": variables,
                    "metadata": metadata,
                }
                await kept.open(plan, definition, analytics=analytics)
                ledger = kept
            states = [StepState.of(step) for step in plan.steps]
            return await self._drive(
                principal, plan, states, ledger, chain_id, tools, progress, analytics=analytics, runs=1, ran_ms=0.0
            )

    async def resume(
        self, principal: Principal, chain_id: str, *, retry_unknown: bool = False, progress: Progress | None = None
    ) -> ChainReport:
        """Go on with a chain that stopped. Steps whose result is recorded are not called again.

        Args:
            retry_unknown: also call those again of which nobody knows whether they ran, and whose tools do not say that
                a second call is harmless.

        Raises:
            UnknownChain, ChainNotResumable, and as `run`.
        """
        require(principal, Scope.CHAINS)
        identity = _uuid(chain_id)
        with self._place(principal.tenant):
            taken = await books.take(
                self._pool, self._settings, self._vault_or_none(), tenant=principal.tenant, chain_id=identity
            )
            try:
                definition = taken.definition
                draft = parse(
                    definition["chain"],
                    options=definition["execution_options"],
                    variables=definition["variables"],
                    metadata=definition["metadata"],
                    limits=limits_of(self._settings),
                )
                tools = await self._check(principal, draft)
                plan = draft.plan
                assert plan is not None
                states = [
                    StepState(step.index, step.id, step.server, step.tool, **fields)
                    for step, fields in zip(plan.steps, taken.states, strict=True)
                ]
                ledger = taken.ledger
                for state in states:
                    ledger.note(state)
                ledger.reads = frozenset().union(*(step.reads for step in plan.steps))
                reopen(plan, states, idempotent_of(plan, tools), retry_unknown=retry_unknown)
            except (HubscopeError, asyncio.CancelledError) as error:
                told = error.detail if isinstance(error, HubscopeError) else "cancelled before it went on"
                with contextlib.suppress(HubscopeError):
                    await asyncio.shield(taken.ledger.finish(taken.before, [], taken.counts, taken.duration_ms, told))
                raise
            return await self._drive(
                principal,
                plan,
                states,
                ledger,
                identity,
                tools,
                progress,
                analytics=taken.analytics,
                runs=taken.runs,
                ran_ms=taken.duration_ms,
            )

    async def get(self, principal: Principal, chain_id: str) -> ChainReport:
        """How a chain is, now. Results are not told: they are kept for resuming alone.

        Raises:
            UnknownChain.
        """
        identity = _uuid(chain_id)
        async with borrowed(self._pool, self._settings) as connection:
            row = await connection.fetchrow(QUERIES["select_chain"], principal.tenant, identity)
            rows = await connection.fetch(QUERIES["select_steps"], principal.tenant, identity)
        if row is None:
            raise UnknownChain(f"there is no chain {chain_id}")
        states = [_state(one) for one in rows]
        status: ChainStatus = "interrupted" if row["expired"] else row["status"]
        counts = Counts.of(states)
        return ChainReport(
            chain_id=str(row["chain_id"]),
            status=status,
            message=message_of(status, counts, states),
            chain_type=row["chain_type"],
            progress_percent=row["progress_percent"],
            completed_steps=counts.settled,
            total_steps=counts.total,
            failed_steps=counts.failed,
            skipped_steps=counts.skipped,
            duration_ms=row["duration_ms"],
            runs=row["runs"],
            tracked=True,
            resumable=_resumable(row, status),
            not_resumable_because=row["not_resumable_because"],
            metadata=json.loads(row["metadata"]),
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            completed_at=row["completed_at"],
            steps=[step_report(state, self._settings.chain_answer_bytes) for state in states],
        )

    async def newest(self, principal: Principal, *, status: str | None = None, limit: int = 50) -> list[ChainSummary]:
        """The newest chains of a tenant."""
        async with borrowed(self._pool, self._settings) as connection:
            rows = await connection.fetch(QUERIES["list_chains"], principal.tenant, status, min(limit, LIST_MAX))
        return [
            ChainSummary(**{**row, "chain_id": str(row["chain_id"]), "metadata": json.loads(row["metadata"])})
            for row in map(dict, rows)
        ]

    async def cancel(self, principal: Principal, chain_id: str) -> None:
        """Ask for the end of a chain, in whichever process it runs: heard within a third of HUBSCOPE_CHAIN_LEASE_MS.

        Raises:
            UnknownChain, ChainNotResumable: it is not running.
        """
        require(principal, Scope.CHAINS)
        identity = _uuid(chain_id)
        async with borrowed(self._pool, self._settings) as connection:
            if await connection.fetchval(QUERIES["request_cancel"], principal.tenant, identity):
                return
        report = await self.get(principal, chain_id)
        raise ChainNotResumable(f"chain {chain_id} is {report.status}: there is nothing to cancel")

    async def analytics(self, principal: Principal, *, since: datetime, window: str) -> ChainAnalytics:
        """What can be learned from the chains since a time, at most the newest `ANALYTICS_CHAINS`."""
        async with borrowed(self._pool, self._settings) as connection:
            rows = await connection.fetch(QUERIES["step_history"], principal.tenant, since, None, ANALYTICS_CHAINS)
        return chain_analytics(rows, window=window, most=ANALYTICS_CHAINS)

    @contextlib.contextmanager
    def _place(self, tenant: str) -> Iterator[None]:
        """A place among the chains that run here.

        Raises:
            TooManyChains, ShuttingDown.
        """
        if self._closing:
            raise ShuttingDown
        most, share = self._settings.chain_max_running, self._settings.chain_max_running_tenant
        if self._places.total() >= most:
            raise TooManyChains(f"{most} chains are running here, the most there may be (HUBSCOPE_CHAIN_MAX_RUNNING)")
        if self._places[tenant] >= share:
            raise TooManyChains(
                f"{share} chains of the tenant are running here, its share (HUBSCOPE_CHAIN_MAX_RUNNING_TENANT)"
            )
        self._places[tenant] += 1
        try:
            yield
        finally:
            self._places[tenant] -= 1
            if not self._places[tenant]:
                del self._places[tenant]

    def _vault_or_none(self) -> Vault | None:
        try:
            return self._vault()
        except NoEncryptionKey:
            return None

    async def _check(self, principal: Principal, draft: Draft) -> dict[tuple[str, str], ToolInfo]:
        """Ask servers and languages what only they know; then everything that is wrong is told at once.

        Returns:
            The tools that are named, by (server, tool), as far as their servers could be asked. A server that cannot be
            reached now is no reason to refuse: the step that calls it will tell.

        Raises:
            InvalidChain.
        """
        problems = list(draft.problems)
        conditions = {one.path for one in draft.expressions if one.path.endswith(".conditions.execute_if")}
        for expression in draft.expressions:
            problem = await self._evaluator.check(expression, condition=expression.path in conditions)
            if problem is not None:
                problems.append(problem)
        servers = sorted({server for _, server, _ in draft.tools})
        answers = dict(
            zip(servers, await asyncio.gather(*(self._tools(principal, server) for server in servers)), strict=True)
        )
        found: dict[tuple[str, str], ToolInfo] = {}
        for path, server, tool in draft.tools:
            listed = answers[server]
            if isinstance(listed, UnknownServer):
                problems.append(Problem(f"{path}.server_name", "unknown_server", f"there is no server {server!r}"))
            elif listed is not None:
                by_name = {info.name: info for info in listed}
                if tool in by_name:
                    found[server, tool] = by_name[tool]
                else:
                    some = ", ".join(sorted(by_name)[:20]) or "none"
                    problems.append(
                        Problem(
                            f"{path}.tool_name",
                            "unknown_tool",
                            f"{server!r} has no tool {tool!r}; there are {some}",
                        )
                    )
        refuse(problems)
        return found

    async def _tools(self, principal: Principal, server: str) -> list[ToolInfo] | UnknownServer | None:
        try:
            async with asyncio.timeout(TOOLS_TIMEOUT_S):
                return await self._peers.tools(principal, server)
        except UnknownServer as error:
            return error
        except (UpstreamFailed, TimeoutError):
            return None

    async def _drive(
        self,
        principal: Principal,
        plan: Plan,
        states: list[StepState],
        ledger: Ledger,
        chain_id: UUID,
        tools: Mapping[tuple[str, str], ToolInfo],
        progress: Progress | None,
        *,
        analytics: bool,
        runs: int,
        ran_ms: float,
    ) -> ChainReport:
        """Run in a task of its own, which ends in order also when the one who waits is cancelled."""
        tracked = isinstance(ledger, StoreLedger)
        news = News(progress)

        def changed(status: ChainStatus, state: StepState | None, counts: Counts) -> None:
            news.say(counts, status if state is None else f"{state.id} {state.status}")

        run = Run(
            plan,
            chain_id=str(chain_id) if tracked else None,
            principal=principal,
            peers=self._peers,
            evaluator=self._evaluator,
            ledger=ledger,
            states=states,
            idempotent=idempotent_of(plan, tools),
            result_bytes=self._settings.chain_result_bytes,
            changed=changed,
            renew_every_s=self._settings.chain_lease_ms / 3000,
            ran_ms=ran_ms,
        )

        async def drive() -> ChainReport:
            status = "lost"
            try:
                status = await run.go()
                return await self._report(
                    principal, run, chain_id, status, ledger, tools, analytics=analytics, runs=runs
                )
            finally:
                self._runs.pop(run, None)
                self._ended(status)

        if self._closing:  # it was checked meanwhile
            run.stop("interrupted")
        changed("running", None, run.counts)
        self._runs[run] = task = asyncio.create_task(drive(), name=f"chain {chain_id}")
        try:
            async with news:
                return await asyncio.shield(task)
        except asyncio.CancelledError:
            run.stop("interrupted" if self._closing or self._stopping() else "cancelled")
            task.add_done_callback(_heard)
            raise

    async def _report(
        self,
        principal: Principal,
        run: Run,
        chain_id: UUID,
        status: ChainStatus,
        ledger: Ledger,
        tools: Mapping[tuple[str, str], ToolInfo],
        *,
        analytics: bool,
        runs: int,
    ) -> ChainReport:
        plan, states, counts = run.plan, run.states, run.counts
        wall_ms = run.duration_ms
        tracked = isinstance(ledger, StoreLedger)
        why_not = ledger.not_resumable_because if isinstance(ledger, StoreLedger) else None
        found = None
        if analytics:
            history: list[Completion] = []
            if tracked:
                with contextlib.suppress(HubscopeError):
                    history = await self._history(principal, plan)
            found = analyse(
                plan,
                states,
                wall_ms,
                read_only=frozenset(
                    step.index
                    for step in plan.steps
                    if (step.server, step.tool) in tools and tools[step.server, step.tool].read_only
                ),
                completion=history,
            )
        return ChainReport(
            chain_id=str(chain_id),
            status=status,
            message=message_of(status, counts, states),
            chain_type=plan.chain_type,
            progress_percent=counts.percent,
            completed_steps=counts.settled,
            total_steps=counts.total,
            failed_steps=counts.failed,
            skipped_steps=counts.skipped,
            duration_ms=wall_ms,
            runs=runs,
            tracked=tracked,
            resumable=tracked and why_not is None and status != "completed",
            not_resumable_because=why_not,
            metadata=dict(plan.metadata),
            steps=[step_report(state, self._settings.chain_answer_bytes) for state in states],
            analytics=found,
        )

    async def _history(self, principal: Principal, plan: Plan) -> list[Completion]:
        since = datetime.now(UTC) - timedelta(days=self._settings.retention_chain_days)
        async with borrowed(self._pool, self._settings) as connection:
            rows = await connection.fetch(
                QUERIES["step_history"], principal.tenant, since, signature(plan), HISTORY_CHAINS
            )
        return completions(rows)

    async def _keep_expiring(self) -> None:
        """Mark chains whose lease ran out. Any process does it for all; the mark is made once."""
        while True:
            try:
                await self.expire()
            except HubscopeError as error:
                log.debug("leases of chains could not be checked", error=error.detail)
            except Exception:  # such as a schema that is not migrated yet: readiness says so
                log.warning("leases of chains could not be checked", exc_info=True)
            await asyncio.sleep(self._settings.chain_lease_ms / 1000)

    async def expire(self) -> int:
        """Mark what nobody runs any more as interrupted; how many there were."""
        async with borrowed(self._pool, self._settings) as connection:
            rows = await connection.fetch(QUERIES["expire"])
        for row in rows:
            log.warning("a chain was interrupted: the process that ran it is gone", chain_id=str(row["chain_id"]))
        return len(rows)


def _state(row: Any) -> StepState:
    """A step as it stands in the store, without its result."""
    return StepState(
        index=row["step_index"],
        id=row["step_name"],
        server=row["server_name"],
        tool=row["tool_name"],
        status=row["status"],
        reason=row["reason"],
        attempts=attempts_from(row["attempts"]),
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        error_type=row["error_type"],
        error_message=row["error_message"],
        result_bytes=row["result_bytes"],
        result_truncated=row["result_truncated"],
    )


def _resumable(row: Any, status: str) -> bool:
    return (
        status not in ("running", "completed")
        and row["not_resumable_because"] is None
        and row["sealed_definition"] is not None
    )


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except (ValueError, AttributeError, TypeError):
        raise InvalidParameter("chain_id: must be a UUID") from None


def _heard(task: asyncio.Task[Any]) -> None:
    """Nobody waits for this task any more: what it raised is logged."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a cancelled chain ended badly", error=str(error))
