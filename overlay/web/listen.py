"""The socket that the page listens on: an address and port, or a UNIX socket."""

from __future__ import annotations

import contextlib
import errno
import grp
import ipaddress
import os
import socket
from pathlib import Path
from typing import NamedTuple

from overlay.agent.process import unix_listener
from overlay.agent.process.listen_address import parse_listen_address
from overlay.errors import ConflictError, ForbiddenError, NotFoundError, OverlayError, UsageError

_UNIX = "unix:"
_BACKLOG = 64


class WebAddress(NamedTuple):
    """An IP address and a port, or the path of a socket."""

    host: str
    port: int
    path: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether only processes of this host reach it."""
        return self.path is not None or ipaddress.ip_address(self.host).is_loopback

    @property
    def text(self) -> str:
        """The address as `--listen` takes it."""
        if self.path is not None:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> WebAddress:
    """Return the address in `127.0.0.1:7950`, `[::1]:7950` or `unix:/run/web.sock`.

    Raises UsageError.
    """
    if text.startswith(_UNIX):
        path = Path(text.removeprefix(_UNIX))
        if not path.is_absolute():
            raise UsageError(
                f"'{text}' is not an absolute path", hint="Such as unix:/run/overlayd/web.sock",
                field="listen",
            )  # fmt: skip
        return WebAddress("", 0, path)
    try:
        return WebAddress(*parse_listen_address(text))
    except ValueError as error:
        raise UsageError(
            f"invalid address '{text}'",
            why=str(error),
            hint="Such as 127.0.0.1:7950, [::1]:7950 or unix:/run/overlayd/web.sock",
            field="listen",
        ) from error


async def bind(address: WebAddress, group: str) -> socket.socket:
    """Return a listening socket; a UNIX socket is for root and the group. Raises OverlayError."""
    path = address.path
    if path is not None and path.exists() and not path.is_socket():
        raise ConflictError(
            f"{path} exists, and is not a socket",
            why="it would be replaced",
            hint="Choose another path, such as unix:/run/overlayd/web.sock",
        )
    if path is not None and await unix_listener.is_served(path):
        raise _in_use(address)
    try:
        return _tcp(address) if path is None else _unix(path, group)
    except OSError as error:
        raise _bind_error(address, error) from error


def remove(address: WebAddress) -> None:
    """Remove the name of a UNIX socket, if this process may."""
    if address.path is not None:
        with contextlib.suppress(OSError):
            address.path.unlink()


def _unix(path: Path, group: str) -> socket.socket:
    listener = unix_listener.bind(path)
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(0o660)
    except (KeyError, PermissionError):
        pass  # no such group, or not root: for this user only
    listener.listen(_BACKLOG)
    return listener


def _tcp(address: WebAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _in_use(address: WebAddress) -> ConflictError:
    return ConflictError(
        f"{address.text} is in use",
        why="another program listens there, perhaps another `overlayd web`",
        hint="ss -lntp shows it; or choose another one: overlayd web --listen 127.0.0.1:7951"
        if address.path is None
        else "End that program, or choose another path",
    )


def _bind_error(address: WebAddress, error: OSError) -> OverlayError:
    match error.errno:
        case errno.EADDRINUSE:
            return _in_use(address)
        case errno.EADDRNOTAVAIL:
            return NotFoundError(
                f"this host has no address {address.host}",
                why="the page can only listen on addresses of this host",
                hint="ip -brief address",
            )
        case errno.EACCES | errno.EPERM:
            return ForbiddenError(
                f"you may not listen on {address.text}",
                hint="Use sudo, or a port of 1024 or more"
                if address.path is None
                else "Use sudo, or a folder of yours",
            )
        case errno.ENOENT:
            folder = address.path.parent if address.path else ""
            return NotFoundError(f"there is no folder {folder}", hint=f"sudo mkdir -p {folder}")
    return OverlayError(f"cannot listen on {address.text}", why=error.strerror or str(error))
