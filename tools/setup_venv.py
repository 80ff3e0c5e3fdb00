"""Make `.venv` at the root from the lock file: what every make target does first.

Standard library only, since it runs before anything is installed. Does nothing when the lock file and pyproject.toml
are the ones that the last successful run installed.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".installed"
LOCK = ROOT / "requirements" / "lock.txt"
OLDEST, NEWEST = (3, 11), (3, 13)


def fingerprint() -> str:
    """What the environment is made of: interpreter, lock file, what the project declares, and where it stands."""
    import tomllib  # not at the top: an older Python must still get as far as being told that it is too old

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = json.dumps([project["build-system"], project["project"]], sort_keys=True)
    digest = hashlib.sha256(f"{sys.version_info[:3]} {ROOT} {declared}".encode())
    digest.update(LOCK.read_bytes())
    return digest.hexdigest()


def install(arguments: list[str], total: int) -> None:
    """Run pip with a one-line progress count; on failure print all it said and stop."""
    python = str(VENV / "bin" / "python")
    command = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *arguments]
    said: list[str] = []
    collected = 0
    shows = sys.stderr.isatty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            said.append(line)
            if line.startswith("Collecting "):
                collected += 1
                message = f"  [{collected}/{total}] {line.split()[1].split('==')[0]}"
            elif line.startswith("Installing collected"):
                message = f"  [{total}/{total}] unpacking"
            else:
                continue
            if shows:
                print(f"\r{message:<60}", end="", file=sys.stderr, flush=True)
            elif collected % 40 == 0 or "unpacking" in message:
                print(message, file=sys.stderr, flush=True)
    if shows:
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    if pip.returncode:
        sys.stderr.writelines(said[-25:])
        sys.exit(f"setup: pip failed with exit code {pip.returncode}; its last lines are above")


def main() -> None:
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        sys.exit(
            f"setup: Python {sys.version.split()[0]} at {sys.executable} will not do; hubscope needs 3.11, 3.12 or 3.13"
            " (say which with `make PYTHON=/path/to/python3.12 ...`)"
        )
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    started = time.monotonic()
    total = len(re.findall(r"^[A-Za-z0-9]", LOCK.read_text(), re.MULTILINE))
    print(f"setup: making .venv with {total} pinned packages (about a minute, once) ...", file=sys.stderr, flush=True)
    STAMP.unlink(missing_ok=True)
    if VENV.exists() and os.path.realpath(VENV / "bin" / "python") != os.path.realpath(sys.executable):
        shutil.rmtree(VENV)
    if not (VENV / "bin" / "pip").exists():
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    install(["--require-hashes", "-r", str(LOCK)], total)
    install(["--no-deps", "--no-build-isolation", "-e", str(ROOT)], 1)
    STAMP.write_text(wanted)
    print(f"setup: done in {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
