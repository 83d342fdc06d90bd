"""The subnets that the addresses of an endpoint lie in.

Another member may displace a network by its VNI, or its creator define it anew, while this host has
containers on it.
"""

from __future__ import annotations

from overlay.core.dataplane.planning.segments import has_subnet
from overlay.errors import ConflictError
from overlay.model import Endpoint, Network, Subnet


def subnets_of(network: Network, endpoint: Endpoint, subnet_index: int) -> list[Subnet]:
    """Return the subnet of each address, given the index of the one that it was attached in.

    Raises ConflictError where the network no longer has such subnets.
    """
    found = [subnet for ip in endpoint.ips for subnet in network.subnets if ip in subnet]
    if len(found) != len(endpoint.ips) or not has_subnet(network, subnet_index):
        raise ConflictError(
            f"{endpoint.name} cannot be connected to network {network.name}",
            why="the network has other subnets than when it was attached",
            hint="'overlayd status' names networks that displace others; or detach the container, "
            "and attach it again",
        )
    return found
