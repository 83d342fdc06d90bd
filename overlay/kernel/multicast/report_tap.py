"""See the IGMP and MLD frames of one bridge, and send queries to its ports; needs CAP_NET_RAW.

A packet socket (packet(7)) on the bridge gets what the bridge itself receives, which is all
multicast; a filter leaves the agent what is about groups and routers. Unicast between containers
never passes it. Queries leave by the ports one by one, so that no other host sees them.

Owns: the sockets. Does not: know what a frame says.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import Final, Self

from overlay.core.capture.classic_bpf import (
    LOAD_BYTE,
    LOAD_HALF,
    RETURN,
    UNLESS_EQUAL,
    Instruction,
    Program,
)
from overlay.kernel import netns, socket_filter

_ALL: Final = 0x0003  # ETH_P_ALL, linux/if_ether.h
_OUTGOING: Final = 4  # PACKET_OUTGOING, linux/if_packet.h
_SOL_PACKET, _STATISTICS = 263, 6  # SOL_PACKET, PACKET_STATISTICS
_COUNTS: Final = struct.Struct("=II")  # received and dropped; each call begins anew
_FRAME_SIZE_MAX: Final = 9216
_BUFFER_SIZE: Final = 1 << 18
# Of IPv4, IGMP and PIM; of IPv6, PIM and what begins with hop-by-hop options, as MLD does.
_FILTER: Final[Program] = (
    Instruction(LOAD_HALF, 0, 0, 12),
    Instruction(UNLESS_EQUAL, 0, 3, 0x0800),
    Instruction(LOAD_BYTE, 0, 0, 23),
    Instruction(UNLESS_EQUAL, 5, 0, 2),
    Instruction(UNLESS_EQUAL, 4, 5, 103),
    Instruction(UNLESS_EQUAL, 0, 4, 0x86DD),
    Instruction(LOAD_BYTE, 0, 0, 20),
    Instruction(UNLESS_EQUAL, 1, 0, 0),
    Instruction(UNLESS_EQUAL, 0, 1, 103),
    Instruction(RETURN, 0, 0, 0xFFFF),
    Instruction(RETURN, 0, 0, 0),
)


class ReportTap:
    """The frames about groups that a bridge receives."""

    def __init__(self, netns_fd: int, bridge: str) -> None:
        """Begin; raises OSError, which is PermissionError without the capability."""
        with netns.inside(netns_fd):
            self._socket = _opened(bridge)
        self.bridge = bridge

    def fileno(self) -> int:
        """Return a descriptor that is readable when a frame waits."""
        return self._socket.fileno()

    def frames(self, count_max: int) -> list[bytes]:
        """Return at most so many frames that have come, oldest first."""
        found: list[bytes] = []
        for _ in range(count_max):
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(_FRAME_SIZE_MAX)
            except OSError:  # none waits; or the bridge is down or gone, which the agent mends
                break
            if kind != _OUTGOING:
                found.append(frame)
        return found

    def has_lost(self) -> bool:
        """Return whether frames came faster than they were read, since the last call."""
        try:
            found = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, _COUNTS.size)
        except OSError:
            return False
        return bool(_COUNTS.unpack(found)[1])

    def send(self, ports: Iterable[str], frames: Iterable[bytes]) -> None:
        """Send frames by ports; one that is gone or full is left out."""
        asked = list(frames)
        for port in ports:
            for frame in asked:
                try:
                    self._socket.sendto(frame, (port, 0))
                except OSError:
                    break

    def close(self) -> None:
        """Stop."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Return the tap, for a block that ends with its close."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Stop."""
        self.close()


def _opened(bridge: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        socket_filter.attach(opened, _FILTER)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_SIZE)
        opened.bind((bridge, _ALL))
    except BaseException:
        opened.close()
        raise
    return opened
