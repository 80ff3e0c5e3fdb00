"""API keys with the real program: made, used, rotated, revoked; and where a service without them may listen."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from hubscope.entrypoints.cli import cli
from tests.acceptance.test_up import (
    DEADLINE_S,
    assert_one_clear_error,
    calls_of,
    environment,
    hubscope,
    marked,
    started,
    until,
)
from tests.events import tool_call

pytestmark = [pytest.mark.acceptance, pytest.mark.integration]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def keys(data_dir: Path, *arguments: str, **more: str) -> Any:
    """A `hubscope keys` command with --json: what it says."""
    done = hubscope("keys", *arguments, "--json", data_dir=data_dir, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=30) as client:
        yield client


def test_a_key_is_made_used_rotated_and_revoked_while_the_service_runs(directory: Path, http: httpx2.Client) -> None:
    with started(directory / "data", HUBSCOPE_KEY_CACHE_TIME="1000", HUBSCOPE_KEY_USE_INTERVAL="200") as up:
        data = up.data_dir
        events, answers = f"{up.url}/v1/events", f"{up.url}/api/v1/analytics"
        assert "no API keys yet (`hubscope keys create`" in up.said.read_text()
        assert http.post(events, json=[tool_call()]).status_code == 200

        made = keys(data, "create", "--name", "hub", "--tenant", "acme", "--scope", "ingest", "--scope", "read")
        assert re.fullmatch(r"hsk_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}", made["key"])
        assert (data / "key-pepper").stat().st_mode & 0o777 == 0o600
        # It works at once; the others need one within the cache time.
        assert http.post(events, json=[tool_call(tool="x")], headers=bearer(made["key"])).json()["accepted"] == 1
        until(lambda: http.post(events, json=[]).status_code == 401, "this machine needs a key, too")
        told = http.get(answers, headers=bearer(made["key"])).json()
        assert calls_of(told, "x") == 1
        assert calls_of(told, "list_directory") == 0  # of the tenant default
        assert http.get(f"{up.url}/metrics", headers=bearer(made["key"])).status_code == 403
        assert http.get(f"{up.url}/health").json()["access"] == "holders of an API key (1 live)"

        rotated = keys(data, "rotate", made["id"], "--overlap", "1h")
        assert rotated["replaces"]["id"] == made["id"]
        for key in (made["key"], rotated["key"]):
            assert http.post(events, json=[], headers=bearer(key)).status_code == 200
        until(
            lambda: all(key["last_used_at"] for key in keys(data, "list")), "the last use of both keys is written down"
        )

        revoked = keys(data, "revoke", made["key"])  # by the key itself, as one finds it in a log
        began = time.monotonic()
        assert (revoked["id"], revoked["state"]) == (made["id"], "revoked")
        until(lambda: http.post(events, json=[], headers=bearer(made["key"])).status_code == 401, "it is refused")
        assert time.monotonic() - began < 10
        assert http.post(events, json=[], headers=bearer(rotated["key"])).status_code == 200
        assert [key["id"] for key in keys(data, "list")] == [rotated["id"]]
        assert {key["state"] for key in keys(data, "list", "--all")} == {"live", "revoked"}

        # The command line asks the database itself: whoever may do that needs no key.
        report = hubscope("report", "--json", data_dir=data)
        assert calls_of(json.loads(report.stdout), "list_directory") == 1
        assert made["key"][17:] not in up.said.read_text()


def test_a_key_is_printed_alone_and_listed_without_what_proves_it(directory: Path) -> None:
    data = directory / "data"
    made = hubscope("keys", "create", "--name", "laptop", "--scope", "read", "--expires", "90d", data_dir=data)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert re.fullmatch(r"hsk_\w+", key)
    assert key not in made.stderr
    listed = hubscope("keys", "list", "--all", data_dir=data, COLUMNS="80")
    assert listed.returncode == 0, listed.stderr
    for word in (key[4:16], "laptop", "default", "read", "live", "never"):
        assert word in listed.stdout
    assert key[17:] not in listed.stdout
    again = hubscope("keys", "create", "--name", "laptop", "--scope", "read", data_dir=data)
    assert_one_clear_error(again, "a live key 'laptop'", "hubscope keys rotate")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("create", "--name", "x", "--scope", "read", "--expires", "soon"), ["'soon'", "such as 90d"]),
        (("create", "--name", "x", "--scope", "read", "--tenant", "a b"), ["tenant", "letters"]),
        (("list",), ["there is no database", "hubscope up"]),
        (("revoke", "abcdefghijkl"), ["there is no database"]),
    ],
    ids=lambda value: " ".join(value[:1]),
)
def test_a_mistake_is_one_clear_line(arguments: tuple[str, ...], parts: list[str], directory: Path) -> None:
    assert_one_clear_error(hubscope("keys", *arguments, data_dir=directory / "data"), *parts)


def test_keys_of_a_store_of_ones_own_need_a_pepper(directory: Path) -> None:
    done = hubscope(
        "keys", "create", "--name", "x", "--scope", "read",
        data_dir=directory / "data", HUBSCOPE_DATABASE_URL="postgresql://me@127.0.0.1:1/store",
    )  # fmt: skip
    assert_one_clear_error(done, "HUBSCOPE_KEY_PEPPER")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_a_key_nothing_listens_beyond_loopback(host: str, directory: Path) -> None:
    done = hubscope("up", data_dir=directory / "data", HUBSCOPE_HOST=host)
    assert_one_clear_error(done, f"HUBSCOPE_HOST is {host}", "no live API key", "hubscope keys create")


def test_with_a_key_it_listens_where_it_is_told_and_lets_nobody_else_in(directory: Path, http: httpx2.Client) -> None:
    """All of 127.0.0.0/8 is loopback, so a stranger is played by a caller that a proxy speaks for."""
    data = directory / "data"
    key = keys(data, "create", "--name", "hub", "--scope", "ingest")["key"]
    with started(
        data, HUBSCOPE_HOST="0.0.0.0", HUBSCOPE_ALLOWED_HOSTS="hub.example", HUBSCOPE_LOOPBACK_TRUST="always"
    ) as up:
        stranger = {"x-forwarded-for": "192.0.2.1"}
        events = f"{up.url}/v1/events"
        assert http.post(events, json=[], headers=stranger).status_code == 401
        assert http.post(events, json=[], headers=stranger | bearer(key)).status_code == 200
        assert http.post(events, json=[], headers=bearer(key) | {"host": "hub.example"}).status_code == 200
        assert http.post(events, json=[], headers=bearer(key) | {"host": "evil.example"}).status_code == 403
        assert http.post(events, json=[]).status_code == 200
        health = http.get(f"{up.url}/health", headers=stranger)
        assert health.json() == {"status": "healthy", "service": "hubscope"}


def test_the_demo_works_where_there_are_keys(directory: Path) -> None:
    data = directory / "data"
    keys(data, "create", "--name", "hub", "--scope", "ingest")
    done = subprocess.run(
        [sys.executable, "-m", "hubscope", "demo", "--once", "--json"],
        env=environment(data),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=170,
        cwd=directory,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answer"]["overview"]["usage"]["calls"] == 240


# Its end


@contextmanager
def frozen(processes: list[Any]) -> Iterator[None]:
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(Exception):
                process.resume()


def test_a_service_that_is_stopped_ends_within_the_drain_time(directory: Path, http: httpx2.Client) -> None:
    """Even with a database that says nothing, a post that waits for it and a client that is still sending: what it
    has not committed it answers 503, or nothing at all, and never 200."""
    with started(
        directory / "data",
        HUBSCOPE_DRAIN_TIMEOUT="2000",
        HUBSCOPE_COMMIT_TIMEOUT="60000",
        HUBSCOPE_POOL_CONNECTION_TIMEOUT="500",
    ) as up:
        port = int(up.url.rpartition(":")[2])
        assert http.post(f"{up.url}/v1/events", json=[tool_call(tool="before")]).status_code == 200
        answers: list[int] = []

        def post() -> None:
            with suppress(httpx2.HTTPError), httpx2.Client(trust_env=False, timeout=30) as client:
                answers.append(client.post(f"{up.url}/v1/events", json=[tool_call(tool="late")]).status_code)

        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
        with frozen(up.database):
            posting = threading.Thread(target=post)
            posting.start()
            time.sleep(0.5)
            began = time.monotonic()
            up.process.send_signal(signal.SIGTERM)
            until(lambda: "· stopping" in up.said.read_text(), "it is stopping")

            def refused() -> bool:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                except OSError:
                    return True
                return False

            until(refused, "new connections are refused")
            posting.join(DEADLINE_S)
            answered_after = time.monotonic() - began
        slow.close()
        assert up.process.wait(DEADLINE_S) == 0, up.said.read_text()
        assert answers in ([503], [])
        assert answered_after < 8
        assert "Traceback" not in up.said.read_text()
    done = hubscope("report", "--json", data_dir=up.data_dir, HUBSCOPE_TEST_MARK=up.mark)
    assert calls_of(json.loads(done.stdout), "before") == 1
    assert marked(up.mark) == []


# Help


@pytest.mark.parametrize("command", ["create", "list", "revoke", "rotate"])
def test_the_help_of_every_keys_command_has_an_example(command: str) -> None:
    result = CliRunner().invoke(cli, ["keys", command, "--help"])
    assert result.exit_code == 0
    assert f"Example: hubscope keys {command}" in " ".join(result.output.split())
