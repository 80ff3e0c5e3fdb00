"""What is taken of an mcp-hub's answers and of its stream, and nothing else.

Its payloads hold what must never be stored: whole configurations with environments, arguments, headers and addresses,
authorization URLs, the words of every server's stderr. The structs here name the few fields that are read; the decoder
passes over the rest. Two of them are text that a server or the hub may have filled with anything (`error`, `message`):
they are redacted and cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from hubscope.model import Transport
from hubscope.redact import redact_text
from hubscope.wrap.protocol import name_of

Kind = Literal["tools", "resources", "prompts"]
KINDS: Final[tuple[Kind, ...]] = ("tools", "resources", "prompts")
NAMES_MAX: Final = 50
"""Most names of one list that an event carries; the counts beside them are whole."""
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

HUB_STATE: Final = b"hub_state"
SUBSCRIPTION: Final = b"subscription_event"
_URL: Final = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s\"'`<>]+")
_PATH: Final = re.compile(r"(?<![\w/.])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s\"'`<>:,;()]+")
READ: Final = frozenset({HUB_STATE, SUBSCRIPTION})
"""Events of the stream that are read; `log` and `heartbeat` are not."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server as the hub describes it.

    Attributes:
        status: the hub's word: connected, connecting, disconnected, unauthorized, disabled.
        uptime_s: whole seconds since it connected; 0 also where its transport has closed.
        last_started: when the hub last began to connect it, as the hub writes it.
        error: redacted and cut; empty for none.
        offers: kind of list -> the names in it.
        version: name and version that the server gives itself.
    """

    name: str
    status: str
    transport: Transport = ""
    uptime_s: float = 0
    last_started: str = ""
    error: str = ""
    offers: tuple[tuple[Kind, frozenset[str]], ...] = ()
    version: tuple[str, str] = ("", "")

    def count(self, kind: Kind) -> int:
        return len(dict(self.offers).get(kind, ()))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the hub says of itself and its servers at one moment.

    Attributes:
        time: by the hub's clock; None where it does not say.
        unreadable: servers that could not be read.
    """

    state: str
    version: str = ""
    time: datetime | None = None
    servers: tuple[Server, ...] = ()
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class HubState:
    """The hub's state, on connecting to the stream and at each change."""

    state: str
    pid: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class ListChanged:
    """A server said that a list of its has changed."""

    server: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """The hub read its configuration again; not significant: nothing to do, or it could not be read."""

    significant: bool


@dataclass(frozen=True, slots=True)
class ServersUpdated:
    """The hub added, removed, started or stopped servers (also said of a start or stop that failed)."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    reason: str = ""


Signal = HubState | ListChanged | ConfigChanged | ServersUpdated


def snapshot(body: bytes, error_chars: int) -> Snapshot:
    """GET /api/health.

    Args:
        error_chars: longest error text that is kept; 0 keeps none.

    Raises:
        ValueError: this is not what an mcp-hub answers.
    """
    try:
        health = _HEALTH.decode(body)
    except UNREADABLE as error:
        raise ValueError(f"not an mcp-hub's answer: {str(error)[:200]}") from None
    servers = [server(bytes(raw), error_chars) for raw in health.servers]
    return Snapshot(
        state=_word(health.state),
        version=name_of(_text(health.version)),
        time=_time(_text(health.timestamp)),
        servers=tuple(found for found in servers if found is not None),
        unreadable=servers.count(None),
    )


def refreshed(body: bytes, error_chars: int) -> tuple[Server | None, datetime | None]:
    """POST /api/servers/refresh: the server (None where it cannot be read), and when, by the hub's clock."""
    try:
        answer = _REFRESHED.decode(body)
    except UNREADABLE:
        return None, None
    return server(bytes(answer.server), error_chars), _time(_text(answer.timestamp))


def refusal(body: bytes, error_chars: int) -> str:
    """The words of an error that the hub answered; what comes with them (it repeats arguments) is not read."""
    try:
        return fit(_text(_ERROR.decode(body).error), error_chars)
    except UNREADABLE:
        return ""


def server(raw: bytes, error_chars: int) -> Server | None:
    """One ServerInfo; None where it cannot be read."""
    try:
        info = _SERVER.decode(raw)
        offers = _CAPABILITIES.decode(info.capabilities) if _given(info.capabilities) else _Capabilities()
        about = _VERSION.decode(info.server_info) if _given(info.server_info) else _Version()
        uptime = msgspec.json.decode(info.uptime, type=float) if _given(info.uptime) else 0.0
    except UNREADABLE:
        return None
    name = name_of(info.name)
    if not name:
        return None
    transport = _text(info.transport_type)
    return Server(
        name=name,
        status=_word(info.status),
        # The hub calls every remote server `sse`, whatever it speaks with it.
        transport="stdio" if transport == "stdio" else "http" if transport else "",
        uptime_s=max(uptime, 0.0),
        last_started=_text(info.last_started)[:64],
        error=fit(_text(info.error), error_chars),
        offers=(
            ("tools", _names(each.name for each in offers.tools)),
            (
                "resources",
                _names(
                    [each.uri for each in offers.resources] + [each.uri_template for each in offers.resource_templates]
                ),
            ),
            ("prompts", _names(each.name for each in offers.prompts)),
        ),
        version=(name_of(_text(about.name)), name_of(_text(about.version))),
    )


def signal(name: bytes, data: bytes, error_chars: int) -> Signal | None:
    """One event of the stream; None where it says nothing that is kept, or cannot be read."""
    try:
        if name == HUB_STATE:
            state = _STATE.decode(data)
            return HubState(_word(state.state), _pid(state.pid), fit(_text(state.message), error_chars))
        return _subscription(_SUBSCRIBED.decode(data))
    except UNREADABLE:
        return None


def fit(text: str, chars: int) -> str:
    """Words of others: without secrets, addresses, paths and NUL, at most so many characters.

    Addresses and paths come from the hub's configuration, and what is secret in them need not look like it.
    """
    text = _PATH.sub("[path]", _URL.sub("[url]", redact_text(text[: 4 * chars + 1_000])))
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:chars].strip()


# The fields that are read, by the names that the hub gives them


class _Named(Struct):
    name: str = ""


class _Located(Struct):
    uri: str = ""


class _Template(Struct, rename="camel"):
    uri_template: str = ""


class _Capabilities(Struct, rename="camel"):
    tools: list[_Named] = []
    resources: list[_Located] = []
    resource_templates: list[_Template] = []
    prompts: list[_Named] = []


class _Version(Struct):
    name: Raw = Raw(b"")
    version: Raw = Raw(b"")


class _Server(Struct, rename="camel"):
    name: str
    status: str
    transport_type: Raw = Raw(b"")
    error: Raw = Raw(b"")
    capabilities: Raw = Raw(b"")
    uptime: Raw = Raw(b"")
    last_started: Raw = Raw(b"")
    server_info: Raw = Raw(b"")


class _Health(Struct):
    state: str
    servers: list[Raw]
    version: Raw = Raw(b"")
    timestamp: Raw = Raw(b"")


class _Refreshed(Struct):
    server: Raw
    timestamp: Raw = Raw(b"")


class _Error(Struct):
    error: Raw = Raw(b"")


class _State(Struct):
    state: str
    pid: Raw = Raw(b"")
    message: Raw = Raw(b"")


class _Changes(Struct):
    added: list[str] = []
    removed: list[str] = []
    modified: list[str] = []


class _Subscribed(Struct, rename="camel"):
    type: str
    server: Raw = Raw(b"")
    is_significant: Raw = Raw(b"")
    changes: Raw = Raw(b"")
    reason: Raw = Raw(b"")


_HEALTH = msgspec.json.Decoder(_Health)
_REFRESHED = msgspec.json.Decoder(_Refreshed)
_ERROR = msgspec.json.Decoder(_Error)
_SERVER = msgspec.json.Decoder(_Server)
_CAPABILITIES = msgspec.json.Decoder(_Capabilities)
_VERSION = msgspec.json.Decoder(_Version)
_STATE = msgspec.json.Decoder(_State)
_SUBSCRIBED = msgspec.json.Decoder(_Subscribed)
_CHANGES = msgspec.json.Decoder(_Changes)


def _subscription(told: _Subscribed) -> Signal | None:
    if told.type.endswith("_list_changed"):
        kinds: dict[str, Kind] = {"tool": "tools", "resource": "resources", "prompt": "prompts"}
        kind, name = kinds.get(told.type.removesuffix("_list_changed")), name_of(_text(told.server))
        return ListChanged(name, kind) if kind and name else None
    if told.type == "config_changed":
        return ConfigChanged(bytes(told.is_significant) == b"true")
    if told.type == "servers_updated":
        changes = _CHANGES.decode(told.changes) if _given(told.changes) else _Changes()
        return ServersUpdated(
            tuple(map(name_of, changes.added)),
            tuple(map(name_of, changes.removed)),
            tuple(map(name_of, changes.modified)),
            _word(_text(told.reason)),
        )
    return None


def _names(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(name for text in texts if (name := name_of(text)))


def _given(raw: Raw) -> bool:
    return bytes(raw) not in (b"", b"null")


def _text(raw: Raw) -> str:
    """A field that should be a text: empty where it is something else."""
    value = _value(raw)
    return value if isinstance(value, str) else ""


def _word(text: str) -> str:
    """A word of the hub's own vocabulary; what does not look like one is not kept."""
    return text if len(text) <= 40 and text.replace("_", "").replace("-", "").isalnum() else "unknown" if text else ""


def _pid(raw: Raw) -> int | None:
    value = _value(raw)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _value(raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw) if _given(raw) else None
    except UNREADABLE:
        return None


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if text else None
    except ValueError:
        return None
