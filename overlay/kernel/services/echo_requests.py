"""Ask other hosts' kernels for echoes: ICMP of RFC 792 and RFC 4443, by raw(7).

Each request carries bytes that nobody can guess, so only who saw it can answer it. The kernel drops
replies with another identifier, so that a flood of these does not wake this process.

Owns: the socket, the packets, and which answers are to own requests. Does not: know what a missing
answer means. Without CAP_NET_RAW there is no socket.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import OrderedDict
from typing import Final

from overlay import limits
from overlay.core.capture.classic_bpf import (
    INDEX_IP_HEADER,
    LOAD_HALF,
    LOAD_HALF_BEHIND,
    RETURN,
    UNLESS_EQUAL,
    Instruction,
    Program,
)
from overlay.kernel import socket_filter
from overlay.kernel.icmp_echo import checksum
from overlay.model import Ip, NodeId, ip_text

_HEAD: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_IDENTIFIER_AT: Final = 4
_TOKEN_SIZE: Final = 16
_REQUEST: Final = {4: 8, 16: 128}  # by the size of an address
_REPLY: Final = {4: 0, 16: 129}
_ICMP_FILTER: Final = 1  # linux/icmp.h, at level SOL_RAW: the bits are types to drop
_ICMP6_FILTER: Final = 1  # linux/icmpv6.h: the bits are types to drop as well
_SOL_RAW: Final = 255
_SENT_MAX: Final = limits.LIVENESS_HOSTS_MAX * limits.LIVENESS_OPEN_MAX
_READ_MAX: Final = 4 * limits.LIVENESS_HOSTS_MAX  # at once: others send replies, too


def _own_replies(size: int, identifier: int) -> Program:
    """Return what lets replies with an identifier pass; of IPv4 the socket sees the IP header."""
    load: Program = (Instruction(LOAD_HALF, 0, 0, _IDENTIFIER_AT),)
    if size == 4:
        load = (
            Instruction(INDEX_IP_HEADER, 0, 0, 0),
            Instruction(LOAD_HALF_BEHIND, 0, 0, _IDENTIFIER_AT),
        )
    return (
        *load,
        Instruction(UNLESS_EQUAL, 0, 1, identifier),
        Instruction(RETURN, 0, 0, 0xFFFF),
        Instruction(RETURN, 0, 0, 0),
    )


class EchoRequests:
    """A socket for requests from one address of this host.

    Raises OSError where the kernel gives none.
    """

    def __init__(self, source: Ip) -> None:
        self._size = len(source)
        self.identifier = int.from_bytes(os.urandom(2), "big")
        self._sent: OrderedDict[bytes, tuple[NodeId, int]] = OrderedDict()  # by token
        family = socket.AF_INET if self._size == 4 else socket.AF_INET6
        protocol = socket.IPPROTO_ICMP if self._size == 4 else socket.IPPROTO_ICMPV6
        self._socket = socket.socket(
            family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol
        )
        try:
            self._receive_replies_only()
            socket_filter.attach(self._socket, _own_replies(self._size, self.identifier))
            self._socket.bind((ip_text(source), 0))
        except OSError:
            self._socket.close()
            raise

    def _receive_replies_only(self) -> None:
        if self._size == 4:
            dropped = ~(1 << _REPLY[4]) & 0xFFFFFFFF
            self._socket.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", dropped))
        else:
            words = [0xFFFFFFFF] * 8
            words[_REPLY[16] >> 5] &= ~(1 << (_REPLY[16] & 31))
            packed = struct.pack("=8I", *words)
            self._socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, packed)

    def fileno(self) -> int:
        """Return the descriptor: readable when answers have come."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, node_id: NodeId, number: int, target: Ip) -> None:
        """Send a host a request; one that the kernel refuses stays without an answer."""
        if len(target) != self._size:
            return
        token = os.urandom(_TOKEN_SIZE)
        self._sent[token] = node_id, number
        if len(self._sent) > _SENT_MAX:
            self._sent.popitem(last=False)
        packet = _HEAD.pack(_REQUEST[self._size], 0, 0, self.identifier, number & 0xFFFF) + token
        if self._size == 4:  # of ICMPv6 the kernel computes it
            packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
        with contextlib.suppress(OSError):
            self._socket.sendto(packet, (ip_text(target), 0))

    def received(self) -> list[tuple[NodeId, int]]:
        """Return which requests have been answered since the last call."""
        found = []
        for _ in range(_READ_MAX):
            try:
                packet = self._socket.recv(256)
            except OSError:
                break
            answered = self._answered(packet)
            if answered is not None:
                found.append(answered)
        return found

    def _answered(self, packet: bytes) -> tuple[NodeId, int] | None:
        if self._size == 4 and packet:
            packet = packet[(packet[0] & 15) * 4 :]
        if len(packet) != _HEAD.size + _TOKEN_SIZE:
            return None
        kind, _, _, identifier, _ = _HEAD.unpack_from(packet)
        if kind != _REPLY[self._size] or identifier != self.identifier:
            return None
        return self._sent.pop(packet[_HEAD.size :], None)
