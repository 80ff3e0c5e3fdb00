"""list_tables, describe_table and analyze_query over the sample schema."""

from __future__ import annotations

from typing import Any

import pytest

from hubscope.errors import HubscopeError, QueryRefused
from hubscope.sqlgate import Gate, Policy
from hubscope.sqlgate.catalogue import describe_table, list_tables
from hubscope.sqlgate.explain import analyze
from tests.integration.sqlgate.conftest import Canary, gate_to
from tests.sql_corpus import ATTACKS, ATTACKS_BY_NAME, LEGITIMATE, SECRET

CLOSED = {"secrets", "secrets_child", "innocent", "nested", "kept", "over_private", "system_view"}


async def test_list_tables_tells_what_may_be_read_and_no_more(gate: Gate) -> None:
    answer = await list_tables(gate, "public")
    by_name = {table.name: table for table in answer.tables}
    assert {"users", "orders", "customer_summary", "readings"} <= by_name.keys()
    assert not CLOSED & by_name.keys()
    assert "readings_2025" not in by_name
    users = by_name["users"]
    assert (users.kind, users.row_estimate, users.owner) == ("table", 20, "postgres")
    assert "SELECT" in users.privileges
    assert (by_name["readings"].kind, by_name["readings"].partitions) == ("partitioned table", 1)
    assert by_name["customer_summary"].kind == "view"
    assert answer.schemas == ["public"]


@pytest.mark.parametrize("schema", ["private", "pg_catalog", "nothing"])
async def test_a_schema_that_is_closed_and_one_that_is_not_there_read_alike(gate: Gate, schema: str) -> None:
    with pytest.raises(QueryRefused, match=f"the schema {schema} does not exist or is not served"):
        await list_tables(gate, schema)


async def test_describe_table_tells_everything_about_a_table(gate: Gate, canary: Canary) -> None:
    await canary.connection.execute("COMMENT ON TABLE orders IS 'what was bought'")
    await canary.connection.execute("COMMENT ON COLUMN orders.status IS 'paid or cancelled'")
    orders = await describe_table(gate, "orders", "public")
    columns = {column.name: column for column in orders.columns}
    assert orders.comment == "what was bought"
    assert columns["status"].comment == "paid or cancelled"
    assert (columns["total_amount"].type, columns["total_amount"].nullable) == ("numeric(12,2)", False)
    assert columns["status"].distinct_estimate == 2
    assert [(c.kind, c.columns) for c in orders.constraints] == [("primary key", ["id"])]
    assert {(k.to_table, *k.columns) for k in orders.foreign_keys} == {("users", "user_id"), ("products", "product_id")}
    assert {index.name for index in orders.indexes} == {"orders_pkey", "orders_by_user"}
    assert orders.statistics is not None
    assert orders.statistics.live_rows is not None
    users = await describe_table(gate, "users", None)
    assert [(key.table_name, key.to_columns) for key in users.referenced_by] == [("orders", ["id"])]
    assert ("unique", ["email"]) in [(c.kind, c.columns) for c in users.constraints]
    view = await describe_table(gate, "customer_summary", None)
    assert "LEFT JOIN orders" in (view.definition or "")
    readings = await describe_table(gate, "readings", None)
    assert readings.partition_key == "RANGE (taken)"
    assert len(readings.partitions) == 1
    assert (await describe_table(gate, "readings_2025", None)).partition_of == "readings"


async def test_what_is_closed_is_not_described(gate: Gate) -> None:
    said = set()
    for name in (*sorted(CLOSED), "zzzzzzz"):
        with pytest.raises(QueryRefused) as refused:
            await describe_table(gate, name, None)
        assert not any(f"public.{each} is" in refused.value.detail for each in CLOSED)
        said.add(refused.value.detail.replace(name, "NAME").partition(";")[0])
    assert said == {"the relation NAME does not exist or is not served"}


async def test_a_foreign_key_to_a_closed_table_is_not_told(sample: str) -> None:
    async with gate_to(sample, Policy(blocked_tables=frozenset({"users"}))) as gate:
        orders = await describe_table(gate, "orders", None)
        assert [key.to_table for key in orders.foreign_keys] == ["products"]


async def test_a_plan_is_made_without_running_the_query(gate: Gate, canary: Canary) -> None:
    before = await canary.state()
    for sql in LEGITIMATE:
        assert (await analyze(gate, sql)).plan
    assert await canary.state() == before
    answer = await analyze(
        gate, "SELECT u.*, COUNT(o.id) FROM users u LEFT JOIN orders o ON u.id = o.user_id GROUP BY u.id"
    )
    assert answer.total_cost > 0
    assert answer.reads == ["public.orders", "public.users"]
    assert answer.joins[0].condition == "(o.user_id = u.id)"
    # A query that would not end is planned at once.
    await analyze(gate, "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000) b")


async def test_what_may_not_run_may_not_be_planned(gate: Gate) -> None:
    for corpus in (ATTACKS, ATTACKS_BY_NAME):
        for texts in corpus.values():
            for sql in texts:
                with pytest.raises(QueryRefused) as refused:
                    await analyze(gate, sql)
                assert SECRET not in refused.value.detail


@pytest.mark.parametrize("params", [None, [7]])
async def test_an_index_is_advised_where_a_large_table_is_read_whole_for_few_rows(
    gate: Gate, canary: Canary, params: list[Any] | None
) -> None:
    await canary.connection.execute(
        "CREATE TABLE big AS SELECT g AS id, g % 5000 AS who, 'x' || g AS what FROM generate_series(1, 50000) AS g;"
        " ANALYZE big"
    )
    answer = await analyze(gate, "SELECT * FROM big WHERE who = $1", params)
    advice = next(each for each in answer.suggestions if each.kind == "index")
    assert advice.suggestion == "CREATE INDEX ON public.big (who)"
    assert "about 10 of 50000 rows are kept; no index begins with who" in advice.evidence
    assert "public.big is read whole (about 50000 rows)" in answer.warnings
    await canary.connection.execute("CREATE INDEX big_who ON big (who)")
    answer = await analyze(gate, "SELECT * FROM big WHERE who = $1", params)
    assert answer.indexes_used == ["big_who"]
    assert [each for each in answer.suggestions if each.kind == "index"] == []


async def test_a_cross_join_and_a_table_without_statistics_are_warned_of(gate: Gate, canary: Canary) -> None:
    await canary.connection.execute("CREATE TABLE fresh (id int)")
    answer = await analyze(gate, "SELECT * FROM users, orders, fresh")
    assert any("cross join" in warning for warning in answer.warnings)
    assert any("public.fresh was never analyzed" in warning for warning in answer.warnings)
    assert any(each.suggestion == "ANALYZE public.fresh" for each in answer.suggestions)


async def test_a_mistake_in_a_planned_query_is_one_line(gate: Gate) -> None:
    with pytest.raises(HubscopeError, match='column "nme" does not exist at line 1, column 8'):
        await analyze(gate, "SELECT nme FROM users")
