"""What there is to ask about: list_tables and describe_table, under the same policy as queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from hubscope.errors import QueryRefused
from hubscope.sqlgate.guard import Inspected, Name
from hubscope.sqlgate.policy import QUERIES, Policy, closed_relations, not_served
from hubscope.sqlgate.run import Gate
from hubscope.sqlgate.vocabulary import allowed_of

KINDS: Final = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
    "S": "sequence",
}


@dataclass(frozen=True)
class Table:
    """One line of list_tables.

    Attributes:
        row_estimate: as of the last ANALYZE; None before the first.
        size_bytes: with indexes and TOAST; None for a view.
        privileges: of the role that this server connects as.
    """

    schema_name: str
    name: str
    kind: str
    owner: str
    row_estimate: int | None
    size_bytes: int | None
    partitions: int
    privileges: list[str]
    comment: str | None


@dataclass(frozen=True)
class Tables:
    """The answer of list_tables."""

    database: str
    schemas: list[str]
    tables: list[Table]


@dataclass(frozen=True)
class Column:
    """One column. `distinct_estimate` below 0 is a share of the rows, as pg_stats has it."""

    name: str
    type: str
    nullable: bool
    default: str | None
    generated: str | None
    comment: str | None
    null_share: float | None
    distinct_estimate: float | None


@dataclass(frozen=True)
class Constraint:
    """A primary key, unique, check or exclusion constraint."""

    name: str
    kind: str
    columns: list[str]
    definition: str


@dataclass(frozen=True)
class ForeignKey:
    """A reference from `columns` of `schema_name.table_name` to `to_columns` of `to_schema.to_table`."""

    name: str
    schema_name: str
    table_name: str
    columns: list[str]
    to_schema: str
    to_table: str
    to_columns: list[str]
    on_delete: str


@dataclass(frozen=True)
class Index:
    """An index and how often it was used since statistics were last reset."""

    name: str
    definition: str
    unique: bool
    primary: bool
    valid: bool
    size_bytes: int
    scans: int
    rows_read: int


@dataclass(frozen=True)
class Statistics:
    """What the server counted since statistics were last reset, and when it last looked."""

    sequential_scans: int | None
    index_scans: int | None
    live_rows: int | None
    dead_rows: int | None
    last_analyze: str | None
    last_vacuum: str | None


@dataclass(frozen=True)
class Description:
    """The answer of describe_table."""

    schema_name: str
    name: str
    kind: str
    owner: str
    comment: str | None
    row_estimate: int | None
    size_bytes: int | None
    table_bytes: int | None
    index_bytes: int | None
    privileges: list[str]
    row_security: bool
    columns: list[Column]
    constraints: list[Constraint]
    foreign_keys: list[ForeignKey]
    referenced_by: list[ForeignKey]
    indexes: list[Index]
    partition_of: str | None
    partition_key: str | None
    partitions: list[str]
    definition: str | None
    statistics: Statistics | None


async def list_tables(gate: Gate, schema: str | None, *, client: str = "") -> Tables:
    """The relations that may be asked about.

    Args:
        schema: of one schema only.

    Raises:
        QueryRefused: there is no such schema, or it is not served.
    """
    policy = gate.served.policy
    async with gate.deadline(client), gate.borrowed() as connection:
        rows = await connection.fetch(QUERIES["tables"], schema)
        served = [row for row in rows if policy.serves(row["schema"], row["name"])]
        if schema is not None and not served and not await _has_schema(connection, policy, schema):
            raise QueryRefused(f"the schema {schema} does not exist or is not served; leave schema_name away for all")
        behind = [(row["schema"], row["name"]) for row in served if row["kind"] in ("v", "p", "r", "m")]
        closed = await closed_relations(connection, policy, behind)
        assert gate.database is not None
        return Tables(
            gate.database.name,
            sorted({row["schema"] for row in served}),
            [_table(row) for row in served if (row["schema"], row["name"]) not in closed],
        )


async def _has_schema(connection: asyncpg.Connection, policy: Policy, schema: str) -> bool:
    exists = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1"
    return policy.serves_schema(schema) and await connection.fetchval(exists, schema) is not None


def _table(row: Any) -> Table:
    return Table(
        row["schema"],
        row["name"],
        KINDS[row["kind"]],
        row["owner"],
        row["row_estimate"],
        row["size_bytes"],
        row["partitions"],
        list(row["privileges"]),
        row["comment"],
    )


async def describe_table(gate: Gate, name: str, schema: str | None, *, client: str = "") -> Description:
    """Everything about one relation.

    Args:
        name: its name, exactly.
        schema: its schema; None looks along the search path.

    Raises:
        QueryRefused: there is none, or it is not served; both read alike.
    """
    policy = gate.served.policy
    async with gate.deadline(client), gate.borrowed() as connection:
        about = await connection.fetchrow(QUERIES["relation"], name, schema)
        if (
            about is None
            or not policy.serves(about["schema"], about["name"])
            or await closed_relations(connection, policy, [(about["schema"], about["name"])])
        ):
            asked = Name(schema, name, -1)
            raise await not_served(connection, policy, asked, Inspected("", (), (), (), (), (), (), frozenset()))
        oid = about["oid"]
        columns = await connection.fetch(QUERIES["columns"], oid)
        constraints = await connection.fetch(QUERIES["constraints"], oid)
        keys = [
            (row["conrelid"], _foreign_key(row))
            for row in await connection.fetch(QUERIES["foreign_keys"], oid)
            if policy.serves(row["schema_name"], row["table_name"]) and policy.serves(row["to_schema"], row["to_table"])
        ]
        indexes = await connection.fetch(QUERIES["indexes"], oid)
        partitions = [
            f"{row['schema']}.{row['name']} {row['bounds']}"
            for row in await connection.fetch(QUERIES["partitions"], oid)
            if policy.serves(row["schema"], row["name"], how="child")
        ]
        counted = await connection.fetchrow(QUERIES["statistics"], oid)
        return Description(
            schema_name=about["schema"],
            name=about["name"],
            kind=KINDS[about["kind"]],
            owner=about["owner"],
            comment=about["comment"],
            row_estimate=about["row_estimate"],
            size_bytes=about["size_bytes"],
            table_bytes=about["table_bytes"],
            index_bytes=about["index_bytes"],
            privileges=list(about["privileges"]),
            row_security=about["row_security"],
            columns=[Column(**dict(row)) for row in columns],
            constraints=[Constraint(**dict(row)) for row in constraints],
            foreign_keys=[key for owner, key in keys if owner == oid],
            referenced_by=[key for owner, key in keys if owner != oid or key.table_name == key.to_table],
            indexes=[Index(**dict(row)) for row in indexes],
            partition_of=about["partition_of"],
            partition_key=about["partition_key"],
            partitions=partitions,
            definition=about["definition"],
            statistics=None if counted is None else Statistics(**dict(counted)),
        )


def _foreign_key(row: Any) -> ForeignKey:
    return ForeignKey(**{name: row[name] for name in ForeignKey.__dataclass_fields__})


@dataclass(frozen=True)
class Function:
    """One overload of a function of the database's own.

    Attributes:
        callable: whether a query may call it: listed in HUBSCOPE_SQL_ALLOWED_FUNCTIONS, or of a reviewed extension.
    """

    schema_name: str
    name: str
    arguments: str
    result: str | None
    kind: str
    language: str
    volatility: str
    security_definer: bool
    owner: str
    comment: str | None
    callable: bool


async def list_functions(
    gate: Gate, schema: str | None, name: str | None = None, *, client: str = ""
) -> list[Function]:
    """Functions of the served schemas.

    Args:
        schema, name: of these only.

    Raises:
        QueryRefused: a name is given, and there is no such function, or its schema is not served.
    """
    policy = gate.served.policy
    async with gate.deadline(client), gate.borrowed() as connection:
        rows = await connection.fetch(QUERIES["functions"], schema, name)
    found = [
        Function(
            **{each: row[each] for each in Function.__dataclass_fields__ if each != "callable"},
            callable=f"{row['schema_name']}.{row['name']}" in policy.allowed_functions
            or (row["extension"] is not None and allowed_of(row["extension"], row["name"])),
        )
        for row in rows
        if policy.serves_schema(row["schema_name"]) and (row["extension"] is None or name is not None)
    ]
    if name is not None and not found:
        raise QueryRefused(f"the function {schema}.{name} does not exist or is not served")
    return found
