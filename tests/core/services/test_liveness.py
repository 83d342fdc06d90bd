"""Answers to echo requests show whether the hosts of backends live, beside membership."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.protocol.messages import MemberState
from overlay.core.services.liveness import HostLiveness, LivenessChange
from overlay.model import NodeId

VM2, VM3 = NodeId(b"2" * 16), NodeId(b"3" * 16)
ALIVE, SUSPECT, DEAD = MemberState.ALIVE, MemberState.SUSPECT, MemberState.DEAD
STEP_S = limits.LIVENESS_INTERVAL_S


class Watch:
    """A watch over vm2 and vm3, whose answers take some time, or do not come."""

    def __init__(self, *hosts: NodeId) -> None:
        self.liveness = HostLiveness()
        self.liveness.watch(dict.fromkeys(hosts or (VM2, VM3), ALIVE))
        self.now = 0.0
        self.changes: list[LivenessChange] = []
        self._late: list[tuple[float, NodeId, int]] = []

    def run(self, count: int, *, mute: tuple[NodeId, ...] = (), takes_s: float = 0.01) -> None:
        """Let a number of intervals pass, in which some hosts answer nothing."""
        for _ in range(count):
            requests, changes = self.liveness.tick(self.now)
            self.changes += changes
            self._late += [(self.now + takes_s, *each) for each in requests if each[0] not in mute]
            self.now += STEP_S
            for at, node_id, number in [each for each in self._late if each[0] < self.now]:
                change = self.liveness.answer(node_id, number, at)
                self.changes += [] if change is None else [change]
            self._late = [each for each in self._late if each[0] >= self.now]

    def state(self, node_id: NodeId = VM3, state: MemberState = ALIVE) -> MemberState:
        """Return the state that counts."""
        return self.liveness.state_of(node_id, state)


def test_a_host_that_stops_answering_is_suspect_within_a_second() -> None:
    """After three misses in a row; the other one stays as it is."""
    watch = Watch()
    watch.run(10)
    watch.run(limits.LIVENESS_MISSES, mute=(VM3,))
    assert (watch.changes, watch.state()) == ([], ALIVE)
    watch.run(1, mute=(VM3,))

    assert watch.changes == [LivenessChange(VM3, is_silent=True)]
    assert (watch.state(VM2), watch.state(VM3)) == (ALIVE, SUSPECT)
    assert (limits.LIVENESS_MISSES + 1) * STEP_S < 1.0


def test_the_first_answer_takes_it_back() -> None:
    """It must prove itself anew before its silence counts again."""
    watch = Watch()
    watch.run(10)
    watch.run(6, mute=(VM3,))
    watch.run(1)
    assert watch.changes[1:] == [LivenessChange(VM3, is_silent=False)]
    assert watch.state() is ALIVE
    watch.run(9, mute=(VM3,))
    assert watch.state() is ALIVE


@pytest.mark.parametrize("takes_s", [limits.LIVENESS_ANSWER_S + 0.01, 0.5])
def test_a_host_without_answers_in_time_is_left_to_membership(takes_s: float) -> None:
    """A firewall may drop requests, and a far host answers late."""
    for mute in ((VM3,), ()):
        watch = Watch()
        watch.run(20, mute=mute, takes_s=takes_s)
        watch.run(20, mute=(VM2, VM3))
        assert (VM3 in [each.node_id for each in watch.changes], watch.state()) == (False, ALIVE)


def test_answers_that_grow_late_are_answers() -> None:
    """A longer way does not make a host silent."""
    watch = Watch()
    watch.run(10)
    watch.run(50, takes_s=0.35)
    assert (watch.changes, watch.state()) == ([], ALIVE)


def test_a_busy_agent_finds_nobody_silent() -> None:
    """Answers that came while it did nothing are read before it judges."""
    watch = Watch()
    watch.run(10)
    requests, _ = watch.liveness.tick(watch.now)
    watch.now += 5.0
    for node_id, number in requests:
        watch.liveness.answer(node_id, number, watch.now)
    watch.run(10)
    assert (watch.changes, watch.state()) == ([], ALIVE)


def test_a_host_without_its_agent_is_kept_for_a_while() -> None:
    """Its containers go on, as long as nobody can say otherwise."""
    watch = Watch()
    watch.run(10)
    assert not watch.liveness.member_changed(VM3, SUSPECT, watch.now)
    assert watch.liveness.member_changed(VM3, DEAD, watch.now)
    watch.liveness.watch({VM2: ALIVE, VM3: DEAD})
    watch.run(50)
    assert (watch.state(VM3, SUSPECT), watch.state(VM3, DEAD)) == (ALIVE, ALIVE)
    watch.run(int(limits.LIVENESS_AGENTLESS_MAX_S / STEP_S) - 48)

    assert watch.changes == [LivenessChange(VM3, is_silent=False)]
    assert watch.state(VM3, DEAD) is DEAD
    watch.liveness.watch({VM2: ALIVE, VM3: DEAD})
    assert watch.liveness.hosts == (VM2,)


def test_a_host_that_has_never_answered_is_not_kept() -> None:
    """Nothing but its agent said that it lives."""
    watch = Watch()
    watch.run(2 * limits.LIVENESS_PROOF, mute=(VM3,))
    watch.liveness.member_changed(VM3, SUSPECT, watch.now)

    assert watch.state(VM3, SUSPECT) is SUSPECT
    assert not watch.liveness.member_changed(VM3, DEAD, watch.now)


def test_a_dead_host_is_not_kept_by_who_has_its_address_later() -> None:
    """Silence ends it for good, until membership finds it alive."""
    watch = Watch()
    watch.run(10)
    watch.liveness.member_changed(VM3, SUSPECT, watch.now)
    watch.run(4, mute=(VM3,))
    assert watch.state(VM3, SUSPECT) is SUSPECT
    assert not watch.liveness.member_changed(VM3, DEAD, watch.now)
    watch.run(20)
    assert watch.state(VM3, DEAD) is DEAD
    watch.liveness.member_changed(VM3, ALIVE, watch.now)
    assert watch.state(VM3, ALIVE) is ALIVE


def test_membership_is_right_after_a_while() -> None:
    """A firewall that begins to drop requests takes backends away for some seconds only."""
    watch = Watch()
    watch.run(10)
    watch.run(int(limits.LIVENESS_SILENCE_MAX_S / STEP_S), mute=(VM3,))
    assert watch.state() is SUSPECT
    watch.run(10, mute=(VM3,))
    assert watch.changes[1:] == [LivenessChange(VM3, is_silent=False)]
    assert watch.state() is ALIVE


def test_a_host_that_left_is_not_kept() -> None:
    """It took its containers with it."""
    watch = Watch()
    watch.run(10)
    watch.liveness.member_changed(VM3, MemberState.LEFT, watch.now)
    assert watch.state(VM3, MemberState.LEFT) is MemberState.LEFT


def test_answers_that_nobody_waits_for_count_for_nothing() -> None:
    """Repeated ones, and those of requests that were never sent."""
    watch = Watch(VM3)
    watch.run(10)
    watch.run(4, mute=(VM3,))
    for number in (1, 3, 99):
        assert watch.liveness.answer(VM3, number, watch.now) is None
    assert watch.state() is SUSPECT


def test_so_many_hosts_are_watched() -> None:
    """The others are left to membership."""
    nodes = [NodeId(each.to_bytes(16, "big")) for each in range(limits.LIVENESS_HOSTS_MAX + 9)]
    watch = Watch(*nodes)
    assert len(watch.liveness.tick(0.0)[0]) == limits.LIVENESS_HOSTS_MAX
    assert watch.liveness.state_of(nodes[-1], ALIVE) is ALIVE


@given(st.lists(st.booleans(), max_size=120))
def test_a_host_is_silent_only_after_misses_in_a_row(answers: list[bool]) -> None:
    """Whatever comes, and comes not: nor before so many answers in a row were in time."""
    watch = Watch(VM3)
    was_proven, in_row, missed = False, 0, 0
    for is_answered in answers:
        watch.run(1, mute=() if is_answered else (VM3,))
        was_silent = watch.state() is SUSPECT
        if is_answered:
            in_row, missed = in_row + 1, 0
            was_proven = was_proven or in_row >= limits.LIVENESS_PROOF
            assert not was_silent
        else:
            in_row, missed = 0, missed + 1
        if was_silent:
            assert was_proven
            assert missed > limits.LIVENESS_MISSES
