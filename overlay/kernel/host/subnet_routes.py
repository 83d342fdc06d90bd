"""Routes in a container to the further subnets of its networks, and to its resolvers.

Owns: adding and removing them, through the gateway of the container's own subnet. A route that is
there already, or that somebody else sets later, takes precedence: theirs have a lower metric.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from overlay.errors import KERNEL_REFUSED_HINT, OverlayError
from overlay.kernel.host.default_route import find_interface
from overlay.kernel.netlink import address_requests, codec
from overlay.kernel.sandbox.container_namespace import socket_in
from overlay.model import Ip, Mac, ip_text


@dataclass(frozen=True, slots=True)
class SubnetRoute:
    """A route through an interface of a container."""

    ifname: str
    mac: Mac
    base: Ip
    prefix_length: int
    gateway: Ip


def ensure(netns_path: str, identity: tuple[int, int], wanted: Sequence[SubnetRoute]) -> None:
    """Add the routes that the container does not have.

    Does nothing if the namespace is gone, and nothing for an interface that is. Raises OverlayError
    with the first route that the kernel refuses, once it has the others.
    """
    refusals: list[tuple[SubnetRoute, str]] = []
    with socket_in(netns_path, identity) as inside:
        if inside is None:
            return
        for each in wanted:
            index = find_interface(inside, each.ifname, each.mac)
            if index:
                request = address_requests.add_subnet_route(
                    index, each.base, each.prefix_length, each.gateway
                )
                found = inside.transact([request])
                refusals += [(each, str(no)) for no in found if no.errno != errno.EEXIST]
    _raise_first(refusals)


def drop(netns_path: str, identity: tuple[int, int], unwanted: Sequence[SubnetRoute]) -> None:
    """Remove routes that `ensure` added; none if the namespace, an interface or a route is gone.

    Raises OverlayError with the first route that the kernel keeps, once the others are gone.
    """
    refusals: list[tuple[SubnetRoute, str]] = []
    with socket_in(netns_path, identity) as inside:
        if inside is None:
            return
        for each in unwanted:
            index = find_interface(inside, each.ifname, each.mac)
            _, _, body = address_requests.add_subnet_route(
                index, each.base, each.prefix_length, each.gateway
            )
            found = inside.transact([(codec.RTM_DELROUTE, 0, body)]) if index else []
            refusals += [(each, str(no)) for no in found if no.errno != errno.ESRCH]
    _raise_first(refusals)


def _raise_first(refusals: Sequence[tuple[SubnetRoute, str]]) -> None:
    for route, why in refusals:
        raise OverlayError(
            f"cannot change the route to {ip_text(route.base)}/{route.prefix_length} "
            f"through {ip_text(route.gateway)}",
            why=why,
            hint=KERNEL_REFUSED_HINT,
        )
