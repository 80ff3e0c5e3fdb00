"""The dashboards are what their sources say, and every panel runs, reads only marts and says what it shows."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import promql_parser
import pytest
import yaml

from grafana.source import artefacts

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = {path: json.loads(path.read_text()) for path in sorted((ROOT / "grafana" / "dashboards").glob("*.json"))}
DATASOURCES = yaml.safe_load((ROOT / "grafana" / "provisioning" / "datasources" / "hubscope.yml").read_text())
MART_SCHEMAS = {"analytics", "health", "uptime", "audit"}

# What a macro of Grafana's PostgreSQL data source becomes; its arguments end at the first `)`.
MACRO = re.compile(r"\$(__\w+)\(([^)]*)\)")
FROM, TO = "'2026-01-01T10:20:00Z'", "'2026-01-02T10:20:00Z'"
SELECTIONS = {
    "one tenant and two servers": {"tenant": "'acme'", "server": "'files','it''s'"},
    "a database without a server": {"tenant": "''", "server": ""},
}


class Panel(NamedTuple):
    """One panel of one dashboard; `str()` names it in the test's id."""

    dashboard: str
    model: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.model['title']}"

    def queries(self, key: str) -> list[str]:
        """The texts of its targets under `key`: rawSql or expr."""
        return [target[key] for target in self.model["targets"] if key in target]

    def overrides(self) -> dict[str, dict[str, Any]]:
        """Its field overrides by column: property to value."""
        found = self.model.get("fieldConfig", {}).get("overrides", [])
        return {
            override["matcher"]["options"]: {each["id"]: each.get("value") for each in override["properties"]}
            for override in found
        }


PANELS = [Panel(path.stem, model) for path, board in DASHBOARDS.items() for model in board["panels"]]
SQL_PANELS = [panel for panel in PANELS if panel.queries("rawSql")]
PROMQL_PANELS = [panel for panel in PANELS if panel.queries("expr")]
VARIABLES = {
    f"{path.stem}: {variable['name']}": variable["query"]
    for path, board in DASHBOARDS.items()
    for variable in board["templating"]["list"]
}


def expand(sql: str, selection: dict[str, str]) -> str:
    """What Grafana sends: macros and `${name:sqlstring}` variables replaced.

    Raises:
        KeyError: the SQL uses a macro or a variable that this expander does not know.
    """

    def macro(match: re.Match[str]) -> str:
        name, arguments = match[1], [each.strip() for each in match[2].split(",")]
        column = arguments[0]
        group = f"floor(extract(epoch from {column})/3600)*3600"
        return {
            "__timeFrom": FROM,
            "__timeTo": TO,
            "__timeFilter": f"{column} BETWEEN {FROM} AND {TO}",
            "__timeGroup": group,
            "__timeGroupAlias": f'{group} AS "time"',
        }[name]

    filled = re.sub(r"\$\{(\w+):sqlstring\}", lambda match: selection[match[1]], sql)
    expanded = MACRO.sub(macro, filled)
    if "$" in expanded:
        raise KeyError(f"not expanded: {expanded[expanded.index('$') :][:40]}")
    return expanded


def relations(sql: str) -> set[str]:
    """The relations that a statement reads, without its own CTEs."""
    own = set(re.findall(r"(\w+) AS \(\s*SELECT", sql))
    return set(re.findall(r"\b(?:FROM|JOIN)\s+([\w.]+)", sql)) - own


def test_the_committed_dashboards_are_what_the_sources_build() -> None:
    assert artefacts.stale() == [], "run `make dashboards`"


def test_a_stale_a_missing_and_an_orphaned_file_are_each_named(tmp_path: Path) -> None:
    artefacts.write(tmp_path)
    assert artefacts.stale(tmp_path) == []
    (tmp_path / "orphan.json").write_text("{}")
    (tmp_path / "hubscope-tool-usage.json").write_text("{}")
    assert artefacts.stale(tmp_path) == ["hubscope-tool-usage.json", "orphan.json"]
    assert artefacts.write(tmp_path) == ["hubscope-tool-usage.json", "orphan.json"]
    assert artefacts.stale(tmp_path) == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_a_classic_model_that_is_named_like_its_file(path: Path) -> None:
    board = DASHBOARDS[path]
    assert board["uid"] == path.stem
    assert board["schemaVersion"] == 42
    identities = [panel["id"] for panel in board["panels"]]
    assert sorted(set(identities)) == sorted(identities)


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_asks_only_data_sources_that_are_provisioned(panel: Panel) -> None:
    named = [panel.model["datasource"], *(target["datasource"] for target in panel.model["targets"])]
    provisioned = {(source["uid"], source["type"]) for source in DATASOURCES["datasources"]}
    assert {(source["uid"], source["type"]) for source in named} <= provisioned


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_says_its_grain_its_unit_and_its_source(panel: Panel) -> None:
    description = panel.model["description"]
    assert re.search(r"\bUnits?: ", description)
    assert "one row per" in description.lower() or "one row." in description or "one series per" in description
    for sql in panel.queries("rawSql"):
        assert relations(sql) <= set(re.findall(r"[\w.]+\w", description))
    for expression in panel.queries("expr"):
        assert set(re.findall(r"\b(?:hub|hubscope)_\w+", expression)) <= set(description.split())


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_has_a_unit(panel: Panel) -> None:
    defaults = panel.model.get("fieldConfig", {}).get("defaults", {})
    assert "unit" in defaults or any("unit" in properties for properties in panel.overrides().values())


@pytest.mark.parametrize("panel", SQL_PANELS, ids=str)
def test_a_panel_reads_only_marts(panel: Panel) -> None:
    for sql in panel.queries("rawSql"):
        assert relations(sql)
        assert {relation.partition(".")[0] for relation in relations(sql)} <= MART_SCHEMAS


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("panel", SQL_PANELS, ids=str)
async def test_the_sql_of_a_panel_runs_as_the_reader(
    reader: asyncpg.Connection, panel: Panel, selection: dict[str, str]
) -> None:
    for sql in panel.queries("rawSql"):
        await reader.fetch(expand(sql, selection))


@pytest.mark.parametrize("panel", SQL_PANELS, ids=str)
async def test_the_columns_of_a_panel_are_the_ones_it_formats(reader: asyncpg.Connection, panel: Panel) -> None:
    (sql,) = panel.queries("rawSql")
    prepared = await reader.prepare(expand(sql, SELECTIONS["one tenant and two servers"]))
    columns = {column.name: column.type.name for column in prepared.get_attributes()}
    assert panel.overrides().keys() <= columns.keys()
    numbers = {
        name for name, kind in columns.items() if kind in ("int2", "int4", "int8", "float4", "float8", "numeric")
    }
    has_unit = {name for name, properties in panel.overrides().items() if "unit" in properties}
    assert numbers <= has_unit or "unit" in panel.model["fieldConfig"]["defaults"]
    if panel.model["targets"][0]["format"] == "time_series":
        assert columns["time"] == "timestamptz"
        assert re.search(r"ORDER BY hour$", sql)


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("sql", VARIABLES.values(), ids=VARIABLES)
async def test_the_sql_of_a_variable_gives_one_column_of_text(
    reader: asyncpg.Connection, sql: str, selection: dict[str, str]
) -> None:
    prepared = await reader.prepare(expand(sql, selection))
    assert [column.type.name for column in prepared.get_attributes()] == ["text"]
    await prepared.fetch()


@pytest.mark.parametrize("panel", PROMQL_PANELS, ids=str)
def test_the_promql_of_a_panel_parses(panel: Panel) -> None:
    for expression in panel.queries("expr"):
        promql_parser.parse(expression.replace("$__rate_interval", "1m"))
