"""Probes between two nodes, over links that lose what a test says."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlay import limits
from overlay.core.paths.prober import PathProber
from overlay.core.paths.view import PathState, PathView, PeerPath, ProbeFrame
from overlay.core.protocol.messages import PathReport
from overlay.model import NodeId, Vni

A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)
SEEN_S = 10.0  # what fails is known after this time
IN_CLEAR = PeerPath(Vni(7), 1500)
KINDS_OF_PATH = {
    "IPv4": IN_CLEAR,
    "IPv6 in IPv6": PeerPath(Vni(7), 1500, 162, 146),
    "jumbo": PeerPath(Vni(7), 9000),
    "encrypted": PeerPath(Vni(7), 1500, 202, 126),
    "IPv6 in encrypted IPv6": PeerPath(Vni(7), 1500, 242, 146),
}


def never(*_: object) -> bool:
    """Lose nothing."""
    return False


@dataclass
class Pair:
    """Two probers; `frame_lost` and `report_lost` say what does not arrive, by its sender."""

    seed: int = 1
    peer: PeerPath = IN_CLEAR
    now: float = 0.0
    delay_s: float = 0.001
    frame_lost: Callable[[NodeId, ProbeFrame], bool] = never
    report_lost: Callable[[NodeId, PathReport], bool] = never
    sent_sizes: list[int] = field(default_factory=list)
    report_count: int = 0

    def __post_init__(self) -> None:
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = itertools.count()
        self.probers = {node: PathProber(random.Random(f"{self.seed} {node!r}")) for node in (A, B)}
        self.meet()

    def meet(self) -> None:
        """Have both probe each other."""
        self.probers[A].set_peers({B: self.peer}, self.now)
        self.probers[B].set_peers({A: self.peer}, self.now)

    def restart(self, node: NodeId) -> None:
        """Replace a node's agent by a new one."""
        self.probers[node] = PathProber(random.Random(f"{self.now} {node!r}"))
        self.meet()

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        end = self.now + duration_s
        while True:
            timers = [
                (due, node)
                for node, prober in self.probers.items()
                if (due := prober.next_timer()) is not None
            ]
            due, node = min(timers)
            if self._events and self._events[0][0] <= due:
                due, _, action = heapq.heappop(self._events)
                if due > end:
                    heapq.heappush(self._events, (due, next(self._order), action))
                    break
                self.now = max(self.now, due)
                action()
            elif due <= end:
                self.now = max(self.now, due)
                self.probers[node].handle_timer(self.now)
            else:
                break
            self._drain()
        self.now = end

    def _drain(self) -> None:
        for node, prober in self.probers.items():
            peer = B if node == A else A
            for frame in prober.drain_frames():
                self.sent_sizes.append(frame.size)
                if not self.frame_lost(node, frame):
                    self._later(partial(self._frame_arrives, node, peer, frame))
            for _, report in prober.drain_reports():
                self.report_count += 1
                if not self.report_lost(node, report):
                    self._later(partial(self._report_arrives, node, peer, report))

    def _frame_arrives(self, sender: NodeId, receiver: NodeId, frame: ProbeFrame) -> None:
        if self.probers[receiver].key_of(sender) == frame.key:  # else it cannot be verified
            self.probers[receiver].receive_frame(
                sender,
                frame.sequence,
                self.now,
                is_bare=frame.is_bare,
                is_large=frame.size > 0,
            )

    def _report_arrives(self, sender: NodeId, receiver: NodeId, report: PathReport) -> None:
        self.probers[receiver].receive_report(sender, report, self.now)

    def _later(self, action: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (self.now + self.delay_s, next(self._order), action))

    def seen_by(self, node: NodeId) -> PathView:
        """Return what a node knows of its path to the other."""
        found = self.probers[node].path(B if node == A else A)
        assert found is not None
        return found

    def states(self) -> list[tuple[PathState, PathState]]:
        """Return (sending, receiving) as seen by A and by B."""
        return [(view.sending, view.receiving) for view in map(self.seen_by, (A, B))]


OK = (PathState.OK, PathState.OK)


def test_a_healthy_path_is_proven_at_once() -> None:
    """Within a fraction of a second, in both directions, at full size."""
    pair = Pair()
    pair.run(0.3)
    assert pair.states() == [OK, OK]
    assert [pair.seen_by(node).size_carried for node in (A, B)] == [1500, 1500]


def test_one_lost_direction_is_known_on_both_sides() -> None:
    """The sender and the receiver say which direction it is."""
    pair = Pair()
    pair.run(20.0)
    pair.frame_lost = lambda sender, _: sender == A
    pair.run(SEEN_S)
    assert pair.states() == [(PathState.LOST, PathState.OK), (PathState.OK, PathState.LOST)]
    pair.frame_lost = never
    pair.run(SEEN_S)
    assert pair.states() == [OK, OK]


def test_two_lost_directions_are_known_on_both_sides() -> None:
    """Also where nothing ever arrived."""
    pair = Pair(frame_lost=lambda *_: True)
    pair.run(SEEN_S)
    assert pair.states() == [(PathState.LOST, PathState.LOST)] * 2


def test_lost_probes_are_counted_at_their_sender() -> None:
    """None while all arrive; each that is awaited in vain, and none in the other direction."""
    pair = Pair()
    pair.run(60.0)
    healthy = pair.seen_by(A)
    assert (healthy.probe_count > 5, healthy.probe_lost_count) == (True, 0)
    pair.frame_lost = lambda sender, _: sender == A
    pair.run(30.0)
    lost, other = pair.seen_by(A), pair.seen_by(B)
    assert lost.probe_count - healthy.probe_count >= lost.probe_lost_count > 3
    assert other.probe_lost_count == 0


def test_without_reports_the_path_is_not_called_lost() -> None:
    """Without reports a path is silent, not lost."""
    pair = Pair()
    pair.run(20.0)
    pair.report_lost = lambda *_: True
    pair.run(SEEN_S)
    assert [view.sending for view in map(pair.seen_by, (A, B))] == [PathState.SILENT] * 2


def test_wrong_reports_are_told_from_none() -> None:
    """A peer that reports other frames than those it got answers wrongly: it is not silent."""
    pair = Pair()
    pair.run(20.0)
    answers: list[PathReport] = []

    def take(sender: NodeId, report: PathReport) -> bool:
        answers.extend([report] * (sender == B))
        return sender == B

    pair.report_lost = take
    for _ in range(50):
        pair.run(SEEN_S / 50)
        for report in answers:
            wrong = replace(report, echo=b"none")
            pair.probers[A].receive_report(B, wrong, pair.now)
        answers.clear()
    assert pair.seen_by(A).sending is PathState.LOST


def test_lost_large_packets_are_known_on_both_sides() -> None:
    """The sender finds the size that passes, and the receiver is told."""
    pair = Pair()
    pair.run(20.0)
    pair.frame_lost = lambda sender, frame: sender == A and frame.size > 1400
    pair.probers[A].check_sizes(pair.now)
    assert pair.probers[A].is_size_waiting()
    pair.run(limits.PATH_LOOK_WAIT_S)
    assert not pair.probers[A].is_size_waiting()
    assert pair.seen_by(A).size_fails
    assert pair.seen_by(B).size_received
    pair.run(60.0)
    carried = pair.seen_by(A).size_carried
    assert carried is not None
    assert 1400 - limits.PATH_SIZE_STEP <= carried <= 1400
    assert pair.seen_by(B).size_received == carried
    assert pair.seen_by(B).size_carried == 1500
    pair.frame_lost = never
    pair.run(limits.PATH_SIZE_INTERVAL_S + SEEN_S)
    assert pair.seen_by(A).size_carried == 1500
    assert not pair.seen_by(B).size_received


def test_spoilt_checksums_are_told_from_lost_packets() -> None:
    """Only frames without a checksum arrive: both sides know, and know when it is over."""
    pair = Pair()
    pair.run(20.0)
    pair.frame_lost = lambda sender, frame: sender == A and not frame.is_bare
    pair.run(SEEN_S)
    assert pair.seen_by(A).sending is PathState.DAMAGED
    assert pair.seen_by(B).receiving is PathState.DAMAGED
    assert pair.seen_by(B).sending is PathState.OK
    assert pair.seen_by(A).loses
    assert pair.seen_by(B).loses
    pair.frame_lost = never
    pair.run(SEEN_S)
    assert pair.states() == [OK, OK]


def test_lost_reports_are_no_spoilt_checksums() -> None:
    """All frames arrive, and only one side hears so: nothing is damaged."""
    pair = Pair()
    pair.run(20.0)
    pair.report_lost = lambda sender, _report: sender == B
    pair.run(SEEN_S)
    states = {state for both in pair.states() for state in both}
    assert PathState.DAMAGED not in states


def test_a_proven_path_gets_no_frame_without_checksum() -> None:
    """They are sent only while others are missed."""
    pair = Pair()
    bare: list[ProbeFrame] = []

    def note(_sender: NodeId, frame: ProbeFrame) -> bool:
        bare.extend([frame] * frame.is_bare)
        return False

    pair.frame_lost = note
    pair.run(60.0)
    assert not bare


def test_a_check_knows_both_directions_at_once() -> None:
    """Neither waits for the next round, also of a path that was given up."""
    pair = Pair()
    pair.run(20.0)
    pair.frame_lost = lambda *_: True
    pair.run(SEEN_S)
    pair.frame_lost = never
    start = pair.now
    for node, peer in ((A, B), (B, A)):
        pair.probers[node].probe_now(peer, pair.now)
    assert not pair.probers[A].is_known_since(B, start, pair.now)
    pair.run(0.2)
    assert pair.states() == [OK, OK]
    assert pair.probers[A].is_heard_since(B, start)
    assert pair.probers[A].is_known_since(B, start, pair.now)


def test_a_probe_is_proven_by_its_own_report() -> None:
    """Not by one of an earlier probe, so a check says what it saw itself."""
    pair = Pair()
    pair.run(20.0)
    pair.frame_lost = lambda *_: True
    start = pair.now
    pair.probers[A].probe_now(B, start)
    pair.run(0.5)

    assert pair.states() == [OK, OK]  # too early for a verdict
    assert pair.probers[A].is_proven_since(B, 0.0)
    assert not pair.probers[A].is_proven_since(B, start)
    pair.frame_lost = never
    pair.run(1.0)
    assert pair.probers[A].is_proven_since(B, start)


@pytest.mark.parametrize(
    ("sending", "receiving", "carries"),
    [
        (PathState.OK, PathState.OK, True),
        (PathState.OK, PathState.UNKNOWN, None),
        (PathState.UNKNOWN, PathState.OK, None),
        (PathState.UNKNOWN, PathState.LOST, False),
        (PathState.SILENT, PathState.OK, False),
    ],
)
def test_a_path_carries_what_was_seen(
    sending: PathState, receiving: PathState, carries: bool | None
) -> None:
    """A direction that was not probed yet is neither good nor bad."""
    view = PathView(B, sending, receiving, 0.0, 1500, 1500, size_fails=False)
    assert view.carries is carries


def test_a_restarted_agent_is_proven_again() -> None:
    """Its key is new, and reports about its former frames are not taken for its own."""
    pair = Pair()
    pair.run(60.0)
    pair.restart(A)
    pair.run(3.0)
    assert pair.states() == [OK, OK]


def test_a_repeated_frame_is_not_counted() -> None:
    """A recording of a frame proves nothing."""
    pair = Pair()
    pair.run(20.0)
    frame_count = len(pair.sent_sizes)
    assert frame_count
    assert not pair.probers[B].receive_frame(A, 1, pair.now)


def test_who_checks_a_size_learns_of_both_directions() -> None:
    """A large frame that arrives is followed by one of the other direction, and by no third."""
    pair = Pair()
    pair.run(20.0)
    pair.frame_lost = lambda sender, frame: sender == B and frame.size > 1400
    sizes = len(pair.sent_sizes)
    pair.probers[A].check_sizes(pair.now)
    pair.run(limits.PATH_LOOK_WAIT_S)
    assert pair.seen_by(B).size_fails
    assert pair.seen_by(A).size_received
    assert pair.sent_sizes[sizes:].count(1500) == 1 + limits.PATH_SIZE_MISSES


def test_a_size_is_not_checked_twice_at_once() -> None:
    """However many look."""
    pair = Pair()
    pair.run(20.0)
    for _ in range(9):
        pair.probers[A].check_sizes(pair.now)
        pair.run(limits.PATH_PROBE_INTERVAL_S / 10)
    assert pair.sent_sizes.count(1500) == 2 + 2  # at the start, and by who looked first


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_loss_of_one_in_ten_is_no_lost_path(seed: int) -> None:
    """A minute at 10 % loss of frames and reports: no verdict is ever `lost` or `damaged`."""
    rng = random.Random(seed)
    pair = Pair(seed)
    pair.frame_lost = lambda *_: rng.random() < 0.1
    pair.report_lost = lambda *_: rng.random() < 0.1
    verdicts = set()
    for _ in range(60):
        pair.run(1.0)
        verdicts |= {state for states in pair.states() for state in states}
    assert not verdicts & {PathState.LOST, PathState.DAMAGED, PathState.SILENT}


def test_a_slow_path_is_no_lost_path() -> None:
    """Reports that come after the next probe has left prove the path as well."""
    pair = Pair(delay_s=0.4)
    pair.run(20.0)
    assert pair.states() == [OK, OK]
    pair.run(60.0)
    assert pair.states() == [OK, OK]
    assert pair.seen_by(A).size_carried == 1500


@pytest.mark.parametrize("peer", KINDS_OF_PATH.values(), ids=KINDS_OF_PATH)
def test_an_idle_pair_costs_less_than_a_kilobit(peer: PeerPath) -> None:
    """Both directions and both reports, on the underlay, whatever carries them."""
    pair = Pair(peer=peer)
    pair.run(30.0)
    sizes, reports = len(pair.sent_sizes), pair.report_count
    seconds = 7200.0
    pair.run(seconds)
    sent = [size or peer.probe_size for size in pair.sent_sizes[sizes:]]
    octets = sum(sent) + peer.report_size * (pair.report_count - reports)
    assert 0 < 8 * octets / seconds < limits.PATH_PAIR_BIT_PER_S + 5


@pytest.mark.parametrize("peer", KINDS_OF_PATH.values(), ids=KINDS_OF_PATH)
def test_what_fails_is_known_within_ten_seconds(peer: PeerPath) -> None:
    """Also where a round costs more, so that the next is later: on both sides."""
    pair = Pair(peer=peer)
    pair.run(20.0)
    pair.frame_lost = lambda sender, _: sender == A
    pair.run(SEEN_S)
    assert pair.states() == [(PathState.LOST, PathState.OK), (PathState.OK, PathState.LOST)]


def test_a_report_counts_misses_on_the_old_scale() -> None:
    """An agent of before refuses more than five, and calls the path lost at five."""
    pair = Pair()
    pair.run(20.0)
    told: list[int] = []
    pair.frame_lost = lambda sender, _: sender == A

    def note(sender: NodeId, report: PathReport) -> bool:
        told.extend([report.missed] * (sender == A))
        return False

    pair.report_lost = note
    pair.run(30.0)
    assert set(told) == set(range(limits.PATH_MISSES_REPORTED_MAX + 1))


def test_many_peers_are_probed_in_turn() -> None:
    """No second has more rounds than the interval's share."""
    prober = PathProber(random.Random(1))
    peers = {NodeId(number.to_bytes(16, "big")): PeerPath(Vni(7), 1500) for number in range(640)}
    prober.set_peers(peers, 0.0)
    begun: set[NodeId] = set()
    now = 0.0
    while now < 10.0:
        now = prober.next_timer() or 0.0
        prober.handle_timer(now)
        begun |= {frame.to for frame in prober.drain_frames()}
    per_second = limits.PATH_PEERS_PER_CYCLE / limits.PATH_PROBE_INTERVAL_S
    assert len(begun) <= per_second * now + 1


def test_a_sequence_far_ahead_costs_nothing() -> None:
    """A member chooses its own numbers; what is remembered stays small."""
    pair = Pair()
    pair.run(20.0)
    last = 2**64 - 1
    assert pair.probers[B].receive_frame(A, last, pair.now)
    assert not pair.probers[B].receive_frame(A, 1, pair.now)
    pair.probers[B].handle_timer(pair.now + limits.PATH_PROBE_INTERVAL_S)

    [(_, report)] = pair.probers[B].drain_reports()
    assert (report.seen, report.mask) == (last, 1)
