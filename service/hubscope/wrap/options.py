"""What one wrapper was told: its command line and the variables that it reads.

The same variables, defaults and bounds are in `hubscope.settings`, for the reference page (a contract test compares the
two). They are read here by hand, because loading all settings takes longer than the rest of the wrapper's start. And
they come from the environment only: a wrapper runs in whatever folder an MCP client is opened in, and a `hubscope.toml`
lying there must not be able to name the address that events and a key are sent to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from hubscope.errors import InvalidSetting

DEFAULT_URL: Final = "http://127.0.0.1:3401"


@dataclass(frozen=True, slots=True)
class Limit:
    """One whole number from the environment: its variable, default, and least and most allowed value."""

    variable: str
    default: int
    least: int
    most: int | None = None


LIMITS: Final[dict[str, Limit]] = {
    "spool_max_bytes": Limit("HUBSCOPE_SPOOL_MAX_BYTES", 64 * 1024 * 1024, 1024 * 1024),
    "max_message_bytes": Limit("HUBSCOPE_WRAP_MAX_MESSAGE_BYTES", 1024 * 1024, 1024),
    "buffer_max_bytes": Limit("HUBSCOPE_WRAP_BUFFER_MAX_BYTES", 16 * 1024 * 1024, 1024 * 1024),
    "open_calls_max": Limit("HUBSCOPE_WRAP_OPEN_CALLS_MAX", 10_000, 1),
    "error_message_chars": Limit("HUBSCOPE_WRAP_ERROR_MESSAGE_CHARS", 500, 0, 8_000),
    "linger_ms": Limit("HUBSCOPE_WRAP_LINGER", 100, 0, 60_000),
    "flush_timeout_ms": Limit("HUBSCOPE_WRAP_FLUSH_TIMEOUT", 500, 0, 60_000),
    "heartbeat_seconds": Limit("HUBSCOPE_WRAP_HEARTBEAT_SECONDS", 60, 0, 86_400),
}
"""Field of `Options` -> the variable that sets it."""

FLAGS: Final = {
    "--name": "name",
    "-n": "name",
    "--url": "url",
    "--spool-dir": "spool_dir",
    "--api-key-file": "api_key_file",
}
"""Option of the command line -> what it sets. Each takes a value, as `--name N` or `--name=N`."""
SWITCHES: Final = ("--no-args-key",)
"""Options without a value; `rewrite` writes them, the wrapper itself does not need them."""

_LAUNCHERS: Final = frozenset(
    re.findall(
        r"\w+",
        "npx npm bunx bun pnpm yarn dlx exec x uvx uv pipx run tool node deno python env sh bash docker podman",
    )
)
_DECORATION: Final = re.compile(r"^@[^/]+/|^(mcp-)?server-|(@[\w.^~-]+|==.*|\.(py|js|mjs|cjs|ts|sh|exe))$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that one wrapper needs to know.

    Attributes:
        name: what the server is called in every event.
        command: the server's program and arguments.
        url: where hubscope is.
        api_key: what to say there; never shown.
        spool_dir: where events wait; None for the platform's place.
        spool_max_bytes: most bytes that wait on disk for one hubscope.
        max_message_bytes: longest line that is parsed.
        buffer_max_bytes: most bytes that wait in memory to be read by the observer.
        open_calls_max: most calls without an answer that are remembered.
        error_message_chars: longest error message that is sent; 0 sends none.
        linger_ms: how long an event waits for company; under steady traffic, five times as long.
        flush_timeout_ms: how long the end of the wrapper may wait for hubscope.
        heartbeat_seconds: how often a connected server is reported alive; 0 for never.
    """

    name: str
    command: tuple[str, ...]
    url: str = DEFAULT_URL
    api_key: str | None = None
    spool_dir: str | None = None
    spool_max_bytes: int = LIMITS["spool_max_bytes"].default
    max_message_bytes: int = LIMITS["max_message_bytes"].default
    buffer_max_bytes: int = LIMITS["buffer_max_bytes"].default
    open_calls_max: int = LIMITS["open_calls_max"].default
    error_message_chars: int = LIMITS["error_message_chars"].default
    linger_ms: int = LIMITS["linger_ms"].default
    flush_timeout_ms: int = LIMITS["flush_timeout_ms"].default
    heartbeat_seconds: int = LIMITS["heartbeat_seconds"].default


def parse(arguments: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]] | None:
    """Split `[--name N] [--url U] ... -- CMD ARGS...` into options by name and the command.

    Returns:
        None for everything else (help, --config, a mistake), which is for the full command line to deal with.
    """
    given: dict[str, str] = {}
    rest = iter(range(len(arguments)))
    for at in rest:
        word = arguments[at]
        if word == "--":
            command = tuple(arguments[at + 1 :])
            return (given, command) if command else None
        flag, equals, value = word.partition("=")
        if word in SWITCHES:
            continue
        if flag not in FLAGS or (equals and not flag.startswith("--")):
            return None
        if not equals:
            following = next(rest, None)
            if following is None or arguments[following] == "--":
                return None
            value = arguments[following]
        given[FLAGS[flag]] = value
    return None


def read(given: Mapping[str, str | None], command: Sequence[str], environment: Mapping[str, str]) -> Options:
    """The options of a wrapper: the command line above the environment. An empty variable counts as not set.

    Raises:
        InvalidSetting: a value that is not allowed, by the name of its variable or option.
    """
    name = given.get("name")
    if name is None:
        name = guessed_name(command)
    if not 1 <= len(name) <= 200 or len(name.encode("utf-8", "replace")) > 600 or not name.isprintable():
        raise InvalidSetting("--name must be 1 to 200 printable characters (at most 600 bytes of UTF-8)")
    url, api_key = destination(given, environment)
    return Options(
        name=name,
        command=tuple(command),
        url=url,
        api_key=api_key,
        spool_dir=given.get("spool_dir") or environment.get("HUBSCOPE_SPOOL_DIR") or None,
        **{field: _whole_number(limit, environment) for field, limit in LIMITS.items()},
    )


def destination(given: Mapping[str, str | None], environment: Mapping[str, str]) -> tuple[str, str | None]:
    """Where hubscope is, and the key to show there; also for others that send (the bridge).

    Raises:
        InvalidSetting: a value that is not allowed, by the name of its variable.
    """
    url = _url(given.get("url") or environment.get("HUBSCOPE_URL") or DEFAULT_URL)
    return url, _api_key(given.get("api_key_file"), environment)


def guessed_name(command: Sequence[str]) -> str:
    """A name for a server that was given none: of its package or script, past launchers and options.

    `npx -y @modelcontextprotocol/server-filesystem .` is `filesystem`, `uvx mcp-server-git` is `git`.
    """
    for word in command:
        base = word.rsplit("/", 1)[-1] if not word.startswith("@") else word
        if word.startswith("-") or re.sub(r"[\d.]+$", "", base) in _LAUNCHERS:
            continue
        bare = _DECORATION.sub("", _DECORATION.sub("", base)).removeprefix("mcp-server-")
        return (bare or base)[:200]
    return (os.path.basename(command[0]) or "server")[:200]


def _whole_number(limit: Limit, environment: Mapping[str, str]) -> int:
    text = environment.get(limit.variable) or str(limit.default)
    allowed = f"at least {limit.least}" + (f", at most {limit.most}" if limit.most is not None else "")
    try:
        value = int(text)
    except ValueError:
        raise InvalidSetting(f"{limit.variable} is {text[:100]!r}: it must be a whole number, {allowed}") from None
    if value < limit.least or (limit.most is not None and value > limit.most):
        raise InvalidSetting(f"{limit.variable} is {value}: it must be {allowed}")
    return value


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or parts.username is not None:
        raise InvalidSetting(f"HUBSCOPE_URL is not the address of hubscope, such as {DEFAULT_URL}")
    return text.rstrip("/")


def _api_key(file: str | None, environment: Mapping[str, str]) -> str | None:
    key = environment.get("HUBSCOPE_API_KEY") or None
    path = file or environment.get("HUBSCOPE_API_KEY_FILE")
    if path and (file or key is None):
        try:
            with open(path, encoding="utf-8") as source:
                key = source.read(10_000).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise InvalidSetting(f"HUBSCOPE_API_KEY_FILE cannot be read: {reason}") from None
        if not key:
            raise InvalidSetting("HUBSCOPE_API_KEY_FILE is empty")
    if key is not None and (not key.isascii() or not key.isprintable() or " " in key):
        raise InvalidSetting("HUBSCOPE_API_KEY is not a key: it has a space or a character that no key has")
    return key
