"""This host announces its own endpoints to the fabric."""

from __future__ import annotations

from overlay.core.evpn.announcement import OwnMac, OwnNeighbor, announced, change
from overlay.core.fabric import NO_FABRIC, FabricMac, FabricNeighbor, FabricRows
from overlay.model import (
    Endpoint,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    gateway_mac,
    mac_for,
    parse_ip,
)

VNI = Vni(4100)
NEXT = Vni(4101)
LEAF = parse_ip("10.9.0.2")
NETWORK = Network(
    VNI,
    "blue",
    (
        Subnet(parse_ip("10.32.0.0"), 24, parse_ip("10.32.0.1")),
        Subnet(parse_ip("fd00::"), 64, parse_ip("fd00::1")),
        Subnet(parse_ip("10.33.0.0"), 24, parse_ip("10.33.0.1")),
    ),
    NodeId(b"A" * 16),
)
V4, V6, SECOND = parse_ip("10.32.0.5"), parse_ip("fd00::5"), parse_ip("10.33.0.5")


def endpoint(*ips: str, mac: Mac | None = None, number: int = 1) -> Endpoint:
    """Return an endpoint with these addresses."""
    packed = tuple(map(parse_ip, ips))
    return Endpoint(bytes([number] * 8), VNI, "web", mac or mac_for(VNI, packed[0]), packed)


def test_both_families_share_their_segment() -> None:
    """The MAC is announced once, on the segment of its subnets."""
    found = announced(NETWORK, [endpoint("10.32.0.5", "fd00::5")])

    mac = mac_for(VNI, V4)
    assert found.keys() == {OwnMac(VNI, mac), OwnNeighbor(VNI, V4, mac), OwnNeighbor(VNI, V6, mac)}


def test_another_subnet_is_another_segment() -> None:
    """The second IPv4 subnet has the VNI after the network's."""
    found = announced(NETWORK, [endpoint("10.33.0.5")])

    assert found.keys() == {
        OwnMac(NEXT, mac_for(VNI, SECOND)),
        OwnNeighbor(NEXT, SECOND, mac_for(VNI, SECOND)),
    }


def test_no_gateway_is_ever_announced() -> None:
    """Neither its address nor its MAC, whoever has them in a record."""
    by_address = endpoint("10.32.0.1")
    by_mac = endpoint("10.32.0.7", mac=gateway_mac(VNI, 0))

    assert announced(NETWORK, [by_address, by_mac]) == {}


def test_what_is_outside_the_network_is_not_announced() -> None:
    """An address in none of its subnets has no segment."""
    assert announced(NETWORK, [endpoint("192.0.2.1")]) == {}


def test_rows_are_written_and_deleted() -> None:
    """The difference is empty once it was applied."""
    wanted = announced(NETWORK, [endpoint("10.32.0.5")])
    old = OwnMac(VNI, Mac(b"\x02old__"))

    found = change(wanted, frozenset({old}), NO_FABRIC, {})

    assert (set(found.puts), found.deletions, found.yielded) == (set(wanted), (old,), ())
    after = change(wanted, frozenset(wanted), NO_FABRIC, wanted)
    assert (after.puts, after.deletions) == ((), ())


def test_a_mac_that_the_fabric_took_is_not_fought_for() -> None:
    """Two places that claim one MAC must not take it from each other without end."""
    wanted = announced(NETWORK, [endpoint("10.32.0.5")])
    mac = mac_for(VNI, V4)
    fabric = FabricRows(
        frozenset({FabricMac(VNI, mac, LEAF)}), frozenset({FabricNeighbor(VNI, V4, mac)})
    )

    found = change(wanted, frozenset(), fabric, wanted)

    assert (found.puts, set(found.yielded)) == ((), set(wanted))


def test_a_container_that_came_back_is_announced() -> None:
    """A new endpoint takes its MAC from wherever the fabric had it."""
    mac = mac_for(VNI, V4)
    before = announced(NETWORK, [endpoint("10.32.0.5")])
    wanted = announced(NETWORK, [endpoint("10.32.0.5", number=2)])
    fabric = FabricRows(frozenset({FabricMac(VNI, mac, LEAF)}))

    found = change(wanted, frozenset(), fabric, before)

    assert set(found.puts) == wanted.keys()
