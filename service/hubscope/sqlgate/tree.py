"""PostgreSQL's parse tree, read from the JSON in which the parser can print it. Pure.

The same tree as pglast's own objects, which a test holds it to, in an eighth of the time that it takes to make those.
A node is `{kind: {field: value}}`; where the grammar allows one kind only, it is printed without it, and `_KINDS` says
which. What is false, zero or absent is not printed; NULL in a list is `{}`, and so would be what the printer does not
know: `_NULLS` says where the grammar has NULL. Places are byte offsets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from pglast import ast
from pglast.parser import parse_sql_json

Body = dict[str, Any]
"""The fields of one node."""

ELEMENTS: Final = "List"
"""A list inside a list; its nodes are in `items`."""

_CLASSES: Final[dict[str, Any]] = {
    name: cls for name, cls in vars(ast).items() if isinstance(cls, type) and issubclass(cls, ast.Node)
}
_KINDS: Final = {
    kind: {
        field: about[0].removesuffix("*")
        for field, about in cls.__slots__.items()
        if about[0].endswith("*") and about[0] not in ("Node*", "Expr*", "List*", "char*")
    }
    for kind, cls in _CLASSES.items()
    if isinstance(cls.__slots__, dict)
}
"""kind -> field -> the only kind that may stand there."""

_CONSTANTS: Final = {"ival": "Integer", "fval": "Float", "boolval": "Boolean", "sval": "String", "bsval": "BitString"}
_KINDS["A_Const"] = _CONSTANTS
_NULLS: Final = frozenset({("SelectStmt", "distinctClause"), (ELEMENTS, "items")})
"""SELECT DISTINCT without ON, and a function in ROWS FROM without column definitions."""

_NONE: Final[dict[str, str]] = {}
_TOKEN: Final = re.compile(r'[{}\[\],:]|"(?:[^"\\]|\\.)*"|[^\s{}\[\],:"]+')


def parse(sql: str) -> list[Body]:
    """The statements of a text, each with `stmt`, a node, and maybe `stmt_location` and `stmt_len`.

    Raises:
        ParseError: it is no SQL.
    """
    text = parse_sql_json(sql)
    try:
        found: list[Body] = msgspec.json.decode(text).get("stmts", [])
    except RecursionError:
        found = _decoded_deep(text).get("stmts", [])
    return found


def children(kind: str, node: Body) -> Iterator[tuple[str, Body]]:
    """The nodes right below one, with their kinds.

    Raises:
        ValueError: it is not printed as known here.
    """
    kinds = _KINDS.get(kind, _NONE)
    for field, value in node.items():
        if type(value) is list:
            for each in value:
                if each or (kind, field) not in _NULLS:
                    ((below, body),) = each.items()
                    yield below, body
        elif type(value) is dict:
            if field in kinds:
                yield kinds[field], value
            else:
                ((below, body),) = value.items()
                yield below, body


def _decoded_deep(text: str) -> Body:
    """JSON of any depth, which decoders that recurse refuse. Slower: for texts that nest hundreds of levels."""
    root: list[Any] = []
    inside: Any = root
    key: str | None = None
    above: list[tuple[Any, str | None]] = []
    for token in _TOKEN.findall(text):
        first = token[0]
        if first in ",:":
            continue
        if first in "}]":
            inside, key = above.pop()
            continue
        if key is None and type(inside) is dict:
            key = token[1:-1]
            continue
        value: Any = {} if first == "{" else [] if first == "[" else _scalar(token)
        if key is None:
            inside.append(value)
        else:
            inside[key] = value
            key = None
        if first in "{[":
            above.append((inside, key))
            inside = value
    decoded: Body = root[0]
    return decoded


def _scalar(token: str) -> Any:
    if token[0] == '"' and "\\" not in token:
        return token[1:-1]
    return json.loads(token)
