"""Two VXLAN devices beside each other while a network is switched to encryption."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Vxlan
from overlay.core.dataplane.operations import DeleteLink, PutLink, applied
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.state import (
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    HookRow,
    SandboxState,
    TargetRow,
)
from overlay.core.dataplane.tunnel_devices import sending_base, sending_device
from overlay.model import Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for, parse_ip

A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)
SUBNETS = tuple(
    Subnet(parse_ip(f"10.0.{n}.0"), 24, parse_ip(f"10.0.{n}.1")) for n in range(2)
)  # two segments
VNI = Vni(700)
CLEAR, INNER = (parse_ip("192.0.2.1"), parse_ip("fd6f:766c::1"))
PEER = {CLEAR: parse_ip("192.0.2.2"), INNER: parse_ip("fd6f:766c::2")}
IP = parse_ip("10.0.0.9")
REMOTE = Endpoint(b"e" * 16, VNI, "web", mac_for(VNI, IP), (IP,))


def planned(state: SandboxState, local: Ip, receiving: Ip | None) -> SandboxState:
    """Return the plan for a sandbox in this state that sends from an address."""
    given = PlanInput(
        Network(VNI, "blue", SUBNETS, A), 4789, local, 1450,
        remotes=(RemoteEndpoint(B, PEER[local], REMOTE),), flood=(PEER[local],),
        receiving=receiving,
    )  # fmt: skip
    given = replace(given, device_base=sending_base(state.links, local, receiving))
    return plan_sandbox(given, fast_path=True)


def devices(state: SandboxState) -> dict[str, Ip]:
    """Return the VXLAN devices' addresses by name."""
    return {name: link.local for name, link in state.links.items() if isinstance(link, Vxlan)}


def test_rows_move_to_the_second_device_and_back() -> None:
    """It receives first, then sends, and stays alone; the next switch makes the first again."""
    steps = [
        (CLEAR, None, "vxlan", {"vxlan": CLEAR}),
        (CLEAR, INNER, "vxlan", {"vxlan": CLEAR, "vxlanb": INNER}),
        (INNER, CLEAR, "vxlanb", {"vxlan": CLEAR, "vxlanb": INNER}),
        (INNER, None, "vxlanb", {"vxlanb": INNER}),
        (INNER, CLEAR, "vxlanb", {"vxlan": CLEAR, "vxlanb": INNER}),
        (CLEAR, INNER, "vxlan", {"vxlan": CLEAR, "vxlanb": INNER}),
        (CLEAR, None, "vxlan", {"vxlan": CLEAR}),
    ]
    state = SandboxState()
    for local, receiving, base, there in steps:
        wanted = planned(state, local, receiving)
        operations = diff(wanted, state, prune=True)
        state = applied(state, operations)
        assert state == wanted
        both = {f"{name}{n}": ip for name, ip in there.items() for n in range(2)}
        assert devices(state) == both
        assert sending_device(state, 1) == f"{base}1"
        rows = {row for row in state.rows if isinstance(row, FdbRow | FloodRow | BridgeFdbRow)}
        assert {row.link for row in rows} == {f"{base}0", f"{base}1"}
        hooked = {row.link for row in state.rows if isinstance(row, HookRow)}
        assert set(both) < hooked
        targets = {row.link for row in state.rows if isinstance(row, TargetRow) if not any(row.mac)}
        assert targets == {f"{base}0", f"{base}1"}
        changed = [each for each in operations if isinstance(each, PutLink | DeleteLink)]
        assert len([each for each in changed if isinstance(each.link, Vxlan)]) in (0, 2)


@pytest.mark.parametrize(("local", "receiving"), [(CLEAR, None), (INNER, None), (INNER, CLEAR)])
def test_a_new_sandbox_sends_by_the_first_device(local: Ip, receiving: Ip | None) -> None:
    """After a start of the host, whatever was there before."""
    assert sending_base({}, local, receiving) == "vxlan"


def test_an_ipv6_underlay_keeps_its_one_device() -> None:
    """Its address changes in place."""
    underlay = parse_ip("2001:db8::1")
    PEER[underlay] = parse_ip("2001:db8::2")
    before = planned(SandboxState(), underlay, None)
    after = planned(before, INNER, None)
    assert not [each for each in diff(after, before, prune=True) if isinstance(each, DeleteLink)]
    assert devices(after) == {"vxlan0": INNER, "vxlan1": INNER}
