"""When an agent divides a network, keeps its records and asks for a reserve."""

from __future__ import annotations

import asyncio
from unittest.mock import MagicMock

import pytest
from overlay import limits
from overlay.agent.ipam.reserves import ReserveController
from overlay.core.dataplane.network_drivers import labels_of
from overlay.core.ipam.ownership import ownership
from overlay.core.log.store import Store
from overlay.core.protocol.messages import GrantRefusal
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, Scope
from overlay.errors import OverlayError
from overlay.model import Network, NodeId, Subnet, Vni, parse_ip

OWN, TWO, THREE = (NodeId(letter * 16) for letter in (b"o", b"2", b"3"))
SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
BLUE = Network(Vni(7), "blue", (SUBNET,), OWN)


class Bench:
    """A controller of a node that sees two others."""

    def __init__(self) -> None:
        self.gossip, self.directory, self.space = MagicMock(), MagicMock(), MagicMock()
        self.gossip.node_id = OWN
        self.gossip.node.store = Store(OWN)
        self.gossip.node.membership.live.return_value = [TWO, THREE]
        self.gossip.node.scopes.is_pending.return_value = False
        self.gossip.transport.now.return_value = 100.0
        self.directory.networks.return_value = [BLUE]
        self.directory.view.members.return_value = [OWN, TWO, THREE]
        self.directory.node_name.side_effect = {TWO: "vm3", THREE: "vm2"}.get
        self.space.ownership.side_effect = lambda network: ownership(network, [])
        self.controller = ReserveController(self.gossip, self.directory, self.space, MagicMock())

    def look(self) -> None:
        """Run one pass."""
        asyncio.run(self.controller.reconcile())


@pytest.fixture
def bench() -> Bench:
    """Return a bench on which this node may write."""
    return Bench()


def test_a_creator_grants_each_member_a_part(bench: Bench) -> None:
    """In order of their names; the grants are written at once, then published."""
    bench.controller.divide(BLUE)

    ((scope, grants), _) = bench.gossip.commit.call_args
    assert scope == Scope(7)
    assert [grant.grantee for grant in grants] == [THREE, TWO]
    bench.gossip.publish.assert_called_once_with(bench.gossip.commit.return_value)


def test_a_full_disk_does_not_fail_the_network(bench: Bench) -> None:
    """It exists already; its members ask for their parts later."""
    bench.gossip.commit.side_effect = OverlayError("cannot write the state file")
    bench.controller.divide(BLUE)

    bench.gossip.publish.assert_not_called()


@pytest.mark.parametrize("case", ["a bridge", "another's", "alone"])
def test_a_network_of_one_host_is_not_divided(bench: Bench, case: str) -> None:
    """Nor is one that another node made."""
    network = BLUE
    if case == "a bridge":
        network = Network(Vni(7), "blue", (SUBNET,), OWN, labels=tuple(labels_of("bridge", "")))
    elif case == "another's":
        network = Network(Vni(7), "blue", (SUBNET,), TWO)
    else:
        bench.gossip.node.membership.live.return_value = []

    bench.controller.divide(network)
    bench.gossip.commit.assert_not_called()


def test_a_member_holds_the_records_of_every_network(bench: Bench) -> None:
    """But of those of a single host, and once it may write."""
    bridge = Network(Vni(8), "red", (SUBNET,), TWO, labels=tuple(labels_of("bridge", "")))
    bench.directory.networks.return_value = [BLUE, bridge]
    bench.gossip.may_write = False
    bench.look()
    bench.gossip.commit.assert_not_called()
    assert bench.controller.next_interval_s() == limits.RESERVE_RETRY_S

    bench.gossip.may_write = True
    bench.look()
    bench.gossip.commit.assert_called_once_with(CLUSTER_SCOPE, [Participation(7, forwards=False)])


def test_a_leaving_node_asks_for_nothing(bench: Bench) -> None:
    """It could no longer give away addresses that it was granted now."""
    bench.controller.begin_to_leave()
    bench.look()

    bench.gossip.commit.assert_not_called()
    bench.gossip.node.send_to.assert_not_called()


def test_refusals_of_other_requests_are_not_taken(bench: Bench) -> None:
    """They are for an attach that waits."""
    assert not bench.controller.handle_refusal(GrantRefusal(bytes(8), "exhausted", 0))
