"""The second gate: what the names of a query mean in this database, and whether that may be read.

The guard knows the language, this knows the database. In the transaction that will run the query, names become oids
under the forced search path; views, materialised views, partitions and inheritance are followed; and everything that a
database may have added to the language (functions, operators, types, casts, functions in attribute notation, functions
in the bodies of views and domains) must come from a reviewed extension or from the operator's own list.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from hubscope.errors import QueryRefused
from hubscope.sqlgate.ahead import PLAIN, array, as_text, bound
from hubscope.sqlgate.guard import Inspected, Name, place
from hubscope.sqlgate.vocabulary import FUNCTIONS, IN_DEFINITIONS, allowed_of, words
from hubscope.store.queries import load

QUERIES: Final = load(Path(__file__).with_name("queries.sql"))

SYSTEM_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema", "pg_toast"})
ENGINE_SCHEMAS: Final = frozenset({"_timescaledb_internal"})
"""Where TimescaleDB keeps the chunks of a hypertable and the rows of a continuous aggregate."""

NEVER: Final = words("""
pg_authid pg_shadow pg_user_mapping pg_user_mappings pg_subscription pg_largeobject pg_largeobject_metadata pg_statistic
pg_stats pg_stats_ext pg_stats_ext_exprs pg_statistic_ext_data pg_stat_activity pg_stat_statements pg_file_settings
pg_hba_file_rules pg_ident_file_mappings pg_settings pg_db_role_setting pg_replication_slots pg_stat_replication
pg_stat_ssl pg_stat_gssapi pg_stat_subscription pg_prepared_statements pg_cursors pg_backend_memory_contexts
pg_foreign_server pg_foreign_table pg_proc pg_rewrite pg_policy pg_dist_authinfo
""")
"""Relations of the system that stay closed even where ALLOWED_SCHEMAS names pg_catalog: secrets, contents, sessions."""

_COMPARISONS: Final = ("=", "<>", "<", "<=", ">", ">=")
"""Operators that IN, BETWEEN, CASE, NULLIF, USING and their like look up without naming them."""

RUN_TEXT: Final = frozenset({"dblink", "tablefunc", "xml2", "adminpack", "plv8", "plperl", "plpython3u"})
"""Extensions with functions that run SQL given as text, or reach outside the database."""

_FIRST_USER_OID: Final = 16_384


@dataclass(frozen=True, slots=True)
class Policy:
    """What of a database is served.

    Attributes:
        allowed_schemas: the schemas whose relations may be read, in the order of the search path; None for all but the
            system's.
        blocked_tables: relations that may never be read, in lower case, as `name` (in any schema) or `schema.name`.
        view_schemas: further schemas that views of an allowed schema may read, although a query may not name them.
        allowed_functions: the operator's own functions that may be called, as `schema.name`.
        view_functions: further functions that views may call, although a query may not, as `schema.name`.
    """

    allowed_schemas: tuple[str, ...] | None = None
    blocked_tables: frozenset[str] = frozenset()
    view_schemas: frozenset[str] = frozenset()
    allowed_functions: frozenset[str] = frozenset()
    view_functions: frozenset[str] = frozenset()

    def blocks(self, schema: str, name: str) -> bool:
        """Whether BLOCKED_TABLES names it, in any case of letters."""
        return bool({name.lower(), f"{schema}.{name}".lower()} & self.blocked_tables)

    def serves_schema(self, schema: str) -> bool:
        """Whether relations of this schema may be named in a query."""
        if schema.startswith(("pg_temp", "pg_toast")):
            return False
        if self.allowed_schemas is None:
            return schema not in SYSTEM_SCHEMAS
        return schema in self.allowed_schemas

    def serves(self, schema: str, name: str, *, how: str = "named") -> bool:
        """Whether this relation may be read.

        Args:
            schema, name: the relation.
            how: named (in the query), view (through one), child (of a table that is read).
        """
        if self.blocks(schema, name) or (schema in SYSTEM_SCHEMAS and name in NEVER):
            return False
        if how != "named" and schema in ENGINE_SCHEMAS:
            return True
        return self.serves_schema(schema) or (how == "view" and schema in self.view_schemas)


@dataclass(frozen=True, slots=True)
class Approved:
    """A query that passed.

    Attributes:
        reads: the relations that it reads, as `schema.name`, those inside views included.
        closer: keys of `keys` that `plain` did not suffice for.
        lasting: as long as `plain` answers byte by byte the same, the server notices by itself when a plan of the query
            is no longer the one that it would make anew.
    """

    inspected: Inspected
    reads: tuple[str, ...] = field(default_factory=tuple)
    closer: tuple[Hashable, ...] = ()
    lasting: bool = False


CLOSER: Final = "hubscope looks at this query more closely"
"""Told in the server's log, with SQLSTATE 22P02, where the policy's question that went ahead was not enough."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A query that, going by its text, names plain relations and built-in functions and operators only.

    Attributes:
        asked: `plain` as a message that goes ahead, so that it fails unless that is so, and unless each relation is
            where it is served.
    """

    inspected: Inspected
    asked: bytes
    names: _Names

    def keys(self) -> tuple[Hashable, ...]:
        """Of what is asked, for `Foresight`."""
        return self.names.keys()


def foresee(inspected: Inspected, policy: Policy, path: Sequence[str]) -> Foreseen | None:
    """The policy's question in advance; None where it is known that `plain` would not be enough.

    Args:
        path: search path of the query, without pg_catalog, which comes first.
    """
    names = _Names.of(inspected)
    if inspected.types or not names.are_plain():
        return None
    served, required = [], []
    for name in names.relations:
        anywhere = name.schema is None
        where = [each for each in (("pg_catalog", *path) if anywhere else (name.schema,)) if each is not None]
        where = [schema for schema in where if policy.serves(schema, name.name)]
        of_with = anywhere and name.name in inspected.with_names
        if (not where and not of_with) or (anywhere and name.name.startswith("pg_")):
            return None
        served.append(where)
        required.append(not of_with)
    arguments = [as_text(each) for each in names.plain_arguments(served, required)]
    return Foreseen(inspected, bound(PLAIN, arguments), names)


def foretold(foreseen: Foreseen, rows: Sequence[tuple[str | None, ...]], policy: Policy) -> Approved | None:
    """The verdict on a question that went ahead and came to its end; None where something is not as it must be then.

    Args:
        rows: of `plain`, as text.
    """
    inspected = foreseen.inspected
    found: dict[int, tuple[str, str]] = {}
    places = set()
    lasting = inspected.lasting
    for place_, schema, name, more, oid in rows:
        if place_ is None or more != "f":
            return None
        lasting = lasting and oid is not None
        places.add(int(place_))
        if schema is not None and name is not None:
            found[int(place_)] = (schema, name)
    if places != set(range(-1, len(inspected.relations) + 1)):
        return None
    for i, named in enumerate(inspected.relations, 1):
        if i in found:
            if not policy.serves(*found[i]):
                return None
        elif named.schema is not None or named.name not in inspected.with_names:
            return None
    reads = tuple(sorted({f"{schema}.{name}" for schema, name in found.values()}))
    return Approved(inspected, reads, lasting=lasting)


async def approve(connection: asyncpg.Connection, inspected: Inspected, policy: Policy) -> Approved:
    """Resolve what the query names and compare it with the policy. The connection is in the query's transaction.

    Raises:
        QueryRefused: naming what may not be read or called, and where it stands.
    """
    names = _Names.of(inspected)
    check = _Check(inspected, policy, names)
    closer: list[int] = []
    if not inspected.types and names.are_plain():
        rows = await connection.fetch(QUERIES["plain"], *names.plain_arguments())
        closer = [row["i"] for row in rows if row["more"]]
        if not closer:
            found = [row for row in rows if row["name"] is not None]
            await check.relations(connection, {"named": found})
            return Approved(inspected, tuple(sorted({f"{row['schema']}.{row['name']}" for row in found})))
    facts: dict[str, list[Any]] = {}
    for row in await connection.fetch(QUERIES["resolve"], *names.arguments()):
        facts.setdefault(row["kind"], []).append(row)
    await check.relations(connection, facts)
    check.functions(facts.get("call", []))
    check.operators(facts.get("operator", []))
    check.types(facts.get("type", []))
    check.fields(facts.get("field", []))
    check.casts(facts.get("cast", []))
    await check.definitions(connection, facts.get("definition", []))
    reads = {f"{row['schema']}.{row['name']}" for how in ("named", "view", "child") for row in facts.get(how, [])}
    return Approved(inspected, tuple(sorted(reads)), names.keys(closer))


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of a query in the order in which the database is asked for them."""

    relations: tuple[Name, ...]
    functions: tuple[Name, ...]
    operators: tuple[Name, ...]
    types: tuple[Name, ...]
    fields: tuple[Name, ...]
    whole_rows: bool

    @staticmethod
    def of(inspected: Inspected) -> _Names:
        spoken = {(each.schema, each.name) for each in inspected.operators}
        compared = tuple(Name(None, name, -1) for name in _COMPARISONS if (None, name) not in spoken)
        # f(x) is a cast where f is a type and no function fits: types of such names are looked at as well.
        as_types = tuple(each for each in inspected.functions if each not in inspected.types)
        return _Names(
            inspected.relations,
            inspected.functions,
            inspected.operators + compared,
            inspected.types + as_types,
            inspected.fields,
            inspected.whole_rows,
        )

    def are_plain(self) -> bool:
        """Whether what is no relation is built in, unless the database gives its name another meaning. For no types."""
        return all(each.schema is None and each.name in FUNCTIONS for each in self.functions) and all(
            each.schema is None for each in self.operators
        )

    def keys(self, places: Sequence[int] | None = None) -> tuple[Hashable, ...]:
        """What `plain` tells about, by the `i` of its rows: the database, the query's words, each relation; all of them
        unless it is said which."""
        words = (self.functions, self.operators, self.fields, self.whole_rows)
        known: dict[int, Hashable] = {0: "", -1: _without_places(words)}
        known |= {i: (name.schema, name.name) for i, name in enumerate(self.relations, 1)}
        return tuple(known.values() if places is None else (known[i] for i in places))

    def plain_arguments(
        self, served: Sequence[Sequence[str]] | None = None, required: Sequence[bool] | None = None
    ) -> list[Any]:
        """What the query `plain` is asked with. Only of names that are plain.

        Args:
            served, required: of each relation the schemas in which it is served, and whether it has to be there. With
                them the question fails instead of telling that there is more.
        """
        functions = [each.name for each in self.functions]
        fields = [each.name for each in self.fields]
        return [
            ["" if each.schema is None else _quoted(each.schema) for each in self.relations],
            [_quoted(each.name) if each.schema is None else each.name for each in self.relations],
            self.whole_rows,
            [each.name for each in self.operators],
            functions + [name for name in fields if name in FUNCTIONS],
            functions,
            [name for name in fields if name not in FUNCTIONS],
            [None] * len(self.relations) if served is None else [array(each) for each in served],
            [False] * len(self.relations) if required is None else list(required),
            "true" if served is None else CLOSER,
        ]

    def arguments(self) -> list[Any]:
        """What the query `resolve` is asked with."""
        # Of an unqualified name that is no allowed built-in one, built-in ones are asked for as well: they come first.
        functions = tuple(
            name._replace(schema="?") if name.schema is None and name.name not in FUNCTIONS else name
            for name in self.functions
        )
        pairs = (self.relations, functions, self.operators, self.types)
        return [
            *(column for names in pairs for column in ([n.schema or "" for n in names], [n.name for n in names])),
            [each.name for each in self.fields],
            self.whole_rows,
        ]


def _without_places(words: tuple[Any, ...]) -> Hashable:
    return tuple(tuple(each[:2] for each in names) if isinstance(names, tuple) else names for names in words)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class _Check:
    inspected: Inspected
    policy: Policy
    names: _Names

    def refuse(self, what: str, name: Name | None, instead: str) -> QueryRefused:
        where = place(self.inspected.sql, name.at) if name is not None else ""
        return QueryRefused(f"{what}{where}; {instead}")

    # Relations

    async def relations(self, connection: asyncpg.Connection, facts: Mapping[str, Sequence[Any]]) -> None:
        found = {row["i"]: row for row in facts.get("named", [])}
        for i, name in enumerate(self.names.relations, 1):
            row = found.get(i)
            if row is None and not (name.schema is None and name.name in self.inspected.with_names):
                raise await self._not_served(connection, name)
            if row is not None and not self.policy.serves(row["schema"], row["name"]):
                raise await self._not_served(connection, name)
        for row in facts.get("named", []):
            if row["i"] < 0 and not self.policy.serves(row["schema"], row["name"]):
                raise await self._not_served(connection, self.names.types[-row["i"] - 1])
        for how in ("view", "child", "above"):
            for row in facts.get(how, []):
                closed = (
                    self.policy.blocks(row["schema"], row["name"])
                    if how == "above"
                    else not self.policy.serves(row["schema"], row["name"], how=how)
                )
                if closed:
                    name = self._named(row["i"])
                    through = {"view": "reads", "child": "includes", "above": "is part of"}[how]
                    raise self.refuse(
                        f"{name.name} {through} a table that is not served",
                        name,
                        "ALLOWED_SCHEMAS and BLOCKED_TABLES hold for what stands behind a relation, too",
                    )

    def _named(self, i: int) -> Name:
        return self.names.relations[i - 1] if i > 0 else self.names.types[-i - 1]

    async def _not_served(self, connection: asyncpg.Connection, name: Name) -> QueryRefused:
        return await not_served(connection, self.policy, name, self.inspected)

    # What the database adds to the language

    def functions(self, rows: Sequence[Any]) -> None:
        found: dict[int, list[Any]] = {}
        for row in rows:
            found.setdefault(row["i"], []).append(row)
        for i, name in enumerate(self.names.functions, 1):
            built_in = name.schema is None and name.name in FUNCTIONS
            for row in found.get(i, []):
                if self._may_be_called(row):
                    continue
                own = f"{row['schema']}.{row['name']}"
                if built_in:
                    raise self.refuse(
                        f"{name.name} may mean {own}, which is not allowed", name, f"write pg_catalog.{name.name}"
                    )
                raise self.refuse(
                    f"the function {own} is not allowed", name, "HUBSCOPE_SQL_ALLOWED_FUNCTIONS lists what is"
                )
            if not built_in and name.schema != "pg_catalog" and i not in found and not self._a_construct(name):
                shown = name.name if name.schema is None else f"{name.schema}.{name.name}"
                raise self.refuse(
                    f"the function {shown} does not exist or is not allowed",
                    name,
                    "HUBSCOPE_SQL_ALLOWED_FUNCTIONS lists functions of your own that are",
                )

    def _a_construct(self, name: Name) -> bool:
        """SQL/JSON, which only an older server takes for a call (and then finds no such function)."""
        return name.schema is None and name.name.startswith("json")

    def _may_be_called(self, row: Any) -> bool:
        if f"{row['schema']}.{row['name']}" in self.policy.allowed_functions:
            return True
        return row["extension"] is not None and allowed_of(row["extension"], row["name"])

    def operators(self, rows: Sequence[Any]) -> None:
        for row in rows:
            own = f"{row['schema']}.{row['name']}"
            if own in self.policy.allowed_functions or (row["extension"] is not None and row["sort"] != "v"):
                continue
            name = self.names.operators[row["i"] - 1]
            raise self.refuse(
                f"the operator {row['owner']} may mean one that runs the function {own}, which is not allowed",
                name,
                f"write OPERATOR(pg_catalog.{row['owner']}), or list the function in HUBSCOPE_SQL_ALLOWED_FUNCTIONS",
            )
        qualified = {i for i, name in enumerate(self.names.operators, 1) if name.schema is not None}
        for i in sorted(qualified - {row["i"] for row in rows}):
            name = self.names.operators[i - 1]
            raise self.refuse(f"there is no operator {name.schema}.{name.name}", name, "leave the schema away")

    def types(self, rows: Sequence[Any]) -> None:
        named = len(self.inspected.types)
        found = {row["i"] for row in rows}
        for i, name in enumerate(self.inspected.types, 1):
            if i not in found:
                raise self.refuse(
                    f"the type {name.name} does not exist or is not allowed", name, "cast to text instead"
                )
        for row in rows:
            # What is only maybe a type matters where casting to it runs code: domains, whose checks are definitions.
            if row["i"] > named:
                continue
            fine = row["sort"] in ("e", "d", "c") or row["extension"] is not None
            fine = fine or (row["sort"] in ("r", "m") and row["owner"] != "canonical")
            if row["schema"] in SYSTEM_SCHEMAS or not fine:
                name = self.inspected.types[row["i"] - 1]
                raise self.refuse(f"the type {name.name} is not allowed", name, "cast to text instead")

    def fields(self, rows: Sequence[Any]) -> None:
        for row in rows:
            if row["schema"] == "pg_catalog" and row["name"] in FUNCTIONS:
                continue
            if self._may_be_called(row):
                continue
            name = self.names.fields[row["i"] - 1]
            raise self.refuse(
                f"{name.name} after a dot may call the function {row['schema']}.{row['name']}, which is not allowed",
                name,
                "name a column of that name without its table, or list the function in HUBSCOPE_SQL_ALLOWED_FUNCTIONS",
            )

    def casts(self, rows: Sequence[Any]) -> None:
        for row in rows:
            own = f"{row['schema']}.{row['name']}"
            if own not in self.policy.allowed_functions and row["extension"] is None:
                raise self.refuse(
                    f"this database casts {row['owner']} by the function {own}, which is not allowed",
                    None,
                    "list the function in HUBSCOPE_SQL_ALLOWED_FUNCTIONS",
                )

    async def definitions(self, connection: asyncpg.Connection, rows: Sequence[Any]) -> None:
        """What the bodies of views and domains call: built-in functions that only compute, or listed ones."""
        unknown = [row for row in rows if not self._fine_in_a_definition(row)]
        if not unknown:
            return
        oids = [row["oid"] for row in unknown if row["schema"] == "pg_catalog"]
        operators = {row["oid"] for row in await connection.fetch(QUERIES["operators_of"], oids)} if oids else set()
        for row in unknown:
            if row["oid"] in operators:
                continue
            raise self.refuse(
                f"{row['owner']} calls the function {row['schema']}.{row['name']}, which is not allowed",
                self._named(row["i"]),
                f"list {row['schema']}.{row['name']} in HUBSCOPE_SQL_ALLOWED_FUNCTIONS to allow it",
            )

    def _fine_in_a_definition(self, row: Any) -> bool:
        own = f"{row['schema']}.{row['name']}"
        if own in self.policy.allowed_functions or own in self.policy.view_functions:
            return True
        if row["schema"] == "pg_catalog" and row["oid"] < _FIRST_USER_OID:
            return row["sort"] == "i" or row["name"] in IN_DEFINITIONS
        if row["extension"] is None:
            return False
        if allowed_of(row["extension"], row["name"]):
            return True
        return row["sort"] != "v" and row["extension"] not in RUN_TEXT


async def not_served(connection: asyncpg.Connection, policy: Policy, name: Name, inspected: Inspected) -> QueryRefused:
    """The same words for what does not exist and for what is closed, so that nothing can be found out by asking."""
    shown = name.name if name.schema is None else f"{name.schema}.{name.name}"
    where = place(inspected.sql, name.at)
    if name.schema in SYSTEM_SCHEMAS or name.name.startswith("pg_"):
        return QueryRefused(
            f"the relation {shown} is not served{where}; list_tables and describe_table tell what there is"
        )
    rows = await connection.fetch(QUERIES["relation_names"])
    by_name = {row["name"]: (row["schema"], row["name"]) for row in rows if policy.serves(row["schema"], row["name"])}
    near = [by_name[each] for each in difflib.get_close_matches(name.name, by_name, n=5, cutoff=0.7)]
    closed = await closed_relations(connection, policy, near)
    open_ones = [each for each in near if each not in closed]
    instead = f"{'.'.join(open_ones[0])} is" if open_ones else "list_tables tells what is"
    return QueryRefused(f"the relation {shown} does not exist or is not served{where}; {instead}")


async def closed_relations(
    connection: asyncpg.Connection, policy: Policy, relations: Sequence[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Those of these relations (schema, name) whose own schema is served, but not what stands behind them."""
    schemas, names = [schema for schema, _ in relations], [name for _, name in relations]
    rows = await connection.fetch(QUERIES["resolve"], schemas, names, *([] for _ in range(7)), False)
    closed = set()
    for row in rows:
        at = row["i"]
        if row["kind"] == "above" and policy.blocks(row["schema"], row["name"]):
            closed.add(relations[at - 1])
        if row["kind"] in ("view", "child") and not policy.serves(row["schema"], row["name"], how=row["kind"]):
            closed.add(relations[at - 1])
    return closed
