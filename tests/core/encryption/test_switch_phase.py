"""No two members are in phases that do not understand each other, in any order of events."""

from __future__ import annotations

import random

import pytest
from overlay.core.dataplane.network_drivers import (
    OVERLAY,
    EncryptionGoal,
    encryption_goal,
    is_encrypted,
    labels_of,
    with_goal,
)
from overlay.core.encryption.switch_phase import (
    Progress,
    SwitchPhase,
    SwitchWait,
    is_complete,
    is_switching,
    next_progress,
    phase_of,
    waits,
)
from overlay.model import Network, NodeId, Subnet, Vni, parse_ip

SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
BLUE = Network(Vni(8), "blue", (SUBNET,), NodeId(b"c" * 16), labels=(("team", "a"),))
ON, OFF = EncryptionGoal(True, 5), EncryptionGoal(False, 9)
TO_ON = with_goal(BLUE, ON, encrypted=False)
TO_OFF = with_goal(BLUE, OFF, encrypted=True)


def done(phase: SwitchPhase, serial: int = 5) -> Progress:
    """Return a confirmed phase."""
    return Progress(BLUE.vni, serial, phase, is_done=True)


def test_a_goal_is_part_of_the_definition() -> None:
    """The driver changes at the end only, so that agents of before stay out from then on."""
    assert encryption_goal(TO_ON) == ON
    assert is_switching(TO_ON)
    assert not is_encrypted(TO_ON)
    complete = with_goal(TO_ON, ON, encrypted=True)
    assert is_encrypted(complete)
    assert not is_switching(complete)
    assert dict(complete.labels)["team"] == "a"
    assert set(labels_of(OVERLAY, "", encrypted=True)) < set(complete.labels)
    assert dict(with_goal(complete, OFF, encrypted=False).labels).keys() == {
        "team", "overlayd.encryption",
    }  # fmt: skip
    assert encryption_goal(BLUE) is None


def test_a_network_at_rest_is_as_it_is_defined() -> None:
    """Whatever progress a former switch left."""
    stale = done(SwitchPhase.BOTH)
    assert phase_of(BLUE, stale, ()) is SwitchPhase.CLEAR
    assert phase_of(with_goal(BLUE, ON, encrypted=True), stale, ()) is SwitchPhase.ENCRYPTED


@pytest.mark.parametrize(
    ("network", "others", "phase"),
    [
        (TO_ON, [], SwitchPhase.CLEAR),
        (TO_ON, [SwitchPhase.CLEAR, SwitchPhase.READY], SwitchPhase.READY),
        (TO_ON, [SwitchPhase.BOTH, SwitchPhase.BOTH], SwitchPhase.SENDING),
        (TO_ON, [SwitchPhase.SENDING, SwitchPhase.ENCRYPTED], SwitchPhase.ENCRYPTED),
        (TO_OFF, [], SwitchPhase.ENCRYPTED),
        (TO_OFF, [SwitchPhase.SENDING, SwitchPhase.BOTH], SwitchPhase.ENCRYPTED),
        (TO_OFF, [SwitchPhase.CLEAR, SwitchPhase.CLEAR], SwitchPhase.ENCRYPTED),
    ],
)
def test_a_new_member_is_where_the_others_are_next(
    network: Network, others: list[SwitchPhase], phase: SwitchPhase
) -> None:
    """And never in clear because of what others say; on the way out it is where all began."""
    goal = encryption_goal(network)
    assert goal is not None
    found = [done(each, goal.serial) for each in others]
    assert phase_of(network, None, found) is phase


def test_a_step_waits_for_every_member() -> None:
    """One that has not taken it up, one that has not confirmed, one that is behind."""
    others = {
        NodeId(b"1" * 16): None,
        NodeId(b"2" * 16): done(SwitchPhase.READY, serial=4),
        NodeId(b"3" * 16): done(SwitchPhase.READY)._replace(is_done=False),
        NodeId(b"6" * 16): done(SwitchPhase.BOTH)._replace(is_done=False),
        NodeId(b"4" * 16): done(SwitchPhase.CLEAR),
        NodeId(b"5" * 16): done(SwitchPhase.BOTH),
    }
    reasons = [why for _, why in waits(ON, SwitchPhase.READY, others)]
    assert reasons == [SwitchWait.UNAWARE] * 2 + [SwitchWait.BEHIND] * 2
    assert next_progress(TO_ON, done(SwitchPhase.READY), others) is None


class Member:
    """A member that hears of the others' progress late, and may be down."""

    def __init__(self) -> None:
        self.network = BLUE
        self.own: Progress | None = None
        self.heard: dict[NodeId, Progress | None] = {}
        self.kernel = SwitchPhase.CLEAR

    def step(self) -> None:
        """Change the kernel if that is under way; else publish what follows."""
        phase = phase_of(self.network, self.own, filter(None, self.heard.values()))
        if self.own is not None and not self.own.is_done and is_switching(self.network):
            if self.kernel is not phase:
                self.kernel = phase
                return
            self.own = self.own._replace(is_done=True)
            return
        self.kernel = phase
        self.own = next_progress(self.network, self.own, self.heard) or self.own


def understands(sender: SwitchPhase, receiver: SwitchPhase) -> bool:
    """Return whether what one member sends is received by another."""
    if sender >= SwitchPhase.SENDING:
        return receiver >= SwitchPhase.BOTH
    return receiver <= SwitchPhase.SENDING


@pytest.mark.parametrize("seed", range(8))
def test_members_always_understand_each_other(seed: int) -> None:
    """In any order of steps and news, through changes of the goal; and each goal is reached."""
    rng = random.Random(seed)
    ids = [NodeId(bytes([n]) * 16) for n in range(1, 5)]
    members = {node_id: Member() for node_id in ids}
    for member in members.values():
        member.heard = dict.fromkeys(each for each in ids if members[each] is not member)
    creator = members[ids[0]]
    definition, serial = BLUE, 0
    for _ in range(6):
        goal = EncryptionGoal(rng.random() < 0.6, serial := serial + 1)
        definition = creator.network = with_goal(
            definition, goal, encrypted=is_encrypted(definition)
        )
        for _ in range(rng.choice([5, 40, 800])):
            node_id = rng.choice(ids)
            member = members[node_id]
            match rng.randrange(3):
                case 0:
                    member.step()
                case 1:
                    other = rng.choice([each for each in ids if each != node_id])
                    member.heard[other] = members[other].own
                case _:
                    member.network = definition
            if is_complete(creator.network, creator.own, creator.heard):
                definition = creator.network = with_goal(definition, goal, encrypted=goal.encrypted)
            kernels = [each.kernel for each in members.values()]
            assert all(understands(one, other) for one in kernels for other in kernels)
    for _ in range(800):
        node_id = rng.choice(ids)
        members[node_id].network = definition
        members[node_id].heard = {each: members[each].own for each in ids if each != node_id}
        members[node_id].step()
        if is_complete(creator.network, creator.own, creator.heard):
            definition = creator.network = with_goal(definition, goal, encrypted=goal.encrypted)
    final = SwitchPhase.ENCRYPTED if goal.encrypted else SwitchPhase.CLEAR
    assert {each.kernel for each in members.values()} == {final}
