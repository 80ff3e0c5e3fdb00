"""What the demo's servers work on: a folder of notes and a small git repository, made where the caller says."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOPICS: Final = ("plan", "notes", "todo", "draft", "minutes", "ideas")


@dataclass(frozen=True, slots=True)
class Places:
    """What calls may point at: the service's own pages, a folder of notes, and a repository of the same notes."""

    service_url: str
    files: Path
    repository: Path


def make_places(workdir: Path, service_url: str) -> Places:
    """A folder of notes and a small git repository in `workdir`; without git the repository is a mere folder."""
    root = workdir.resolve()
    places = Places(service_url, root / "files", root / "repository")
    for folder in (places.files, places.repository):
        folder.mkdir(parents=True, exist_ok=True)
        for topic in TOPICS:
            (folder / f"{topic}.txt").write_text(f"{topic}\n" * 20, encoding="utf-8")
    with suppress(OSError, subprocess.SubprocessError):
        _make_history(places.repository)
    return places


def _make_history(repository: Path) -> None:
    """One commit per topic, and a change that is not committed."""
    # Nothing of the caller's own git set-up: no hooks, no signing, and no GIT_DIR that points elsewhere.
    env = {"PATH": os.environ.get("PATH", ""), "HOME": str(repository), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=hubscope demo", "-c", "user.email=demo@example.org")

    def git(*arguments: str) -> None:
        subprocess.run(["git", *who, *arguments], cwd=repository, env=env, check=True, capture_output=True, timeout=30)

    git("init", "--quiet")
    for topic in TOPICS:
        git("add", f"{topic}.txt")
        git("commit", "--quiet", "--message", f"Add {topic}")
    (repository / f"{TOPICS[0]}.txt").write_text("changed\n", encoding="utf-8")
