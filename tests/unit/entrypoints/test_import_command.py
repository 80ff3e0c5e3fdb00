"""What people see while an import runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hubscope.entrypoints import import_command
from hubscope.ingest.history import Checkpoint

DONE = Checkpoint("d", line=12_345, accepted=12_000, duplicates=340, rejected=5)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "calls.ndjson"
    path.write_bytes(b"x" * 1_000)
    return path


def test_a_terminal_gets_a_bar(source: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    with import_command._shown(console, source) as shown:
        shown.progress(DONE, 500)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "500/1000" in text
    assert "12,345 lines, 5 rejected" in text


def test_a_file_gets_a_line_every_few_seconds(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.9, 5.0, 5.0, 9.0, 10.1, 10.1])
    monkeypatch.setattr(import_command, "monotonic", lambda: next(clock))
    console = Console(file=io.StringIO(), width=140)
    shown = import_command._Shown(console, 1_000, None, last=next(clock))
    for position in (100, 200, 300, 400, 500):
        shown.progress(DONE, position)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "30 %, 12,345 lines: 12,000 events taken, 340 there already, 5 rejected",
        "50 %, 12,345 lines: 12,000 events taken, 340 there already, 5 rejected",
    ]
