"""The operator's file: what MCP clients have in it already, and what hubscope reads beyond that."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hubscope.errors import InvalidSetting
from hubscope.peers.config import Configured, read
from hubscope.peers.registration import HealthCheck

ENVIRONMENT = {"TOKEN": "hunter2", "HERE": "/srv"}


def configured(directory: Path, servers: Any, whole: Any = None) -> list[Configured]:
    path = directory / "servers.json"
    path.write_text(whole if whole is not None else json.dumps({"mcpServers": servers}))
    return read(path, HealthCheck(), ENVIRONMENT)


def test_servers_are_read_from_the_json_of_mcp_clients(tmp_path: Path) -> None:
    time, remote, old = configured(
        tmp_path,
        {
            "time": {
                "command": "uvx",
                "args": ["mcp-server-time", "--local-timezone=UTC"],
                "env": {"TZ": "UTC", "EMPTY": ""},
                "cwd": "${HERE}",
                "autoApprove": ["get_current_time"],
            },
            "off": {"command": "x", "disabled": True},
            "remote": {
                "url": "https://mcp.example/mcp",
                "headers": {"Authorization": "Bearer ${TOKEN}", "X-Zone": "${ZONE:-eu}"},
                "tenant": "acme",
                "health_check": {"interval": "5s"},
                "maintenance": [{"from": "2026-11-22T02:00:00Z", "until": "2026-11-22T03:00:00Z", "reason": "move"}],
            },
            "old": {
                "type": "sse",
                "url": "http://10.0.0.1:8000",
                "auth": {"type": "bearer", "config": {"token": "${env:TOKEN}"}},
            },
        },
    )
    command = time.registration.command
    assert command is not None
    assert (command.command, command.args[0], command.cwd) == ("uvx", "mcp-server-time", "/srv")
    assert command.env == {"TZ": "UTC", "EMPTY": ""}
    assert (time.registration.protocol, time.tenant) == ("stdio", "default")
    assert remote.tenant == "acme"
    assert remote.registration.headers == {"Authorization": "Bearer hunter2", "X-Zone": "eu"}
    assert remote.registration.health_check.interval_s == 5
    assert remote.maintenance[0].starts_at == datetime(2026, 11, 22, 2, tzinfo=UTC)
    assert (old.registration.protocol, old.registration.auth.config) == ("sse", {"token": "hunter2"})
    assert all(one.registration.trusted for one in (time, remote, old))
    assert "hunter2" not in repr([remote, old])


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ({"a b": {"command": "x"}}, r"mcpServers\.a b: id: "),
        ({"a": "x"}, r"mcpServers\.a: an object"),
        ({"a": {}}, r"mcpServers\.a: url: a text"),
        ({"a": {"command": "x", "colour": 1}}, "'colour' is not one of its fields"),
        ({"a": {"command": "x", "args": "y"}}, "args: a list"),
        ({"a": {"command": "${NOWHERE}"}}, "command: the environment has no NOWHERE"),
        ({"a": {"url": "ftp://x"}}, "endpoint: "),
        ({"a": {"url": "http://x", "type": "grpc"}}, "type: one of http"),
        ({"a": {"command": "x", "tenant": "no tenant"}}, "tenant: "),
        ({"a": {"command": "x", "health_check": {"interval": 0.1}}}, r"health_check\.interval"),
        ({"a": {"command": "x", "maintenance": [{"from": "2026-11-22T02:00:00", "until": "x"}]}}, "maintenance: "),
    ],
)
def test_an_entry_that_will_not_do_is_named(tmp_path: Path, servers: Any, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        configured(tmp_path, servers)


@pytest.mark.parametrize(
    ("text", "said"), [("{", "not valid JSON"), ("[]", "not of the form"), ("{}", "not of the form")]
)
def test_a_file_that_will_not_do_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        configured(tmp_path, None, whole=text)
    with pytest.raises(InvalidSetting, match="cannot be read"):
        read(tmp_path / "none.json", HealthCheck())
