"""The plan of a chain: what is read, what is refused, and what order means."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.chains.dialect import references
from hubscope.chains.plan import Limits, Plan, Retry, parse, refuse
from hubscope.chains.service import limits_of
from hubscope.errors import InvalidChain
from hubscope.settings import Settings


def step(**more: Any) -> dict[str, Any]:
    return {"server_name": "s", "tool_name": "t", **more}


def plan_of(*steps: dict[str, Any], **more: Any) -> Plan:
    draft = parse(list(steps), **more)
    assert draft.problems == ()
    assert draft.plan is not None
    return draft.plan


def problems_of(*steps: Any, **more: Any) -> list[tuple[str, str]]:
    return [(problem.path, problem.code) for problem in parse(list(steps), **more).problems]


def waits(plan: Plan) -> list[set[int]]:
    return [set(one.waits_for) for one in plan.steps]


# What order means


@pytest.mark.parametrize(
    ("steps", "expected", "kind"),
    [
        ([{}, {}, {}], [set(), {0}, {0, 1}], "sequential"),
        ([{}, {"parallel_group": "g"}, {"parallel_group": "g"}, {}], [set(), {0}, {0}, {0, 1, 2}], "parallel"),
        ([{"parallel_group": "a"}, {"parallel_group": "b"}], [set(), {0}], "sequential"),
        ([{}, {"depends_on": []}, {"depends_on": ["step_0"]}], [set(), set(), {0}], "graph"),
        # who says nothing runs after everything before it, also after those that say something
        ([{"depends_on": []}, {"depends_on": []}, {}], [set(), set(), {0, 1}], "parallel"),
        # a group may be split where its members say what they wait for
        (
            [{"parallel_group": "g"}, {}, {"parallel_group": "g", "depends_on": ["step_1"]}],
            [set(), {0}, {1}],
            "graph",
        ),
        # what is read is waited for
        (
            [{"depends_on": []}, {"depends_on": [], "input_mapping": {"x": "steps.step_0.result"}}],
            [set(), {0}],
            "graph",
        ),
    ],
)
def test_what_a_step_waits_for(steps: list[dict[str, Any]], expected: list[set[int]], kind: str) -> None:
    plan = plan_of(*(step(**one) for one in steps))
    assert waits(plan) == expected
    assert plan.chain_type == kind


def test_what_is_declared_or_read_is_needed_and_the_rest_only_comes_first() -> None:
    plan = plan_of(step(id="a"), step(id="b"), step(id="c", conditions={"execute_if": "steps.a.status == 'completed'"}))
    assert [set(one) for one in (plan.steps[2].needs, plan.steps[2].after, plan.steps[2].reads)] == [{0}, {1}, {0}]


@given(st.data())
def test_a_graph_without_a_cycle_is_taken_and_keeps_its_edges(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    order = data.draw(st.permutations(range(count)))
    needs = {
        index: data.draw(st.sets(st.sampled_from(order[:place]), max_size=4)) if place else set()
        for place, index in enumerate(order)
    }
    plan = plan_of(*(step(id=f"s{i}", depends_on=[f"s{j}" for j in sorted(needs[i])]) for i in range(count)))
    assert waits(plan) == [needs[i] for i in range(count)]


@given(st.data())
def test_a_graph_with_a_cycle_is_refused_with_a_cycle_that_is_there(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 10))
    ring = data.draw(st.permutations(range(count)))[: data.draw(st.integers(2, count))]
    needs: dict[int, set[int]] = {
        i: data.draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set() for i in range(count)
    }
    for here, there in itertools.pairwise([*ring, ring[0]]):
        needs[here].add(there)
    draft = parse([step(id=f"s{i}", depends_on=[f"s{j}" for j in sorted(needs[i])]) for i in range(count)])
    assert draft.plan is None
    assert {problem.code for problem in draft.problems} == {"cycle"}
    for problem in draft.problems:
        names = problem.message.removeprefix("waits for itself: ").partition(" (")[0].split(" -> ")
        assert names[0] == names[-1]
        for here, there in itertools.pairwise(int(name[1:]) for name in names):
            assert there in needs[here]


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "id": st.one_of(st.sampled_from(["a", "b", "c", "9", ""]), st.none(), st.integers()),
                "server_name": st.one_of(st.just("s"), st.text(max_size=3), st.none(), st.booleans()),
                "tool_name": st.one_of(st.just("t"), st.none()),
                "arguments": st.one_of(st.dictionaries(st.text(), st.integers(), max_size=2), st.none(), st.integers()),
                "depends_on": st.one_of(
                    st.lists(st.sampled_from(["a", "b", "c", "step_0", 1, None])), st.text(max_size=2)
                ),
                "parallel_group": st.one_of(st.sampled_from(["g", "h", ""]), st.integers()),
                "input_mapping": st.dictionaries(st.text(max_size=3), st.text(max_size=20), max_size=2),
                "conditions": st.one_of(st.dictionaries(st.just("execute_if"), st.text(max_size=20)), st.integers()),
                "timeout": st.one_of(st.integers(), st.floats(), st.text(max_size=4)),
                "retry": st.one_of(
                    st.dictionaries(st.sampled_from(["max_attempts", "on", "x"]), st.integers()), st.none()
                ),
                "surprise": st.integers(),
            },
        ),
        max_size=6,
    )
)
def test_whatever_comes_is_a_plan_or_problems_and_never_anything_else(chain: list[Any]) -> None:
    draft = parse(chain)
    assert (draft.plan is None) == bool(draft.problems)
    for problem in draft.problems:
        assert problem.path.startswith("$")
        assert problem.message
    if draft.plan is not None:
        settled: set[int] = set()
        while len(settled) < len(draft.plan.steps):
            free = {one.index for one in draft.plan.steps if one.waits_for <= settled} - settled
            assert free, "every step gets its turn"
            settled |= free


# What is refused

IF = "conditions.execute_if"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], [("$.chain", "invalid_field")]),
        (["x"], [("$.chain[0]", "invalid_field")]),
        ([{}], [("$.chain[0].server_name", "invalid_field"), ("$.chain[0].tool_name", "invalid_field")]),
        ([step(id="a"), step(id="a")], [("$.chain[1].id", "duplicate_id")]),
        ([step(id="step_1"), step()], [("$.chain[1].id", "duplicate_id")]),
        ([step(id="1a")], [("$.chain[0].id", "invalid_id")]),
        ([step(depends_on=["zz"])], [("$.chain[0].depends_on[0]", "unknown_step")]),
        ([step(id="a", depends_on=["a"])], [("$.chain[0].depends_on[0]", "cycle")]),
        ([step(input_mapping={"x": "steps.later.result"}), step(id="later")], [("$.chain[0]", "cycle")]),
        ([step(depends="x")], [("$.chain[0].depends", "unknown_field")]),
        ([step(timeout="soon")], [("$.chain[0].timeout", "invalid_field")]),
        ([step(timeout=0)], [("$.chain[0].timeout", "invalid_field")]),
        ([step(timeout=float("nan"))], [("$", "too_large")]),
        ([step(retry={"max_attempts": 11})], [("$.chain[0].retry.max_attempts", "invalid_field")]),
        ([step(retry={"on": ["everything"]})], [("$.chain[0].retry.on", "invalid_field")]),
        ([step(retry=3)], [("$.chain[0].retry", "invalid_field")]),
        ([step(conditions={"unless": "x"})], [("$.chain[0].conditions.unless", "unknown_field")]),
        ([step(input_mapping={"x": {"jq": "."}})], [("$.chain[0].input_mapping.x", "invalid_field")]),
        ([step(input_mapping={"x": "steps.nobody.result"})], [("$.chain[0].input_mapping.x", "unknown_step")]),
        ([step(conditions={"execute_if": "size(steps) > 1"})], [(f"$.chain[0].{IF}", "vague_reference")]),
        (
            [step(parallel_group="g"), step(), step(parallel_group="g")],
            [("$.chain[2].parallel_group", "split_group")],
        ),
        (
            [step(id="a", depends_on=["b"]), step(id="b", depends_on=["a"]), step(id="c", depends_on=["d", "zz"]),
             step(id="d", depends_on=["c"])],
            [("$.chain[2].depends_on[1]", "unknown_step"), ("$.chain[0]", "cycle"), ("$.chain[2]", "cycle")],
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_path(steps: list[Any], expected: list[tuple[str, str]]) -> None:
    assert problems_of(*steps) == expected


def test_options_are_checked_like_steps() -> None:
    assert problems_of(
        step(), options={"fail_fast": 1, "timeout": "2d", "max_parallel": 99, "surprise": 1}, variables=[], metadata=1
    ) == [
        ("$.execution_options.surprise", "unknown_field"),
        ("$.execution_options.fail_fast", "invalid_field"),
        ("$.execution_options.timeout", "invalid_field"),
        ("$.execution_options.max_parallel", "invalid_field"),
        ("$.variables", "invalid_field"),
        ("$.metadata", "invalid_field"),
    ]


@pytest.mark.parametrize(
    ("limits", "steps", "setting"),
    [
        (Limits(steps=2), [step()] * 3, "HUBSCOPE_CHAIN_MAX_STEPS"),
        (Limits(bytes=100), [step(arguments={"x": "x" * 100})], "HUBSCOPE_CHAIN_MAX_BYTES"),
        (Limits(expression_chars=5), [step(conditions={"execute_if": "1 == 1"})], "HUBSCOPE_CHAIN_EXPRESSION_CHARS"),
    ],
)
def test_a_definition_over_a_limit_is_refused_with_the_setting(limits: Limits, steps: list[Any], setting: str) -> None:
    (problem,) = parse(steps, limits=limits).problems
    assert setting in problem.message


def test_the_limits_are_those_of_the_settings() -> None:
    settings = Settings.load(
        database_url="postgresql://h/d", chain_max_parallel=3, chain_step_timeout_ms=70, chain_timeout_ms=900
    )
    limits = limits_of(settings)
    plan = plan_of(step(), limits=limits)
    assert (plan.max_parallel, plan.steps[0].timeout_ms, plan.timeout_ms) == (3, 70, 900)
    assert problems_of(step(timeout=901), options={"max_parallel": 4}, limits=limits) == [
        ("$.execution_options.max_parallel", "invalid_field"),
        ("$.chain[0].timeout", "invalid_field"),
    ]


def test_all_problems_are_in_the_error() -> None:
    with pytest.raises(InvalidChain) as refused:
        refuse(parse([step(depends_on=["x"]), step(depends_on=["y"])]).problems)
    assert [one["path"] for one in refused.value.context["problems"]] == [
        "$.chain[0].depends_on[0]",
        "$.chain[1].depends_on[0]",
    ]
    assert "there is no step x; there are step_0, step_1" in refused.value.detail


@pytest.mark.parametrize(
    ("given_", "ms"), [(250, 250), (1.5, 1), ("250ms", 250), ("1.5s", 1500), ("2m", 120_000), (" 10 s ", 10_000)]
)
def test_a_time_is_milliseconds_or_says_its_unit(given_: Any, ms: int) -> None:
    assert plan_of(step(timeout=given_)).steps[0].timeout_ms == ms


@given(st.integers(0, 5000), st.floats(1, 10), st.integers(0, 60_000), st.integers(1, 9))
def test_pauses_grow_and_never_past_their_limit(backoff: int, multiplier: float, most: int, attempt: int) -> None:
    retry = Retry(10, backoff, multiplier, most)
    assert 0 <= retry.pause_ms(attempt) <= most
    assert retry.pause_ms(attempt) <= retry.pause_ms(attempt + 1)


# Expressions


@pytest.mark.parametrize(
    ("language", "text", "names", "vague"),
    [
        ("cel", "steps.a.result == steps['b-c'].result", ["a", "b-c"], False),
        ("cel", "'steps.a' == \"steps.b\" // steps.c", [], False),
        ("cel", "variables.steps.a == 1", [], False),
        ("cel", "steps.all(s, true)", [], True),
        ("cel", "steps[variables.x]", [], True),
        ("cel", "{'steps': steps.a}", ["a"], False),
        ("jmespath", 'steps.a.result | [0].{x: n, steps: m}', ["a"], False),
        ("jmespath", 'steps."b-c".result[?x == `"steps.q"`]', ["b-c"], False),
        ("jmespath", "steps.*.result", [], True),
        ("jmespath", "keys(steps)", [], True),
    ],
)  # fmt: skip
def test_the_steps_that_an_expression_reads(language: Any, text: str, names: list[str], vague: bool) -> None:
    assert references(language, text) == (names, vague)


@pytest.mark.parametrize(
    ("text", "cel"),
    [
        ("${steps.a.success}", 'steps.a.status == "completed"'),
        ('"${steps.a.result.n} > 1"', None),
        ("${steps.a.result.n} > 1", "steps.a.result.n > 1"),
        ("results[0].success === true", 'steps["a"].status == "completed"'),
        ("steps.a.status === 'ok' && steps.a.result.length > 0", "steps.a.status == 'ok' && size(steps.a.result) > 0"),
        ("steps.a.result !== undefined;", "steps.a.result != null"),
        ("$.steps.a.result.n == 1", "steps.a.result.n == 1"),
        ("steps.a?.result == '==='", "steps.a.result == '==='"),
    ],
)  # fmt: skip
def test_a_condition_in_javascript_is_refused_with_its_cel(text: str, cel: str | None) -> None:
    draft = parse([step(id="a"), step(conditions={"execute_if": text})])
    if cel is None:
        assert draft.problems == ()  # a text is a text; that it is no condition, CEL itself says
        return
    (problem,) = draft.problems
    assert problem.code == "javascript"
    assert problem.message.endswith(f"in CEL it is {cel}")


@pytest.mark.parametrize("text", ["() => true", "require('fs')", "process.exit()", "function () { return 1 }"])
def test_code_is_refused(text: str) -> None:
    (problem,) = parse([step(conditions={"execute_if": text})]).problems
    assert problem.code == "javascript"


@pytest.mark.parametrize(
    "text",
    [
        "steps.a.status == 'completed'",
        "has(steps.a.result.x) ? true : false",
        "variables.price == '$5'",
        "'${x}' == variables.t",
    ],
)
def test_cel_is_no_javascript(text: str) -> None:
    assert parse([step(id="a"), step(conditions={"execute_if": text})]).problems == ()


def test_a_definition_can_be_read_again_from_its_json() -> None:
    chain = [
        step(id="a", timeout="5s"),
        step(retry={"on": ["timeout"]}, input_mapping={"/x/y": {"cel": "steps.a.result"}}),
    ]
    assert plan_of(*json.loads(json.dumps(chain))) == plan_of(*chain)
