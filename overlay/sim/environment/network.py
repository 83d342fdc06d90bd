"""The network between simulated hosts, with all faults of UDP.

Owns: loss, latency, jitter, duplication, reordering, corruption, cuts in one or both directions,
clogged paths, slow hosts and bounded link capacity. Like UDP, it never blocks the sender, drops
datagrams when a buffer is full, and discards those to unknown addresses without an error.
Does not: interpret datagrams.
"""

from __future__ import annotations

import collections
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from overlay.model import Ip, NodeId
from overlay.sim.environment.schedule import Schedule

IP_UDP_HEADER_SIZE: Final = 28  # IPv4 20, UDP 8
IN_FLIGHT_MAX: Final = 16_384  # datagrams under way to one host: a socket buffer of 4 MiB
CLOG_CAPACITY: Final = 64  # datagrams that a clogged path holds back before it drops more


@dataclass(frozen=True, slots=True)
class Weather:
    """How the network treats every datagram; probabilities are from 0 to 1."""

    loss: float = 0.0
    latency_s: float = 0.0005
    jitter_s: float = 0.0  # maximum added to the latency, uniformly distributed: reorders
    duplicate: float = 0.0
    corrupt: float = 0.0
    straggle: float = 0.0  # probability of a delay of up to `straggle_s`: reorders far
    straggle_s: float = 0.5
    bandwidth_bit_per_s: float = 1e9  # of each host's uplink
    buffer_s: float = 0.05  # length of the queue before the uplink drops


class Cut(NamedTuple):
    """Nothing passes from `sources` to `targets`.

    The opposite direction needs its own cut.
    """

    sources: frozenset[Ip]
    targets: frozenset[Ip]


class Flight(NamedTuple):
    """One datagram under way, unsealed, possibly marked as corrupted."""

    sender: NodeId
    source: Ip
    target: Ip
    content: Any
    corrupt: bool
    sent_s: float
    size: int  # of the UDP payload


class SimProbe(NamedTuple):
    """The content of a data-path probe: what its receiver verifies."""

    sequence: int
    key: bytes
    is_bare: bool = False


class Line:
    """One host's connection to the network, with its counters."""

    __slots__ = ("busy_until", "deliver", "in_flight", "sent_bytes", "sent_count", "slow_s")

    def __init__(self, deliver: Callable[[Flight], None]) -> None:
        self.deliver = deliver
        self.busy_until = 0.0
        self.in_flight = 0
        self.sent_count = 0
        self.sent_bytes = 0
        self.slow_s = 0.0  # maximum extra delay, in both directions


class Network:
    """Carries datagrams between lines, by address."""

    def __init__(self, schedule: Schedule, rng: random.Random) -> None:
        self.weather = Weather()
        self.cuts: list[Cut] = []
        self.drops: collections.Counter[str] = collections.Counter()
        self.size_max = 0
        self.trace = 0  # checksum of the sequence of (source, target, size)
        self.delivered = 0
        self._schedule = schedule
        self._random = rng.random
        self._lines: dict[Ip, Line] = {}
        self._clogs: dict[tuple[Ip, Ip], float] = {}
        self._held: collections.Counter[tuple[Ip, Ip]] = collections.Counter()

    def plug(self, address: Ip, deliver: Callable[[Flight], None]) -> Line:
        """Connect a host at `address`.

        Datagrams that arrive there are passed to `deliver`.
        """
        line = Line(deliver)
        self._lines[address] = line
        return line

    def unplug(self, address: Ip) -> None:
        """Disconnect `address`: nothing reaches it from now on."""
        self._lines.pop(address, None)

    def clog(self, source: Ip, target: Ip, until: float) -> None:
        """Hold back datagrams from `source` to `target` until then.

        Those beyond the capacity are dropped.
        """
        self._clogs[source, target] = until

    def is_cut(self, source: Ip, target: Ip) -> bool:
        """Return whether a cut separates `target` from `source`.

        Only the direction from `source` to `target` counts.
        """
        return any(source in cut.sources and target in cut.targets for cut in self.cuts)

    def calm(self) -> None:
        """End all cuts, clogs and slow lines; the weather is set separately."""
        self.cuts.clear()
        self._clogs.clear()
        for line in self._lines.values():
            line.slow_s = 0.0

    def send(self, sender: NodeId, source: Ip, target: Ip, content: Any, size: int) -> None:
        """Send a datagram of `size` bytes; it arrives never, once or more often."""
        self.size_max = max(self.size_max, size)
        self.trace = zlib.crc32(source + target, self.trace ^ size)
        weather = self.weather
        now = self._schedule.now
        line = self._lines.get(source)
        if line is None:  # the host has moved or is gone
            self.drops["unplugged"] += 1
            return
        line.sent_count += 1
        line.sent_bytes += size + IP_UDP_HEADER_SIZE
        leaves = max(now, line.busy_until)
        if leaves - now > weather.buffer_s:
            self.drops["uplink full"] += 1
            return
        line.busy_until = leaves = leaves + 8 * size / weather.bandwidth_bit_per_s
        if self._random() < weather.loss:
            self.drops["lost"] += 1
            return
        if self.cuts and self.is_cut(source, target):
            self.drops["cut"] += 1
            return
        corrupt = weather.corrupt > 0 and self._random() < weather.corrupt
        flight = Flight(sender, source, target, content, corrupt, now, size)
        self._launch(flight, leaves, line)
        if weather.duplicate and self._random() < weather.duplicate:
            self._launch(flight, leaves, line)

    def _launch(self, flight: Flight, leaves: float, line: Line) -> None:
        there = self._lines.get(flight.target)
        if there is None:
            self.drops["no such host"] += 1
            return
        if there.in_flight >= IN_FLIGHT_MAX:
            self.drops["receive buffer full"] += 1
            return
        weather = self.weather
        arrives = leaves + weather.latency_s + weather.jitter_s * self._random()
        if weather.straggle and self._random() < weather.straggle:
            arrives += weather.straggle_s * self._random()
        slow_s = line.slow_s + there.slow_s
        if slow_s:
            arrives += slow_s * (0.5 + 0.5 * self._random())
        if self._clogs:
            path = (flight.source, flight.target)
            until = self._clogs.get(path, 0.0)
            if until > leaves:
                if self._held[path] >= CLOG_CAPACITY:
                    self.drops["clogged"] += 1
                    return
                self._held[path] += 1
                arrives += until - leaves
            elif until:
                del self._clogs[path]
                del self._held[path]
        there.in_flight += 1
        self._schedule.at(arrives, self._arrive, flight)

    def _arrive(self, flight: Flight) -> None:
        line = self._lines.get(flight.target)
        if line is None:
            self.drops["no such host"] += 1
            return
        line.in_flight -= 1
        self.delivered += 1
        line.deliver(flight)
