"""The services of networks with their backends, derived again only where something has changed.

A change of one container concerns few of a network's services; a host needs them all for the names,
ports and tables of its clients.

Owns: what was derived last. Does not: read records, or know how backends are derived.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from overlay.core.services.derivation import (
    BackendIndex,
    Match,
    PlacedService,
    backends_of,
    virtual_ports,
)
from overlay.core.services.service import Service
from overlay.core.services.values import VirtualPort
from overlay.model import Network, Vni


class Placement(NamedTuple):
    """The services of one network, by name, and their virtual ports in order.

    What has not changed is the same object as before.
    """

    services: tuple[PlacedService, ...]
    ports: tuple[VirtualPort, ...]


@dataclass(frozen=True, slots=True)
class _Derived:
    """A service's matching containers, and what was derived from these."""

    matches: list[Match]
    placed: PlacedService
    ports: tuple[VirtualPort, ...]


@dataclass(frozen=True, slots=True)
class _Network:
    network: Network
    services: Sequence[Service]
    inputs: object
    derived: dict[str, _Derived]  # by name
    placement: Placement


class Placements:
    """The newest placement of each network, and the matches that it was derived from."""

    def __init__(self) -> None:
        self._networks: dict[Vni, _Network] = {}

    def of(
        self,
        network: Network,
        services: Sequence[Service],
        inputs: object,
        index: Callable[[], BackendIndex],
    ) -> Placement:
        """Return the services of a network with their backends.

        `inputs` equals that of the last call as long as `index` would return the same.
        """
        last = self._networks.get(network.vni)
        if last is not None and last.network != network:
            last = None
        if last is not None and last.inputs == inputs and last.services == services:
            return last.placement
        known = last.derived if last is not None else {}
        derived = dict(_derive(network, services, index(), known))
        placement = Placement(
            tuple(each.placed for each in derived.values()),
            tuple(sorted((port for each in derived.values() for port in each.ports), key=_order)),
        )
        self._networks[network.vni] = _Network(network, services, inputs, derived, placement)
        return placement

    def keep(self, vnis: Collection[Vni]) -> None:
        """Forget all other networks."""
        for vni in self._networks.keys() - set(vnis):
            del self._networks[vni]


def _derive(
    network: Network, services: Sequence[Service], index: BackendIndex, known: dict[str, _Derived]
) -> Iterator[tuple[str, _Derived]]:
    for service in services:
        matches = index.matches(service)
        before = known.get(service.name)
        if before is None or before.placed.service != service or before.matches != matches:
            placed = PlacedService(service, tuple(backends_of(network, service, matches)))
            before = _Derived(matches, placed, tuple(virtual_ports(placed)))
        yield service.name, before


def _order(port: VirtualPort) -> tuple[int, bytes, str, int]:
    return len(port.ip), port.ip, port.protocol, port.port
