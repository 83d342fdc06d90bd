"""One node's probes, message by message."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from overlay import limits
from overlay.core.membership.awareness import Awareness
from overlay.core.membership.prober import REASON_NOT_ASKED, ProbeAnswer, Prober
from overlay.core.membership.roster import Roster
from overlay.core.protocol.messages import (
    Ack,
    MemberState,
    Message,
    Nack,
    Ping,
    PingRequest,
    Rumours,
)
from overlay.core.protocol.outbox import Outbox
from overlay.core.protocol.settings import ProtocolSettings
from overlay.errors import RemoteError
from overlay.model import NodeId

if TYPE_CHECKING:
    from tests.core.conftest import TableCodec


def name(number: int) -> NodeId:
    """Return the identity of the node with that number."""
    return NodeId(number.to_bytes(16, "big"))


class Bench:
    """A prober with `count` members, and its messages."""

    def __init__(self, codec: TableCodec, count: int) -> None:
        self.codec = codec
        self.settings = ProtocolSettings()
        self.outbox = Outbox(codec)
        self.awareness = Awareness(self.settings.awareness_max)
        self.roster = Roster(random.Random(3))
        for number in range(count):
            self.roster.add(name(number), 0, 0.0)
        self.prober = Prober(
            self.roster,
            self.outbox,
            awareness=self.awareness,
            settings=self.settings,
            rng=random.Random(3),
            root_of=lambda node_id: 1000 + node_id[-1],
            now=0.0,
        )

    def sent(self) -> list[tuple[NodeId, Message]]:
        """Return the messages since the last call."""
        return [
            (to, message)
            for to, payload in self.outbox.drain()
            for message in self.codec.decode(payload)
        ]

    def to_next_timer(self) -> tuple[float, list[NodeId]]:
        """Let time pass to the next timer; return the time, and who failed."""
        due = self.prober.next_timer()
        assert due is not None
        return due, self.prober.handle_timer(due)

    def start_probe(self) -> tuple[float, NodeId, Ping]:
        """Let the next probe begin; return its time, target and ping."""
        now, _ = self.to_next_timer()
        [(target, ping)] = self.sent()
        assert isinstance(ping, Ping)
        return now, target, ping


@pytest.fixture
def five(codec: TableCodec) -> Bench:
    """Return a prober with five members."""
    return Bench(codec, 5)


def test_nobody_to_probe(codec: TableCodec) -> None:
    """Without members there is no timer."""
    assert Bench(codec, 0).prober.next_timer() is None


def test_ping_carries_the_root(five: Bench) -> None:
    """It is one ping with that peer's digest, in the first interval."""
    now, target, ping = five.start_probe()

    assert 0 <= now <= five.settings.probe_interval_s
    assert ping.root == 1000 + target[-1]


def test_answer_ends_the_probe(five: Bench) -> None:
    """It measures the round trip, and nothing is due until the next probe."""
    now, target, ping = five.start_probe()

    answer = five.prober.receive_ack(Ack(ping.sequence, 0, 7), target, now + 0.02)

    assert answer == ProbeAnswer(target, 7)
    record = five.roster.get(target)
    assert record is not None
    assert record.rtt_s == pytest.approx(0.02)
    assert five.prober.next_timer() == pytest.approx(now + 1.0)
    assert five.prober.receive_ack(Ack(ping.sequence, 0, 7), target, now + 0.03) is None


def test_silence_leads_to_indirect_probes(five: Bench) -> None:
    """After the timeout three relays are asked, and the member again."""
    now, target, ping = five.start_probe()
    when, failed = five.to_next_timer()

    sent = five.sent()
    assert when == pytest.approx(now + five.settings.probe_timeout_s)
    assert failed == []
    requests = [(to, one) for to, one in sent if isinstance(one, PingRequest)]
    assert [one for _, one in requests] == [PingRequest(ping.sequence, target)] * 3
    assert len({to for to, _ in requests} - {target}) == 3
    assert [to for to, one in sent if isinstance(one, Ping)] == [target]


def test_relayed_answer_counts(five: Bench) -> None:
    """It ends the probe, and is no round-trip time."""
    now, target, ping = five.start_probe()
    five.to_next_timer()
    relay = next(to for to, one in five.sent() if isinstance(one, PingRequest))

    answer = five.prober.receive_ack(Ack(ping.sequence, 0, 7), relay, now + 0.6)

    assert answer == ProbeAnswer(target, 7)
    record = five.roster.get(target)
    assert record is not None
    assert record.rtt_s is None
    assert five.prober.loss > 0


def test_only_a_direct_answer_shows_that_the_address_works(codec: TableCodec) -> None:
    """Rounds in which only a relay answers for a member are counted."""
    bench = Bench(codec, 2)
    record = bench.roster.get(name(1))
    assert record is not None
    by_relay = 0
    while by_relay < 3:
        now, _ = bench.to_next_timer()
        for to, message in bench.sent():
            if isinstance(message, Ping) and to == name(0):
                bench.prober.receive_ack(Ack(message.sequence, 0, 1), to, now)
            elif isinstance(message, PingRequest):
                bench.prober.receive_ack(Ack(message.sequence, 0, 1), to, now)
                by_relay += 1
    assert record.member().unanswered == 3

    while record.unanswered < 4:
        now, _ = bench.to_next_timer()
    [(to, ping)] = bench.sent()[-1:]
    assert isinstance(ping, Ping)
    bench.prober.receive_ack(Ack(ping.sequence, 0, 1), to, now)
    assert record.member().unanswered == 0


def test_an_ack_from_a_node_not_asked_is_refused(five: Bench) -> None:
    """Only a relay that was asked can answer for a member."""
    now, target, ping = five.start_probe()
    other = next(number for number in range(5) if name(number) != target)

    with pytest.raises(RemoteError, match=REASON_NOT_ASKED):
        five.prober.receive_ack(Ack(ping.sequence, 0, 7), name(other), now)
    with pytest.raises(RemoteError, match=REASON_NOT_ASKED):
        five.prober.receive_nack(Nack(ping.sequence), name(other))


@pytest.mark.parametrize(("nacks", "score"), [(3, 0), (2, 1), (0, 3)])
def test_silent_relays_count_against_this_node(five: Bench, nacks: int, score: int) -> None:
    """A failed probe costs health only for relays without a Nack."""
    now, target, ping = five.start_probe()
    five.to_next_timer()
    relays = [to for to, one in five.sent() if isinstance(one, PingRequest)]
    for relay in relays[:nacks]:
        five.prober.receive_nack(Nack(ping.sequence), relay)

    when, failed = five.to_next_timer()

    assert when == pytest.approx(now + five.settings.probe_interval_s)
    assert failed == [target]
    assert five.awareness.score == score


def test_alone_with_the_silent_one(codec: TableCodec) -> None:
    """Without relays a failed probe costs health: the fault may be here."""
    bench = Bench(codec, 1)
    bench.start_probe()
    bench.to_next_timer()
    _, failed = bench.to_next_timer()

    assert failed == [name(0)]
    assert bench.awareness.score == 1


def test_slow_node_waits_longer(five: Bench) -> None:
    """A slow node gives every member more time."""
    five.awareness.adjust(+3)
    now, _, _ = five.start_probe()

    when, _ = five.to_next_timer()
    assert when == pytest.approx(now + 4 * five.settings.probe_timeout_s)


def test_late_answer_is_proof_of_life(five: Bench) -> None:
    """After a probe failed, its answer still proves that the member lives."""
    now, target, ping = five.start_probe()
    five.to_next_timer()
    _, failed = five.to_next_timer()
    assert failed == [target]

    score = five.awareness.score
    assert five.prober.receive_ack(Ack(ping.sequence, 0, 9), target, now + 3) == ProbeAnswer(
        target, 9
    )
    assert five.awareness.score == score


def test_a_discarded_probe_accuses_nobody(five: Bench) -> None:
    """Probes outstanding during local lag accuse nobody."""
    five.start_probe()
    five.prober.discard_outstanding()

    _, failed = five.to_next_timer()

    assert failed == []


def test_relay_passes_the_answer_on(five: Bench) -> None:
    """A relay probes the member and relays its incarnation."""
    five.prober.receive_ping_request(PingRequest(77, name(2)), name(1), 0.1)
    [(to, ping)] = five.sent()
    assert to == name(2)
    assert isinstance(ping, Ping)

    answer = five.prober.receive_ack(Ack(ping.sequence, 5, 9), name(2), 0.2)

    assert answer == ProbeAnswer(name(2), 9)
    assert five.sent() == [(name(1), Ack(77, 1001, 9))]


def test_a_relay_without_an_answer_sends_nack(five: Bench) -> None:
    """A relay sends Nack before the requester's timeout."""
    while (due := five.prober.next_timer()) is not None and due < 5:
        five.prober.handle_timer(due)
    five.sent()
    five.prober.receive_ping_request(PingRequest(77, name(2)), name(1), 5.0)
    five.sent()

    five.prober.handle_timer(5.0 + 0.8 * five.settings.probe_timeout_s)

    assert (name(1), Nack(77)) in five.sent()


def test_unknown_target_is_nacked(five: Bench) -> None:
    """Asked for an unknown member, a node sends Nack at once."""
    five.prober.receive_ping_request(PingRequest(77, name(50)), name(1), 0.1)

    assert five.sent() == [(name(1), Nack(77))]


def test_relayed_probes_are_bounded(five: Bench) -> None:
    """However many are requested, only so many indirect probes are active."""
    for sequence in range(limits.RELAYED_PROBES_MAX + 5):
        five.prober.receive_ping_request(PingRequest(sequence, name(2)), name(1), 0.1)
        sent = five.sent()

    assert sent == [(name(1), Nack(limits.RELAYED_PROBES_MAX + 4))]


def test_a_suspect_is_notified_first(five: Bench) -> None:
    """A probe of a suspect begins with the suspicion itself."""
    record = five.roster.get(name(2))
    assert record is not None
    five.roster.move(record, MemberState.SUSPECT, 0.0)

    five.prober.ping(name(2), 0.1)

    messages = [message for _, message in five.sent()]
    assert messages[0] == Rumours((record.rumour(),))
    assert isinstance(messages[1], Ping)


def test_dead_members_are_probed(codec: TableCodec) -> None:
    """Even with no live member, a dead one is pinged at intervals for a while."""
    bench = Bench(codec, 1)
    record = bench.roster.get(name(0))
    assert record is not None
    bench.roster.move(record, MemberState.DEAD, 0.0)

    looked = []
    while (due := bench.prober.next_timer()) is not None and due < 100:
        assert bench.prober.handle_timer(due) == []
        looked += [due for _, message in bench.sent() if isinstance(message, Ping)]
    assert 6 <= len(looked) <= 20

    bench.prober.handle_timer(bench.settings.dead_probe_duration_s + 100)
    assert bench.sent() == []


def test_a_census_uses_no_relays(codec: TableCodec) -> None:
    """While frozen, many are pinged in each interval, and silence is reported."""
    bench = Bench(codec, 10)
    bench.prober.is_frozen = True
    bench.to_next_timer()

    pinged = [to for to, message in bench.sent() if isinstance(message, Ping)]
    assert set(pinged) == {name(number) for number in range(10)}
    assert not bench.to_next_timer()[1]
    assert len([to for to, one in bench.sent() if isinstance(one, PingRequest)]) == 3
    assert set(bench.to_next_timer()[1]) == {name(number) for number in range(10)}
