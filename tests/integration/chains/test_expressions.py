"""Expressions run in a process of their own: what is evaluated, and what cannot do harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from hubscope.chains.expressions import Evaluator, ExpressionFailed
from hubscope.chains.plan import Expression
from hubscope.errors import ShuttingDown

VALUES = {
    "steps": {"a": {"status": "completed", "result": {"n": 7, "items": [{"x": 1}, {"x": 2}], "text": "y" * 10_000}}},
    "variables": {"limit": 5, "many": list(range(95))},
    "metadata": {},
    "chain": {"id": "c"},
}


@pytest.fixture
async def evaluator() -> AsyncIterator[Evaluator]:
    found = Evaluator(timeout_ms=20_000, max_bytes=1_000_000)
    yield found
    await found.close()


@pytest.fixture
async def hasty() -> AsyncIterator[Evaluator]:
    """One that gives up soon."""
    found = Evaluator(timeout_ms=500, max_bytes=1_000_000)
    yield found
    await found.close()


async def value(evaluator: Evaluator, language: Any, text: str) -> Any:
    return await evaluator.evaluate(Expression(language, text, "$"), VALUES)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("cel", "steps.a.status == 'completed' && steps.a.result.n > variables.limit", True),
        ("cel", "has(steps.a.result.missing)", False),
        ("cel", "steps.a.result.items.exists(i, i.x == 2)", True),
        ("cel", "{'p': 'p' + string(steps.a.result.n), 'list': [1, 2.5, null]}", {"p": "p7", "list": [1, 2.5, None]}),
        ("cel", "steps['a'].result.items.map(i, i.x * 10)", [10, 20]),
        ("cel", "'é'.size()", 1),
        ("cel", "timestamp('2026-01-01T00:00:00Z')", "2026-01-01T00:00:00+00:00"),
        ("cel", "duration('90s')", 90.0),
        ("cel", "b'abc'", "YWJj"),
        ("jmespath", "steps.a.result.items[?x > `1`].x | [0]", 2),
        ("jmespath", "steps.a.result.missing", None),
        ("jmespath", "length(steps.a.result.items)", 2),
    ],
)  # fmt: skip
async def test_what_expressions_give(evaluator: Evaluator, language: Any, text: str, expected: Any) -> None:
    assert await value(evaluator, language, text) == expected


@pytest.mark.parametrize(
    ("language", "text", "says"),
    [
        ("cel", "steps.a.result.missing", "missing"),
        ("cel", "1 / 0", "divide by zero"),
        ("cel", "1.0 / 0.0", "no number"),
        ("jmespath", "length(`1`)", "invalid type"),
        ("cel", "variables.many.map(a, variables.many.map(b, variables.many.map(c, 1)))", "budget"),
        ("cel", "variables.many.map(a, steps.a.result.text + steps.a.result.text)", "bytes"),
        ("cel", "(" * 400 + "1" + ")" * 400, "recursion"),
        ("jmespath", "[" * 900 + "a" + "]" * 900, "nested too deeply"),
        ("cel", "'a'.matches('(a{1000}){1000}')", "regular expression"),
    ],
)
async def test_an_expression_that_cannot_be_evaluated_says_why(
    evaluator: Evaluator, language: Any, text: str, says: str
) -> None:
    with pytest.raises(ExpressionFailed, match=says):
        await value(evaluator, language, text)
    assert await value(evaluator, "cel", "1 + 1") == 2


async def test_an_expression_that_takes_too_long_is_killed(hasty: Evaluator) -> None:
    assert await value(hasty, "cel", "1 + 1") == 2
    assert hasty._process is not None
    first = psutil.Process(hasty._process.pid)
    bomb = "variables.many" + " | [@,@,@,@,@,@,@,@]" * 12
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(ExpressionFailed, match="HUBSCOPE_CHAIN_EXPRESSION_TIMEOUT_MS"):
        await value(hasty, "jmespath", bomb)
    ticking.cancel()
    assert ticks > 100, "the event loop went on meanwhile"
    assert not first.is_running()
    assert await value(hasty, "cel", "1 + 1") == 2


async def test_an_expression_that_eats_memory_costs_itself_only(evaluator: Evaluator) -> None:
    doubled = "steps.a.result.text" + " + steps.a.result.text" * 20
    text = f"variables.many.map(a, variables.many.map(b, {doubled})).size()"
    with pytest.raises(ExpressionFailed):
        await value(evaluator, "cel", text)
    assert await value(evaluator, "cel", "1 + 1") == 2


async def test_a_question_that_is_given_up_does_not_answer_the_next_one(evaluator: Evaluator) -> None:
    assert await value(evaluator, "cel", "1 + 1") == 2
    slow = asyncio.create_task(value(evaluator, "jmespath", "variables.many" + " | [@,@,@,@,@,@,@,@]" * 12))
    await asyncio.sleep(0.05)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert await value(evaluator, "cel", "'mine'") == "mine"


async def test_the_process_ends_with_its_evaluator_and_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBSCOPE_ENCRYPTION_KEY", "k" * 40)
    evaluator = Evaluator(timeout_ms=1_000, max_bytes=1_000_000)
    await value(evaluator, "cel", "true")
    assert evaluator._process is not None
    process = psutil.Process(evaluator._process.pid)
    assert not any(name.startswith("HUBSCOPE") for name in process.environ())
    await evaluator.close()
    assert not process.is_running()
    with pytest.raises(ShuttingDown):
        await value(evaluator, "cel", "true")
