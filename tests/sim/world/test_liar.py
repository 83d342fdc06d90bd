"""A lying member: what a compromised node can and cannot do to a live one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from overlay import limits
from overlay.core.events import Event
from overlay.core.protocol.member import MemberChanged
from overlay.core.protocol.messages import MemberState, Message, Rumour, Rumours
from overlay.core.protocol.records import CLUSTER_SCOPE, ForgottenNode
from overlay.core.replication.card_intake import EPOCH_SHIFT
from overlay.model import NodeId
from overlay.sim.environment.network import Weather
from overlay.sim.host.host import Host
from overlay.sim.report.cluster import Cluster

COUNT = 20
LIAR, VICTIM = 3, 7
SUSPECT, DEAD, LEFT = MemberState.SUSPECT, MemberState.DEAD, MemberState.LEFT


class Lies:
    """A cluster in which one host sends arbitrary messages to all others."""

    def __init__(self) -> None:
        self.cluster = Cluster(COUNT, Weather(loss=0.02))
        self.buried: list[tuple[float, str, MemberState]] = []
        self.cluster.on_event = self._take
        self.cluster.run(20.0)

    @property
    def victim(self) -> Host:
        """The host that the lies are about."""
        return self.cluster.hosts[VICTIM]

    def tell(self, lie: Callable[[int], Message], times: int) -> None:
        """Let the liar send a message to all others, once a second."""
        liar = self.cluster.hosts[LIAR]
        for turn in range(times):
            assert liar.node is not None
            for host in self.cluster.hosts:
                if host is not liar:
                    liar.node.send_to(host.node_id, lie(turn))
            liar.flush()
            self.cluster.run(1.0)
        self.cluster.run(10.0)

    def states(self) -> set[MemberState | None]:
        """Return the victim's state as the honest hosts see it."""
        return {
            host.node.membership.state_of(self.victim.node_id)
            for host in self.cluster.hosts
            if host.node is not None and host.index not in (LIAR, VICTIM)
        }

    def drops(self, reason: str) -> int:
        """Return how many messages the honest hosts have dropped for a reason."""
        return sum(host.drops[reason] for host in self.cluster.hosts if host.index != LIAR)

    def _take(self, host: Host, event: Event) -> None:
        if (
            isinstance(event, MemberChanged)
            and event.node_id == self.cluster.hosts[VICTIM].node_id
            and event.after in (DEAD, LEFT)
            and host.index != LIAR
        ):
            self.buried.append((self.cluster.schedule.now, host.name, event.after))


@pytest.fixture
def lies() -> Lies:
    """Return a cluster that has run for a while."""
    return Lies()


def accusers(lies: Lies) -> list[NodeId]:
    """Return the nodes that the liar names as its witnesses."""
    return [host.node_id for host in lies.cluster.hosts if host.index not in (LIAR, VICTIM)]


@pytest.mark.parametrize("state", [SUSPECT, DEAD])
def test_no_accusation_kills_a_live_member(lies: Lies, state: MemberState) -> None:
    """False suspicions, in the name of many, are all refuted."""
    witnesses = accusers(lies)

    def lie(turn: int) -> Message:
        node = lies.victim.node
        assert node is not None
        incarnation = node.membership.incarnation
        named = [witnesses[(turn + step) % len(witnesses)] for step in range(8)]
        told = [Rumour(lies.victim.node_id, incarnation, state, by) for by in named]
        return Rumours(tuple(told))

    lies.tell(lie, 30)

    assert lies.buried == []
    assert lies.states() == {MemberState.ALIVE}


def test_a_leave_cannot_be_announced_by_others(lies: Lies) -> None:
    """Not even in the name of the node that is said to leave.

    It is dropped and counted.
    """
    lies.tell(
        lambda _: Rumours((Rumour(lies.victim.node_id, 1 << 40, LEFT, lies.victim.node_id),)), 3
    )

    assert lies.buried == []
    assert lies.states() == {MemberState.ALIVE}
    assert lies.drops("leave-as-rumour") >= COUNT


def test_an_incarnation_without_room_to_refute_is_refused(lies: Lies) -> None:
    """So the accused node always has a higher incarnation to refute with."""
    card = lies.victim.card
    assert card is not None
    beyond = (card.epoch << EPOCH_SHIFT) + limits.INCARNATION_LEAP_MAX + 1
    liar = lies.cluster.hosts[LIAR].node_id
    lies.tell(lambda _: Rumours((Rumour(lies.victim.node_id, beyond, DEAD, liar),)), 3)

    assert lies.buried == []
    assert lies.drops("incarnation-out-of-range") >= COUNT


def test_no_member_can_remove_a_live_one_without_authority(lies: Lies) -> None:
    """Members in contact with the node refuse the declaration."""
    liar = lies.cluster.hosts[LIAR]
    assert liar.node is not None
    sent = lies.cluster.sent_bytes()
    lies.cluster.run(20.0)
    quiet = lies.cluster.sent_bytes() - sent
    liar.publish(liar.commit(CLUSTER_SCOPE, [ForgottenNode(lies.victim.node_id)]))
    liar.flush()
    lies.cluster.run(20.0)

    assert lies.states() == {MemberState.ALIVE}
    assert lies.drops("living-node-forgotten") >= COUNT - 1  # by the victim too
    assert lies.cluster.sent_bytes() - sent - quiet < 10 * quiet


def test_a_newly_started_member_does_not_believe_it_either(lies: Lies) -> None:
    """A member without contact to the node so far probes it first."""
    liar, newcomer = lies.cluster.hosts[LIAR], lies.cluster.hosts[12]
    liar.publish(liar.commit(CLUSTER_SCOPE, [ForgottenNode(lies.victim.node_id)]))
    liar.flush()
    newcomer.stop()
    newcomer.start()
    lies.cluster.run(20.0)

    assert newcomer.node is not None
    assert newcomer.drops["living-node-forgotten"] > 0
    assert newcomer.node.membership.state_of(lies.victim.node_id) is MemberState.ALIVE


def test_any_member_may_remove_a_dead_one(lies: Lies) -> None:
    """Members that consider it dead accept this without the authority."""
    liar, newcomer = lies.cluster.hosts[LIAR], lies.cluster.hosts[12]
    lies.victim.stop()
    lies.cluster.run(40.0)
    assert lies.states() == {DEAD}
    liar.publish(liar.commit(CLUSTER_SCOPE, [ForgottenNode(lies.victim.node_id)]))
    liar.flush()
    newcomer.stop()
    lies.cluster.run(5.0)
    newcomer.start()
    lies.cluster.run(20.0)

    assert lies.states() == {None}


def test_the_authority_can_remove_any_member_at_once(lies: Lies) -> None:
    """With a warrant the same declaration is accepted everywhere."""
    host = lies.cluster.hosts[LIAR]
    assert host.node is not None
    lies.cluster.run(60.0)
    host.publish(host.commit(CLUSTER_SCOPE, [ForgottenNode(lies.victim.node_id, b"w" * 64)]))
    host.flush()
    lies.cluster.run(2.0)

    assert lies.states() == {None}
