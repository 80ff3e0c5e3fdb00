"""Import of history: into partitions that did not exist, resumed after a kill, repeated without harm."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.access import LOCAL
from hubscope.errors import DatabaseAway, InvalidRequest
from hubscope.ingest import Ingest
from hubscope.ingest.history import DAYS_AT_ONCE, Checkpoint, Files, import_file, spans
from hubscope.instruments import Instruments
from hubscope.settings import Settings
from hubscope.store import Connection, connect
from tests.conftest import ROLE_PREFIX, ROLES
from tests.events import server_event, tool_call
from tests.integration.store.test_rollups import BEGINNING, DIFFERENCES

pytestmark = [pytest.mark.bridge, pytest.mark.integration]

NOW = datetime.now(UTC)


def lines(count: int, *, days: int = 25) -> list[bytes]:
    """Events over so many days, newest first, each a line."""
    step = timedelta(days=days) / count
    return [
        json.dumps((tool_call if number % 5 else server_event)(time=(NOW - step * number).isoformat())).encode()
        for number in range(count)
    ]


class Importer:
    """Imports into the test's database, as the command does it."""

    def __init__(self, settings: Settings, dsn: str) -> None:
        self.settings, self.dsn = settings, dsn
        self.told: list[str] = []
        self.steps: list[Checkpoint] = []
        self.oldest = NOW - timedelta(days=89)
        self.after_commit: Callable[[Checkpoint], None] = self.steps.append

    async def _connect(self) -> Connection:
        return await connect(self.dsn, role=ROLES.writer, name="tests", timeout_s=2)

    async def _partitions(self, first: date, last: date) -> None:
        connection = await self._connect()
        await connection.execute("SELECT ops.ensure_partitions($1::date, $2::date)", first, last)
        await connection.close()

    async def run(self, path: Path, **changes: int) -> Checkpoint:
        settings = self.settings.model_copy(update={"commit_max_events": 40, "writers": 1} | changes)
        ingest = Ingest(self._connect, settings, Instruments())
        await ingest.start()
        try:
            return await import_file(
                ingest,
                LOCAL,
                Files.of(path, None),
                settings,
                oldest=self.oldest,
                ensure_partitions=self._partitions,
                progress=lambda done, _: self.after_commit(done),
                tell=self.told.append,
            )
        finally:
            await ingest.close()


@pytest.fixture
def importer(settings: Settings, database: str) -> Importer:
    return Importer(settings, database)


@pytest.fixture
async def checker(database: str) -> AsyncIterator[Connection]:
    connection = await connect(database, role=ROLES.worker, name="tests")
    yield connection
    await connection.close()


async def in_order(checker: Connection, calls: int, events: int) -> None:
    """Raw holds so many, and every rollup equals a recount of it, before and after a fold."""
    assert await checker.fetchval("SELECT count(*) FROM raw.tool_calls") == calls
    assert await checker.fetchval("SELECT count(*) FROM raw.server_events") == events
    for _ in range(2):
        assert await checker.fetch(DIFFERENCES, ["default"], BEGINNING) == []
        await checker.fetchval("SELECT rollup.fold(10000)")


@pytest.mark.parametrize("zipped", [False, True])
async def test_history_is_imported_and_rolled_up(
    importer: Importer, checker: Connection, tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "calls.ndjson"
    body = b"\n".join(lines(100)) + b"\n"
    path.write_bytes(gzip.compress(body) if zipped else body)
    done = await importer.run(path)
    assert (done.line, done.accepted, done.duplicates, done.rejected) == (100, 100, 0, 0)
    await in_order(checker, 80, 20)
    # Nothing is left beside the file, and to do it again harms nobody.
    assert list(tmp_path.iterdir()) == [path]
    again = await importer.run(path)
    assert (again.accepted, again.duplicates) == (0, 100)
    await in_order(checker, 80, 20)


async def test_bad_lines_are_listed_with_their_numbers_and_cost_nobody_else(
    importer: Importer, checker: Connection, tmp_path: Path
) -> None:
    good = lines(60)
    bad = {
        3: (b"{nonsense", "invalid_json"),
        7: (b'{"type": "x", "time": "2026-01-01T00:00:00Z"}', "unknown_type"),
        50: (json.dumps(tool_call(duration_ms=-1)).encode(), "invalid_duration"),
        55: (b'"' + b"x" * 5_000 + b'"', "unstorable"),
        66: (json.dumps(tool_call(time="2001-01-01T00:00:00Z")).encode(), "too_old"),
    }
    all_lines = list(good)
    all_lines[0] = b"\xef\xbb\xbf" + all_lines[0]
    for number, (line, _) in sorted(bad.items()):
        all_lines.insert(number - 1, line)
    all_lines.insert(9, b"   ")  # blank lines are no events, and count as lines
    path = tmp_path / "calls.ndjson"
    path.write_bytes(b"\r\n".join(all_lines))
    done = await importer.run(path, max_body_bytes=4_000)
    assert (done.line, done.accepted, done.rejected) == (66, 60, 5)
    told = [json.loads(line) for line in (tmp_path / "calls.ndjson.rejected").read_bytes().splitlines()]
    # Every line behind the blank one has moved by one.
    expected = [(number + (number > 9), code) for number, (_, code) in sorted(bad.items()) if number != 66]
    assert [(one["line"], one["code"]) for one in told] == [*expected, (66, "too_old")]
    assert all(one["detail"] for one in told)
    await in_order(checker, 48, 12)


async def test_an_event_beyond_the_horizon_is_rejected(importer: Importer, tmp_path: Path) -> None:
    path = tmp_path / "calls.ndjson"
    path.write_text("\n".join(json.dumps(tool_call(time=(NOW - timedelta(days=age)).isoformat())) for age in (9, 11)))
    importer.oldest = NOW - timedelta(days=10)
    done = await importer.run(path)
    assert (done.accepted, done.rejected) == (1, 1)
    assert b'"too_old"' in (tmp_path / "calls.ndjson.rejected").read_bytes()


class Killed(Exception):
    """Stands for the end of the process: nothing after it runs."""


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("commits", [1, 3])
async def test_an_interrupted_import_goes_on_where_it_was(
    importer: Importer, checker: Connection, tmp_path: Path, commits: int, zipped: bool
) -> None:
    path = tmp_path / "calls.ndjson"
    body = b"\n".join([*lines(100), b"{bad", *lines(100), b"{bad too"])
    path.write_bytes(gzip.compress(body) if zipped else body)

    def kill(done: Checkpoint) -> None:
        importer.steps.append(done)
        if len(importer.steps) == commits:
            raise Killed

    importer.after_commit = kill
    with pytest.raises(Killed):
        await importer.run(path)
    with (tmp_path / "calls.ndjson.rejected").open("ab") as file:
        file.write(b'{"half": ')  # what was being written when it ended
    importer.after_commit = importer.steps.append
    done = await importer.run(path)
    assert importer.told == [f"going on after line {commits * 40:,}"]
    assert (done.line, done.accepted, done.duplicates, done.rejected) == (202, 200, 0, 2)
    told = [json.loads(line) for line in (tmp_path / "calls.ndjson.rejected").read_bytes().splitlines()]
    assert [one["line"] for one in told] == [101, 202]
    await in_order(checker, 160, 40)


async def test_a_commit_whose_checkpoint_was_lost_is_counted_as_duplicates(
    importer: Importer, checker: Connection, tmp_path: Path
) -> None:
    path = tmp_path / "calls.ndjson"
    path.write_bytes(b"\n".join(lines(80)))
    await importer.run(path)
    checkpoint = importer.steps[0]
    (tmp_path / "calls.ndjson.checkpoint").write_text(json.dumps({"digest": checkpoint.digest, "accepted": 0}))
    done = await importer.run(path)
    assert (done.accepted, done.duplicates) == (0, 80)
    await in_order(checker, 64, 16)


@pytest.mark.parametrize("text", ['{"digest": "of another file", "offset": 99, "line": 5}', "{half", ""])
async def test_a_checkpoint_of_another_file_is_not_believed(importer: Importer, tmp_path: Path, text: str) -> None:
    path = tmp_path / "calls.ndjson"
    path.write_bytes(b"\n".join(lines(10)))
    (tmp_path / "calls.ndjson.checkpoint").write_text(text)
    done = await importer.run(path)
    assert (done.line, done.accepted) == (10, 10)
    assert importer.told == ["the checkpoint is of another file: starting over"]


async def test_damaged_gzip_is_told_after_what_could_be_read(
    importer: Importer, checker: Connection, tmp_path: Path
) -> None:
    path = tmp_path / "calls.ndjson.gz"
    whole = gzip.compress(b"\n".join(lines(100)), compresslevel=0)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidRequest, match="gzip data is damaged after line"):
        await importer.run(path)
    taken = await checker.fetchval("SELECT count(*) FROM raw.tool_calls")
    assert 30 < taken < 50


async def test_a_database_that_is_away_is_waited_for_and_then_given_up(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("hubscope.ingest.history.asyncio.sleep", sleep)
    importer = Importer(settings, "postgresql://nobody@127.0.0.1:1/nowhere")

    async def nothing(*_: object) -> None:
        return

    monkeypatch.setattr(importer, "_partitions", nothing)
    path = tmp_path / "calls.ndjson"
    path.write_bytes(b"\n".join(lines(10)))
    with pytest.raises(DatabaseAway):
        await importer.run(path, import_patience_seconds=7)
    assert 7 <= sum(slept) < 12
    assert len(importer.told) == 1


@given(st.sets(st.integers(0, 200)))
def test_days_are_put_together_and_none_is_lost(days: set[int]) -> None:
    start = date(2026, 1, 1)
    found = spans(start + timedelta(days=day) for day in days)
    covered = [first + timedelta(days=n) for first, last in found for n in range((last - first).days + 1)]
    assert sorted(covered) == sorted(start + timedelta(days=day) for day in days)
    assert len(covered) == len(days)
    assert all((last - first).days < DAYS_AT_ONCE for first, last in found)


# The command


def command(database: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "HUBSCOPE_DATABASE_URL": database, "HUBSCOPE_ROLE_PREFIX": ROLE_PREFIX}
    return [sys.executable, "-m", "hubscope", "import", *arguments], environment


async def run(database: str, *arguments: str) -> tuple[int, str, str]:
    words, environment = command(database, *arguments)
    process = await asyncio.create_subprocess_exec(
        *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_says_what_became_of_the_lines(database: str, tmp_path: Path) -> None:
    path = tmp_path / "calls.ndjson"
    path.write_bytes(b"\n".join(lines(20)))
    assert (await run(database, str(path)))[:2] == (0, "20 lines: 20 events taken, 0 there already, 0 rejected\n")
    path.write_bytes(path.read_bytes() + b"\n{bad")
    code, out, err = await run(database, str(path), "--json", "--state-dir", str(tmp_path))
    assert code == 1
    assert json.loads(out) == {"lines": 21, "accepted": 0, "duplicates": 20, "rejected": 1}
    assert f"{path}.rejected" in err
    assert "Traceback" not in err
    code, out, err = await run(database, str(tmp_path / "none"))
    assert (code, out) == (2, "")


async def test_a_killed_import_loses_and_doubles_nothing(database: str, checker: Connection, tmp_path: Path) -> None:
    path = tmp_path / "calls.ndjson"
    path.write_bytes(b"\n".join(lines(20_000, days=20)))
    words, environment = command(database, str(path))
    process = await asyncio.create_subprocess_exec(
        *words, env=environment | {"HUBSCOPE_COMMIT_MAX_EVENTS": "200"}, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        while not (tmp_path / "calls.ndjson.checkpoint").exists():  # noqa: ASYNC110 (of another process)
            await asyncio.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    await process.wait()
    code, out, err = await run(database, str(path), "--json")
    assert code == 0
    assert "going on after line" in err
    counts: dict[str, Any] = json.loads(out)
    # The commit under way at the kill may be there without a checkpoint: its events are duplicates then.
    assert counts["accepted"] + counts["duplicates"] == 20_000
    await in_order(checker, 16_000, 4_000)
