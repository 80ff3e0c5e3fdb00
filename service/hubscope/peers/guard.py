"""Where we may go: a guard against server-side request forgery, at the one place where connections are made.

A URL that somebody registers is fetched from inside the operator's network. What is checked is not the URL but the very
address that is connected to: the name is resolved here, every address is judged, and the socket is opened to the one
that was judged. A name that answers differently the next time (DNS rebinding) gains nothing. Connections go out without
proxies of the environment, redirects are not followed, and answers are bounded.

Refused are private, loopback, link-local, multicast, reserved and unspecified addresses, IPv4 in IPv6 clothes included
(mapped, 6to4, NAT64, Teredo), unless HUBSCOPE_PEER_NETWORKS names their network.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore2

from hubscope.errors import InvalidParameter, InvalidSetting

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


class AddressRefused(httpcore2.ConnectError):
    """The server's address is one that may not be reached."""


class NameUnknown(httpcore2.ConnectError):
    """The server's name has no address."""


def networks_of(text: str) -> tuple[Network, ...]:
    """HUBSCOPE_PEER_NETWORKS.

    Raises:
        InvalidSetting: naming the part that is no network.
    """
    found = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            raise InvalidSetting(
                f"HUBSCOPE_PEER_NETWORKS: {part!r} is no network (allowed: such as 10.0.0.0/8, 127.0.0.1, fd00::/8)"
            ) from None
    return tuple(found)


def allowed(address: Address, networks: Iterable[Network]) -> bool:
    """Whether we may connect to an address."""
    inner = _unwrapped(address)
    if any(one in network for network in networks for one in {address, inner} if one.version == network.version):
        return True
    return inner.is_global and not (inner.is_multicast or inner.is_reserved)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where there is one."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if inner is None and (address in _NAT64 or (address in _COMPATIBLE and int(address) > 1)):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


ANYWHERE: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
"""For servers that the operator names."""


_LOOKUPS: Final = ThreadPoolExecutor(8, thread_name_prefix="peer names")
"""Threads of its own: a resolver that hangs must not hold up those of the event loop, which find the database."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, by the system's resolver."""
    infos = await asyncio.get_running_loop().run_in_executor(
        _LOOKUPS, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    )
    return [str(info[4][0]) for info in infos]


async def judged(host: str, port: int, networks: Iterable[Network], look_up: Resolve = resolve) -> list[Address]:
    """The addresses of a host that we may connect to, in the resolver's order.

    Raises:
        NameUnknown: it has none at all.
        AddressRefused: it has some, and none of them is allowed.
    """
    try:
        found = [ipaddress.ip_address(host)]
    except ValueError:
        try:
            # A zone ("%eth0") tells which link: such addresses are refused anyway.
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in await look_up(host, port)]
        except (OSError, UnicodeError):
            raise NameUnknown(f"the name {host[:200]!r} cannot be resolved") from None
    if not found:
        raise NameUnknown(f"the name {host[:200]!r} has no address")
    networks = tuple(networks)
    fine = [address for address in dict.fromkeys(found) if allowed(address, networks)]
    if not fine:
        raise AddressRefused(
            f"{host[:200]!r} is a private, loopback or reserved address; the operator can allow its network in"
            " HUBSCOPE_PEER_NETWORKS"
        )
    return fine


async def check_endpoint(
    url: str, networks: Iterable[Network], look_up: Resolve = resolve, *, field: str = "endpoint"
) -> None:
    """Refuse at registration what would be refused at every call. A name that does not resolve yet may come later.

    Raises:
        InvalidParameter: its address may not be reached.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    try:
        await judged(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), networks, look_up)
    except AddressRefused as error:
        raise InvalidParameter(f"{field}: {error}") from None
    except NameUnknown:
        return


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens sockets to judged addresses only.

    Args:
        networks: that are allowed beside the public internet.
        look_up: the resolver; tests bring their own.
    """

    def __init__(self, networks: Iterable[Network], look_up: Resolve = resolve) -> None:
        self._networks = tuple(networks)
        self._look_up = look_up
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first judged address that answers; TLS still checks the name."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await judged(host, port, self._networks, self._look_up)
        except TimeoutError:
            raise httpcore2.ConnectTimeout("the name could not be resolved in time") from None
        for number, address in enumerate(addresses, 1):
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise AssertionError("unreachable")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Never: a socket of this machine is nothing that a URL may name."""
        raise AddressRefused("Unix sockets are not allowed")

    async def sleep(self, seconds: float) -> None:
        """For the pool."""
        await asyncio.sleep(seconds)
