"""Members whose cards name addresses that are not theirs, in `overlayd status`."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from overlay import limits
from overlay.agent.gossip.card_report import CardReport
from overlay.core.protocol.member import Member
from overlay.core.protocol.messages import MemberState
from overlay.model import Ip, NodeId, parse_ip

SELF, OTHER, THIRD = (NodeId(letter * 16) for letter in (b"a", b"b", b"c"))
NAMES = {SELF: "vm1", OTHER: "vm2", THIRD: "vm3"}


class Cluster:
    """Three members, their cards, and the report about them."""

    def __init__(self) -> None:
        self.addresses: dict[NodeId, Ip] = {
            node_id: parse_ip(f"192.168.56.{number}") for number, node_id in enumerate(NAMES, 11)
        }
        self.states = dict.fromkeys((OTHER, THIRD), MemberState.ALIVE)
        self.unanswered: dict[NodeId, int] = {}
        self.events: list[tuple[str, str]] = []
        membership = SimpleNamespace(
            alive=lambda: [each for each, state in self.states.items() if state == 0],
            members=lambda: [
                Member(each, state, 0.0, 1, None, self.unanswered.get(each, 0))
                for each, state in self.states.items()
            ],
        )
        gossip = SimpleNamespace(node_id=SELF, node=SimpleNamespace(membership=membership))
        directory = SimpleNamespace(
            card=lambda each: SimpleNamespace(address=self.addresses[each], left=False),
            node_name=NAMES.get,
        )
        log = SimpleNamespace(record=lambda kind, text, **_: self.events.append((kind, text)))
        self.report = CardReport(cast("Any", gossip), cast("Any", directory), cast("Any", log))

    def texts(self) -> list[str]:
        """Return the health lines after two passes."""
        for _ in range(2):
            asyncio.run(self.report.reconcile())
        return [fault.text for fault in self.report.faults()]


def test_an_address_that_two_members_have_is_reported() -> None:
    """Also this host's own, while both live; with an event for its beginning and its end."""
    cluster = Cluster()
    assert cluster.texts() == []
    cluster.addresses[THIRD] = cluster.addresses[SELF]
    told = ["several members have the address 192.168.56.11: vm1, vm3"]

    assert cluster.texts() == told
    cluster.states[THIRD] = MemberState.DEAD
    assert cluster.texts() == []
    assert cluster.events == [("card", told[0]), ("card-over", f"no longer: {told[0]}")]


def test_a_member_that_only_gossip_reaches_is_reported() -> None:
    """It counts as alive, but nothing answers at the address of its card."""
    cluster = Cluster()
    cluster.unanswered[OTHER] = limits.UNANSWERED_PROBES_REPORTED
    told = ["vm2 counts as alive, but does not answer this host at 192.168.56.12"]

    assert cluster.texts() == told
    cluster.states[OTHER] = MemberState.SUSPECT
    assert cluster.texts() == []


def test_one_pass_alone_reports_nothing() -> None:
    """A card that has just changed is not an attack."""
    cluster = Cluster()
    cluster.addresses[THIRD] = cluster.addresses[OTHER]
    asyncio.run(cluster.report.reconcile())

    assert list(cluster.report.faults()) == []
