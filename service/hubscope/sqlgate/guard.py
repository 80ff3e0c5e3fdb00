"""The first gate: one SELECT that only computes, found out from PostgreSQL's own parse tree. Pure, no I/O.

`inspect` lets a text through when it parses as one SELECT (VALUES, WITH and UNION included) and consists of nodes,
functions and types of `vocabulary` only. Everything unknown is refused. What the text names that only a database can
judge (relations, operators, types and functions of its own, attribute notation) comes back as facts for `policy`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn

from pglast.parser import ParseError

from hubscope.errors import QueryRefused
from hubscope.sqlgate.tree import ELEMENTS, Body, children, parse
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
    TAKE_NAMES,
    TYPES,
    TYPES_OF_NAMES,
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
        lasting: nothing in it means something else at another time or for another state of the catalogue but what is
            named here: a plan of it may be kept.
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
    lasting: bool = False

    def names_are_ascii(self) -> bool:
        """Whether every name that the database will look up is plain ASCII."""
        kinds = (self.relations, self.functions, self.operators, self.types, self.fields)
        return all((name.schema or "").isascii() and name.name.isascii() for names in kinds for name in names)


@dataclass(slots=True)
class _Walk:
    """What was found so far.

    Attributes:
        at: of the node last looked at that says so; places are byte offsets, as the parser gives them.
    """

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
    lasting: bool = True

    def refuse(self, what: str, at: int | None, instead: str | None = None, **context: Any) -> NoReturn:
        where = place(self.sql, self.character(self.at if at is None or at < 0 else at))
        raise QueryRefused(f"{what}{where}" + (f"; {instead}" if instead else ""), **context)

    def character(self, at: int) -> int:
        """The character that a byte offset falls on."""
        return at if at <= 0 or self.sql.isascii() else len(self.sql.encode()[:at].decode(errors="ignore"))


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
    walk = _Walk(sql, allowed_functions)
    try:
        statement, start, text = _one_select(sql)
        for kind, node in _nodes(statement, walk):
            handle = _HANDLERS.get(kind)
            if handle is not None:
                handle(node, walk)
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise QueryRefused(f"the query has a form that is not known here ({type(error).__name__})") from None
    return Inspected(
        text,
        tuple(sorted((walk.character(at) - start, number) for at, number in walk.parameters)),
        _once(walk.relations, walk),
        _once(walk.functions, walk),
        _once(walk.operators, walk),
        _once(walk.types, walk),
        _once(walk.fields, walk),
        frozenset(walk.with_names),
        whole_rows=bool(walk.columns & (walk.aliases | {each.name for each in walk.relations}))
        or any(each.name in MAKE_ROWS for each in walk.functions),
        lasting=walk.lasting,
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


def _one_select(sql: str) -> tuple[Body, int, str]:
    """The statement, the character where its text starts, and its text.

    Raises:
        QueryRefused: it is no SQL, none, several, or another statement.
    """
    try:
        statements = parse(sql)
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
    text = sql.encode()
    if len(statements) > 1:
        second = len(text[: statements[1].get("stmt_location", 0)].decode())
        raise QueryRefused(f"the text holds {len(statements)} statements{place(sql, second)}; send one SELECT")
    (raw,) = statements
    ((kind, statement),) = raw["stmt"].items()
    if kind != "SelectStmt":
        raise QueryRefused(
            f"{_spoken(kind)} is not allowed, only SELECT (VALUES, WITH and UNION included);"
            f" {STATEMENTS.get(kind, 'this server only reads')}"
        )
    start = raw.get("stmt_location", 0)
    end = start + raw["stmt_len"] if raw.get("stmt_len") else len(text)
    return statement, len(text[:start].decode()), text[start:end].decode()


def _spoken(kind: str) -> str:
    """`InsertStmt` as people call it."""
    return STATEMENTS[kind].split()[0] if kind in _OWN_NAME else kind.removesuffix("Stmt").upper()


_OWN_NAME: Final = frozenset({"ViewStmt", "CreateTableAsStmt", "CreateStmt"})


def _nodes(statement: Body, walk: _Walk) -> Iterator[tuple[str, Body]]:
    """Every node of the tree, in any nesting, without recursion. Refuses a node that is not on the list."""
    stack = [("SelectStmt", statement)]
    while stack:
        kind, node = stack.pop()
        at = node.get("location", -1)
        if at >= 0:
            walk.at = at
        if kind not in NODES and kind != ELEMENTS:
            _refuse_node(kind, walk)
        yield kind, node
        stack.extend(children(kind, node))


def _refuse_node(name: str, walk: _Walk) -> NoReturn:
    if name == "LockingClause":
        walk.refuse("FOR UPDATE and FOR SHARE lock rows and are not allowed", None, "leave them away")
    if name == "IntoClause":
        walk.refuse("SELECT INTO writes a table and is not allowed", None, "leave INTO away; rows are returned")
    if name.endswith("Stmt"):
        reason = STATEMENTS.get(name, "only SELECT is allowed inside a query")
        walk.refuse(f"{_spoken(name)} inside a query is not allowed", None, reason)
    walk.refuse(f"{name} is not allowed in a query", None)


def _once(names: list[Name], walk: _Walk) -> tuple[Name, ...]:
    """Each schema and name once, with its first place."""
    first: dict[tuple[str | None, str], Name] = {}
    for name in sorted(names, key=lambda each: each.at):
        if not name.name.isascii() and len(name.name.encode()) > MAX_NAME_BYTES:
            # The server cuts names at 63 bytes of its own encoding, which need not be where this parser cuts.
            raise QueryRefused(f"the name {name.name[:20]}... is longer than {MAX_NAME_BYTES} bytes")
        first.setdefault((name.schema, name.name), name)
    return tuple(
        first.values() if walk.sql.isascii() else (n._replace(at=walk.character(n.at)) for n in first.values())
    )


def _parts(names: Any, walk: _Walk, at: int) -> tuple[str | None, str]:
    """Schema and name of a dotted name.

    Raises:
        QueryRefused: another database is named.
    """
    words = [part["String"]["sval"] for part in names]
    if len(words) > 2:
        walk.refuse(f"{'.'.join(words)} names a database", at, "write schema.name")
    return (words[0] if len(words) == 2 else None), words[-1]


def _place(node: Body) -> int:
    """Where it stands; the parser leaves the first character away."""
    at: int = node.get("location", 0)
    return at


def _select(node: Body, walk: _Walk) -> None:
    if "intoClause" in node:
        _refuse_node("IntoClause", walk)
    if "lockingClause" in node:
        _refuse_node("LockingClause", walk)


def _range_var(node: Body, walk: _Walk) -> None:
    schema, name = node.get("schemaname"), node["relname"]
    if "catalogname" in node:
        walk.refuse(f"{node['catalogname']}.{schema}.{name} names a database", _place(node))
    walk.relations.append(Name(schema, name, _place(node)))


def _function(node: Body, walk: _Walk) -> None:
    schema, name = _parts(node["funcname"], walk, _place(node))
    if name in TAKE_NAMES:
        walk.lasting = False
    if schema == SYSTEM:
        if name not in FUNCTIONS:
            _refuse_function(f"{schema}.{name}", name, walk, _place(node))
        if name in MAKE_ROWS:
            walk.functions.append(Name(SYSTEM, name, _place(node)))
        return
    if schema is None and name in FUNCTIONS:
        walk.functions.append(Name(None, name, _place(node)))
    elif (
        f"{schema}.{name}" in walk.allowed
        or (schema is None and any(each.partition(".")[2] == name for each in walk.allowed))
        or may_be_of_an_extension(name)
    ):
        walk.functions.append(Name(schema, name, _place(node)))
    else:
        _refuse_function(name if schema is None else f"{schema}.{name}", name, walk, _place(node))


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


def _constant(node: Body, walk: _Walk) -> None:
    text = node.get("sval")
    if text and not lasts(text["sval"]):
        walk.lasting = False


def lasts(literal: str) -> bool:
    """Whether a literal is the same value whenever it is read, whatever type it becomes; often false in vain.

    The server reads it with the query: 'today' in a plan is the day on which that was made, and '4:05 MSK' has the
    offset of that day. Both may stand in an array or a range, which have backslashes and quotes of their own.
    """
    plain = literal.translate(_QUOTING)
    return _NOW.search(plain) is None and (
        _LETTERS.search(plain) is None or _TIME.search(plain) is None or _UUID.fullmatch(plain) is not None
    )


_QUOTING: Final = {ord('"'): None, ord("\\"): None}
_NOW: Final = re.compile("now|today|tomorrow|yesterday", re.IGNORECASE)
_TIME: Final = re.compile(r"\d\s*:\s*\d|\d{4}")
_LETTERS: Final = re.compile("[A-Za-z]{2}")
_UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _collate(_node: Body, walk: _Walk) -> None:
    walk.lasting = False  # a collation of the same name may come to stand before it


def _expression(node: Body, walk: _Walk) -> None:
    if node.get("name"):
        _operator(node["name"], walk, _place(node))


def _sub_link(node: Body, walk: _Walk) -> None:
    if node.get("operName"):
        _operator(node["operName"], walk, _place(node))


def _sort(node: Body, walk: _Walk) -> None:
    if node.get("useOp"):
        _operator(node["useOp"], walk, _place(node))


def _type(node: Body, walk: _Walk) -> None:
    if node.get("setof") or node.get("pct_type") or not node.get("names"):
        walk.refuse("SETOF and %TYPE are not allowed", _place(node))
    schema, name = _parts(node["names"], walk, _place(node))
    element = name.removeprefix("_")
    if element in TYPES_OF_NAMES:
        walk.lasting = False
    known = name in TYPES or element in TYPES
    if (schema == SYSTEM and not known) or (schema is None and element in SYSTEM_TYPES_REFUSED):
        walk.refuse(
            f"the type {name} is not allowed",
            _place(node),
            "it looks names up in the catalogue; list_tables and describe_table tell what there is"
            if name.startswith("reg")
            else None,
        )
    if schema != SYSTEM and not (schema is None and known):
        walk.types.append(Name(schema, name, _place(node)))


def _column(node: Body, walk: _Walk) -> None:
    parts = node["fields"]
    if len(parts) > 3:
        walk.refuse("a column is named with its database", _place(node), "write table.column")
    last = parts[-1].get("String")
    if last is not None:
        walk.columns.add(last["sval"])
        if len(parts) > 1:
            walk.fields.append(Name(None, last["sval"], _place(node)))


def _indirection(node: Body, walk: _Walk) -> None:
    for each in node["indirection"]:
        if "String" in each:
            walk.fields.append(Name(None, each["String"]["sval"], walk.at))


def _parameter(node: Body, walk: _Walk) -> None:
    number = node.get("number", 0)
    if not 1 <= number <= MAX_PARAMETERS:
        walk.refuse(f"${number} is not allowed", _place(node), f"parameters are $1 to ${MAX_PARAMETERS}")
    walk.parameters.append((node["location"], number))


def _sample(node: Body, walk: _Walk) -> None:
    schema, name = _parts(node["method"], walk, _place(node))
    if schema not in (None, SYSTEM) or name not in SAMPLING_METHODS:
        walk.refuse(f"TABLESAMPLE {name} is not allowed", _place(node), "BERNOULLI and SYSTEM are")


def _column_definition(node: Body, walk: _Walk) -> None:
    if node.keys() & {"constraints", "raw_default", "fdwoptions"}:
        walk.refuse("only a name and a type may stand in a column definition list", _place(node))


def _alias(node: Body, walk: _Walk) -> None:
    walk.aliases.add(node["aliasname"])


def _with(node: Body, walk: _Walk) -> None:
    walk.with_names.add(node["ctename"])
    (kind,) = node["ctequery"]
    if kind != "SelectStmt":
        _refuse_node(kind, walk)


_HANDLERS: Final[dict[str, Callable[[Body, _Walk], None]]] = {
    "SelectStmt": _select,
    "RangeVar": _range_var,
    "FuncCall": _function,
    "A_Const": _constant,
    "CollateClause": _collate,
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


def _as_call(names: tuple[str, ...]) -> Callable[[Body, _Walk], None]:
    """A construct that an older server would read as a call of a function of one of these names."""

    def handle(_node: Body, walk: _Walk) -> None:
        walk.functions.extend(Name(None, name, walk.at) for name in names)

    return handle


_HANDLERS.update({kind: _as_call(names) for kind, names in CALLS_ON_OLDER_SERVERS.items()})
