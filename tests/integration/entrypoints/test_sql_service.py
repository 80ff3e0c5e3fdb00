"""/sql/mcp inside the service: whose rows a key sees, what is recorded of it, and that it takes nothing from ingest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from hubscope.access import Scope
from hubscope.app import App, opened
from hubscope.entrypoints.http import asgi
from hubscope.entrypoints.serve import listen, serving
from hubscope.errors import InvalidSetting
from hubscope.marts import live_marts
from hubscope.settings import Settings
from hubscope.store import Connection
from tests.conftest import ROLES, held
from tests.events import server_event, tool_call
from tests.integration.sqlgate.conftest import eventually
from tests.keys import PEPPER, bearer, make_key

pytestmark = [pytest.mark.integration]

BASE = "http://127.0.0.1:3401"
TENANT_VIEWS = {
    "dim_servers",
    "fct_tool_call_totals",
    "fct_tool_calls",
    "fct_tool_latency_daily",
    "fct_tool_latency_hourly",
    "fct_tool_usage_daily_live",
    "fct_tool_usage_hourly",
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"key_pepper": PEPPER})


@asynccontextmanager
async def service(settings: Settings, database: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with held(opened(settings, database)) as app, held(asgi(app)) as application:
        transport = httpx2.ASGITransport(app=application, client=("127.0.0.1", 50_000))
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            yield http


@asynccontextmanager
async def sql(http: httpx2.AsyncClient, key: str | None = None) -> AsyncIterator[Client]:
    mine = httpx2.AsyncClient(
        transport=http._transport, base_url=BASE, headers={"user-agent": "tester/1", **(bearer(key) if key else {})}
    )
    async with Client(streamable_http_client(f"{BASE}/sql/mcp", http_client=mine)) as client:
        yield client


async def ask(client: Client, tool: str, **arguments: Any) -> Any:
    answer = await client.call_tool(tool, arguments)
    text = answer.content[0].text  # type: ignore[union-attr]
    assert not answer.is_error, text
    return json.loads(text)


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    return str(answer.content[0].text)  # type: ignore[union-attr]


async def test_it_serves_hubscopes_own_marts_to_this_machine(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/v1/events", json=[tool_call(), server_event()])).json()["accepted"] == 2
    async with sql(client) as mcp:
        assert {tool.name for tool in (await mcp.list_tools()).tools} == {
            "query",
            "list_tables",
            "describe_table",
            "analyze_query",
        }
        listed = await ask(mcp, "list_tables")
        assert {table["name"] for table in listed["tables"]} == TENANT_VIEWS
        assert listed["schemas"] == ["tenant"]
        for view in sorted(TENANT_VIEWS):
            assert (await ask(mcp, "query", sql=f"SELECT * FROM {view}"))["row_count"] == 1, view
            assert (await ask(mcp, "describe_table", table_name=view))["columns"][0]["name"] == "tenant_id"
        assert (await ask(mcp, "analyze_query", sql="SELECT * FROM fct_tool_calls"))["total_cost"] > 0
        p95 = "SELECT rollup.latency_percentile(array_agg(bucket), array_agg(calls), 0.95, max(max_us) / 1000.0)"
        ((value,),) = (await ask(mcp, "query", sql=f"{p95} FROM fct_tool_latency_daily"))["rows"]
        assert value > 0


async def test_every_live_mart_that_has_tenants_is_there(admin: Connection) -> None:
    rows = await admin.fetch(
        "SELECT relname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'"
        " WHERE c.relnamespace = 'analytics'::regnamespace AND relkind = 'v'"
    )
    assert {row["relname"] for row in rows} == TENANT_VIEWS
    assert {mart.name for mart in live_marts()} >= TENANT_VIEWS
    barriers = await admin.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'tenant'::regnamespace AND relkind = 'v'"
        " AND 'security_barrier=true' = ANY (reloptions)"
    )
    assert {row["relname"] for row in barriers} == TENANT_VIEWS


# Whatever is asked, in whatever way: rows of another tenant are not in the answer.
PRYING = (
    "SELECT * FROM {view}",
    "SELECT * FROM tenant.{view} WHERE tenant_id = 'other' OR true",
    "SELECT * FROM {view} v WHERE EXISTS (SELECT FROM {view} w WHERE w.tenant_id <> v.tenant_id)",
    "SELECT string_agg(v::text, ',') FROM {view} v",
    "WITH RECURSIVE r AS (SELECT * FROM {view} UNION SELECT * FROM {view}) SELECT * FROM r",
    "SELECT count(*) FILTER (WHERE tenant_id = 'other'), string_agg(tenant_id, ',') FROM {view}",
    "SELECT * FROM {view} WHERE 1 / (CASE WHEN tenant_id <> '{name}' THEN 0 ELSE 1 END) = 1",
    "SELECT to_jsonb(v) FROM {view} v, LATERAL (SELECT * FROM {view} WHERE tenant_id = 'other') o",
)


async def test_a_key_of_a_tenant_sees_that_tenants_rows_and_no_others(settings: Settings, database: str) -> None:
    names = ("acme", "other")
    async with service(settings, database) as http:
        keys = {name: (await make_key(database, Scope.INGEST, Scope.SQL, tenant=name))[1] for name in names}
        for name, key in keys.items():
            events = [
                tool_call(server=f"server of {name}", tool=f"tool of {name}"),
                server_event(server=f"server of {name}"),
            ]
            assert (await http.post("/v1/events", json=events, headers=bearer(key))).json()["accepted"] == 2

        async def pry(name: str) -> None:
            others = set(keys) - {name}
            async with sql(http, keys[name]) as mcp:
                for view in sorted(TENANT_VIEWS):
                    for text in PRYING:
                        answer = json.dumps(await ask(mcp, "query", sql=text.format(view=view, name=name)))
                        assert not any(f"of {other}" in answer for other in others), (view, text)
                    found = await ask(mcp, "query", sql=f"SELECT tenant_id, server FROM {view}")
                    assert found["rows"] == [[name, f"server of {name}"]], view
                counted = await ask(mcp, "query", sql="SELECT count(*) FROM fct_tool_calls WHERE tenant_id = 'other'")
                assert counted["rows"] == [[1 if name == "other" else 0]]

        # At once, over the same few connections.
        await asyncio.gather(*(pry(name) for name in keys for _ in range(2)))


async def test_a_condition_is_not_asked_of_another_tenants_rows(
    settings: Settings, database: str, admin: Connection
) -> None:
    """A cheap condition would come first, and its error would tell, were the views no barriers."""
    async with service(settings, database) as http:
        _, other = await make_key(database, Scope.INGEST, tenant="other")
        _, mine = await make_key(database, Scope.INGEST, tenant="acme")
        for tool, key in (("(no regex", other), ("list", mine)):
            assert (await http.post("/v1/events", json=[tool_call(tool=tool)], headers=bearer(key))).status_code == 200
    await admin.execute(f"SET ROLE \"{ROLES.tenant}\"; SET hubscope.tenant = 'acme'")
    await admin.execute("SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off")
    for view in sorted(TENANT_VIEWS - {"dim_servers"}):
        assert await admin.fetchval(f"SELECT count(*) FROM tenant.{view} WHERE server ~ tool") == 0, view


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM analytics.fct_tool_calls",
        "SELECT * FROM raw.tool_calls",
        "SELECT * FROM rollup.tool_calls_hourly",
        "SELECT * FROM hub.api_keys",
        "SELECT * FROM hub.security_audit_log",
        "SELECT * FROM ops.job_runs",
        "SELECT set_config('hubscope.tenant', 'other', false)",
        "SELECT set_config('role', 'postgres', true)",
        "SELECT current_setting('hubscope.tenant')",
        "SET hubscope.tenant = 'other'",
        "SET LOCAL hubscope.tenant TO other; SELECT * FROM fct_tool_calls",
        "RESET ROLE",
        "COMMIT; SET hubscope.tenant = 'other'",
        "SELECT query_to_xml('SELECT set_config(''hubscope.tenant'', ''other'', true)', true, true, '')",
        "SELECT * FROM pg_settings",
        "SELECT * FROM pg_stats",
        "SELECT * FROM pg_stat_user_tables",
        "UPDATE pg_settings SET setting = 'other' WHERE name = 'hubscope.tenant'",
    ],
)
async def test_what_stands_behind_the_views_is_closed(text: str, settings: Settings, database: str) -> None:
    async with service(settings, database) as http:
        _, key = await make_key(database, Scope.SQL, tenant="acme")
        async with sql(http, key) as mcp:
            await refused(mcp, "query", sql=text)


async def test_plans_are_for_operators(settings: Settings, database: str) -> None:
    async with service(settings, database) as http:
        _, tenants = await make_key(database, Scope.SQL, tenant="acme")
        _, operators = await make_key(database, Scope.SQL, Scope.ADMIN, tenant="acme", name="ops")
        async with sql(http, tenants) as mcp:
            assert "scope admin" in await refused(mcp, "analyze_query", sql="SELECT * FROM fct_tool_calls")
        async with sql(http, operators) as mcp:
            await ask(mcp, "analyze_query", sql="SELECT * FROM fct_tool_calls")


async def test_the_role_itself_sees_nothing_but_the_views_and_no_row_without_a_tenant(
    client: httpx2.AsyncClient, database: str, admin: Connection
) -> None:
    """What holds if guard and policy do not."""
    await client.post("/v1/events", json=[tool_call(), server_event()])
    await admin.execute(f'SET ROLE "{ROLES.tenant}"')
    for view in TENANT_VIEWS:
        assert await admin.fetchval(f"SELECT count(*) FROM tenant.{view}") == 0
        await admin.execute("SET hubscope.tenant = 'default'")
        assert await admin.fetchval(f"SELECT count(*) FROM tenant.{view}") == 1
        await admin.execute("RESET hubscope.tenant")
        assert await admin.fetchval(f"SELECT count(*) FROM tenant.{view}") == 0


async def test_a_key_needs_the_scope_sql(settings: Settings, database: str) -> None:
    async with service(settings, database) as http:
        _, key = await make_key(database, Scope.READ, Scope.INGEST, Scope.ADMIN)
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert (await http.post("/sql/mcp", json=message)).status_code == 401
        answer = await http.post("/sql/mcp", json=message, headers=bearer(key))
        assert (answer.status_code, answer.json()["scope"]) == (403, "sql")


async def test_queries_and_refusals_are_in_the_audit_log_with_who_asked(
    settings: Settings, database: str, admin: Connection
) -> None:
    async with service(settings, database) as http:
        key_id, key = await make_key(database, Scope.SQL, tenant="acme", name="analyst")
        async with sql(http, key) as mcp:
            await ask(mcp, "query", sql="SELECT $1::int, 'password=hunter22'", params=[4711])
            await refused(mcp, "query", sql="DELETE FROM fct_tool_calls")
            await ask(mcp, "list_tables")
            await mcp.list_resources()
            await mcp.read_resource("postgres://schema/tenant")
    rows = await admin.fetch("SELECT * FROM hub.security_audit_log WHERE event_type <> 'sql_role' ORDER BY id")
    assert [(row["event_type"], row["action"], row["status"], row["severity"]) for row in rows] == [
        ("sql_query", "query", "success", "info"),
        ("sql_query", "query", "refused", "medium"),
        ("sql_catalogue", "list_tables", "success", "info"),
        ("sql_catalogue", "list_resources", "success", "info"),
        ("sql_catalogue", "read_resource", "success", "info"),
    ]
    for row in rows:
        assert (row["tenant_id"], row["actor"]) == ("acme", f"analyst ({key_id})")
        assert (row["address"], row["user_agent"], row["permissions"]) == ("127.0.0.1", "tester/1", ["sql"])
        assert (row["resource_type"], row["resource_id"]) == ("database", "hubscope")
        assert row["request_id"]
    first, second = (json.loads(row["details"]) for row in rows[:2])
    assert first["sql"] == "SELECT $1::int, 'password=[redacted]'"
    assert (first["params"], first["rows"], first["role"]) == (1, 1, ROLES.tenant)
    assert "4711" not in str(first)
    assert second["code"] == "query_refused"
    assert "DELETE is not allowed" in rows[1]["description"]
    role = await admin.fetchrow("SELECT * FROM hub.security_audit_log WHERE event_type = 'sql_role'")
    assert role is not None
    assert (role["status"], role["actor"], json.loads(role["details"])["findings"]) == ("clean", "hubscope", [])


async def test_without_an_audit_record_there_is_no_answer_where_that_is_wished(
    settings: Settings, database: str, admin: Connection
) -> None:
    wished = settings.model_copy(update={"audit_on_failure": "refuse", "audit_timeout_ms": 300})
    async with service(wished, database) as http:
        async with sql(http) as mcp:
            await ask(mcp, "query", sql="SELECT 1")
            assert await admin.fetchval("SELECT count(*) FROM hub.security_audit_log WHERE action = 'query'") == 1
            await admin.execute(
                "ALTER TABLE hub.security_audit_log ADD CONSTRAINT full_up CHECK (action = '') NOT VALID"
            )
            assert "without an audit record" in await refused(mcp, "query", sql="SELECT 2")
            assert "without an audit record" in await refused(mcp, "query", sql="SELECT 3")
        assert (await http.post("/v1/events", json=[tool_call()])).json()["accepted"] == 1  # ingest is not asked
        await admin.execute("ALTER TABLE hub.security_audit_log DROP CONSTRAINT full_up")


async def test_it_has_connections_of_its_own(
    settings: Settings, database: str, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBSCOPE_SQL_STORE_CONNECTIONS", "2")
    long = "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000) b"
    async with service(settings, database) as http, sql(http) as mcp:
        running = [asyncio.create_task(mcp.call_tool("query", {"sql": long})) for _ in range(5)]
        busy = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
            " AND application_name = 'hubscope sql' AND query LIKE '%generate_series(1, 100000000)%'"
        )
        await eventually(lambda: _counts(admin, busy, 2), "two do not run")
        assert (await http.post("/v1/events", json=[tool_call()])).json()["accepted"] == 1
        assert (await http.get("/api/v1/analytics")).status_code == 200
        text = (await http.get("/metrics")).text
        assert 'postgres_mcp_connections_active{database="hubscope"} 2.0' in text
        assert 'postgres_mcp_queries_waiting{database="hubscope"} 3.0' in text
        await admin.execute(busy.replace("count(*)", "pg_cancel_backend(pid)"))
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_health_tells_how_it_is_and_strangers_nothing(client: httpx2.AsyncClient) -> None:
    body = (await client.get("/health")).json()
    assert body["sql"]["hubscope"]["status"] == "connected"
    assert body["sql"]["hubscope"]["connection_pool"].keys() == {"total", "active", "idle"}
    assert "sql" not in (await client.get("/health", headers={"x-forwarded-for": "192.0.2.1"})).json()


async def test_a_database_that_is_named_is_served_instead(
    settings: Settings, database: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database)
    async with service(settings, database) as http, sql(http) as mcp:
        assert (await ask(mcp, "list_tables"))["tables"] == []
        assert (await ask(mcp, "query", sql="SELECT 1"))["rows"] == [[1]]
        assert (await http.get("/health")).json()["sql"].keys() == {"main"}


async def test_it_can_be_left_out(settings: Settings, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBSCOPE_SQL_IN_SERVICE", "false")
    async with service(settings, database) as http:
        assert (await http.post("/sql/mcp", json={})).status_code == 404
        assert "sql" not in (await http.get("/health")).json()


async def test_a_mistake_in_its_settings_ends_the_start(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READ_ONLY", "false")
    monkeypatch.setenv("DATABASE_URL", "postgresql://x@y/z")
    with pytest.raises(InvalidSetting, match="READ_ONLY is false"):
        async with held(asgi(app)):
            pass


async def test_tools_of_the_operators_own_are_served_too(
    settings: Settings, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hubscope.toml").write_text(
        "[tools.failures]\ndescription = 'Failed calls of a tool.'\n"
        "sql = \"SELECT count(*) FROM fct_tool_calls WHERE tool = $1 AND status = 'error'\"\n"
        "[tools.failures.params.name]\n"
    )
    monkeypatch.chdir(tmp_path)
    async with service(settings, database) as http:
        await http.post("/v1/events", json=[tool_call(tool="t", status="error"), tool_call(tool="t")])
        async with sql(http) as mcp:
            assert (await ask(mcp, "failures", name="t"))["rows"] == [[1]]


async def test_over_real_http_an_answer_comes_whole_and_leaving_ends_the_query(
    settings: Settings, database: str, admin: Connection
) -> None:
    listener = listen(settings.model_copy(update={"port": 0}))
    long = "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000) b"
    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
        " AND application_name = 'hubscope sql'"
    )
    async with (
        held(serving(settings, database, listener)) as (url, _),
        httpx2.AsyncClient(trust_env=False, timeout=30) as http,
        Client(streamable_http_client(f"{url}/sql/mcp", http_client=http)) as client,
    ):
        rows = (await ask(client, "query", sql="SELECT n, repeat('x', 500) FROM generate_series(1, 1000) AS n"))["rows"]
        assert len(rows) == 1_000
        call = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "query", "arguments": {"sql": long}},
        }
        headers = {"accept": "application/json, text/event-stream"}
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as leaver:
            request = asyncio.create_task(leaver.post(f"{url}/sql/mcp", json=call, headers=headers))
            await eventually(lambda: _counts(admin, busy, 1), "it does not run")
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        await eventually(lambda: _counts(admin, busy, 0), "the server still runs it")
    listener.close()
    row = await admin.fetchrow("SELECT * FROM hub.security_audit_log WHERE status = 'cancelled'")
    assert row is not None
    assert row["actor"] == "this machine"


async def _counts(admin: Connection, sql: str, count: int) -> bool:
    return bool(await admin.fetchval(sql) == count)
