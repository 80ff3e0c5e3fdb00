"""The specification's federation examples with the real programs: `hubscope up`, and `hubscope sql-mcp` behind it.

What 004 writes as curl is sent as it stands there; only host and port are others.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from hubscope.embedded import EmbeddedDatabase
from hubscope.store import connect
from tests.acceptance.test_up import Up, environment, hubscope, marked, started, until

pytestmark = [pytest.mark.acceptance, pytest.mark.integration]

BASE = "/api/v1/federation"
REGISTER = {
    "id": "postgres-mcp-server-v1.0.0",
    "name": "PostgreSQL MCP Server",
    "description": "Advanced PostgreSQL database integration with read-only access",
    "version": "1.0.0",
    "category": "database",
    "endpoint": "http://postgres-mcp-server:3401",
    "protocol": "http",
    "capabilities": ["query", "describe_table", "list_tables", "analyze_query"],
}
LIST_TABLES = '{"method": "list_tables", "params": {}}'
QUERY = '{"method": "query", "params": {"sql": "SELECT COUNT(*) FROM users"}}'
DATABASES = (
    ("postgres-main-v1.0.0", "Main Application Database", 3),
    ("postgres-analytics-v1.0.0", "Analytics Database", 5),
    ("postgres-audit-v1.0.0", "Audit Database", 7),
)


@pytest.fixture
def up(directory: Path) -> Iterator[Up]:
    file = directory / "servers.json"
    servers = {
        "time": {
            "command": sys.executable,
            "args": ["-m", "mcp_server_time", "--local-timezone", "UTC"],
            "health_check": {"interval": "1s"},
        }
    }
    file.write_text(json.dumps({"mcpServers": servers}))
    more = {
        "HUBSCOPE_PEER_NETWORKS": "127.0.0.1",
        "HUBSCOPE_SERVERS_FILE": str(file),
        "HUBSCOPE_PROBE_INTERVAL": "1000",
    }
    with started(directory / "data", **more) as running:
        yield running


@pytest.fixture
def http(up: Up) -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=60, base_url=up.url) as client:
        yield client


@contextmanager
def sql_server(dsn: str, directory: Path) -> Iterator[str]:
    """`hubscope sql-mcp --transport http` over a database, and its URL."""
    said = directory / f"sql-{dsn.rpartition('/')[2].partition('?')[0]}"
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "hubscope", "sql-mcp", "--transport", "http", "--database-url", dsn],
            env=environment(directory / "none"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=directory,
        )
    try:
        until(lambda: re.search(r"http://127\.0\.0\.1:\d+", said.read_text()) is not None, "the SQL server listens")
        yield re.findall(r"http://127\.0\.0\.1:\d+", said.read_text())[0]
    finally:
        process.terminate()
        process.wait(30)


async def make_database(server: EmbeddedDatabase, name: str, users: int) -> str:
    """A database with so many users."""
    admin = await connect(server.dsn_of("postgres"), name="tests")
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    connection = await connect(server.dsn_of(name), name="tests")
    await connection.execute("CREATE TABLE public.users (id integer)")
    await connection.execute("INSERT INTO public.users SELECT generate_series(1, $1)", users)
    await connection.close()
    return server.dsn_of(name)


def post(http: httpx2.Client, path: str, body: str) -> httpx2.Response:
    """As curl -X POST -H "Content-Type: application/json" -d BODY."""
    return http.post(f"{BASE}/{path}", content=body, headers={"Content-Type": "application/json"})


def rows_of(answer: dict[str, Any]) -> Any:
    return json.loads(answer["result"]["content"][0]["text"])["rows"]


async def test_the_specifications_examples_run(
    up: Up, http: httpx2.Client, server: EmbeddedDatabase, directory: Path
) -> None:
    with ExitStack() as stack:
        urls = {}
        for name, _, users in DATABASES:
            dsn = await make_database(server, f"f_{directory.name[-6:]}_{users}".replace("-", "_").lower(), users)
            urls[name] = stack.enter_context(sql_server(dsn, directory))
        first = urls["postgres-main-v1.0.0"]

        # "Register with TAS MCP Federation", "Test Integration"
        made = post(http, "servers", json.dumps(REGISTER | {"endpoint": first}))
        assert made.status_code == 201, made.text
        tables = post(http, f"servers/{REGISTER['id']}/invoke", LIST_TABLES)
        assert tables.status_code == 200, tables.text
        assert "users" in tables.json()["result"]["content"][0]["text"]
        assert rows_of(post(http, f"servers/{REGISTER['id']}/invoke", QUERY).json()) == [[3]]

        # "Multi-Database Federation"
        for name, title, _ in DATABASES:
            body = {
                "id": name,
                "name": title,
                "endpoint": urls[name],
                "protocol": "http",
                "capabilities": REGISTER["capabilities"],
            }
            assert post(http, "servers", json.dumps(body)).status_code == 201
        for name, _, users in DATABASES:
            assert rows_of(post(http, f"servers/{name}/invoke", QUERY).json()) == [[users]]
        write = post(
            http, f"servers/{DATABASES[0][0]}/invoke", '{"method": "query", "params": {"sql": "DELETE FROM users"}}'
        )
        assert write.json()["result"]["isError"] is True

        def states() -> dict[str, str]:
            found: dict[str, str] = http.get(f"{BASE}/health").json()["states"]
            return found

        names = [REGISTER["id"], *(name for name, _, _ in DATABASES)]
        until(lambda: [states().get(str(name)) for name in names] == ["up"] * 4, "all of them are up")
        everywhere = post(http, "broadcast", LIST_TABLES).json()
        assert {one["meta"]["server_id"] for one in everywhere["responses"]} >= set(names)
    # Their processes are gone: every one of them is down, and whoever asks is told at once.
    until(lambda: [states().get(str(name)) for name in names] == ["down"] * 4, "all of them are down")
    gone = post(http, f"servers/{REGISTER['id']}/invoke", QUERY)
    assert (gone.status_code, gone.json()["code"]) == (502, "upstream_failed")


def test_the_operators_stdio_server_is_called_watched_maintained_and_ended_with_the_service(
    up: Up, http: httpx2.Client
) -> None:
    until(lambda: http.get(f"{BASE}/servers/time").status_code == 200, "the file is read")
    call = {"method": "get_current_time", "params": {"timezone": "Europe/Berlin"}}
    answer = post(http, "servers/time/invoke", json.dumps(call)).json()
    assert json.loads(answer["result"]["content"][0]["text"])["timezone"] == "Europe/Berlin"
    missing = post(http, "servers/time/invoke", '{"method": "get_current_time", "params": {}}').json()
    assert missing["result"]["isError"] is True
    until(lambda: http.get(f"{BASE}/health").json()["states"]["time"] == "up", "it is up")

    planned = hubscope("maintenance", "plan", "time", "--until", "2h", "--reason", "upgrade", data_dir=up.data_dir)
    assert planned.returncode == 0, planned.stderr
    until(lambda: http.get(f"{BASE}/health").json()["states"]["time"] == "maintenance", "the window is open")
    listed = json.loads(hubscope("maintenance", "list", "--json", data_dir=up.data_dir).stdout)
    assert [(one["id"], one["reason"], one["source"]) for one in listed] == [(planned.stdout.strip(), "upgrade", "cli")]
    cancelled = hubscope("maintenance", "cancel", "time", planned.stdout.strip(), data_dir=up.data_dir)
    assert cancelled.returncode == 0, cancelled.stderr
    until(lambda: http.get(f"{BASE}/health").json()["states"]["time"] == "up", "it is looked at again")
    unknown = hubscope("maintenance", "plan", "nobody", "--until", "2h", data_dir=up.data_dir)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "there is no server 'nobody'" in unknown.stderr

    analytics = http.get("/api/v1/analytics").json()
    assert "get_current_time" in json.dumps(analytics)
    # The server's environment is its own: nothing of ours is in it.
    assert not any("mcp_server_time" in " ".join(one.cmdline()) for one in marked(up.mark))
    children = psutil.Process(up.process.pid).children(recursive=True)
    [clock] = [one for one in children if "mcp_server_time" in " ".join(one.cmdline())]
    up.process.terminate()
    assert up.process.wait(30) == 0
    assert not clock.is_running()


def test_a_file_that_will_not_do_stops_the_start_with_one_clear_line(directory: Path) -> None:
    file = directory / "servers.json"
    file.write_text('{"mcpServers": {"x": {"command": "y", "colour": "red"}}}')
    done = hubscope("up", data_dir=directory / "data", HUBSCOPE_SERVERS_FILE=str(file))
    assert done.returncode == 1
    assert "mcpServers.x: 'colour' is not one of its fields" in done.stderr
