"""The host's packet rules as a value: exposed networks, port forwards, ports of services.

Owns: the inputs of the rules. Does not: know their form in the kernel (`kernel.nft`). A network
of any driver may have its interface among them, if the host has one on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from overlay.core.services.values import Backend
from overlay.model import Ip


class ExposedLink(NamedTuple):
    """The host's interface on a network, and the ranges reached through it."""

    interface: str
    ranges: tuple[tuple[Ip, int], ...]  # (base, prefix length)


class PortForward(NamedTuple):
    """A port of the host that is mapped to a port of a container."""

    protocol: str  # "tcp" or "udp"
    host_ip: Ip  # empty: every address of the host, of the container's family
    host_port: int
    ip: Ip
    port: int
    borrowed: bool  # replies take another route: the host masquerades the client


class IngressForward(NamedTuple):
    """A port of the host that leads to the backends of a service, of one family.

    Those that rest are among them, as they have a place among the others (`services.maglev`).
    """

    protocol: str  # "tcp" or "udp"
    host_port: int
    backends: tuple[Backend, ...]  # at least one of them takes new connections
    affinity: bool = False
    borrowed: frozenset[Ip] = frozenset()  # of those that take some: replies by another route
    sources: tuple[tuple[Ip, int], ...] = ()  # (base, prefix length) of clients; empty: all

    def targets(self) -> list[Ip]:
        """Return the addresses of the backends that take new connections."""
        return [each.ip for each in self.backends if not each.is_resting]


class ForwardingInterface(NamedTuple):
    """Another program's interface that forwards because of overlayd only, whatever its name is."""

    interface_index: int
    family: int  # 4 or 6


@dataclass(frozen=True, slots=True)
class HostState:
    """The whole input of the host's table."""

    links: frozenset[ExposedLink] = frozenset()
    ports: frozenset[PortForward] = frozenset()
    opened: frozenset[ForwardingInterface] = frozenset()
    ingress: frozenset[IngressForward] = frozenset()

    def targets(self) -> set[tuple[tuple[str, int, int], Ip]]:
        """Return ((protocol, port, size of the address), target) of each port."""
        found = [(each.protocol, each.host_port, each.ip) for each in self.ports]
        found += [
            (each.protocol, each.host_port, ip) for each in self.ingress for ip in each.targets()
        ]
        return {((protocol, port, len(ip)), ip) for protocol, port, ip in found}
