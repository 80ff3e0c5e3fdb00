"""What is taken of a hub's answers: the fields named, and never what stands beside them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubscope.bridge.seen import (
    ConfigChanged,
    HubState,
    ListChanged,
    ServersUpdated,
    Signal,
    refreshed,
    refusal,
    server,
    signal,
    snapshot,
)

SECRET = "canary-4f1b"
INFO: dict[str, Any] = {
    "name": "time",
    "displayName": "Time",
    "description": SECRET,
    "transportType": "stdio",
    "status": "connected",
    "error": None,
    "capabilities": {
        "tools": [{"name": "now", "description": SECRET, "inputSchema": {"default": SECRET}}],
        "resources": [{"uri": "file:///a", "name": SECRET}],
        "resourceTemplates": [{"uriTemplate": "file:///{x}"}],
        "prompts": [{"name": "ask"}],
    },
    "uptime": 12,
    "lastStarted": "2026-11-21T20:00:00.000Z",
    "authorizationUrl": f"https://login.example/?state={SECRET}",
    "serverInfo": {"name": "mcp-time", "version": "1.0", "token": SECRET},
    "config_source": f"/home/{SECRET}/servers.json",
    "env": {"KEY": SECRET},
    "args": ["--token", SECRET],
    "headers": {"Authorization": f"Bearer {SECRET}"},
    "url": f"http://user:{SECRET}@host/",
}
HEALTH: dict[str, Any] = {
    "status": "ok",
    "state": "ready",
    "server_id": "mcp-hub",
    "version": "4.2.1",
    "timestamp": "2026-11-21T20:00:12.345Z",
    "servers": [INFO],
    "workspaces": {"current": SECRET, "allActive": {"1": {"cwd": f"/{SECRET}", "config_files": [SECRET]}}},
    "connections": {"totalConnections": 1, "connections": [{"id": SECRET}]},
}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_of_a_server_only_what_is_named_is_taken() -> None:
    found = snapshot(encoded(HEALTH), 500)
    (seen,) = found.servers
    assert (found.state, found.version, found.unreadable) == ("ready", "4.2.1", 0)
    assert found.time is not None
    assert (seen.name, seen.status, seen.transport, seen.uptime_s) == ("time", "connected", "stdio", 12)
    assert dict(seen.offers) == {"tools": {"now"}, "resources": {"file:///a", "file:///{x}"}, "prompts": {"ask"}}
    assert seen.version == ("mcp-time", "1.0")
    assert SECRET not in repr(found)


CHANGES = {
    "added": ["a"],
    "removed": ["b"],
    "modified": ["c"],
    "unchanged": ["d"],
    "details": {"c": {"modifiedFields": ["env"], "oldValues": {"env": {"K": SECRET}}, "newValues": {"env": SECRET}}},
}


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("hub_state", {"state": "ready", "server_id": "mcp-hub", "pid": 7, "port": 1}, HubState("ready", 7)),
        ("hub_state", {"state": "error", "message": "no", "code": "E", "data": SECRET}, HubState("error", None, "no")),
        ("hub_state", {"state": 5}, None),
        ("hub_state", {}, None),
        (
            "subscription_event",
            {"type": "config_changed", "isSignificant": True, "newConfig": {"mcpServers": {"x": INFO}}},
            ConfigChanged(True),
        ),
        ("subscription_event", {"type": "config_changed"}, ConfigChanged(False)),
        ("subscription_event", {"type": "servers_updating", "changes": CHANGES}, None),
        ("subscription_event", {"type": "servers_updated", "changes": CHANGES}, ServersUpdated(("a",), ("b",), ("c",))),
        (
            "subscription_event",
            {"type": "servers_updated", "changes": {"modified": ["c"]}, "reason": "dev_file_change", "files": [SECRET]},
            ServersUpdated(modified=("c",), reason="dev_file_change"),
        ),
        (
            "subscription_event",
            {"type": "servers_updated", "reason": f"x {SECRET}"},
            ServersUpdated(reason="unknown"),
        ),
        (
            "subscription_event",
            {"type": "tool_list_changed", "server": "t", "tools": [INFO]},
            ListChanged("t", "tools"),
        ),
        ("subscription_event", {"type": "prompt_list_changed", "server": "t"}, ListChanged("t", "prompts")),
        ("subscription_event", {"type": "tool_list_changed", "server": {"x": 1}}, None),
        ("subscription_event", {"type": "workspaces_updated", "workspaces": {"1": {"cwd": SECRET}}}, None),
        ("subscription_event", [], None),
    ],
)
def test_of_an_event_only_what_is_named_is_taken(name: str, data: Any, expected: Signal | None) -> None:
    found = signal(name.encode(), encoded(data), 500)
    assert found == expected
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("transport", "expected"), [("stdio", "stdio"), ("sse", "http"), ("streamable-http", "http"), (None, "")]
)
def test_a_remote_server_is_http_since_the_hub_calls_all_of_them_sse(transport: str | None, expected: str) -> None:
    found = server(encoded(INFO | {"transportType": transport}), 0)
    assert found is not None
    assert found.transport == expected


def test_error_texts_are_redacted_and_cut() -> None:
    words = "cannot\0 reach postgresql://bob:hunter2pass@db/x with token=abcdefghijklmnop1234 " + "and so on " * 90
    found = server(encoded(INFO | {"error": words}), 500)
    assert found is not None
    assert "hunter2pass" not in found.error
    assert "abcdefghijklmnop1234" not in found.error
    assert "\0" not in found.error
    assert len(found.error) in (499, 500)  # a space at the end goes
    none = server(encoded(INFO | {"error": words}), 0)
    assert none is not None
    assert none.error == ""
    state = signal(b"hub_state", encoded({"state": "error", "message": words}), 40)
    assert isinstance(state, HubState)
    assert len(state.error) <= 40
    said = refusal(encoded({"error": "password=hunter2pass", "data": {"args": SECRET}}), 500)
    assert "hunter2pass" not in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("spawn /opt/s3cret/server ENOENT", "spawn [path] ENOENT"),
        ("fetch failed: http://127.0.0.1:9/s3cret?x=1", "fetch failed: [url]"),
        ("cannot open 'C:\\Users\\s3cret': no", "cannot open '[path]': no"),
        ("~/s3cret, ./s3cret and ../s3cret", "[path], [path] and [path]"),
        ("and/or 3/4 of a/b", "and/or 3/4 of a/b"),
    ],
)
def test_addresses_and_paths_stay_here(words: str, kept: str) -> None:
    """They come from the hub's configuration, and what is secret in them need not look like it."""
    found = server(encoded(INFO | {"error": words}), 500)
    assert found is not None
    assert found.error == kept


@pytest.mark.parametrize(
    "broken",
    [
        {"name": 5},
        {"name": ""},
        {"status": None},
        {"capabilities": {"tools": [5]}},
        {"uptime": "long"},
        {"serverInfo": []},
    ],
)
def test_a_server_that_cannot_be_read_costs_no_other(broken: dict[str, Any]) -> None:
    found = snapshot(encoded(HEALTH | {"servers": [INFO | broken, INFO, None, 5]}), 500)
    assert [each.name for each in found.servers] == ["time"]
    assert found.unreadable == 3


def test_a_server_may_leave_out_all_but_its_name_and_status() -> None:
    found = server(encoded({"name": "x", "status": "connecting", "uptime": None, "capabilities": None}), 500)
    assert found is not None
    assert (found.count("tools"), found.uptime_s) == (0, 0)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"state": "ready"}', b"\xff", b"[" * 100_000])
def test_what_is_no_mcp_hub_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(ValueError, match="not an mcp-hub's answer"):
        snapshot(body, 500)


def test_a_refreshed_server_comes_with_the_hubs_time() -> None:
    found, at = refreshed(encoded({"status": "ok", "server": INFO, "timestamp": HEALTH["timestamp"]}), 500)
    assert found is not None
    assert found.name == "time"
    assert at is not None
    assert refreshed(b"{}", 500) == (None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*INFO, *HEALTH, "type"]), inner),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*INFO, "type", "state", "pid", "changes"]), JSON, max_size=6))
def test_nothing_that_a_hub_may_say_raises(said: dict[str, Any]) -> None:
    body = encoded(said)
    server(body, 500)
    refreshed(encoded({"server": said}), 500)
    refusal(body, 500)
    for name in (b"hub_state", b"subscription_event"):
        signal(name, body, 500)
    assert snapshot(encoded({"state": "ready", "servers": [said]}), 500).state == "ready"
