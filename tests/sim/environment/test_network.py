from __future__ import annotations

import random
from dataclasses import replace

from overlay.model import Ip, NodeId, parse_ip
from overlay.sim.environment.network import CLOG_CAPACITY, Cut, Flight, Network, Weather
from overlay.sim.environment.schedule import Schedule

A, B, C = (parse_ip(f"10.0.0.{number}") for number in (1, 2, 3))
NODE = NodeId(bytes(16))


class Wire:
    """A network with three hosts that record received datagrams."""

    def __init__(self, weather: Weather) -> None:
        self.schedule = Schedule()
        self.network = Network(self.schedule, random.Random(1))
        self.network.weather = weather
        self.got: list[tuple[float, Flight]] = []
        for address in (A, B, C):
            self.network.plug(address, self._note)

    def _note(self, flight: Flight) -> None:
        self.got.append((self.schedule.now, flight))

    def send(self, source: Ip, target: Ip, payload: bytes = b"x") -> None:
        """Send from one host to another, now."""
        self.network.send(NODE, source, target, payload, len(payload))

    def run(self, seconds: float = 10.0) -> list[bytes]:
        """Advance the time; return the payloads that have arrived so far."""
        self.schedule.run_until(self.schedule.now + seconds)
        return [flight.content for _, flight in self.got]


def test_a_datagram_takes_the_latency() -> None:
    """A datagram takes the latency and its own transmission time."""
    wire = Wire(Weather(latency_s=0.005))
    wire.send(A, B)
    wire.run()

    [(when, flight)] = wire.got
    assert 0.005 < when < 0.0051
    assert (flight.source, flight.target) == (A, B)


def test_loss_is_near_its_share() -> None:
    """With a loss of 0.1 a tenth of the datagrams is lost."""
    wire = Wire(Weather(loss=0.1))
    for _ in range(2000):
        wire.send(A, B)
        wire.run(0.001)

    assert 1700 < len(wire.got) < 1900
    assert wire.network.drops["lost"] == 2000 - len(wire.got)


def test_jitter_reorders() -> None:
    """Datagrams sent one after the other may overtake each other."""
    wire = Wire(Weather(jitter_s=0.05))
    for number in range(50):
        wire.send(A, B, bytes([number]))
    got = wire.run()

    assert got != sorted(got)
    assert sorted(got) == [bytes([number]) for number in range(50)]


def test_duplicates_arrive_twice() -> None:
    """A duplicated datagram is delivered twice."""
    wire = Wire(Weather(duplicate=0.999999))
    wire.send(A, B)

    assert wire.run() == [b"x", b"x"]


def test_a_one_way_cut_lets_replies_pass() -> None:
    """A cut applies only in its direction."""
    wire = Wire(Weather())
    wire.network.cuts.append(Cut(frozenset({A}), frozenset({B})))
    wire.send(A, B, b"there")
    wire.send(B, A, b"back")
    wire.send(A, C, b"elsewhere")

    assert sorted(wire.run()) == [b"back", b"elsewhere"]


def test_a_clog_holds_back_then_releases() -> None:
    """Datagrams on a clogged path arrive after the clog ends.

    Those beyond capacity are dropped.
    """
    wire = Wire(Weather())
    wire.network.clog(A, B, until=2.0)
    for _ in range(CLOG_CAPACITY + 5):
        wire.send(A, B)
    wire.run()

    assert len(wire.got) == CLOG_CAPACITY
    assert all(when >= 2.0 for when, _ in wire.got)
    assert wire.network.drops["clogged"] == 5


def test_a_full_uplink_drops() -> None:
    """A host that sends faster than its link loses datagrams."""
    wire = Wire(replace(Weather(), bandwidth_bit_per_s=1e6, buffer_s=0.01))
    for _ in range(100):
        wire.send(A, B, bytes(1000))
    wire.run()

    assert wire.network.drops["uplink full"] > 80
    assert len(wire.got) + wire.network.drops["uplink full"] == 100


def test_unknown_and_unplugged_hosts_are_silent() -> None:
    """A datagram to an unknown host disappears without an error."""
    wire = Wire(Weather())
    wire.send(A, parse_ip("10.0.0.99"))
    wire.send(A, B)
    wire.network.unplug(B)

    assert wire.run() == []
    assert wire.network.drops["no such host"] == 2


def test_corruption_is_marked_not_hidden() -> None:
    """A corrupted datagram arrives marked, as its seal would reveal it."""
    wire = Wire(Weather(corrupt=0.999999))
    wire.send(A, B)
    wire.run()

    assert wire.got[0][1].corrupt
