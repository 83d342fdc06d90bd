"""Networks whose creator is gone are switched by what members publish, and never opened by it."""

from __future__ import annotations

import random

import pytest
from overlay.core.dataplane.network_drivers import (
    EncryptionGoal,
    encryption_goal,
    is_encrypted,
    with_goal,
)
from overlay.core.encryption.orphan_goal import goal_after, orphan_in_effect
from overlay.core.encryption.switch_phase import (
    Progress,
    SwitchPhase,
    final_phase,
    is_switching,
    phase_of,
)
from overlay.model import Network, NodeId
from tests.core.encryption.test_switch_phase import (
    BLUE,
    TO_OFF,
    TO_ON,
    Member,
    done,
    understands,
)

ENCRYPTED = with_goal(BLUE, EncryptionGoal(True, 5), encrypted=True)


def phase(definition: Network, own: Progress | None, *others: Progress) -> SwitchPhase:
    """Return the phase of a member."""
    return phase_of(orphan_in_effect(definition, own, others), own, others)


def test_a_goal_says_its_direction() -> None:
    """Its number is even for encryption, and above all before."""
    for encrypted in (True, False):
        goal = goal_after([7, 90], 50, encrypted=encrypted)
        assert goal.serial in (91, 92)
        assert (goal.serial % 2 == 0) is encrypted
    assert goal_after([], 50, encrypted=True).serial == 50


@pytest.mark.parametrize("definition", [ENCRYPTED, TO_OFF, TO_ON])
@pytest.mark.parametrize("serial", [10, 11])
def test_nothing_that_others_publish_opens_a_network(definition: Network, serial: int) -> None:
    """Whether they say on or off, and whatever the definition was on the way to."""
    for each in SwitchPhase:
        found = phase(definition, None, done(each, serial), done(SwitchPhase.CLEAR, serial))
        assert definition is TO_ON or found is SwitchPhase.ENCRYPTED
        own = done(SwitchPhase.ENCRYPTED, 8)
        assert phase(definition, own, done(each, serial)) is SwitchPhase.ENCRYPTED


def test_a_member_that_joins_finds_the_others() -> None:
    """Also where a goal was taken back before it came."""
    on, off = done(SwitchPhase.ENCRYPTED, 10), done(SwitchPhase.CLEAR, 11)
    assert phase(BLUE, None, on, on) is SwitchPhase.ENCRYPTED
    assert phase(BLUE, None, off, off) is SwitchPhase.CLEAR
    assert phase(BLUE, None, off, done(SwitchPhase.BOTH, 11)) is SwitchPhase.ENCRYPTED
    assert phase(ENCRYPTED, None, off, off) is SwitchPhase.ENCRYPTED  # and goes down at once
    assert orphan_in_effect(BLUE, None, []) is BLUE


def test_a_switch_that_its_creator_began_ends() -> None:
    """By each member's own confirmation, as nobody can write the definition."""
    here = orphan_in_effect(TO_ON, done(SwitchPhase.ENCRYPTED), [])
    assert is_encrypted(here)
    assert not is_switching(here)
    assert is_switching(orphan_in_effect(TO_ON, done(SwitchPhase.SENDING), []))


@pytest.mark.parametrize("seed", range(8))
def test_members_without_creator_understand_each_other(seed: int) -> None:
    """In any order of steps and news, with goals by several at once; the newest is reached."""
    rng = random.Random(seed)
    members = {NodeId(bytes([n]) * 16): Member() for n in range(1, 5)}

    def hear(member: Member) -> None:
        others = filter(None, member.heard.values())
        member.network = orphan_in_effect(BLUE, member.own, others)

    for node_id, member in members.items():
        member.heard = dict.fromkeys(each for each in members if each != node_id)
    for _ in range(4):
        for member in rng.sample([*members.values()], 2):
            hear(member)
            before = [each.serial for each in (member.own, *member.heard.values()) if each]
            goal = goal_after(before, 1, encrypted=rng.random() < 0.6)
            here = phase_of(member.network, member.own, filter(None, member.heard.values()))
            member.own = (member.own or done(here))._replace(serial=goal.serial)
        for _ in range(rng.choice([5, 40, 800])):
            node_id, other = rng.sample([*members], 2)
            members[node_id].heard[other] = members[other].own
            hear(members[rng.choice([*members])])
            members[rng.choice([*members])].step()
            kernels = [each.kernel for each in members.values()]
            assert all(understands(one, two) for one in kernels for two in kernels)
    for _ in range(800):
        node_id, member = rng.choice([*members.items()])
        member.heard = {each: members[each].own for each in members if each != node_id}
        hear(member)
        member.step()
    found = {encryption_goal(each.network) for each in members.values()}
    assert len(found) == 1
    (newest,) = found
    assert newest is not None
    assert {each.kernel for each in members.values()} == {final_phase(newest)}
