"""Each fault on a way is found at the step that it belongs to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from overlay import limits
from overlay.core.dataplane.state import (
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    GuardRow,
    HookRow,
    IsolatedRow,
    NeighborRow,
    SandboxState,
    TargetRow,
)
from overlay.core.paths.view import PathState
from overlay.core.protocol.trace import Outcome, Phase, Step
from overlay.core.trace import judge
from overlay.core.trace.facts import CachedNeighbor, HostFacts, RouteFacts
from overlay.model import Mac, parse_ip
from tests.core.trace.bench import (
    CONTAINER,
    DB,
    DB_PORT,
    OTHER_VTEP,
    OWN_IP,
    PATH,
    PEER_IP,
    PEER_VTEP,
    WEB,
    WEB_PORT,
    bad,
    changed,
    facts,
    finding,
    planned,
    with_link,
    without,
)

PLAN = planned()
STRANGE = Mac(b"\x02strng")
FDB, FLOOD = FdbRow("vxlan0", DB.mac, PEER_VTEP), FloodRow("vxlan0", PEER_VTEP)
NEIGHBOR, BEHIND = NeighborRow("br0", PEER_IP, DB.mac), BridgeFdbRow("vxlan0", DB.mac)
GUARD = GuardRow((WEB.mac,), (OWN_IP,), WEB_PORT)
DROP, WARN, UNKNOWN = Outcome.DROP, Outcome.WARN, Outcome.UNKNOWN


@pytest.mark.parametrize("is_local", [False, True])
def test_nothing_is_found_where_all_is_well(*, is_local: bool) -> None:
    """Neither between two hosts nor on one."""
    found = facts(is_local=is_local)

    assert bad(found, Phase.SEND) == []
    assert bad(found, Phase.RECEIVE) == []


@pytest.mark.parametrize(
    ("actual", "step", "outcome"),
    [
        (without(PLAN, FDB), Step.FDB, WARN),  # flooded
        (without(PLAN, FDB, FLOOD), Step.FDB, DROP),
        (changed(PLAN, FDB, FdbRow("vxlan0", DB.mac, OTHER_VTEP)), Step.FDB, DROP),
        (without(PLAN, BEHIND), Step.FDB, WARN),
        (without(PLAN, NEIGHBOR), Step.NEIGHBOR, WARN),
        (without(PLAN, NEIGHBOR, FLOOD), Step.NEIGHBOR, DROP),
        (changed(PLAN, NEIGHBOR, NeighborRow("br0", PEER_IP, STRANGE)), Step.NEIGHBOR, DROP),
        (without(PLAN, GUARD), Step.SECURITY, DROP),
        (changed(PLAN, GUARD, GuardRow((STRANGE,), (OWN_IP,), WEB_PORT)), Step.SECURITY, DROP),
        (changed(PLAN, GUARD, GuardRow((WEB.mac,), (PEER_IP,), WEB_PORT)), Step.SECURITY, DROP),
        (with_link(PLAN, WEB_PORT, altered=("up",)), Step.PORT, DROP),
        (with_link(PLAN, WEB_PORT, master=""), Step.PORT, DROP),
        (with_link(PLAN, WEB_PORT, altered=("isolated",)), Step.PORT, WARN),
        (with_link(PLAN, WEB_PORT, altered=("port state",)), Step.PORT, DROP),
        (without(PLAN, links=(WEB_PORT,)), Step.PORT, DROP),
        (without(PLAN, links=("br0",)), Step.SANDBOX, DROP),
        (with_link(PLAN, "br0", altered=("up",)), Step.SANDBOX, DROP),
        (with_link(PLAN, "vxlan0", altered=("up",)), Step.SANDBOX, DROP),
        (with_link(PLAN, "vxlan0", vni=5), Step.SANDBOX, DROP),
        (with_link(PLAN, "vxlan0", port=0), Step.SANDBOX, DROP),
        (with_link(PLAN, "vxlan0", local=OTHER_VTEP), Step.SANDBOX, DROP),
        (with_link(PLAN, "vxlan0", master=""), Step.SANDBOX, DROP),
        (with_link(PLAN, "vxlan0", altered=("learning",)), Step.SANDBOX, WARN),
        (without(PLAN, HookRow(0, WEB_PORT)), Step.FAST_PATH, WARN),
        (without(PLAN, TargetRow(Mac(bytes(6)), 0, "vxlan0")), Step.FAST_PATH, WARN),
    ],
)  # fmt: skip
def test_a_row_or_link_that_differs(actual: Any, step: Step, outcome: Outcome) -> None:
    """The kernel lacks it, or has another."""
    found = bad(facts(actual=actual))

    assert found[0] == (step, outcome)
    assert finding(facts(actual=actual), step).hint


def test_isolation_is_named_by_both_hosts() -> None:
    """As what drops the packets of two isolated containers."""
    apart = changed(PLAN, GUARD, GUARD._replace(is_isolated=True))
    actual = SandboxState(apart.links, apart.rows | {IsolatedRow(PEER_IP)})
    found = facts(actual=actual)

    for phase in (Phase.SEND, Phase.RECEIVE):
        assert (Step.SECURITY, DROP) in bad(found, phase)
    assert "are isolated" in finding(found, Step.SECURITY, Phase.RECEIVE).text
    assert bad(facts(actual=apart), Phase.SEND) == []


@pytest.mark.parametrize(
    ("container", "step", "outcome"),
    [
        (None, Step.INTERFACE, DROP),
        (replace(CONTAINER, ifname=""), Step.INTERFACE, DROP),
        (replace(CONTAINER, is_up=False), Step.INTERFACE, DROP),
        (replace(CONTAINER, ips=frozenset({PEER_IP})), Step.INTERFACE, DROP),
        (replace(CONTAINER, route=None), Step.ROUTE, DROP),
        (replace(CONTAINER, route=RouteFacts("eth1", None)), Step.ROUTE, DROP),
        (replace(CONTAINER, route=RouteFacts("eth0", parse_ip("10.1.0.1")), cached=None),
         Step.ROUTE, WARN),
        (replace(CONTAINER, cached=CachedNeighbor(PEER_IP, STRANGE, is_permanent=True)),
         Step.CACHE, DROP),
        (replace(CONTAINER, mac=STRANGE), Step.SECURITY, DROP),
        (replace(CONTAINER, mtu=1500), Step.SIZE, WARN),
    ],
)  # fmt: skip
def test_a_container_that_differs(container: Any, step: Step, outcome: Outcome) -> None:
    """Changes of its interface by programs inside it are found."""
    assert bad(facts(container=container)) == [(step, outcome)]


@pytest.mark.parametrize(
    ("path", "phase", "step", "outcome"),
    [
        (None, Phase.SEND, Step.PATH, UNKNOWN),
        (None, Phase.RECEIVE, Step.PATH, UNKNOWN),
        (replace(PATH, sending=PathState.UNKNOWN), Phase.SEND, Step.PATH, UNKNOWN),
        (replace(PATH, sending=PathState.LOST), Phase.SEND, Step.PATH, DROP),
        (replace(PATH, sending=PathState.SILENT), Phase.SEND, Step.PATH, UNKNOWN),
        (replace(PATH, sending=PathState.DAMAGED), Phase.SEND, Step.PATH, DROP),
        (replace(PATH, receiving=PathState.LOST), Phase.RECEIVE, Step.PATH, DROP),
        (replace(PATH, receiving=PathState.DAMAGED), Phase.RECEIVE, Step.PATH, DROP),
        (replace(PATH, receiving=PathState.UNKNOWN), Phase.RECEIVE, Step.PATH, UNKNOWN),
        (replace(PATH, size_fails=True), Phase.SEND, Step.SIZE, WARN),
        (replace(PATH, size_carried=0), Phase.SEND, Step.SIZE, WARN),
    ],
)
def test_a_path_that_loses(path: Any, phase: Phase, step: Step, outcome: Outcome) -> None:
    """In one direction, or large packets only."""
    assert bad(facts(path=path), phase) == [(step, outcome)]


@pytest.mark.parametrize("phase", [Phase.SEND, Phase.RECEIVE])
def test_a_path_that_nobody_probes_is_not_waited_for(phase: Phase) -> None:
    """Without the other agent it stays so; another try helps only right after a start."""
    found = finding(facts(path=None), Step.PATH, phase)

    assert "not probed, which takes the agents of both hosts" in found.text
    assert f"On {facts().peer.node}: overlayd status" in found.hint


def test_a_smaller_path_limits_the_container() -> None:
    """Its interface still has the MTU of before."""
    assert bad(facts(fits=1350)) == [(Step.SIZE, WARN)]


def test_the_filter_of_the_vxlan_port() -> None:
    """The other host's VTEP is not among its members; without a filter all pass."""
    assert bad(facts(admits=False), Phase.RECEIVE) == [(Step.FILTER, DROP)]
    assert bad(facts(admits=None), Phase.RECEIVE) == []


def test_nothing_listens() -> None:
    """Only where it was asked."""
    deaf = replace(CONTAINER, listens=False)
    found = facts(container=deaf, listener="tcp port 80")

    assert bad(found, Phase.RECEIVE) == [(Step.LISTENER, DROP)]
    assert "nothing listens on tcp port 80" in finding(found, Step.LISTENER, Phase.RECEIVE).text


def test_the_receiver_misleads_the_fast_path() -> None:
    """The row for the container's MAC is another port's, or missing."""
    row = TargetRow(WEB.mac, 0, WEB_PORT)
    wrong = changed(PLAN, row, TargetRow(WEB.mac, 0, "ve0123"))

    assert bad(facts(actual=wrong), Phase.RECEIVE) == [(Step.FAST_PATH, DROP)]
    assert bad(facts(actual=without(PLAN, row)), Phase.RECEIVE) == [(Step.FAST_PATH, WARN)]


def test_a_stale_fast_path_row_for_a_remote_container() -> None:
    """It once was on this host: its frames would stay here."""
    stale = TargetRow(DB.mac, 0, "ve0123")
    actual = type(PLAN)(PLAN.links, PLAN.rows | {stale})

    assert bad(facts(actual=actual)) == [(Step.FAST_PATH, DROP)]


def test_a_missing_fast_path_row_of_a_neighbor_here() -> None:
    """Without it the frame leaves by the tunnel, where nobody has the MAC."""
    local = planned(is_local=True)
    actual = without(local, TargetRow(DB.mac, 0, DB_PORT))

    assert bad(facts(is_local=True, actual=actual)) == [(Step.FAST_PATH, DROP)]


def _routed(**changes: Any) -> HostFacts:
    """Return facts whose other end is on another segment."""
    found = facts(**changes)
    gateway = RouteFacts("eth0", parse_ip("10.1.0.1"))
    routed = replace(CONTAINER, route=gateway, cached=None)
    return replace(found, peer=found.peer._replace(segment=1), container=routed)


def test_subnets_that_are_isolated() -> None:
    """The gateway does not route between them."""
    assert bad(_routed(is_isolated=True))[0] == (Step.ROUTE, DROP)


def test_the_gateway_of_a_routed_way_is_known_by_its_mac() -> None:
    """The container's entry is compared with the bridge's MAC, not the other container's."""
    found = _routed()
    assert found.container is not None
    wrong = CachedNeighbor(parse_ip("10.1.0.1"), DB.mac, is_permanent=False)

    assert finding(replace(found, container=replace(found.container, cached=wrong)),
                   Step.CACHE).outcome is DROP  # fmt: skip


def test_an_unguarded_or_open_port_passes() -> None:
    """No nftables, or port security turned off."""
    open_port = changed(PLAN, GUARD, GuardRow((), (), WEB_PORT))
    none = without(PLAN, GUARD)

    assert bad(facts(desired=open_port, actual=open_port)) == []
    assert bad(facts(desired=none, actual=none)) == []


def test_a_conflict_is_not_called_a_fault_of_the_kernel() -> None:
    """Where the plan itself leads elsewhere, repairing changes nothing."""
    other = changed(PLAN, NEIGHBOR, NeighborRow("br0", PEER_IP, STRANGE))

    assert "claim the same address" in finding(facts(desired=other, actual=other),
                                               Step.NEIGHBOR).hint  # fmt: skip


def test_all_texts_fit_the_wire() -> None:
    """Also with the longest names and addresses."""
    name = "n" * limits.NAME_LENGTH_MAX
    found = facts(container=replace(CONTAINER, mac=STRANGE, ifname="e" * 15))
    long = replace(found, own=found.own._replace(name=name), peer=found.peer._replace(name=name,
                   node=name))  # fmt: skip

    for each in judge.findings(long):
        assert len(each.text) <= limits.TRACE_TEXT_LENGTH_MAX
        assert len(each.hint) <= limits.TRACE_TEXT_LENGTH_MAX


def test_a_fabric_is_judged_by_its_rows_alone() -> None:
    """No agent there probes the path; this host's rows say that they are of the fabric."""
    here = facts()
    outside = replace(here, peer=here.peer._replace(is_outside=True), path=None)

    found = judge.findings(outside)

    assert [each.outcome for each in found] == [Outcome.OK] * len(found)
    assert Step.PATH not in {each.step for each in found}
    assert finding(outside, Step.NEIGHBOR).text.endswith(
        "of the fabric (evpn), answered on this host"
    )
