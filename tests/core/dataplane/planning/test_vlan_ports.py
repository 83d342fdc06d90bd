"""The plan of ports in VLANs: their programs, and no way past the bridge."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.state import (
    FdbRow,
    GuardRow,
    HookRow,
    NeighborRow,
    SandboxState,
    SourceRow,
    TargetRow,
    VlanRow,
)
from overlay.core.vlan.vlans import label_of_vlans, parse_vlans
from overlay.model import Endpoint
from tests.core.dataplane.planning.test_isolation import endpoint, given, network

TEN, TRUNK = (label_of_vlans(parse_vlans(text)) for text in ("10", "10,20-30"))


def planned(
    own: Endpoint, *others: Endpoint, fast: bool = True, guarded: bool = True, policing: bool = True
) -> SandboxState:
    """Return the plan of a host with one container."""
    return plan_sandbox(
        given(own, others, network()), fast_path=fast, guarded=guarded, policing=policing
    )


@pytest.mark.parametrize("fast", [True, False])
def test_a_port_in_a_vlan_has_programs_of_its_own(*, fast: bool) -> None:
    """With or without the fast path, which its frames never take."""
    own = endpoint(2, TEN)
    state = planned(own, fast=fast)

    assert {row for row in state.rows if isinstance(row, HookRow) and row.link == "ve1"} == {
        HookRow(0, "ve1", is_vlan=True),
        HookRow(0, "ve1", is_leaving=True, is_vlan=True),
    }
    assert VlanRow(((10, 10),), is_trunk=False, link="ve1") in state.rows
    assert GuardRow((own.mac,), own.ips, "ve1", is_tagged=True) in state.rows
    assert not any(isinstance(row, SourceRow) for row in state.rows)
    assert (TargetRow(own.mac, 0, "br0") in state.rows) == fast


def test_its_packets_leave_room_for_the_tag() -> None:
    """Unlike those of a port without VLANs."""
    ports = (planned(endpoint(2, *labels)).links["ve1"] for labels in ((TEN,), (TRUNK,), ()))

    assert [port.mtu for port in ports] == [1446, 1446, 1450]


def test_other_hosts_do_not_answer_for_it() -> None:
    """The bridge would without its tag; its MAC leads to its host as any other."""
    far, common = endpoint(3, TRUNK), endpoint(4)
    rows = planned(endpoint(2, TEN), far, common).rows

    assert {row.ip for row in rows if isinstance(row, NeighborRow)} == set(common.ips)
    assert {row.mac for row in rows if isinstance(row, FdbRow)} == {far.mac, common.mac}


@pytest.mark.parametrize(("guarded", "policing"), [(False, True), (True, False)])
def test_without_what_it_needs_the_port_is_shut(*, guarded: bool, policing: bool) -> None:
    """Others are on the bridge."""
    masters = []
    for labels in ((TEN,), ()):
        port = planned(endpoint(2, *labels), guarded=guarded, policing=policing).links["ve1"]
        assert isinstance(port, Port)
        masters.append(port.master)

    assert masters == ["", "br0"]
