"""Import of history: a file of events, line by line, through the same writer as everything else.

What makes it resumable: a checkpoint beside the file, replaced after each commit, with the file's digest and how far it
was read. What makes it harmless to repeat: events keep their ids (or get ones derived from their bytes), so what is
there already is counted as duplicates.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import IO, Final

import msgspec

from hubscope.access import Principal
from hubscope.errors import InvalidRequest, Unavailable
from hubscope.ingest.envelope import BOM
from hubscope.ingest.intake import Ingest
from hubscope.model import Receipt, Rejected
from hubscope.settings import Settings

BATCH_BYTES: Final = 4 * 1024 * 1024
DAYS_AT_ONCE: Final = 31
"""Partitions made in one transaction: each takes locks, and a server has room for some thousand."""
_GZIP: Final = b"\x1f\x8b"


class Checkpoint(msgspec.Struct, frozen=True):
    """How far an import got: the file it is of, the next byte (unzipped) and line, and what became of those before."""

    digest: str
    offset: int = 0
    line: int = 0
    rejected_bytes: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


class RejectedLine(msgspec.Struct, frozen=True):
    """One line of the .rejected file. The line itself stays where it is: it may hold what nobody should copy."""

    line: int
    event_id: str | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Files:
    """What an import reads and writes."""

    source: Path
    checkpoint: Path
    rejected: Path

    @classmethod
    def of(cls, source: Path, state_dir: Path | None) -> Files:
        folder = state_dir or source.parent
        return cls(source, folder / f"{source.name}.checkpoint", folder / f"{source.name}.rejected")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Lines that are committed together: (number, text) of those that hold an event, and where the next one begins."""

    lines: list[tuple[int, bytes]]
    too_long: list[int]
    offset: int
    line: int


async def import_file(
    ingest: Ingest,
    principal: Principal,
    files: Files,
    settings: Settings,
    *,
    oldest: datetime,
    ensure_partitions: Callable[[date, date], Awaitable[None]],
    progress: Callable[[Checkpoint, int], None],
    tell: Callable[[str], None],
) -> Checkpoint:
    """Import a file of events, from its checkpoint on if there is one.

    Args:
        oldest: what happened before is rejected (`store.retention.importable_from`).
        ensure_partitions: makes the day partitions from the first to the last day.
        progress: called after each commit with how far it got and the position in the file as it lies there, in bytes.
        tell: called with one line for each thing worth knowing.

    Returns:
        What became of all lines, those of an interrupted run before included. The checkpoint file is gone then.

    Raises:
        InvalidRequest: the file cannot be read, or its gzip data is damaged; what came before is imported.
        Unavailable: the database stayed away for HUBSCOPE_IMPORT_PATIENCE; the same command goes on from there.
    """
    try:
        digest = _digest(files.source)
        done = _resumed(files, digest, tell)
        rejected = files.rejected.open("ab")
    except OSError as error:
        raise InvalidRequest(f"{error.filename}: {error.strerror}") from None
    ready: set[date] = set()

    async def prepare(days: Iterable[date]) -> None:
        for first, last in spans(set(days) - ready):
            await ensure_partitions(first, last)
        ready.update(days)

    with rejected:
        rejected.truncate(done.rejected_bytes)
        with files.source.open("rb") as stored:
            for batch in _batches(stored, files.source, done, settings.max_body_bytes, settings.commit_max_events):
                receipt = await _committed(ingest, principal, batch, settings, oldest, prepare, tell)
                told = [
                    RejectedLine(line, None, "unstorable", f"the line is longer than {settings.max_body_bytes} bytes")
                    for line in batch.too_long
                ]
                told += [_told(batch, one) for one in receipt.rejected]
                for one in sorted(told, key=lambda one: one.line):
                    rejected.write(msgspec.json.encode(one) + b"\n")
                rejected.flush()
                os.fsync(rejected.fileno())
                done = msgspec.structs.replace(
                    done,
                    offset=batch.offset,
                    line=batch.line,
                    rejected_bytes=rejected.tell(),
                    accepted=done.accepted + receipt.accepted,
                    duplicates=done.duplicates + receipt.duplicates,
                    rejected=done.rejected + len(told),
                )
                _keep(files.checkpoint, done)
                progress(done, stored.tell())
    files.checkpoint.unlink(missing_ok=True)
    if not done.rejected:
        files.rejected.unlink(missing_ok=True)
    return done


def spans(days: Iterable[date]) -> list[tuple[date, date]]:
    """Neighbouring days put together, at most DAYS_AT_ONCE of them: (first, last) each."""
    found: list[tuple[date, date]] = []
    for day in sorted(days):
        if found and found[-1][1] + timedelta(days=1) == day and (day - found[-1][0]).days < DAYS_AT_ONCE:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


async def _committed(
    ingest: Ingest,
    principal: Principal,
    batch: _Batch,
    settings: Settings,
    oldest: datetime,
    prepare: Callable[[Iterable[date]], Awaitable[None]],
    tell: Callable[[str], None],
) -> Receipt:
    """The receipt of a batch, after its commit; a database that is away is waited for."""
    if not batch.lines:
        return Receipt(0, 0)
    body = b"\n".join(text for _, text in batch.lines)
    pause = 0.1
    waited = 0.0
    while True:
        try:
            return await ingest.history(principal, body, len(batch.lines), oldest=oldest, prepare=prepare)
        except Unavailable as error:
            if waited >= settings.import_patience_seconds:
                raise
            if waited == 0:
                tell(f"{error.detail}; waiting for up to {settings.import_patience_seconds} s")
            await asyncio.sleep(pause)
            waited += pause
            pause = min(pause * 2, 5.0)


def _told(batch: _Batch, one: Rejected) -> RejectedLine:
    return RejectedLine(batch.lines[one.index][0], one.event_id, one.code, one.detail)


def _digest(path: Path) -> str:
    with path.open("rb") as stored:
        return hashlib.file_digest(stored, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _resumed(files: Files, digest: str, tell: Callable[[str], None]) -> Checkpoint:
    """Where to go on; from the start when there is no checkpoint or it is of another file."""
    if files.checkpoint.exists():
        try:
            found = msgspec.json.decode(files.checkpoint.read_bytes(), type=Checkpoint)
        except msgspec.DecodeError:
            found = Checkpoint("")
        if found.digest == digest:
            tell(f"going on after line {found.line:,}")
            return found
        tell("the checkpoint is of another file: starting over")
    return Checkpoint(digest)


def _keep(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint as a whole: a kill leaves the old one or the new one."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(msgspec.json.encode(checkpoint))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _batches(stored: IO[bytes], path: Path, start: Checkpoint, line_max: int, most: int) -> Iterator[_Batch]:
    """The file's lines from the checkpoint on, in batches of at most `most` events and about BATCH_BYTES."""
    zipped = stored.read(2) == _GZIP
    stored.seek(0)
    number, offset = start.line, start.offset
    text: IO[bytes] = gzip.GzipFile(fileobj=stored) if zipped else stored  # type: ignore[assignment]
    batch = _Batch([], [], offset, number)
    size = 0
    try:
        text.seek(offset)
        while line := text.readline(line_max + 1):
            number += 1
            offset += len(line)
            if len(line) > line_max:
                batch.too_long.append(number)
                while not line.endswith(b"\n") and (line := text.readline(line_max)):
                    offset += len(line)
            elif line.removeprefix(BOM).strip():
                batch.lines.append((number, line.rstrip(b"\r\n")))
                size += len(line)
            if len(batch.lines) >= most or size >= BATCH_BYTES or len(batch.too_long) >= most:
                yield _Batch(batch.lines, batch.too_long, offset, number)
                batch, size = _Batch([], [], offset, number), 0
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        if batch.lines or batch.too_long:
            yield _Batch(batch.lines, batch.too_long, offset, number)
        raise InvalidRequest(f"{path}: the gzip data is damaged after line {number}: {error}") from None
    if batch.lines or batch.too_long:
        yield _Batch(batch.lines, batch.too_long, offset, number)
