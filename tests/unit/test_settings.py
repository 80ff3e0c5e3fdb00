"""Settings: which source wins, what each refuses, and what a refusal may show."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pydantic
import pytest

from hubscope.errors import InvalidSetting
from hubscope.settings import Settings, describe

URL = "postgresql://somebody@db.example/store"
SECRET = "s3cr3t"
SECRETS = (
    "HUBSCOPE_DATABASE_URL",
    "POSTGRES_PASSWORD",
    "HUBSCOPE_GRAFANA_PASSWORD",
    "HUBSCOPE_KEY_PEPPER",
    "HUBSCOPE_SCRAPE_TOKEN",
)
WHOLE_NUMBERS = [
    describe(Settings, name)["env"]
    for name, field in Settings.model_fields.items()
    if field.annotation is int and not name.endswith("port") and describe(Settings, name)["off"] == "-"
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where hubscope.toml is looked for."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "store"),
    [
        ({}, None),
        ({"POSTGRES_DB": "a", "POSTGRES_USER": "b", "POSTGRES_PASSWORD": "c", "POSTGRES_PORT": "5433"}, None),
        ({"HUBSCOPE_DATABASE_URL": "", "POSTGRES_HOST": ""}, None),
        ({"HUBSCOPE_DATABASE_URL": URL}, URL),
        ({"HUBSCOPE_DATABASE_URL": URL, "POSTGRES_HOST": "other"}, URL),
        ({"HUBSCOPE_DATABASE_URL": "", "POSTGRES_HOST": "db"}, "postgresql://postgres@db:5432/postgres"),
        ({"POSTGRES_HOST": "db"}, "postgresql://postgres@db:5432/postgres"),
        (
            {"POSTGRES_HOST": "db", "POSTGRES_PORT": "6432", "POSTGRES_USER": "me", "POSTGRES_DB": "store"},
            "postgresql://me@db:6432/store",
        ),
        ({"POSTGRES_HOST": "db", "POSTGRES_PASSWORD": "pw"}, "postgresql://postgres:pw@db:5432/postgres"),
        ({"POSTGRES_HOST": "::1"}, "postgresql://postgres@[::1]:5432/postgres"),
        (
            {"POSTGRES_HOST": "/run/pg", "POSTGRES_PORT": "6432"},
            "postgresql://postgres@/postgres?host=%2Frun%2Fpg&port=6432",
        ),
    ],
)
def test_which_database_follows_the_documented_order(
    variables: dict[str, str], store: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, variables)
    settings = Settings.load()
    assert settings.embedded == (store is None)
    assert (None if settings.embedded else settings.external_dsn()) == store


@pytest.mark.parametrize("name", sorted({name.upper() for name in Settings.model_fields} - {*Settings.variables()}))
def test_a_variable_of_somebody_else_is_not_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Settings.load()
    monkeypatch.setenv(name, "postgresql://somebody@elsewhere/theirs")
    assert Settings.load() == ours


@pytest.mark.parametrize("text", ["p@ss:w/rd?#%", 'it\'s "quoted"', "schlüssel", " spaced "])
def test_what_the_postgres_variables_say_reaches_the_url_unchanged(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        {"POSTGRES_HOST": "db", "POSTGRES_USER": text, "POSTGRES_PASSWORD": text, "POSTGRES_DB": text},
    )
    url = urlsplit(Settings.load().external_dsn())
    assert (url.hostname, url.port) == ("db", 5432)
    assert [unquote(part) for part in (url.username or "", url.password or "", url.path[1:])] == [text, text, text]


def test_a_socket_directory_reaches_the_url_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "/run/my & own/pg")
    assert parse_qs(urlsplit(Settings.load().external_dsn()).query) == {"host": ["/run/my & own/pg"], "port": ["5432"]}


@pytest.mark.parametrize(
    ("uid", "expected"),
    [(0, "/var/lib/hubscope"), (1000, "/home/somebody/.local/share/hubscope")],
    ids=["root", "other"],
)
def test_the_data_directory_has_a_default_for_root_and_for_others(
    uid: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Settings.load().data_dir == Path(expected)
    monkeypatch.setenv("HUBSCOPE_DATA_DIR", "")
    assert Settings.load().data_dir == Path(expected)
    monkeypatch.setenv("HUBSCOPE_DATA_DIR", "/elsewhere")
    assert Settings.load().data_dir == Path("/elsewhere")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("127.1.2.3", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
    ],
)
def test_settings_know_whether_others_can_reach_an_address(
    host: str, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBSCOPE_HOST", host)
    assert (Settings.load().host, Settings.load().on_loopback) == (host, here)


@pytest.mark.parametrize("host", ["example.org", "localhost.example", "127.0.0.1:80", "[::1]", "10.0.0.0/8", "*"])
def test_only_an_address_is_listened_on(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBSCOPE_HOST", host)
    with pytest.raises(InvalidSetting, match=r"^HUBSCOPE_HOST is ") as refused:
        Settings.load()
    assert host in refused.value.detail
    assert "allowed: an IP address such as 127.0.0.1" in refused.value.detail


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HUBSCOPE_DATABASE_URL", "junk", "postgresql://"),
        ("HUBSCOPE_DATABASE_URL", "mysql://root@db/store", "postgresql://"),
        ("HUBSCOPE_DATABASE_URL", "postgresql://me@db:port/store", "postgresql://"),
        ("HUBSCOPE_DATABASE_URL", "postgresql://me@db:99999/store", "postgresql://"),
        ("HUBSCOPE_DATABASE_URL", "postgresql://a:1,b:2/store", "one PostgreSQL"),
        ("HUBSCOPE_DATABASE_URL", "postgresql://me:a#b@db/store", "percent-encoded"),
        ("HUBSCOPE_DATABASE_URL", "postgresql://[::1/store", "postgresql://"),
        ("HUBSCOPE_DATABASE_URL", "host=db dbname=store", "postgresql://"),
        ("POSTGRES_PORT", "junk", "valid integer"),
        ("POSTGRES_PORT", "-1", "greater than or equal to 0"),
        ("POSTGRES_PORT", "65536", "less than or equal to 65535"),
        ("HEALTH_PORT", "3401.5", "valid integer"),
        ("HEALTH_PORT", "65536", "less than or equal to 65535"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning', 'warn' or 'error'"),
        ("HUBSCOPE_LOG_FORMAT", "xml", "'auto', 'json' or 'console'"),
        ("ENABLE_ENHANCED_ANALYTICS", "perhaps", "valid boolean"),
        ("HUBSCOPE_POOL_MAX", "4", "greater than or equal to 5"),
        ("HUBSCOPE_FOLD_INTERVAL", "99", "greater than or equal to 100"),
        ("HUBSCOPE_WRITERS", "17", "less than or equal to 16"),
        ("HUBSCOPE_MAX_EVENT_AGE_DAYS", "61", "less than or equal to 60"),
        ("HUBSCOPE_MAX_CLOCK_SKEW_SECONDS", "86401", "less than or equal to 86400"),
    ],
)
def test_a_value_that_is_not_allowed_is_one_line_that_names_the_variable_and_what_is_allowed(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSetting) as refused:
        Settings.load()
    assert refused.value.detail.startswith(f"{variable} is ")
    assert said in refused.value.detail
    assert "\n" not in refused.value.detail


@pytest.mark.parametrize("value", ["junk", "1.5", "0", "-1"])
@pytest.mark.parametrize("variable", WHOLE_NUMBERS)
def test_a_limit_is_a_whole_number_above_zero(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSetting, match=f"^{variable} is '{value}': "):
        Settings.load()


@pytest.mark.parametrize(
    ("pool_max", "writers", "enough"), [(9, 2, True), (23, 16, True), (9, 3, False), (22, 16, False)]
)
def test_the_pool_has_room_for_the_writers_the_partition_check_the_keys_the_registry_and_a_reader(
    pool_max: int, writers: int, enough: bool
) -> None:
    if enough:
        assert Settings.load(pool_max=pool_max, writers=writers).pool_max == pool_max
        return
    with pytest.raises(InvalidSetting, match=f"^HUBSCOPE_POOL_MAX is {pool_max}: .*HUBSCOPE_WRITERS.* {writers + 7} "):
        Settings.load(pool_max=pool_max, writers=writers)


def test_the_first_source_that_names_a_setting_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().port == 3401
    (folder / "hubscope.toml").write_text("health_port = 1\n")
    assert Settings.load().port == 1
    monkeypatch.setenv("HEALTH_PORT", "2")
    assert Settings.load().port == 2
    assert Settings.load(port=3).port == 3


def test_the_file_takes_the_names_of_the_environment_in_lower_case_without_the_prefix(folder: Path) -> None:
    (folder / "hubscope.toml").write_text(
        'data_dir = "/srv/hubscope"\nlog_level = "debug"\nWRITERS = 3\nenable_enhanced_analytics = false\n'
        'postgres_host = "db"\nrole_prefix = ""\n'
    )
    settings = Settings.load()
    assert (settings.data_dir, settings.log_level, settings.writers) == (Path("/srv/hubscope"), "debug", 3)
    assert not settings.enable_enhanced_analytics
    assert settings.postgres_host == "db"
    assert settings.role_prefix is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"helth_port = 3401\n", "hubscope.toml names 'helth_port', which is no setting"),
        (b"hubscope_writers = 3\n", "hubscope.toml names 'hubscope_writers', which is no setting"),
        (b"[service]\nport = 3401\n", "hubscope.toml names 'service', which is no setting"),
        (b"health_port = \n", "hubscope.toml is not valid TOML: .*line 1"),
        (b"log_level = '\xff'\n", "hubscope.toml is not valid TOML"),
        (b"health_port = 70000\n", "HEALTH_PORT is 70000: .*65535"),
        (b"health_port = [1]\n", r"HEALTH_PORT is \[1\]: .*integer"),
        (b"host = 'db'\n", "HUBSCOPE_HOST is 'db'"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_it(text: bytes, said: str, folder: Path) -> None:
    (folder / "hubscope.toml").write_bytes(text)
    with pytest.raises(InvalidSetting, match=f"^{said}") as refused:
        Settings.load()
    assert "\n" not in refused.value.detail


def test_a_file_that_cannot_be_read_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "hubscope.toml").write_text("")

    def closed(_path: Path, **_: Any) -> str:
        raise PermissionError(13, "Permission denied")  # root may read every file, so no real one would do

    monkeypatch.setattr(Path, "read_text", closed)
    with pytest.raises(InvalidSetting, match=r"^hubscope\.toml cannot be read: Permission denied$"):
        Settings.load()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HUBSCOPE_DATABASE_URL", f"mysql://root:{SECRET}@db/store"),
        ("HUBSCOPE_DATABASE_URL", f"postgresql://root:{SECRET}#x@db/store"),
        ("HUBSCOPE_DATABASE_URL", f"postgresql://root:x@db:{SECRET}/store"),
    ],
)
def test_a_refusal_shows_no_secret_of_the_environment(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSetting, match=variable) as refused:
        Settings.load()
    assert SECRET not in refused.value.detail


@pytest.mark.parametrize("variable", SECRETS)
def test_a_refusal_shows_no_secret_of_the_file(variable: str, folder: Path) -> None:
    (folder / "hubscope.toml").write_text(f'{variable.removeprefix("HUBSCOPE_").lower()} = ["{SECRET}"]\n')
    with pytest.raises(InvalidSetting, match=f"^{variable}: input should be a valid string$"):
        Settings.load()


def test_settings_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, dict.fromkeys(SECRETS, f"postgresql://me:{SECRET}@db/store"))
    settings = Settings.load()
    assert settings.postgres_password is not None
    assert SECRET not in f"{settings!r} {settings}"


def test_settings_do_not_change() -> None:
    settings = Settings.load()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.__setattr__("port", 1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_batch_events": 25_001}, ["HUBSCOPE_MAX_BATCH_EVENTS", "HUBSCOPE_QUEUE_MAX_EVENTS", "25000"]),
        ({"queue_max_events": 10_000}, ["HUBSCOPE_MAX_BATCH_EVENTS", "HUBSCOPE_QUEUE_MAX_EVENTS", "5000"]),
        ({"max_decoded_bytes": 2**26}, ["HUBSCOPE_MAX_DECODED_BYTES", "HUBSCOPE_QUEUE_MAX_BYTES"]),
        ({"max_body_bytes": 2**26, "max_decoded_bytes": 1}, ["HUBSCOPE_MAX_BODY_BYTES", "HUBSCOPE_QUEUE_MAX_BYTES"]),
        ({"tenant_queue_percent": 19}, ["HUBSCOPE_MAX_BATCH_EVENTS", "HUBSCOPE_TENANT_QUEUE_PERCENT is 19"]),
        ({"max_buffered_bytes": 2**22}, ["HUBSCOPE_MAX_BODY_BYTES", "HUBSCOPE_MAX_BUFFERED_BYTES"]),
    ],
    ids=str,
)
def test_settings_that_would_refuse_a_post_for_ever_are_refused_at_start(
    changes: dict[str, int], named: list[str]
) -> None:
    with pytest.raises(InvalidSetting) as refused:
        Settings.load(**changes)
    assert [name for name in named if name not in refused.value.detail] == []


def test_the_whole_queue_may_be_given_to_one_tenant() -> None:
    settings = Settings.load(tenant_queue_percent=100, max_batch_events=50_000)
    assert settings.tenant_share(settings.queue_max_events) == 50_000


@pytest.mark.parametrize("field", ["key_pepper", "scrape_token"])
def test_a_secret_may_stand_in_a_file(field: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"HUBSCOPE_{field.upper()}"
    path = folder / "secret"
    monkeypatch.setenv(f"{variable}_FILE", str(path))
    with pytest.raises(InvalidSetting, match=f"^{variable}_FILE: .*cannot be read"):
        Settings.load().secret(field)
    path.write_text("\n")
    with pytest.raises(InvalidSetting, match=f"^{variable}_FILE: .*empty"):
        Settings.load().secret(field)
    path.write_text(f"{SECRET}\n")
    assert Settings.load().secret(field) == SECRET
    monkeypatch.setenv(variable, SECRET)
    with pytest.raises(InvalidSetting, match=f"^{variable} and {variable}_FILE: set one"):
        Settings.load()


def test_names_are_taken_apart() -> None:
    assert Settings.load(allowed_hosts=" Hub.Example , ,[2001:db8::1]").names == {"hub.example", "2001:db8::1"}
