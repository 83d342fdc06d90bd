"""A planned sandbox with one local and one remote container, for tests of the judgement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from overlay.core.dataplane.link_state import Link
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.segments import port_name
from overlay.core.dataplane.state import Row, SandboxState
from overlay.core.paths.view import PathState, PathView
from overlay.core.protocol.trace import Finding, Outcome, Phase, Step
from overlay.core.trace import judge
from overlay.core.trace.facts import (
    CachedNeighbor,
    ContainerFacts,
    HostFacts,
    OwnEnd,
    PeerEnd,
    RouteFacts,
)
from overlay.model import Endpoint, Network, NodeId, Subnet, Vni, mac_for, parse_ip

VNI = Vni(0x900000)
OWN_IP, PEER_IP = parse_ip("10.1.0.2"), parse_ip("10.1.0.3")
OWN_VTEP, PEER_VTEP, OTHER_VTEP = map(parse_ip, ("192.0.2.1", "192.0.2.2", "192.0.2.3"))
OWN, PEER = NodeId(b"o" * 16), NodeId(b"p" * 16)
NETWORK = Network(VNI, "blue", (Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1")),), OWN)
WEB = Endpoint(b"web-----", VNI, "web", mac_for(VNI, OWN_IP), (OWN_IP,))
DB = Endpoint(b"db------", VNI, "db", mac_for(VNI, PEER_IP), (PEER_IP,))
WEB_PORT, DB_PORT = port_name(WEB.endpoint_id), port_name(DB.endpoint_id)


def planned(*, is_local: bool = False) -> SandboxState:
    """Return the plan of web's host; with `is_local`, db is there, too."""
    here = (WEB, DB) if is_local else (WEB,)
    return plan_sandbox(
        PlanInput(
            NETWORK,
            4789,
            OWN_VTEP,
            1450,
            ports=tuple(LocalPort(port_name(e.endpoint_id), 0, e.endpoint_id) for e in here),
            locals=here,
            remotes=() if is_local else (RemoteEndpoint(PEER, PEER_VTEP, DB),),
            flood=(OWN_VTEP, PEER_VTEP, OTHER_VTEP),
        ),
        fast_path=True,
        guarded=True,
    )


CONTAINER = ContainerFacts(
    "eth0", WEB.mac, True, 1450, frozenset({OWN_IP}), RouteFacts("eth0", None),
    CachedNeighbor(PEER_IP, DB.mac, is_permanent=False),
)  # fmt: skip
PATH = PathView(PEER, PathState.OK, PathState.OK, 0.0, 1500, 1500, size_fails=False)


def facts(*, is_local: bool = False, **changes: Any) -> HostFacts:
    """Return the facts of web's host, where all is well but for what is changed."""
    desired = planned(is_local=is_local)
    peer = PeerEnd("db", "vm2", DB.mac, PEER_IP, 0, PEER_VTEP)
    if is_local:
        peer = PeerEnd("db", "vm1", DB.mac, PEER_IP, 0, None, DB_PORT)
    well = HostFacts(
        own=OwnEnd("web", "vm1", "eth0", WEB.mac, OWN_IP, WEB_PORT, 0, parse_ip("10.1.0.1")),
        peer=peer,
        local_vtep=OWN_VTEP,
        vxlan_port=4789,
        is_isolated=False,
        desired=desired,
        actual=desired,
        container=CONTAINER,
        fits=1450,
        path=None if is_local else PATH,
        admits=None if is_local else True,
    )
    return replace(well, **changes)


def without(state: SandboxState, *rows: Row, links: tuple[str, ...] = ()) -> SandboxState:
    """Return a state without some rows and links."""
    assert set(rows) <= state.rows
    kept = {name: link for name, link in state.links.items() if name not in links}
    return SandboxState(kept, state.rows - set(rows))


def changed(state: SandboxState, gone: Row, new: Row) -> SandboxState:
    """Return a state in which one row is another."""
    assert gone in state.rows
    return SandboxState(state.links, (state.rows - {gone}) | {new})


def with_link(state: SandboxState, name: str, **changes: Any) -> SandboxState:
    """Return a state in which a link has other properties."""
    altered: Link = state.links[name]._replace(**changes)
    return SandboxState({**state.links, name: altered}, state.rows)


def bad(found: HostFacts, phase: Phase = Phase.SEND) -> list[tuple[Step, Outcome]]:
    """Return the steps of a phase that are not ok."""
    return [
        (Step(each.step), each.outcome)
        for each in judge.findings(found)
        if each.phase is phase and each.outcome is not Outcome.OK
    ]


def finding(found: HostFacts, step: Step, phase: Phase = Phase.SEND) -> Finding:
    """Return the finding of a step."""
    return next(e for e in judge.findings(found) if e.step == step and e.phase is phase)
