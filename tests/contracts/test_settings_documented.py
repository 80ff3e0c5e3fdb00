"""Every setting says what it is, names the test that proves it, and stands on the settings page."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from hubscope.settings import Settings, SqlSettings, describe
from tools.settings_page import PATH, page

ROOT = Path(__file__).resolve().parents[2]
FIELDS: dict[str, tuple[type[BaseSettings], str]] = {
    str(describe(settings, name)["env"]): (settings, name)
    for settings in (Settings, SqlSettings)
    for name in settings.model_fields
}


@cache
def functions_of(path: Path) -> frozenset[str]:
    """Names of the test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("variable", FIELDS)
def test_a_setting_names_a_test_that_exists(variable: str) -> None:
    path, _, function = describe(*FIELDS[variable])["test"].partition("::")
    assert (ROOT / path).is_file(), f"{variable}: there is no {path}"
    assert function in functions_of(ROOT / path), f"{variable}: {path} has no {function}"


@pytest.mark.parametrize("variable", FIELDS)
def test_a_setting_says_its_unit_its_meaning_and_what_off_means(variable: str) -> None:
    settings, name = FIELDS[variable]
    field, about = settings.model_fields[name], describe(settings, name)
    assert about["unit"]
    assert field.description
    assert field.description[0].isupper()
    assert field.description.endswith((".", ")"))
    # What can be off or unset says what happens then.
    can_be_off = (
        field.annotation is bool
        or (field.default is None and field.default_factory is None)
        or (not variable.endswith("PORT") and any(getattr(limit, "ge", None) == 0 for limit in field.metadata))
    )
    assert (about["off"] != "-") == can_be_off


@pytest.mark.parametrize("variable", FIELDS)
def test_a_name_says_whose_setting_it_is(variable: str) -> None:
    """Own settings are HUBSCOPE_<NAME>; names that the specifications give are kept."""
    of_the_specifications = {"HEALTH_PORT", "LOG_LEVEL", "ENABLE_AUTO_PERSISTENCE", "ENABLE_ENHANCED_ANALYTICS"}
    of_the_specifications |= {"DATABASE_URL", "DATABASE_URL_FILE", "READ_ONLY", "MAX_CONNECTIONS", "QUERY_TIMEOUT"}
    of_the_specifications |= {"POOL_IDLE_TIMEOUT", "POOL_CONNECTION_TIMEOUT", "POOL_STATEMENT_TIMEOUT"}
    of_the_specifications |= {"ENABLE_SSL", "SSL_MODE", "SSL_CERT_PATH", "SSL_KEY_PATH", "SSL_CA_PATH"}
    of_the_specifications |= {"MAX_QUERY_LENGTH", "ALLOWED_SCHEMAS", "BLOCKED_TABLES", "HEALTH_CHECK_ENABLED"}
    assert variable.startswith(("HUBSCOPE_", "POSTGRES_")) or variable in of_the_specifications


def test_the_settings_page_is_what_the_settings_say() -> None:
    text = PATH.read_text(encoding="utf-8")
    assert [variable for variable in FIELDS if f"| `{variable}` |" not in text] == []
    assert text == page(), "run `make docs`"
