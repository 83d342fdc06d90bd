"""Shared rates in a sandbox's plan."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.controls.shared_rate import (
    require_sharing,
    shared_rate_of,
)
from overlay.core.dataplane.link_state import Vxlan
from overlay.core.dataplane.network_drivers import labels_of
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.state import HookRow, MarkRow, SandboxState, SharedRateRow, SourceRow
from overlay.errors import UsageError
from overlay.model import Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for, parse_ip

FIRST = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))
SECOND = Subnet(parse_ip("10.33.0.0"), 16, parse_ip("10.33.0.1"))


def network(rate: str, *subnets: Subnet, driver: str = "overlay") -> Network:
    """Return a network whose containers share a rate."""
    labels = (("overlayd.shared-rate", rate), *labels_of(driver, ""))
    return Network(Vni(9), "blue", subnets or (FIRST,), NodeId(bytes(16)), labels=labels)


def planned(blue: Network, base: str = "vxlan", receiving: Ip | None = None) -> SandboxState:
    """Return the plan of two containers, of which the second has a priority."""
    ips = [parse_ip("10.32.0.2"), parse_ip("10.32.0.3")]
    labels = ((), (("overlayd.priority", "5"),))
    found = tuple(
        Endpoint(bytes([n]) * 8, Vni(9), f"c{n}", mac_for(Vni(9), ip), (ip,), (), labels[n])
        for n, ip in enumerate(ips)
    )[: 1 if blue.subnets == (FIRST,) else 2]
    ports = tuple(LocalPort(f"ve{n}", 0, each.endpoint_id) for n, each in enumerate(found))
    given = PlanInput(
        blue, 4789, Ip(b"\x0a\0\0\1"), 1450, ports, found, device_base=base, receiving=receiving
    )
    return plan_sandbox(given, fast_path=True, native=True, guarded=True)


def rates(state: SandboxState) -> set[SharedRateRow]:
    """Return the shared rates of a plan."""
    return {row for row in state.rows if isinstance(row, SharedRateRow)}


def test_all_that_leaves_passes_the_queue() -> None:
    """Not the native path; the fast path past the bridge stays, and ports are marked."""
    state = planned(network("8000001"))
    assert rates(state) == {SharedRateRow("vxlan0", 8_000_000)}, "whole bytes"
    assert {row for row in state.rows if isinstance(row, MarkRow)} == {MarkRow("ve0", 0)}
    assert {link.inherits_dscp for link in state.links.values() if isinstance(link, Vxlan)} == {
        True
    }
    assert any(isinstance(row, SourceRow) for row in state.rows)
    assert HookRow(0, "native0", is_leaving=True) not in state.rows


def test_each_segment_has_the_rate() -> None:
    """At the devices that send; one that only receives while encryption is switched has none."""
    state = planned(network("64000", FIRST, SECOND), "vxlanb", receiving=parse_ip("fd00::1"))
    assert rates(state) == {SharedRateRow("vxlanb0", 64_000), SharedRateRow("vxlanb1", 64_000)}
    assert {"vxlan0", "vxlan1"} <= set(state.links)
    assert {row for row in state.rows if isinstance(row, MarkRow)} == {
        MarkRow("ve0", 0),
        MarkRow("ve1", 5),
    }


@pytest.mark.parametrize("text", ["", "fast", "-1"])
def test_a_label_that_no_agent_writes_is_no_rate(text: str) -> None:
    """Then nothing is limited or marked, and frames take the native path."""
    state = planned(network(text))
    assert rates(state) == set()
    assert HookRow(0, "native0", is_leaving=True) in state.rows


@pytest.mark.parametrize("driver", ["bridge", "macvlan", "ipvlan"])
def test_a_driver_without_tunnels_is_refused(driver: str) -> None:
    """In words; a label that says otherwise has no effect."""
    with pytest.raises(UsageError, match="shared_rate is not supported by driver") as caught:
        require_sharing(driver)
    assert caught.value.field == "shared_rate"
    require_sharing("overlay")
    assert shared_rate_of(network("64000", driver=driver)) == 0
