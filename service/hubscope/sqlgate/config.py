"""What is served and within which limits: one frozen record per database, made from the settings at start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from hubscope.errors import InvalidSetting
from hubscope.settings import SqlSettings, sql_databases
from hubscope.sqlgate.policy import Policy

_DURATION: Final = re.compile(r"^(\d+)(ms|s|m)?$")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, None: 1_000}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one query and of all together.

    Attributes:
        query_bytes: longest SQL text.
        timeout_ms: from the call to its answer, waiting included.
        statement_timeout_ms: the server's own clock on one statement.
        rows, result_bytes, value_chars: most rows, most bytes of values, most characters of one value in an answer.
        connections: most connections, and so most queries at once.
        connection_timeout_ms, idle_timeout_ms: to open one; until an idle one is closed.
        waiting: most calls that wait for their turn.
        verdict_s: how long what was found out about a text holds.
    """

    query_bytes: int = 10_000
    timeout_ms: int = 30_000
    statement_timeout_ms: int = 30_000
    rows: int = 1_000
    result_bytes: int = 1_048_576
    value_chars: int = 8_192
    connections: int = 10
    connection_timeout_ms: int = 2_000
    idle_timeout_ms: int = 30_000
    waiting: int = 100
    verdict_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Served:
    """One database and how it is served.

    Attributes:
        dsn: its URL, libpq's parameters included. A secret.
        policy: which relations and functions.
        limits: how much.
        writable: transactions are READ WRITE and committed, for functions of the operator's own. The guard is the same.
        session: further settings of every connection.
    """

    dsn: str
    policy: Policy
    limits: Limits
    writable: bool = False
    session: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"Served({urlsplit(self.dsn).hostname or 'socket'}, {self.policy})"


def served(settings: SqlSettings, dsn: str) -> Served:
    """The configuration of one database.

    Raises:
        InvalidSetting: a setting or a parameter of the URL will not do.
    """
    if not settings.read_only and not settings.read_write_at_my_own_risk:
        raise InvalidSetting(
            "READ_ONLY is false, but this server only reads: SQL that writes is refused before it reaches the database."
            " What READ_ONLY=false could change is that functions of your own (HUBSCOPE_SQL_ALLOWED_FUNCTIONS) may"
            " write; if you mean that, set HUBSCOPE_SQL_READ_WRITE_AT_MY_OWN_RISK=true as well"
        )
    dsn, more = _without_pool_parameters(dsn)
    policy = Policy(
        allowed_schemas=_list(settings.allowed_schemas) or None,
        blocked_tables=frozenset(name.lower() for name in _list(settings.blocked_tables)),
        view_schemas=frozenset(_list(settings.view_schemas)),
        allowed_functions=_functions(settings.allowed_functions),
    )
    limits = limits_of(settings)
    limits = replace(
        limits,
        connections=more.get("pool_max_conns", limits.connections),
        connection_timeout_ms=more.get("pool_timeout", limits.connection_timeout_ms),
    )
    return Served(_with_tls(dsn, settings), policy, limits, writable=not settings.read_only)


def limits_of(settings: SqlSettings) -> Limits:
    """The limits that the settings say."""
    return Limits(
        query_bytes=settings.max_query_length,
        timeout_ms=settings.query_timeout_ms,
        statement_timeout_ms=settings.pool_statement_timeout_ms,
        rows=settings.max_rows,
        result_bytes=settings.max_result_bytes,
        value_chars=settings.max_value_chars,
        connections=settings.max_connections,
        connection_timeout_ms=settings.pool_connection_timeout_ms,
        idle_timeout_ms=settings.pool_idle_timeout_ms,
        waiting=settings.max_waiting,
        verdict_s=settings.verdict_seconds,
    )


MAIN: Final = "main"
"""What the one database is called that DATABASE_URL names."""
_DATABASE: Final = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")
_NAMED_URL: Final = re.compile(r"^([A-Za-z0-9_-]+)=(postgres(?:ql)?://.*)$", re.DOTALL)
_NO_NAMES: Final = frozenset({"table", "schema", "function"})
"""They stand in that place in the addresses of resources."""


def databases(settings: SqlSettings, named: Sequence[str] = ()) -> dict[str, Served]:
    """Every database to serve, by name; the first one is the default. None where none is named anywhere.

    Named are those of the command line (`URL`, or `name=URL`), or, where it names none, DATABASE_URL; then those of
    hubscope.toml, `[sql.databases.<name>]`, whose settings hold for that database alone.

    Args:
        settings: what holds for all.
        named: from the command line, in its order.

    Raises:
        InvalidSetting: naming the database and what is wrong with it.
    """
    urls: dict[str, str] = {}
    for text in named:
        match = _NAMED_URL.match(text)
        name, url = (match[1], match[2]) if match else (MAIN, text)
        if name in urls:
            raise InvalidSetting(f"--database-url names the database {name} twice; write NAME=URL for each")
        urls[name] = url
    if not urls and (url_ := url_of(settings)) is not None:
        urls[MAIN] = url_
    tables = sql_databases()
    found: dict[str, Served] = {}
    for name in [*urls, *(name for name in tables if name not in urls)]:
        if not _DATABASE.match(name) or name in _NO_NAMES:
            raise InvalidSetting(
                f"the database {name!r} needs another name: a-z, 0-9, _ and -, a letter first, and none of"
                f" {', '.join(sorted(_NO_NAMES))}"
            )
        try:
            own = settings.narrowed(tables.get(name, {}), urls.get(name))
            url = urls.get(name) or url_of(own)
            if url is None:
                raise InvalidSetting("it has neither database_url nor database_url_file")
            found[name] = served(own, url)
        except InvalidSetting as error:
            raise InvalidSetting(error.detail if name == MAIN else f"the database {name}: {error.detail}") from None
    first = settings.default_database
    if first is not None:
        if first not in found:
            raise InvalidSetting(f"HUBSCOPE_SQL_DEFAULT_DATABASE is {first!r}; there are: {', '.join(found) or 'none'}")
        found = {first: found[first]} | found
    return found


def url_of(settings: SqlSettings) -> str | None:
    """DATABASE_URL, or what DATABASE_URL_FILE holds; None when neither is set.

    Raises:
        InvalidSetting: both are set, or the file cannot be read.
    """
    if settings.database_url_file is None:
        return settings.database_url
    if settings.database_url is not None:
        raise InvalidSetting("DATABASE_URL and DATABASE_URL_FILE are both set; set one of them")
    try:
        return Path(settings.database_url_file).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidSetting(f"DATABASE_URL_FILE {settings.database_url_file} cannot be read: {reason}") from None


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _functions(text: str | None) -> frozenset[str]:
    names = _list(text)
    for name in names:
        if name.count(".") != 1:
            raise InvalidSetting(f"HUBSCOPE_SQL_ALLOWED_FUNCTIONS names {name!r}; write schema.name, parted by commas")
    return frozenset(names)


def _without_pool_parameters(dsn: str) -> tuple[str, dict[str, int]]:
    """The URL without what is meant for the pool (`pool_max_conns=20&pool_timeout=10s`), and that."""
    parts = urlsplit(dsn)
    found: dict[str, int] = {}
    kept = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "pool_max_conns":
            if not value.isdecimal() or int(value) < 1:
                raise InvalidSetting(f"DATABASE_URL: pool_max_conns is {value!r}; it is a number of connections")
            found[name] = int(value)
        elif name in ("pool_timeout", "connect_timeout"):
            match = _DURATION.match(value)
            if match is None or int(match[1]) < 1:
                raise InvalidSetting(f"DATABASE_URL: {name} is {value!r}; write a time such as 10s or 500ms")
            found["pool_timeout"] = int(match[1]) * _UNIT_MS[match[2]]
        else:
            kept.append((name, value))
    return urlunsplit(parts._replace(query=urlencode(kept, quote_via=quote))), found


def _with_tls(dsn: str, settings: SqlSettings) -> str:
    """The URL with what ENABLE_SSL, SSL_MODE and the certificate paths say; they win over the URL's own."""
    said: dict[str, str] = {}
    mode = settings.ssl_mode
    if settings.enable_ssl is False:
        if mode not in (None, "disable"):
            raise InvalidSetting(f"ENABLE_SSL is false, but SSL_MODE is {mode}")
        mode = "disable"
    elif settings.enable_ssl is True and mode is None:
        mode = "require"
    elif settings.enable_ssl is True and mode == "disable":
        raise InvalidSetting("ENABLE_SSL is true, but SSL_MODE is disable")
    if mode is not None:
        said["sslmode"] = mode
    for parameter, variable, path in (
        ("sslcert", "SSL_CERT_PATH", settings.ssl_cert_path),
        ("sslkey", "SSL_KEY_PATH", settings.ssl_key_path),
        ("sslrootcert", "SSL_CA_PATH", settings.ssl_ca_path),
    ):
        if path is not None:
            if not Path(path).is_file():
                raise InvalidSetting(f"{variable}: there is no file {path}")
            said[parameter] = path
    if not said:
        return dsn
    parts = urlsplit(dsn)
    query = dict(parse_qsl(parts.query, keep_blank_values=True)) | said
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))
