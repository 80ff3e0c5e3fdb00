"""The parse tree as JSON: the same nodes as pglast's own objects, whatever the text."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from pglast import ast, parse_sql
from pglast.parser import ParseError

from hubscope.sqlgate import tree
from tests.integration.sqlgate.test_fuzz import query
from tests.sql_corpus import ATTACKS, ATTACKS_BY_NAME, LEGITIMATE, ON_18

EVERYTHING = [
    *LEGITIMATE,
    *ON_18,
    *(sql for corpus in (ATTACKS, ATTACKS_BY_NAME) for texts in corpus.values() for sql in texts),
]


def by_objects(sql: str) -> Counter[tuple[str, str]]:
    """Every node and every text in it, as pglast's objects have them."""
    seen: Counter[tuple[str, str]] = Counter()
    stack: list[Any] = [raw.stmt for raw in parse_sql(sql)]
    while stack:
        value = stack.pop()
        if isinstance(value, tuple | list):
            stack.extend(value)
        elif isinstance(value, ast.Node):
            seen[type(value).__name__, ""] += 1
            for slot in value:
                below = getattr(value, slot)
                if type(below) is str and len(below) > 1:  # one character may be a code of the grammar's
                    seen[type(value).__name__, f"{slot}={below}"] += 1
                stack.append(below)
    return seen


def by_json(sql: str) -> Counter[tuple[str, str]]:
    """The same as our reader has them."""
    seen: Counter[tuple[str, str]] = Counter()
    stack: list[tuple[str, Any]] = [each for raw in tree.parse(sql) for each in raw["stmt"].items()]
    while stack:
        kind, node = stack.pop()
        if kind != tree.ELEMENTS:
            seen[kind, ""] += 1
        for field, value in node.items():
            if type(value) is str and len(value) > 1 and f"{kind}.{field}" not in ENUMERATIONS:
                seen[kind, f"{field}={value}"] += 1
        stack.extend(tree.children(kind, node))
    return seen


CLASSES: dict[str, Any] = dict(vars(ast))
ENUMERATIONS = {
    f"{kind}.{field}"
    for kind, cls in CLASSES.items()
    if isinstance(getattr(cls, "__slots__", None), dict) and issubclass(cls, ast.Node)
    for field, about in cls.__slots__.items()
    if about[0] not in ("char*", "Node*", "List*")
}
"""Their words are printed as text, and are numbers in the objects."""


def compare(sql: str) -> None:
    try:
        expected = by_objects(sql)
    except (ParseError, ValueError, UnicodeError, NotImplementedError):
        return
    assert by_json(sql) == expected


@pytest.mark.parametrize("sql", EVERYTHING)
def test_the_tree_has_the_nodes_and_the_texts_of_pglasts_own(sql: str) -> None:
    compare(sql)


def test_so_has_the_tree_of_generated_sql() -> None:
    rng = random.Random(1)
    for _ in range(300):
        compare(query(rng))


@pytest.mark.parametrize(
    "nested", ["SELECT 1" + "+1" * 3_000, "SELECT " + "CASE WHEN a THEN " * 600 + "'x{]\\\"'" + " END" * 600]
)
def test_a_text_that_nests_deeper_than_decoders_recurse_is_read_all_the_same(nested: str) -> None:
    assert by_json(nested)["A_Const", ""] > 0
    compare(nested)
