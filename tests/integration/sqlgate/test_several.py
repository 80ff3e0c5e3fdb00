"""Several databases in one server: asked by name, each under its own policy, none in the way of another."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import ResourceTemplateReference
from prometheus_client.parser import text_string_to_metric_families

from hubscope.entrypoints.sql_lines import Lines
from hubscope.entrypoints.sql_mcp import build, opened
from hubscope.entrypoints.sql_server import SqlServer
from hubscope.entrypoints.sql_tools import load
from hubscope.errors import InvalidSetting
from hubscope.sqlgate import Gate, Limits, Policy, Served
from tests.conftest import held
from tests.integration.sqlgate.conftest import POLICY, Canary, gate_to
from tests.integration.sqlgate.test_sql_mcp import ask, lines

AWAY = "postgresql://nobody@127.0.0.1:1/x"


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
async def several(sample: str, database: str, log: io.StringIO) -> AsyncIterator[SqlServer]:
    """The sample, hubscope's store (its marts only), and one that is away."""
    gates = {
        "sample": Gate(Served(sample, POLICY, Limits())),
        "store": Gate(
            Served(database, Policy(allowed_schemas=("analytics",), view_schemas=frozenset({"raw"})), Limits())
        ),
        "gone": Gate(Served(AWAY, Policy(), Limits(connection_timeout_ms=300))),
    }
    async with held(opened(SqlServer(gates, Lines(log)))) as server:
        yield server


@pytest.fixture
async def mcp(several: SqlServer) -> AsyncIterator[Client]:
    async with held(Client(build(several))) as client:
        yield client


async def test_the_database_is_an_argument_with_the_names_that_there_are(mcp: Client, sample: str) -> None:
    for tool in (await mcp.list_tools()).tools:
        database = tool.input_schema["properties"]["database"]
        (names,) = (each["enum"] for each in database["anyOf"] if "enum" in each)
        assert names == ["sample", "store", "gone"]
        assert "sample when left away" in database["description"]
        assert "database" not in tool.input_schema.get("required", [])
    async with gate_to(sample) as gate, Client(build(SqlServer({"main": gate}, Lines(io.StringIO())))) as single:
        for tool in (await single.list_tools()).tools:
            assert "database" not in tool.input_schema["properties"]


async def test_each_is_asked_by_its_name_under_its_own_policy(mcp: Client, log: io.StringIO) -> None:
    assert (await ask(mcp, "query", sql="SELECT count(*) FROM users"))["rows"] == [[20]]
    assert (await ask(mcp, "query", sql="SELECT count(*) FROM users", database="sample"))["rows"] == [[20]]
    assert (await ask(mcp, "query", sql="SELECT count(*) FROM analytics.fct_tool_calls", database="store"))["rows"] == [
        [0]
    ]
    assert (await mcp.call_tool("query", {"sql": "SELECT * FROM users", "database": "store"})).is_error
    assert (await mcp.call_tool("query", {"sql": "SELECT * FROM analytics.fct_tool_calls"})).is_error
    assert (await mcp.call_tool("query", {"sql": "SELECT 1", "database": "nope"})).is_error
    listed = await ask(mcp, "list_tables", database="store")
    assert "fct_tool_calls" in {table["name"] for table in listed["tables"]}
    assert (await ask(mcp, "describe_table", table_name="users", database="sample"))["name"] == "users"
    assert (await ask(mcp, "analyze_query", sql="SELECT 1", database="store"))["total_cost"] >= 0
    served = [(line["served"], line["outcome"]) for line in lines(log) if line.get("tool") == "query"]
    assert served == [
        ("sample", "success"),
        ("sample", "success"),
        ("store", "success"),
        ("store", "refused"),
        ("sample", "refused"),
    ]


async def test_one_that_is_away_leaves_the_others_working(mcp: Client, several: SqlServer) -> None:
    answer = await mcp.call_tool("query", {"sql": "SELECT 1", "database": "gone"})
    assert answer.is_error
    assert "nothing listens there" in answer.content[0].text  # type: ignore[union-attr]
    assert (await ask(mcp, "query", sql="SELECT 1"))["rows"] == [[1]]
    status, body = await several.health()
    assert (status, body["status"], body["database"]) == (200, "degraded", "connected")
    states = {name: state["status"] for name, state in body["databases"].items()}
    assert states == {"sample": "connected", "store": "connected", "gone": "disconnected"}
    samples = {
        (sample.name, sample.labels.get("database"), sample.labels.get("status")): sample.value
        for family in text_string_to_metric_families((await several.metrics()).decode())
        for sample in family.samples
    }
    assert samples["postgres_mcp_database_connected", "sample", None] == 1
    assert samples["postgres_mcp_database_connected", "gone", None] == 0
    assert samples["postgres_mcp_queries_total", "gone", "error"] == 1
    assert samples["postgres_mcp_queries_total", "sample", "success"] == 1
    assert samples["postgres_mcp_connections_idle", "gone", None] == 0


async def test_resources_of_all_are_listed_and_the_default_keeps_its_addresses(mcp: Client) -> None:
    uris = {str(resource.uri) for resource in (await mcp.list_resources()).resources}
    assert {"postgres://table/public/users", "postgres://store/table/analytics/fct_tool_calls"} <= uris
    assert not {uri for uri in uris if uri.startswith("postgres://gone")}
    assert len((await mcp.list_resource_templates()).resource_templates) == 12

    async def name_of(uri: str) -> Any:
        return json.loads((await mcp.read_resource(uri)).contents[0].text)["name"]  # type: ignore[union-attr]

    assert await name_of("postgres://table/public/users") == "users"
    assert await name_of("postgres://sample/table/public/users") == "users"
    assert await name_of("postgres://store/table/analytics/fct_tool_calls") == "fct_tool_calls"
    for closed in (
        "postgres://store/table/public/users",
        "postgres://gone/schema/public",
        "postgres://x/schema/public",
    ):
        with pytest.raises(MCPError):
            await mcp.read_resource(closed)
    ref = ResourceTemplateReference(uri="postgres://store/table/{schema_name}/{table_name}")
    found = await mcp.complete(ref, {"name": "schema_name", "value": ""})
    assert found.completion.values == ["analytics"]


async def test_a_tool_of_ones_own_names_its_database(
    several: SqlServer, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "[tools.calls]\ndescription = 'x'\nsql = 'SELECT count(*) FROM analytics.fct_tool_calls'\ndatabase = 'store'\n"
    )
    (tmp_path / "hubscope.toml").write_text(text)
    async with Client(build(several, load(several.gates))) as client:
        assert (await ask(client, "calls"))["rows"] == [[0]]
    (tmp_path / "hubscope.toml").write_text(text.replace("'store'", "'nowhere'"))
    with pytest.raises(InvalidSetting, match="names the database 'nowhere'; there are: sample, store, gone"):
        load(several.gates)
