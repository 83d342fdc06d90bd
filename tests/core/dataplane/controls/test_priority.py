"""Priorities as text, and the marks of a network's ports."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.controls.priority import parse_priority, stored_priority
from overlay.core.dataplane.link_state import Vxlan
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.state import TRUSTED, HookRow, MarkRow, SandboxState, SourceRow
from overlay.errors import UsageError
from overlay.model import Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for, parse_ip

SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))


def planned(
    *labels: tuple[tuple[str, str], ...], common: str = "", policing: bool = True
) -> SandboxState:
    """Return the plan of containers with these labels, on ports ve0, ve1, ..."""
    of_network = (("overlayd.priority", common),) if common else ()
    network = Network(Vni(9), "blue", (SUBNET,), NodeId(bytes(16)), labels=of_network)
    ips = [parse_ip(f"10.32.0.{number + 2}") for number in range(len(labels))]
    found = tuple(
        Endpoint(bytes([n]) * 8, Vni(9), f"c{n}", mac_for(Vni(9), ip), (ip,), (), each)
        for n, (ip, each) in enumerate(zip(ips, labels, strict=True))
    )
    ports = tuple(LocalPort(f"ve{n}", 0, each.endpoint_id) for n, each in enumerate(found))
    given = PlanInput(network, 4789, Ip(b"\x0a\0\0\1"), 1450, ports, found)
    return plan_sandbox(given, fast_path=True, native=True, guarded=True, policing=policing)


def marks(state: SandboxState) -> set[MarkRow]:
    """Return the marks of a plan."""
    return {row for row in state.rows if isinstance(row, MarkRow)}


def inherits(state: SandboxState) -> set[bool]:
    """Return whether VXLAN devices copy the DSCP."""
    return {link.inherits_dscp for link in state.links.values() if isinstance(link, Vxlan)}


def sends_natively(state: SandboxState) -> bool:
    """Return whether packets to other hosts go past the VXLAN device, which alone copies DSCP."""
    return HookRow(0, "native0", is_leaving=True) in state.rows


def test_without_priorities_nothing_is_marked() -> None:
    """And no outer header has a DSCP; a label that no agent writes is none."""
    state = planned((), (("overlayd.priority", "8"),))
    assert (marks(state), inherits(state)) == (set(), {False})
    assert sends_natively(state)


def test_one_priority_marks_all_ports() -> None:
    """The others with 0, so that none can raise its own; all keep the fast path."""
    state = planned((("overlayd.priority", "5"),), (), (("overlayd.priority", "trust"),))
    assert marks(state) == {MarkRow("ve0", 5), MarkRow("ve1", 0), MarkRow("ve2", TRUSTED)}
    assert inherits(state) == {True}
    assert len([row for row in state.rows if isinstance(row, SourceRow)]) == 3
    assert not sends_natively(state)


def test_a_networks_priority_holds_for_ports_without_their_own() -> None:
    """Not where programs cannot run: there the outer header has none either."""
    state = planned((("overlayd.priority", "0"),), (), common="3")
    assert marks(state) == {MarkRow("ve0", 0), MarkRow("ve1", 3)}
    state = planned((), common="3", policing=False)
    assert (marks(state), inherits(state)) == (set(), {False})


def test_texts_are_read_and_others_refused() -> None:
    """In any case; `none` removes a priority."""
    assert [parse_priority(text, "f") for text in ("7", "Trust", " 0 ", "none", "")] == [
        "7", "trust", "0", "", "",
    ]  # fmt: skip
    assert [stored_priority(text) for text in ("7", "trust", "8", "none")] == ["7", "trust", "", ""]
    for text in ("8", "-1", "05", "high"):
        with pytest.raises(UsageError, match="is not a priority") as caught:
            parse_priority(text, "priority")
        assert caught.value.field == "priority"
