"""The negative control: hubscope, but it acknowledges first and commits a while later, as buffering collectors do.

Run as a program, with the arguments of `hubscope`. The harness must find out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from hubscope.__main__ import main
from hubscope.errors import Unavailable
from hubscope.ingest.rows import Record
from hubscope.ingest.writer import Fate, Outcome, Writer

LATER_S: Final = 2.0

honest = Writer.store
waiting: set[asyncio.Task[Any]] = set()


async def commit(writer: Writer, records: Sequence[Record], size: int) -> None:
    """Commit, a while later, and try again for as long as the process lives."""
    await asyncio.sleep(LATER_S)
    while True:
        try:
            await honest(writer, records, size)
            return
        except Unavailable as error:
            logging.info("not yet: %s", error)
            await asyncio.sleep(0.1)


async def hasty(writer: Writer, records: Sequence[Record], size: int) -> list[Outcome]:
    """Say that it is done."""
    task = asyncio.create_task(commit(writer, records, size))
    waiting.add(task)
    task.add_done_callback(waiting.discard)
    return [Fate.ACCEPTED] * len(records)


if __name__ == "__main__":
    Writer.store = hasty  # type: ignore[method-assign, assignment]
    main()
