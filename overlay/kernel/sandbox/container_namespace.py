"""Tell containers' network namespaces from the host's own and from sandboxes.

Owns: how both are recognized, by an open descriptor: a path may lead elsewhere by the time that it
is used, and the kernel gives a namespace's inode to another one after its end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from overlay.errors import ConflictError
from overlay.kernel import netns
from overlay.kernel.netlink import link_decoder, link_requests
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket

NAMESPACE_ALIAS: Final = "overlayd:container"  # of the loopback, in bare containers
_LOOPBACK: Final = "lo"
_IPV6_SETTING: Final = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
NETWORK_SANDBOX_NAME: Final = re.compile(r"ov-[0-9a-f]{6}(-[0-9a-f]{1,12})?")
SANDBOX_NAME: Final = re.compile(rf"{NETWORK_SANDBOX_NAME.pattern}|ov-evpn-[0-9a-f]{{6}}")
"""The name of a network's sandbox, or of the one in which FRR sees the exported networks."""
GATE_NAME: Final = re.compile(r"overlayd-gate-[0-9a-f]{6}")
OWN_NAME: Final = re.compile(rf"{SANDBOX_NAME.pattern}|{GATE_NAME.pattern}")
"""The names of overlayd's namespaces that are no containers: sandboxes, and gates."""


def require_container(netns_fd: int, target: str, remedy: str = "") -> None:
    """Raise ConflictError if a namespace is the host's own, or a sandbox of any agent.

    `remedy`: how such a container gets a namespace of its own.
    """
    with NetlinkSocket.in_container(netns_fd) as inside:
        require_container_of(inside, netns_fd, target, remedy)


def require_container_of(
    inside: NetlinkSocket,
    netns_fd: int,
    target: str,
    remedy: str = "",
    links: Sequence[link_decoder.LinkInfo] | None = None,
) -> None:
    """Do so with an open socket in the namespace; `links` are its links, where they are known."""
    if _is_host(netns_fd):
        raise ConflictError(
            f"{target} is in the host's own network namespace",
            why="there is no container network to connect to",
            hint=remedy or "Start the container with a network of its own, such as --network none",
        )
    alias = _alias(inside) if links is None else _alias_among(links)
    if _is_mark(alias) or _is_named(netns_fd):
        raise ConflictError(
            f"{target} is a namespace of overlayd's own, not a container",
            why="it holds a network's bridge and VTEP on this host, or translates for it",
            hint="overlayd container ls shows bare containers",
        )


def has_ipv6_disabled(netns_fd: int) -> bool:
    """Return whether new interfaces of a container have no IPv6 (disable_ipv6); call in a thread.

    Setting it for all interfaces sets it for new ones, too. A kernel without IPv6 has no setting.
    """
    with netns.inside(netns_fd):
        try:
            return _IPV6_SETTING.read_text(encoding="ascii").strip() != "0"
        except FileNotFoundError:
            return True


def open_same(path: str | Path, wanted: tuple[int, int]) -> int | None:
    """Return a descriptor of the container's namespace with that identity.

    Returns None if it left `path`, also if the host's namespace or a sandbox is there. Raises
    OverlayError if the check fails, for example for lack of descriptors or memory.
    """
    fd = netns.open_same(path, wanted)
    if fd is None:
        return None
    try:
        with NetlinkSocket.in_container(fd) as inside:
            is_container = _is_container(fd, inside)
    except BaseException:
        os.close(fd)
        raise
    if is_container:
        return fd
    os.close(fd)
    return None


@contextmanager
def socket_in(path: str | Path, wanted: tuple[int, int]) -> Iterator[NetlinkSocket | None]:
    """Open a socket in the container's namespace with that identity, for the block.

    Yields None if it left `path`, as `open_same` does.
    """
    with socket_outside_host(path, wanted) as inside:
        yield None if inside is None or _is_mark(_alias(inside)) else inside


@contextmanager
def socket_outside_host(
    path: str | Path, wanted: tuple[int, int]
) -> Iterator[NetlinkSocket | None]:
    """Do so, but also in a sandbox: its links say whether it is one (`is_sandbox`)."""
    fd = netns.open_same(path, wanted)
    if fd is None:
        yield None
        return
    with netns.closing(fd), NetlinkSocket.in_container(fd) as inside:
        yield None if _is_host(fd) else inside


def is_sandbox(links: Iterable[link_decoder.LinkInfo]) -> bool:
    """Return whether a namespace with these links is marked as a sandbox."""
    return _is_mark(_alias_among(links))


def _is_container(netns_fd: int, inside: NetlinkSocket) -> bool:
    return not _is_host(netns_fd) and not _is_mark(_alias(inside))


def _is_host(netns_fd: int) -> bool:
    with netns.closing(netns.own_fd()) as own:
        return netns.identity(netns_fd) == netns.identity(own)


def is_bare_container(netns_fd: int) -> bool:
    """Return whether a namespace is a container made by `overlayd container add`."""
    with NetlinkSocket.in_container(netns_fd) as inside:
        return _alias(inside) == NAMESPACE_ALIAS


def _is_mark(alias: str) -> bool:
    """Return whether the alias of a namespace's loopback marks it as a sandbox."""
    return link_decoder.is_overlayd_link(alias) and alias != NAMESPACE_ALIAS


def _alias(inside: NetlinkSocket) -> str:
    try:
        return link_decoder.decode(inside.get(link_requests.get_link(_LOOPBACK))[0]).alias
    except NetlinkError:  # a loopback with another name: that of a container
        return ""


def _alias_among(links: Iterable[link_decoder.LinkInfo]) -> str:
    return next((each.alias for each in links if each.name == _LOOPBACK), "")


def _is_named(netns_fd: int) -> bool:
    """Return whether a namespace has a name of overlayd's own, which it gets before the mark."""
    identity = netns.identity(netns_fd)
    return any(
        netns.names_identity(name) == identity for name in netns.names() if OWN_NAME.fullmatch(name)
    )
