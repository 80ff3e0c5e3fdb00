"""The door: who may come in by HTTP, under which name the service is called, and what each path asks for.

Everything is decided here, in front of every route, from the request's head alone; a path that is not in the table asks
for `read`, so a route that somebody forgets is closed to strangers.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from hubscope.access import LOCAL, Keyring, Principal, looks_like_a_key, require
from hubscope.access import Scope as Right
from hubscope.errors import (
    DatabaseAway,
    ForbiddenOrigin,
    HubscopeError,
    InvalidRequest,
    InvalidSetting,
    KeyInUrl,
    KeyRequired,
    MalformedKey,
)
from hubscope.settings import Settings

Scope = MutableMapping[str, Any]

PRINCIPAL: Final = "hubscope.principal"
"""Where the door leaves the principal for the routes behind it (in the ASGI scope)."""
LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1"})
SCRAPE_TOKEN_SHORTEST: Final = 16

METRICS: Final = "/metrics"
OPEN: Final = frozenset({"/health", "/livez", "/readyz"})
"""For anybody, by any name; they tell strangers nothing but the status."""
RIGHTS: Final[tuple[tuple[str, Right], ...]] = (
    ("/v1/", Right.INGEST),
    (METRICS, Right.ADMIN),
    ("/sql/", Right.SQL),
    ("/api/v1/chains", Right.CHAINS),
    ("/", Right.READ),
)
"""The first prefix that fits says which scope a path asks for."""
INVOKING: Final = ("/invoke", "/broadcast")
"""Ends of federation paths that act in the tenant's name."""

# A proxy on this machine asks for somebody else: whoever that is, it is not this machine.
_FORWARDED: Final = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)


@lru_cache(maxsize=256)
def right_for(path: str) -> Right | None:
    """The scope that a path asks for; None for those that are open."""
    if path in OPEN or path.startswith("/.well-known/"):  # where clients look for OAuth, which is not there: 404
        return None
    if path.startswith("/api/v1/federation/") and path.endswith(INVOKING):
        return Right.CHAINS
    return next(right for prefix, right in RIGHTS if path.startswith(prefix))


class Door:
    """Lets requests in, in somebody's name.

    Args:
        keyring: who holds a key.
        settings: trust, names, the scrape token.

    Raises:
        InvalidSetting: the scrape token cannot be read or is too short.
    """

    def __init__(self, keyring: Keyring, settings: Settings) -> None:
        self._keyring = keyring
        self._settings = settings
        self._names = settings.names
        token = settings.secret("scrape_token")
        if token is not None and len(token) < SCRAPE_TOKEN_SHORTEST:
            raise InvalidSetting(f"HUBSCOPE_SCRAPE_TOKEN is too short: at least {SCRAPE_TOKEN_SHORTEST} characters")
        self._scrape_token = token.encode() if token is not None else None

    async def admit(self, scope: Scope) -> Principal | None:
        """Let a request in, or not. The principal is left in the scope, too.

        Returns:
            Who asks; None on an open path where nobody has to say.

        Raises:
            InvalidRequest: a head that could mean two things, or a key in the URL.
            ForbiddenOrigin: a name or a page that is not allowed.
            KeyRequired and its kinds, ScopeMissing: no key that will do.
            DatabaseAway, NoPepper: it cannot be known now.
        """
        scope.pop(PRINCIPAL, None)
        path = scope["path"]
        right = right_for(path)
        host, origin, shown = _head(scope["headers"])
        if scope["query_string"] and looks_like_a_key(unquote_to_bytes(scope["query_string"]).decode("latin-1")):
            raise KeyInUrl
        if right is None:
            if is_local(scope) and self._known(host, scope):
                scope[PRINCIPAL] = LOCAL
            return None
        _refuse_other_names(host, origin, scope, self._names)
        if shown is None:
            principal = await self._of_this_machine(scope)
        else:
            principal = await self._of_key(shown, path)
        require(principal, right)
        scope[PRINCIPAL] = principal
        return principal

    def known(self, scope: Scope) -> Principal | None:
        """`admit` without a wait, for one who shows a key that was checked a moment ago.

        Returns:
            None where `admit` has to be asked, to wait or to say why not.
        """
        try:
            host, origin, shown = _head(scope["headers"])
            credentials = _bearer(shown) if shown is not None and not scope["query_string"] else None
            if credentials is None:
                return None
            _refuse_other_names(host, origin, scope, self._names)
            principal, right = self._keyring.seen(credentials.decode()), right_for(scope["path"])
            if principal is None or right is None:
                return None
            require(principal, right)
        except HubscopeError:
            return None
        return principal

    async def _of_this_machine(self, scope: Scope) -> Principal:
        """Nobody showed a key: is that enough?"""
        trust = self._settings.loopback_trust
        if trust == "never" or not is_local(scope):
            raise KeyRequired
        if trust == "auto":
            try:
                # While the database is away, what it said last goes for the metrics: that is when they are wanted.
                required = await self._keyring.required(stale_ok=scope["path"] == METRICS)
            except DatabaseAway:
                if scope["path"] != METRICS:
                    raise
                return Principal("", frozenset({Right.ADMIN}))  # without the database they tell of this process only
            if required:
                raise KeyRequired
        return LOCAL

    async def _of_key(self, shown: bytes, path: str) -> Principal:
        credentials = _bearer(shown)
        if credentials is None:
            raise MalformedKey
        if path == METRICS and self._scrape_token is not None and hmac.compare_digest(credentials, self._scrape_token):
            return Principal("", frozenset({Right.ADMIN}))
        return await self._keyring.verify(credentials.decode(), stale_ok=path == METRICS)

    def _known(self, host: bytes | None, scope: Scope) -> bool:
        return _known(host, scope, self._names)


def refuse_other_names(scope: Scope, names: frozenset[str] = frozenset()) -> None:
    """A web page elsewhere must not reach a service that trusts loopback (DNS rebinding, cross-site posts).

    Args:
        names: host names that are allowed apart from loopback (HUBSCOPE_ALLOWED_HOSTS).

    Raises:
        InvalidRequest: a head that could mean two things.
        ForbiddenOrigin: a name or a page that is not allowed.
    """
    host, origin, _ = _head(scope["headers"])
    _refuse_other_names(host, origin, scope, names)


def _refuse_other_names(host: bytes | None, origin: bytes | None, scope: Scope, names: frozenset[str]) -> None:
    if not _known(host, scope, names):
        raise ForbiddenOrigin(
            f"the Host header names {(host or b'').decode('latin-1')[:100]!r}, which is not allowed"
            " (HUBSCOPE_ALLOWED_HOSTS)"
        )
    if origin is not None:
        name = _host(origin.decode("latin-1"))
        if name not in LOOPBACK_NAMES and name not in names:
            raise ForbiddenOrigin(
                f"requests from pages of {origin.decode('latin-1')[:100]!r} are not allowed (HUBSCOPE_ALLOWED_HOSTS)"
            )


def _known(host: bytes | None, scope: Scope, names: frozenset[str]) -> bool:
    """Whether the service may be called by this name: loopback, a configured one, or the very address called."""
    if host is None:  # HTTP/1.0 has none, and browsers do not speak it
        return True
    name = _host(f"//{host.decode('latin-1')}")
    if name is None:
        return False
    if name in LOOPBACK_NAMES or name in names:
        return True
    called, address = _address(scope.get("server")), _address((name,))
    return address is not None and address == called


def identify(scope: Scope) -> Principal:
    """Whom the door let in with this request.

    Raises:
        KeyRequired: nobody; the route is one of the open ones.
    """
    principal = scope.get(PRINCIPAL)
    if not isinstance(principal, Principal):
        raise KeyRequired
    return principal


def is_local(scope: Scope) -> bool:
    """Whether a request comes from a program on this machine that does not ask for somebody else."""
    address = _address(scope.get("client"))
    return (
        address is not None
        and address.is_loopback
        and not any(name in _FORWARDED or name.startswith(b"x-forwarded") for name, _ in scope["headers"])
    )


def _address(pair: Sequence[Any] | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of an ASGI (host, port); None for a name or a Unix socket."""
    if pair is None:
        return None
    try:
        address = ipaddress.ip_address(pair[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _head(headers: list[tuple[bytes, bytes]]) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Host, Origin and Authorization; each may be there once.

    Raises:
        InvalidRequest, MalformedKey: twice, so that a proxy may have read another one than we would.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (b"host", b"origin", b"authorization"):
            if name in found:
                if name == b"authorization":
                    raise MalformedKey
                raise InvalidRequest(f"the header {name.decode()!r} is there twice")
            found[name] = value
    return found.get(b"host"), found.get(b"origin"), found.get(b"authorization")


def _bearer(shown: bytes) -> bytes | None:
    """The credentials of an Authorization field of the scheme Bearer; None where it is none."""
    scheme, _, credentials = shown.partition(b" ")
    credentials = credentials.strip(b" ")
    return credentials if scheme.lower() == b"bearer" and credentials and credentials.isascii() else None


@lru_cache(maxsize=256)
def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
