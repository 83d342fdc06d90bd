"""Check whether a port of this host is free to be published.

Changes nothing. Podman keeps a socket on each port that it maps, first itself, then in the process
that supervises the container (conmon), so that no other program takes the port: nothing would be
cut off there.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from overlay.core.dataplane.published_port import PortHolder
from overlay.errors import ConflictError, OverlayError
from overlay.model import Ip, ip_text

_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_PROC: Final = Path("/proc")
_WAITING: Final = ("0A", "07")  # TCP sockets that listen, and UDP sockets: proc(5)
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_FAMILIES: Final = {4: socket.AF_INET, 16: socket.AF_INET6}


def require_free(
    protocol: str,
    host_ip: Ip,
    port: int,
    sizes: Sequence[int],
    holder: PortHolder | None = None,
) -> None:
    """Raise ConflictError if a program of the host uses this port.

    Publishing would cut it off. An empty `host_ip` means every address of the families with these
    address sizes, in bytes. Binds a socket for a moment (bind(2)). A socket by which the
    holder keeps the port for its container is no obstacle.
    """
    for size in sizes:
        family = _FAMILIES[size]
        with closing(socket.socket(family, _KINDS[protocol])) as trial:
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if protocol == "tcp":  # connections in TIME-WAIT do not count
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((ip_text(host_ip) if host_ip else "", port))
            except OSError as error:
                in_use = error.errno == errno.EADDRINUSE
                if in_use and holder is not None and is_held(protocol, port, holder):
                    continue
                raise _refused(error, protocol, host_ip, port) from error


def _refused(error: OSError, protocol: str, host_ip: Ip, port: int) -> OverlayError:
    if error.errno == errno.EADDRNOTAVAIL:
        return ConflictError(
            f"this host has no address {ip_text(host_ip)}", hint="'ip address' lists its addresses"
        )
    return ConflictError(
        f"port {port}/{protocol} of this host cannot be published",
        why="a program of the host uses it"
        if error.errno == errno.EADDRINUSE
        else error.strerror or str(error),
        hint=f"Choose another port, or end the program ('ss -lnp sport = :{port}' shows it)",
    )


def is_held(protocol: str, port: int, holder: PortHolder, proc: Path = _PROC) -> bool:
    """Return whether all sockets on a port are a runtime's."""
    wanted = set(_sockets(protocol, port, proc))
    if not wanted:
        return False
    for process in proc.iterdir():
        if process.name.isdecimal() and (
            int(process.name) in holder.pids or holder.container_id.encode() in _command(process)
        ):
            wanted -= set(_open_sockets(process))
    return not wanted


def _sockets(protocol: str, port: int, proc: Path) -> Iterator[str]:
    """Yield the inodes of the sockets on a port."""
    for table in (protocol, f"{protocol}6"):
        try:
            lines = (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # a kernel without IPv6
            continue
        for fields in map(str.split, lines):
            if fields[3] in _WAITING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _open_sockets(process: Path) -> Iterator[str]:
    try:
        for link in (process / "fd").iterdir():
            found = _SOCKET.fullmatch(str(link.readlink()))
            if found is not None:
                yield found[1]
    except OSError:  # it has ended
        return


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
