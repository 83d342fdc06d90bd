"""The outage after the calm: a minority of the agents dies, and every other host attaches.

Owns: which agents die, the attaches, and what each of them must find: an address at once where
this host has a reserve, and else one of an owner that lives.
Does not: check refusals (`world.refusals`).
"""

from __future__ import annotations

import random
from typing import Final

from overlay.model import Network
from overlay.sim.host.attach import PendingAttach
from overlay.sim.world.world import Site, World

LASTS_S: Final = 8.0  # longer than an attach tries
_RICH: Final = 4  # free addresses, of which another host would have asked for some


class Outage:
    """One outage of a world that has converged."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng

    def begin(self) -> str | None:
        """Kill the agents and begin the attaches; return which host lacks a reserve, if any."""
        up = [site for site in self._world.sites if site.host.node is not None]
        lacking = self._lacking_reserve(up)
        creators = {network.creator for network in self._world.networks}
        self._rng.shuffle(up)
        up.sort(key=lambda site: site.host.node_id not in creators)  # they die first
        dying, left = up[: (len(up) - 1) // 2], up[(len(up) - 1) // 2 :]
        names = " ".join(site.host.name for site in dying)
        self._world.tell(f"the agents of these hosts die: {names}")
        for site in dying:
            site.host.stop()
        for site in left:
            for network in self._networks(site):
                for index, _ in enumerate(network.subnets):
                    name = f"late-{network.name}-{index}-{site.host.name}"
                    site.host.guarded(site.agent.attach, PendingAttach(network, index, name))
        return lacking

    def faults(self) -> str | None:
        """Return which attach is not over."""
        for site in self._world.sites:
            if site.host.node is not None and site.agent.pending:
                return f"{site.host.name} is still attaching {site.agent.pending[0].name}"
        return None

    def _networks(self, site: Site) -> list[Network]:
        return [
            each for each in self._world.networks if each.vni in site.reconciler.view.networks()
        ]

    def _lacking_reserve(self, up: list[Site]) -> str | None:
        ids = {site.host.node_id for site in up}
        for site in up:
            host = site.host
            assert host.addressing is not None
            for network in self._networks(site):
                shares = host.addressing.shares(network)
                for index, _ in enumerate(network.subnets):
                    free = (s.free for s in shares if s.subnet_index == index and s.owner in ids)
                    richest = max(free, default=0)
                    has_own = host.addressing.pick(network, index, host.schedule.now) is not None
                    if richest >= _RICH and not has_own:
                        return f"{host.name} has no reserve on {network.name}, subnet {index}"
        return None
