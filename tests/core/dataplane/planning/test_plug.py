"""A plugged interface adds a port and its rows to the plan of a sandbox."""

from __future__ import annotations

from dataclasses import replace

from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import PlugPort
from overlay.core.dataplane.operations import DeleteLink, PutLink, applied
from overlay.core.dataplane.planning.inputs import LocalPlug, LocalPort, PlanInput, PolicyRows
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.state import HookRow, SandboxState, SourceRow, TargetRow
from overlay.model import Endpoint, Network, NodeId, Subnet, Vni, mac_for, parse_ip

VNI = Vni(9)
SUBNETS = (
    Subnet(parse_ip("10.32.0.0"), 24, parse_ip("10.32.0.1")),
    Subnet(parse_ip("10.33.0.0"), 24, parse_ip("10.33.0.1")),
)
IPS = parse_ip("10.32.0.2"), parse_ip("10.33.0.2")
ENDPOINTS = tuple(
    Endpoint(bytes([at]) * 8, VNI, f"c{at}", mac_for(VNI, ip), (ip,)) for at, ip in enumerate(IPS)
)
GIVEN = PlanInput(
    Network(VNI, "blue", SUBNETS, NodeId(bytes(16))),
    4789,
    parse_ip("192.168.56.11"),
    1450,
    tuple(LocalPort(f"ve{at}", at, each.endpoint_id) for at, each in enumerate(ENDPOINTS)),
    ENDPOINTS,
)
PLUGGED = replace(GIVEN, plugged=(LocalPlug("plug0", "eth2"),))


def plan(given: PlanInput, *, policing: bool = True) -> SandboxState:
    """Return the plan with all that this kernel can do."""
    return plan_sandbox(given, fast_path=True, guarded=True, policing=policing)


def test_the_interface_is_a_port_of_the_first_segment() -> None:
    """Behind it, announcements are marked, so that they reach the other hosts."""
    found = plan(PLUGGED)

    assert found.links["plug0"] == PlugPort("plug0", "eth2", 1450, "br0")
    assert HookRow(0, "plug0") in found.rows
    assert "plug0" not in plan(GIVEN).links


def test_several_interfaces_are_ports_of_one_bridge() -> None:
    """They lead to different wires; each has its hook."""
    plugged = (LocalPlug("plug0", "eth2"), LocalPlug("plug3", "eth3.7"))
    found = plan(replace(GIVEN, plugged=plugged))

    ports = {link.name: link for link in found.links.values() if isinstance(link, PlugPort)}
    assert {name: port.parent for name, port in ports.items()} == {
        "plug0": "eth2",
        "plug3": "eth3.7",
    }
    assert {port.master for port in ports.values()} == {"br0"}
    assert {HookRow(0, "plug0"), HookRow(0, "plug3")} <= found.rows


def test_containers_send_by_the_bridge_there() -> None:
    """It alone knows the MACs outside; what arrives for them still passes by it."""
    found = plan(PLUGGED)

    assert {row.link for row in found.rows if isinstance(row, SourceRow)} == {"ve1"}
    assert TargetRow(ENDPOINTS[0].mac, 0, "ve0") in found.rows
    sources = {row.link for row in plan(GIVEN).rows if isinstance(row, SourceRow)}
    assert sources == {"ve0", "ve1"}


def test_policies_judge_what_leaves() -> None:
    """And without them, where the kernel cannot apply any, the port is on no bridge."""
    policed = replace(PLUGGED, policy=PolicyRows())

    rows = plan(policed).rows
    assert HookRow(0, "plug0", is_policed=True) in rows
    assert HookRow(0, "plug0", is_policed=True, is_leaving=True) in rows
    assert plan(policed, policing=False).links["plug0"] == PlugPort("plug0", "eth2", 1450, "")


def test_another_interface_is_another_device() -> None:
    """The kernel cannot move a macvlan device to another interface."""
    one, other = plan(PLUGGED), plan(replace(PLUGGED, plugged=(LocalPlug("plug0", "eth3"),)))
    operations = diff(other, one, prune=True)

    assert operations[0] == DeleteLink(one.links["plug0"])
    assert PutLink(other.links["plug0"]) in operations
    assert str(PutLink(other.links["plug0"])).startswith("ip link add plug0 link eth3 mtu 1450")
    assert applied(one, operations) == other
