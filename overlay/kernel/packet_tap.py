"""See marked packets pass the interfaces of a namespace (packet(7)); needs CAP_NET_RAW.

The kernel compares the mark itself (a classic BPF program, socket(7): SO_ATTACH_FILTER), so a busy
host loses none, and other packets are never read.

Owns: the socket, and where the mark is in a packet. Does not: send anything.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple, Self

from overlay.core.capture.classic_bpf import (
    LOAD_WORD,
    RETURN,
    UNLESS_EQUAL,
    Instruction,
    Program,
)
from overlay.kernel import netns, socket_filter
from overlay.model import Ip

_ALL: Final = 0x0003  # ETH_P_ALL, linux/if_ether.h
_OUTGOING: Final = 4  # PACKET_OUTGOING, linux/if_packet.h
_SEEN_MAX: Final = 64
_UDP_AND_VXLAN: Final = 16
_ETHERNET: Final = 14
_ICMP: Final = 8


class Sighting(NamedTuple):
    """A marked packet passed an interface."""

    ifname: str
    is_outgoing: bool


def mark_offset(target: Ip, vtep: Ip | None) -> int:
    """Return where the data of an echo request begin in a packet, from its (outer) IP header.

    Within VXLAN to a VTEP, or as it is without one.
    """
    inner = _ip_size(target) + _ICMP
    return inner if vtep is None else _ip_size(vtep) + _UDP_AND_VXLAN + _ETHERNET + inner


def _ip_size(ip: Ip) -> int:
    return 20 if len(ip) == 4 else 40


class PacketTap:
    """A socket that sees each packet with a mark at an offset, on all interfaces."""

    def __init__(self, netns_fd: int | None, mark: bytes, offset: int) -> None:
        """Begin in a namespace, None for the present one; raises OSError."""
        if netns_fd is None:
            self._socket = _opened(mark, offset)
        else:
            with netns.inside(netns_fd):
                self._socket = _opened(mark, offset)

    def sightings(self) -> list[Sighting]:
        """Return what passed since the last call, oldest first."""
        found: list[Sighting] = []
        while len(found) < _SEEN_MAX:
            try:
                _, (ifname, _, kind, *_) = self._socket.recvfrom(1)
            except (BlockingIOError, InterruptedError):
                break
            found.append(Sighting(ifname, kind == _OUTGOING))
        return found

    def close(self) -> None:
        """Stop."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Return the tap, for a block that ends with its close."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Stop."""
        self.close()


def _opened(mark: bytes, offset: int) -> socket.socket:
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK  # from the IP header on, whatever the link
    opened = socket.socket(socket.AF_PACKET, kind, socket.htons(_ALL))
    try:
        socket_filter.attach(opened, _program(mark, offset))
        while True:  # what came before the filter, before anything had the mark
            opened.recv(1)
    except BlockingIOError:
        return opened
    except OSError:
        opened.close()
        raise


def _program(mark: bytes, offset: int) -> Program:
    """Return the program that accepts packets with the mark."""
    first, second = struct.unpack("!II", mark)
    return (
        Instruction(LOAD_WORD, 0, 0, offset),
        Instruction(UNLESS_EQUAL, 0, 3, first),
        Instruction(LOAD_WORD, 0, 0, offset + 4),
        Instruction(UNLESS_EQUAL, 0, 1, second),
        Instruction(RETURN, 0, 0, 0xFFFF),
        Instruction(RETURN, 0, 0, 0),
    )
