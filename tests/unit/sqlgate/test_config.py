"""From settings to what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubscope.errors import InvalidSetting
from hubscope.settings import Settings, SqlSettings
from hubscope.sqlgate import served, url_of

URL = "postgresql://me:s3cr3t@db.example:5432/shop"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_where_the_database_is_comes_from_one_place(folder: Path) -> None:
    assert url_of(SqlSettings.load()) is None
    assert url_of(SqlSettings.load(database_url=URL)) == URL
    (folder / "url").write_text(URL + "\n")
    assert url_of(SqlSettings.load(database_url_file=str(folder / "url"))) == URL
    with pytest.raises(InvalidSetting, match="both set"):
        url_of(SqlSettings.load(database_url=URL, database_url_file="x"))
    with pytest.raises(InvalidSetting, match="nowhere cannot be read"):
        url_of(SqlSettings.load(database_url_file="nowhere"))
    with pytest.raises(InvalidSetting, match=r"^DATABASE_URL is not the URL") as refused:
        SqlSettings.load(database_url="mysql://me:s3cr3t@db")
    assert "s3cr3t" not in refused.value.detail


def test_read_only_cannot_be_switched_off_by_itself() -> None:
    with pytest.raises(InvalidSetting, match=r"READ_ONLY is false, but .*HUBSCOPE_SQL_READ_WRITE_AT_MY_OWN_RISK"):
        served(SqlSettings.load(read_only=False), URL)
    assert served(SqlSettings.load(read_only=False, read_write_at_my_own_risk=True), URL).writable
    assert not served(SqlSettings.load(read_write_at_my_own_risk=True), URL).writable


def test_lists_are_parted_by_commas(folder: Path) -> None:
    (folder / "hubscope.toml").write_text('log_level = "warn"\n[sql]\nallowed_schemas = "public, app"\nmax_rows = 5\n')
    one = served(SqlSettings.load(blocked_tables="Secrets,app.tokens", allowed_functions="app.f, app.g"), URL)
    assert one.policy.allowed_schemas == ("public", "app")
    assert one.policy.blocked_tables == {"secrets", "app.tokens"}
    assert one.policy.allowed_functions == {"app.f", "app.g"}
    assert one.limits.rows == 5
    assert Settings.load().log_level == "warn"
    with pytest.raises(InvalidSetting, match=r"HUBSCOPE_SQL_ALLOWED_FUNCTIONS names 'f'; write schema\.name"):
        served(SqlSettings.load(allowed_functions="f"), URL)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sql]\nnope = 1\n", "hubscope.toml names 'sql.nope', which is no setting"),
        ("sql = 1\n", r"sql is a table, \[sql\]"),
        ("[sql]\nmax_query_length = 20001\n", "MAX_QUERY_LENGTH is 20001: .*20000"),
    ],
)
def test_a_mistake_in_the_table_of_the_file_is_named(text: str, said: str, folder: Path) -> None:
    (folder / "hubscope.toml").write_text(text)
    with pytest.raises(InvalidSetting, match=said):
        SqlSettings.load()


def test_parameters_for_the_pool_are_taken_from_the_url() -> None:
    one = served(SqlSettings.load(), URL + "?sslmode=require&pool_max_conns=20&pool_timeout=10s")
    assert (one.limits.connections, one.limits.connection_timeout_ms) == (20, 10_000)
    assert one.dsn == URL + "?sslmode=require"
    for query, said in (("pool_max_conns=many", "pool_max_conns is 'many'"), ("pool_timeout=soon", "pool_timeout is")):
        with pytest.raises(InvalidSetting, match=said):
            served(SqlSettings.load(), f"{URL}?{query}")


@pytest.mark.parametrize(
    ("said", "query"),
    [
        ({}, ""),
        ({"enable_ssl": True}, "?sslmode=require"),
        ({"enable_ssl": False}, "?sslmode=disable"),
        ({"ssl_mode": "verify-full"}, "?sslmode=verify-full"),
        ({"enable_ssl": True, "ssl_mode": "verify-ca"}, "?sslmode=verify-ca"),
    ],
)
def test_tls_settings_reach_the_url(said: dict[str, Any], query: str, folder: Path) -> None:
    assert served(SqlSettings.load(**said), URL).dsn == URL + query
    for name in ("ca", "crt", "key"):
        (folder / name).write_text("")
    paths = {f"ssl_{k}_path": str(folder / f) for k, f in (("ca", "ca"), ("cert", "crt"), ("key", "key"))}
    dsn = served(SqlSettings.load(ssl_mode="require", **paths), URL).dsn
    assert all(part in dsn for part in ("sslrootcert=", "sslcert=", "sslkey=", "sslmode=require"))
    with pytest.raises(InvalidSetting, match="SSL_CA_PATH: there is no file"):
        served(SqlSettings.load(ssl_ca_path="nowhere"), URL)
    for wrong in ({"enable_ssl": False, "ssl_mode": "require"}, {"enable_ssl": True, "ssl_mode": "disable"}):
        with pytest.raises(InvalidSetting, match="SSL_MODE is"):
            served(SqlSettings.load(**wrong), URL)


def test_a_configuration_does_not_show_its_secret() -> None:
    assert "s3cr3t" not in repr(served(SqlSettings.load(), URL))
    assert "s3cr3t" not in repr(SqlSettings.load(database_url=URL))
