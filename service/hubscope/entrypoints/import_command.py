"""`hubscope import FILE`: history into the store, with progress, resumable."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hubscope.access import LOCAL, Principal
from hubscope.app import migrate_store
from hubscope.ingest import Ingest
from hubscope.ingest.history import Checkpoint, Files, import_file
from hubscope.instruments import Instruments
from hubscope.settings import Settings
from hubscope.store import Connection, connect, roles_of
from hubscope.store.retention import importable_from

PLAIN_LINE_EVERY_S = 5.0


async def run(
    settings: Settings, dsn: str, source: Path, *, tenant: str, state_dir: Path | None, err: Console
) -> Checkpoint:
    """Import one file into the store; what became of its lines. Progress goes to `err`."""

    def tell(line: str) -> None:
        err.print(f"· {line}", highlight=False, soft_wrap=True, markup=False)

    await migrate_store(settings, dsn, tell)
    role = roles_of(settings, dsn).writer

    async def open_writer() -> Connection:
        return await connect(dsn, role=role, name="import", timeout_s=settings.pool_connection_timeout_ms / 1000)

    async def ensure_partitions(first: date, last: date) -> None:
        connection = await open_writer()
        try:
            await connection.execute("SELECT ops.ensure_partitions($1::date, $2::date)", first, last)
        finally:
            await connection.close()

    looking = await connect(dsn, role=roles_of(settings, dsn).worker, name="import")
    try:
        oldest = await importable_from(looking, settings, datetime.now(UTC))
    finally:
        await looking.close()
    ingest = Ingest(open_writer, settings.model_copy(update={"writers": 1}), Instruments(), tell=False)
    await ingest.start()
    try:
        with _shown(err, source) as shown:
            return await import_file(
                ingest,
                Principal(tenant, LOCAL.scopes),
                Files.of(source, state_dir),
                settings,
                oldest=oldest,
                ensure_partitions=ensure_partitions,
                progress=shown.progress,
                tell=tell,
            )
    finally:
        await ingest.close()


@dataclass(slots=True)
class _Shown:
    """Progress for people: a bar on a terminal, a line every few seconds elsewhere."""

    err: Console
    size: int
    bar: Progress | None
    last: float = field(default_factory=monotonic)

    def progress(self, done: Checkpoint, position: int) -> None:
        if self.bar is not None:
            task = self.bar.task_ids[0]
            self.bar.update(task, completed=position, lines=f"{done.line:,}", rejected=f"{done.rejected:,}")
        elif monotonic() - self.last >= PLAIN_LINE_EVERY_S:
            self.last = monotonic()
            share = 100 * position // max(1, self.size)
            self.err.print(f"{share} %, {summary(done)}", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _shown(err: Console, source: Path) -> Iterator[_Shown]:
    size = source.stat().st_size if source.exists() else 0
    if not err.is_terminal:
        yield _Shown(err, size, None)
        return
    columns = (
        TextColumn("importing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("bytes, {task.fields[lines]} lines, {task.fields[rejected]} rejected"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        bar.add_task("import", total=size, lines="0", rejected="0")
        yield _Shown(err, size, bar)


def summary(done: Checkpoint) -> str:
    """What became of the lines so far, in one sentence."""
    return (
        f"{done.line:,} lines: {done.accepted:,} events taken, {done.duplicates:,} there already,"
        f" {done.rejected:,} rejected"
    )
