"""The load on simulated hosts: networks and containers.

Owns: the containers' names, and how much happens on which host.
Does not: know faults or invariants.
"""

from __future__ import annotations

import random
from typing import Any, Final

from overlay.core.protocol.records import CLUSTER_SCOPE, Participation
from overlay.model import Network, Subnet, Vni, parse_ip
from overlay.sim.host.attach import PendingAttach
from overlay.sim.scenario import Scenario
from overlay.sim.world.world import Site, World

_ENDPOINTS_MAX: Final = 12  # per host and network


class Load:
    """The load that one scenario puts on a world."""

    def __init__(self, world: World, scenario: Scenario, rng: random.Random) -> None:
        self._world = world
        self._scenario = scenario
        self._rng = rng
        self._names = 0
        self._churning = False

    def begin(self) -> None:
        """Schedule the creation of the networks and the first containers."""
        self._world.schedule.at(0.5, self._make_networks)

    def begin_churn(self) -> None:
        """Attach and detach containers from now on, if the scenario has churn."""
        self._churning = True
        if self._scenario.churn:
            self._churn()

    def end_churn(self) -> None:
        """Stop attaching and detaching."""
        self._churning = False

    def _make_networks(self, _: Any) -> None:
        up = [site for site in self._world.sites if site.host.node is not None]
        for number in range(self._scenario.networks):
            creator = up[number % len(up)]
            base = parse_ip(f"10.{32 + number}.0.0")
            gateway = parse_ip(f"10.{32 + number}.0.1")
            second = parse_ip(f"10.{132 + number}.0.0")
            # Every third network is so small that hosts share, renew and exhaust it.
            subnets = [Subnet(base, 26 if number % 3 == 2 else 16, gateway)]
            if number % 3 == 1:
                subnets.append(Subnet(second, 24, parse_ip(f"10.{132 + number}.0.1")))
            network = Network(
                Vni(2**23 + 16 * number), f"net{number}", tuple(subnets), creator.host.node_id
            )
            self._world.networks.append(network)
            participation = Participation(network.vni, forwards=False)
            creator.host.publish(creator.host.commit(CLUSTER_SCOPE, [network, participation]))
            creator.agent.divide(network)
            creator.host.flush()
            count = min(self._scenario.hosts_per_network, len(self._world.sites))
            for site in self._rng.sample(self._world.sites, count):
                site.networks.append(network)
                for _index in range(self._scenario.endpoints):
                    self._world.schedule.after(
                        self._rng.uniform(0.2, 1.5), self._attach, (site, network)
                    )

    def _attach(self, where: tuple[Site, Network]) -> None:
        site, network = where
        if site.host.node is None or site.host.gone:
            return
        self._names += 1
        attach = PendingAttach(
            network,
            self._rng.randrange(len(network.subnets)),
            f"c{self._names}",
        )
        site.host.guarded(site.agent.attach, attach)

    def _churn(self, _: Any = None) -> None:
        if not self._churning:
            return
        self._world.schedule.after(self._rng.expovariate(self._scenario.churn), self._churn)
        up = [
            site
            for site in self._world.sites
            if site.host.node is not None and site.networks and not site.host.leaving
        ]
        if not up:
            return
        site = self._rng.choice(up)
        network = self._rng.choice(site.networks)
        running = [
            container
            for container in site.host.kernel.containers.values()
            if container.endpoint.vni == network.vni
        ]
        fullness = len(running) / _ENDPOINTS_MAX
        if running and self._rng.random() < max(0.4, fullness):
            site.host.guarded(site.agent.detach, self._rng.choice(running))
        else:
            self._attach((site, network))
