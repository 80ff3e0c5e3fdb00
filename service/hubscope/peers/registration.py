"""What somebody registers: a server's JSON, checked. Pure. Secrets are taken out at once and kept apart.

The shape is that of the federation API that clients know (MCPServer). Fields that the service sets itself (`status`,
`created_at`, `updated_at`) may be sent and are ignored, so that an answer can be posted again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit, urlunsplit

from hubscope.errors import InvalidParameter
from hubscope.redact import redact_text

Protocol = Literal["http", "sse", "stdio"]
AuthType = Literal["none", "api_key", "bearer", "jwt", "basic", "oauth2"]

ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
NANOSECONDS_FROM: Final = 1_000_000
"""A number of at least so much is nanoseconds, as Go writes durations; a smaller one is seconds."""
LEAST_INTERVAL_S: Final = 1.0
"""Shortest interval between probes: a tenant's registration is no means to flood a server."""
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h)")
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_FORBIDDEN_HEADERS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "accept", "accept-encoding", "cookie"}
)

CONFIG_OF: Final[Mapping[AuthType, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "none": ((), ()),
    "api_key": (("key",), ("header",)),
    "bearer": (("token",), ()),
    "jwt": (("token",), ()),
    "basic": (("username", "password"), ()),
    "oauth2": (("token_url", "client_id", "client_secret"), ("scope", "audience")),
}
"""type -> what its config must have, and what it may have."""
FIELDS: Final = frozenset(
    {"id", "name", "description", "version", "category", "endpoint", "protocol", "auth", "capabilities", "tags"}
    | {"metadata", "health_check"}
)
IGNORED: Final = frozenset({"status", "created_at", "updated_at", "health", "source"})


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How a server is watched.

    Attributes:
        enabled: off leaves its state unknown; it can still be called.
        interval_s: between two probes.
        timeout_s: a probe without an answer after this has failed.
        healthy_threshold: good probes in a row until a server that was not up is.
        unhealthy_threshold: failed (slow) probes in a row until a server is down (degraded).
        slow_s: an answer that takes longer is slow.
        path: probe by GET on this path (2xx is good); empty means by an MCP request.
    """

    enabled: bool = True
    interval_s: float = 30.0
    timeout_s: float = 10.0
    healthy_threshold: int = 2
    unhealthy_threshold: int = 2
    slow_s: float = 2.0
    path: str = ""


@dataclass(frozen=True, slots=True)
class Auth:
    """How we prove ourselves to a server. Only `type` is ever shown."""

    type: AuthType = "none"
    config: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Command:
    """What starts a stdio server. From the operator's own file only."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """A server as it was registered.

    Attributes:
        endpoint: its URL, as given; empty for stdio.
        auth: how to prove ourselves; kept sealed and apart.
        headers: sent with every request; from the operator's file only, may hold secrets.
        command: what starts it, for stdio.
        trusted: it stands in the operator's file, and may be anywhere.
    """

    id: str
    name: str
    endpoint: str
    protocol: Protocol
    description: str = ""
    version: str = ""
    category: str = ""
    auth: Auth = Auth()
    capabilities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    health_check: HealthCheck = HealthCheck()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    command: Command | None = None
    trusted: bool = False

    @property
    def transport(self) -> Literal["http", "sse", "stdio"]:
        """As events name it."""
        return self.protocol

    @property
    def url(self) -> str:
        """Where MCP is spoken: an endpoint without a path means /mcp (/sse for sse)."""
        parts = urlsplit(self.endpoint)
        if parts.path in ("", "/"):
            parts = parts._replace(path="/sse" if self.protocol == "sse" else "/mcp")
        return urlunsplit(parts)

    @property
    def health_url(self) -> str | None:
        """Where health is asked by GET; None when it is asked by MCP."""
        if not self.health_check.path or self.protocol == "stdio":
            return None
        parts = urlsplit(self.endpoint)
        base = parts.path.rstrip("/") if parts.path not in ("", "/") else ""
        return urlunsplit(parts._replace(path=base + self.health_check.path, query=""))


def registration(body: Mapping[str, Any], defaults: HealthCheck) -> Registration:
    """A registration from the body of a request.

    Args:
        body: the JSON object.
        defaults: what health_check leaves out.

    Raises:
        InvalidParameter: naming the field and what is allowed.
    """
    unknown = sorted(body.keys() - FIELDS - IGNORED)
    if unknown:
        raise InvalidParameter(f"{unknown[0][:80]!r} is no field of a server (allowed: {', '.join(sorted(FIELDS))})")
    protocol = _protocol(body.get("protocol"))
    return Registration(
        id=server_id(body.get("id")),
        name=_text(body, "name", 200) or str(body["id"]),
        description=_text(body, "description", 2_000),
        version=_text(body, "version", 100),
        category=_text(body, "category", 100),
        protocol=protocol,
        endpoint=endpoint(body.get("endpoint"), protocol),
        auth=auth(body.get("auth")),
        capabilities=_texts(body, "capabilities"),
        tags=_texts(body, "tags"),
        metadata=_object(body, "metadata"),
        health_check=health_check(body.get("health_check"), defaults),
    )


def server_id(value: Any) -> str:
    """The id of a server.

    Raises:
        InvalidParameter.
    """
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise InvalidParameter(
            "id: 1 to 200 letters, digits, '.', '_' and '-', a letter or digit first"
            + (" (it is missing)" if value in (None, "") else "")
        )
    return value


def _protocol(value: Any) -> Protocol:
    match value:
        case "http" | "sse":
            return cast(Protocol, value)
        case "stdio":
            raise InvalidParameter(
                "protocol: a stdio server is a command on this machine, and can only be named in the operator's own"
                " file (HUBSCOPE_SERVERS_FILE), never over HTTP (allowed: http, sse)"
            )
        case "grpc":
            raise InvalidParameter(
                "protocol: grpc is not supported, since MCP defines no gRPC transport; put a bridge in front of the"
                " server and register that (allowed: http, sse)"
            )
    raise InvalidParameter("protocol: one of http (MCP streamable HTTP) and sse")


def endpoint(value: Any, protocol: Protocol) -> str:
    """The URL of a server; whether we may go there is the guard's to say.

    Raises:
        InvalidParameter.
    """
    if not isinstance(value, str) or not 0 < len(value) <= 2_000 or not value.isprintable():
        raise InvalidParameter("endpoint: an http or https URL of at most 2000 characters")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidParameter(f"endpoint: not a URL ({error})") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidParameter("endpoint: an http or https URL with a host, such as http://postgres-main:3401")
    if parts.username is not None or parts.password is not None:
        raise InvalidParameter("endpoint: no user or password in the URL; use auth (type basic)")
    if parts.fragment:
        raise InvalidParameter("endpoint: no fragment (#...) in the URL")
    if redact_text(value) != value:  # endpoints are shown
        raise InvalidParameter("endpoint: there seems to be a secret in the URL; use auth")
    return value


def auth(value: Any) -> Auth:
    """How to prove ourselves.

    Raises:
        InvalidParameter: never repeating what was sent.
    """
    if value is None:
        return Auth()
    if not isinstance(value, Mapping) or value.keys() - {"type", "config"}:
        raise InvalidParameter('auth: {"type": ..., "config": {...}}')
    kind = value.get("type") or "none"
    if not isinstance(kind, str) or kind not in CONFIG_OF:
        raise InvalidParameter(f"auth.type: one of {', '.join(CONFIG_OF)}")
    kind = cast(AuthType, kind)
    needed, optional = CONFIG_OF[kind]
    config = value.get("config") or {}
    if not isinstance(config, Mapping):
        raise InvalidParameter("auth.config: an object")
    for name in needed:
        if name not in config:
            raise InvalidParameter(f"auth.config.{name}: is missing (auth.type {kind} needs {', '.join(needed)})")
    for name, text in config.items():
        if name not in needed + optional:
            allowed = ", ".join(needed + optional) or "nothing"
            raise InvalidParameter(f"auth.config: {str(name)[:80]!r} is not one of its fields (allowed: {allowed})")
        if not isinstance(text, str) or not 0 < len(text) <= 8_000 or not text.isprintable():
            raise InvalidParameter(f"auth.config.{name}: a text of 1 to 8000 characters in one line")
    if kind == "basic" and ":" in config["username"]:
        raise InvalidParameter("auth.config.username: no colon in it (RFC 7617)")
    if kind == "oauth2":
        endpoint(config["token_url"], "http")
    if "header" in config and (
        not _HEADER.fullmatch(config["header"]) or config["header"].lower() in _FORBIDDEN_HEADERS
    ):
        raise InvalidParameter("auth.config.header: not a name that a key may be sent under (default: X-API-Key)")
    for name in ("key", "token"):
        if name in config and not config[name].isascii():
            raise InvalidParameter(f"auth.config.{name}: ASCII only")
    return Auth(kind, dict(config))


def health_check(value: Any, defaults: HealthCheck) -> HealthCheck:
    """How a server is watched.

    Raises:
        InvalidParameter.
    """
    if value is None:
        return defaults
    allowed = {"enabled", "interval", "timeout", "healthy_threshold", "unhealthy_threshold", "slow", "path"}
    if not isinstance(value, Mapping) or value.keys() - allowed:
        raise InvalidParameter(f"health_check: an object of {', '.join(sorted(allowed))}")
    enabled = value.get("enabled", defaults.enabled)
    if not isinstance(enabled, bool):
        raise InvalidParameter("health_check.enabled: true or false")
    path = value.get("path") or ""
    if not isinstance(path, str) or len(path) > 500 or (path and not re.fullmatch(r"/[!-~]*", path)) or "#" in path:
        raise InvalidParameter("health_check.path: a path such as /health, at most 500 characters")
    interval_s = _seconds(value, "interval", defaults.interval_s, LEAST_INTERVAL_S, 86_400.0)
    check = HealthCheck(
        enabled,
        interval_s,
        _seconds(value, "timeout", min(defaults.timeout_s, interval_s), 0.05, 600.0),
        _threshold(value, "healthy_threshold", defaults.healthy_threshold),
        _threshold(value, "unhealthy_threshold", defaults.unhealthy_threshold),
        _seconds(value, "slow", defaults.slow_s, 0.001, 600.0),
        path,
    )
    if check.timeout_s > check.interval_s:
        raise InvalidParameter("health_check.timeout: at most health_check.interval: probes must not pile up")
    return check


def duration(value: Any) -> float:
    """Seconds, from "30s", "1m30s", "500ms", or a number: of seconds, or of nanoseconds from a million on.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, int | float):
        seconds = float(value) / 1e9 if value >= NANOSECONDS_FROM else float(value)
    elif isinstance(value, str) and (text := value.strip()):
        if re.fullmatch(r"\d{1,15}(\.\d{1,9})?", text):
            return duration(float(text))
        if not re.fullmatch(rf"(?:{_DURATION.pattern}){{1,6}}", text):
            raise ValueError
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    else:
        raise ValueError
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError
    return seconds


def as_json(check: HealthCheck) -> dict[str, Any]:
    """As it is kept and shown: durations as text that is accepted again."""
    return {
        "enabled": check.enabled,
        "interval": in_words(check.interval_s),
        "timeout": in_words(check.timeout_s),
        "healthy_threshold": check.healthy_threshold,
        "unhealthy_threshold": check.unhealthy_threshold,
        "slow": in_words(check.slow_s),
        "path": check.path,
    }


def in_words(seconds: float) -> str:
    """30.0 -> "30s", 0.25 -> "250ms"."""
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"


def _seconds(value: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    sent = value.get(name)
    if sent in (None, "", 0) and not isinstance(sent, bool):
        return default  # Go's zero value means that nothing was said
    try:
        seconds = duration(sent)
    except ValueError:
        raise InvalidParameter(
            f'health_check.{name}: a length of time such as "30s", "500ms", or a number of seconds'
        ) from None
    if not least <= seconds <= most:
        raise InvalidParameter(f"health_check.{name}: {in_words(least)} to {in_words(most)}")
    return seconds


def _threshold(value: Mapping[str, Any], name: str, default: int) -> int:
    sent = value.get(name)
    if sent in (None, 0) and not isinstance(sent, bool):
        return default
    if not isinstance(sent, int) or isinstance(sent, bool) or not 1 <= sent <= 10:
        raise InvalidParameter(f"health_check.{name}: a whole number from 1 to 10")
    return sent


def _text(body: Mapping[str, Any], name: str, longest: int) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest or "\0" in value:
        raise InvalidParameter(f"{name}: a text of at most {longest} characters")
    return value


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name)
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) > 200
        or not all(isinstance(one, str) and len(one) <= 200 and "\0" not in one for one in value)
    ):
        raise InvalidParameter(f"{name}: a list of at most 200 texts of at most 200 characters")
    return tuple(value)


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidParameter(f"{name}: an object")
    return value
