"""The plan of a chain: the caller's JSON as a checked graph. Pure: no I/O, no clock, no library of expressions.

What order means (docs/reference/chains.md has it for users):

- A step with `depends_on` starts when those steps are settled; `depends_on: []` waits for nothing.
- A step without it starts when everything written before it is settled; neighbours of one `parallel_group` are one
  place in that order and start together.
- A step that reads another one's result, in its `input_mapping` or its condition, waits for it in any case.

So there are two kinds of edges. `needs` (declared or read): when the other step does not complete, this one is skipped,
unless its own condition reads that step and so decides. `after` (order of writing alone): when the other step is
settled, in whatever way, this one may start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hubscope.chains.dialect import Language, in_cel, references
from hubscope.errors import InvalidChain

STEP_FIELDS: Final = (
    "id",
    "server_name",
    "tool_name",
    "arguments",
    "depends_on",
    "parallel_group",
    "input_mapping",
    "conditions",
    "timeout",
    "retry",
    "idempotent",
)
OPTION_FIELDS: Final = ("fail_fast", "timeout", "max_parallel", "retry")
RETRY_FIELDS: Final = ("max_attempts", "backoff_ms", "multiplier", "max_backoff_ms", "on")
RETRYABLE: Final = ("tool_error", "timeout", "upstream_failed")
"""Failures that another attempt may mend. A call whose outcome is not known (timeout, a connection that broke after the
request was sent) is repeated only where repeating is safe: see `run`."""

ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
MAX_ATTEMPTS: Final = 10
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(ms|s|m|h)")
_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_MOST_PROBLEMS: Final = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """What a chain may be.

    Attributes:
        steps: most steps.
        bytes: longest definition as JSON.
        expression_chars: longest expression.
        step_timeout_ms: of an attempt whose step says nothing.
        timeout_ms: of a chain that says nothing, and the longest that may be asked for, for a step too.
        max_parallel: of a chain that says nothing, and the most that may be asked for.
        backoff_ms: longest pause between two attempts.
    """

    steps: int = 100
    bytes: int = 1_048_576
    expression_chars: int = 1_000
    step_timeout_ms: int = 60_000
    timeout_ms: int = 600_000
    max_parallel: int = 8
    backoff_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a chain.

    Attributes:
        path: where, as `$.chain[2].depends_on[0]`.
        code: a word to switch on.
        message: what is wrong and what would be right.
    """

    path: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt is followed by another.

    Attributes:
        max_attempts: the first one included.
        backoff_ms: pause before the second attempt; each later one is `multiplier` times as long, up to max_backoff_ms.
        on: failures that are worth another attempt, of `RETRYABLE`.
    """

    max_attempts: int = 1
    backoff_ms: int = 1_000
    multiplier: float = 2.0
    max_backoff_ms: int = 30_000
    on: tuple[str, ...] = RETRYABLE

    def pause_ms(self, attempt: int) -> float:
        """The pause after an attempt (1 is the first one)."""
        return float(min(self.backoff_ms * self.multiplier ** (attempt - 1), self.max_backoff_ms))


@dataclass(frozen=True, slots=True)
class Expression:
    """Something to evaluate.

    Attributes:
        path: where in the definition it stands.
        reads: indexes of the steps that it names.
    """

    language: Language
    text: str
    path: str
    reads: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One checked step.

    Attributes:
        index: its place in the chain, from 0.
        id: its name; `step_<index>` when none was given.
        mapping: argument (a name, or a JSON Pointer) and where its value comes from.
        needs: indexes of steps without whose completion this one is skipped.
        after: indexes of steps that only come first.
        reads: those of `needs` whose results it uses.
        idempotent: what the caller says about repeating the call; None leaves it to the tool's annotations.
    """

    index: int
    id: str
    server: str
    tool: str
    arguments: Mapping[str, Any]
    group: str | None
    mapping: tuple[tuple[str, Expression], ...]
    condition: Expression | None
    timeout_ms: int
    retry: Retry
    idempotent: bool | None
    needs: frozenset[int]
    after: frozenset[int]

    @property
    def waits_for(self) -> frozenset[int]:
        """Steps that must be settled before this one starts."""
        return self.needs | self.after

    @property
    def reads(self) -> frozenset[int]:
        """Steps whose state or result its expressions use."""
        own = [mapped.reads for _, mapped in self.mapping]
        return frozenset().union(*own, self.condition.reads if self.condition else ())

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """Everything it evaluates."""
        return (*([self.condition] if self.condition else []), *(mapped for _, mapped in self.mapping))


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked chain: `steps[i].index == i`, and the graph of `waits_for` has no cycle."""

    steps: tuple[Step, ...]
    fail_fast: bool
    timeout_ms: int
    max_parallel: int
    variables: Mapping[str, Any]
    metadata: Mapping[str, Any]

    @property
    def chain_type(self) -> str:
        """`sequential`, `parallel` (some steps may run together) or `graph` (dependencies were declared)."""
        if any(step.needs for step in self.steps):
            return "graph"
        order = [len(step.waits_for) for step in self.steps]
        return "sequential" if order == list(range(len(order))) else "parallel"


@dataclass(frozen=True, slots=True)
class Draft:
    """What could be read of a definition, right or wrong.

    Attributes:
        plan: None when there are problems.
        problems: all of them, in the order of the definition.
        tools: (path of the step, server, tool) of each step that names both.
        expressions: each that stands where it should.
    """

    plan: Plan | None
    problems: tuple[Problem, ...]
    tools: tuple[tuple[str, str, str], ...]
    expressions: tuple[Expression, ...]


def refuse(problems: Iterable[Problem]) -> None:
    """Nothing, or an error that tells all problems.

    Raises:
        InvalidChain: there is one.
    """
    found = list(problems)
    if not found:
        return
    told = "; ".join(str(problem) for problem in found[:10])
    more = f"; and {len(found) - 10} more" if len(found) > 10 else ""
    raise InvalidChain(
        f"{told}{more}",
        problems=[
            {"path": problem.path, "code": problem.code, "message": problem.message}
            for problem in found[:_MOST_PROBLEMS]
        ],
    )


def parse(
    chain: Any, *, options: Any = None, variables: Any = None, metadata: Any = None, limits: Limits = Limits()
) -> Draft:
    """Read a definition and check everything that can be checked without asking anybody."""
    return _Reader(limits).read(chain, options, variables, metadata)


class _Reader:
    """One reading; collects problems instead of stopping at the first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._problems: list[Problem] = []
        self._expressions: list[Expression] = []

    def read(self, chain: Any, options: Any, variables: Any, metadata: Any) -> Draft:
        size = _size({"chain": chain, "execution_options": options, "variables": variables, "metadata": metadata})
        if size is None or size > self._limits.bytes:
            told = "is no JSON" if size is None else f"has {size} bytes, at most {self._limits.bytes} are taken"
            self._wrong("$", "too_large", f"the definition {told} (HUBSCOPE_CHAIN_MAX_BYTES)")
            return self._draft(None, [])
        retry, fail_fast, timeout_ms, max_parallel = self._options(options)
        variables = self._object(variables, "$.variables")
        metadata = self._object(metadata, "$.metadata")
        if "\\u0000" in json.dumps(metadata):
            self._wrong("$.metadata", "invalid_field", "holds U+0000, which PostgreSQL cannot store")
        if not isinstance(chain, list) or not chain:
            self._wrong("$.chain", "invalid_field", "must be a list of at least one step")
            return self._draft(None, [])
        if len(chain) > self._limits.steps:
            self._wrong(
                "$.chain",
                "too_many_steps",
                f"has {len(chain)} steps, at most {self._limits.steps} are taken (HUBSCOPE_CHAIN_MAX_STEPS)",
            )
            return self._draft(None, [])
        ids = self._ids(chain)
        index_of: dict[str, int] = {}
        for index, name in enumerate(ids):
            index_of.setdefault(name, index)
        stages = self._stages(chain)
        steps = [
            self._step(index, raw, ids, index_of, stages, retry)
            for index, raw in enumerate(chain)
            if isinstance(raw, dict)
        ]
        tools = [(f"$.chain[{step.index}]", step.server, step.tool) for step in steps if step.server and step.tool]
        if len(steps) == len(chain):
            self._cycles(steps)
        plan = Plan(tuple(steps), fail_fast, timeout_ms, max_parallel, variables, metadata)
        return self._draft(plan, tools)

    def _draft(self, plan: Plan | None, tools: Sequence[tuple[str, str, str]]) -> Draft:
        problems = tuple(self._problems)
        return Draft(None if problems else plan, problems, tuple(tools), tuple(self._expressions))

    def _wrong(self, path: str, code: str, message: str) -> None:
        self._problems.append(Problem(path, code, message))

    def _known(self, raw: Mapping[str, Any], fields: Sequence[str], path: str) -> None:
        for name in raw:
            if name not in fields:
                self._wrong(
                    f"{path}.{_shown(name)}", "unknown_field", f"is no field here; there are {', '.join(fields)}"
                )

    def _object(self, raw: Any, path: str) -> dict[str, Any]:
        if raw is None:
            return {}
        if not isinstance(raw, dict):
            self._wrong(path, "invalid_field", "must be an object")
            return {}
        return raw

    def _whole(self, raw: Any, path: str, default: int, least: int, most: int) -> int:
        if raw is None:
            return default
        if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
            self._wrong(path, "invalid_field", f"must be a whole number from {least} to {most}")
            return default
        return int(raw)

    def _flag(self, raw: Any, path: str, default: bool | None) -> bool | None:
        if raw is None:
            return default
        if not isinstance(raw, bool):
            self._wrong(path, "invalid_field", "must be true or false")
            return default
        return raw

    def _duration(self, raw: Any, path: str, default: int, most: int) -> int:
        """Milliseconds, from a number of them or a text such as "30s"."""
        if raw is None:
            return default
        found: float | None = None
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            found = float(raw)
        elif isinstance(raw, str) and (match := _DURATION.fullmatch(raw.strip())):
            found = float(match[1]) * _UNIT_MS[match[2]]
        if found is None or not 1 <= found <= most:
            self._wrong(
                path,
                "invalid_field",
                f'must be milliseconds from 1 to {most}, or a text such as "500ms", "30s" or "2m"',
            )
            return default
        return int(found)

    def _options(self, raw: Any) -> tuple[Retry, bool, int, int]:
        path = "$.execution_options"
        options = self._object(raw, path)
        self._known(options, OPTION_FIELDS, path)
        limits = self._limits
        return (
            self._retry(options.get("retry"), f"{path}.retry", Retry()),
            bool(self._flag(options.get("fail_fast"), f"{path}.fail_fast", True)),
            self._duration(options.get("timeout"), f"{path}.timeout", limits.timeout_ms, limits.timeout_ms),
            self._whole(
                options.get("max_parallel"), f"{path}.max_parallel", limits.max_parallel, 1, limits.max_parallel
            ),
        )

    def _retry(self, raw: Any, path: str, default: Retry) -> Retry:
        if raw is None:
            return default
        if not isinstance(raw, dict):
            self._wrong(path, "invalid_field", f"must be an object of {', '.join(RETRY_FIELDS)}")
            return default
        self._known(raw, RETRY_FIELDS, path)
        multiplier = raw.get("multiplier", 2)
        if isinstance(multiplier, bool) or not isinstance(multiplier, int | float) or not 1 <= multiplier <= 10:
            self._wrong(f"{path}.multiplier", "invalid_field", "must be a number from 1 to 10")
            multiplier = 2
        on = raw.get("on", list(RETRYABLE))
        if not isinstance(on, list) or not on or any(kind not in RETRYABLE for kind in on):
            self._wrong(f"{path}.on", "invalid_field", f"must be a list of {', '.join(RETRYABLE)}")
            on = list(RETRYABLE)
        longest = self._limits.backoff_ms
        most_pause = self._whole(raw.get("max_backoff_ms"), f"{path}.max_backoff_ms", min(30_000, longest), 0, longest)
        return Retry(
            self._whole(raw.get("max_attempts"), f"{path}.max_attempts", 3, 1, MAX_ATTEMPTS),
            self._whole(raw.get("backoff_ms"), f"{path}.backoff_ms", min(1_000, longest), 0, longest),
            float(multiplier),
            most_pause,
            tuple(on),
        )

    def _ids(self, chain: Sequence[Any]) -> list[str]:
        """The name of each step; a wrong one is reported and replaced by one nobody can mean."""
        ids: list[str] = []
        first: dict[str, int] = {}
        for index, raw in enumerate(chain):
            path = f"$.chain[{index}]"
            if not isinstance(raw, dict):
                self._wrong(path, "invalid_field", "must be an object")
                ids.append(f"\0{index}")
                continue
            given = raw.get("id")
            name = f"step_{index}" if given is None else given
            if not isinstance(name, str) or not ID.fullmatch(name):
                self._wrong(
                    f"{path}.id", "invalid_id", "must be 1 to 63 letters, digits, _ or -, the first a letter or _"
                )
                name = f"\0{index}"
            elif name in first:
                self._wrong(f"{path}.id", "duplicate_id", f"{name!r} is the id of $.chain[{first[name]}] already")
            first.setdefault(name, index)
            ids.append(name)
        return ids

    def _stages(self, chain: Sequence[Any]) -> list[int]:
        """For each step, where the run of neighbours begins that it belongs to."""
        starts: list[int] = []
        closed: dict[str, int] = {}
        previous: str | None = None
        for index, raw in enumerate(chain):
            group = raw.get("parallel_group") if isinstance(raw, dict) else None
            if group is not None and not (isinstance(group, str) and 0 < len(group) <= 63 and group.isprintable()):
                self._wrong(
                    f"$.chain[{index}].parallel_group",
                    "invalid_field",
                    "must be a printable text of 1 to 63 characters",
                )
                group = None
            if group is not None and group == previous:
                starts.append(starts[-1])
            else:
                if group is not None and group in closed and raw.get("depends_on") is None:
                    self._wrong(
                        f"$.chain[{index}].parallel_group",
                        "split_group",
                        f"{group!r} ended before $.chain[{index}]: put its steps next to each other, or say depends_on",
                    )
                starts.append(index)
            if group is not None:
                closed[group] = index
            previous = group
        return starts

    def _step(
        self,
        index: int,
        raw: Mapping[str, Any],
        ids: Sequence[str],
        index_of: Mapping[str, int],
        stages: Sequence[int],
        retry: Retry,
    ) -> Step:
        path = f"$.chain[{index}]"
        self._known(raw, STEP_FIELDS, path)
        named: dict[str, str] = {}
        for name in ("server_name", "tool_name"):
            value = raw.get(name)
            if not isinstance(value, str) or not 0 < len(value) <= 255 or not value.isprintable():
                self._wrong(f"{path}.{name}", "invalid_field", "must be a printable text of 1 to 255 characters")
                value = ""
            named[name] = value
        mapping = self._mapping(raw.get("input_mapping"), f"{path}.input_mapping", index, index_of)
        conditions = self._object(raw.get("conditions"), f"{path}.conditions")
        self._known(conditions, ("execute_if",), f"{path}.conditions")
        condition = None
        if conditions.get("execute_if") is not None:
            condition = self._expression(
                "cel", conditions["execute_if"], f"{path}.conditions.execute_if", index, index_of
            )
        declared = self._depends_on(raw.get("depends_on"), path, index, index_of)
        reads = frozenset().union(*(read.reads for _, read in mapping), condition.reads if condition else ())
        after = frozenset(range(stages[index])) if declared is None else frozenset()
        needs = (declared or frozenset()) | reads
        limits = self._limits
        group = raw.get("parallel_group")
        return Step(
            index=index,
            id=ids[index],
            server=named["server_name"],
            tool=named["tool_name"],
            arguments=self._object(raw.get("arguments"), f"{path}.arguments"),
            group=group if isinstance(group, str) else None,
            mapping=tuple(mapping),
            condition=condition,
            timeout_ms=self._duration(
                raw.get("timeout"),
                f"{path}.timeout",
                min(limits.step_timeout_ms, limits.timeout_ms),
                limits.timeout_ms,
            ),
            retry=self._retry(raw.get("retry"), f"{path}.retry", retry),
            idempotent=self._flag(raw.get("idempotent"), f"{path}.idempotent", None),
            needs=needs,
            after=after - needs,
        )

    def _depends_on(self, raw: Any, path: str, index: int, index_of: Mapping[str, int]) -> frozenset[int] | None:
        if raw is None:
            return None
        if not isinstance(raw, list):
            self._wrong(f"{path}.depends_on", "invalid_field", "must be a list of ids of steps")
            return None
        found = set()
        for place, name in enumerate(raw):
            where = f"{path}.depends_on[{place}]"
            if not isinstance(name, str) or name not in index_of:
                self._wrong(where, "unknown_step", f"there is no step {_shown(name)}; {_choice(index_of)}")
            elif index_of[name] == index:
                self._wrong(where, "cycle", "a step cannot depend on itself")
            else:
                found.add(index_of[name])
        return frozenset(found)

    def _mapping(self, raw: Any, path: str, index: int, index_of: Mapping[str, int]) -> list[tuple[str, Expression]]:
        mapped = []
        for target, source in self._object(raw, path).items():
            where = f"{path}.{_shown(target)}"
            if not target or (target.startswith("/") and re.search(r"~(?![01])", target)):
                self._wrong(where, "invalid_field", "must be the name of an argument, or a JSON Pointer such as /a/b")
            language: Language = "jmespath"
            text = source
            if isinstance(source, dict):
                if len(source) != 1 or next(iter(source)) not in ("cel", "jmespath"):
                    self._wrong(where, "invalid_field", 'must be a JMESPath text, {"jmespath": ...} or {"cel": ...}')
                    continue
                ((language, text),) = source.items()
            found = self._expression(language, text, where, index, index_of)
            if found is not None:
                mapped.append((target, found))
        return mapped

    def _expression(
        self, language: Language, text: Any, path: str, index: int, index_of: Mapping[str, int]
    ) -> Expression | None:
        if not isinstance(text, str) or not text.strip():
            self._wrong(path, "invalid_expression", f"must be a text in {_LANGUAGE[language]}")
            return None
        if "\0" in text:
            self._wrong(path, "invalid_expression", "holds U+0000")
            return None
        if len(text) > self._limits.expression_chars:
            self._wrong(
                path,
                "expression_too_long",
                f"has {len(text)} characters, at most {self._limits.expression_chars} are taken"
                " (HUBSCOPE_CHAIN_EXPRESSION_CHARS)",
            )
            return None
        meant = in_cel(text, list(index_of))
        if meant is not None:
            instead = f'{{"cel": {json.dumps(meant)}}}' if path.rpartition(".")[2] != "execute_if" else meant
            self._wrong(
                path, "javascript", f"is written as JavaScript, which is never run here; in CEL it is {instead}"
            )
            return None
        names, vague = references(language, text)
        if vague:
            self._wrong(path, "vague_reference", "must name the step that it reads: steps.<id>.result")
        reads = set()
        for name in names:
            if name not in index_of:
                self._wrong(path, "unknown_step", f"there is no step {_shown(name)}; {_choice(index_of)}")
            elif index_of[name] == index:
                self._wrong(path, "cycle", "a step cannot read itself")
            else:
                reads.add(index_of[name])
        found = Expression(language, text, path, frozenset(reads))
        self._expressions.append(found)
        return found

    def _cycles(self, steps: Sequence[Step]) -> None:
        """Report each knot of steps that wait for each other, at the first of them."""
        left = {step.index: set(step.waits_for) for step in steps}
        while free := [index for index, waits in left.items() if not waits & left.keys()]:
            for index in free:
                del left[index]
        while left:
            circle = _circle(left)
            names = " -> ".join(steps[index].id for index in (*circle, circle[0]))
            self._wrong(f"$.chain[{min(circle)}]", "cycle", f"waits for itself: {names} (each waits for the next one)")
            for index in circle:
                del left[index]
            while free := [index for index, waits in left.items() if not waits & left.keys()]:
                for index in free:
                    del left[index]


_LANGUAGE: Final = {"cel": "CEL", "jmespath": "JMESPath"}


def _circle(left: Mapping[int, set[int]]) -> list[int]:
    """A circle, where every one of `left` waits for one of `left`; beginning with its smallest index."""
    walked: dict[int, int] = {}
    order: list[int] = []
    here = min(left)
    while here not in walked:
        walked[here] = len(order)
        order.append(here)
        here = min(left[here] & left.keys())
    circle = order[walked[here] :]
    first = circle.index(min(circle))
    return circle[first:] + circle[:first]


def _shown(value: Any) -> str:
    """A name from the definition in a message: capped and printable."""
    text = value if isinstance(value, str) and value.isprintable() else json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:79] + "…"


def _choice(index_of: Mapping[str, int]) -> str:
    names = [name for name in index_of if not name.startswith("\0")]
    return f"there are {', '.join(names[:20])}{', …' if len(names) > 20 else ''}"


def _size(value: Any) -> int | None:
    try:
        return len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError):
        return None
