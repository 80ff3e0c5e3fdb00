"""A wrapper's command line and variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubscope.errors import InvalidSetting
from hubscope.settings import Settings, describe
from hubscope.wrap.options import LIMITS, Options, guessed_name, parse, read


@pytest.mark.parametrize(
    ("arguments", "given", "command"),
    [
        (["--", "cat"], {}, ("cat",)),
        (["--name", "fs", "--", "npx", "-y", "--", "x"], {"name": "fs"}, ("npx", "-y", "--", "x")),
        (["--name=a=b", "--", "cat"], {"name": "a=b"}, ("cat",)),
        (["-n", "fs", "--url", "http://h", "--", "cat"], {"name": "fs", "url": "http://h"}, ("cat",)),
        (["--spool-dir", "/s", "--api-key-file", "/k", "--", "c"], {"spool_dir": "/s", "api_key_file": "/k"}, ("c",)),
        (["--no-args-key", "--", "cat"], {}, ("cat",)),
    ],
)
def test_the_short_way_in_reads_options_and_a_command(
    arguments: list[str], given: dict[str, str], command: tuple[str, ...]
) -> None:
    assert parse(arguments) == (given, command)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--"], ["cat"], ["--help"], ["--name", "--", "cat"], ["--name"], ["--config", "f"], ["-nfs", "--", "cat"],
     ["-n=fs", "--", "cat"], ["--nam", "x", "--", "cat"]],
)  # fmt: skip
def test_everything_else_is_left_to_the_full_command_line(arguments: list[str]) -> None:
    assert parse(arguments) is None


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("npx -y @modelcontextprotocol/server-filesystem .", "filesystem"),
        ("npx -y @modelcontextprotocol/server-filesystem@2026.1.1 /data", "filesystem"),
        ("uvx mcp-server-git==1.2 --repository .", "git"),
        ("uv run server.py", "server"),
        ("/usr/bin/python3.12 -m mcp_server_time", "mcp_server_time"),
        ("node ./build/weather.js", "weather"),
        ("/opt/mcp-server-time", "time"),
        ("bash", "bash"),
    ],
)
def test_a_server_without_a_name_is_called_after_its_package_or_script(command: str, name: str) -> None:
    assert guessed_name(command.split()) == name


@pytest.mark.parametrize(
    ("given", "environment", "named"),
    [
        ({}, {"HUBSCOPE_URL": "localhost:3401"}, "HUBSCOPE_URL"),
        ({}, {"HUBSCOPE_URL": "ftp://localhost"}, "HUBSCOPE_URL"),
        ({}, {"HUBSCOPE_URL": "http://user:pw@localhost"}, "HUBSCOPE_URL"),
        ({}, {"HUBSCOPE_URL": "http://localhost:x"}, "HUBSCOPE_URL"),
        ({}, {"HUBSCOPE_SPOOL_MAX_BYTES": "1"}, "HUBSCOPE_SPOOL_MAX_BYTES"),
        ({}, {"HUBSCOPE_WRAP_LINGER": "soon"}, "HUBSCOPE_WRAP_LINGER"),
        ({}, {"HUBSCOPE_WRAP_ERROR_MESSAGE_CHARS": "9000"}, "HUBSCOPE_WRAP_ERROR_MESSAGE_CHARS"),
        ({}, {"HUBSCOPE_API_KEY": "a b"}, "HUBSCOPE_API_KEY"),
        ({}, {"HUBSCOPE_API_KEY_FILE": "/nowhere"}, "HUBSCOPE_API_KEY_FILE"),
        ({"name": ""}, {}, "--name"),
        ({"name": "a\nb"}, {}, "--name"),
        ({"name": "x" * 201}, {}, "--name"),
    ],
)
def test_a_value_that_is_not_allowed_is_one_error_that_names_it(
    given: dict[str, str | None], environment: dict[str, str], named: str
) -> None:
    with pytest.raises(InvalidSetting, match=named):
        read(given, ["cat"], environment)


def test_the_command_line_is_above_the_environment_and_empty_is_not_set() -> None:
    environment = {"HUBSCOPE_URL": "http://a:1/", "HUBSCOPE_SPOOL_DIR": "/a", "HUBSCOPE_WRAP_LINGER": ""}
    assert read({"url": "http://b:2"}, ["cat"], environment) == Options(
        name="cat", command=("cat",), url="http://b:2", spool_dir="/a"
    )
    assert read({}, ["cat"], environment).url == "http://a:1"


def test_a_key_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hsk_file\n")
    (tmp_path / "other").write_text("hsk_other\n")
    by_file = {"HUBSCOPE_API_KEY_FILE": str(tmp_path / "key")}
    assert read({}, ["cat"], {}).api_key is None
    assert read({}, ["cat"], by_file).api_key == "hsk_file"
    assert read({}, ["cat"], by_file | {"HUBSCOPE_API_KEY": "hsk_variable"}).api_key == "hsk_variable"
    assert read({"api_key_file": str(tmp_path / "other")}, ["cat"], by_file).api_key == "hsk_other"


@pytest.mark.parametrize("field", LIMITS)
def test_the_wrapper_and_the_settings_page_say_the_same(field: str) -> None:
    limit = LIMITS[field]
    (name,) = (name for name in Settings.model_fields if describe(Settings, name)["env"] == limit.variable)
    setting = Settings.model_fields[name]
    least = [item.ge for item in setting.metadata if hasattr(item, "ge")]
    most = [item.le for item in setting.metadata if hasattr(item, "le")]
    assert (setting.default, max(least), min(most, default=None)) == (limit.default, limit.least, limit.most)
    assert getattr(Options(name="x", command=("x",)), field) == limit.default
    assert Settings.model_fields["url"].default == Options(name="x", command=("x",)).url
