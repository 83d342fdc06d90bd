"""A formed cluster for measurements.

Owns: building such a cluster quickly, as if it had run for long.
Does not: measure anything (`experiments`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overlay.core.events import Event
from overlay.core.node import Node
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    Entry,
    Participation,
    Scope,
    Segment,
    Value,
    key_of,
)
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import Endpoint, Ip, NodeId, Vni, mac_for
from overlay.sim.environment.codec import SharingCodec
from overlay.sim.environment.network import Network, Weather
from overlay.sim.environment.random_streams import RandomStreams
from overlay.sim.environment.schedule import Schedule
from overlay.sim.host.environment import Environment
from overlay.sim.host.host import Host
from overlay.sim.host.key_invariants import KeyInvariants
from overlay.sim.host.key_rotation import HOLDER

FIRST_VNI: Final = 2**23
_POLL_S: Final = 0.02
_BATCH: Final = 8  # endpoints per segment


class Cluster:
    """Nodes and the network between them, without kernels or containers."""

    def __init__(
        self,
        count: int,
        weather: Weather,
        *,
        seed: int = 1,
        hosts_per_network: int = 0,
        endpoints: int = 0,
        populated: int = 0,
        holders: int = 8,
    ) -> None:
        """Create `count` hosts, `hosts_per_network` of them on each network.

        0 puts all on one network. The first `populated` hosts (0: all) have `endpoints` endpoints
        each. `holders` hosts hold the authority from the start.
        """
        self.streams = RandomStreams(seed)
        self.schedule = Schedule()
        self.wires = Network(self.schedule, self.streams.stream("network"))
        self.wires.weather = weather
        self.load = self.streams.stream("load")
        self._environment = Environment(
            self.schedule,
            self.wires,
            SharingCodec(),
            ProtocolSettings(),
            self.streams.stream("hosts"),
            lambda _text: None,
            KeyInvariants(
                self.streams.stream("keys"),
                lambda node_id: self.by_id[node_id],
                self.wires.is_cut,
            ),
            holders,
        )
        self.hosts = [self._host(index) for index in range(count)]
        self.by_id = {host.node_id: host for host in self.hosts}
        self._hosts_per_network = hosts_per_network or count
        self.on_event: Callable[[Host, Event], None] = lambda _host, _event: None
        self._endpoint_count = 0
        self._start(endpoints, populated or count)

    def newcomer(self, seed: Host, vni: Vni) -> Host:
        """Start a host that knows only `seed`; let it participate in a network."""
        host = self._host(len(self.hosts))
        self.by_id[host.node_id] = host
        host.disk.seeds = (seed.address,)
        host.first_card()
        host.start()
        self._participate(host, vni)
        return host

    def _participate(self, host: Host, vni: Vni) -> None:
        assert host.node is not None
        if not (host.node.membership.alive() and host.node.may_write(self.schedule.now)):
            host.later(_POLL_S, lambda _: self._participate(host, vni))
            return
        host.publish(host.commit(CLUSTER_SCOPE, [Participation(vni, True)]))
        host.flush()

    def _host(self, index: int) -> Host:
        return Host(index, Ip((0x0A800000 + index).to_bytes(4, "big")), self._environment)

    def vni_of(self, host: Host) -> Vni:
        """Return the VNI of the network in which a host participates."""
        return Vni(FIRST_VNI + host.index // self._hosts_per_network)

    def _start(self, endpoints: int, populated: int) -> None:
        cards = {host.node_id: host.first_card() for host in self.hosts}
        by_network: dict[Vni, list[Segment]] = {}
        everywhere: list[Segment] = []
        for host in self.hosts:
            vni = self.vni_of(host)
            known: list[Value] = [Participation(vni, True), host.disk.ring.state]
            known += [HOLDER] if host.is_holder else []
            everywhere.append(_segment(host, CLUSTER_SCOPE, 0, known))
            for first in range(0, endpoints if host.index < populated else 0, _BATCH):
                count = min(_BATCH, endpoints - first)
                batch: list[Value] = [self.endpoint(host) for _ in range(count)]
                segment = _segment(host, Scope(vni), first, batch)
                by_network.setdefault(vni, []).append(segment)
        formed = frozenset(cards)
        for host in self.hosts:
            host.disk.base_cards = cards
            host.disk.base_segments = everywhere + by_network.get(self.vni_of(host), [])
            host.formed_with = formed
            host.on_event = lambda event, host=host: self.on_event(host, event)  # type: ignore[misc]
            self.schedule.at(self.load.random(), lambda host: host.start(), host)

    def endpoint(self, host: Host) -> Endpoint:
        """Return a new endpoint for a host."""
        self._endpoint_count += 1
        vni = self.vni_of(host)
        ip = Ip((0x0A000000 + self._endpoint_count).to_bytes(4, "big"))
        name = f"c{self._endpoint_count}"
        endpoint_id = self._endpoint_count.to_bytes(8, "big")
        return Endpoint(endpoint_id, vni, name, mac_for(vni, ip), (ip,))

    def write(self, host: Host) -> tuple[NodeId, Scope, int]:
        """Publish a new endpoint of a host.

        Returns (origin, scope, new version) of the log.
        """
        scope = Scope(self.vni_of(host))
        segments = host.commit(scope, [self.endpoint(host)])
        host.publish(segments)
        host.flush()
        return host.node_id, scope, segments[-1].upto

    def run(self, seconds: float) -> None:
        """Advance the time."""
        self.schedule.run_until(self.schedule.now + seconds)

    def up(self) -> list[Host]:
        """Return the hosts whose agents run."""
        return [host for host in self.hosts if host.node is not None]

    def nodes(self) -> list[Node]:
        """Return the running nodes."""
        return [host.node for host in self.hosts if host.node is not None]

    def sent_bytes(self) -> int:
        """Return the bytes sent by all hosts, including IP and UDP headers."""
        return sum(host.line.sent_bytes for host in self.hosts)


def _segment(host: Host, scope: Scope, after: int, values: list[Value]) -> Segment:
    entries = [Entry(after + 1 + index, key_of(value), value) for index, value in enumerate(values)]
    return host.signer.issue_segment(scope, 0, after, after + len(values), entries)
