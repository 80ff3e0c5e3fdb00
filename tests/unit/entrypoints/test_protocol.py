"""What is written in one step of the loop goes out together."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from hubscope.entrypoints.protocol import JOINED_BYTES, _Joined

pytestmark = pytest.mark.bridge


class Wire:
    """What a transport is told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def write_eof(self) -> None:
        self.told.append("eof")

    def abort(self) -> None:
        self.told.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.told

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")


def joined() -> tuple[_Joined, Wire]:
    wire = Wire()
    return _Joined(cast(asyncio.Transport, wire), asyncio.get_running_loop()), wire


async def test_a_head_and_its_body_are_one_send_and_the_next_answer_another() -> None:
    transport, wire = joined()
    transport.write(b"head ")
    transport.write(b"body")
    assert wire.told == []
    await asyncio.sleep(0)
    transport.write(b"next")
    await asyncio.sleep(0)
    assert wire.told == [b"head body", b"next"]


async def test_a_large_answer_does_not_wait() -> None:
    transport, wire = joined()
    transport.write(b"head")
    transport.write(bytes(JOINED_BYTES))
    assert [len(data) for data in wire.told] == [JOINED_BYTES + 4]
    await asyncio.sleep(0)
    assert len(wire.told) == 1


@pytest.mark.parametrize("end", ["close", "eof"])
async def test_what_was_written_goes_out_before_the_end(end: str) -> None:
    transport, wire = joined()
    transport.write(b"answer")
    (transport.close if end == "close" else transport.write_eof)()
    await asyncio.sleep(0)
    assert wire.told == [b"answer", end]


async def test_an_abort_leaves_unsaid_what_was_not_sent() -> None:
    transport, wire = joined()
    transport.write(b"answer")
    transport.abort()
    await asyncio.sleep(0)
    assert wire.told == ["abort"]
    assert not transport.is_closing()
