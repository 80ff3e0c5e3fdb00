"""`hubscope up` and the commands beside it, as processes: what they say, what they survive, what they leave behind."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import psutil
import pytest
from typer.testing import CliRunner

from hubscope.entrypoints.cli import cli
from hubscope.entrypoints.serve import listen
from hubscope.errors import PortBusy
from hubscope.settings import Settings
from tests.events import tool_call

pytestmark = [pytest.mark.acceptance, pytest.mark.integration]

DEADLINE_S = 60.0
COMMANDS = sorted(command.name or command.callback.__name__ for command in cli.registered_commands if command.callback)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"still waiting after {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.02)


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """What a command is run with: no setting of the machine, a data and a scratch directory of the test's own, a free
    port."""
    inherited = {name: value for name, value in os.environ.items() if name not in {*Settings.variables()}}
    own = {"HUBSCOPE_DATA_DIR": str(data_dir), "HEALTH_PORT": "0", "TMPDIR": str(data_dir.parent)}
    return inherited | own | more


def hubscope(*arguments: str, data_dir: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "hubscope", *arguments],
        env=environment(data_dir, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=data_dir.parent,
    )


def assert_one_clear_error(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """One line on stderr that says all of these, nothing on stdout, exit code 1."""
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("· "))
    assert line.startswith("hubscope: ")
    for part in parts:
        assert part in line


def marked(mark: str) -> list[psutil.Process]:
    """Every living process that was started, directly or not, with the mark in its environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("HUBSCOPE_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@dataclass
class Up:
    """A running `hubscope up`."""

    process: subprocess.Popen[str]
    data_dir: Path
    mark: str
    said: Path
    url: str = ""

    @property
    def database(self) -> list[psutil.Process]:
        """The PostgreSQL of its data directory: postmaster first, then its children."""
        pid = int((self.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def left(self) -> list[psutil.Process]:
        """What lives of its tree."""
        return marked(self.mark)

    def end(self) -> None:
        """Kill whatever is left of it."""
        self.process.kill()
        self.process.wait(DEADLINE_S)
        for process in self.left():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        until(lambda: not self.left(), "everything is ended")


@contextmanager
def started(data_dir: Path, **more: str) -> Iterator[Up]:
    """`hubscope up` in a process group of its own, as a terminal would start it. Whatever is left is killed after."""
    mark = uuid.uuid4().hex
    said = data_dir.parent / f"stderr-{mark}"
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "hubscope", "up"],
            env=environment(data_dir, HUBSCOPE_TEST_MARK=mark, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
            cwd=data_dir.parent,
        )
    up = Up(process, data_dir, mark, said)
    try:
        until(lambda: "Ctrl-C stops it." in said.read_text() or process.poll() is not None, "hubscope up is up")
        assert process.poll() is None, said.read_text()
        up.url = re.findall(r"(http://127\.0\.0\.1:\d+)/health", said.read_text())[0]
        yield up
    finally:
        up.end()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def shared() -> Iterator[Up]:
    """A service for the tests that do not end it. It gives a database that is away little time."""
    folder = Path(tempfile.mkdtemp(prefix="hubscope-test-"))
    folder.chmod(0o711)
    with started(
        folder / "data", HUBSCOPE_POOL_CONNECTION_TIMEOUT="500", HUBSCOPE_COMMIT_TIMEOUT="1000", LOG_LEVEL="warning"
    ) as up:
        yield up
    shutil.rmtree(folder)


def calls_of(answer: dict[str, Any], tool: str) -> int:
    """How often the answer says that a tool was called."""
    return sum(row["usage"]["calls"] for row in answer["top_tools"] if row["tool"] == tool)


def shown_calls(http: httpx2.Client, url: str, tool: str) -> int:
    answer = http.get(f"{url}/api/v1/analytics", params={"top": 100})
    assert answer.status_code == 200, answer.text
    return calls_of(answer.json(), tool)


# While it runs


@pytest.mark.xdist_group("up")
def test_health_has_the_form_of_the_specification(shared: Up, http: httpx2.Client) -> None:
    answer = http.get(f"{shared.url}/health")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    health = answer.json()
    assert (health["status"], health["service"], health["database"]) == ("healthy", "hubscope", "connected")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", health["version"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", health["timestamp"])
    assert abs(datetime.fromisoformat(health["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)
    pool = health["connection_pool"]
    assert pool.keys() == {"total", "active", "idle"}
    assert pool["total"] == pool["active"] + pool["idle"] > 0
    assert isinstance(health["uptime"], int)
    assert 0 <= health["uptime"] < 600
    memory = {name: float(size.removesuffix("MB")) for name, size in health["memory_usage"].items()}
    assert memory.keys() == {"rss", "heap_used", "heap_total"}
    assert 10 < memory["heap_used"] <= memory["rss"] < 1000
    assert 10 < memory["heap_total"] <= memory["rss"]
    # 250 MB of dbt and Great Expectations stay in another process.
    assert memory["rss"] < 250


@pytest.mark.xdist_group("up")
@pytest.mark.parametrize(
    ("path", "expected"),
    [("/livez", {"status": "alive"}), ("/readyz", {"status": "ready"})],
)
def test_probes_answer(path: str, expected: dict[str, str], shared: Up, http: httpx2.Client) -> None:
    answer = http.get(f"{shared.url}{path}")
    assert (answer.status_code, answer.json()) == (200, expected)


@pytest.mark.xdist_group("up")
def test_metrics_tell_of_the_process_and_of_the_data(shared: Up, http: httpx2.Client) -> None:
    tool = uuid.uuid4().hex
    assert http.post(f"{shared.url}/v1/events", json=[tool_call(tool=tool)]).json()["accepted"] == 1
    answer = http.get(f"{shared.url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "hubscope_database_connected 1.0" in answer.text
    assert f'hub_tool_calls_total{{server="filesystem",status="ok",tenant="default",tool="{tool}"}} 1.0' in answer.text
    assert set(re.findall(r"hubscope_gauge_up\{\S+ (\S+)", answer.text)) == {"1.0"}


@pytest.mark.xdist_group("up")
def test_another_command_attaches_to_the_running_database_and_leaves_it_running(
    shared: Up, http: httpx2.Client
) -> None:
    tool = uuid.uuid4().hex
    http.post(f"{shared.url}/v1/events", json=[tool_call(tool=tool), tool_call(tool=tool, status="error")])
    postmaster = shared.database[0]
    done = hubscope("report", "--range", "1 hour", "--group-by", "minute", "--json", data_dir=shared.data_dir)
    assert (done.returncode, done.stderr) == (0, "")
    assert calls_of(json.loads(done.stdout), tool) == 2
    assert shared.database[0] == postmaster
    assert http.get(f"{shared.url}/health").status_code == 200


@pytest.mark.xdist_group("up")
def test_the_url_of_the_store_can_be_used(shared: Up) -> None:
    done = hubscope("dsn", data_dir=shared.data_dir)
    assert (done.returncode, done.stderr) == (0, "")

    async def ask() -> str:
        connection = await asyncpg.connect(done.stdout.strip())
        try:
            return str(await connection.fetchval("SELECT current_database()"))
        finally:
            await connection.close()

    assert asyncio.run(ask()) == "hubscope"


@pytest.mark.xdist_group("up")
@pytest.mark.parametrize("shared_thing", ["port", "data directory"])
def test_two_at_once_are_told_who_holds_the_port(shared_thing: str, shared: Up, directory: Path) -> None:
    """The port, or the data directory."""
    port = shared.url.rpartition(":")[2]
    holder = f"pid {shared.process.pid}"
    if shared_thing == "port":
        second = hubscope("up", data_dir=directory / "other", HEALTH_PORT=port)
        assert_one_clear_error(
            second, f"127.0.0.1:{port}", "Address already in use", holder, "hubscope up", "HEALTH_PORT"
        )
        assert not (directory / "other").exists()
    else:
        second = hubscope("up", data_dir=shared.data_dir)
        assert_one_clear_error(second, str(shared.data_dir), "`hubscope up`", holder, shared.url)


@pytest.mark.xdist_group("up")
def test_while_the_database_is_silent_health_is_503_and_posts_are_to_be_sent_again(
    shared: Up, http: httpx2.Client
) -> None:
    tool = uuid.uuid4().hex
    event = tool_call(tool=tool)
    http.post(f"{shared.url}/v1/events", json=[event])
    frozen = shared.database
    try:
        for process in frozen:
            process.suspend()
        started_at = time.monotonic()
        health = http.get(f"{shared.url}/health")
        assert time.monotonic() - started_at < 10
        assert (health.status_code, health.json()["status"], health.json()["database"]) == (
            503,
            "unhealthy",
            "disconnected",
        )
        assert http.get(f"{shared.url}/livez").status_code == 200
        posted = http.post(f"{shared.url}/v1/events", json=[event, tool_call(tool=tool)])
        assert (posted.status_code, posted.headers["content-type"]) == (503, "application/problem+json")
        assert int(posted.headers["retry-after"]) > 0
    finally:
        for process in frozen:
            process.resume()
    until(lambda: http.get(f"{shared.url}/health").status_code == 200, "the service is healthy again")
    again = http.post(f"{shared.url}/v1/events", json=[event])
    assert (again.status_code, again.json()["accepted"], again.json()["duplicates"]) == (200, 0, 1)


@pytest.mark.xdist_group("up")
def test_a_database_that_was_killed_is_started_again_and_kept_what_it_had_acknowledged(
    shared: Up, http: httpx2.Client
) -> None:
    tool = uuid.uuid4().hex
    configuration = shared.data_dir / "postgres" / "postgresql.conf"
    text = configuration.read_text()
    assert http.post(f"{shared.url}/v1/events", json=[tool_call(tool=tool)]).json()["accepted"] == 1
    dead = shared.database[0]
    configuration.write_text(f"{text}\nno_such_setting = 1\n")  # so that for a while it cannot start
    try:
        dead.kill()
        until(lambda: http.get(f"{shared.url}/health").status_code == 503, "the service notices")
        assert http.get(f"{shared.url}/readyz").status_code == 503
        posted = http.post(f"{shared.url}/v1/events", json=[tool_call(tool=tool)])
        assert (posted.status_code, "retry-after" in posted.headers) == (503, True)
        until(lambda: "PostgreSQL has died and does not start" in shared.said.read_text(), "the reason is logged")
        assert "no_such_setting" in shared.said.read_text()
    finally:
        configuration.write_text(text)
    until(lambda: http.get(f"{shared.url}/health").status_code == 200, "the database is started again")
    assert shared.database[0] != dead
    assert http.post(f"{shared.url}/v1/events", json=[tool_call(tool=tool)]).json()["accepted"] == 1
    assert shown_calls(http, shared.url, tool) == 2


# Its end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_stops_everything_and_loses_nothing_that_was_acknowledged(
    number: signal.Signals, directory: Path, http: httpx2.Client
) -> None:
    with started(directory / "data") as up:
        acknowledged = attempted = 0

        def post() -> None:
            nonlocal acknowledged, attempted
            with suppress(httpx2.HTTPError), httpx2.Client(trust_env=False) as client:
                while True:
                    attempted += 1
                    answer = client.post(f"{up.url}/v1/events", json=[tool_call(tool="posted")])
                    if answer.status_code != 200:
                        return
                    acknowledged += 1

        posting = threading.Thread(target=post)
        posting.start()
        until(lambda: acknowledged >= 20, "events are taken")
        if number == signal.SIGINT:
            os.killpg(up.process.pid, number)  # a terminal tells the whole group
        else:
            up.process.send_signal(number)
        assert up.process.wait(DEADLINE_S) == 0, up.said.read_text()
        posting.join(DEADLINE_S)
        assert up.left() == []
        assert list(directory.glob("hubscope-*")) == []  # scratch folders
        assert up.said.read_text().splitlines()[-1] == "· stopping"
        assert "Traceback" not in up.said.read_text()
    done = hubscope("report", "--json", data_dir=up.data_dir, HUBSCOPE_TEST_MARK=up.mark)
    assert done.returncode == 0, done.stderr
    assert acknowledged <= calls_of(json.loads(done.stdout), "posted") <= attempted
    assert up.left() == []


def test_a_worker_that_dies_is_started_again(directory: Path, http: httpx2.Client) -> None:
    with started(directory / "data") as up:

        def workers() -> list[psutil.Process]:
            return [
                process
                for process in psutil.Process(up.process.pid).children()
                if process.status() != psutil.STATUS_ZOMBIE and "worker" in process.cmdline()
            ]

        (first,) = workers()
        first.kill()
        until(lambda: [process.pid for process in workers()] not in ([], [first.pid]), "another worker runs")
        assert "worker died, starting it again" in up.said.read_text()


@pytest.mark.parametrize("killed", ["the service", "the service and its database"])
def test_an_acknowledged_event_survives_a_kill(killed: str, directory: Path, http: httpx2.Client) -> None:
    with started(directory / "data") as up:
        worker = [process for process in psutil.Process(up.process.pid).children() if "worker" in process.cmdline()]
        assert len(worker) == 1
        postmaster = up.database[0]
        assert http.post(f"{up.url}/v1/events", json=[tool_call(tool="acknowledged")]).json()["accepted"] == 1
        up.process.kill()
        if killed == "the service and its database":
            postmaster.kill()
        up.process.wait(DEADLINE_S)
        # Nobody tells the worker: its input ends with its parent.
        until(lambda: all(process.name() == "postgres" for process in up.left()), "the worker ends")
        assert list(directory.glob("hubscope-*")) == []  # scratch folders
        if killed == "the service":
            assert up.database[0] == postmaster
        done = hubscope("report", "--json", data_dir=up.data_dir, HUBSCOPE_TEST_MARK=up.mark)
        assert done.returncode == 0, done.stderr
        assert calls_of(json.loads(done.stdout), "acknowledged") == 1
        assert up.left() == []  # it adopted what was left, or started it; as the last one out it stopped it


def test_a_second_ctrl_c_does_not_wait_for_anybody(directory: Path) -> None:
    with started(directory / "data") as up:
        frozen = up.database
        try:
            for process in frozen:
                process.suspend()
            up.process.send_signal(signal.SIGINT)
            until(lambda: "· stopping" in up.said.read_text(), "it is stopping")
            up.process.send_signal(signal.SIGINT)
            assert up.process.wait(10) == 130  # stopping properly would wait for the database
        finally:
            for process in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.resume()


# Commands


def test_a_report_without_a_database_is_one_clear_error_and_makes_none(directory: Path) -> None:
    done = hubscope("report", data_dir=directory / "data")
    assert_one_clear_error(done, f"there is no database in {directory / 'data'} yet", "hubscope up")
    assert not (directory / "data").exists()


@pytest.mark.parametrize(
    ("command", "variables", "parts"),
    [
        ("up", {"HEALTH_PORT": "junk"}, ["HEALTH_PORT is 'junk'", "integer"]),
        ("report", {"HUBSCOPE_DATABASE_URL": "mysql://me:s3cr3t@db/x"}, ["HUBSCOPE_DATABASE_URL is not"]),
        (
            "migrate",
            {"HUBSCOPE_DATABASE_URL": "postgresql://me:s3cr3t@127.0.0.1:1/store"},
            ["the database cannot be used now (ConnectionRefusedError)"],
        ),
    ],
)
def test_a_setting_that_will_not_do_is_one_line_without_secrets(
    command: str, variables: dict[str, str], parts: list[str], directory: Path
) -> None:
    done = hubscope(command, data_dir=directory / "data", **variables)
    assert_one_clear_error(done, *parts)
    assert "s3cr3t" not in done.stderr
    assert not (directory / "data").exists()


def test_a_store_is_prepared_and_a_job_run_without_a_service_and_nothing_is_left(directory: Path) -> None:
    mark = uuid.uuid4().hex
    migrated = hubscope("migrate", data_dir=directory / "data", HUBSCOPE_TEST_MARK=mark)
    assert migrated.returncode == 0, migrated.stderr
    assert migrated.stderr.splitlines()[-1] == "· the schema is up to date"
    folded = hubscope("run", "fold", data_dir=directory / "data", HUBSCOPE_TEST_MARK=mark)
    assert folded.returncode == 0, folded.stderr
    assert folded.stderr.splitlines()[-1] == "· done"
    report = hubscope("report", data_dir=directory / "data", HUBSCOPE_TEST_MARK=mark)
    assert report.returncode == 0, report.stderr
    assert report.stdout.startswith("# Tool analytics")
    assert marked(mark) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_an_address_that_cannot_be_listened_on_is_one_clear_error(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made up, because root may listen on every port and a machine without IPv6 is rare."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError(code, "no")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(PortBusy) as refused:
        listen(Settings.load(host="::1", port=3401))
    assert refused.value.detail == (
        f"::1:3401 cannot be listened on ({os.strerror(code)}); set HEALTH_PORT to another port"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert re.search(rf"Example: .*\bhubscope\b.*{command}", " ".join(result.output.split()))


def test_the_program_itself_lists_every_command(directory: Path) -> None:
    done = hubscope("--help", data_dir=directory / "data", COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^\W*{command} +\w", done.stdout, re.MULTILINE)
