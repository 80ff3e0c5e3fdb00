"""What may be registered, and what is said of what may not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.errors import InvalidParameter
from hubscope.peers.registration import HealthCheck, Registration, as_json, duration, health_check, registration

BODY = {"id": "postgres-main-v1.0.0", "endpoint": "http://postgres-main:3401", "protocol": "http"}
DEFAULTS = HealthCheck()


def registered(**more: Any) -> Registration:
    return registration({**BODY, **more}, DEFAULTS)


def test_a_registration_needs_an_id_an_endpoint_and_a_protocol_and_nothing_else() -> None:
    one = registered()
    assert (one.id, one.name, one.url, one.health_check) == (
        BODY["id"],
        BODY["id"],
        "http://postgres-main:3401/mcp",
        DEFAULTS,
    )


def test_an_answer_can_be_posted_again() -> None:
    """What the service sets itself is ignored."""
    assert registered(status="healthy", created_at="2026-11-22T00:00:00Z", updated_at="x", health={}) == registered()


@pytest.mark.parametrize(
    ("endpoint", "protocol", "url"),
    [
        ("http://h:1", "http", "http://h:1/mcp"),
        ("http://h:1/", "http", "http://h:1/mcp"),
        ("https://h/sql/mcp", "http", "https://h/sql/mcp"),
        ("http://h:1?tenant=x", "http", "http://h:1/mcp?tenant=x"),
        ("http://h:1", "sse", "http://h:1/sse"),
        ("http://[2001:db8::1]:80", "http", "http://[2001:db8::1]:80/mcp"),
    ],
)
def test_an_endpoint_without_a_path_means_mcp(endpoint: str, protocol: str, url: str) -> None:
    assert registered(endpoint=endpoint, protocol=protocol).url == url


@pytest.mark.parametrize(
    ("endpoint", "path", "url"),
    [
        ("http://h:1", "/health", "http://h:1/health"),
        ("http://h:1/base", "/health", "http://h:1/base/health"),
        ("http://h:1/", "", None),
    ],
)
def test_a_health_path_follows_the_endpoint(endpoint: str, path: str, url: str | None) -> None:
    assert registered(endpoint=endpoint, health_check={"path": path}).health_url == url


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"id": ""}, "id: .*missing"),
        ({"id": None}, "id: .*missing"),
        ({"id": "../etc"}, "^id: "),
        ({"id": "x" * 201}, "^id: "),
        ({"protocol": "grpc"}, "MCP defines no gRPC transport"),
        ({"protocol": "stdio"}, "operator's own file"),
        ({"protocol": "carrier pigeon"}, "^protocol: one of http"),
        ({"protocol": None}, "^protocol: "),
        ({"endpoint": ""}, "^endpoint: "),
        ({"endpoint": "file:///etc/passwd"}, "^endpoint: "),
        ({"endpoint": "gopher://h/x"}, "^endpoint: "),
        ({"endpoint": "http://user:hunter2@h/"}, "no user or password"),
        ({"endpoint": "http://h/#x"}, "no fragment"),
        ({"endpoint": "http://h/mcp?api_key=hunter2hunter2"}, "a secret in the URL; use auth"),
        ({"endpoint": "http://h:99999/"}, "^endpoint: not a URL"),
        ({"endpoint": "http://h/\n"}, "^endpoint: "),
        ({"endpoint": "http:///mcp"}, "^endpoint: "),
        ({"colour": "red"}, "'colour' is no field"),
        ({"command": "rm"}, "'command' is no field"),
        ({"name": "x" * 201}, "^name: "),
        ({"description": 5}, "^description: "),
        ({"tags": "a"}, "^tags: "),
        ({"capabilities": [1]}, "^capabilities: "),
        ({"metadata": []}, "^metadata: "),
        ({"auth": "secret"}, "^auth: "),
        ({"auth": {"type": "magic"}}, r"auth\.type: one of none, api_key"),
        ({"auth": {"type": "bearer"}}, r"auth\.config\.token: is missing"),
        ({"auth": {"type": "bearer", "config": {"token": "a\nb"}}}, r"auth\.config\.token: "),
        ({"auth": {"type": "basic", "config": {"username": "a:b", "password": "c"}}}, "colon"),
        ({"auth": {"type": "api_key", "config": {"key": "k", "header": "Host"}}}, r"auth\.config\.header"),
        ({"auth": {"type": "api_key", "config": {"key": "k", "query": "q"}}}, "'query' is not one"),
        (
            {"auth": {"type": "oauth2", "config": {"token_url": "file:///x", "client_id": "i", "client_secret": "s"}}},
            "endpoint: ",
        ),
        ({"health_check": []}, "^health_check: "),
        ({"health_check": {"every": 5}}, "^health_check: "),
        ({"health_check": {"interval": "soon"}}, r"health_check\.interval: a length of time"),
        ({"health_check": {"interval": "10ms"}}, r"health_check\.interval: 1s to"),
        ({"health_check": {"interval": True}}, r"health_check\.interval"),
        ({"health_check": {"interval": "5s", "timeout": "6s"}}, r"health_check\.timeout: at most"),
        ({"health_check": {"unhealthy_threshold": 11}}, r"health_check\.unhealthy_threshold: a whole number"),
        ({"health_check": {"unhealthy_threshold": True}}, r"health_check\.unhealthy_threshold"),
        ({"health_check": {"enabled": "yes"}}, r"health_check\.enabled"),
        ({"health_check": {"path": "health"}}, r"health_check\.path"),
        ({"health_check": {"path": "/a b"}}, r"health_check\.path"),
    ],
)
def test_what_will_not_do_is_named(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        registered(**more)


def test_a_refusal_never_repeats_a_secret() -> None:
    for auth in (
        {"type": "bearer", "config": {"token": "hunter2\n"}},
        {"type": "basic", "config": {"username": "a:hunter2", "password": "hunter2"}},
        {"type": "api_key", "config": {"key": "hunter2é"}},
        {"type": "none", "config": {"token": "hunter2"}},
    ):
        with pytest.raises(InvalidParameter) as refused:
            registered(auth=auth)
        assert "hunter2" not in refused.value.detail


def test_a_registration_does_not_print_its_secrets() -> None:
    assert "hunter2" not in repr(registered(auth={"type": "bearer", "config": {"token": "hunter2"}}))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30s", 30),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (" 10s ", 10),
        (30, 30),
        (0.5, 0.5),
        ("30", 30),
        (30_000_000_000, 30),  # as Go writes 30 * time.Second
        (999_999, 999_999),
        (1_000_000, 0.001),
    ],
)
def test_a_length_of_time_is_text_or_a_number(value: Any, seconds: float) -> None:
    assert duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "s", "soon", "-5s", "5 s s", "1d", None, True, [], float("nan"), -1, "9" * 30])
def test_what_is_no_length_of_time_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        duration(value)


def test_what_a_health_check_leaves_out_is_the_operators() -> None:
    operators = HealthCheck(interval_s=5, timeout_s=2, slow_s=0.5)
    assert health_check(None, operators) == operators
    assert health_check({}, operators) == operators
    # Go's zero values say nothing.
    assert health_check({"interval": 0, "timeout": 0, "unhealthy_threshold": 0, "path": ""}, operators) == operators
    assert health_check({"interval": "1s"}, operators).timeout_s == 1  # never longer than the interval
    assert health_check({"interval": "7s"}, operators) == HealthCheck(interval_s=7, timeout_s=2, slow_s=0.5)


@given(
    st.builds(
        HealthCheck,
        enabled=st.booleans(),
        interval_s=st.integers(600, 86_400).map(float),
        timeout_s=st.integers(50, 600_000).map(lambda ms: ms / 1000),
        healthy_threshold=st.integers(1, 10),
        unhealthy_threshold=st.integers(1, 10),
        slow_s=st.integers(1, 600_000).map(lambda ms: ms / 1000),
        path=st.sampled_from(("", "/health", "/a/b?c=d")),
    )
)
def test_a_health_check_that_is_shown_can_be_sent(check: HealthCheck) -> None:
    again = health_check(as_json(check), DEFAULTS)
    assert again.interval_s == pytest.approx(check.interval_s, rel=1e-5)
    assert again.timeout_s == pytest.approx(check.timeout_s, rel=1e-5)
    assert (again.enabled, again.healthy_threshold, again.unhealthy_threshold, again.path) == (
        check.enabled,
        check.healthy_threshold,
        check.unhealthy_threshold,
        check.path,
    )
