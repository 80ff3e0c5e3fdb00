"""The SQL servers that people use today, installed once from the public package registries into a folder of their own.

They are kept apart from the environment of hubscope: their dependencies are older than ours.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import platformdirs

from tests.bench.result import say
from tests.timescale.server import NODE, NPM

CHECKED: Final = "postgres-mcp==0.3.0"
"""PyPI's server that checks SQL (`--access-mode restricted`)."""
CHECKED_DEPENDS_ON: Final = (
    "mcp[cli]>=1.5,<2",
    "pglast>=7,<8",
    "psycopg[binary]>=3.2.6",
    "psycopg-pool>=3.2.6",
    "humanize>=4.8.0",
    "attrs>=25.3.0",
    "instructor>=1.7.9",
)
"""What it asks for, but for two: the SDK of its time (`mcp.server.fastmcp`, which `mcp` 2 has not), and any pglast 7,
since the very 7.2.0 is not on every index."""
CHECKED_NEEDS: Final = (3, 12)
UNCHECKED: Final = "@modelcontextprotocol/server-postgres@0.6.2"
"""npm's server that does not."""
INSTALL_TIMEOUT_S: Final = 300


class PeerUnavailable(RuntimeError):
    """The peer cannot be installed or started here; says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """How to start a peer over stdio, and its tool that takes `{"sql": ...}`."""

    name: str
    tool: str
    command: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    note: str = ""


def checked(dsn: str) -> Peer:
    """PyPI `postgres-mcp` over a database, restricted to reading.

    Raises:
        PeerUnavailable.
    """
    python, note = _python()

    def install(folder: Path) -> None:
        _run([python, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *CHECKED_DEPENDS_ON])
        _run([*pip, "--no-deps", *(["--ignore-requires-python"] if note else []), CHECKED])

    folder = _installed(f"{CHECKED} for {python}", install)
    return Peer(
        CHECKED,
        "execute_sql",
        str(folder / "bin" / "postgres-mcp"),
        ("--access-mode", "restricted", "--transport", "stdio", dsn),
        note=note,
    )


def unchecked(dsn: str) -> Peer:
    """npm `@modelcontextprotocol/server-postgres` over a database.

    Raises:
        PeerUnavailable.
    """

    def install(folder: Path) -> None:
        folder.mkdir()
        (folder / "package.json").write_text('{"private": true}')
        _run([str(NPM), "install", "--no-audit", "--no-fund", "--ignore-scripts", UNCHECKED], cwd=folder)

    folder = _installed(UNCHECKED, install)
    script = folder / "node_modules" / "@modelcontextprotocol" / "server-postgres" / "dist" / "index.js"
    return Peer(UNCHECKED, "query", str(NODE), (str(script), dsn))


def _python() -> tuple[str, str]:
    """An interpreter for the checked peer, and what has to be said about it."""
    if sys.version_info[:2] >= CHECKED_NEEDS:
        return sys.executable, ""
    # On the path, or beside our own installation, as pyenv and its like keep them.
    beside = sorted(Path(sys.base_prefix).parent.glob("*3.1[23]*/bin/python3"), reverse=True)
    for candidate in ("python3.13", "python3.12", *map(str, beside)):
        found = shutil.which(candidate)
        if found is not None and _is_new_enough(found):
            return found, ""
    ours = ".".join(map(str, sys.version_info[:2]))
    return sys.executable, f"it asks for Python 3.12; run on {ours}, since the machine has no other"


def _is_new_enough(python: str) -> bool:
    """Whether it really runs (pyenv leaves names of versions that are not chosen) and is what the peer asks for."""
    ask = f"import sys, venv; sys.exit(sys.version_info[:2] < {CHECKED_NEEDS})"
    return subprocess.run([python, "-c", ask], capture_output=True, timeout=30).returncode == 0


def _installed(what: str, install: Callable[[Path], None]) -> Path:
    """The folder of a peer; only a complete one gets its name."""
    cache = platformdirs.user_cache_path("hubscope") / "bench-peers"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        folder = cache / hashlib.sha256(what.encode()).hexdigest()[:16]
        with (cache / f"{folder.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = folder / "complete"
            if not done.exists():
                say(f"  installing {what}")
                shutil.rmtree(folder, ignore_errors=True)
                install(folder)
                done.touch()
        return folder
    except (OSError, subprocess.SubprocessError) as error:
        raise PeerUnavailable(f"cannot be installed: {error}") from error


def _run(command: list[str], cwd: Path | None = None) -> None:
    path = f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"  # npm starts Node by name
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    if done.returncode:
        raise PeerUnavailable(f"cannot be installed: {(done.stderr or done.stdout).strip()[-300:]}")
