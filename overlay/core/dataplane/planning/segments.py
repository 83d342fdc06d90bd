"""The segments of a network: one bridge and one VXLAN device each.

`br0` and `vxlan0`, `br1` and `vxlan1`, with the network's VNI plus the segment's number. The n-th
IPv4 subnet and the n-th IPv6 subnet share segment n, so that a dual-stack container has both
addresses on its one interface; two subnets of one family are two segments, routed between their
bridges.
"""

from __future__ import annotations

from overlay.core.dataplane.link_state import HOST_PORT_PREFIX, PLUG_PREFIX, PORT_PREFIX
from overlay.model import Ip, Network


def segment_of(network: Network, subnet_index: int) -> int:
    """Return the number of a subnet's segment: its rank in its family."""
    if subnet_index == 0:
        return 0  # nearly always, and called for each port in each pass
    size = len(network.subnets[subnet_index].base)
    return sum(len(subnet.base) == size for subnet in network.subnets[:subnet_index])


def has_subnet(network: Network, subnet_index: int) -> bool:
    """Return whether a network has a subnet of that number.

    Not all that ports were made in: another member may displace a network by its VNI, or its
    creator define it anew.
    """
    return subnet_index < len(network.subnets)


def segment_count(network: Network) -> int:
    """Return the number of segments, and so of VNIs, of a network."""
    return 1 + max(segment_of(network, index) for index in range(len(network.subnets)))


def bridge_name(network: Network, subnet_index: int) -> str:
    """Return the bridge that a subnet's endpoints are connected to."""
    return f"br{segment_of(network, subnet_index)}"


def host_port_name(segment: int) -> str:
    """Return the name of the port of this host's endpoint on a segment."""
    return f"{HOST_PORT_PREFIX}{segment}"


def plug_name(number: int) -> str:
    """Return the name of the port of a plugged interface: of a host's on a network, each has its
    own number."""
    return f"{PLUG_PREFIX}{number}"


def port_name(endpoint_id: bytes) -> str:
    """Return the name of the port of a container's endpoint."""
    return f"{PORT_PREFIX}{endpoint_id[:6].hex()}"


class Segments:
    """Finds the segment of an address by its prefix; made for many lookups."""

    def __init__(self, network: Network) -> None:
        self._subnets = [
            (
                len(subnet.base),
                8 * len(subnet.base) - subnet.prefix_length,
                int.from_bytes(subnet.base, "big") >> 8 * len(subnet.base) - subnet.prefix_length,
                segment_of(network, index),
                subnet.gateway,
            )
            for index, subnet in enumerate(network.subnets)
        ]

    def of(self, ip: Ip) -> int | None:
        """Return the segment, or None if no container can have this address."""
        number = int.from_bytes(ip, "big")
        for size, shift, prefix, segment, gateway in self._subnets:
            if size == len(ip) and number >> shift == prefix:
                return None if ip == gateway else segment
        return None
