"""The spool: no event is lost below the bound, whoever dies when; above it, the oldest go and are counted."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import booleans, integers

from hubscope.wrap.spool import Batch, Spool

SEGMENT = 400


class Said(list[tuple[str, str]]):
    def __call__(self, about: str, sentence: str) -> None:
        self.append((about, sentence))


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def spool(tmp_path: Path, said: Said) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", max_bytes=100_000, segment_bytes=SEGMENT, say=said)
    yield made
    made.close()


def event(number: int) -> bytes:
    return json.dumps({"event": number, "filling": "x" * 20}).encode()


def take(spool: Spool, *, leftovers: bool = True, max_events: int = 3) -> Batch | None:
    return spool.take(max_events=max_events, max_bytes=10_000, leftovers=leftovers)


def drain(spool: Spool) -> list[bytes]:
    found: list[bytes] = []
    while batch := take(spool):
        found += batch.lines
        spool.done(batch)
    return found


def on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.ndjson"))


def test_what_is_taken_comes_again_until_it_is_done(spool: Spool) -> None:
    for number in range(5):
        spool.append(event(number))
    first = take(spool)
    assert first is not None
    assert first.lines == [event(0), event(1), event(2)]
    again = take(spool)
    assert again is not None
    assert again.lines == first.lines
    spool.done(first)
    assert drain(spool) == [event(3), event(4)]
    assert take(spool) is None


def test_what_is_sent_takes_no_room_and_leaves_no_file(spool: Spool, tmp_path: Path) -> None:
    for number in range(100):
        spool.append(event(number))
    assert sorted(drain(spool)) == sorted(map(event, range(100)))
    assert on_disk(tmp_path / "spool") == 0
    spool.close()
    assert list((tmp_path / "spool").glob("*.ndjson")) == []


def test_what_a_wrapper_leaves_the_next_one_sends(spool: Spool, tmp_path: Path, said: Said) -> None:
    for number in range(30):
        spool.append(event(number))
    batch = take(spool, leftovers=False)
    assert batch is not None
    spool.done(batch)
    spool.close()
    other = Spool(tmp_path / "spool", max_bytes=100_000, say=said)
    found = drain(other)
    other.close()
    # At least what was not done; a segment of which a part was sent may come again as a whole.
    assert set(map(event, range(30))) - set(batch.lines) <= set(found)
    assert len(found) == len(set(found))
    assert said == []


def test_a_living_wrappers_segment_is_its_own(spool: Spool, tmp_path: Path, said: Said) -> None:
    spool.append(event(1))
    other = Spool(tmp_path / "spool", max_bytes=100_000, say=said)
    assert take(other) is None
    assert drain(spool) == [event(1)]


def test_own_segments_that_are_full_are_not_sent_twice(spool: Spool) -> None:
    """A batch of the current segment is on its way while that one is closed."""
    spool.append(event(0))
    batch = take(spool, leftovers=False)
    assert batch is not None
    for number in range(1, 20):
        spool.append(event(number))
    spool.done(batch)
    assert sorted(drain(spool)) == sorted(map(event, range(1, 20)))


def test_own_segments_that_are_full_go_first_and_need_no_looking_for(spool: Spool) -> None:
    for number in range(30):
        spool.append(event(number))
    found: list[bytes] = []
    while batch := take(spool, leftovers=False):
        found += batch.lines
        spool.done(batch)
    assert found == [event(number) for number in range(30)]


def test_a_line_that_its_writer_did_not_finish_is_left_out(tmp_path: Path, said: Said) -> None:
    directory = tmp_path / "spool"
    directory.mkdir()
    (directory / "01a.ndjson").write_bytes(event(1) + b"\n" + event(2)[:-5])
    assert drain(Spool(directory, max_bytes=100_000, say=said)) == [event(1)]
    assert on_disk(directory) == 0


def test_an_event_larger_than_a_batch_or_a_segment_is_kept_all_the_same(spool: Spool) -> None:
    large = json.dumps("x" * 3 * SEGMENT).encode()
    spool.append(event(1))
    spool.append(large)
    found = []
    while batch := spool.take(max_events=10, max_bytes=50, leftovers=True):
        found += batch.lines
        spool.done(batch)
    assert sorted(found) == sorted([event(1), large])


def test_the_spool_stays_within_its_bound_and_drops_the_oldest(tmp_path: Path, said: Said) -> None:
    bound = 5 * SEGMENT
    spools = [Spool(tmp_path, max_bytes=bound, segment_bytes=SEGMENT, say=said) for _ in range(2)]
    for number in range(200):
        spools[number % 2].append(event(number))
        assert on_disk(tmp_path) <= bound
    dropped = sum(spool.dropped for spool in spools)
    assert dropped > 100
    assert {about for about, _ in said} == {"dropped"}
    assert "HUBSCOPE_SPOOL_MAX_BYTES (2000)" in said[0][1]
    kept = sorted(json.loads(line)["event"] for spool in spools for line in drain(spool))
    assert len(kept) == 200 - dropped
    assert kept[-16:] == list(range(184, 200))  # the newest are all there
    assert kept[0] > 140


def test_more_living_wrappers_than_the_bound_has_room_for_keep_to_it(tmp_path: Path, said: Said) -> None:
    spools = [Spool(tmp_path, max_bytes=2 * SEGMENT, segment_bytes=SEGMENT, say=said) for _ in range(3)]
    for number in range(90):
        spools[number % 3].append(event(number))
    assert on_disk(tmp_path) <= 2 * SEGMENT
    kept = sum(len(drain(spool)) for spool in spools)
    assert kept + sum(spool.dropped for spool in spools) == 90
    assert kept > 0


def test_without_a_disk_events_wait_in_memory_and_move_there_when_it_is_back(tmp_path: Path, said: Said) -> None:
    (tmp_path / "spool").write_text("not a directory")
    spool = Spool(tmp_path / "spool", max_bytes=100_000, segment_bytes=SEGMENT, say=said)
    for number in range(3):
        spool.append(event(number))
    assert {about for about, _ in said} == {"spool"}
    batch = take(spool, max_events=1)
    assert batch is not None
    spool.done(batch)
    (tmp_path / "spool").unlink()
    for number in range(3, 30):
        spool.append(event(number))
    assert sorted([*batch.lines, *drain(spool)]) == sorted(map(event, range(30)))
    assert spool.dropped == 0


def test_a_disk_that_stays_away_costs_the_oldest_events_and_they_are_counted(tmp_path: Path, said: Said) -> None:
    (tmp_path / "spool").write_text("not a directory")
    spool = Spool(tmp_path / "spool", max_bytes=100_000, segment_bytes=SEGMENT, say=said)
    for number in range(100):
        spool.append(event(number))
    kept = drain(spool)
    assert len(kept) * len(event(1)) <= SEGMENT
    assert len(kept) + spool.dropped == 100
    assert kept[-1] == event(99)


@pytest.mark.parametrize("raises", [True, False])
def test_half_a_line_on_a_disk_that_is_full_is_left_out(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, said: Said, raises: bool
) -> None:
    spool.append(event(0))
    real = os.pwrite

    def half(fd: int, data: bytes, offset: int) -> int:
        written = real(fd, data[:10], offset)
        if raises:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written

    monkeypatch.setattr(os, "pwrite", half)
    spool.append(event(1))
    monkeypatch.undo()
    spool.append(event(2))
    assert sorted(drain(spool)) == [event(0), event(1), event(2)]
    assert [about for about, _ in said] == ["spool"]


def test_events_are_for_the_eyes_of_their_account_only(spool: Spool, tmp_path: Path) -> None:
    spool.append(event(1))
    paths = [tmp_path / "spool", *(tmp_path / "spool").iterdir()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o700, 0o600, 0o600]


def test_a_directory_of_another_account_is_not_used(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    spool = Spool(tmp_path, max_bytes=100_000, say=said)
    spool.append(event(1))
    assert list(tmp_path.iterdir()) == []
    assert drain(spool) == [event(1)]
    assert "another account" in said[0][1]


@pytest.mark.parametrize("written", [1, 7, 40])
def test_a_killed_process_loses_no_event_that_it_kept(tmp_path: Path, said: Said, written: int) -> None:
    program = f"""
        import os, pathlib, signal
        from hubscope.wrap.spool import Spool
        spool = Spool(pathlib.Path({str(tmp_path)!r}), max_bytes=100_000, segment_bytes={SEGMENT}, say=print)
        for number in range({written}):
            spool.append(b'{{"event": %d, "filling": "xxxxxxxxxxxxxxxxxxxx"}}' % number)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60)
    assert done.returncode == -9
    spool = Spool(tmp_path, max_bytes=100_000, say=said)
    assert sorted(drain(spool)) == sorted(map(event, range(written)))


class Wrappers(RuleBasedStateMachine):
    """Several wrappers that write, send, die between an answer and its note, and are followed by others."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(prefix="hubscope-spool-")
        self.said = Said()
        self.living = [self.spool(), self.spool()]
        self.written: set[bytes] = set()
        self.sent: list[bytes] = []

    def spool(self) -> Spool:
        return Spool(Path(self.folder.name), max_bytes=1_000_000, segment_bytes=SEGMENT, say=self.said)

    @rule(which=integers(0, 1), count=integers(1, 12))
    def write(self, which: int, count: int) -> None:
        for _ in range(count):
            new = event(len(self.written))
            self.written.add(new)
            self.living[which].append(new)

    @rule(which=integers(0, 1), noted=booleans(), leftovers=booleans())
    def send(self, which: int, noted: bool, leftovers: bool) -> None:
        batch = take(self.living[which], leftovers=leftovers)
        if batch is not None:
            self.sent += batch.lines
            if noted:
                self.living[which].done(batch)

    @rule(which=integers(0, 1), killed=booleans())
    def another(self, which: int, killed: bool) -> None:
        spool = self.living[which]
        if killed:  # the kernel closes what it had open, and nothing else happens
            for segment in (spool._current, spool._leftover):
                if segment is not None:
                    segment.close()
        else:
            spool.close()
        self.living[which] = self.spool()

    @precondition(lambda self: len(self.written) % 3 == 0)
    @rule()
    def everything_gets_through(self) -> None:
        for spool in self.living:
            self.sent += drain(spool)
        assert set(self.sent) == self.written

    @invariant()
    def nothing_is_made_up_and_nothing_is_said(self) -> None:
        assert set(self.sent) <= self.written
        assert self.said == []
        assert all(spool.dropped == 0 for spool in self.living)

    def teardown(self) -> None:
        for spool in self.living:
            self.sent += drain(spool)
            spool.close()
        assert set(self.sent) == self.written
        assert on_disk(Path(self.folder.name)) == 0
        self.folder.cleanup()


TestWrappers = Wrappers.TestCase
TestWrappers.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
