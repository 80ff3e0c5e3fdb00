"""The first gate: one SELECT that only computes, found out from PostgreSQL's own parse tree. Pure, no I/O.

`inspect` lets a text through when it parses as one SELECT (VALUES, WITH and UNION included) and consists of nodes,
functions and types of `vocabulary` only. Everything unknown is refused. What the text names that only a database can
judge (relations, operators, types and functions of its own, attribute notation) comes back as facts for `policy`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn

from pglast import ast, parse_sql
from pglast.parser import ParseError

from hubscope.errors import QueryRefused
from hubscope.sqlgate.vocabulary import (
    CALLS_ON_OLDER_SERVERS,
    EXTENSION_FUNCTIONS,
    FUNCTIONS,
    INSTEAD,
    MAKE_ROWS,
    NODES,
    SAMPLING_METHODS,
    STATEMENTS,
    SYSTEM_TYPES_REFUSED,
    TYPES,
    may_be_of_an_extension,
)

HARD_MAX_BYTES: Final = 20_000
"""The parser recurses on the C stack: texts of this length were tried in every nesting, longer ones were not."""

MAX_PARAMETERS: Final = 1_000
MAX_NAME_BYTES: Final = 56
SYSTEM: Final = "pg_catalog"


class Name(NamedTuple):
    """A name in the query: schema (None when unqualified), name, and where it stands (character offset; -1 unknown)."""

    schema: str | None
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Inspected:
    """A query that passed, and what it names.

    Attributes:
        sql: the one statement, without what surrounds it.
        parameters: character offset in `sql` and number of each `$n`, in the order of the text.
        relations: what stands in FROM; names of WITH queries among them, since only scoping tells them apart.
        functions: calls that are not pg_catalog's by qualification.
        operators: every operator, without those that pg_catalog is named for.
        types: types named that are not pg_catalog's by qualification or unambiguous grammar.
        fields: last parts of dotted names, which may be functions called in attribute notation.
        with_names: names of WITH queries.
        whole_rows: a row may be used as one value, so that text may become each of its columns.
    """

    sql: str
    parameters: tuple[tuple[int, int], ...]
    relations: tuple[Name, ...]
    functions: tuple[Name, ...]
    operators: tuple[Name, ...]
    types: tuple[Name, ...]
    fields: tuple[Name, ...]
    with_names: frozenset[str]
    whole_rows: bool = False

    def names_are_ascii(self) -> bool:
        """Whether every name that the database will look up is plain ASCII."""
        kinds = (self.relations, self.functions, self.operators, self.types, self.fields)
        return all((name.schema or "").isascii() and name.name.isascii() for names in kinds for name in names)


@dataclass(slots=True)
class _Walk:
    sql: str
    allowed: frozenset[str]
    at: int = -1
    parameters: list[tuple[int, int]] = field(default_factory=list)
    relations: list[Name] = field(default_factory=list)
    functions: list[Name] = field(default_factory=list)
    operators: list[Name] = field(default_factory=list)
    types: list[Name] = field(default_factory=list)
    fields: list[Name] = field(default_factory=list)
    with_names: set[str] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)

    def refuse(self, what: str, at: int | None, instead: str | None = None, **context: Any) -> NoReturn:
        where = place(self.sql, self.at if at is None or at < 0 else at)
        raise QueryRefused(f"{what}{where}" + (f"; {instead}" if instead else ""), **context)


def inspect(sql: str, *, max_bytes: int, allowed_functions: frozenset[str] = frozenset()) -> Inspected:
    """Check a query and find out what it names.

    Args:
        sql: the text, as it came.
        max_bytes: longest text in UTF-8 bytes, at most HARD_MAX_BYTES.
        allowed_functions: the operator's own functions, as `schema.name`.

    Raises:
        QueryRefused: saying what is not allowed, where it stands, and what is allowed instead.
    """
    _check_text(sql, min(max_bytes, HARD_MAX_BYTES))
    statement, start, text = _one_select(sql)
    walk = _Walk(sql, allowed_functions)
    try:
        for node in _nodes(statement, walk):
            handle = _HANDLERS.get(type(node).__name__)
            if handle is not None:
                handle(node, walk)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise QueryRefused(f"the query has a form that is not known here ({type(error).__name__})") from None
    return Inspected(
        text,
        tuple(sorted((at - start, number) for at, number in walk.parameters)),
        _once(walk.relations),
        _once(walk.functions),
        _once(walk.operators),
        _once(walk.types),
        _once(walk.fields),
        frozenset(walk.with_names),
        whole_rows=bool(walk.columns & (walk.aliases | {each.name for each in walk.relations}))
        or any(each.name in MAKE_ROWS for each in walk.functions),
    )


def place(sql: str, at: int | None) -> str:
    """` at line 2, column 7`, or nothing when it is not known."""
    if at is None or at < 0 or at > len(sql):
        return ""
    before = sql[:at]
    return f" at line {before.count(chr(10)) + 1}, column {at - (before.rfind(chr(10)) + 1) + 1}"


def _check_text(sql: str, max_bytes: int) -> None:
    try:
        size = len(sql.encode())
    except UnicodeEncodeError:
        raise QueryRefused("the query is not valid Unicode text") from None
    if size > max_bytes:
        raise QueryRefused(f"the query has {size} bytes; at most {max_bytes} are allowed (MAX_QUERY_LENGTH)")
    if "\0" in sql:
        raise QueryRefused("the query contains a NUL character")


def _one_select(sql: str) -> tuple[Any, int, str]:
    """The statement, where its text starts, and its text.

    Raises:
        QueryRefused: it is no SQL, none, several, or another statement.
    """
    try:
        statements = parse_sql(sql)
    except ParseError as error:
        message, at = (*error.args, -1)[:2]
        found = str(message).partition(", at index")[0]
        raise QueryRefused(f"the query is not valid SQL: {found}{place(sql, at if isinstance(at, int) else -1)}") from (
            None
        )
    except Exception as error:
        # The parser's binding met something it cannot express: unknown is refused.
        raise QueryRefused(f"the query cannot be parsed ({type(error).__name__})") from None
    if not statements:
        raise QueryRefused("the query is empty; send one SELECT")
    if len(statements) > 1:
        raise QueryRefused(
            f"the text holds {len(statements)} statements{place(sql, statements[1].stmt_location)}; send one SELECT"
        )
    (raw,) = statements
    kind = type(raw.stmt).__name__
    if kind != "SelectStmt":
        raise QueryRefused(
            f"{_spoken(kind)} is not allowed, only SELECT (VALUES, WITH and UNION included);"
            f" {STATEMENTS.get(kind, 'this server only reads')}"
        )
    start = raw.stmt_location or 0
    end = start + raw.stmt_len if raw.stmt_len else len(sql)
    return raw.stmt, start, sql[start:end]


def _spoken(kind: str) -> str:
    """`InsertStmt` as people call it."""
    return STATEMENTS[kind].split()[0] if kind in _OWN_NAME else kind.removesuffix("Stmt").upper()


_OWN_NAME: Final = frozenset({"ViewStmt", "CreateTableAsStmt", "CreateStmt"})


def _nodes(root: Any, walk: _Walk) -> Iterator[Any]:
    """Every node of the tree, in any nesting of tuples, without recursion. Refuses a node that is not on the list."""
    stack: list[Any] = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, tuple | list):
            stack.extend(value)
        elif isinstance(value, ast.Node):
            name = type(value).__name__
            at = getattr(value, "location", None)
            if isinstance(at, int) and at >= 0:
                walk.at = at
            if name not in NODES:
                _refuse_node(name, walk)
            yield value
            stack.extend(getattr(value, slot) for slot in value)


def _refuse_node(name: str, walk: _Walk) -> NoReturn:
    if name == "LockingClause":
        walk.refuse("FOR UPDATE and FOR SHARE lock rows and are not allowed", None, "leave them away")
    if name == "IntoClause":
        walk.refuse("SELECT INTO writes a table and is not allowed", None, "leave INTO away; rows are returned")
    if name.endswith("Stmt"):
        reason = STATEMENTS.get(name, "only SELECT is allowed inside a query")
        walk.refuse(f"{_spoken(name)} inside a query is not allowed", None, reason)
    walk.refuse(f"{name} is not allowed in a query", None)


def _once(names: list[Name]) -> tuple[Name, ...]:
    """Each schema and name once, with its first place."""
    first: dict[tuple[str | None, str], Name] = {}
    for name in sorted(names, key=lambda each: each.at):
        if not name.name.isascii() and len(name.name.encode()) > MAX_NAME_BYTES:
            # The server cuts names at 63 bytes of its own encoding, which need not be where this parser cuts.
            raise QueryRefused(f"the name {name.name[:20]}... is longer than {MAX_NAME_BYTES} bytes")
        first.setdefault((name.schema, name.name), name)
    return tuple(first.values())


def _parts(names: Any, walk: _Walk, at: int) -> tuple[str | None, str]:
    """Schema and name of a dotted name.

    Raises:
        QueryRefused: another database is named.
    """
    words = [part.sval for part in names]
    if len(words) > 2:
        walk.refuse(f"{'.'.join(words)} names a database", at, "write schema.name")
    return (words[0] if len(words) == 2 else None), words[-1]


def _select(node: Any, walk: _Walk) -> None:
    if node.intoClause is not None:
        _refuse_node("IntoClause", walk)
    if node.lockingClause:
        _refuse_node("LockingClause", walk)


def _range_var(node: Any, walk: _Walk) -> None:
    if node.catalogname:
        walk.refuse(f"{node.catalogname}.{node.schemaname}.{node.relname} names a database", node.location)
    walk.relations.append(Name(node.schemaname, node.relname, node.location))


def _function(node: Any, walk: _Walk) -> None:
    schema, name = _parts(node.funcname, walk, node.location)
    if schema == SYSTEM:
        if name not in FUNCTIONS:
            _refuse_function(f"{schema}.{name}", name, walk, node.location)
        if name in MAKE_ROWS:
            walk.functions.append(Name(SYSTEM, name, node.location))
        return
    if schema is None and name in FUNCTIONS:
        walk.functions.append(Name(None, name, node.location))
    elif (
        f"{schema}.{name}" in walk.allowed
        or (schema is None and any(each.partition(".")[2] == name for each in walk.allowed))
        or may_be_of_an_extension(name)
    ):
        walk.functions.append(Name(schema, name, node.location))
    else:
        _refuse_function(name if schema is None else f"{schema}.{name}", name, walk, node.location)


def _refuse_function(shown: str, name: str, walk: _Walk, at: int) -> NoReturn:
    instead = INSTEAD.get(name)
    if instead is None:
        close = difflib.get_close_matches(name.lower(), FUNCTIONS | EXTENSION_FUNCTIONS, n=1, cutoff=0.75)
        instead = (
            f"{close[0]} is allowed"
            if close
            else "a function of your own is allowed once it is listed in HUBSCOPE_SQL_ALLOWED_FUNCTIONS"
        )
    walk.refuse(f"the function {shown} is not allowed", at, instead, function=shown)


def _operator(names: Any, walk: _Walk, at: int) -> None:
    schema, name = _parts(names, walk, at)
    if schema != SYSTEM:
        walk.operators.append(Name(schema, name, at))


def _expression(node: Any, walk: _Walk) -> None:
    if node.name:
        _operator(node.name, walk, node.location)


def _sub_link(node: Any, walk: _Walk) -> None:
    if node.operName:
        _operator(node.operName, walk, node.location)


def _sort(node: Any, walk: _Walk) -> None:
    if node.useOp:
        _operator(node.useOp, walk, node.location)


def _type(node: Any, walk: _Walk) -> None:
    if node.setof or node.pct_type or not node.names:
        walk.refuse("SETOF and %TYPE are not allowed", node.location)
    schema, name = _parts(node.names, walk, node.location)
    element = name.removeprefix("_")
    known = name in TYPES or element in TYPES
    if (schema == SYSTEM and not known) or (schema is None and element in SYSTEM_TYPES_REFUSED):
        walk.refuse(
            f"the type {name} is not allowed",
            node.location,
            "it looks names up in the catalogue; list_tables and describe_table tell what there is"
            if name.startswith("reg")
            else None,
        )
    if schema != SYSTEM and not (schema is None and known):
        walk.types.append(Name(schema, name, node.location))


def _column(node: Any, walk: _Walk) -> None:
    parts = node.fields
    if len(parts) > 3:
        walk.refuse("a column is named with its database", node.location, "write table.column")
    if isinstance(parts[-1], ast.String):
        walk.columns.add(str(parts[-1].sval))
    if len(parts) > 1 and isinstance(parts[-1], ast.String):
        walk.fields.append(Name(None, str(parts[-1].sval), node.location))


def _indirection(node: Any, walk: _Walk) -> None:
    for each in node.indirection:
        if isinstance(each, ast.String):
            walk.fields.append(Name(None, str(each.sval), walk.at))


def _parameter(node: Any, walk: _Walk) -> None:
    if not 1 <= node.number <= MAX_PARAMETERS:
        walk.refuse(f"${node.number} is not allowed", node.location, f"parameters are $1 to ${MAX_PARAMETERS}")
    walk.parameters.append((node.location, node.number))


def _sample(node: Any, walk: _Walk) -> None:
    schema, name = _parts(node.method, walk, node.location)
    if schema not in (None, SYSTEM) or name not in SAMPLING_METHODS:
        walk.refuse(f"TABLESAMPLE {name} is not allowed", node.location, "BERNOULLI and SYSTEM are")


def _column_definition(node: Any, walk: _Walk) -> None:
    if node.constraints or node.raw_default is not None or node.fdwoptions:
        walk.refuse("only a name and a type may stand in a column definition list", node.location)


def _alias(node: Any, walk: _Walk) -> None:
    walk.aliases.add(node.aliasname)


def _with(node: Any, walk: _Walk) -> None:
    walk.with_names.add(node.ctename)
    if type(node.ctequery).__name__ != "SelectStmt":
        _refuse_node(type(node.ctequery).__name__, walk)


_HANDLERS: Final[dict[str, Callable[[Any, _Walk], None]]] = {
    "SelectStmt": _select,
    "RangeVar": _range_var,
    "FuncCall": _function,
    "A_Expr": _expression,
    "SubLink": _sub_link,
    "SortBy": _sort,
    "TypeName": _type,
    "ColumnRef": _column,
    "A_Indirection": _indirection,
    "ParamRef": _parameter,
    "RangeTableSample": _sample,
    "ColumnDef": _column_definition,
    "CommonTableExpr": _with,
    "Alias": _alias,
}


def _as_call(node: Any, walk: _Walk) -> None:
    """A construct that an older server would read as a call of a function of that name."""
    for name in CALLS_ON_OLDER_SERVERS[type(node).__name__]:
        walk.functions.append(Name(None, name, walk.at))


for _name in CALLS_ON_OLDER_SERVERS:
    _HANDLERS[_name] = _as_call
