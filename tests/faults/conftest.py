"""Fixtures: a PostgreSQL for each process that runs these tests, which they may kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.house import Database

SMALL_DISK_MB: Final = 600


@pytest.fixture(scope="session")
def crashable() -> Iterator[Database]:
    """A server with fsync on, in a directory of its own."""
    folder = Path(tempfile.mkdtemp(prefix="hubscope-faults-"))
    folder.chmod(0o711)
    database = Database(folder / "data")
    yield database
    database.close()
    shutil.rmtree(folder, ignore_errors=True)


class SmallDisk:
    """A file system of its own in memory, whose size can be changed: what a full disk is made of. Needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o711)
        self._mount("-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m,mode=711", "hubscope-faults", str(folder))

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)

    def fill(self, left_bytes: int) -> None:
        """Leave so much room."""
        about = os.statvfs(self.folder)
        used = (about.f_blocks - about.f_bfree) * about.f_frsize
        self._mount("-o", f"remount,size={(used + left_bytes) // 1024}k", str(self.folder))

    def empty(self) -> None:
        """Give the room back."""
        self._mount("-o", f"remount,size={SMALL_DISK_MB}m", str(self.folder))

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True, capture_output=True)


@pytest.fixture
def small_disk() -> Iterator[SmallDisk | None]:
    """None where we may not make one: root may, but not in every container."""
    folder = Path(tempfile.mkdtemp(prefix="hubscope-faults-"))
    folder.chmod(0o711)
    disk: SmallDisk | None = None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        disk = SmallDisk(folder / "disk")
    yield disk
    if disk is not None:
        disk.close()
    shutil.rmtree(folder, ignore_errors=True)
