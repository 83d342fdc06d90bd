"""Check what this kernel supports, and find holders of VNIs and UDP ports.

Owns: the checks before or after a failure: capabilities (capabilities(7)), bridge and VXLAN
support, VNIs and UDP ports held by other programs.
Does not: make lasting changes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overlay.core.dataplane.link_state import Bridge, Vxlan
from overlay.errors import (
    KERNEL_REFUSED_HINT,
    ForbiddenError,
    NotFoundError,
    OverlayError,
    UsageError,
)
from overlay.kernel import netns
from overlay.kernel.netlink import codec, link_decoder, link_requests, socket
from overlay.kernel.netlink.link_decoder import is_overlayd_link
from overlay.kernel.netlink.link_lookup import links_best_effort
from overlay.kernel.netlink.socket import LargeDumpError, NetlinkError, NetlinkSocket
from overlay.model import Ip, Mac, Vni, printable

_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
_NETNS_DIRECTORIES: Final = (
    netns.NETNS_DIRECTORY,
    Path("/run/docker/netns"),
    Path("/var/run/docker/netns"),
)
_PROCESSES_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class VniHolder:
    """A VXLAN device that uses this host's UDP ports, in any namespace."""

    vni: Vni
    port: int
    ifname: str
    where: str  # the namespace, as a person would look it up
    alias: str
    namespace: tuple[int, int]  # device and inode


def effective_capabilities() -> int:
    """Return the calling thread's effective capabilities, a bit for each (capabilities(7))."""
    text = Path("/proc/thread-self/status").read_text(encoding="ascii")
    mask = next(line for line in text.splitlines() if line.startswith("CapEff:"))
    return int(mask.split()[1], 16)


def missing_capabilities() -> list[str]:
    """Return the required capabilities that are missing."""
    bits = effective_capabilities()
    return [name for name, bit in _CAPABILITIES.items() if not bits >> bit & 1]


def require_kernel_support() -> None:
    """Raise OverlayError unless this process can create bridges and VTEPs.

    Creates one of each in a temporary namespace without a name.
    """
    missing = missing_capabilities()
    if missing:
        raise OverlayError(
            f"not permitted: {' and '.join(missing)} missing",
            why="only root may create namespaces, bridges and VXLAN devices",
            hint="Run it with sudo, or through the systemd unit",
        )
    with netns.temporary() as netns_fd, NetlinkSocket(netns_fd) as inside:
        _try(
            inside, "bridge", link_requests.create_bridge(Bridge("br0", Mac(b"\2\0\0\0\0\1"), 1450))
        )
        master = link_decoder.decode(inside.get(link_requests.get_link("br0"))[0]).index
        vxlan = Vxlan("vxlan0", Vni(1), Ip(b"\x7f\0\0\1"), 4789, 1450, "br0")
        _try(inside, "VXLAN", link_requests.create_vxlan(vxlan, netns_fd, master))
        index = link_decoder.decode(inside.get(link_requests.get_link("vxlan0"))[0]).index
        for refusal in inside.transact(link_requests.set_vxlan(index, vxlan, None, master, "")):
            raise OverlayError(
                "this kernel's bridge does not support ARP suppression",
                why=str(refusal),
                hint="Linux has it since 4.15; this is: uname -r",
            )


def _try(inside: NetlinkSocket, what: str, request: codec.Request) -> None:
    try:
        inside.request(request)
    except NetlinkError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise OverlayError(
                f"cannot create a {what} device",
                why=error.strerror or "",
                hint=KERNEL_REFUSED_HINT,
            ) from error
        raise OverlayError(
            f"this kernel has no {what} devices",
            why=error.strerror or "not supported",
            hint=f"Load the module (modprobe {what.lower()}); slim kernels keep it in a package "
            "such as linux-modules-extra",
        ) from error


# --- VNIs ------------------------------------------------------------------------------


def vni_holders(port: int | None = None) -> list[VniHolder]:
    """Return the VXLAN devices with a UDP socket in this namespace.

    Searches every namespace that has a name or a process, whichever program made it. With `port`,
    returns only devices on that UDP port.
    """
    found: list[VniHolder] = []
    host = netns.own_fd()
    try:
        for fd, where in namespaces():
            try:
                with NetlinkSocket.in_container(fd) as inside:
                    found += _vxlans(inside, host, fd, where)
            except (OSError, LargeDumpError):
                continue  # ended meanwhile, or a container that has made thousands
    finally:
        os.close(host)
    return [holder for holder in found if port is None or holder.port == port]


def foreign_vnis(port: int) -> set[Vni]:
    """Return the VNIs in use on that UDP port, by any program."""
    return {holder.vni for holder in vni_holders(port)}


def vni_conflict_text(host_fd: int, own_fd: int, link: Vxlan, error: OSError) -> str:
    """Return why a VTEP could not be set up, with the holder if known.

    `host_fd` is the namespace of the underlay, `own_fd` that of the VTEP itself. VXLAN devices
    share a port if they are of one kind and differ by VNI: one that is flow-based (`external`, as
    Open vSwitch and some container networks make it) takes the port alone.
    """
    vni, port = link.vni, link.port
    own = netns.identity(own_fd)
    with netns.inside(host_fd):
        others = [each for each in vni_holders(port) if each.namespace != own]
        if error.errno == errno.EADDRINUSE:
            program = port_holder(port)
            if program is not None:
                return f"UDP port {port} is in use by {program}"
            for holder in sorted(others, key=lambda each: is_overlayd_link(each.alias)):
                return f"UDP port {port} is in use by {holder.ifname} in {holder.where}"
        for holder in others:
            if holder.vni == vni:
                return f"{holder.ifname} in {holder.where} already has VNI {vni} on UDP port {port}"
    return f"{error.strerror} (VNI {vni}, UDP port {port})"


def _vxlans(inside: NetlinkSocket, host: int, fd: int, where: str) -> Iterator[VniHolder]:
    is_host = netns.identity(fd) == netns.identity(host)
    host_id = -1 if is_host else socket.namespace_id(inside, host)
    for found in links_best_effort(inside, "vxlan"):
        # Without a namespace id, the socket is in the device's own namespace.
        if found.netns == host_id and (is_host or host_id >= 0):
            vni, port, _ = link_decoder.vxlan_identity(found)
            yield VniHolder(vni, port, found.name, where, found.alias, netns.identity(fd))


def namespaces() -> Iterator[tuple[int, str]]:
    """Yield each network namespace once, as (descriptor, description).

    The descriptor is closed when the iteration continues. Namespaces that this process may not open
    are skipped. Raises OverlayError if the host is short of descriptors or memory.
    """
    seen: set[tuple[int, int]] = set()
    for path, where in namespace_paths():
        try:
            fd = netns.open_fd(path)
        except (NotFoundError, UsageError, ForbiddenError):
            continue
        try:
            identity = netns.identity(fd)
            if identity not in seen:
                seen.add(identity)
                yield fd, where
        finally:
            os.close(fd)


def namespace_paths() -> Iterator[tuple[Path, str]]:
    """Yield the path and description of every namespace that has a name or a process.

    A namespace may come several times: named ones first.
    """
    yield Path(netns.OWN_NAMESPACE), "the host's own namespace"
    for directory in _NETNS_DIRECTORIES:
        with suppress(OSError):
            for entry in sorted(directory.iterdir()):
                yield entry, f"namespace {entry.name} ({entry})"
    for number, process in enumerate(_processes()):
        if number >= _PROCESSES_MAX:
            return
        yield process / "ns/net", f"the namespace of process {process.name}"


def _processes() -> Iterator[Path]:
    with suppress(OSError):
        for entry in sorted(Path("/proc").iterdir()):
            if entry.name.isdigit():
                yield entry


# --- UDP ports -------------------------------------------------------------------------


def port_holder(port: int) -> str | None:
    """Return the program that holds a UDP port in this namespace.

    Returns None if none is found. The kernel's own VXLAN sockets belong to no program and are
    shared by VNI, so they do not count.
    """
    inodes = _udp_inodes(port)
    if not inodes:
        return None
    for process in _processes():
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    if str(descriptor.readlink()) in inodes:
                        name = (process / "comm").read_text(encoding="utf-8", errors="replace")
                        return f"{printable(name.strip())} (process {process.name})"
    return None


def _udp_inodes(port: int) -> set[str]:
    inodes: set[str] = set()
    for table in ("udp", "udp6"):
        with suppress(OSError):
            text = Path("/proc/thread-self/net", table).read_text(encoding="ascii")
            for line in text.splitlines()[1:]:
                words = line.split()
                if int(words[1].rpartition(":")[2], 16) == port and words[9] != "0":
                    inodes.add(f"socket:[{words[9]}]")
    return inodes
