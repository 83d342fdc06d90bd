"""Rotations of WireGuard keys: whatever the order of events, each pair can always talk."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from overlay.core.encryption.key_record import WireguardKey
from overlay.core.encryption.rotation import (
    MemberKeys,
    OwnSlots,
    ReplacementStep,
    WaitReason,
    next_step,
    other_slot,
    slot_order,
    slot_used,
    waits,
)
from overlay.model import NodeId

A, B, C = (NodeId(letter * 16) for letter in (b"a", b"b", b"c"))


def keys(*slots: int, epoch: int = 1) -> tuple[WireguardKey, ...]:
    """Return published keys in these slots, of increasing epochs."""
    return tuple(WireguardKey(epoch + at, bytes([at + 1]) * 32, s) for at, s in enumerate(slots))


def test_a_rotation_of_another_member_is_followed() -> None:
    """A member that sees another's next key makes its own, and none begins alone."""
    own = OwnSlots(0)

    assert next_step(own, [MemberKeys(B, keys(0))], due=False) is ReplacementStep.NONE
    assert next_step(own, [MemberKeys(B, keys(0))], due=True) is ReplacementStep.BEGIN
    assert next_step(own, [MemberKeys(B, keys(0, 1))], due=False) is ReplacementStep.BEGIN
    assert next_step(own, [MemberKeys(B, keys(1, 0))], due=False) is ReplacementStep.NONE


def test_a_member_without_a_next_key_is_waited_for() -> None:
    """Its packets use the former key; the others move."""
    own = OwnSlots(0, next=1)
    members = [MemberKeys(B, keys(0, 1), answers_next=True), MemberKeys(C, keys(0))]

    assert [slot_used(own, member) for member in members] == [1, 0]
    assert list(waits(own, members)) == [(C, WaitReason.NO_NEXT_KEY)]
    assert next_step(own, members, due=True) is ReplacementStep.NONE


def test_packets_move_after_a_handshake() -> None:
    """Without one the member may not have the device yet, or a firewall drops its port."""
    own = OwnSlots(0, next=1)
    silent = MemberKeys(B, keys(0, 1))

    assert slot_used(own, silent) == 0
    assert list(waits(own, [silent])) == [(B, WaitReason.NO_HANDSHAKE)]
    assert slot_used(own, silent._replace(answers_next=True)) == 1
    assert next_step(own, [silent._replace(answers_next=True)], due=False) is ReplacementStep.RETIRE


def test_a_member_without_common_networks_is_not_waited_for() -> None:
    """It has no device, so there will be no handshake."""
    own = OwnSlots(0, next=1)
    member = MemberKeys(B, keys(0, 1), shares_network=False)

    assert slot_used(own, member) == 1
    assert next_step(own, [member], due=False) is ReplacementStep.RETIRE


def test_a_former_key_lasts_until_nobody_sends_by_it() -> None:
    """A member of a next rotation has withdrawn it, though it publishes that slot again."""
    own = OwnSlots(1, retired=0)

    assert next_step(own, [MemberKeys(B, keys(0, 1))], due=True) is ReplacementStep.NONE
    assert next_step(own, [MemberKeys(B, keys(1))], due=True) is ReplacementStep.FORGET
    assert next_step(own, [MemberKeys(B, keys(1, 0))], due=True) is ReplacementStep.FORGET
    assert slot_used(own, MemberKeys(B, keys(0, 1))) == 1


def test_a_newcomer_takes_up_the_others_slot() -> None:
    """Of two halves the second slot yields, so that two nodes do not change places for ever."""
    others = [MemberKeys(B, keys(1)), MemberKeys(C, keys(1))]

    assert next_step(OwnSlots(0), others, due=False) is ReplacementStep.ADOPT
    assert next_step(OwnSlots(1), others, due=False) is ReplacementStep.NONE
    assert next_step(OwnSlots(0), others[:1], due=False) is ReplacementStep.NONE
    assert next_step(OwnSlots(1), [MemberKeys(B, keys(0))], due=False) is ReplacementStep.ADOPT


class Host:
    """A host with its agent, its devices, and what it knows of the others' records."""

    def __init__(self, number: int) -> None:
        self.node_id = NodeId(bytes([number]) * 16)
        self.slots = OwnSlots(0)
        self.epochs = {0: 1}
        self.known: dict[NodeId, tuple[WireguardKey, ...]] = {}
        self.devices: dict[int, tuple[bytes, dict[NodeId, bytes]]] = {}
        self.routes: dict[NodeId, int] = {}
        self.answered: set[tuple[bytes, bytes]] = set()  # handshakes: own key, peer's key

    def key(self, slot: int) -> bytes:
        """Return the key of a slot."""
        return self.node_id[:1] + self.epochs[slot].to_bytes(31, "big")

    @property
    def published(self) -> tuple[WireguardKey, ...]:
        """Return its records."""
        held = (s for s in (self.slots.current, self.slots.next) if s is not None)
        return tuple(WireguardKey(self.epochs[s], self.key(s), s) for s in held)

    def members(self) -> list[MemberKeys]:
        """Return the others as it knows them."""
        newer = slot_order(self.slots)[1]
        return [
            MemberKeys(
                node_id,
                known,
                answers_next=any((self.key(newer), k.public_key) in self.answered for k in known),
            )
            for node_id, known in self.known.items()
        ]

    def apply(self) -> list[MemberKeys]:
        """Make devices and routes, as a pass does before it takes a step."""
        members = self.members()
        former, newer = slot_order(self.slots)
        for slot in dict.fromkeys((newer, former)):
            peers = {m.node_id: k.public_key for m in members for k in m.keys if k.slot == slot}
            self.devices[slot] = (self.key(slot), peers)
        self.routes = {member.node_id: slot_used(self.slots, member) for member in members}
        for slot in self.devices.keys() - {former, newer}:
            del self.devices[slot]
        return members

    def step(self, *, due: bool) -> None:
        """Run a pass."""
        slots = self.slots
        match next_step(slots, self.apply(), due=due):
            case ReplacementStep.BEGIN:
                following = other_slot(slots.current)
                self.epochs[following] = max(self.epochs.values()) + 1
                self.slots = OwnSlots(slots.current, next=following)
            case ReplacementStep.RETIRE:
                assert slots.next is not None
                self.slots = OwnSlots(slots.next, retired=slots.current)
            case ReplacementStep.FORGET:
                self.slots = OwnSlots(slots.current)
            case _:
                pass


class Cluster:
    """Some hosts, whose records reach each other at any time."""

    def __init__(self, count: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.hosts = [Host(number) for number in range(1, count + 1)]
        self.pairs = list(permutations(self.hosts, 2))
        self.stopped: set[NodeId] = set()
        for _ in range(2):
            for one, other in self.pairs:
                one.known[other.node_id] = other.published
            for host in self.hosts:
                host.apply()

    def act(self, *, due: bool) -> None:
        """Let one thing happen: a record arrives, a pass runs, or two devices greet each other."""
        running = [host for host in self.hosts if host.node_id not in self.stopped]
        one, other = self.random.choice(self.pairs)
        kind = self.random.randrange(3)
        if kind == 0 and one in running:
            one.known[other.node_id] = other.published
        elif kind == 1:
            self.random.choice(running).step(due=due)
        for slot in one.devices if kind == 2 else ():
            if self.accepts(one, other, slot):
                ends = (one.devices[slot][0], other.devices[slot][0])
                one.answered.add(ends)
                other.answered.add(ends[::-1])

    @staticmethod
    def accepts(one: Host, other: Host, slot: int) -> bool:
        """Return whether two hosts' devices of a slot know each other's keys."""
        if slot not in one.devices or slot not in other.devices:
            return False
        (own, peers), (its, its_peers) = one.devices[slot], other.devices[slot]
        return peers.get(other.node_id) == its and its_peers.get(one.node_id) == own

    def check(self) -> None:
        """Every host reaches every other by the device that its packets leave by."""
        for one, other in self.pairs:
            assert self.accepts(one, other, one.routes[other.node_id])


@pytest.mark.parametrize("seed", range(12))
def test_no_order_of_events_parts_a_pair(seed: int) -> None:
    """Over several rotations that begin anywhere, at any time, also at several hosts at once."""
    cluster = Cluster(4, seed)
    for turn in range(3000):
        cluster.act(due=turn % 700 < 30)
        cluster.check()
    epochs = [max(host.epochs.values()) for host in cluster.hosts]
    assert min(epochs) > 3


@pytest.mark.parametrize("seed", range(6))
def test_a_stopped_agent_holds_up_a_rotation_only(seed: int) -> None:
    """Its host is reached as before, and the others finish when it returns."""
    cluster = Cluster(4, seed)
    for turn in range(cluster.random.randrange(200)):
        cluster.act(due=turn < 10)
    cluster.stopped.add(cluster.hosts[0].node_id)
    for turn in range(1500):
        cluster.act(due=turn < 10)
        cluster.check()
    cluster.stopped.clear()
    for _ in range(1500):
        cluster.act(due=False)
        cluster.check()
    assert {host.slots for host in cluster.hosts} in ({OwnSlots(0)}, {OwnSlots(1)})
