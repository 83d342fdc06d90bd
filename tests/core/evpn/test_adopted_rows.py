"""An agent that starts reads the fabric's rows from its sandboxes."""

from __future__ import annotations

from overlay.core.dataplane.state import BridgeFdbRow, FdbRow, FloodRow, NeighborRow, SandboxState
from overlay.core.evpn.adopted_rows import adopted_rows
from overlay.core.fabric import FabricFlood, FabricMac, FabricNeighbor, FabricRows
from overlay.model import Mac, Network, NodeId, Subnet, Vni, parse_ip

WIDE = Network(
    Vni(4100),
    "wide",
    tuple(Subnet(parse_ip(f"10.{n}.0.0"), 16, parse_ip(f"10.{n}.0.1")) for n in (32, 33)),
    NodeId(bytes(16)),
)
LEAF, MEMBER = parse_ip("10.9.0.2"), parse_ip("10.9.0.7")
MAC, OTHER = Mac(b"\2leaf1"), Mac(b"\2vm222")
IP, OTHER_IP = parse_ip("10.33.0.9"), parse_ip("10.32.0.9")


def test_rows_of_outside_vteps_are_adopted() -> None:
    """With the segment that they are on; those of members come from the records."""
    state = SandboxState(
        {},
        frozenset(
            {
                FdbRow("vxlan1", MAC, LEAF),
                BridgeFdbRow("vxlan1", MAC),
                NeighborRow("br1", IP, MAC),
                FloodRow("vxlan0", LEAF),
                FdbRow("vxlan0", OTHER, MEMBER),
                NeighborRow("br0", OTHER_IP, OTHER),
                FloodRow("vxlan0", MEMBER),
            }
        ),
    )

    assert adopted_rows(WIDE, state, lambda vtep: vtep != MEMBER) == FabricRows(
        frozenset({FabricMac(Vni(4101), MAC, LEAF)}),
        frozenset({FabricNeighbor(Vni(4101), IP, MAC)}),
        frozenset({FabricFlood(Vni(4100), LEAF)}),
    )
