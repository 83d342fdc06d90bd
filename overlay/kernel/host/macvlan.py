"""macvlan and ipvlan interfaces for containers, and their parents.

An interface in a container is identified by its alias, as it may be renamed there. So is a VLAN
that was created for containers rather than by the host's operator.

Owns: creating, finding and deleting them (ip-link(8), linux/if_link.h). The calling thread must be
in the host's namespace.
Does not: know networks or records.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overlay import failpoint
from overlay.core.dataplane.link_state import (
    GATE_LINK_PREFIX,
    HOST_LINK_PREFIX,
    SHORTCUT_HOST_PREFIX,
)
from overlay.errors import KERNEL_REFUSED_HINT, ConflictError, NotFoundError, OverlayError
from overlay.kernel import netns
from overlay.kernel.netlink import codec, link_decoder, link_requests, socket
from overlay.kernel.netlink.codec import Request, attribute
from overlay.kernel.netlink.link_decoder import ALIAS_DEFAULT, LinkInfo
from overlay.kernel.netlink.link_lookup import all_links, find_link, links_best_effort
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.sandbox.container_namespace import require_container_of
from overlay.kernel.sandbox.veth import (
    AttachedInterface,
    allow_families,
    free_interface_name,
    set_up_inside,
)
from overlay.model import Ip, Mac

VLAN_ALIAS: Final = f"{ALIAS_DEFAULT}:vlan"
UNFINISHED_NAME: Final = "overlayd-new"
"""Name of a device until it is marked and in place, so that one left by a crash is recognized.

The kernel accepts no alias in the request that creates a device."""
KINDS: Final = ("macvlan", "ipvlan")

# linux/if_link.h
_HEADER: Final = struct.Struct("=BxHiII")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 5, 18, 28
_INFO_KIND, _INFO_DATA = 1, 2
# IFLA_MACVLAN_MODE and IFLA_IPVLAN_MODE: containers of one host reach each other, too.
_MODES: Final = {"macvlan": struct.pack("=I", 4), "ipvlan": struct.pack("=H", 0)}
_IFLA_VLAN_ID: Final = 1
_VLAN_MAX: Final = 4094  # IEEE 802.1Q: 4095 is reserved
_IFF_LOOPBACK_NAME: Final = "lo"
_NAMES_SHOWN_MAX: Final = 12
_IFNAME_TRIES: Final = 16


@dataclass(frozen=True, slots=True)
class InterfaceLocation:
    """The namespace of an interface, and the interface's mark there."""

    netns_path: str
    netns_identity: tuple[int, int]
    mark: str  # the endpoint's; the interface's alias ends with it


def _u32(number: int) -> bytes:
    return struct.pack("=I", number)


def _create(kind: str, data: bytes, parent: int, *, mac: Mac | None = None) -> Request:
    name = UNFINISHED_NAME.encode() + b"\0"
    info = attribute(_INFO_KIND, kind.encode() + b"\0") + attribute(_INFO_DATA, data)
    body = _HEADER.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name)
    body += attribute(_IFLA_LINK, _u32(parent)) + attribute(_IFLA_LINKINFO, info)
    if mac is not None:
        body += attribute(_IFLA_ADDRESS, mac)
    return (codec.RTM_NEWLINK, codec.NLM_F_CREATE | codec.NLM_F_EXCL, body)


def _move(index: int, netns_fd: int, name: str) -> Request:
    body = _HEADER.pack(0, 0, index, 0, 0) + attribute(_IFLA_NET_NS_FD, _u32(netns_fd))
    body += attribute(_IFLA_IFNAME, name.encode() + b"\0")
    return (codec.RTM_NEWLINK, 0, body)


def _make_marked(
    host: NetlinkSocket,
    kind: str,
    data: bytes,
    parent: LinkInfo,
    alias: str,
    mac: Mac | None = None,
) -> int:
    """Create a device named `UNFINISHED_NAME`, and mark it; return its index."""
    _remove_unfinished(host)
    try:
        host.request(_create(kind, data, parent.index, mac=mac))
        index = find_link(host, UNFINISHED_NAME)
        host.request(link_requests.set_alias(index, alias))
    except NetlinkError as error:
        raise _refused(kind, parent.name, error) from error
    return index


def _remove_unfinished(host: NetlinkSocket) -> None:
    index = find_link(host, UNFINISHED_NAME)
    if index:
        host.transact([link_requests.delete_link(index)])


# --- Parents ---------------------------------------------------------------------------


def require_driver(kind: str, parent: str) -> None:
    """Raise OverlayError unless this host supports driver and parent.

    Creates the parent, if it is a VLAN, and a device on it, and deletes both again.
    """
    made = parent not in {found.name for found in _host_links()}
    found = ensure_parent(parent)
    with NetlinkSocket() as host:
        try:
            _make_marked(host, kind, attribute(1, _MODES[kind]), found, f"{ALIAS_DEFAULT}:try")
        finally:
            _remove_unfinished(host)
            if made:
                host.transact([link_requests.delete_link(found.index)])


def ensure_parent(name: str) -> LinkInfo:
    """Return a parent interface.

    Creates it if it does not exist and is named like a VLAN. `eth0.42` is the VLAN 42 on eth0.
    Raises NotFoundError if there is no such interface, ConflictError if it is down.
    """
    host_links = {found.name: found for found in _host_links()}
    found = host_links.get(name)
    with NetlinkSocket() as host:
        if found is not None:
            if found.alias == VLAN_ALIAS and not found.up:
                host.request(link_requests.set_up(found.index))
            else:
                _require_usable(found)
            return found
        base, _, tag = name.rpartition(".")
        if base not in host_links or not _is_vlan_id(tag):
            raise _no_parent(name, base, host_links)
        _require_usable(host_links[base])
        data = attribute(_IFLA_VLAN_ID, struct.pack("=H", int(tag)))
        index = _make_marked(host, "vlan", data, host_links[base], VLAN_ALIAS)
        for refusal in host.transact(
            [link_requests.rename(index, name), link_requests.set_up(index)]
        ):
            raise OverlayError(
                f"cannot create the VLAN {name}", why=str(refusal), hint=KERNEL_REFUSED_HINT
            )
        return link_decoder.decode(host.get(link_requests.get_link(name))[0])


def _is_vlan_id(tag: str) -> bool:
    return tag.isascii() and tag.isdecimal() and len(tag) <= 4 and 1 <= int(tag) <= _VLAN_MAX


def _require_usable(found: LinkInfo) -> None:
    if found.name == _IFF_LOOPBACK_NAME:
        raise ConflictError(
            "the loopback cannot be a parent interface",
            why="no other host is reachable through it",
            hint="'ip link' lists the interfaces of this host",
        )
    if not found.up:
        raise ConflictError(
            f"the interface {found.name} is down",
            hint=f"ip link set {found.name} up, or choose another --parent",
        )


def _no_parent(name: str, base: str, host_links: dict[str, LinkInfo]) -> NotFoundError:
    own = (HOST_LINK_PREFIX, SHORTCUT_HOST_PREFIX, GATE_LINK_PREFIX)
    others = [each for each in host_links if each != "lo" and not each.startswith(own)]
    known = ", ".join(sorted(others)[:_NAMES_SHOWN_MAX])
    why = f"this host has {known}"
    if base in host_links:
        why = f"{name.rpartition('.')[2]!r} is not a valid VLAN ID: use 1 to {_VLAN_MAX}"
    return NotFoundError(f"there is no interface {name!r} on this host", why=why)


def release_parents(in_use: frozenset[str]) -> list[str]:
    """Delete VLANs created for containers that are no longer used.

    Returns their names.
    """
    gone = [
        found
        for found in _host_links()
        if (found.alias == VLAN_ALIAS and found.name not in in_use) or found.name == UNFINISHED_NAME
    ]
    with NetlinkSocket() as host:
        host.transact([link_requests.delete_link(found.index) for found in gone])
    return [found.name for found in gone]


def _host_links() -> list[LinkInfo]:
    with NetlinkSocket() as host:
        return all_links(host)


def _refused(kind: str, parent: str, error: NetlinkError) -> OverlayError:
    if error.errno == errno.EOPNOTSUPP:
        module = "8021q" if kind == "vlan" else kind
        return OverlayError(
            f"this kernel has no {kind} devices",
            why=error.strerror or "not supported",
            hint=f"Load the module (modprobe {module}); slim kernels keep it in a package such as "
            "linux-modules-extra",
        )
    if error.errno == errno.EBUSY:
        return ConflictError(
            f"cannot create a {kind} device on {parent}",
            why="an interface can carry macvlan or ipvlan devices, not both, and a bridge port can "
            "carry neither",
            hint="Use another --parent, such as a VLAN of it",
        )
    return OverlayError(
        f"cannot create a {kind} device on {parent}", why=error.strerror or str(error)
    )


# --- Interfaces ------------------------------------------------------------------------


def attach_interface(
    *,
    kind: str,
    parent: str,
    mark: str,
    netns_fd: int,
    container: str,
    ifname: str | None,
    mac: Mac | None,
    addresses: Sequence[tuple[Ip, int]],
    gateways: Sequence[Ip],
) -> AttachedInterface:
    """Create a container's interface on the parent.

    Nothing is left behind on failure. Without `mac`, it has the parent's MAC, as ipvlan requires. A
    default route is added through each gateway unless there is one of its family. Raises
    ConflictError if the namespace is not a container's, or the interface exists, NotFoundError if
    the parent does not, OverlayError otherwise.
    """
    with NetlinkSocket.in_container(netns_fd) as inside, NetlinkSocket() as host:
        require_container_of(inside, netns_fd, container)
        there = _of(inside, mark)
        if there:  # the attach was repeated
            return AttachedInterface(there[0].name, default_route=False)
        alias = f"{ALIAS_DEFAULT}:{mark}"
        data = attribute(1, _MODES[kind])
        index = _make_marked(host, kind, data, ensure_parent(parent), alias, mac)
        try:
            name = _move_into_container(host, inside, index, netns_fd, ifname)
        except BaseException:
            _remove_unfinished(host)
            raise
        try:
            _enable_announcements(netns_fd, name)
            allow_families(netns_fd, name, addresses)
            link = (name, find_link(inside, name))
            made = set_up_inside(alias, inside, link, addresses, gateways, link_local=True)
        except BaseException:
            inside.transact([link_requests.delete_link(find_link(inside, name))])
            raise
    return AttachedInterface(name, default_route=made[:1] == [True])


def _move_into_container(
    host: NetlinkSocket, inside: NetlinkSocket, index: int, netns_fd: int, wanted: str | None
) -> str:
    """Move a device into a container, and return its name there."""
    for _ in range(_IFNAME_TRIES):
        name = wanted or free_interface_name(all_links(inside))
        try:
            host.request(_move(index, netns_fd, name))
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise OverlayError(
                    f"cannot create the interface {name}",
                    why=error.strerror or "",
                    hint=KERNEL_REFUSED_HINT,
                ) from error
            if wanted:
                raise ConflictError(
                    f"the container already has an interface {wanted}",
                    hint="Choose another name with --ifname, or leave the choice to overlayd",
                ) from None
        else:
            return name
    raise ConflictError(
        "no free interface name in the container",
        why="other programs keep taking them",
        hint="Choose one: --ifname NAME",
    )


def _enable_announcements(netns_fd: int, name: str) -> None:
    """Make the kernel announce new addresses to the segment."""
    failpoint.failpoint("container.sysctl")
    with netns.inside(netns_fd):
        for setting in (f"ipv4/conf/{name}/arp_notify", f"ipv6/conf/{name}/ndisc_notify"):
            with suppress(OSError):  # a kernel without IPv6 has no such file
                Path("/proc/sys/net", setting).write_text("1", encoding="ascii")


def detach_interface(place: InterfaceLocation) -> bool:
    """Delete the interface, whatever its present name.

    Returns False if there is none. Raises TornDumpError if it was not found in a container whose
    links change all the time, and OverlayError or OSError if the check fails; the interface may
    exist then.
    """
    fd = netns.open_same(place.netns_path, place.netns_identity)
    if fd is None:
        return False
    with netns.closing(fd), NetlinkSocket.in_container(fd) as inside:
        found = _of(inside, place.mark, links_best_effort) or _of(inside, place.mark)
        inside.transact([link_requests.delete_link(each.index) for each in found])
        return bool(found)


def missing_interfaces(places: Sequence[InterfaceLocation]) -> list[InterfaceLocation]:
    """Return the places whose interface, or whose whole namespace, is gone.

    If the check itself fails, the interface counts as present: its container's links change all the
    time, or the host is short of descriptors or memory.
    """
    return [place for place in places if not _may_exist(place)]


def _may_exist(place: InterfaceLocation) -> bool:
    try:
        fd = netns.open_same(place.netns_path, place.netns_identity)
        if fd is None:
            return False
        with netns.closing(fd), NetlinkSocket.in_container(fd) as inside:
            return bool(_of(inside, place.mark))
    except (OverlayError, OSError):
        return True


def _of(
    inside: NetlinkSocket,
    mark: str,
    read: Callable[[NetlinkSocket, str], list[LinkInfo]] = all_links,
) -> list[LinkInfo]:
    alias = f"{ALIAS_DEFAULT}:{mark}"
    return [each for kind in KINDS for each in read(inside, kind) if each.alias == alias]


def remove_interfaces_from(netns_fd: int) -> list[str]:
    """Delete a namespace's overlayd interfaces on this host's parents.

    Returns their names. Also works if the namespace's links change all the time. Raises OSError if
    the check fails.
    """
    host = netns.own_fd()
    with netns.closing(host), NetlinkSocket.in_container(netns_fd) as inside:
        # The dump gives the host's namespace an id.
        found_links = [each for kind in KINDS for each in links_best_effort(inside, kind)]
        here = socket.namespace_id(inside, host)
        gone = [
            found
            for found in found_links
            if link_decoder.is_overlayd_link(found.alias) and found.netns == here >= 0
        ]
        inside.transact([link_requests.delete_link(found.index) for found in gone])
        return [found.name for found in gone]
