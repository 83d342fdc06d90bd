"""This host's interface towards others, also while it is down."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final, NamedTuple

from overlay.errors import OverlayError
from overlay.kernel.host.underlay import choose_underlay
from overlay.model import Ip, ip_text

_SIOCGIFFLAGS: Final = 0x8913  # netdevice(7)
_IFF_UP: Final = 1
_IFF_RUNNING: Final = 0x40


class UnderlayState(NamedTuple):
    """The interface that packets leave by, or would."""

    address: str
    interface: str
    mtu: int
    is_up: bool
    has_carrier: bool


def find_underlay(known: str | None, peer: Ip | None) -> UnderlayState | None:
    """Return the interface of a known address or name, else the one that leads to a peer.

    None if there is none.
    """
    try:
        chosen = choose_underlay(known, peer)
    except OverlayError:
        return None if known is None else find_underlay(None, peer)
    flags = _flags(chosen.interface)
    return UnderlayState(
        ip_text(chosen.address),
        chosen.interface,
        chosen.mtu,
        bool(flags & _IFF_UP),
        bool(flags & _IFF_RUNNING) or not flags & _IFF_UP,
    )


def _flags(name: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            raw = fcntl.ioctl(asking, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
        except OSError:
            return 0
    flags: int = struct.unpack_from("H", raw, 16)[0]
    return flags
