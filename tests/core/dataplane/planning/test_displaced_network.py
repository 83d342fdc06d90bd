"""A network in place of the one that containers were attached to, under its VNI.

Any member can write one that wins the VNI, and a creator can define its own anew. An IndexError in
a plan ended the agent of each host with a container in a later subnet, again after each restart.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.state import GuardRow
from overlay.model import Endpoint, Network, NodeId, Subnet, Vni, mac_for, parse_ip

VNI = Vni(9)
ONE = Subnet(parse_ip("10.32.0.0"), 24, parse_ip("10.32.0.1"))
TWO = Subnet(parse_ip("10.33.0.0"), 24, parse_ip("10.33.0.1"))
ELSEWHERE = Subnet(parse_ip("fd00::"), 64, parse_ip("fd00::1"))
IPS = parse_ip("10.32.0.2"), parse_ip("10.33.0.2")
LABELS = (("overlayd.vlan", "10"),), (("overlayd.allow-ip.10.9.9.9", "on"),)
ENDPOINTS = tuple(
    Endpoint(bytes([at]) * 8, VNI, f"c{at}", mac_for(VNI, ip), (ip,), labels=LABELS[at])
    for at, ip in enumerate(IPS)
)
GIVEN = PlanInput(
    Network(VNI, "blue", (ONE, TWO), NodeId(bytes(16))),
    4789,
    parse_ip("192.168.56.11"),
    1450,
    tuple(LocalPort(f"ve{at}", at, each.endpoint_id) for at, each in enumerate(ENDPOINTS)),
    ENDPOINTS,
)


@pytest.mark.parametrize("subnets", [(ONE,), (ELSEWHERE,), (TWO,)])
@pytest.mark.parametrize("everything", [True, False])
def test_a_port_of_a_subnet_that_is_gone_is_closed(
    subnets: tuple[Subnet, ...], *, everything: bool
) -> None:
    """It stays, so that the container has it again with its network; and passes nothing."""
    given = replace(GIVEN, network=replace(GIVEN.network, subnets=subnets))
    found = plan_sandbox(given, fast_path=everything, native=everything, guarded=everything)

    ports = {link.name: link.master for link in found.links.values() if isinstance(link, Port)}
    assert ports["ve1"] == ""
    assert not [row for row in found.rows if isinstance(row, GuardRow) and row.link == "ve1"]
    whole = plan_sandbox(GIVEN, fast_path=everything, native=everything, guarded=everything)
    ports = {link.name: link.master for link in whole.links.values() if isinstance(link, Port)}
    assert ports["ve1"] == "br1"
