"""Policies across a router: each host judges what its own containers open and take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from overlay.core.policy.policy import Policy, PolicyAction, PortRange, parse_peer
from overlay.model import DEFAULT_DENY_LABEL, Vni
from tests.kernel.router.conftest import BLUE, BOTH_PATHS, RED, RoutedHost, is_refused, meet

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
Hosts = tuple[RoutedHost, RoutedHost]
ICMP = (PortRange("icmp"),)


def policy(vni: Vni, action: PolicyAction, source: str = "", target: str = "") -> Policy:
    """Return a policy about echo requests."""
    sources, targets = ((parse_peer(text),) if text else () for text in (source, target))
    name = f"{action}-{source}{target}".replace(":", "-")
    return Policy(name, vni, action, sources, targets, ICMP)


def judged(hosts: Hosts, *policies: Policy, policed: tuple[Vni, ...] = ()) -> None:
    """Put policies into force on both hosts; networks of `policed` have some, if only none."""
    for host in hosts:
        host.policies = {
            vni: tuple(each for each in policies if each.vni == vni)
            for vni in {*policed, *(each.vni for each in policies)}
        }
        host.converge()


@BOTH_PATHS
def test_answers_of_an_allowed_connection_pass(world: World, routed_hosts: Hosts) -> None:
    """Each direction is routed by another host, and only the ends' hosts judge."""
    one, two = routed_hosts
    web, near, db = one.attach(BLUE, 2), one.attach(RED, 3), two.attach(RED, 4)
    meet(one, two)
    judged(
        routed_hosts,
        policy(RED.vni, "deny", target="network:blue"),  # nothing is opened from red
        policy(BLUE.vni, "deny", source="network:red"),
    )

    for target in ("10.33.0.3", "10.33.0.4", "fd00:33::3", "fd00:33::4"):
        assert world.pings(web, target, count=2) == 2, target
    for source in (near, db):
        assert is_refused(world, source, "10.32.0.2")
        assert is_refused(world, source, "fd00:32::2")


@pytest.mark.parametrize(
    "denied",
    [
        policy(BLUE.vni, "deny", target="network:red"),
        policy(RED.vni, "deny", source="network:blue"),
        policy(RED.vni, "deny", source="cidr:10.32.0.0/16"),
    ],
    ids=["at its source", "at its target", "by its range"],
)
def test_a_deny_of_either_network_holds(world: World, routed_hosts: Hosts, denied: Policy) -> None:
    """On one host and between two."""
    one, two = routed_hosts
    web, near = one.attach(BLUE, 2), one.attach(RED, 3)
    two.attach(RED, 4)
    meet(one, two)
    judged(routed_hosts, denied)

    assert is_refused(world, web, "10.33.0.3")
    assert is_refused(world, web, "10.33.0.4")
    is_by_range = "cidr" in denied.name
    assert is_refused(world, web, "fd00:33::4") != is_by_range
    assert world.pings(near, "10.32.0.2") == 1


def test_a_network_that_denies_by_default_is_entered_by_leave(
    world: World, routed_hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after a policy allows the other network."""
    from tests.kernel.router import conftest  # noqa: PLC0415

    one, two = routed_hosts
    web, _ = one.attach(BLUE, 2), two.attach(RED, 4)
    closed = replace(RED, labels=(DEFAULT_DENY_LABEL,))
    monkeypatch.setitem(conftest.NETWORKS, RED.vni, closed)
    meet(one, two)
    judged(routed_hosts, policed=(RED.vni,))
    assert is_refused(world, web, "10.33.0.4")

    judged(routed_hosts, policy(RED.vni, "allow", source="network:blue"))
    assert world.pings(web, "10.33.0.4") == world.pings(web, "fd00:33::4") == 1
