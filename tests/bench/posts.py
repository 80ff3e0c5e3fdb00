"""The standard load as a hub sends it now, and the same rows as `psql \\copy` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np

from hubscope.ingest.rows import COLUMNS, record
from hubscope.model import ToolCall
from tests.bench.load import LATE_SHARE, Load, standard_load

Call = tuple[str, UUID, ToolCall]
"""Tenant, event_id, call."""
LATE_MOST_S: Final = 6 * 3600
_ENCODER: Final = msgspec.json.Encoder()
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def live_load(events: int, now: datetime, seed: int, *, over_s: float = 600.0) -> Load:
    """The standard load, as what a hub has to say of the last minutes: its month is pressed into `over_s` seconds.

    In the order of arrival, 1 % late by up to six hours; each id carries its event's own time.
    """
    load = standard_load(events, now, seed)
    draw = np.random.default_rng(seed + 1)
    end_us = int(now.timestamp() * 1_000_000)
    time_us = end_us - ((1 - (np.arange(events) + 1) / events) * over_s * 1_000_000).astype(np.int64)
    late = draw.random(events) < LATE_SHARE
    time_us[late] -= draw.integers(0, LATE_MOST_S * 1_000_000, int(late.sum()))
    id_high = ((time_us // 1000).astype(np.uint64) << np.uint64(16)) | (load.id_high & np.uint64(0xFFFF))
    return replace(load, time_us=time_us, id_high=id_high)


def posts(calls: Iterable[Call], size: int) -> list[list[Call]]:
    """Posts of `size` events, each of one tenant, in the order in which they fill; the last of each may be smaller."""
    whole: list[list[Call]] = []
    filling: dict[str, list[Call]] = {}
    for call in calls:
        post = filling.setdefault(call[0], [])
        post.append(call)
        if len(post) == size:
            whole.append(filling.pop(call[0]))
    return whole + list(filling.values())


def ndjson(calls: Iterable[Call]) -> bytes:
    """The body of a post: one event a line, without the fields that say nothing."""
    return b"\n".join(_ENCODER.encode(_spoken(event_id, call)) for _, event_id, call in calls) + b"\n"


def _spoken(event_id: UUID, call: ToolCall) -> dict[str, Any]:
    fields = {name: getattr(call, name) for name in call.__struct_fields__}
    said = {name: value for name, value in fields.items() if value is not None and value != ""}
    return {"type": "tool_call", **said, "event_id": event_id}


def copy_line(columns: Sequence[Any]) -> str:
    """A row in the text format of COPY."""
    return "\t".join(map(_written, columns)) + "\n"


def copy_text(calls: Iterable[Call]) -> str:
    """The rows that ingest makes of the calls (raw.tool_calls, in the order of COLUMNS), in the text format of COPY."""
    return "".join(copy_line(record(*call).columns) for call in calls)


def insert_statement(call: Call) -> str:
    """A script for pgbench: the row of this call, with an id and a time of its own each time."""
    values = dict(zip(COLUMNS["tool_calls"], record(*call).columns, strict=True))
    if values["attrs"] is not None:
        # With blanks after the colons: pgbench takes `:false` for a variable of its own.
        values["attrs"] = msgspec.json.format(values["attrs"], indent=0)
    literals = (
        "uuidv7()" if name == "event_id" else "now()" if name == "time" else _literal(value)
        for name, value in values.items()
    )
    return f"INSERT INTO raw.tool_calls ({', '.join(COLUMNS['tool_calls'])}) VALUES ({', '.join(literals)});\n"


def _written(value: Any) -> str:
    if value is None:
        return r"\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value).translate(_ESCAPES)


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return "'" + str(value).replace("'", "''") + "'"
