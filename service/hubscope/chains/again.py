"""What is done again of a chain that stopped. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hubscope.chains.plan import Plan
from hubscope.chains.report import ordered
from hubscope.chains.state import StepState
from hubscope.errors import ChainNotResumable
from hubscope.peers import ToolInfo


def idempotent_of(plan: Plan, tools: Mapping[tuple[str, str], ToolInfo]) -> frozenset[int]:
    """Steps whose call may be repeated: their caller says so, or else the tool does."""
    return frozenset(
        step.index
        for step in plan.steps
        if (
            step.idempotent
            if step.idempotent is not None
            else (step.server, step.tool) in tools and tools[step.server, step.tool].idempotent
        )
    )


def reopen(plan: Plan, states: list[StepState], idempotent: frozenset[int], *, retry_unknown: bool) -> None:
    """Decide, in place, what is done again of a chain that stopped.

    Completed steps stay. A step of which nobody knows whether its tool ran becomes `unknown`, unless repeating it is
    harmless or wanted. Everything else begins anew, but for steps that were skipped on their own condition: they stay
    as long as what the condition read stays.

    Raises:
        ChainNotResumable: a step that is left reads a result that was not kept.
    """
    for index in ordered([step.waits_for for step in plan.steps]):
        state, condition = states[index], plan.steps[index].condition
        if state.status == "completed":
            continue
        if state.status == "skipped" and state.reason == "condition" and condition is not None:
            if all(states[read].status != "pending" for read in condition.reads):
                continue
        elif state.uncertain and index not in idempotent and not retry_unknown:
            state.status, state.error_type = "unknown", "unknown_outcome"
            state.error_message = "its call was sent and no result was recorded; whether the tool ran is not known"
            continue
        state.status = "pending"
        state.reason = state.error_type = state.error_message = state.completed_at = None
    for step in plan.steps:
        for read in (states[index] for index in sorted(step.reads) if states[step.index].status == "pending"):
            if read.status == "completed" and not read.kept:
                raise ChainNotResumable(
                    f"{step.id} reads the result of {read.id}, which was truncated ({read.result_bytes} bytes): the"
                    " chain cannot be resumed"
                )
