"""The house style: how a number, a table and a curve look on every hubscope dashboard."""

from typing import NamedTuple

from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import dashboard as classic
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.models import common, dashboard

from grafana.source.queries import POSTGRES, SqlQuery

# One colour, one meaning: the statuses of a call, the states of a server, the outcomes of an event.
STATUS = {"ok": "green", "error": "red", "timeout": "orange", "cancelled": "blue", "denied": "purple"}
STATE = {"up": "green", "degraded": "orange", "down": "red", "maintenance": "blue", "unknown": "text"}
OUTCOME = {"accepted": "green", "duplicate": "blue", "rejected": "red"}


class Column(NamedTuple):
    """How one column of a result is shown. `unit` is one of Grafana's unit ids; `steps` are (from, colour) pairs."""

    name: str
    unit: str | None = None
    steps: tuple[tuple[float | None, str], ...] = ()
    colours: dict[str, str] | None = None
    decimals: int | None = None


def number(sql: str, *columns: Column) -> stat.Panel:
    """One row of numbers, each column large and by itself."""
    panel = (
        stat.Panel()
        .with_target(SqlQuery(sql))
        .datasource(POSTGRES)
        .reduce_options(build.ReduceDataOptions().calcs(["lastNotNull"]).fields("/.*/"))
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .thresholds(thresholds(((None, "text"),)))
        .height(4)
    )
    if len(columns) == 1:
        panel.text_mode(common.BigValueTextMode.VALUE)
    for column in columns:
        panel.override_by_name(column.name, properties(column))
    return panel


def rows(sql: str, *columns: Column) -> table.Panel:
    """A table whose rows come ordered from the query."""
    panel = table.Panel().with_target(SqlQuery(sql)).datasource(POSTGRES).filterable(True).height(10)
    for column in columns:
        coloured = [dashboard.DynamicConfigValue(id_val="custom.cellOptions", value=common.TableColorTextCellOptions())]
        panel.override_by_name(column.name, properties(column) + (coloured if column.steps or column.colours else []))
    return panel


def curves(unit: str, colours: dict[str, str]) -> timeseries.Panel:
    """Series over time with a legend below and one tooltip for all; each named series has its colour."""
    panel = (
        timeseries.Panel()
        .unit(unit)
        .min(0)
        .legend(build.VizLegendOptions().show_legend(True))
        .tooltip(build.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        .line_width(2)
        .height(8)
        .span(12)
    )
    for name, colour in colours.items():
        panel.override_by_name(name, [fixed(colour)])
    return panel


def properties(column: Column) -> list[dashboard.DynamicConfigValue]:
    """The field overrides that make a column look as described."""
    found = []
    if column.unit is not None:
        found.append(dashboard.DynamicConfigValue(id_val="unit", value=column.unit))
    if column.decimals is not None:
        found.append(dashboard.DynamicConfigValue(id_val="decimals", value=column.decimals))
    if column.steps:
        found.append(dashboard.DynamicConfigValue(id_val="thresholds", value=thresholds(column.steps).build()))
    if column.colours:
        texts = {
            value: dashboard.ValueMappingResult(text=value, color=colour, index=index)
            for index, (value, colour) in enumerate(column.colours.items())
        }
        found.append(dashboard.DynamicConfigValue(id_val="mappings", value=[dashboard.ValueMap(options=texts)]))
    return found


def thresholds(steps: tuple[tuple[float | None, str], ...]) -> classic.ThresholdsConfig:
    """Absolute thresholds; the first step starts at None, which is minus infinity."""
    return classic.ThresholdsConfig().steps([dashboard.Threshold(value=value, color=colour) for value, colour in steps])


def fixed(colour: str) -> dashboard.DynamicConfigValue:
    """The override that gives a series one colour."""
    return dashboard.DynamicConfigValue(id_val="color", value={"fixedColor": colour, "mode": "fixed"})
