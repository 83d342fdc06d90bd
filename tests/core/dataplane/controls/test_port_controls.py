"""Controls of ports as labels, and the rows that they become."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.controls.port_controls import (
    NO_CHANGES,
    ControlChanges,
    PortControls,
    controls_of,
    controls_on,
    require_controllable,
    with_controls,
)
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.port_security import guard_row
from overlay.core.dataplane.state import ANY_ETHERTYPE, SourceRow, StormRow
from overlay.errors import UsageError
from overlay.model import (
    HOST_LABEL,
    PORT_SECURITY_OFF_LABEL,
    Endpoint,
    Ip,
    Network,
    NodeId,
    Subnet,
    Vni,
    mac_for,
    parse_ip,
)

IP = parse_ip("10.32.0.2")
SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))


def network(*labels: tuple[str, str]) -> Network:
    """Return a network with labels."""
    return Network(Vni(9), "blue", (SUBNET,), NodeId(bytes(16)), labels=labels)


def endpoint(*labels: tuple[str, str]) -> Endpoint:
    """Return an endpoint with labels."""
    return Endpoint(b"1" * 8, Vni(9), "web", mac_for(Vni(9), IP), (IP,), (), labels)


def test_labels_hold_the_controls() -> None:
    """They read back, other labels stay, None keeps a control, 0 removes it."""
    labels = with_controls((("team", "a"),), ControlChanges(storm=200))
    assert controls_of(labels) == PortControls(storm=200)
    assert with_controls(labels, NO_CHANGES) == labels
    assert with_controls(labels, ControlChanges(storm=0)) == (("team", "a"),)
    both = with_controls(labels, ControlChanges(allow_non_ip=(0x88F7,)))
    shown = {"storm": 200, "allow_non_ip": "0x88f7", "priority": None}
    assert controls_of(both).shown() == shown
    assert with_controls(both, ControlChanges(allow_non_ip=())) == labels


@pytest.mark.parametrize("text", ["", "-1", "1e3", "many"])
def test_an_invalid_label_controls_nothing(text: str) -> None:
    """A label that no agent writes limits nothing, and breaks nothing."""
    assert controls_of((("overlayd.storm", text),)) == PortControls()


def test_a_networks_control_holds_for_ports_without_their_own() -> None:
    """Never for the host's own endpoint."""
    common, own = ("overlayd.storm", "100"), ("overlayd.storm", "900")
    assert controls_on(network(common), endpoint()).storm == 100
    assert controls_on(network(common), endpoint(own)).storm == 900
    assert controls_on(network(common), endpoint(HOST_LABEL)) == PortControls()


def test_allowed_types_are_of_the_guard() -> None:
    """Of the endpoint, else of the network; an open port sends all anyway."""
    common, own = ("overlayd.non-ip", "all"), ("overlayd.non-ip", "0x88f7,llc")
    assert guard_row(network(common), "ve1", endpoint()).ethertypes == (ANY_ETHERTYPE,)
    assert guard_row(network(common), "ve1", endpoint(own)).ethertypes == (4, 0x88F7)
    assert guard_row(network(), "ve1", endpoint(own, PORT_SECURITY_OFF_LABEL)).ethertypes == ()


def test_storm_control_keeps_the_fast_path() -> None:
    """It carries neither broadcast nor multicast; without nftables there is no row."""
    found = endpoint(("overlayd.storm", "100"))
    port = LocalPort("ve1", 0, found.endpoint_id)
    given = PlanInput(network(), 4789, Ip(b"\x0a\0\0\1"), 1450, (port,), (found,))
    rows = plan_sandbox(given, fast_path=True, guarded=True).rows
    assert StormRow("ve1", 100) in rows
    assert any(isinstance(row, SourceRow) for row in rows)
    assert StormRow("ve1", 100) not in plan_sandbox(given, fast_path=True).rows


def test_a_physical_segment_has_no_controls() -> None:
    """Frames of its containers pass no bridge of overlayd's."""
    lan = network(("overlayd.driver", "macvlan"), ("overlayd.parent", "eth1"))
    require_controllable(lan, ControlChanges(storm=0))
    require_controllable(network(), ControlChanges(storm=10))
    with pytest.raises(UsageError, match="storm is not supported by driver macvlan"):
        require_controllable(lan, ControlChanges(storm=10))
