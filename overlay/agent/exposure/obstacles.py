"""Why a host can have no end on a network: another one, or a route of its own, is in the place.

Owns the words. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from overlay import limits
from overlay.kernel.host import underlay
from overlay.model import Network


class ExposureObstacle(NamedTuple):
    """What is in the way, and what a person can do about it."""

    why: str
    hint: str


def subnet_too_small(network: Network) -> ExposureObstacle | None:
    """Return an obstacle where a person should decide: every host's end takes an address."""
    for subnet in network.subnets:
        length = max(subnet.prefix_length, subnet.block_length)
        size = 1 << 8 * len(subnet.base) - length
        if size < limits.EXPOSED_SUBNET_SIZE_MIN:
            per = "each block" if subnet.block_length else str(subnet)
            return ExposureObstacle(
                f"the host would take one of the {size} addresses of {per}",
                f"overlayd expose {network.name}",
            )
    return None


def find_obstacle(network: Network, exposed: Sequence[Network]) -> ExposureObstacle | None:
    """Return what keeps this host from an end on the network; in the kernel thread."""
    routes = underlay.routes()
    for subnet in network.subnets:
        for other in exposed:
            for theirs in other.subnets:
                same_family = len(theirs.base) == len(subnet.base)
                if same_family and theirs.network.overlaps(subnet.network):
                    return ExposureObstacle(
                        f"its subnet {subnet} overlaps {theirs} of network {other.name}, which "
                        "is exposed here",
                        f"overlayd unexpose {other.name}",
                    )
        route = underlay.overlapping(routes, subnet.network)
        if route is not None:
            return ExposureObstacle(
                f"its subnet {subnet} overlaps a route of this host: {route}",
                "Use another range for the network, or remove that route",
            )
    return None
