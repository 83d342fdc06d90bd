"""The planner's rows for containers behind outside VTEPs."""

from __future__ import annotations

from dataclasses import replace

from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.state import BridgeFdbRow, FdbRow, FloodRow, NeighborRow, Row
from overlay.core.fabric import FabricFlood, FabricMac, FabricNeighbor, FabricRows
from overlay.model import (
    Endpoint,
    Ip,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    gateway_mac,
    mac_for,
    parse_ip,
)

VNI, NEXT = Vni(4100), Vni(4101)
A, B = NodeId(b"A" * 16), NodeId(b"B" * 16)
LOCAL, MEMBER, LEAF = (parse_ip(f"10.9.0.{host}") for host in (3, 4, 2))
NETWORK = Network(
    VNI,
    "blue",
    (
        Subnet(parse_ip("10.32.0.0"), 24, parse_ip("10.32.0.1")),
        Subnet(parse_ip("10.33.0.0"), 24, parse_ip("10.33.0.1")),
    ),
    A,
)
HERE, THERE, FREE = (parse_ip(f"10.32.0.{host}") for host in (5, 6, 7))
FOREIGN = Mac(bytes.fromhex("0200000000aa"))
GIVEN = PlanInput(
    NETWORK,
    4789,
    LOCAL,
    1450,
    locals=(Endpoint(b"1" * 8, VNI, "web", mac_for(VNI, HERE), (HERE,)),),
    remotes=(
        RemoteEndpoint(B, MEMBER, Endpoint(b"2" * 8, VNI, "db", mac_for(VNI, THERE), (THERE,))),
    ),
    flood=(LOCAL, MEMBER),
)


def added(*macs: tuple[Mac, Ip], vni: Vni = VNI, flood: Ip | None = None) -> set[Row]:
    """Return the rows that the fabric's MACs, each with an address, add to the plan."""
    fabric = FabricRows(
        frozenset(FabricMac(vni, mac, LEAF) for mac, _ in macs),
        frozenset(FabricNeighbor(vni, ip, mac) for mac, ip in macs),
        frozenset() if flood is None else frozenset({FabricFlood(vni, flood)}),
    )
    before, after = plan_sandbox(GIVEN), plan_sandbox(replace(GIVEN, fabric=fabric))
    assert before.rows <= after.rows, "the fabric changed the row of a record"
    assert diff(after, after, prune=True) == []
    return set(after.rows - before.rows)


def test_a_container_of_the_fabric_is_reached() -> None:
    """By the same kinds of rows as a member's container, so ARP is answered here."""
    assert added((FOREIGN, FREE), flood=LEAF) == {
        FdbRow("vxlan0", FOREIGN, LEAF),
        BridgeFdbRow("vxlan0", FOREIGN),
        NeighborRow("br0", FREE, FOREIGN),
        FloodRow("vxlan0", LEAF),
    }


def test_the_vni_is_the_segment() -> None:
    """The second subnet's VNI is the network's second bridge."""
    ip = parse_ip("10.33.0.9")

    assert added((FOREIGN, ip), vni=NEXT, flood=LEAF) == {
        FdbRow("vxlan1", FOREIGN, LEAF),
        BridgeFdbRow("vxlan1", FOREIGN),
        NeighborRow("br1", ip, FOREIGN),
        FloodRow("vxlan1", LEAF),
    }


def test_records_win_over_the_fabric() -> None:
    """Neither a MAC nor an address of a record is taken away, here or elsewhere."""
    assert added((mac_for(VNI, HERE), FREE)) == set()
    assert added((mac_for(VNI, THERE), FREE)) == set()
    assert not any(isinstance(row, NeighborRow) for row in added((FOREIGN, HERE)))
    assert not any(isinstance(row, NeighborRow) for row in added((FOREIGN, THERE)))


def test_no_gateway_is_taken_from_the_fabric() -> None:
    """Its MAC and its address are this host's own, on every host."""
    assert added((gateway_mac(VNI, 0), FREE)) == set()
    assert not any(isinstance(row, NeighborRow) for row in added((FOREIGN, parse_ip("10.32.0.1"))))


def test_an_address_of_another_subnet_is_not_answered_for() -> None:
    """An address outside its segment has no neighbor row."""
    rows = added((FOREIGN, parse_ip("10.33.0.9"))) | added((FOREIGN, parse_ip("192.0.2.1")))

    assert not any(isinstance(row, NeighborRow) for row in rows)


def test_a_vtep_that_cannot_be_reached_has_no_rows() -> None:
    """This host's own, and one of another family than the tunnel's."""
    for vtep in (LOCAL, parse_ip("fd00::2")):
        fabric = FabricRows(
            frozenset({FabricMac(VNI, FOREIGN, vtep)}), floods=frozenset({FabricFlood(VNI, vtep)})
        )

        assert plan_sandbox(replace(GIVEN, fabric=fabric)) == plan_sandbox(GIVEN)


def test_other_vnis_have_no_rows() -> None:
    """Rows beyond the network's segments are ignored."""
    assert added((FOREIGN, FREE), vni=Vni(VNI - 1), flood=LEAF) == set()
    assert added((FOREIGN, FREE), vni=Vni(VNI + 2), flood=LEAF) == set()
