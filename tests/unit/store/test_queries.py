"""The loader of named SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hubscope.errors import HubscopeError
from hubscope.store import load

Loader = Callable[[str], Mapping[str, str]]


@pytest.fixture
def loaded(tmp_path: Path) -> Loader:
    """Loads a text as if it were a file."""

    def load_text(text: str) -> Mapping[str, str]:
        path = tmp_path / "queries.sql"
        path.write_bytes(text.encode())
        return load(path)

    return load_text


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("-- name: one\nSELECT 1;\n", {"one": "SELECT 1"}),
        ("-- name: one\nSELECT 1", {"one": "SELECT 1"}),
        ("-- name: one\nSELECT 1;\n\n-- name: two\nSELECT 2;\n", {"one": "SELECT 1", "two": "SELECT 2"}),
        ("-- What this file is.\n\n-- name: one\nSELECT 1;", {"one": "SELECT 1"}),
        ("-- name: one\n-- What it says.\nSELECT 1;", {"one": "-- What it says.\nSELECT 1"}),
        ("-- name: one\nSELECT ';' || 'a';\n", {"one": "SELECT ';' || 'a'"}),
        ("-- name: one  \r\nSELECT 1;\r\n-- name: two\r\nSELECT 2;\r\n", {"one": "SELECT 1", "two": "SELECT 2"}),
        ("-- name: one\nSELECT '-- name: two';", {"one": "SELECT '-- name: two'"}),
        ("-- name: one\nSELECT 'ü';", {"one": "SELECT 'ü'"}),
        ("", {}),
        ("-- nothing yet\n", {}),
    ],
)
def test_what_stands_under_a_name_is_its_statement(text: str, statements: dict[str, str], loaded: Loader) -> None:
    assert dict(loaded(text)) == statements


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1;\n-- name: two\nSELECT 2;", "SQL before the first '-- name:' line"),
        ("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;", "one stands there twice"),
        ("-- name: one\nSELECT 1;\n-- name: Two\nSELECT 2;", "'-- name: Two' is not of the form"),
        ("-- name: one\nSELECT 1;\n-- name:two\nSELECT 2;", "'-- name:two' is not of the form"),
        ("-- name: one\nSELECT 1;\n  --name: two\nSELECT 2;", "'--name: two' is not of the form"),
        ("-- name: one\nSELECT 1;\n-- name: two three\nSELECT 2;", "'-- name: two three' is not of the form"),
        ("-- name: one\nSELECT 1;\n-- name:\nSELECT 2;", "'-- name:' is not of the form"),
        ("-- name: one\n-- name: two\nSELECT 2;", "one has no statement"),
        ("-- name: one\nSELECT 1;\n-- name: two\n-- words only\n;", "two has no statement"),
    ],
)
def test_a_file_that_cannot_mean_what_it_says_is_refused_with_its_name(text: str, said: str, loaded: Loader) -> None:
    with pytest.raises(HubscopeError) as refused:
        loaded(text)
    assert refused.value.detail.startswith("queries.sql: ")
    assert said in refused.value.detail


def test_a_statement_is_read_only_and_an_unknown_name_is_an_error(loaded: Loader) -> None:
    statements = loaded("-- name: one\nSELECT 1;")
    with pytest.raises(TypeError):
        statements["one"] = "SELECT 2"  # type: ignore[index]
    with pytest.raises(KeyError):
        statements["two"]
