"""A lying member: what a compromised node can and cannot do to a live one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from overlay import limits
from overlay.core.dataplane.planning import remote_table
from overlay.core.events import Event
from overlay.core.log.live_entries import COUNT_MAX, LiveEntries
from overlay.core.protocol.member import MemberChanged
from overlay.core.protocol.messages import MemberState, Message, Rumour, Rumours
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    ForgottenNode,
    ReclaimStatement,
    Scope,
    Value,
)
from overlay.core.replication.card_intake import EPOCH_SHIFT
from overlay.model import Card, Endpoint, Ip, NodeId, gateway_mac
from overlay.sim.environment.network import Weather
from overlay.sim.host.disk import FIRST_KEY
from overlay.sim.host.host import Host
from overlay.sim.host.sessions import NO_PROCESS, SealedFrame, SimJoin
from overlay.sim.report.cluster import Cluster
from overlay.sim.run import Run
from overlay.sim.scenario import Scenario
from overlay.sim.world import liar
from overlay.wire.session.opened_datagram import REPLAYED

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


def test_forged_joins_open_no_session_in_another_name(lies: Lies) -> None:
    """Joins in the victim's name, to it and to others, then a recording of what it sent before.

    A member holds the cluster key and everyone's card, which is all that a join proves.
    """
    network, victim, rng = lies.cluster.wires, lies.victim, random.Random(1)
    recorded: list[tuple[NodeId, Ip, Ip, object, int]] = []
    send = network.send

    def record(sender: NodeId, source: Ip, target: Ip, content: object, size: int) -> None:
        if type(content) is SealedFrame and sender == victim.node_id and len(recorded) < 150:
            recorded.append((sender, source, target, content, size))
        send(sender, source, target, content, size)

    network.send = record  # type: ignore[method-assign]
    lies.cluster.run(5.0)
    replayed = lies.drops(REPLAYED)
    source = lies.cluster.hosts[LIAR].address
    others = [host for host in lies.cluster.hosts if host.index not in (LIAR, VICTIM)]
    for _ in range(90):  # more than a receiver remembers of one peer
        for host in others:
            for one, other in ((victim, host), (host, victim)):
                join = SimJoin(rng.randbytes(16), NO_PROCESS, card_of(one), FIRST_KEY)
                send(one.node_id, source, other.address, join, 300)
    for _, _, target, content, size in recorded:
        send(victim.node_id, source, target, content, size)
    lies.cluster.run(60.0)

    assert len(recorded) == 150
    assert lies.drops(REPLAYED) - replayed >= 120  # 2 % of all datagrams are lost
    assert lies.buried == []
    assert lies.states() == {MemberState.ALIVE}
    assert victim.node is not None
    assert victim.node.membership.count(MemberState.ALIVE) == COUNT - 1


def card_of(host: Host) -> Card:
    """Return a running host's card."""
    assert host.card is not None
    return host.card


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


def test_no_statement_takes_the_addresses_of_a_live_member(lies: Lies) -> None:
    """A statement about a live node, without a declaration, is refused like a declaration."""
    liar, victim = lies.cluster.hosts[LIAR], lies.victim.node_id
    liar.publish(liar.commit(CLUSTER_SCOPE, [ReclaimStatement(victim, liar.node_id, 0, 1, ())]))
    liar.flush()
    lies.cluster.run(20.0)

    assert lies.drops("living-node-forgotten") >= COUNT - 1
    for host in lies.cluster.hosts:
        if host is not liar:
            assert host.node is not None
            assert list(host.node.store.values(CLUSTER_SCOPE, "settled")) == []


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


QUIET = Scenario(
    nodes=5, seed=8, loss=0.1, partitions=1, crashes=1, clogs=0, stalls=0, moves=0, leaves=0,
    newcomers=1, rotations=0, tampers=0, churn=2.0, networks=1, duration=8.0,
)  # fmt: skip


SMALL = {"network": 60, "participation": 240, "removed": 60}
WRITTEN = {
    liar.NAMES: "name",
    liar.NETWORKS: "network",
    liar.PARTICIPATIONS: "participation",
    liar.REMOVALS: "removed",
}


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fewer records of one host count, to save time."""
    for kind, count in SMALL.items():
        monkeypatch.setitem(COUNT_MAX, kind, count)


def run_with(kind: str) -> Run:
    """Run a storm in which one host writes false records; it must end as if there were none."""
    run = Run(QUIET)
    world = run.world
    world.schedule.after(6.0, lambda _: liar.lie(world.hosts[2], kind, world.networks[0]), None)
    outcome = run.to_end()
    assert outcome.held, outcome.failed_text()
    return run


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("kind", liar.KINDS)
def test_no_record_of_a_liar_does_harm(kind: str) -> None:
    """All hosts agree on what counts, no gateway is taken, and every packet arrives."""
    world = run_with(kind).world

    node = world.hosts[0].node
    assert node is not None
    surplus = [(found, count) for _, _, found, count in node.store.surplus()]
    if kind == liar.GATEWAY:
        thieves = node.store.values(Scope(world.networks[0].vni), "endpoint")
        assert sum(value.name.startswith("thief") for _, value in thieves) == 2  # type: ignore[union-attr]
        assert surplus == []
    else:
        [(found, count)] = surplus
        assert (found, count >= liar.SURPLUS) == (WRITTEN[kind], True)


def test_a_false_claim_hides_a_container_from_its_writer() -> None:
    """A container's address, claimed by another host, keeps its container for all others."""
    run = Run(QUIET)
    world = run.world
    thief = world.hosts[2]
    taken: list[Ip] = []

    def claim(_: object) -> None:
        network = world.networks[0]
        taken.append(
            next(ip for (_, ip), (host, _) in world.invariants.running.items() if host is not thief)
        )
        name = f"{liar.THIEF}-of-a-container"
        endpoint = Endpoint(bytes(8), network.vni, name, gateway_mac(network.vni, 0), (taken[0],))
        thief.publish(thief.commit(Scope(network.vni), [endpoint]))
        thief.flush()

    world.schedule.after(12.0, claim, None)
    outcome = run.to_end()

    assert outcome.held, outcome.failed_text()
    [network] = world.networks
    assert liar.claimed(thief, network.vni) == set(taken)
    assert (network.vni, taken[0]) in world.invariants.running


def test_a_taken_gateway_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a planner that believes the claim, the run fails."""
    monkeypatch.setattr(remote_table, "gateway_macs", lambda _network: frozenset())

    with pytest.raises(AssertionError, match=r"the gateway's MAC .* leads away"):
        run_with(liar.GATEWAY)


@pytest.mark.usefixtures("small_bounds")
def test_a_count_that_differs_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bound by order of arrival, replicas disagree, and the run fails."""
    monkeypatch.setattr(LiveEntries, "values_of", values_by_arrival)

    with pytest.raises(AssertionError, match=r"count different|counts \d+"):
        run_with(liar.NETWORKS)


def values_by_arrival(self: LiveEntries, kind: str) -> Iterator[Value]:
    """Yield all values, whatever the bound."""
    return (self[key] for key in list(self) if key[0] == kind)
