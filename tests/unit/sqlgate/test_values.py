"""Values in and out: nothing is lost, and what cannot be taken is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.errors import QueryRefused
from hubscope.sqlgate.values import SAFE_INTEGER, as_parameter, column, parse_array, shape

ELEMENTS = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
NESTED = st.recursive(
    st.lists(ELEMENTS, min_size=1, max_size=4), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=8
)


@given(NESTED)
def test_an_array_survives_its_literal(values: list[Any]) -> None:
    literal = as_parameter(values, "params[0]", "text[]", "array")
    assert literal is not None
    assert parse_array(literal, str) == values


@given(st.text(max_size=30))
def test_an_array_literal_that_is_not_whole_stays_text(text: str) -> None:
    read = parse_array(text, str)
    assert isinstance(read, str | list)
    if isinstance(read, str):
        assert read == text


@pytest.mark.parametrize(
    ("value", "type_name", "kind", "text"),
    [
        (None, "date", "scalar", None),
        ("2025-01-01", "date", "scalar", "2025-01-01"),
        (10, "int8", "scalar", "10"),
        (2**70, "numeric", "scalar", str(2**70)),
        (True, "bool", "scalar", "true"),
        (1.5, "float8", "scalar", "1.5"),
        ({"a": [1]}, "jsonb", "scalar", '{"a": [1]}'),
        ([1, 2], "json", "scalar", "[1, 2]"),
        ([1, None, 2], "int4[]", "array", '{"1",NULL,"2"}'),
        ([{"a": 1}], "jsonb[]", "array", '{"{\\"a\\": 1}"}'),
        ("{1,2}", "int4[]", "array", "{1,2}"),
    ],
)
def test_a_parameter_becomes_what_the_type_reads(value: Any, type_name: str, kind: str, text: str | None) -> None:
    assert as_parameter(value, "params[0]", type_name, kind) == text


@pytest.mark.parametrize(
    ("value", "type_name", "said"),
    [
        ([1], "int4", r"params\[3\] is a list, but the query takes a int4"),
        ({"a": 1}, "text", r"params\[3\] is an object, .*only json and jsonb"),
        ("a\0b", "text", r"params\[3\] contains a NUL"),
        ("\ud800", "text", r"params\[3\] is not valid Unicode"),
        (b"x", "bytea", r"params\[3\] is a bytes"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(value: Any, type_name: str, said: str) -> None:
    with pytest.raises(QueryRefused, match=said):
        as_parameter(value, "params[3]", type_name, "scalar")


@pytest.mark.parametrize(
    ("type_name", "sent", "json"),
    [
        ("int8", SAFE_INTEGER, str(SAFE_INTEGER)),
        ("int8", SAFE_INTEGER + 1, f'"{SAFE_INTEGER + 1}"'),
        ("float8", float("nan"), '"NaN"'),
        ("float8", float("-inf"), '"-Infinity"'),
        ("float4", "0.1", "0.1"),
        ("numeric", "12.50", '"12.50"'),
        ("jsonb", '{"n": 1.000000000000000000001}', '{"n": 1.000000000000000000001}'),
        ("json", '"\\ud800"', '"\\"\\\\ud800\\""'),
        ("bool", True, "true"),
    ],
)
def test_a_value_reaches_json_exactly(type_name: str, sent: Any, json: str) -> None:
    made = column([sent, None], shape("x", "pg_catalog", type_name, "scalar", 100), 100)
    assert msgspec.json.encode(made.values).decode() == f"[{json},null]"


@pytest.mark.parametrize(
    ("type_name", "values"),
    [
        ("int8", [1, SAFE_INTEGER + 1, None]),
        ("int4", [1, None, -1]),
        ("bool", [True, None]),
        ("float8", [1e308, 1e308, float("nan"), None, float("inf"), float("-inf")]),
        ("float4", ["1.5", "NaN", None]),
        ("text", ["a", None, "", "ü" * 11, "x" * 10]),
        ("numeric", ["1.10", None]),
        ("jsonb", ['{"a": 1}', None, '"' + "x" * 20 + '"']),
        ("text", []),
        ("text", [None, None]),
    ],
)
def test_a_column_is_told_as_its_values_one_by_one_are(type_name: str, values: list[Any]) -> None:
    made = shape("x", "pg_catalog", type_name, "scalar", 10)
    whole, alone = column(values, made, 10), [column([value], made, 10) for value in values]
    assert msgspec.json.encode(whole.values) == msgspec.json.encode([each.values[0] for each in alone])
    assert whole.size == sum(each.size for each in alone) or None in values
    assert list(whole.cut) == [at for at, each in enumerate(alone) if each.cut]
