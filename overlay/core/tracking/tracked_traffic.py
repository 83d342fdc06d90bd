"""What of a host's traffic its connection tracking must see, as a value.

The rules that translate need it; all else is the host's own traffic.

Owns: which ports the host masquerades with, and what is tracked for a state of the host's rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from overlay.core.dataplane.host_rules import HostState
from overlay.model import Ip

PROTOCOL_NUMBERS: Final = {"tcp": 6, "udp": 17}


class PortBlock(NamedTuple):
    """Ports whose upper bits are the same, so that one comparison can find them."""

    first: int
    mask: int

    @property
    def last(self) -> int:
        """Return the last port of the block."""
        return self.first | ~self.mask & 0xFFFF

    def __contains__(self, port: object) -> bool:
        """Return whether a port is in the block."""
        return isinstance(port, int) and port & self.mask == self.first


PRIVILEGED: Final = PortBlock(768, 0xFF00)
"""For clients with a port below 1,024: some servers (NFS) require one."""
ORDINARY: Final = PortBlock(16_384, 0xC000)
"""For all others: below the ports of the host's own clients (`net.ipv4.ip_local_port_range`)."""
MASQUERADE_PORTS: Final = (PRIVILEGED, ORDINARY)


class TrackedPort(NamedTuple):
    """A port of the host, or the id of an ICMP echo, of which connections are tracked."""

    protocol: int  # its number in the IP header
    port: int


@dataclass(frozen=True, slots=True)
class NetworkTraffic:
    """The traffic of networks and published ports: what must be tracked."""

    ranges: frozenset[tuple[Ip, int]] = frozenset()  # (base, prefix length) of exposed networks
    ports: frozenset[TrackedPort] = frozenset()

    def with_ports(self, ports: Iterable[TrackedPort]) -> NetworkTraffic:
        """Return the same with more ports."""
        return NetworkTraffic(self.ranges, self.ports.union(ports))


def traffic_of(state: HostState) -> NetworkTraffic:
    """Return what the host's rules translate, beside the ports that it masquerades with."""
    places = {(each.protocol, each.host_port) for each in state.ports}
    places |= {(each.protocol, each.host_port) for each in state.ingress}
    return NetworkTraffic(
        frozenset(each for link in state.links for each in link.ranges),
        frozenset(TrackedPort(PROTOCOL_NUMBERS[protocol], port) for protocol, port in places),
    )
