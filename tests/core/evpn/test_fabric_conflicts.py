"""The report of addresses that the fabric has elsewhere than a record."""

from __future__ import annotations

from overlay.core.dataplane.conflicts import Claim
from overlay.core.evpn.fabric_conflicts import fabric_conflicts
from overlay.core.fabric import NO_FABRIC, FabricMac, FabricNeighbor, FabricRows
from overlay.model import Endpoint, Mac, Network, NodeId, Subnet, Vni, mac_for, parse_ip

VNI = Vni(4100)
NODE = NodeId(b"A" * 16)
NETWORK = Network(VNI, "blue", (Subnet(parse_ip("10.32.0.0"), 24, parse_ip("10.32.0.1")),), NODE)
IP = parse_ip("10.32.0.5")
WEB = Endpoint(bytes(8), VNI, "web", mac_for(VNI, IP), (IP,))
LEAF = parse_ip("10.9.0.2")
FOREIGN = Mac(bytes.fromhex("0200000000aa"))


def test_an_address_and_a_mac_conflict_each() -> None:
    """Both are named, with the VTEP that the fabric has them at."""
    by_mac = FabricRows(frozenset({FabricMac(VNI, WEB.mac, LEAF)}))
    by_ip = FabricRows(
        frozenset({FabricMac(VNI, FOREIGN, LEAF)}), frozenset({FabricNeighbor(VNI, IP, FOREIGN)})
    )

    (mac,) = fabric_conflicts(NETWORK, by_mac, [Claim(NODE, WEB)])
    (address,) = fabric_conflicts(NETWORK, by_ip, [Claim(NODE, WEB)])

    assert (mac.subject, mac.vtep, mac.endpoint) == (WEB.mac.hex(":"), LEAF, WEB)
    assert (address.subject, address.vtep, address.origin) == ("10.32.0.5", LEAF, NODE)


def test_other_addresses_do_not_conflict() -> None:
    """An empty fabric, and one with other containers."""
    other = parse_ip("10.32.0.6")
    rows = FabricRows(
        frozenset({FabricMac(VNI, FOREIGN, LEAF)}),
        frozenset({FabricNeighbor(VNI, other, FOREIGN)}),
    )

    assert fabric_conflicts(NETWORK, NO_FABRIC, [Claim(NODE, WEB)]) == []
    assert fabric_conflicts(NETWORK, rows, [Claim(NODE, WEB)]) == []
