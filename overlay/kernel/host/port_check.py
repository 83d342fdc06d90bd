"""Check whether a port of this host is free to be published.

Changes nothing.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from overlay.errors import ConflictError, OverlayError
from overlay.model import Ip, ip_text

_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FAMILIES: Final = {4: socket.AF_INET, 16: socket.AF_INET6}


def require_free(protocol: str, host_ip: Ip, port: int, sizes: Sequence[int]) -> None:
    """Raise ConflictError if a program of the host uses this port.

    Publishing would cut it off. An empty `host_ip` means every address of the families with these
    address sizes, in bytes. Binds a socket for a moment (bind(2)).
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
