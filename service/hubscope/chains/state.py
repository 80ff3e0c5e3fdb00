"""What a chain and its steps are at one moment, in memory, in the store and in answers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from hubscope.chains.plan import Plan, Step
from hubscope.redact import redact_text

StepStatus = Literal["pending", "running", "retrying", "completed", "failed", "skipped", "cancelled", "unknown"]
ChainStatus = Literal["running", "completed", "failed", "cancelled", "timed_out", "interrupted"]
Outcome = Literal["sent", "ok", "tool_error", "timeout", "upstream_failed", "not_sent", "refused", "cancelled"]

SETTLED: Final[frozenset[str]] = frozenset({"completed", "failed", "skipped", "cancelled", "unknown"})
BAD: Final[frozenset[str]] = frozenset({"failed", "cancelled", "unknown"})
UNCERTAIN: Final[frozenset[str]] = frozenset({"sent", "timeout", "upstream_failed", "cancelled"})
"""Outcomes of an attempt after which nobody knows whether the tool ran."""
MESSAGE_CHARS: Final = 1_000


@dataclass(slots=True)
class Attempt:
    """One call of a step's tool.

    Attributes:
        number: from 1, counted over all runs of the chain.
        outcome: `sent` as long as there is no other; `not_sent` when the request certainly never reached the server.
        duration_ms: until its outcome.
    """

    number: int
    started_at: datetime
    outcome: Outcome = "sent"
    duration_ms: float | None = None
    error_type: str | None = None
    error_message: str | None = None


@dataclass(slots=True)
class StepState:
    """How one step is doing.

    Attributes:
        reason: why it was skipped: condition, dependency, fail_fast, stopped.
        result: what later steps can read: structured content, else the text as JSON if it is JSON, else the text.
            Untrusted.
        result_bytes: its size as JSON.
        result_truncated: it is larger than what may be read or kept, so `result` is None, or was not kept.
        kept: it stands in `result`.
    """

    index: int
    id: str
    server: str
    tool: str
    status: StepStatus = "pending"
    reason: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error_type: str | None = None
    error_message: str | None = None
    result: Any = None
    result_bytes: int | None = None
    result_truncated: bool = False
    kept: bool = False
    sealed: bytes | None = None

    @classmethod
    def of(cls, step: Step) -> StepState:
        """A step that has not begun."""
        return cls(step.index, step.id, step.server, step.tool)

    @property
    def duration_ms(self) -> float | None:
        """Time of its attempts, without the pauses between them; None when it made none."""
        known = [attempt.duration_ms for attempt in self.attempts if attempt.duration_ms is not None]
        return sum(known) if known else None

    @property
    def uncertain(self) -> bool:
        """Whether its last attempt may or may not have run the tool."""
        return self.status != "completed" and bool(self.attempts) and self.attempts[-1].outcome in UNCERTAIN

    def view(self) -> dict[str, Any]:
        """What expressions see of it."""
        return {
            "status": self.status,
            "result": self.result,
            "error": None
            if self.error_type is None
            else {"type": self.error_type, "message": self.error_message or ""},
            "attempts": len(self.attempts),
            "duration_ms": self.duration_ms,
        }


@dataclass(frozen=True, slots=True)
class Counts:
    """How far a chain is, in steps."""

    settled: int
    total: int
    failed: int
    skipped: int

    @classmethod
    def of(cls, states: list[StepState]) -> Counts:
        """The counts of these steps."""
        return cls(
            sum(state.status in SETTLED for state in states),
            len(states),
            sum(state.status in BAD for state in states),
            sum(state.status == "skipped" for state in states),
        )

    @property
    def percent(self) -> int:
        """Whole percent of settled steps; 100 only when all are."""
        return self.settled * 100 // self.total


def attempts_json(attempts: list[Attempt]) -> str:
    """Attempts as they stand in the store."""
    return json.dumps([asdict(attempt) for attempt in attempts], default=lambda time: time.isoformat())


def attempts_from(text: str) -> list[Attempt]:
    """Attempts from the store."""
    return [
        Attempt(**{**attempt, "started_at": datetime.fromisoformat(attempt["started_at"])})
        for attempt in json.loads(text)
    ]


def told(message: str | None) -> str | None:
    """A message from outside as it is stored: without secrets, in one line, capped."""
    if message is None:
        return None
    clean = " ".join(redact_text(message.replace("\0", "")).split())
    return clean if len(clean) <= MESSAGE_CHARS else clean[: MESSAGE_CHARS - 1] + "…"


def config_of(plan: Plan) -> dict[str, Any]:
    """The graph of a chain without arguments, values and results."""
    return {
        "steps": [
            {
                "id": step.id,
                "server_name": step.server,
                "tool_name": step.tool,
                "arguments": sorted(step.arguments),
                "needs": [plan.steps[index].id for index in sorted(step.needs)],
                "after": [plan.steps[index].id for index in sorted(step.after)],
                "parallel_group": step.group,
                "input_mapping": {target: redact_text(read.text) for target, read in step.mapping},
                "execute_if": redact_text(step.condition.text) if step.condition else None,
                "timeout_ms": step.timeout_ms,
                "retry": asdict(step.retry),
            }
            for step in plan.steps
        ],
        "fail_fast": plan.fail_fast,
        "timeout_ms": plan.timeout_ms,
        "max_parallel": plan.max_parallel,
        "variables": sorted(plan.variables),
    }
