"""One run of a chain: starts what may start, calls tools, retries, skips, stops; tells everything to the ledger first.

Rules that are worth knowing before reading (docs/reference/chains.md has all of them):

- A call is written down as sent before it is sent, and its result before any step that needs it starts.
- A call of which nobody knows whether it ran (it timed out, the connection broke, the process died) is repeated only
  when the tool is idempotent or read-only by its annotations, or the step says `idempotent: true`.
- With fail_fast nothing new is started after a failure; what is running is let finish, since a call that is broken off
  may have had half of its effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from hubscope.access import Principal
from hubscope.chains.expressions import Evaluator, ExpressionFailed
from hubscope.chains.ledger import Ledger
from hubscope.chains.plan import Plan, Step
from hubscope.chains.state import BAD, SETTLED, UNCERTAIN, Attempt, ChainStatus, Counts, Outcome, StepState, told
from hubscope.errors import (
    ChainLost,
    HubscopeError,
    Unavailable,
    UnknownServer,
    UnknownTool,
    UpstreamFailed,
    UpstreamTimeout,
)
from hubscope.peers import CallResult, Peers

log = structlog.get_logger("hubscope.chains")

Stop = str
"""Why a run ends before its plan: cancelled, timed_out, interrupted, or lost."""
Changed = Callable[[ChainStatus, StepState | None, Counts], None]
_STOPPED: Final[dict[str, ChainStatus]] = {
    "cancelled": "cancelled",
    "timed_out": "timed_out",
    "interrupted": "interrupted",
}


RESULTS_TOGETHER: Final = 16
"""All results of a chain together are at most so many times as large as one may be: they are kept in memory."""


class _Failed(Exception):
    """A step cannot go on."""

    def __init__(self, error_type: str, message: str) -> None:
        self.error_type = error_type
        self.message = message
        super().__init__(message)


class Run:
    """One run.

    Args:
        idempotent: indexes of steps whose call may be repeated when nobody knows whether it ran.
        states: one per step of the plan; a resumed run brings those that are settled already.
        result_bytes: largest result that later steps can read.
        ran_ms: how long earlier runs of the chain took.
        changed: called after each committed change with the chain's status and the step (None for the chain).
        renew_every_s: how often the ledger is told that the run is alive.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        chain_id: str | None,
        principal: Principal,
        peers: Peers,
        evaluator: Evaluator,
        ledger: Ledger,
        states: list[StepState],
        idempotent: frozenset[int],
        result_bytes: int,
        changed: Changed,
        renew_every_s: float,
        ran_ms: float = 0.0,
    ) -> None:
        self.plan = plan
        self.states = states
        self._chain_id = chain_id
        self._principal = principal
        self._peers = peers
        self._evaluator = evaluator
        self._ledger = ledger
        self._idempotent = idempotent
        self._result_bytes = result_bytes
        self._changed = changed
        self._renew_every_s = renew_every_s
        self._ran_ms = ran_ms
        self._started = time.monotonic()
        self._kept_bytes = sum(state.result_bytes or 0 for state in states if state.kept)
        self._sent_at: dict[int, float] = {}  # step -> when its attempt began, on the monotonic clock
        self._tasks: dict[asyncio.Task[None], int] = {}
        self._halt = asyncio.Event()  # fail_fast: no new step and no new attempt
        self._stopping = asyncio.Event()
        self._why: Stop | None = None
        self._lost: ChainLost | None = None

    @property
    def duration_ms(self) -> float:
        """How long the chain has run, earlier runs included."""
        return self._ran_ms + (time.monotonic() - self._started) * 1000

    @property
    def counts(self) -> Counts:
        """How far it is."""
        return Counts.of(self.states)

    def stop(self, why: Stop) -> None:
        """Break running calls off and end the run. The first reason counts."""
        if self._why is None:
            self._why = why
        self._stopping.set()

    async def go(self) -> ChainStatus:
        """Run to the end.

        Raises:
            ChainLost: the lease was lost; what was done by then stands in the store.
        """
        alive = asyncio.create_task(self._keep_alive(), name="chain lease")
        stopper = asyncio.create_task(self._stopping.wait())
        deadline = self._started + self.plan.timeout_ms / 1000
        if self.plan.fail_fast and any(state.status in BAD for state in self.states):
            self._halt.set()
        try:
            while not self._stopping.is_set():
                self._start_what_may()
                if not self._tasks:
                    break
                done, _ = await asyncio.wait(
                    {*self._tasks, stopper},
                    timeout=max(0.0, deadline - time.monotonic()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done:
                    self.stop("timed_out")
                self._collect(done)
        finally:
            for task in (*self._tasks, stopper, alive):
                task.cancel()
            await asyncio.gather(*self._tasks, stopper, alive, return_exceptions=True)
        return await self._finish()

    async def _finish(self) -> ChainStatus:
        if self._lost is not None:
            raise self._lost
        left = [state for state in self.states if state.status not in SETTLED]
        if self._why != "interrupted":
            for state in left:
                state.status, state.reason = "skipped", "fail_fast" if self._why is None else "stopped"
                state.completed_at = datetime.now(UTC)
        bad = [state for state in self.states if state.status in BAD]
        status: ChainStatus = "failed" if bad else "completed"
        if self._why is not None:
            status = _STOPPED[self._why]
        message = {
            "cancelled": "cancelled by its caller",
            "timed_out": f"not done after {self.plan.timeout_ms} ms",
            "interrupted": "the service stopped",
        }.get(self._why or "")
        if message is None and bad:
            message = f"{bad[0].id} {bad[0].status}: {bad[0].error_message or bad[0].error_type}"
        await self._ledger.finish(status, self.states, self.counts, self.duration_ms, message)
        self._tell(status, None)
        return status

    async def _keep_alive(self) -> None:
        """Renew the lease, and hear of requests to cancel."""
        while True:
            await asyncio.sleep(self._renew_every_s)
            try:
                if await self._ledger.renew(self.duration_ms):
                    self.stop("cancelled")
            except ChainLost as error:
                self._lost = error
                self.stop("lost")
                return

    def _tell(self, status: ChainStatus, state: StepState | None) -> None:
        try:
            self._changed(status, state, self.counts)
        except Exception:  # whoever listens does not stop the chain
            log.warning("a chain's change could not be told", exc_info=True)

    async def _write(self, state: StepState) -> None:
        if await self._ledger.write(state, self.counts, self.duration_ms):
            self.stop("cancelled")
        self._tell("running", state)

    def _start_what_may(self) -> None:
        busy = set(self._tasks.values())
        for step in self.plan.steps:
            if len(self._tasks) >= self.plan.max_parallel or self._halt.is_set():
                return
            state = self.states[step.index]
            if step.index in busy or state.status in SETTLED:
                continue
            if all(self.states[index].status in SETTLED for index in step.waits_for):
                task = asyncio.create_task(self._step(step, state), name=f"chain step {step.id}")
                self._tasks[task] = step.index

    def _collect(self, done: set[asyncio.Task[Any]]) -> None:
        for task in done:
            index = self._tasks.pop(task, None)
            if index is None:
                continue
            error = task.exception() if not task.cancelled() else None
            if isinstance(error, ChainLost):
                self._lost = error
                self.stop("lost")
            elif error is not None:
                raise error
            elif self.states[index].status in BAD and self.plan.fail_fast:
                self._halt.set()

    async def _step(self, step: Step, state: StepState) -> None:
        """Settle one step."""
        try:
            reason = await self._skipped(step)
            if reason is not None:
                state.status, state.reason = "skipped", reason
            else:
                state.started_at = state.started_at or datetime.now(UTC)
                arguments = await self._arguments(step)
                await self._attempts(step, state, arguments)
        except _Failed as failure:
            state.status, state.error_type, state.error_message = "failed", failure.error_type, failure.message
        except asyncio.CancelledError:
            if state.attempts and state.attempts[-1].outcome == "sent":
                self._end(state, "cancelled", "cancelled", "broken off; whether the tool ran is not known")
                state.error_type, state.error_message = "cancelled", state.attempts[-1].error_message
            if state.attempts and state.status not in SETTLED:
                state.status = "cancelled"
            if state.status in SETTLED:
                state.completed_at = datetime.now(UTC)
            raise
        except ChainLost:
            raise
        except Exception:  # a step that fails for whatever reason is a failed step, with its record written
            log.exception("a chain step failed for a reason of hubscope's own", step=step.id)
            state.status, state.error_type, state.error_message = "failed", "internal", "see the service's log"
        state.completed_at = datetime.now(UTC)
        await self._write(state)

    async def _skipped(self, step: Step) -> str | None:
        """Why a step is not to run, or None."""
        asked = step.condition.reads if step.condition is not None else frozenset()
        if any(self.states[index].status != "completed" for index in step.needs - asked):
            return "dependency"
        if step.condition is None:
            return None
        try:
            verdict = await self._evaluator.evaluate(step.condition, self._values(step.condition.reads))
        except ExpressionFailed as error:
            raise _Failed("condition_failed", f"execute_if: {error.detail}") from error
        if not isinstance(verdict, bool):
            raise _Failed("condition_failed", f"execute_if gave {type(verdict).__name__}, not true or false")
        return None if verdict else "condition"

    async def _arguments(self, step: Step) -> dict[str, Any]:
        """The arguments of a call, what is mapped put in."""
        arguments: dict[str, Any] = json.loads(json.dumps(step.arguments))
        for target, source in step.mapping:
            for index in source.reads:
                read = self.states[index]
                if read.status == "completed" and not read.kept:
                    raise _Failed(
                        "result_truncated",
                        f"input_mapping.{target}: the result of {read.id} has {read.result_bytes} bytes, which is more"
                        " than can be read (HUBSCOPE_CHAIN_RESULT_BYTES)",
                    )
            try:
                value = await self._evaluator.evaluate(source, self._values(source.reads))
            except ExpressionFailed as error:
                raise _Failed("mapping_failed", f"input_mapping.{target}: {error.detail}") from error
            if value is None and source.language == "jmespath":
                raise _Failed("mapping_failed", f"input_mapping.{target}: {source.text} found nothing")
            try:
                _put(arguments, target, value)
            except (KeyError, IndexError, TypeError, ValueError):
                raise _Failed(
                    "mapping_failed", f"input_mapping.{target}: there is no such place in arguments"
                ) from None
        return arguments

    def _values(self, reads: frozenset[int]) -> dict[str, Any]:
        return {
            "steps": {self.states[index].id: self.states[index].view() for index in sorted(reads)},
            "variables": self.plan.variables,
            "metadata": self.plan.metadata,
            "chain": {"id": self._chain_id},
        }

    async def _attempts(self, step: Step, state: StepState, arguments: Mapping[str, Any]) -> None:
        """Call until it works, or nothing more is to be tried.

        Raises:
            _Failed: with the failure of the last attempt.
        """
        for number in range(1, step.retry.max_attempts + 1):
            state.attempts.append(Attempt(len(state.attempts) + 1, datetime.now(UTC)))
            state.status = "running"
            self._sent_at[step.index] = time.monotonic()
            await self._write(state)  # a call that is not written down is not made
            failure = await self._call(step, state, arguments)
            if failure is None:
                state.status, state.error_type, state.error_message = "completed", None, None
                return
            again = (
                number < step.retry.max_attempts
                and not self._halt.is_set()
                and failure.error_type in step.retry.on
                and (state.attempts[-1].outcome not in UNCERTAIN or step.index in self._idempotent)
            )
            if not again:
                raise failure
            state.status, state.error_type, state.error_message = "retrying", failure.error_type, failure.message
            await self._write(state)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(step.retry.pause_ms(number) / 1000):
                    await self._halt.wait()
                    raise failure

    async def _call(self, step: Step, state: StepState, arguments: Mapping[str, Any]) -> _Failed | None:
        """One call; its failure, or None when there is a result."""
        try:
            result = await self._peers.call(
                self._principal,
                step.server,
                step.tool,
                arguments,
                timeout_s=step.timeout_ms / 1000,
                chain_id=self._chain_id,
                step_index=step.index,
            )
        except UpstreamTimeout as error:
            return self._end(state, "timeout" if error.sent else "not_sent", "timeout", error.detail)
        except UpstreamFailed as error:
            return self._end(state, "upstream_failed" if error.sent else "not_sent", "upstream_failed", error.detail)
        except (UnknownServer, UnknownTool) as error:
            return self._end(state, "refused", error.code, error.detail)
        except ChainLost:
            raise
        except Unavailable as error:  # too much at once, the registry is away
            return self._end(state, "not_sent", "upstream_failed", error.detail)
        except HubscopeError as error:
            return self._end(state, "not_sent", error.code, error.detail)
        if result.is_error:
            return self._end(state, "tool_error", "tool_error", result.message or "", result)
        self._end(state, "ok", None, None, result)
        self._keep(state, usable(result))
        return None

    def _end(
        self,
        state: StepState,
        outcome: Outcome,
        error_type: str | None,
        message: str | None,
        result: CallResult | None = None,
    ) -> _Failed:
        attempt = state.attempts[-1]
        attempt.outcome = outcome
        attempt.duration_ms = (
            result.duration_ms if result is not None else (time.monotonic() - self._sent_at[state.index]) * 1000
        )
        attempt.error_type, attempt.error_message = error_type, told(message)
        return _Failed(error_type or "", message or "")

    def _keep(self, state: StepState, value: Any) -> None:
        """Keep a result for later steps, unless it is too large."""
        state.result_bytes = len(json.dumps(value, ensure_ascii=False).encode())
        together = self._kept_bytes + state.result_bytes
        state.kept = state.result_bytes <= self._result_bytes and together <= RESULTS_TOGETHER * self._result_bytes
        state.result_truncated = not state.kept
        state.result = value if state.kept else None
        self._kept_bytes += state.result_bytes if state.kept else 0


def usable(result: CallResult) -> Any:
    """What later steps read of a result: structured content, else its text as JSON if it is JSON, else the text."""
    if result.structured is not None:
        text = json.dumps(result.structured, ensure_ascii=False)
    else:
        text = "\n".join(str(block.get("text", "")) for block in result.content if block.get("type") == "text")
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    try:
        # What Python calls JSON but nobody else does (NaN, Infinity) is nothing.
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return text


def _put(arguments: dict[str, Any], target: str, value: Any) -> None:
    """Set an argument by its name, or a place within by a JSON Pointer (RFC 6901); missing objects are made."""
    if not target.startswith("/"):
        arguments[target] = value
        return
    keys = [key.replace("~1", "/").replace("~0", "~") for key in target[1:].split("/")]
    here: Any = arguments
    for key in keys[:-1]:
        here = here[int(key)] if isinstance(here, list) else here.setdefault(key, {})
    if isinstance(here, list):
        if keys[-1] == "-":
            here.append(value)
        else:
            here[int(keys[-1])] = value
    elif isinstance(here, dict):
        here[keys[-1]] = value
    else:
        raise TypeError
