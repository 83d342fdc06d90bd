"""A port may send from its own addresses, and those that its endpoint's record allows."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.port_security import (
    DHCP_SERVER_LABEL,
    ROUTER_LABEL,
    allowed_addresses,
    allowed_macs,
    guard_row,
    labels_of_allowed,
    require_never_allocated,
)
from overlay.core.dataplane.state import GuardRow, SourceRow, TargetRow
from overlay.errors import UsageError
from overlay.model import (
    PORT_SECURITY_OFF_LABEL,
    Endpoint,
    Ip,
    Network,
    NodeId,
    Subnet,
    Vni,
    gateway_mac,
    mac_for,
    parse_ip,
    parse_mac,
)

VIRTUAL = parse_ip("10.32.0.100")
SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"), auxiliary=(("web", VIRTUAL),))
NETWORK = Network(Vni(9), "blue", (SUBNET,), NodeId(bytes(16)))
IP = parse_ip("10.32.0.2")
MAC = mac_for(NETWORK.vni, IP)


def endpoint(*labels: tuple[str, str]) -> Endpoint:
    """Return an endpoint with labels."""
    return Endpoint(b"1" * 8, NETWORK.vni, "web", MAC, (IP,), labels=labels)


def test_allowed_addresses_are_labels() -> None:
    """They read back, and other labels are none."""
    several = (VIRTUAL, parse_ip("fd00::64"))

    assert allowed_addresses(endpoint(("team", "a"), *labels_of_allowed(several))) == several
    assert allowed_addresses(endpoint()) == ()


def test_a_label_that_is_no_address_allows_nothing() -> None:
    """A member may write what no agent does."""
    assert allowed_addresses(endpoint(("overlayd.allow-ip.everything", "on"))) == ()


def test_the_port_may_use_its_own_and_the_allowed() -> None:
    """Both are in its row of port security; the fast path carries its own only."""
    virtual = endpoint(*labels_of_allowed([VIRTUAL]))
    assert guard_row(NETWORK, "ve1", virtual) == GuardRow((MAC,), (IP, VIRTUAL), "ve1")

    port = LocalPort("ve1", 0, virtual.endpoint_id)
    given = PlanInput(NETWORK, 4789, Ip(b"\x0a\0\0\1"), 1450, (port,), (virtual,))
    rows = plan_sandbox(given, fast_path=True).rows
    assert {row.ip for row in rows if isinstance(row, SourceRow)} == {IP}


def test_roles_of_a_port_are_labels() -> None:
    """A port without the label is no DHCP server and no router; an open one needs none."""
    server = guard_row(NETWORK, "ve1", endpoint(DHCP_SERVER_LABEL))
    router = guard_row(NETWORK, "ve1", endpoint(ROUTER_LABEL))
    opened = guard_row(NETWORK, "ve1", endpoint(PORT_SECURITY_OFF_LABEL, ROUTER_LABEL))

    assert server == GuardRow((MAC,), (IP,), "ve1", is_dhcp_server=True)
    assert router == GuardRow((MAC,), (IP,), "ve1", is_router=True)
    assert opened == GuardRow((), (), "ve1")
    assert str(PutRow(server)).endswith("10.32.0.2 dhcp-server at ve1")


def test_allowed_macs_take_the_bridge() -> None:
    """Which knows where they are; not that of another container, and never a gateway's."""
    inner, other = parse_mac("02:00:00:00:00:07"), mac_for(NETWORK.vni, VIRTUAL)
    labels = labels_of_allowed([], [inner, other, gateway_mac(NETWORK.vni, 0)])
    one = endpoint(*labels, ("overlayd.allow-mac.all", "on"), ("overlayd.allow-mac.03:0:0", "on"))
    two = Endpoint(b"2" * 8, NETWORK.vni, "db", other, (VIRTUAL,))
    ports = (LocalPort("ve1", 0, one.endpoint_id), LocalPort("ve2", 0, two.endpoint_id))
    given = PlanInput(NETWORK, 4789, Ip(b"\x0a\0\0\1"), 1450, ports, (one, two))
    rows = plan_sandbox(given, fast_path=True, guarded=True).rows

    assert set(allowed_macs(one)) == {inner, other}
    assert GuardRow(tuple(sorted((MAC, inner, other))), (IP,), "ve1") in rows
    targets = {row.mac: row.link for row in rows if isinstance(row, TargetRow)}
    assert (targets[inner], targets[other], targets[MAC]) == ("br0", "ve2", "ve1")


@pytest.mark.parametrize("text", ["10.32.0.100", "10.99.0.1", "fd00::1"])
def test_reserved_and_outside_addresses_can_be_allowed(text: str) -> None:
    """The network gives none of them to a container."""
    require_never_allocated(NETWORK, [parse_ip(text)])


@pytest.mark.parametrize("text", ["10.32.0.1", "10.32.0.2", "10.32.255.255"])
def test_other_addresses_of_the_network_cannot(text: str) -> None:
    """A gateway's, another container's, or one that a container may get."""
    with pytest.raises(UsageError, match="may become the address of a container"):
        require_never_allocated(NETWORK, [parse_ip(text)])
