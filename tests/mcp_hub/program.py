"""The real mcp-hub (npm `mcp-hub`), installed once into the virtual environment, and run over real stdio servers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil

from tests.timescale.server import ENVIRONMENT, NODE, _digest, _install, _locked

HERE: Final = Path(__file__).parent
DEADLINE_S: Final = 60.0
TIME: Final = str(Path(sys.executable).parent / "mcp-server-time")
CHANGING: Final = str(HERE / "changing_server.py")


def modules() -> Path:
    """The folder with the npm packages, installed first if it is not there yet.

    Raises:
        TimescaleUnavailable: npm failed; the message holds what it said.
    """
    lock = HERE / "package-lock.json"
    folder = ENVIRONMENT / f"mcp-hub-{_digest([lock])}"
    installed = folder / "node_modules"
    with _locked(folder.with_suffix(".lock")):
        if not installed.is_dir():
            _install(lock, folder)
    return installed


class McpHub:
    """A running mcp-hub, on a port that stays the same when it is started again.

    Attributes:
        config: its configuration, which it watches when started with `watch`.
    """

    def __init__(self, folder: Path, servers: Mapping[str, Any], *, watch: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as held:
            self.port = held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "servers.json"
        self._folder = folder
        self._watch = watch
        self._log = folder / "mcp-hub.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.write(servers)
        # It asks a catalogue on the internet for what it could offer to install, unless it has a fresh one.
        catalogue = folder / "data" / "mcp-hub" / "cache" / "registry.json"
        catalogue.parent.mkdir(parents=True)
        fresh = {"registry": {"servers": [{"id": "none", "name": "none"}]}, "serverDocumentation": {}}
        catalogue.write_text(json.dumps(fresh | {"lastFetchedAt": int(time.time() * 1_000)}))

    def write(self, servers: Mapping[str, Any]) -> None:
        self.config.write_text(json.dumps({"mcpServers": servers}))

    def start(self) -> None:
        """Start it and wait until it has connected its servers."""
        command = [str(NODE), str(modules() / "mcp-hub" / "dist" / "cli.js")]
        command += ["--port", str(self.port), "--config", str(self.config), *(["--watch"] if self._watch else [])]
        # State and caches of its own, and none of its owner's settings.
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        environment |= {"HOME": str(self._folder), "XDG_STATE_HOME": str(self._folder / "state")}
        environment |= {"XDG_DATA_HOME": str(self._folder / "data"), "XDG_CONFIG_HOME": str(self._folder / "config")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + DEADLINE_S
        while not self._ready():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            return str(self.ask("GET", "health")["state"]) in ("ready", "restarted")
        except httpx2.HTTPError:
            return False

    def ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """One call of its REST API."""
        with httpx2.Client(timeout=DEADLINE_S, trust_env=False) as http:
            answer = http.request(method, f"{self.url}/api/{path}", json=body or None)
        found: dict[str, Any] = answer.json()
        return found

    def child(self, name: str) -> psutil.Process:
        """The process of a stdio server whose command line holds this."""
        assert self._process is not None
        found = psutil.Process(self._process.pid).children(recursive=True)
        (process,) = [each for each in found if name in " ".join(each.cmdline())]
        return process

    def kill(self, name: str) -> None:
        """SIGKILL to one of its servers, and wait until it is gone."""
        process = self.child(name)
        process.kill()
        gone_by = time.monotonic() + DEADLINE_S
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < gone_by
            time.sleep(0.01)

    def stop(self, *, gently: bool = False) -> None:
        """End it, and whatever servers it leaves."""
        if self._process is None:
            return
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        self._process.terminate() if gently else self._process.kill()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        self._process = None

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


@contextmanager
def running(folder: Path, servers: Mapping[str, Any], *, watch: bool = False) -> Iterator[McpHub]:
    """An mcp-hub over these servers, ended with whatever it started."""
    hub = McpHub(folder, servers, watch=watch)
    try:
        hub.start()
        yield hub
    finally:
        hub.stop()
