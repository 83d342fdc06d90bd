"""The simulated world: hosts, network, time, and the story so far.

Owns: the objects of a world, and how a host is created.
Does not: know faults and load (`run`, `load`, `churn`), or checks (`invariants`, `convergence`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import Ip, Network, NodeId
from overlay.sim.environment.codec import SharingCodec
from overlay.sim.environment.network import Network as Wires
from overlay.sim.environment.random_streams import RandomStreams
from overlay.sim.environment.schedule import Schedule
from overlay.sim.host.agent import SimAgent
from overlay.sim.host.environment import Environment
from overlay.sim.host.host import Host
from overlay.sim.host.key_invariants import KeyInvariants
from overlay.sim.host.reconciler import Reconciler
from overlay.sim.scenario import Scenario
from overlay.sim.world.invariants import Invariants


@dataclass(slots=True)
class Site:
    """A host with the components of its agent."""

    host: Host
    reconciler: Reconciler
    agent: SimAgent
    networks: list[Network] = field(default_factory=list)


class World:
    """Everything that one scenario starts with, and its present state."""

    def __init__(
        self, scenario: Scenario, streams: RandomStreams, settings: ProtocolSettings
    ) -> None:
        self.schedule = Schedule()
        self.wires = Wires(self.schedule, streams.stream("network"))
        self.story: list[tuple[float, str]] = []
        self.environment = Environment(
            self.schedule,
            self.wires,
            SharingCodec(),
            settings,
            streams.stream("hosts"),
            self.tell,
            KeyInvariants(
                streams.stream("keys"), self._host_of, self.wires.is_cut, scenario.key_interval
            ),
            scenario.holders,
        )
        self.environment.keys.tell = self.tell
        self.hosts: list[Host] = []
        self._by_id: dict[NodeId, Host] = {}
        self.invariants = Invariants(self.hosts)
        self.sites: list[Site] = []
        self.networks: list[Network] = []
        for index in range(scenario.nodes):
            self.add_host(index)

    def tell(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append((self.schedule.now, text))

    def _host_of(self, node_id: NodeId) -> Host:
        return self._by_id[node_id]

    def add_host(self, index: int) -> Site:
        """Create a host, whose agent does not run yet."""
        host = Host(index, address_of(index), self.environment)
        reconciler = Reconciler(host)
        site = Site(host, reconciler, SimAgent(host, reconciler, self.invariants))
        self.hosts.append(host)
        self._by_id[host.node_id] = host
        self.sites.append(site)
        return site


def address_of(number: int) -> Ip:
    """Return the underlay address with that number."""
    return Ip((0x0A800000 + 11 + number).to_bytes(4, "big"))
