"""Turns: so many at once, the rest in turn, client by client."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from hubscope.errors import QueryQueueFull
from hubscope.sqlgate.turns import Turns


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_client_with_many_calls_does_not_stand_before_another() -> None:
    turns, order, go = Turns(1, 100), [], asyncio.Event()

    async def call(client: str, number: int) -> None:
        async with turns.turn(client):
            if not go.is_set():
                await go.wait()
            order.append(f"{client}{number}")

    tasks = [asyncio.create_task(call("a", n)) for n in range(4)]
    await settle()
    tasks.append(asyncio.create_task(call("b", 0)))
    await settle()
    assert (turns.running, turns.waiting) == (1, 4)
    go.set()
    await asyncio.gather(*tasks)
    assert order == ["a0", "a1", "b0", "a2", "a3"]
    assert (turns.running, turns.waiting) == (0, 0)


async def test_past_the_limit_nobody_may_wait() -> None:
    turns = Turns(1, 1)
    async with turns.turn("a"):
        waiting = asyncio.create_task(_once(turns))
        await settle()
        with pytest.raises(QueryQueueFull, match="HUBSCOPE_SQL_MAX_WAITING"):
            await _once(turns)
    await waiting
    await _once(turns)


async def _once(turns: Turns) -> None:
    async with turns.turn("x"):
        pass


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_who_gives_up_waiting_costs_nobody_a_place(steps: int) -> None:
    turns = Turns(1, 10)
    async with turns.turn("a"):
        gone, next_one = asyncio.create_task(_once(turns)), asyncio.create_task(_once(turns))
        await settle()
        if steps == 0:
            gone.cancel()
    if steps:
        gone.cancel()  # in the moment in which it was given the place
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    await asyncio.wait_for(next_one, 5)
    assert (turns.running, turns.waiting) == (0, 0)
