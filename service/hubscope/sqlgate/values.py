"""Values on their way in and out: JSON on one side, PostgreSQL's own text on the other. Pure.

Out, a column is either of a type that JSON has (whole numbers, booleans, finite floats, text, json) or comes as the
text that the type's output function makes, so that nothing is lost on the way. In, a parameter becomes text that the
type's input function reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from hubscope.errors import QueryRefused

SAFE_INTEGER: Final = 2**53 - 1
"""The largest whole number that every JSON reader keeps exact; beyond it numbers are text."""

_WHOLE: Final = frozenset({"int2", "int4", "int8", "oid"})
_FLOATS: Final = frozenset({"float4", "float8"})
_TEXT: Final = frozenset({"text", "varchar"})
_JSON: Final = frozenset({"json", "jsonb"})
_SHORT: Final = frozenset(
    {
        *("bool", "float4", "date", "time", "timetz", "timestamp", "timestamptz", "interval", "uuid", "inet", "cidr"),
        *(
            "macaddr",
            "macaddr8",
            "money",
            "name",
            "char",
            "tid",
            "xid",
            "xid8",
            "pg_lsn",
            "point",
            "line",
            "lseg",
            "box",
        ),
        *("circle", "int4range", "int8range", "daterange", "tsrange", "tstzrange"),
    }
)
"""Types whose text is always short."""

_OUTPUT: Final = {
    "bpchar": "bpcharout",
    "bytea": "byteaout",
    **{
        name: f"{name}_out"
        for name in (
            *("date", "time", "timetz", "timestamp", "timestamptz", "interval", "numeric", "uuid"),
            *("inet", "cidr", "json", "jsonb"),
        )
    },
}
"""The output function of types that are often asked for. Any other is called by format, which finds it by itself and
takes twice as long."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How one column is asked for and turned into JSON.

    Attributes:
        name, type: as the answer names them; `text[]` for an array of text.
        expression: SQL over `{}`, the column, that the server sends.
        convert: from what the driver gives to what is encoded as JSON; gets text, or a value for plain types. None: it
            is encoded as it is.
        as_is: whether of all these values (no nulls among them) none has to be converted, which is quickly found out;
            None where each one has to be looked at.
        wide: a value may be long.
        cuttable: the server cuts it at the limit.
        sent: the type of pg_catalog that `expression` is of, whatever the column is.
    """

    name: str
    type: str
    expression: str
    convert: Callable[[Any], Any] | None
    wide: bool
    cuttable: bool
    as_is: Callable[[Sequence[Any]], bool] | None = None
    sent: str = "text"


@dataclass(frozen=True, slots=True)
class Column:
    """Values of one column in some rows.

    Attributes:
        values: as they are encoded as JSON.
        size: about how many bytes they weigh as JSON, separators included.
        cut: 0-based places of those that were cut.
    """

    values: Sequence[Any]
    size: int
    cut: Sequence[int] = ()


def shape(name: str, schema: str, type_name: str, kind: str, value_chars: int) -> Shape:
    """The shape of a column.

    Args:
        name: of the column.
        schema, type_name, kind: of its type, as the driver tells them (arrays: kind "array", name of the element).
        value_chars: most characters of one value.
    """
    system = schema == "pg_catalog"
    element = type_name.removesuffix("[]").removeprefix("_") if kind == "array" else ""
    shown = f"{element}[]" if kind == "array" else type_name
    if not system and kind != "array":
        shown = f"{schema}.{type_name}"
    if system and (type_name in _WHOLE or type_name in ("bool", "float8")):
        convert, as_is = _PLAIN.get(type_name, (None, None))
        # No cast where the column is of that type, which it is; but what is sent is of that type by the text alone.
        cast = f"{{}}::pg_catalog.{type_name}"
        return Shape(name, shown, cast, convert, wide=False, cuttable=False, as_is=as_is, sent=type_name)
    # One more than the limit, so that a cut is noticed. The output function, since casts to text differ from it
    # (inet, char(n), bool); num_nulls, since a row of nulls IS NULL but is no null.
    if system and type_name in _TEXT:
        return Shape(name, shown, f"pg_catalog.left({{}}, {value_chars + 1})", None, wide=True, cuttable=True)
    if system and type_name in _OUTPUT and kind != "array":
        text = f"pg_catalog.textin(pg_catalog.{_OUTPUT[type_name]}({{}}))"
        expression = f"pg_catalog.left({text}, {value_chars + 1})"
    else:
        cut = f"pg_catalog.left(pg_catalog.format('%s', {{}}), {value_chars + 1})"
        expression = f"CASE WHEN pg_catalog.num_nulls({{}}) = 0 THEN {cut} END"
    if system and type_name == "float4":
        return Shape(name, shown, expression, _float_text, wide=False, cuttable=False)
    if system and type_name in _JSON:
        return Shape(name, shown, expression, _raw_json, wide=True, cuttable=True)
    if kind == "array" and system:
        return Shape(name, shown, expression, _array_reader(element), wide=True, cuttable=True)
    return Shape(name, shown, expression, None, wide=not (system and type_name in _SHORT), cuttable=True)


def column(values: Sequence[Any], shape: Shape, value_chars: int) -> Column:
    """What comes of one column's values, some of which may be null: all at once, since most need no look of their own.

    Args:
        values: as the driver gives them.
        shape: of the column.
        value_chars: most characters of one value.
    """
    present = [value for value in values if value is not None] if None in values else values
    if present and type(present[0]) is str:
        return _texts(values, present, shape, value_chars)
    if shape.convert is not None and not (shape.as_is is not None and (not present or shape.as_is(present))):
        convert = shape.convert
        values = [None if value is None else convert(value) for value in values]
    return Column(values, 9 * len(values))


def _texts(values: Sequence[Any], present: Sequence[str], shape: Shape, value_chars: int) -> Column:
    joined = "".join(present)
    size = (len(joined) if joined.isascii() else len(joined.encode())) + 5 * len(values)
    long = shape.cuttable and len(joined) > value_chars and max(map(len, present)) > value_chars
    if shape.convert is None and not long:
        return Column(values, size)
    told: list[Any] = []
    cut = []
    for at, value in enumerate(values):
        if value is not None and shape.cuttable and len(value) > value_chars:
            cut.append(at)
            told.append(value[:value_chars])
        else:
            told.append(value if value is None or shape.convert is None else shape.convert(value))
    return Column(told, size, cut)


def _are_safe(values: Sequence[int]) -> bool:
    return max(values) <= SAFE_INTEGER and min(values) >= -SAFE_INTEGER


def _are_finite(values: Sequence[float]) -> bool:
    return math.isfinite(sum(values))  # one that is not makes the sum so


def _whole(value: int) -> int | str:
    return value if -SAFE_INTEGER <= value <= SAFE_INTEGER else str(value)


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


_PLAIN: Final[dict[str, tuple[Callable[[Any], Any], Callable[[Sequence[Any]], bool]]]] = {
    "int8": (_whole, _are_safe),
    "float8": (_float, _are_finite),
}
"""Of types whose values mostly are what JSON has: how one is converted, and whether of some none has to be."""


def _float_text(text: str) -> float | str:
    return _float(float(text))


def _raw_json(text: str) -> Any:
    """JSON as the server wrote it, digits and all. Half a surrogate pair is no JSON for others: that stays text."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except (ValueError, RecursionError, msgspec.DecodeError):
        return text
    return msgspec.Raw(text.encode())


_ELEMENTS: Final[dict[str, Callable[[str], Any]]] = {
    **dict.fromkeys(_WHOLE, lambda text: _whole(int(text))),
    **dict.fromkeys(_FLOATS, _float_text),
    "bool": lambda text: text == "t",
}


def _array_reader(element: str) -> Callable[[str], Any]:
    convert = _ELEMENTS.get(element, str)

    def read(text: str) -> Any:
        # A box array is parted by semicolons, and one with other bounds says so in front: both stay text.
        if not text.startswith("{") or element == "box":
            return text
        return parse_array(text, convert)

    return read


def parse_array(text: str, convert: Callable[[str], Any]) -> Any:
    """An array literal as nested lists; the text itself when it is not whole.

    Args:
        text: as array_out writes it, with comma as delimiter.
        convert: for each element that is not NULL.
    """
    stack: list[list[Any]] = []
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        if char == "{":
            stack.append([])
            at += 1
        elif char == "}":
            done = stack.pop() if stack else None
            if done is None:
                return text
            at += 1
            if not stack:
                return done if at == end else text
            stack[-1].append(done)
        elif char == ",":
            at += 1
        elif not stack:
            return text
        elif char == '"':
            parts = []
            at += 1
            while at < end and text[at] != '"':
                at += text[at] == "\\"
                parts.append(text[at : at + 1])
                at += 1
            if at >= end:
                return text
            at += 1
            stack[-1].append(convert("".join(parts)))
        else:
            stop = at
            while stop < end and text[stop] not in ",}":
                stop += 1
            word = text[at:stop]
            stack[-1].append(None if word == "NULL" else convert(word))
            at = stop
    return text


def as_parameter(value: Any, place: str, type_name: str, kind: str) -> str | None:
    """A JSON value as text that the type's input function reads.

    Args:
        value: from the client.
        place: how to name it in an error, such as `params[0]`.
        type_name, kind: of the parameter, as the server inferred it.

    Raises:
        QueryRefused: a list or an object for a type that takes none, or text that PostgreSQL cannot hold.
    """
    if value is None:
        return None
    if type_name in _JSON and kind != "array" and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        if kind != "array":
            raise QueryRefused(f"{place} is a list, but the query takes a {type_name} there")
        return _array_literal(value, place)
    if isinstance(value, dict):
        raise QueryRefused(
            f"{place} is an object, but the query takes a {type_name} there; only json and jsonb take one"
        )
    return _scalar(value, place)


def _scalar(value: Any, place: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(_float(value))
    if not isinstance(value, str):
        raise QueryRefused(f"{place} is a {type(value).__name__}; text, numbers, true, false, null and lists are taken")
    if "\0" in value:
        raise QueryRefused(f"{place} contains a NUL character, which PostgreSQL's text cannot hold")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise QueryRefused(f"{place} is not valid Unicode text") from None
    return value


def _array_literal(values: list[Any], place: str) -> str:
    parts = []
    for value in values:
        if value is None:
            parts.append("NULL")
        elif isinstance(value, list):
            parts.append(_array_literal(value, place))
        else:
            text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else _scalar(value, place)
            parts.append('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
    return "{" + ",".join(parts) + "}"
