"""Plans of networks that a router connects."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import OTHER_END, RouterLink
from overlay.core.dataplane.operations import DeleteLink, PutLink, PutRow, applied
from overlay.core.dataplane.planning.inputs import PolicyRows, RoutedNetwork
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.state import (
    EntryRow,
    HookRow,
    NeighborRow,
    RouteRow,
    SandboxState,
    VerdictRow,
)
from overlay.core.vlan.vlans import label_of_vlans, parse_vlans
from overlay.model import Ip, Subnet, Vni, gateway_mac, mac_for, parse_ip
from tests.core.dataplane.planning.test_policed_plans import GIVEN, VNI, endpoint

RED = Vni(0x2BD)
LINK = "rt0002bd"
FOUR = Subnet(parse_ip("10.9.0.0"), 24, parse_ip("10.9.0.1"))
ROUTED = replace(
    GIVEN, policy=None, locals=(endpoint(2),), routed=(RoutedNetwork(RED, (FOUR,), 1400),)
)


def test_a_route_leads_through_the_other_networks_gateway() -> None:
    """Its MAC is known, what is too long is refused here, and only that network enters."""
    state = plan_sandbox(ROUTED)

    assert state.links[LINK] == RouterLink(LINK, gateway_mac(VNI, 0), 1400, RED)
    assert {row for row in state.rows if row.link == LINK} == {
        RouteRow(LINK, FOUR.base, 24, FOUR.gateway),
        NeighborRow(LINK, FOUR.gateway, gateway_mac(RED, 0)),
        EntryRow(LINK, FOUR.base, 24, allow=True),
        EntryRow(LINK, Ip(bytes(4)), 0, allow=False),
    }


def test_local_containers_are_neighbors_of_the_gateway() -> None:
    """Not without a router, and not those in a VLAN, which the gateway is not in."""
    ip = parse_ip("10.0.0.2")
    row = NeighborRow("br0", ip, mac_for(VNI, ip))

    assert row in plan_sandbox(ROUTED).rows
    assert row not in plan_sandbox(replace(ROUTED, routed=())).rows
    apart = replace(endpoint(2), labels=(label_of_vlans(parse_vlans("10")),))
    assert row not in plan_sandbox(replace(ROUTED, locals=(apart,))).rows


@pytest.mark.parametrize("fast_path", [True, False])
def test_policies_mark_what_enters(*, fast_path: bool) -> None:
    """So that the host that it goes to judges it; without eBPF nothing is routed."""
    deny = PolicyRows((VerdictRow(0, 0, 0, 0, 0, allow=False),))
    policed = replace(ROUTED, policy=deny)
    hook = HookRow(0, LINK, is_policed=True)

    assert hook in plan_sandbox(policed, fast_path=fast_path).rows
    assert hook not in plan_sandbox(ROUTED, fast_path=fast_path).rows
    shut = plan_sandbox(policed, policing=False)
    assert not any(row.link == LINK for row in shut.rows)


def test_a_link_that_leads_elsewhere_is_replaced() -> None:
    """With all of its rows; a removed router leaves none."""
    desired = plan_sandbox(ROUTED)
    link = desired.links[LINK]
    assert isinstance(link, RouterLink)
    astray = SandboxState(desired.links | {LINK: link._replace(altered=(OTHER_END,))}, desired.rows)
    operations = diff(desired, astray, prune=True)

    assert isinstance(operations[0], DeleteLink)
    assert PutLink(link) in operations
    assert PutRow(RouteRow(LINK, FOUR.base, 24, FOUR.gateway)) in operations
    assert applied(astray, operations) == desired
    apart = plan_sandbox(replace(ROUTED, routed=()))
    assert applied(desired, diff(apart, desired, prune=True)) == apart
