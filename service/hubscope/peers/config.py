"""The operator's own servers: the `mcpServers` JSON that MCP clients already use. Only these may be stdio."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from hubscope.access.principal import DEFAULT_TENANT
from hubscope.errors import HubscopeError, InvalidParameter, InvalidSetting
from hubscope.peers.registration import (
    Command,
    HealthCheck,
    Protocol,
    Registration,
    auth,
    endpoint,
    health_check,
    server_id,
)

_VARIABLE: Final = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_TYPES: Final[Mapping[str, Protocol]] = {
    "": "http",
    "http": "http",
    "streamable-http": "http",
    "streamableHttp": "http",
    "streamable_http": "http",
    "sse": "sse",
    "stdio": "stdio",
}
_FIELDS: Final = frozenset(
    {"command", "args", "env", "cwd", "url", "type", "transport", "headers", "disabled", "auth", "health_check"}
    | {"name", "description", "version", "category", "capabilities", "tags", "metadata", "tenant", "maintenance"}
)
_OTHERS: Final = frozenset({"autoApprove", "alwaysAllow", "disabledTools", "timeout", "dev", "requires", "inherit"})
"""What clients keep there for themselves."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A maintenance window of the file: [starts_at, ends_at)."""

    starts_at: datetime
    ends_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Configured:
    """A server of the file: whose it is, and what it is."""

    tenant: str
    registration: Registration
    maintenance: tuple[Planned, ...] = ()


def read(path: Path, defaults: HealthCheck, environment: Mapping[str, str] = os.environ) -> list[Configured]:
    """The servers of a file. `${NAME}` and `${NAME:-default}` in commands, URLs, headers and env are filled in.

    Raises:
        InvalidSetting: the file cannot be read, or an entry will not do; naming the entry and the field.
    """
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise InvalidSetting(f"HUBSCOPE_SERVERS_FILE: {path} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidSetting(f"HUBSCOPE_SERVERS_FILE: {path} is not valid JSON: {error}") from None
    entries = document.get("mcpServers") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise InvalidSetting(f'HUBSCOPE_SERVERS_FILE: {path} is not of the form {{"mcpServers": {{...}}}}')
    found = []
    for name, entry in entries.items():
        if isinstance(entry, dict) and entry.get("disabled") is True:
            continue
        try:
            found.append(_configured(name, entry, defaults, environment))
        except HubscopeError as error:
            raise InvalidSetting(f"HUBSCOPE_SERVERS_FILE: {path}: mcpServers.{name}: {error.detail}") from None
    return found


def _configured(name: str, entry: Any, defaults: HealthCheck, environment: Mapping[str, str]) -> Configured:
    if not isinstance(entry, dict):
        raise InvalidParameter("an object")
    unknown = sorted(entry.keys() - _FIELDS - _OTHERS)
    if unknown:
        raise InvalidParameter(f"{unknown[0]!r} is not one of its fields (allowed: {', '.join(sorted(_FIELDS))})")
    filled = _Filler(environment)
    given = entry.get("type", entry.get("transport", "stdio" if "command" in entry else ""))
    protocol = _TYPES.get(given) if isinstance(given, str) else None
    if protocol is None:
        raise InvalidParameter(f"type: one of {', '.join(one for one in _TYPES if one)}")
    command = None
    url = ""
    if protocol == "stdio":
        command = Command(
            filled.text(entry.get("command"), "command"),
            tuple(filled.text(one, "args") for one in _list(entry, "args")),
            filled.texts(entry.get("env"), "env"),
            filled.text(entry["cwd"], "cwd") if entry.get("cwd") else None,
        )
    else:
        url = endpoint(filled.text(entry.get("url"), "url"), protocol)
    tenant = entry.get("tenant", DEFAULT_TENANT)
    if not isinstance(tenant, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", tenant):
        raise InvalidParameter("tenant: the name of a tenant")
    given_auth = entry.get("auth")
    if isinstance(given_auth, dict) and isinstance(given_auth.get("config"), dict):
        given_auth = {**given_auth, "config": filled.texts(given_auth["config"], "auth.config")}
    return Configured(
        tenant,
        Registration(
            id=server_id(name),
            name=str(entry.get("name") or name)[:200],
            description=str(entry.get("description") or "")[:2_000],
            version=str(entry.get("version") or "")[:100],
            category=str(entry.get("category") or "")[:100],
            endpoint=url,
            protocol=protocol,
            auth=auth(given_auth),
            capabilities=tuple(str(one)[:200] for one in _list(entry, "capabilities")),
            tags=tuple(str(one)[:200] for one in _list(entry, "tags")),
            metadata=entry.get("metadata") or {},
            health_check=health_check(entry.get("health_check"), defaults),
            headers=filled.texts(entry.get("headers"), "headers"),
            command=command,
            trusted=True,
        ),
        tuple(_planned(one) for one in _list(entry, "maintenance")),
    )


def _planned(value: Any) -> Planned:
    try:
        starts_at, ends_at = datetime.fromisoformat(value["from"]), datetime.fromisoformat(value["until"])
        if starts_at.tzinfo is None or ends_at.tzinfo is None or not starts_at < ends_at:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise InvalidParameter(
            'maintenance: [{"from": "2026-11-22T02:00:00Z", "until": "2026-11-22T03:00:00Z", "reason": "..."}]'
        ) from None
    return Planned(starts_at, ends_at, str(value.get("reason") or "")[:500])


def _list(entry: Mapping[str, Any], name: str) -> list[Any]:
    value = entry.get(name) or []
    if not isinstance(value, list):
        raise InvalidParameter(f"{name}: a list")
    return value


class _Filler:
    """Fills `${NAME}` in."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, value: Any, field: str) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise InvalidParameter(f"{field}: a text")

        def fill(match: re.Match[str]) -> str:
            found = self._environment.get(match.group(1), match.group(2))
            if found is None:
                raise InvalidParameter(f"{field}: the environment has no {match.group(1)}")
            return found

        return _VARIABLE.sub(fill, value)

    def texts(self, value: Any, field: str) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise InvalidParameter(f"{field}: an object of texts")
        return {str(name): self.text(one, f"{field}.{name}") if one != "" else "" for name, one in value.items()}
