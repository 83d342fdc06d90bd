"""A way to another network: by the link between two sandboxes, then as on one network."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.dataplane.link_state import OTHER_END, RouterLink
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteEndpoint, RoutedNetwork
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.router_rows import router_link_name
from overlay.core.dataplane.state import EntryRow, FdbRow, RouteRow, SandboxState
from overlay.core.protocol.trace import Finding, Outcome, Phase, Step
from overlay.core.trace import judge
from overlay.core.trace.facts import HostFacts, PeerEnd, RouterFacts
from overlay.model import Endpoint, Network, Subnet, Vni, mac_for, parse_ip
from tests.core.trace.bench import NETWORK, OWN_VTEP, PATH, PEER, PEER_VTEP, bad, facts, finding

RED = Network(
    Vni(0x900001), "red", (Subnet(parse_ip("10.2.0.0"), 24, parse_ip("10.2.0.1")),), NETWORK.creator
)
IP = parse_ip("10.2.0.3")
VAULT = Endpoint(b"vault---", RED.vni, "vault", mac_for(RED.vni, IP), (IP,))
THERE = router_link_name(RED.vni)


def routed(network: Network, other: Network, *remotes: RemoteEndpoint) -> SandboxState:
    """Return the plan of a sandbox with a link to that of another network."""
    return plan_sandbox(
        PlanInput(
            network,
            4789,
            OWN_VTEP,
            1450,
            remotes=remotes,
            flood=(PEER_VTEP,),
            routed=(RoutedNetwork(other.vni, other.subnets, 1450),),
        )
    )


def between() -> HostFacts:
    """Return the facts of the host where packets to vault on red begin."""
    well = facts()
    assert well.container is not None
    own, red = routed(NETWORK, RED), routed(RED, NETWORK, RemoteEndpoint(PEER, PEER_VTEP, VAULT))
    desired = SandboxState(well.desired.links | own.links, well.desired.rows | own.rows)
    gateway = NETWORK.subnets[0].gateway
    assert well.container.route is not None
    route = well.container.route._replace(gateway=gateway)
    return replace(
        well,
        peer=PeerEnd("vault", "vm2", VAULT.mac, IP, 0, PEER_VTEP),
        desired=desired,
        actual=desired,
        container=replace(well.container, route=route, cached=None),
        path=PATH,
        router=RouterFacts("red", THERE, OWN_VTEP, PEER_VTEP, red, red),
    )


def test_a_way_between_networks_is_explained() -> None:
    """The link is named, and then what leads on in the other sandbox."""
    found = between()

    assert bad(found) == []
    texts = [each.text for each in _sent(found)]
    assert f"10.2.0.3 by {THERE}, to network red" in texts
    assert any("leads to 192.0.2.2" in text for text in texts)
    assert not any("bypass the bridge" in text for text in texts)


def _sent(found: HostFacts) -> list[Finding]:
    return [each for each in judge.findings(found) if each.phase is Phase.SEND]


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        ("gone", "is gone"),
        ("down", "is down"),
        ("astray", "does not lead there"),
        ("route", "no route to 10.2.0.3"),
        ("entry", "lets nothing in from 10.1.0.2"),
        ("unplanned", "does not route to network red"),
    ],
)
def test_a_broken_link_is_named(damage: str, text: str) -> None:
    """The outcome says what is missing, and where."""
    well = between()
    assert well.router is not None
    links, rows, router = dict(well.actual.links), well.actual.rows, well.router
    desired, link = well.desired, links[THERE]
    assert isinstance(link, RouterLink)
    match damage:
        case "gone":
            del links[THERE]
        case "down":
            links[THERE] = link._replace(altered=("up",))
        case "astray":
            links[THERE] = link._replace(altered=(OTHER_END,))
        case "route":
            rows = frozenset(row for row in rows if not isinstance(row, RouteRow))
        case "entry":
            inside = frozenset(row for row in router.actual.rows if not isinstance(row, EntryRow))
            router = replace(router, actual=SandboxState(router.actual.links, inside))
        case _:
            kept = {name: each for name, each in desired.links.items() if name != THERE}
            desired = SandboxState(kept, desired.rows)
    broken = replace(well, desired=desired, actual=SandboxState(links, rows), router=router)
    (found,) = [each for each in _sent(broken) if each.outcome is Outcome.DROP]

    assert (found.step, text in found.text) == (Step.ROUTE, True)


def test_rows_of_the_other_sandbox_count() -> None:
    """A missing row there is named as on one network."""
    well = between()
    assert well.router is not None
    state = well.router.actual
    rows = frozenset(row for row in state.rows if not isinstance(row, FdbRow))
    router = replace(well.router, actual=SandboxState(state.links, rows))

    found = finding(replace(well, router=router), Step.FDB, Phase.SEND)
    assert found.outcome is Outcome.WARN
