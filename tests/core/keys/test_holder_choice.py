"""The choice of the members that become holders of the authority, and its time."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from overlay import limits
from overlay.core.keys.holder_choice import HolderChoice
from overlay.core.protocol.member import Member
from overlay.core.protocol.messages import MemberState
from overlay.model import Certificate, Ip, NodeId

ALIVE, SUSPECT, DEAD, LEFT = MemberState


def node_id(number: int) -> NodeId:
    """Return the id of a node."""
    return NodeId(bytes([number]) * 16)


@dataclass
class World:
    """One holder's knowledge of the other members: their states and certificates."""

    own: int = 1
    wanted: int = 3
    is_synced: bool = True
    states: dict[int, tuple[MemberState, float]] = field(default_factory=dict)
    certified_s: dict[int, int] = field(default_factory=dict)
    holders: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make the choice that the test asks."""
        node = SimpleNamespace(
            card=SimpleNamespace(node_id=node_id(self.own)),
            may_write=lambda _now: self.is_synced,
            membership=SimpleNamespace(members=self._members),
            store=SimpleNamespace(card=self._card),
        )
        self.choice = HolderChoice(cast("Any", node), self.wanted)

    def _members(self) -> list[Member]:
        return [
            Member(node_id(number), state, since, 0, None)
            for number, (state, since) in self.states.items()
        ]

    def _card(self, of: NodeId) -> Any:
        start_s = self.certified_s.get(of[0], 0)
        return SimpleNamespace(certificate=Certificate(Ip(b"\x7f\0\0\1"), start_s, 2**40, b""))

    def add(self, *numbers: int, state: MemberState = ALIVE, since: float = 0.0) -> None:
        """Add members, or change their state."""
        self.states |= dict.fromkeys(numbers, (state, since))

    def to(self, now: float) -> list[int]:
        """Return the members to send the authority to."""
        others = [node_id(number) for number in self.holders]
        return [each[0] for each in self.choice.next_handover(others, now).to]


def test_the_first_members_become_holders() -> None:
    """As soon as they are alive, up to the number wanted, and no others."""
    world = World()
    assert world.to(0.0) == []
    world.add(5)
    assert world.to(1.0) == [5]
    world.holders = {5}
    world.add(9, 7)
    assert world.to(2.0) == [7]
    world.holders = {5, 7}

    assert world.to(3.0) == []


def test_older_members_come_first() -> None:
    """A newcomer with a low id does not become a holder before hosts that were here already."""
    world = World(certified_s={2: 900, 3: 200, 4: 100, 5: 200})
    world.add(2, 3, 4, 5)

    assert world.to(0.0) == [4, 3]


def test_one_wanted_holder_keeps_it_apart() -> None:
    """With authority_holders = 1 nobody is given the authority by itself."""
    world = World(wanted=1)
    world.add(2, 3)

    assert world.to(0.0) == []


def test_a_host_that_may_not_write_gives_nothing_away() -> None:
    """It does not know yet who holds the authority."""
    world = World(is_synced=False)
    world.add(2, 3)

    assert world.to(0.0) == []


def test_only_members_that_are_alive_become_holders() -> None:
    """Suspects, dead members and those that have left do not."""
    world = World()
    world.add(2, state=SUSPECT)
    world.add(3, state=DEAD)
    world.add(4, state=LEFT)

    assert world.to(1e6) == []


def test_a_holder_that_is_away_for_a_while_is_kept() -> None:
    """A reboot makes no new holder; one that is away for longer is replaced."""
    world = World(holders={2, 3})
    world.add(2, 4)
    world.add(3, state=DEAD, since=100.0)

    assert world.to(100.0 + limits.HOLDER_LOST_S - 1) == []
    assert world.to(100.0 + limits.HOLDER_LOST_S) == [4]


def test_a_holder_that_left_is_replaced_at_once() -> None:
    """It has deleted its key; so is one that was forgotten, which is no member at all."""
    world = World(holders={2, 3})
    world.add(2, 4)
    world.add(3, state=LEFT, since=100.0)
    assert world.to(100.0) == [4]
    del world.states[3]

    assert world.to(102.0) == [4]


def test_the_last_holder_waits_less() -> None:
    """With it the authority would be gone, so others become holders within a minute."""
    world = World(holders={2, 3})
    world.add(4, 5)
    world.add(2, 3, state=DEAD, since=100.0)

    assert world.to(100.0 + limits.LAST_HOLDER_LOST_S - 1) == []
    now = 100.0 + limits.LAST_HOLDER_LOST_S
    assert world.to(now) == [4, 5]
    world.holders.add(4)
    assert world.to(now + 1) == [5], "not only until there are two again"
    world.holders.add(5)
    assert world.to(now + 2) == []


def test_a_partitioned_holder_counts_silent_ones_as_lost() -> None:
    """It declares nobody dead: members that it does not hear stay suspect."""
    world = World(holders={2, 3})
    world.add(4, 5)
    world.add(2, 3, state=SUSPECT, since=100.0)

    assert world.to(100.0 + limits.LAST_HOLDER_LOST_S) == [4, 5]


def test_a_holder_that_comes_back_stays_one() -> None:
    """Then there is one more than wanted, and nobody is sent the key."""
    world = World(holders={2, 3, 4})
    world.add(2, 3, 4, 5)

    assert world.to(1000.0) == []


def test_holders_act_in_turn() -> None:
    """The one with the lowest id acts first; another one only if that does not."""
    world = World(own=6, holders={2})
    world.add(2, 3)
    assert world.to(100.0) == []
    assert world.to(100.0 + limits.HOLDER_TURN_S - 1) == []
    assert world.to(100.0 + limits.HOLDER_TURN_S) == [3]
    world.add(2, state=SUSPECT, since=100.0)
    world.holders = set()

    assert world.to(200.0) == [3], "nobody is before it"


def test_the_key_is_sent_again_until_confirmed() -> None:
    """Once a second: a datagram may be lost."""
    world = World(wanted=2)
    world.add(2)
    assert world.to(0.0) == [2]
    assert world.to(0.5) == []
    assert world.to(1.0) == [2]
    world.holders = {2}

    assert world.to(2.0) == []


def test_a_member_that_never_confirms_is_passed_over() -> None:
    """After half a minute another one is chosen; the first is tried now and then."""
    world = World(wanted=2)
    world.add(2, 3)
    for now in range(int(limits.HANDOVER_PATIENCE_S)):
        assert world.to(float(now)) == [2]

    assert world.to(limits.HANDOVER_PATIENCE_S) == [3]


def test_a_silent_member_without_another_is_tried_seldom() -> None:
    """Its disk may be full; the key is not sent to it every second for ever."""
    world = World(wanted=2)
    world.add(2)
    sent = [now for now in range(200) if world.to(float(now))]

    assert sent[: int(limits.HANDOVER_PATIENCE_S)] == list(range(30))
    assert sent[30:33] == [39, 49, 59]
