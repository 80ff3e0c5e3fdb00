"""Where a registered server may be, and that the address that was judged is the one that is connected to."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import httpcore2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.errors import InvalidParameter, InvalidSetting
from hubscope.peers.guard import (
    AddressRefused,
    GuardedBackend,
    NameUnknown,
    allowed,
    check_endpoint,
    judged,
    networks_of,
)

PUBLIC = "93.184.215.14"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",  # where clouds keep the keys
        "100.100.100.200",
        "192.0.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
        "64:ff9b::a9fe:a9fe",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo of 127.0.0.1
    ],
)
def test_inner_addresses_are_refused_in_whatever_clothes(address: str) -> None:
    assert not allowed(ipaddress.ip_address(address), ())


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_the_public_internet_is_reached(address: str) -> None:
    assert allowed(ipaddress.ip_address(address), ())


def test_only_named_networks_are_reached_beside_the_internet() -> None:
    networks = networks_of("10.0.0.0/8, 127.0.0.1 ,fd00::/8")
    for address, may in (
        ("10.9.9.9", True),
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("fd12::1", True),
        ("::1", False),
    ):
        assert allowed(ipaddress.ip_address(address), networks) is may
    assert allowed(ipaddress.ip_address("::ffff:10.0.0.1"), networks)
    assert networks_of("") == ()


@given(
    st.ip_addresses(v=4, network="10.0.0.0/8")
    | st.ip_addresses(v=6, network="fe80::/10")
    | st.ip_addresses(v=4, network="127.0.0.0/8")
)
def test_no_address_of_an_inner_network_slips_through(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert not allowed(address, ())


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(InvalidSetting, match="HUBSCOPE_PEER_NETWORKS: 'inner' is no network"):
        networks_of("10.0.0.0/8,inner")


def resolver(*answers: Sequence[str]) -> tuple[list[str], object]:
    """A resolver that answers differently each time."""
    asked: list[str] = []
    left = list(answers)

    async def look_up(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        if not left:
            raise OSError("no such name")
        return left.pop(0) if len(left) > 1 else left[0]

    return asked, look_up


async def test_of_several_addresses_only_the_allowed_are_tried() -> None:
    _, look_up = resolver(["127.0.0.1", PUBLIC, "10.0.0.1", PUBLIC])
    assert await judged("h", 80, (), look_up) == [ipaddress.ip_address(PUBLIC)]  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "2130706433", "0x7f.1", "127.1"])
async def test_every_spelling_of_this_machine_is_refused(host: str) -> None:
    """Numbers that are no addresses go to the resolver, which reads them as the socket would."""
    with pytest.raises((AddressRefused, NameUnknown)):
        await judged(host.strip("[]"), 80, ())


async def test_a_registration_that_points_inside_is_refused_and_one_that_does_not_resolve_yet_is_not() -> None:
    with pytest.raises(InvalidParameter, match=r"^endpoint: .*HUBSCOPE_PEER_NETWORKS"):
        await check_endpoint("http://169.254.169.254/latest/meta-data", ())
    _, nowhere = resolver()
    await check_endpoint("http://later.example", (), nowhere)  # type: ignore[arg-type]


async def test_a_name_that_changes_its_mind_is_judged_again_where_it_is_connected_to() -> None:
    """DNS rebinding: public when it is registered, this machine when it is called."""
    connected = asyncio.Event()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asked, look_up = resolver([PUBLIC], ["127.0.0.1"])
        await check_endpoint(f"http://rebinding.example:{port}", (), look_up)  # type: ignore[arg-type]
        backend = GuardedBackend((), look_up)  # type: ignore[arg-type]
        with pytest.raises(AddressRefused):
            await backend.connect_tcp("rebinding.example", port, 1)
        assert asked == ["rebinding.example"] * 2
        assert not connected.is_set()

        # The very address that was judged is connected to: nobody resolves once more.
        asked, look_up = resolver(["127.0.0.1"], ["10.0.0.1"])
        backend = GuardedBackend(networks_of("127.0.0.1"), look_up)  # type: ignore[arg-type]
        stream = await backend.connect_tcp("named.example", port, 1)
        await asyncio.wait_for(connected.wait(), 5)
        await stream.aclose()
        assert asked == ["named.example"]


async def test_a_unix_socket_is_never_connected_to() -> None:
    with pytest.raises(AddressRefused):
        await GuardedBackend(networks_of("0.0.0.0/0")).connect_unix_socket("/run/docker.sock")


async def test_a_resolver_that_hangs_is_given_up() -> None:
    async def hang(_host: str, _port: int) -> Sequence[str]:
        await asyncio.sleep(3600)
        return []

    with pytest.raises(httpcore2.ConnectTimeout):
        await GuardedBackend((), hang).connect_tcp("slow.example", 80, 0.01)
