"""Plans of networks with policies: which hooks run, and what is on no bridge."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.operations import ChangeLink, applied
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput, PolicyRows
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.ports import required_hooks
from overlay.core.dataplane.state import (
    AddressRow,
    HookRow,
    PolicyClassRow,
    SourceRow,
    TargetRow,
    VerdictRow,
)
from overlay.core.vlan.vlans import NO_VLANS
from overlay.model import (
    HOST_LABEL,
    Endpoint,
    Network,
    NodeId,
    Subnet,
    Vni,
    mac_for,
    parse_ip,
)

VNI = Vni(700)
FOUR = Subnet(parse_ip("10.0.0.0"), 24, parse_ip("10.0.0.1"))
NETWORK = Network(VNI, "blue", (FOUR,), NodeId(b"A" * 16))
CLASS = PolicyClassRow(parse_ip("10.0.0.0"), 24, 7)
DEFAULT = VerdictRow(0, 0, 0, 0, 0, allow=False)
POLICY = PolicyRows((CLASS, DEFAULT))
PORT = LocalPort("ve1", 0, b"1" * 8)


def endpoint(serial: int, labels: tuple[tuple[str, str], ...] = ()) -> Endpoint:
    """Return a local endpoint."""
    ip = parse_ip(f"10.0.0.{serial}")
    return Endpoint(
        str(serial).encode() * 8, VNI, f"c{serial}", mac_for(VNI, ip), (ip,), (), labels
    )


GIVEN = PlanInput(
    NETWORK,
    4789,
    parse_ip("192.168.56.11"),
    1450,
    ports=(PORT,),
    locals=(endpoint(1), endpoint(2, (HOST_LABEL,))),
    policy=POLICY,
)


def test_a_network_without_policies_is_as_it_was() -> None:
    """Nothing of policies, whatever the kernel can do."""
    plain = replace(GIVEN, policy=None)
    rows = plan_sandbox(plain, fast_path=True).rows

    assert not any(isinstance(row, PolicyClassRow | VerdictRow) for row in rows)
    assert not any(row.is_policed or row.is_leaving for row in rows if isinstance(row, HookRow))
    assert plan_sandbox(plain, fast_path=True, policing=False).rows == rows


@pytest.mark.parametrize("fast_path", [False, True])
def test_policies_are_checked_wherever_frames_pass(fast_path: bool) -> None:
    """At ports in both directions, at the VXLAN device, the bridge, and the host's port."""
    rows = plan_sandbox(GIVEN, fast_path=fast_path).rows

    assert {CLASS, DEFAULT} <= rows
    hooks = {row for row in rows if isinstance(row, HookRow)}
    assert all(row.is_policed for row in hooks)
    assert {(row.link, row.is_leaving) for row in hooks} == {
        ("ve1", False),
        ("ve1", True),
        ("host0", True),
        ("vxlan0", False),
        ("vxlan0", True),
        ("br0", False),
    }
    assert any(isinstance(row, SourceRow | TargetRow) for row in rows) == fast_path


def test_a_port_without_a_record_is_checked_as_well() -> None:
    """A container whose record is not there, or has a gateway's MAC."""
    rows = plan_sandbox(replace(GIVEN, locals=())).rows

    assert set(required_hooks(NETWORK, PORT, NO_VLANS, is_policed=True)) <= rows


def test_ports_are_shut_where_policies_cannot_be_in_force() -> None:
    """They leave their bridge, and return to it."""
    opened = plan_sandbox(GIVEN, fast_path=True)
    shut = plan_sandbox(GIVEN, policing=False)

    assert shut.links["ve1"] == Port("ve1", 1450, "")
    assert AddressRow("br0", FOUR.gateway, 24) in shut.rows
    assert CLASS not in shut.rows
    closing = diff(shut, opened, prune=True)
    assert ChangeLink(Port("ve1", 1450, "br0"), Port("ve1", 1450, "")) in closing
    assert applied(opened, closing) == shut
    assert applied(shut, diff(opened, shut, prune=True)) == opened
