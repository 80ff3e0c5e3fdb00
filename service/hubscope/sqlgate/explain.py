"""analyze_query: the plan of a query that is not run, and what can be learnt from it.

The plan comes from EXPLAIN of the same guarded text, prepared, in the same kind of transaction; never ANALYZE. Every
suggestion says what it was drawn from: the plan's node, the estimated rows, the statistics of the table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from hubscope.errors import QueryRefused
from hubscope.sqlgate.guard import Inspected
from hubscope.sqlgate.policy import QUERIES
from hubscope.sqlgate.run import Gate, failed, typed_query
from hubscope.sqlgate.values import as_parameter

LARGE_TABLE_ROWS: Final = 10_000
SELECTIVE: Final = 0.1
"""A scan that keeps less than this share of a large table's rows would rather use an index."""

_COLUMN: Final = re.compile(r'(?:\b(\w+)|"([^"]+)")(?:::\w+(?: \w+)*)?\)* (=|<|>|<=|>=|@>|&&|~~) ')
_QUALIFIED: Final = re.compile(r"\b(\w+)\.(\w+)\b")


@dataclass(frozen=True)
class Node:
    """One step of the plan, flattened; `depth` is its indentation."""

    depth: int
    operation: str
    relation: str | None
    index: str | None
    condition: str | None
    estimated_rows: float
    startup_cost: float
    total_cost: float


@dataclass(frozen=True)
class Join:
    """How two sides are brought together, and why that is good or not."""

    strategy: str
    condition: str | None
    estimated_rows: float
    insight: str


@dataclass(frozen=True)
class Advice:
    """A suggestion and what it was drawn from.

    Attributes:
        kind: index, query, statistics.
        suggestion: what to do; for an index the statement that a person with the right could run.
        evidence: the plan's node and the numbers.
    """

    kind: str
    suggestion: str
    evidence: str


@dataclass(frozen=True)
class Analysis:
    """The answer of analyze_query. Costs are the planner's unit (one sequential page read is 1)."""

    estimated_rows: float
    total_cost: float
    startup_cost: float
    reads: list[str]
    plan: list[Node]
    joins: list[Join]
    indexes_used: list[str]
    warnings: list[str]
    suggestions: list[Advice]
    raw_plan: dict[str, Any]


async def analyze(gate: Gate, sql: str, parameters: Sequence[Any] | None = None, *, client: str = "") -> Analysis:
    """Plan a query without running it.

    Args:
        parameters: values of $1 ...; without them the plan is the generic one, made for values that are not known.

    Raises:
        QueryRefused, QueryFailed, QueryTimedOut, DatabaseAway: as `Gate.query`.
    """
    inspected = await gate.checked(sql)
    async with gate.deadline(client), gate.borrowed() as connection:
        approved = await gate.approve(connection, sql, inspected)
        raw = await _plan(connection, inspected, parameters)
        plan = raw["Plan"]
        tables = await _tables(connection, plan)
    nodes = list(_flatten(plan))
    return Analysis(
        estimated_rows=plan["Plan Rows"],
        total_cost=plan["Total Cost"],
        startup_cost=plan["Startup Cost"],
        reads=list(approved.reads),
        plan=[node for node, _ in nodes],
        joins=[_join(raw_node) for _, raw_node in nodes if _is_join(raw_node)],
        indexes_used=sorted({node.index for node, _ in nodes if node.index}),
        warnings=_warnings(nodes, tables),
        suggestions=_suggestions(nodes, tables, inspected),
        raw_plan=raw,
    )


async def _plan(
    connection: asyncpg.Connection, inspected: Inspected, parameters: Sequence[Any] | None
) -> dict[str, Any]:
    try:
        text, wanted = await typed_query(connection, inspected)
        if parameters is not None and len(parameters) != len(wanted):
            raise QueryRefused(f"the query has {len(wanted)} parameters, params has {len(parameters)} values")
        if parameters is None and wanted:
            # Without values: every parameter unknown, as text that is cast. NULL would make the planner too clever.
            text = re.sub(r"\(\(\$\d+\)::pg_catalog\.text", "((SELECT ''::pg_catalog.text)", text)
            arguments: list[str | None] = []
        else:
            arguments = [
                as_parameter(value, f"params[{i}]", each.name, each.kind)
                for i, (value, each) in enumerate(zip(parameters or (), wanted, strict=True))
            ]
        told = await connection.fetchval(f"EXPLAIN (FORMAT JSON, VERBOSE) {text}", *arguments)
    except asyncpg.QueryCanceledError:
        raise
    except asyncpg.PostgresError as error:
        raise failed(error, inspected.sql) from error
    plan: dict[str, Any] = json.loads(told)[0]
    return plan


async def _tables(connection: asyncpg.Connection, plan: dict[str, Any]) -> dict[str, Any]:
    """Rows, columns with their statistics and leading index columns of each table of the plan, by `schema.name`."""
    named = {(n["Schema"], n["Relation Name"]) for _, n in _flatten(plan) if "Relation Name" in n and "Schema" in n}
    if not named:
        return {}
    schemas, names = zip(*sorted(named), strict=True)
    rows = await connection.fetch(QUERIES["advice_tables"], list(schemas), list(names))
    return {f"{row['schema']}.{row['name']}": row for row in rows}


def _flatten(plan: dict[str, Any], depth: int = 0) -> Iterator[tuple[Node, dict[str, Any]]]:
    stack = [(plan, depth)]
    while stack:
        raw, level = stack.pop()
        relation = raw.get("Relation Name")
        if relation is not None and "Schema" in raw:
            relation = f"{raw['Schema']}.{relation}"
        condition = next(
            (raw[key] for key in ("Index Cond", "Hash Cond", "Merge Cond", "Join Filter", "Filter") if key in raw), None
        )
        yield (
            Node(
                level,
                raw["Node Type"],
                relation,
                raw.get("Index Name"),
                condition,
                raw["Plan Rows"],
                raw["Startup Cost"],
                raw["Total Cost"],
            ),
            raw,
        )
        stack.extend((child, level + 1) for child in reversed(raw.get("Plans", [])))


def _is_join(raw: dict[str, Any]) -> bool:
    return raw["Node Type"] in ("Nested Loop", "Hash Join", "Merge Join")


def _join(raw: dict[str, Any]) -> Join:
    condition = raw.get("Hash Cond") or raw.get("Merge Cond") or raw.get("Join Filter")
    outer, inner = [*raw.get("Plans", []), {}, {}][:2]
    rows = f"{outer.get('Plan Rows', 0):.0f} x {inner.get('Plan Rows', 0):.0f} rows"
    if raw["Node Type"] == "Nested Loop":
        indexed = any("Index" in node.operation for node, _ in _flatten(inner)) if inner else False
        if condition is None and not indexed and inner.get("Plan Rows", 0) > 1:
            insight = f"every row of one side with every row of the other ({rows}): is a join condition missing?"
        elif indexed:
            insight = f"the inner side is looked up by index for each outer row ({rows}): good while the outer is small"
        else:
            insight = f"the inner side is read again for each outer row ({rows}): good for few rows only"
    elif raw["Node Type"] == "Hash Join":
        insight = f"the smaller side is hashed in memory, the other read once ({rows}): good for large sides"
    else:
        insight = f"both sides come sorted and are read once ({rows}): good where indexes give the order"
    return Join(f"{raw.get('Join Type', 'Inner')} {raw['Node Type']}", condition, raw["Plan Rows"], insight)


def _warnings(nodes: Sequence[tuple[Node, dict[str, Any]]], tables: dict[str, Any]) -> list[str]:
    told = []
    for node, raw in nodes:
        table = tables.get(node.relation or "")
        if table is not None and table["row_estimate"] is None:
            told.append(f"{node.relation} was never analyzed: row estimates are guesses (ANALYZE {node.relation})")
        if node.operation == "Seq Scan" and table is not None and (table["row_estimate"] or 0) >= LARGE_TABLE_ROWS:
            told.append(f"{node.relation} is read whole (about {table['row_estimate']} rows)")
        if raw["Node Type"] == "Nested Loop" and "missing" in _join(raw).insight:
            told.append(f"cross join: {node.estimated_rows:.0f} rows are expected")
        if node.operation == "Sort" and node.estimated_rows >= 1_000_000:
            told.append(f"{node.estimated_rows:.0f} rows are sorted, which may go to disk")
    return sorted(set(told))


def _suggestions(
    nodes: Sequence[tuple[Node, dict[str, Any]]], tables: dict[str, Any], inspected: Inspected
) -> list[Advice]:
    found: dict[str, Advice] = {}
    for node, raw in nodes:
        table = tables.get(node.relation or "")
        if table is None or node.operation != "Seq Scan" or "Filter" not in raw:
            continue
        rows = table["row_estimate"] or 0
        if rows < LARGE_TABLE_ROWS or node.estimated_rows > SELECTIVE * rows:
            continue
        columns = [name for name in _filtered(raw["Filter"], table) if name not in (table["leading"] or ())]
        if columns:
            statement = f"CREATE INDEX ON {node.relation} ({', '.join(columns[:3])})"
            found[statement] = Advice(
                "index",
                statement,
                f"Seq Scan on {node.relation} with filter {raw['Filter']}: about {node.estimated_rows:.0f} of {rows}"
                f" rows are kept; no index begins with {columns[0]}",
            )
    for relation, row in tables.items():
        if row["row_estimate"] is None:
            text = f"ANALYZE {relation}"
            found[text] = Advice("statistics", text, f"{relation} has no statistics yet")
        elif row["changed"] is not None and row["changed"] > max(1_000, 0.2 * row["row_estimate"]):
            text = f"ANALYZE {relation}"
            found[text] = Advice(
                "statistics",
                text,
                f"{row['changed']} rows of {relation} changed since it was analyzed, of about {row['row_estimate']}",
            )
    root = nodes[0][0]
    if root.estimated_rows > 1_000 and "limit" not in inspected.sql.lower():
        found["LIMIT"] = Advice(
            "query",
            "add LIMIT, or aggregate",
            f"about {root.estimated_rows:.0f} rows are expected; answers are limited",
        )
    if re.search(r"select\s+(\w+\.)?\*", inspected.sql, re.IGNORECASE) and tables:
        wide = max(tables.values(), key=lambda row: row["columns"])
        if wide["columns"] > 8:
            found["*"] = Advice(
                "query", "name the columns that are needed", f"{wide['name']} has {wide['columns']} columns"
            )
    return list(found.values())


def _filtered(condition: str, table: Any) -> list[str]:
    """Columns of the table that a filter compares: equalities first, the most selective of them in front."""
    known = dict(zip(table["column_names"], table["distinct_estimates"], strict=True))
    words = {word for match in _QUALIFIED.findall(condition) for word in match[1:]}
    words |= {first or second for first, second, _ in _COLUMN.findall(condition)}

    def distinct(name: str) -> float:
        share = known[name]
        return 0.0 if share is None else (-share * (table["row_estimate"] or 1) if share < 0 else share)

    equal = {first or second for first, second, operator in _COLUMN.findall(condition) if operator == "="}
    found = (word for word in words if word in known)
    return sorted(found, key=lambda name: (name not in equal, -distinct(name), name))
