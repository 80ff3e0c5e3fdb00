"""What the bench of ingest sends and copies: the same rows, all of which the service takes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import numpy as np
import pytest

from hubscope.ingest.envelope import Window, read
from hubscope.ingest.rows import COLUMNS, record
from tests.bench.ingest import Sizes, with_duplicates
from tests.bench.load import TENANTS
from tests.bench.posts import Call, copy_line, copy_text, insert_statement, live_load, ndjson, posts

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    return live_load(2_000, NOW, seed=3).calls(0, 2_000)


def test_every_event_is_accepted_as_it_was_meant(calls: list[Call]) -> None:
    window = Window.around(NOW, max_age=timedelta(days=7), max_skew=timedelta(seconds=300))
    body = ndjson(calls)
    batch = read(body, "application/x-ndjson", tenant="t", window=window, max_events=len(calls))
    assert batch.rejected == []
    for event, (_, event_id, call) in zip(batch.events, calls, strict=True):
        assert event.event_id == event_id
        assert msgspec.structs.replace(event, event_id=None) == call


def test_the_live_load_is_of_the_last_minutes_with_a_few_late_ones(calls: list[Call]) -> None:
    load = live_load(2_000, NOW, seed=3, over_s=600)
    age_s = NOW.timestamp() - load.time_us / 1e6
    late = age_s > 600
    assert 0.002 < late.mean() < 0.03
    assert age_s.max() <= 600 + 6 * 3600
    assert bool(np.all(np.diff(load.time_us[~late]) >= 0))
    assert len({event_id for _, event_id, _ in calls}) == len(calls)
    for _, event_id, call in calls[:50]:
        assert event_id.version == 7
        assert abs((event_id.int >> 80) - call.time.timestamp() * 1000) < 1


def test_two_rounds_share_no_event(calls: list[Call]) -> None:
    others = live_load(2_000, NOW, seed=4).calls(0, 2_000)
    assert not {event_id for _, event_id, _ in calls} & {event_id for _, event_id, _ in others}


def test_a_post_is_of_one_tenant_and_none_is_lost(calls: list[Call]) -> None:
    made = posts(calls, 100)
    assert sorted(call[1] for post in made for call in post) == sorted(call[1] for call in calls)
    assert all(len({call[0] for call in post}) == 1 for post in made)
    assert all(len(post) == 100 for post in made[: -len(TENANTS)])


def test_each_post_gets_one_event_that_is_stored(calls: list[Call]) -> None:
    stored, fresh = calls[:1_000], calls[1_000:]
    sent = with_duplicates(posts(fresh, 50), stored)
    known = {event_id for _, event_id, _ in stored}
    for post in sent:
        assert sum(call[1] in known for call in post) == 1
        assert len({call[0] for call in post}) == 1


def test_a_copied_row_has_a_field_for_each_column(calls: list[Call]) -> None:
    lines = copy_text(calls).splitlines()
    assert len(lines) == len(calls)
    for line, call in zip(lines[:100], calls, strict=False):
        fields = line.split("\t")
        assert len(fields) == len(COLUMNS["tool_calls"])
        row = dict(zip(COLUMNS["tool_calls"], fields, strict=True))
        assert row["tenant_id"] == call[0]
        assert UUID(row["event_id"]) == call[1]
        assert datetime.fromisoformat(row["time"]) == call[2].time


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, r"\N"),
        (True, "t"),
        (False, "f"),
        (1.5, "1.5"),
        ("a\tb\nc\\d\r", r"a\tb\nc\\d\r"),
        (r"\N", r"\\N"),
        (NOW.astimezone(UTC) + timedelta(microseconds=5), "2026-11-22T12:00:00.000005+00:00"),
    ],
)
def test_values_are_written_as_copy_reads_them(value: object, written: str) -> None:
    assert copy_line([value, "x"]) == f"{written}\tx\n"


def test_pgbench_inserts_the_same_columns(calls: list[Call]) -> None:
    statement = insert_statement(calls[0])
    assert not any(re.search(r":[A-Za-z0-9_]", insert_statement(call)) for call in calls[:50])  # pgbench's variables
    row = record(*calls[0]).columns
    assert ", ".join(COLUMNS["tool_calls"]) in statement
    assert "uuidv7()" in statement
    assert "now()" in statement
    assert f"'{row[4]}'" in statement
    assert statement.count("NULL") == row.count(None)


def test_sizes_follow_the_events_asked_for() -> None:
    assert Sizes.of(280_000) == Sizes()
    small = Sizes.of(5_000)
    assert small.posted >= 500
    assert small.singles < Sizes().singles
    assert small.overload_s < Sizes().overload_s
