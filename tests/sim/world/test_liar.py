"""A member that lies: what a compromised node can do to one that lives, and what not."""

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
    """A cluster in which one host tells everyone, again and again, what it likes."""

    def __init__(self) -> None:
        self.cluster = Cluster(COUNT, Weather(loss=0.02))
        self.buried: list[tuple[float, str, MemberState]] = []
        self.cluster.on_event = self._take
        self.cluster.run(20.0)

    @property
    def victim(self) -> Host:
        """The host that is lied about."""
        return self.cluster.hosts[VICTIM]

    def tell(self, lie: Callable[[int], Message], times: int) -> None:
        """Let the liar send a message to all others, once a second, and then be silent."""
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
        """Return what the honest hosts hold of the victim."""
        return {
            host.node.membership.state_of(self.victim.node_id)
            for host in self.cluster.hosts
            if host.node is not None and host.index not in (LIAR, VICTIM)
        }

    def drops(self, reason: str) -> int:
        """Return how often the honest hosts have refused something for a reason."""
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
    """Return whom the liar names as its witnesses."""
    return [host.node_id for host in lies.cluster.hosts if host.index not in (LIAR, VICTIM)]


@pytest.mark.parametrize("state", [SUSPECT, DEAD])
def test_no_accusation_buries_one_that_lives(lies: Lies, state: MemberState) -> None:
    """Whatever it says, for half a minute and in the name of many: the accused refutes it."""
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


def test_a_leave_can_not_be_told_by_rumour(lies: Lies) -> None:
    """Not even in the name of the one that is said to leave; it is refused and counted."""
    lies.tell(
        lambda _: Rumours((Rumour(lies.victim.node_id, 1 << 40, LEFT, lies.victim.node_id),)), 3
    )

    assert lies.buried == []
    assert lies.states() == {MemberState.ALIVE}
    assert lies.drops("leave-as-rumour") >= COUNT


def test_an_incarnation_without_room_to_refute_is_refused(lies: Lies) -> None:
    """So the accused always has a higher word."""
    card = lies.victim.card
    assert card is not None
    beyond = (card.epoch << EPOCH_SHIFT) + limits.INCARNATION_LEAP_MAX + 1
    liar = lies.cluster.hosts[LIAR].node_id
    lies.tell(lambda _: Rumours((Rumour(lies.victim.node_id, beyond, DEAD, liar),)), 3)

    assert lies.buried == []
    assert lies.drops("incarnation-out-of-range") >= COUNT


def test_a_member_without_the_authority_can_not_shut_out_one_that_lives(lies: Lies) -> None:
    """Those who hear the node refuse the declaration, and go on hearing it."""
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


def test_not_even_one_that_has_just_started_believes_it(lies: Lies) -> None:
    """A member that has not heard the node yet asks it first."""
    liar, newcomer = lies.cluster.hosts[LIAR], lies.cluster.hosts[12]
    liar.publish(liar.commit(CLUSTER_SCOPE, [ForgottenNode(lies.victim.node_id)]))
    liar.flush()
    newcomer.stop()
    newcomer.start()
    lies.cluster.run(20.0)

    assert newcomer.node is not None
    assert newcomer.drops["living-node-forgotten"] > 0
    assert newcomer.node.membership.state_of(lies.victim.node_id) is MemberState.ALIVE


def test_any_member_may_declare_a_dead_one_gone(lies: Lies) -> None:
    """Those who hold it dead believe it, without the authority, and so does who just started."""
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


def test_the_authority_shuts_out_whom_it_likes_at_once(lies: Lies) -> None:
    """With a warrant the same declaration counts everywhere."""
    host = lies.cluster.hosts[LIAR]
    assert host.node is not None
    lies.cluster.run(60.0)
    host.publish(host.commit(CLUSTER_SCOPE, [ForgottenNode(lies.victim.node_id, b"w" * 64)]))
    host.flush()
    lies.cluster.run(2.0)

    assert lies.states() == {None}
