"""What a panel asks: SQL over the marts, or PromQL. The SQL is kept in `.sql` files, in `-- name:` blocks."""

import re
from pathlib import Path
from typing import Literal

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import DataSourceRef

# The uids are given by grafana/provisioning/datasources/hubscope.yml.
POSTGRES = DataSourceRef(type_val="grafana-postgresql-datasource", uid="hubscope-postgres")
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="hubscope-prometheus")


class SqlQuery(Builder[Dataquery], Dataquery):
    """One SQL statement for the PostgreSQL data source, which the SDK has no model of. It is its own builder.

    Args:
        sql: the statement. An argument of a Grafana macro cannot contain `)`.
        shape: `time_series` needs a column `time` in ascending order; its other columns become the series.
    """

    def __init__(self, sql: str, shape: Literal["table", "time_series"] = "table") -> None:
        self.sql = sql
        self.shape = shape

    def build(self) -> "SqlQuery":
        return self

    def to_json(self) -> dict[str, object]:
        return {
            "datasource": POSTGRES,
            "editorMode": "code",
            "format": self.shape,
            "rawQuery": True,
            "rawSql": self.sql,
            "refId": "A",
        }


def promql(expression: str, legend: str) -> prometheus.Dataquery:
    """A range query for Prometheus; `legend` is a template such as `{{outcome}}`."""
    return prometheus.Dataquery().datasource(PROMETHEUS).ref_id("A").range().expr(expression).legend_format(legend)


def load(path: Path) -> dict[str, str]:
    """The `-- name: some_name` blocks of a SQL file, by name.

    Raises:
        ValueError: a name is given twice.
    """
    _, *parts = re.split(r"^-- name: (\w+)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    names, blocks = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{path.name} gives a name to two queries")
    return {name: block.strip() for name, block in zip(names, blocks, strict=True)}
