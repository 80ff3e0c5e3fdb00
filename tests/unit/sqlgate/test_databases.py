"""Which databases are served under which names, and what holds for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubscope.errors import InvalidSetting
from hubscope.settings import SqlSettings
from hubscope.sqlgate import databases

TOML = """
[sql]
max_rows = 50
blocked_tables = "secrets"

[sql.databases.sales]
database_url = "postgresql://reader@sales.example/sales?pool_max_conns=3"
allowed_schemas = "public,app"
max_rows = 7

[sql.databases.archive]
database_url_file = "archive-url"
query_timeout = 1000
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "archive-url").write_text("postgresql://reader@archive.example/archive\n")
    return tmp_path


def test_one_url_is_one_database(here: Path) -> None:
    found = databases(SqlSettings.load(), ["postgresql://x@y/z?application_name=a=b"])
    assert found.keys() == {"main"}
    assert databases(SqlSettings.load(database_url="postgresql://x@y/z")).keys() == {"main"}
    assert databases(SqlSettings.load()) == {}


def test_each_database_has_its_own_policy_and_limits(here: Path) -> None:
    (here / "hubscope.toml").write_text(TOML)
    found = databases(SqlSettings.load())
    assert list(found) == ["sales", "archive"]
    sales, archive = found["sales"], found["archive"]
    assert (sales.policy.allowed_schemas, archive.policy.allowed_schemas) == (("public", "app"), None)
    assert sales.policy.blocked_tables == archive.policy.blocked_tables == {"secrets"}
    assert (sales.limits.rows, archive.limits.rows) == (7, 50)
    assert (sales.limits.timeout_ms, archive.limits.timeout_ms) == (30_000, 1_000)
    assert (sales.limits.connections, archive.limits.connections) == (3, 10)
    assert archive.dsn == "postgresql://reader@archive.example/archive"


def test_the_command_line_wins_over_the_url_and_keeps_the_policy(here: Path) -> None:
    (here / "hubscope.toml").write_text(TOML)
    named = ["new=postgresql://a@b/c", "archive=postgresql://reader@elsewhere/archive"]
    found = databases(SqlSettings.load(database_url="postgresql://not@this/one"), named)
    assert list(found) == ["new", "archive", "sales"]
    assert found["archive"].dsn == "postgresql://reader@elsewhere/archive"
    assert found["archive"].limits.timeout_ms == 1_000


def test_the_default_is_the_first_one_or_the_one_that_is_named(here: Path) -> None:
    (here / "hubscope.toml").write_text(TOML)
    assert next(iter(databases(SqlSettings.load(database_url="postgresql://a@b/c")))) == "main"
    assert next(iter(databases(SqlSettings.load(default_database="archive")))) == "archive"
    with pytest.raises(InvalidSetting, match="HUBSCOPE_SQL_DEFAULT_DATABASE is 'gone'; there are: sales, archive"):
        databases(SqlSettings.load(default_database="gone"))


@pytest.mark.parametrize(
    ("toml", "named", "said"),
    [
        ("", ["a=postgresql://x@y/z", "a=postgresql://x@y/z"], "names the database a twice"),
        ("", ["postgresql://x@y/z", "postgresql://x@y/z"], "names the database main twice"),
        ("", ["A=postgresql://x@y/z"], "the database 'A' needs another name"),
        ("", ["table=postgresql://x@y/z"], "the database 'table' needs another name"),
        ("", ["a=postgresql://x@y/z?pool_timeout=x"], "the database a: DATABASE_URL: pool_timeout is 'x'"),
        ("[sql.databases.a]\n", [], "the database a: it has neither database_url nor database_url_file"),
        (
            "[sql.databases.a]\ndatabase_url = 'mysql://u:s3cr3t@h/d'\n",
            [],
            "the database a: DATABASE_URL is not the URL",
        ),
        ("[sql.databases.a]\nhealth_check_enabled = true\n", [], "'health_check_enabled' is no setting of a database"),
        ("[sql.databases.a]\nmax_rows = 0\n", [], "the database a: HUBSCOPE_SQL_MAX_ROWS is 0"),
        ("[sql]\ndatabases = 1\n", [], r"databases are tables, \[sql.databases.<name>\]"),
        ("[sql.databases.a]\nread_only = false\n", ["a=postgresql://x@y/z"], "the database a: READ_ONLY is false"),
    ],
)
def test_a_mistake_is_one_clear_line(here: Path, toml: str, named: list[str], said: str) -> None:
    (here / "hubscope.toml").write_text(toml)
    with pytest.raises(InvalidSetting, match=said) as raised:
        databases(SqlSettings.load(), named)
    assert "s3cr3t" not in raised.value.detail
