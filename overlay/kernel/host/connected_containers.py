"""Find the containers that are connected to networks, from the kernel alone.

Owns: following a veth pair from a sandbox's port to the container's end, and finding macvlan and
ipvlan interfaces by their marks. Needs no stored state, so a start can attach again what the state
file does not know. Does not: change anything.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from overlay.core.dataplane.link_state import PORT_PREFIX
from overlay.errors import ForbiddenError, NotFoundError, OverlayError, UsageError
from overlay.kernel import netns
from overlay.kernel.host import macvlan
from overlay.kernel.netlink import address_rows, codec, link_decoder, routes
from overlay.kernel.netlink.link_lookup import all_links, links_best_effort
from overlay.kernel.netlink.socket import NetlinkSocket, namespace_id
from overlay.kernel.sandbox import kernel_support
from overlay.model import Ip, Mac


@dataclass(frozen=True, slots=True)
class ConnectedContainer:
    """A container's interface on a network, as the kernel has it."""

    sandbox: str  # its name; empty for a macvlan or ipvlan interface
    port: str  # or the mark of such an interface
    netns_path: str
    identity: tuple[int, int]  # of the container's namespace: device and inode
    ifname: str
    mac: Mac
    addresses: tuple[Ip, ...]
    default_route: bool  # the container has one, here or elsewhere
    runtime_endpoint: str  # the id of a runtime that moved it there and configures it; or empty


@dataclass(frozen=True, slots=True)
class _Sandbox:
    name: str
    descriptor: int
    socket: NetlinkSocket
    ports: dict[tuple[int, int], str]  # (id of the container's namespace, index there): port


def connected_containers(
    sandboxes: Sequence[str], marks: Collection[str] = ()
) -> list[ConnectedContainer]:
    """Return the containers that are connected to sandboxes, given by name, or have a mark.

    Searches every namespace that has a name or a process, so an end of a container that is gone is
    not found. Raises OverlayError or OSError.
    """
    opened = [sandbox for sandbox in map(_open, sandboxes) if sandbox is not None]
    try:
        found: dict[str, ConnectedContainer] = {}
        wanted = sum(len(sandbox.ports) for sandbox in opened) + len(marks)
        for path, descriptor in _containers(opened) if wanted else ():
            for each in (
                *_ends_in(descriptor, path, opened),
                *_marked_in(descriptor, path, marks),
            ):
                found.setdefault(each.port, each)
            if len(found) == wanted:
                break
        return sorted(found.values(), key=lambda each: each.port)
    finally:
        for sandbox in opened:
            sandbox.socket.close()
            os.close(sandbox.descriptor)


def _open(name: str) -> _Sandbox | None:
    try:
        descriptor = netns.open_fd(netns.path_of(name))
    except (NotFoundError, UsageError):
        return None
    try:
        socket = NetlinkSocket(descriptor)
        ports = {
            (link.netns, link.peer): link.name
            for link in links_best_effort(socket)
            if link.kind == "veth" and link.name.startswith(PORT_PREFIX)
        }
    except BaseException:
        os.close(descriptor)
        raise
    return _Sandbox(name, descriptor, socket, ports)


def _containers(opened: Sequence[_Sandbox]) -> Iterator[tuple[str, int]]:
    """Yield each namespace but the sandboxes once."""
    seen = {netns.identity(sandbox.descriptor) for sandbox in opened}
    for path, _ in kernel_support.namespace_paths():
        try:
            descriptor = netns.open_fd(path)
        except (NotFoundError, UsageError, ForbiddenError):
            continue
        try:
            identity = netns.identity(descriptor)
            if identity not in seen:
                seen.add(identity)
                yield str(path), descriptor
        finally:
            os.close(descriptor)


def _ends_in(
    descriptor: int, path: str, opened: Sequence[_Sandbox]
) -> Iterator[ConnectedContainer]:
    """Yield the ends of ports that are in a namespace."""
    for sandbox in opened:
        number = namespace_id(sandbox.socket, descriptor)
        ports = {index: port for (where, index), port in sandbox.ports.items() if where == number}
        if number < 0 or not ports:
            continue
        with suppress(OverlayError, OSError), _socket_in(descriptor) as inside:  # it just ended
            for link in all_links(inside):
                if link.index in ports and link_decoder.is_overlayd_link(link.alias):
                    yield _end(sandbox.name, ports[link.index], path, descriptor, inside, link)


def _marked_in(descriptor: int, path: str, marks: Collection[str]) -> Iterator[ConnectedContainer]:
    """Yield the macvlan and ipvlan interfaces in a namespace that have one of the marks."""
    if not marks:
        return
    with suppress(OverlayError, OSError), _socket_in(descriptor) as inside:  # it just ended
        for link in all_links(inside):
            mark = link.alias.removeprefix(f"{link_decoder.ALIAS_DEFAULT}:")
            if link.kind in macvlan.KINDS and mark in marks:
                yield _end("", mark, path, descriptor, inside, link)


def _socket_in(descriptor: int) -> NetlinkSocket:
    is_host = netns.identity(descriptor) == netns.own_identity()
    return NetlinkSocket(descriptor) if is_host else NetlinkSocket.in_container(descriptor)


def _end(
    sandbox: str,
    port: str,
    path: str,
    descriptor: int,
    inside: NetlinkSocket,
    link: link_decoder.LinkInfo,
) -> ConnectedContainer:
    names = {link.index: link.name}
    rows = [
        row
        for message in inside.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP)
        if (row := address_rows.decode_address(message, names)) is not None
    ]
    default_routes = map(routes.decode_default, inside.dump(codec.RTM_GETROUTE, routes.DUMP))
    return ConnectedContainer(
        sandbox=sandbox,
        port=port,
        netns_path=path,
        identity=netns.identity(descriptor),
        ifname=link.name,
        mac=Mac(link.mac),
        addresses=tuple(sorted((row.ip for row in rows), key=lambda ip: (len(ip), ip))),
        default_route=any(route is not None for route in default_routes),
        runtime_endpoint=link_decoder.runtime_endpoint_of(link.alias),
    )
