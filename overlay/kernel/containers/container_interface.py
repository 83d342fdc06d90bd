"""Compare a container's interfaces with what an attach gave them, and restore what is missing.

Programs in a container may flush addresses (a DHCP client, a network manager), or set an interface
down and up, by which the kernel drops its routes and IPv6 addresses.

Owns: state and addresses of the interfaces, and whether there is a default route. What a container
has beside that is left alone, and so are a new name, MAC or MTU.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from overlay import limits
from overlay.errors import OverlayError
from overlay.kernel.host.default_route import interface_among
from overlay.kernel.netlink import address_requests, address_rows, codec, link_requests, routes
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.link_lookup import all_links
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.sandbox.container_namespace import is_sandbox, socket_outside_host
from overlay.model import Ip, Mac, ip_text


@dataclass(frozen=True, slots=True)
class WantedInterface:
    """A container's interface on a network, as an attach made it."""

    network: str
    ifname: str
    mac: Mac
    addresses: tuple[tuple[Ip, int], ...]
    default_routes: frozenset[int]  # families, by the size of an address, that need one


@dataclass(frozen=True, slots=True)
class InterfaceDifference:
    """A property that an interface lacks, and the request that restores it.

    The request is None for a default route.
    """

    network: str
    text: str
    request: Request | None


class CheckedContainer(NamedTuple):
    """A container's namespace, and the interfaces that an attach made in it."""

    netns_path: str
    identity: tuple[int, int]
    wanted: Sequence[WantedInterface]


def differences(
    netns_path: str, identity: tuple[int, int], wanted: Sequence[WantedInterface]
) -> list[InterfaceDifference]:
    """Return what a container's interfaces lack; nothing for one that is gone, or its namespace.

    Raises OverlayError if the namespace cannot be opened.
    """
    with socket_outside_host(netns_path, identity) as inside:
        return [] if inside is None else list(_differences(inside, wanted))


def all_differences(containers: Sequence[CheckedContainer]) -> list[list[InterfaceDifference]]:
    """Return what the interfaces of the first of several containers lack, as many as time allows.

    Root in a container may fill its tables, and others wait for this thread meanwhile. Raises
    OverlayError if a namespace cannot be opened, or read.
    """
    found: list[list[InterfaceDifference]] = []
    end = time.monotonic() + limits.CONTAINER_CHECKS_S
    for each in containers:
        if found and time.monotonic() >= end:
            break
        found.append(differences(each.netns_path, each.identity, each.wanted))
    return found


def restore(
    netns_path: str, identity: tuple[int, int], wanted: Sequence[WantedInterface]
) -> list[InterfaceDifference]:
    """Restore state and addresses; return what was missing, default routes included.

    Raises OverlayError if the kernel refuses.
    """
    with socket_outside_host(netns_path, identity) as inside:
        if inside is None:
            return []
        found = list(_differences(inside, wanted))
        steps = [each.request for each in found if each.request is not None]
        for refusal in inside.transact(steps):
            if refusal.errno != errno.EEXIST:
                raise OverlayError(
                    "an interface in the container cannot be restored",
                    why=str(refusal),
                    hint="Does the container forbid it (net.ipv6.conf.*.disable_ipv6)? 'overlayd "
                    "attach --hands-off' leaves it as it is",
                )
        return found


def _differences(
    inside: NetlinkSocket, wanted: Sequence[WantedInterface]
) -> Iterator[InterfaceDifference]:
    links = {link.index: link for link in all_links(inside)}
    if is_sandbox(links.values()):
        return
    names = {index: link.name for index, link in links.items()}
    present = {
        (row.link, row.ip, row.prefix_length)
        for message in inside.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP)
        if (row := address_rows.decode_address(message, names)) is not None
    }
    led = {
        route.size
        for message in inside.dump(codec.RTM_GETROUTE, routes.DUMP)
        if (route := routes.decode_default(message)) is not None
    }
    for each in wanted:
        # Among those: the container may have made another one since.
        index = interface_among(links.values(), each.ifname, each.mac)
        if not index:
            continue  # its port in the sandbox is gone as well, and repaired from there
        name = names[index]
        if not links[index].up:
            text = f"{name} is down"
            yield InterfaceDifference(each.network, text, link_requests.set_up(index))
        for ip, length in each.addresses:
            if (name, ip, length) not in present:
                text = f"{name} has no address {ip_text(ip)}/{length}"
                request = address_requests.add_address(index, ip, length)
                yield InterfaceDifference(each.network, text, request)
        for size in sorted(each.default_routes - led):
            text = f"there is no default route for IPv{4 if size == 4 else 6}"
            yield InterfaceDifference(each.network, text, None)
