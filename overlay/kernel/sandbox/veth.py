"""Create, inspect and remove a container's interface.

Owns: the veth pair (veth(4)) between a sandbox's bridge and a container's namespace, and the
settings inside the container: address, MAC, MTU, default route.
Does not: find containers or choose addresses.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import Final, NamedTuple

from overlay import failpoint
from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.state import GuardRow, HookRow
from overlay.errors import KERNEL_REFUSED_HINT, ConflictError, NotFoundError, OverlayError
from overlay.kernel import netns
from overlay.kernel.netlink import (
    address_requests,
    address_rows,
    codec,
    link_decoder,
    link_requests,
    readiness,
)
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.link_lookup import all_links, delete_links, find_link
from overlay.kernel.netlink.socket import LostNotificationsError, NetlinkError, NetlinkSocket
from overlay.kernel.sandbox.container_namespace import NAMESPACE_ALIAS, require_container_of
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Ip, Mac, ip_text

_IFNAME_TRIES: Final = 16
_AGAIN: Final = "Attach the container again"
_NOTIFIED_POLL_S: Final = 0.02  # while waiting, how often it is seen that the request has ended
_NOTIFIED_BATCH: Final = 16


class PortExistsError(ConflictError):
    """The sandbox already has the port to create."""


@dataclass(frozen=True, slots=True)
class AttachedInterface:
    """The result of `attach_interface`."""

    ifname: str
    default_route: bool  # False if not requested, or if the container had one already


@dataclass(frozen=True, slots=True)
class ContainerInterface:
    """A container's interface as the kernel reports it."""

    ifname: str
    mac: Mac
    mtu: int
    up: bool
    addresses: frozenset[tuple[Ip, int]]
    alias: str


def create_namespace(name: str) -> int:
    """Create a bare container: a named and marked namespace.

    Returns its file descriptor. Raises ConflictError if the name is taken, OverlayError if the
    kernel refuses.
    """
    netns_fd = netns.create(name)
    try:
        with NetlinkSocket.in_container(netns_fd) as inside:
            for request in (link_requests.set_alias(1, NAMESPACE_ALIAS), link_requests.set_up(1)):
                inside.request(request)
    except BaseException:
        os.close(netns_fd)
        netns.remove(name)  # without the mark, overlayd would never remove it
        raise
    return netns_fd


def netns_identity(netns_fd: int) -> tuple[int, int]:
    """Return what identifies a container's namespace: (device, inode)."""
    return netns.identity(netns_fd)


def attach_interface(
    sandbox: Sandbox,
    *,
    port_name: str,
    bridge: str,
    netns_fd: int,
    container: str | None = None,
    ifname: str | None,
    mac: Mac,
    addresses: Sequence[tuple[Ip, int]],
    mtu: int,
    gateway: Ip | None,
    further_gateways: Sequence[Ip] = (),
    allowed: GuardRow | None = None,
    hooks: Sequence[HookRow] = (),
    link_local: bool = True,
) -> AttachedInterface:
    """Create a container's interface on the sandbox's bridge.

    It is usable on return. Without `ifname`, the next free ethN is used. A default route through
    `gateway`, and through each of `further_gateways` (of the other address family), is added unless
    the container has one. Port security (`allowed`) and policies (`hooks`) are in force before the
    container's end is up. Without `link_local`, the kernel generates no link-local address.
    Nothing is left behind on failure.

    `container` names a container, whose namespace must not be the host's own or a sandbox. Raises
    ConflictError if it is, or if the interface or the port exists, NotFoundError if the bridge does
    not, OverlayError otherwise.
    """
    with NetlinkSocket.in_container(netns_fd) as inside:
        links = all_links(inside)
        if container is not None:  # here, where no sandbox is being created meanwhile
            require_container_of(inside, netns_fd, container, links=links)
        port = Port(port_name, mtu, bridge)
        pair = _create_pair(sandbox, inside, port, netns_fd, ifname, mac, links)
        try:
            if sandbox.guard is not None and allowed is not None:
                sandbox.guard.put([(allowed, pair.port_index)])
            _add_hooks(sandbox, hooks)
            allow_families(netns_fd, pair.ifname, addresses)
            gateways = () if gateway is None else (gateway, *further_gateways)
            made = set_up_inside(
                sandbox.alias,
                inside,
                (pair.ifname, pair.inner),
                addresses,
                gateways,
                link_local=link_local,
            )
            readiness.wait_forwarding(sandbox.socket, port_name, _AGAIN)
        except BaseException:
            detach_interface(sandbox, port_name)
            raise
    return AttachedInterface(pair.ifname, default_route=made[:1] == [True])


def offer_interface(
    sandbox: Sandbox,
    *,
    port_name: str,
    bridge: str,
    ifname: str,
    mac: Mac,
    mtu: int,
    allowed: GuardRow,
    hooks: Sequence[HookRow] = (),
    runtime_endpoint: str,
) -> None:
    """Create a pair whose other end, `ifname`, waits in the host's namespace for its container.

    A container runtime moves that end into a container, gives it its addresses and brings it up;
    until then it is down. Its alias names the runtime's id, also after the move. Port security
    (`allowed`) and policies (`hooks`) are in force before. Nothing is left behind on failure.
    Raises ConflictError if the interface or the port exists, OverlayError otherwise.
    """
    with netns.closing(netns.own_fd()) as own, NetlinkSocket(own) as host:
        port = Port(port_name, mtu, bridge)
        pair = _create_pair(sandbox, host, port, own, ifname, mac, all_links(host))
        try:
            if sandbox.guard is not None:
                sandbox.guard.put([(allowed, pair.port_index)])
            _add_hooks(sandbox, hooks)
            alias = link_decoder.runtime_alias(sandbox.alias, runtime_endpoint)
            host.request(link_requests.set_alias(pair.inner, alias))
        except BaseException:
            detach_interface(sandbox, port_name)
            raise


def _add_hooks(sandbox: Sandbox, hooks: Sequence[HookRow]) -> None:
    for failure in sandbox.apply([PutRow(row) for row in hooks]):
        raise OverlayError(
            "what keeps a new port apart cannot be in force",
            why=failure.reason,
            hint=KERNEL_REFUSED_HINT,
        )


def interface_name_of(netns_fd: int, mac: Mac, *, up_only: bool = False) -> str | None:
    """Return the name of the interface with a MAC in a container's namespace, or None.

    A runtime that moves an interface renames it and gives it addresses before it brings it up.
    """
    with NetlinkSocket.in_container(netns_fd) as inside:
        links = (each for each in all_links(inside) if each.up or not up_only)
        return next((found.name for found in links if found.mac == mac), None)


class _Pair(NamedTuple):
    """A new veth pair: the container's end, with its index, and the port's index."""

    ifname: str
    inner: int
    port_index: int


def _create_pair(
    sandbox: Sandbox,
    inside: NetlinkSocket,
    port: Port,
    netns_fd: int,
    wanted: str | None,
    mac: Mac,
    links: Sequence[LinkInfo],
) -> _Pair:
    """Create the pair; `links` are those of the container's namespace.

    Both indexes are chosen here, so that no request is needed to find them; but on the host the
    kernel chooses, which uses none again soon: others may still name a former interface by it.
    """
    is_host = sandbox.is_host(netns_fd)
    for _ in range(_IFNAME_TRIES):
        name = wanted or free_interface_name(links)
        index = 0 if is_host else 1 + max((each.index for each in links), default=1)
        try:
            port_index = sandbox.create_port(port, netns_fd, name, mac, index)
        except NetlinkError as error:
            _require_another_try(sandbox, port, error, name, wanted)
        else:
            return _Pair(name, index or find_link(inside, name), port_index)
        links = all_links(inside)
    raise ConflictError(
        "no free interface name in the container",
        why="other programs keep taking them",
        hint="Choose one: --ifname NAME",
    )


def _require_another_try(
    sandbox: Sandbox, port: Port, error: NetlinkError, name: str, wanted: str | None
) -> None:
    """Raise why a pair can't be made, unless just a name or an index was taken meanwhile."""
    if error.errno == errno.EBUSY:
        return
    if error.errno == errno.EXFULL:
        raise ConflictError(
            "the network's bridge on this host is full",
            why="a Linux bridge has at most 1,023 ports",
            hint="Attach further containers on another host, or to another network",
        ) from error
    if error.errno != errno.EEXIST:
        raise OverlayError(
            f"cannot create the interface {name}",
            why=error.strerror or "",
            hint=KERNEL_REFUSED_HINT,
        ) from error
    if find_link(sandbox.socket, port.name):
        raise PortExistsError(
            f"the sandbox {sandbox.name} already has a port {port.name}"
        ) from None
    if wanted:
        raise ConflictError(
            f"the container already has an interface {wanted}",
            hint="Choose another name with --ifname, or leave the choice to overlayd",
        ) from None


def free_interface_name(links: Sequence[LinkInfo]) -> str:
    """Return the next ethN that none of the links has."""
    taken = {found.name for found in links}
    return next(name for number in range(len(taken) + 1) if (name := f"eth{number}") not in taken)


def allow_families(netns_fd: int, ifname: str, addresses: Sequence[tuple[Ip, int]]) -> None:
    """Enable IPv6 on an interface that gets an IPv6 address.

    Docker disables it in its containers, and some hosts do by default (disable_ipv6,
    Documentation/networking/ip-sysctl.rst). Without an IPv6 address the setting is left alone, and
    a container that was made without IPv6 gets such an address only on request.
    """
    if any(len(ip) == 16 for ip, _ in addresses):
        failpoint.failpoint("container.sysctl")
        with (
            netns.inside(netns_fd),
            suppress(OSError),
        ):  # a kernel without IPv6: the address is refused later
            path = Path(f"/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6")
            path.write_text("0", encoding="ascii")


def set_up_inside(
    alias: str,
    inside: NetlinkSocket,
    link: tuple[str, int],
    addresses: Sequence[tuple[Ip, int]],
    gateways: Sequence[Ip],
    *,
    link_local: bool,
) -> list[bool]:
    """Add the addresses of a container's interface, bring it up, and add its default routes.

    `link` is its name and index. Packets reach the addresses on return, unless the interface has no
    carrier. Returns for each gateway whether its route was made: not if there is one of that
    family. Raises OverlayError if the kernel refuses.
    """
    ifname, index = link
    # Without an IPv6 address on the overlay, link-local traffic would only be flooded.
    has_ipv6 = any(len(ip) == 16 for ip, _ in addresses)
    steps: list[Request] = [
        link_requests.set_alias(index, alias, link_local=has_ipv6 and link_local),
        *(address_requests.add_address(index, ip, length) for ip, length in addresses),
        link_requests.set_up(index),
    ]
    routes = [address_requests.add_default_route(index, each) for each in gateways]
    made = [True] * len(gateways)
    for refusal in inside.transact([*steps, *routes]):
        position = refusal.position - len(steps)
        if position < 0:
            texts = ", ".join(ip_text(ip) for ip, _ in addresses)
            raise OverlayError(
                f"cannot set up {ifname} with {texts}", why=str(refusal), hint=KERNEL_REFUSED_HINT
            )
        if refusal.errno != errno.EEXIST:
            text = f"cannot add a default route through {ip_text(gateways[position])}"
            raise OverlayError(text, why=str(refusal), hint=KERNEL_REFUSED_HINT)
        made[position] = False
    readiness.wait_local(inside, [ip for ip, _ in addresses])
    return made


def inspect_interface(netns_fd: int, ifname: str) -> ContainerInterface | None:
    """Return the container's interface; None if there is none of that name."""
    with NetlinkSocket.in_container(netns_fd) as inside:
        for found in all_links(inside):
            if found.name == ifname:
                return _interface(inside, found)
    return None


def _interface(inside: NetlinkSocket, found: link_decoder.LinkInfo) -> ContainerInterface:
    names = {found.index: found.name}
    decoded = (
        address_rows.decode_address(message, names)
        for message in inside.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP)
    )
    addresses = frozenset((row.ip, row.prefix_length) for row in decoded if row is not None)
    return ContainerInterface(
        found.name, Mac(found.mac), found.mtu, found.up, addresses, found.alias
    )


def change_mtu(netns_fd: int, ifname: str, mtu: int) -> None:
    """Set the MTU, in bytes, of the container's end.

    The port's is part of the sandbox. Raises NotFoundError if there is no such interface,
    NetlinkError if the kernel refuses.
    """
    with NetlinkSocket.in_container(netns_fd) as inside:
        index = find_link(inside, ifname)
        if not index:
            raise NotFoundError(f"the container has no interface {ifname}")
        inside.request(link_requests.set_mtu(index, mtu))


def detach_interface(sandbox: Sandbox, port_name: str) -> bool:
    """Delete the port and with it the container's interface.

    Returns False if there was none. Thread-safe. Better not run in the kernel thread: the kernel
    takes 20 ms, merely waiting.
    """
    return bool(detach_interfaces(sandbox, [port_name]))


def detach_interfaces(
    sandbox: Sandbox, port_names: Sequence[str], when_gone: Callable[[str], None] | None = None
) -> list[str]:
    """Delete many ports in the time of one; return those that existed.

    `when_gone` is called with each, in this thread, as soon as it and the container's interface
    are gone from their namespaces. That is 10 to 30 ms before the kernel answers the request,
    because it waits for an RCU grace period in between (net/core/dev.c, netdev_run_todo).
    Thread-safe.
    """
    with (
        NetlinkSocket(sandbox.netns_fd, groups=(codec.RTNLGRP_LINK,)) as notified,
        NetlinkSocket(sandbox.netns_fd) as socket,
        ThreadPoolExecutor(1) as pool,
    ):
        indexes = {name: index for name in port_names if (index := find_link(socket, name))}
        if sandbox.guard is not None:  # first: a port without a guard is closed
            with suppress(OSError):  # the next reconcile pass finds the rest
                sandbox.guard.delete(indexes.values())
        deletion = pool.submit(delete_links, socket, list(indexes.values()))
        told = _tell_of_gone(notified, indexes, deletion, when_gone) if when_gone else set()
        deletion.result()
    for name in indexes.keys() - told:
        if when_gone is not None:
            when_gone(name)
    return list(indexes)


def _tell_of_gone(
    notified: NetlinkSocket,
    indexes: Mapping[str, int],
    deletion: Future[None],
    when_gone: Callable[[str], None],
) -> set[str]:
    """Tell of each port whose deletion is notified before the request has ended; return them."""
    waiting = {index: name for name, index in indexes.items()}
    while waiting and not deletion.done():
        if not select([notified], [], [], _NOTIFIED_POLL_S)[0]:
            continue
        try:
            messages = notified.notifications(_NOTIFIED_BATCH)
        except LostNotificationsError:
            break
        for message in messages:
            is_deletion = message.kind == codec.RTM_DELLINK
            if is_deletion and not link_decoder.is_port_message(message):
                name = waiting.pop(link_decoder.index_of(message), None)
                if name is not None:
                    when_gone(name)
    return indexes.keys() - waiting.values()
