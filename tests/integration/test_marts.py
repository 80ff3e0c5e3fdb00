"""Live marts: there before dbt, and the same as dbt's."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubscope.errors import JobFailed
from hubscope.marts import dbt_environment, install_live_marts, live_marts
from hubscope.store import Connection
from tests.conftest import ROLES

pytestmark = [pytest.mark.store, pytest.mark.integration]


def model(folder: Path, name: str, text: str) -> None:
    (folder / "models" / "marts" / "analytics").mkdir(parents=True, exist_ok=True)
    (folder / "models" / "marts" / "analytics" / f"{name}.sql").write_text(text)


async def test_every_live_mart_exists_after_migration_and_is_readable(reader: Connection) -> None:
    assert {mart.name for mart in live_marts()} == {
        "database_job_errors", "dim_servers", "fct_tool_call_totals", "fct_tool_calls", "fct_tool_latency_daily",
        "fct_tool_latency_hourly", "fct_tool_usage_daily_live", "fct_tool_usage_hourly", "job_status", "mart_status",
    }  # fmt: skip
    for mart in live_marts():
        await reader.fetch(f"SELECT * FROM {mart.schema}.{mart.name}")


async def test_installing_again_changes_nothing(admin: Connection) -> None:
    assert await install_live_marts(admin, ROLES) == []


async def test_a_live_mart_that_is_gone_or_changed_is_made_again(admin: Connection, reader: Connection) -> None:
    await admin.execute("DROP VIEW analytics.mart_status CASCADE")
    await admin.execute("UPDATE ops.definitions SET checksum = 'old' WHERE name = 'mart:analytics.dim_servers'")
    assert sorted(await install_live_marts(admin, ROLES)) == ["dim_servers", "mart_status"]
    assert await reader.fetchval("SELECT count(*) FROM analytics.mart_status") == 1


async def test_a_live_mart_whose_columns_changed_is_replaced(admin: Connection, reader: Connection) -> None:
    await admin.execute(f"SET ROLE {ROLES.worker}")
    await admin.execute("DROP VIEW analytics.dim_servers; CREATE VIEW analytics.dim_servers AS SELECT 1 AS other")
    await admin.execute("RESET ROLE")
    await admin.execute("UPDATE ops.definitions SET checksum = 'old' WHERE name = 'mart:analytics.dim_servers'")
    assert await install_live_marts(admin, ROLES) == ["dim_servers"]
    assert await reader.fetch("SELECT server FROM analytics.dim_servers") == []


def test_live_marts_come_after_those_they_refer_to(tmp_path: Path) -> None:
    model(tmp_path, "a", "{{ config(materialized='view', tags=['live']) }} select * from {{ ref('b') }}")
    model(tmp_path, "b", "{{ config(materialized='view', tags=['live']) }} select 1 from {{ source('raw', 't') }}")
    model(tmp_path, "c", "select 1")
    assert [(mart.name, mart.sql) for mart in live_marts(tmp_path)] == [
        ("b", "select 1 from raw.t"),
        ("a", "select * from analytics.b"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("select {{ my_macro() }}", "nothing of dbt but"),
        ("{% if x %} select 1 {% endif %}", "nothing of dbt but"),
        ("select * from {{ ref('c') }}", "which is no live mart"),
        ("select * from {{ ref('a') }}", "in a circle"),
    ],
)
def test_a_live_mart_may_use_only_what_can_be_read_without_dbt(tmp_path: Path, text: str, words: str) -> None:
    model(tmp_path, "a", "{{ config(materialized='view', tags=['live']) }} " + text)
    with pytest.raises(JobFailed, match=words):
        live_marts(tmp_path)


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        (
            "postgresql://ann:p%40ss@db.example:6000/hub%20s?sslmode=require",
            {"HOST": "db.example", "PORT": "6000", "USER": "ann", "PASSWORD": "p@ss", "DATABASE": "hub s",
             "SSLMODE": "require"},
        ),
        (
            "postgresql://postgres@/hubscope?host=%2Frun%2Fpg&port=5432",
            {"HOST": "/run/pg", "PORT": "5432", "USER": "postgres", "PASSWORD": "", "DATABASE": "hubscope"},
        ),
    ],
)  # fmt: skip
def test_dbt_is_told_the_same_address(dsn: str, expected: dict[str, str]) -> None:
    environment = dbt_environment(dsn, "role")
    assert (
        expected.items() <= {name.removeprefix("HUBSCOPE_DBT_"): value for name, value in environment.items()}.items()
    )
