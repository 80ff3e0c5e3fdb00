"""The SQL server as MCP clients meet it: in this process, over HTTP, and as a command that a client starts."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ResourceTemplateReference
from prometheus_client.parser import text_string_to_metric_families

from hubscope.entrypoints.sql_lines import Lines, LinesBehind
from hubscope.entrypoints.sql_mcp import asgi, build, opened
from hubscope.entrypoints.sql_server import SqlServer
from hubscope.entrypoints.sql_tools import load
from hubscope.errors import InvalidSetting
from hubscope.settings import SqlSettings
from hubscope.sqlgate import Gate, Limits, Policy, Served
from tests.conftest import held
from tests.integration.sqlgate.conftest import POLICY, Canary, eventually, gate_to
from tests.sql_corpus import SECRET

ROOT = Path(__file__).resolve().parents[3]
TOOLS = {"query", "list_tables", "describe_table", "analyze_query"}


@pytest.fixture
def log() -> io.StringIO:
    """Where audit lines go."""
    return io.StringIO()


@pytest.fixture
async def sql_server(sample: str, log: io.StringIO) -> AsyncIterator[SqlServer]:
    async with held(opened(SqlServer({"main": Gate(Served(sample, POLICY, Limits()))}, Lines(log)))) as sql_server:
        yield sql_server


@pytest.fixture
async def mcp(sql_server: SqlServer) -> AsyncIterator[Client]:
    async with held(Client(build(sql_server))) as client:
        yield client


@pytest.fixture
async def http(sql_server: SqlServer) -> AsyncIterator[httpx2.AsyncClient]:
    async with held(asgi(sql_server)) as application:
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:3401") as client:
            yield client


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


async def ask(mcp: Client, tool: str, **arguments: Any) -> Any:
    answer = await mcp.call_tool(tool, arguments)
    text = answer.content[0].text  # type: ignore[union-attr]
    assert not answer.is_error, text
    return json.loads(text)


async def test_the_specifications_tools_are_there_and_say_that_they_only_read(mcp: Client) -> None:
    tools = {tool.name: tool for tool in (await mcp.list_tools()).tools}
    assert tools.keys() == TOOLS
    for tool in tools.values():
        assert tool.title
        assert tool.description
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint
        assert not tool.annotations.destructive_hint
        assert (tool.output_schema is None) == (tool.name == "query")


async def test_the_specifications_examples_run_as_written(mcp: Client) -> None:
    sql = "SELECT id, name, email FROM users WHERE created_at > $1 LIMIT $2"
    answer = await ask(mcp, "query", sql=sql, params=["2025-01-01", 10])
    assert [column["name"] for column in answer["columns"]] == ["id", "name", "email"]
    assert answer["row_count"] == len(answer["rows"]) == 10
    assert answer["truncated"] is False
    described = await ask(mcp, "describe_table", table_name="users", schema_name="public")
    assert [column["name"] for column in described["columns"]][:3] == ["id", "name", "email"]
    listed = await ask(mcp, "list_tables", schema_name="public")
    assert "users" in {table["name"] for table in listed["tables"]}
    sql = "SELECT u.*, COUNT(o.id) FROM users u LEFT JOIN orders o ON u.id = o.user_id GROUP BY u.id"
    assert (await ask(mcp, "analyze_query", sql=sql))["total_cost"] > 0
    assert (await ask(mcp, "query", sql="SELECT COUNT(*) FROM users"))["rows"] == [[20]]


async def test_the_specifications_insert_is_refused(mcp: Client, canary: Canary) -> None:
    before = await canary.state()
    sql = "INSERT INTO user_events (user_id, event_type, event_data) VALUES ($1, $2, $3)"
    answer = await mcp.call_tool("query", {"sql": sql, "params": [1, "registration", "{}"]})
    assert answer.is_error
    assert "INSERT is not allowed" in answer.content[0].text  # type: ignore[union-attr]
    assert "POST /v1/events" in answer.content[0].text  # type: ignore[union-attr]
    assert await canary.state() == before


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("query", {"sql": "COMMIT; DROP TABLE users"}),
        ("query", {"sql": "SELECT * FROM secrets"}),
        ("query", {"sql": "SELECT $1::int", "params": ["x"]}),
        ("query", {"sql": 1}),
        ("query", {}),
        ("analyze_query", {"sql": "DELETE FROM users"}),
        ("describe_table", {"table_name": "secrets"}),
        ("list_tables", {"schema_name": "private"}),
    ],
)
async def test_a_refusal_is_an_error_without_data(mcp: Client, tool: str, arguments: dict[str, Any]) -> None:
    answer = await mcp.call_tool(tool, arguments)
    assert answer.is_error
    assert SECRET not in answer.content[0].text  # type: ignore[union-attr]


async def test_every_call_leaves_one_audit_line(mcp: Client, log: io.StringIO) -> None:
    await ask(mcp, "query", sql="SELECT name FROM customer_summary WHERE id = $1", params=[4711])
    await mcp.call_tool("query", {"sql": "SELECT * FROM secrets"})
    await ask(mcp, "list_tables")
    calls = [line for line in lines(log) if "tool" in line]
    assert [(line["tool"], line["outcome"]) for line in calls] == [
        ("query", "success"),
        ("query", "refused"),
        ("list_tables", "success"),
    ]
    first, second, _ = calls
    assert first["reads"] == ["public.customer_summary", "public.orders", "public.users"]
    assert (first["params"], first["rows"], first["role"]) == (1, 0, "postgres")
    assert "4711" not in json.dumps(calls)  # values are not logged
    assert second["code"] == "query_refused"
    async with asyncio.timeout(30):  # the role is looked at beside the calls
        while not any(line.get("event") == "role_audit" for line in lines(log)):  # noqa: ASYNC110 (it is in a log)
            await asyncio.sleep(0.01)


async def test_the_text_of_a_query_is_audited_without_secrets_and_cut(sample: str, log: io.StringIO) -> None:
    for chars, seen in ((2_000, "SELECT 'password=[redacted]'" + " " * 1972), (20, "SELECT 'password=[re"), (0, None)):
        async with gate_to(sample, POLICY) as gate:
            server = SqlServer({"main": gate}, Lines(log), audit_chars=chars)
            async with Client(build(server)) as client:
                await ask(client, "query", sql="SELECT 'password=hunter22'" + " " * 3_000)
        assert lines(log)[-1].get("sql") == seen
    assert "hunter22" not in log.getvalue()


@pytest.mark.parametrize("refuse", [False, True])
async def test_a_reader_of_the_audit_who_does_not_read_keeps_no_query_waiting(sample: str, refuse: bool) -> None:
    taken, given = os.pipe()
    sql = "SELECT 1 /* " + "x" * 1_500 + " */"
    with os.fdopen(taken, "rb") as reader, os.fdopen(given, "w") as stream:
        os.set_blocking(given, False)
        with contextlib.suppress(BlockingIOError):  # the pipe is full before the first line
            while True:
                os.write(given, b"\n" * 4096)
        os.set_blocking(given, True)
        recorder = LinesBehind(stream, 10, refuse=refuse)
        async with gate_to(sample, POLICY) as gate, Client(build(SqlServer({"main": gate}, recorder))) as client:
            answers = [await client.call_tool("query", {"sql": sql}) for _ in range(40)]
            assert not answers[0].is_error
            assert answers[-1].is_error is refuse
            assert ("without an audit line" in str(answers[-1].content)) is refuse
            reading = asyncio.create_task(asyncio.to_thread(reader.read))
            await asyncio.to_thread(recorder.close)
            assert not (await client.call_tool("query", {"sql": "SELECT 2"})).is_error
        await asyncio.to_thread(recorder.close)
        stream.close()
        written = [json.loads(line) for line in (await reading).splitlines() if line]
    told = sum(line.get("lines", 0) for line in written)
    if not refuse:
        assert told > 0
        assert len([line for line in written if "tool" in line]) + told == 41
    assert written[-1]["sql"] == "SELECT 2"


async def test_health_has_the_specifications_shape(http: httpx2.AsyncClient, sample: str, log: io.StringIO) -> None:
    answer = await http.get("/health")
    body = answer.json()
    assert answer.status_code == 200
    assert (body["status"], body["service"], body["database"]) == ("healthy", "postgres-mcp-server", "connected")
    assert body["connection_pool"].keys() == {"total", "active", "idle"}
    assert body["memory_usage"].keys() == {"rss", "heap_used", "heap_total"}
    assert body.keys() >= {"version", "timestamp", "uptime"}
    assert body["databases"].keys() == {"main"}
    away = SqlServer({"main": Gate(Served("postgresql://nobody@127.0.0.1:1/x", Policy(), Limits()))}, Lines(log))
    status, body = await away.health()
    assert (status, body["status"], body["database"]) == (503, "unhealthy", "disconnected")


async def test_health_tells_what_is_wrong_with_the_role_and_the_statements_that_mend_it(
    sql_server: SqlServer, http: httpx2.AsyncClient
) -> None:
    async def known() -> bool:
        return "main" in sql_server.roles

    await eventually(known, "the role is not looked at")
    body = (await http.get("/health")).json()
    role = body["databases"]["main"]["role"]
    assert role["role"] == "postgres"
    assert body["role_findings"] == len(role["findings"]) > 0
    assert 'ALTER ROLE "postgres" NOCREATEROLE;' in {finding["mend"] for finding in role["findings"]}


async def test_health_can_be_switched_off(sql_server: SqlServer) -> None:
    switched = SqlSettings.load(health_check_enabled=False).health_check_enabled
    async with held(asgi(sql_server, health=switched)) as app:
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1:3401")
        assert (await http.get("/health")).status_code == 404
        assert (await http.get("/livez")).status_code == 200
        await http.aclose()


async def test_metrics_are_the_specifications_and_on_the_metrics_page(mcp: Client, http: httpx2.AsyncClient) -> None:
    await ask(mcp, "query", sql="SELECT 1")
    await mcp.call_tool("query", {"sql": "DELETE FROM users"})
    text = (await http.get("/metrics")).text
    samples = {
        (sample_.name, *sorted(sample_.labels.items())): sample_.value
        for family in text_string_to_metric_families(text)
        for sample_ in family.samples
    }
    assert samples["postgres_mcp_queries_total", ("database", "main"), ("status", "success")] == 1
    assert samples["postgres_mcp_queries_total", ("database", "main"), ("status", "refused")] == 1
    assert samples["postgres_mcp_database_connected", ("database", "main")] == 1
    assert samples["postgres_mcp_memory_limit_bytes",] > samples["postgres_mcp_memory_usage_bytes", ("type", "rss")] > 0
    assert ("postgres_mcp_query_duration_seconds_bucket", ("database", "main"), ("le", "10.0")) in samples
    page = (ROOT / "docs/reference/metrics.md").read_text()
    served = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(text)
        if family.name.startswith("postgres_mcp")
    }
    assert set(re.findall(r"^\| `(postgres_mcp\w+)` \|", page, re.MULTILINE)) == served


async def test_tools_answer_over_http_and_strangers_do_not_reach_them(http: httpx2.AsyncClient) -> None:
    async with Client(streamable_http_client("http://127.0.0.1:3401/mcp", http_client=http)) as client:
        assert (await ask(client, "query", sql="SELECT 1 AS x"))["rows"] == [[1]]
    assert (await http.get("/health", headers={"host": "evil.example"})).status_code == 403
    assert (await http.post("/mcp", json={}, headers={"origin": "https://evil.example"})).status_code == 403


async def test_an_http_client_who_goes_away_takes_the_query_along(sql_server: SqlServer, canary: Canary) -> None:
    sql = "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000) b"
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "query", "arguments": {"sql": sql}}}
    running = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hubscope sql-mcp' AND state = 'active'"
        " AND datname = current_database() AND query LIKE 'SELECT q.c1%'"
    )
    leaves = asyncio.Event()
    messages = [{"type": "http.request", "body": json.dumps(call).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        pass

    headers = [(b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")]
    scope = {
        "type": "http", "method": "POST", "path": "/mcp", "raw_path": b"/mcp", "query_string": b"", "headers": headers,
        "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 3401), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    async with held(asgi(sql_server)) as application:
        request = asyncio.ensure_future(application(scope, receive, send))
        await eventually(lambda: _is(canary, running, 1), "it does not run")
        leaves.set()
        await eventually(lambda: _is(canary, running, 0), "the server still runs it")
        await asyncio.wait_for(asyncio.gather(request, return_exceptions=True), 10)


async def _is(canary: Canary, sql: str, value: Any) -> bool:
    return bool(await canary.connection.fetchval(sql) == value)


async def test_resources_tell_what_there_is_under_the_same_policy(mcp: Client) -> None:
    uris = {str(resource.uri) for resource in (await mcp.list_resources()).resources}
    assert {"postgres://schema/public", "postgres://table/public/users", "postgres://function/public/peek"} <= uris
    assert not {uri for uri in uris if "secret" in uri or "private" in uri}
    templates = {each.uri_template for each in (await mcp.list_resource_templates()).resource_templates}
    assert len(templates) == 3
    table = json.loads((await mcp.read_resource("postgres://table/public/users")).contents[0].text)  # type: ignore[union-attr]
    assert table["name"] == "users"
    schema = json.loads((await mcp.read_resource("postgres://schema/public")).contents[0].text)  # type: ignore[union-attr]
    assert "peek" in {function["name"] for function in schema["functions"]}
    text = (await mcp.read_resource("postgres://function/public/peek")).contents[0].text  # type: ignore[union-attr]
    (function,) = json.loads(text)
    assert (function["security_definer"], function["callable"]) == (True, False)
    assert "secrets" not in text  # the source is not told
    for closed in ("postgres://table/public/secrets", "postgres://schema/private", "postgres://function/public/zz"):
        with pytest.raises(MCPError, match="does not exist or is not served"):
            await mcp.read_resource(closed)


async def test_names_in_resources_are_completed(mcp: Client) -> None:
    ref = ResourceTemplateReference(uri="postgres://table/{schema_name}/{table_name}")
    found = await mcp.complete(ref, {"name": "table_name", "value": "us"}, context_arguments={"schema_name": "public"})
    assert found.completion.values == ["users"]
    found = await mcp.complete(ref, {"name": "schema_name", "value": ""})
    assert found.completion.values == ["public"]


async def test_a_database_that_comes_and_goes_is_survived(sample: str, log: io.StringIO, canary: Canary) -> None:
    async with gate_to(sample, POLICY) as gate:
        sql_server = SqlServer({"main": gate}, Lines(log))
        async with Client(build(sql_server)) as client:
            await ask(client, "query", sql="SELECT 1")
            await canary.connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hubscope sql-mcp'"
                " AND datname = current_database()"
            )
            for _ in range(20):
                if not (await client.call_tool("query", {"sql": "SELECT 1"})).is_error:
                    break
            assert (await ask(client, "query", sql="SELECT 2"))["rows"] == [[2]]


CUSTOM = """
[tools.customer_analytics]
description = "What one customer bought."
sql = "SELECT * FROM get_customer_analytics($1)"
[tools.customer_analytics.params.customer_id]
type = "integer"
description = "Id of the customer."

[tools.revenue_report]
description = "Revenue by month."
sql = '''SELECT date_trunc('month', created_at)::date AS month, sum(total_amount) AS revenue FROM orders
WHERE created_at >= $1 AND created_at < $2 AND status = coalesce($3, status) GROUP BY 1 ORDER BY 1'''
[tools.revenue_report.params.from_date]
[tools.revenue_report.params.to_date]
[tools.revenue_report.params.status]
required = false
"""


async def test_tools_of_ones_own_run_under_the_same_gates(
    sample: str, canary: Canary, log: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hubscope.toml").write_text(CUSTOM)
    await canary.connection.execute(
        "CREATE FUNCTION get_customer_analytics(customer int) RETURNS TABLE (customer_name text, total numeric)"
        " LANGUAGE sql AS $$ SELECT name, sum(total_amount) FROM users u JOIN orders o ON o.user_id = u.id"
        " WHERE u.id = customer GROUP BY 1 $$"
    )
    policy = Policy(allowed_functions=frozenset({"public.get_customer_analytics"}))
    async with (
        gate_to(sample, policy) as gate,
        Client(build(SqlServer({"main": gate}, Lines(log)), load({"main": gate}))) as client,
    ):
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS | {
            "customer_analytics",
            "revenue_report",
        }
        answer = await ask(client, "customer_analytics", customer_id=3)
        assert answer.keys() >= {"arguments", "rows", "generated_at"}
        assert answer["arguments"] == {"customer_id": 3}
        assert answer["rows"][0][0] == "user 3"
        answer = await ask(client, "revenue_report", from_date="2025-02-01", to_date="2025-04-01")
        assert [row[0] for row in answer["rows"]] == ["2025-02-01", "2025-03-01"]
        assert (await client.call_tool("customer_analytics", {"customer_id": "many"})).is_error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tools.x]\ndescription = 'x'\nsql = 'DELETE FROM users'\n", r"\[tools.x\]: DELETE is not allowed"),
        ("[tools.x]\ndescription = 'x'\nsql = 'SELECT $1'\n", r"has 0 params, its sql uses \[1\]"),
        ("[tools.query]\ndescription = 'x'\nsql = 'SELECT 1'\n", "is no name for a tool"),
        ("[tools.x]\nsql = 'SELECT 1'\n", "takes description, sql, params and database"),
        ("[tools.x]\ndescription = 'x'\nsql = 'SELECT $1'\n[tools.x.params.a]\ntype = 'date'\n", "allowed: text, "),
    ],
)
def test_a_mistake_in_a_tool_of_ones_own_ends_the_start(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hubscope.toml").write_text(text)
    with pytest.raises(InvalidSetting, match=said):
        load({"main": Gate(Served("postgresql://x@y/z", Policy(), Limits()))})


def configuration() -> dict[str, Any]:
    """The client configuration of the how-to page."""
    page = (ROOT / "docs/how-to/serve-a-database-read-only.md").read_text()
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    servers: dict[str, Any] = next(block["mcpServers"]["shop"] for block in blocks if "command" in str(block))
    return servers


@pytest.mark.acceptance
async def test_the_client_configuration_of_the_documentation_works(sample: str) -> None:
    said = configuration()
    assert said["command"] == "hubscope"
    environment = {**said["env"], "DATABASE_URL": sample}
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "hubscope", *said["args"]],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")} | environment,
    )
    async with Client(stdio_client(parameters)) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        assert (await ask(client, "query", sql="SELECT COUNT(*) FROM users"))["rows"] == [[20]]
        assert (await client.call_tool("query", {"sql": "SELECT * FROM secrets"})).is_error


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ([], {}, "no database is named: set DATABASE_URL"),
        (["--database-url", "postgresql://x@y/z"], {"READ_ONLY": "false"}, "READ_ONLY is false"),
        (["--database-url", "postgresql://x@y/z?pool_max_conns=x"], {}, "pool_max_conns is 'x'"),
        ([], {"DATABASE_URL": "mysql://root:s3cr3t@db"}, "DATABASE_URL is not the URL"),
        ([], {"MAX_QUERY_LENGTH": "99999"}, "MAX_QUERY_LENGTH is '99999'"),
    ],
)
def test_a_mistake_at_start_is_one_clear_line(
    arguments: list[str], environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hubscope", "sql-mcp", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("hubscope: ")
    assert said in line
    assert "s3cr3t" not in line


HELLO = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"x","version":"1"}}}\n'
)
NOWHERE = [sys.executable, "-m", "hubscope", "sql-mcp", "--database-url", "postgresql://nobody@127.0.0.1:1/x"]


@pytest.mark.parametrize(("how", "code"), [("closes our input", 0), ("interrupts us", 130)])
def test_a_client_ends_the_server_at_once(how: str, code: int, tmp_path: Path) -> None:
    with subprocess.Popen(
        NOWHERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(HELLO)
        server.stdin.flush()
        assert b"serverInfo" in server.stdout.readline()
        if how == "interrupts us":
            server.send_signal(signal.SIGINT)
        else:
            server.stdin.close()
        assert server.wait(20) == code


def test_messages_may_come_from_a_file_and_go_into_one(tmp_path: Path) -> None:
    (tmp_path / "asked").write_bytes(HELLO)
    with (tmp_path / "asked").open("rb") as asked, (tmp_path / "told").open("wb") as told:
        done = subprocess.run(
            NOWHERE, stdin=asked, stdout=told, stderr=subprocess.DEVNULL, cwd=tmp_path, timeout=60, check=False
        )
    assert done.returncode == 0
    assert b"serverInfo" in (tmp_path / "told").read_bytes()


@pytest.mark.acceptance
async def test_the_command_serves_several_databases_over_http_and_audits_whatever_the_log_level(
    sample: str, database: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "hubscope", "sql-mcp", "--transport", "http"]
    process = await asyncio.create_subprocess_exec(
        *command, "--database-url", f"shop={sample}", "--database-url", f"store={database}",
        env={
            "PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "HEALTH_PORT": "0",
            "LOG_LEVEL": "error", "ALLOWED_SCHEMAS": "public,analytics", "HUBSCOPE_SQL_VIEW_SCHEMAS": "raw",
        },
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        while True:
            line = (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
            if match := re.search(r"http://[^/]+", line):
                url = match[0]
                break
        async with (
            httpx2.AsyncClient(trust_env=False) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
        ):
            assert (await ask(client, "query", sql="SELECT COUNT(*) FROM users"))["rows"] == [[20]]
            answer = await ask(client, "query", sql="SELECT COUNT(*) FROM analytics.fct_tool_calls", database="store")
            assert answer["rows"] == [[0]]
            assert (await client.call_tool("query", {"sql": "DROP TABLE users", "database": "shop"})).is_error
            health = (await http.get(f"{url}/health")).json()
            assert {name: state["status"] for name, state in health["databases"].items()} == {
                "shop": "connected",
                "store": "connected",
            }
            text = (await http.get(f"{url}/metrics")).text
            assert 'postgres_mcp_queries_total{database="shop",status="refused"} 1.0' in text
    finally:
        process.terminate()
        _, rest = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    events = [json.loads(line) for line in (line + "\n" + rest.decode()).splitlines() if line.startswith("{")]
    calls = [(event["served"], event["outcome"]) for event in events if event.get("tool") == "query"]
    assert calls == [("shop", "success"), ("store", "success"), ("shop", "refused")]
