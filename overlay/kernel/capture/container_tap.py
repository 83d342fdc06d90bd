"""Capture at the interface of a container, found by its namespace and its MAC.

Owns: opening and closing, and noticing that the container has gone. A socket keeps a namespace
alive, so its end is seen by its path alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from overlay.core.capture.classic_bpf import Program
from overlay.kernel import netns
from overlay.kernel.capture.frame_tap import FrameTap
from overlay.kernel.host.default_route import find_interface
from overlay.kernel.netlink.link_lookup import all_links
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.sandbox import container_namespace
from overlay.model import Mac


class TapPlace(NamedTuple):
    """The interface of a container; a container's programs may rename it."""

    netns_path: str
    netns_identity: tuple[int, int]
    ifname: str
    mac: Mac


def open_tap(place: TapPlace, program: Program, *, snap: int, buffer_size: int) -> FrameTap | None:
    """Return a tap; None if the container or its interface is gone.

    Raises OverlayError if its namespace cannot be opened, OSError if the kernel refuses.
    """
    fd = container_namespace.open_same(place.netns_path, place.netns_identity)
    if fd is None:
        return None
    with netns.closing(fd):
        with NetlinkSocket.in_container(fd) as inside:
            index = find_interface(inside, place.ifname, place.mac)
            name = next((each.name for each in all_links(inside) if each.index == index), None)
        if name is None:
            return None
        return FrameTap(fd, name, program, snap=snap, buffer_size=buffer_size)


def is_gone(place: TapPlace, tap: FrameTap) -> bool:
    """Return whether the container has ended, or its interface was removed."""
    try:
        found = Path(place.netns_path).stat()
    except OSError:
        return True
    return (found.st_dev, found.st_ino) != place.netns_identity or tap.is_gone()
