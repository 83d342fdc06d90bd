"""Send ICMP echo requests from a network namespace, and receive what answers them.

ICMP of RFC 792, ICMPv6 of RFC 4443, by a raw socket (raw(7)): the caller needs CAP_NET_RAW. No
request is sent in fragments.

Owns: the packets, and which received ones belong to a request. Does not: wait longer than it is
told, or know containers.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Final

from overlay.kernel import netns
from overlay.model import Ip, ip_text

_HEAD: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_TOKEN_SIZE_MAX: Final = 8
# linux/in.h and linux/in6.h: never send fragments.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
_IPV6_DONTFRAG: Final = 62
_NO_PEER: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN})


@dataclass(frozen=True, slots=True)
class EchoAnswer:
    """The reply to a request: an echo after some seconds, or an error of ICMP or the kernel.

    `problem` is empty for an echo.
    """

    sequence: int
    seconds: float
    problem: str = ""


class IcmpEcho:
    """A socket that sends echo requests from one address to another.

    `token`: up to 8 random bytes that the data of each begin with, and of each answer.
    """

    def __init__(self, netns_fd: int | None, source: Ip, target: Ip, size: int) -> None:
        """Open the socket in a namespace, None for the present one; raises OSError."""
        self._is_ipv4 = len(target) == 4
        self._target = ip_text(target)
        self._packed_target = bytes(target)
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self.token = os.urandom(min(size, _TOKEN_SIZE_MAX))
        self._filler = bytes(size - len(self.token))
        self._sent_at: dict[int, float] = {}
        if netns_fd is None:
            self._socket = self._opened()
        else:
            with netns.inside(netns_fd):
                self._socket = self._opened()
        try:
            self._socket.bind((ip_text(source), 0))
        except OSError:
            self._socket.close()
            raise

    def _opened(self) -> socket.socket:
        if self._is_ipv4:
            opened = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
        else:
            opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
        opened.setblocking(False)
        return opened

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, sequence: int) -> str:
        """Send a request; return why the kernel refused it, or empty."""
        kind = 8 if self._is_ipv4 else 128
        body = self.token + self._filler
        packet = _HEAD.pack(kind, 0, 0, self._identifier, sequence & 0xFFFF) + body
        if self._is_ipv4:
            checked = checksum(packet)
            packet = _HEAD.pack(kind, 0, checked, self._identifier, sequence & 0xFFFF) + body
        self._sent_at[sequence & 0xFFFF] = time.monotonic()
        try:
            self._socket.sendto(packet, (self._target, 0))
        except OSError as error:
            return _refusal(error)
        return ""

    def wait(self, until: float) -> EchoAnswer | None:
        """Return the next answer to any request; None at that time of the monotonic clock."""
        while True:
            left = until - time.monotonic()
            ready, _, _ = select.select([self._socket], [], [], max(0.0, left))
            if ready:
                answer = self._received()
                if answer is not None:
                    return answer
            elif left <= 0:
                return None

    def _received(self) -> EchoAnswer | None:
        try:
            packet, sender = self._socket.recvfrom(65_535)
        except OSError as error:
            return None if error.errno in (errno.EAGAIN, errno.EINTR) else self._failed(error)
        now = time.monotonic()
        if self._is_ipv4:
            packet = packet[(packet[0] & 15) * 4 :]
        if len(packet) < _HEAD.size:
            return None
        kind, code, _, identifier, sequence = _HEAD.unpack_from(packet)
        if kind == (0 if self._is_ipv4 else 129):
            is_own = identifier == self._identifier and packet.startswith(self.token, _HEAD.size)
            return self._answer(sequence, now, "") if is_own else None
        quoted = self._quoted(packet[_HEAD.size :])
        text = (_ERRORS_IPV4 if self._is_ipv4 else _ERRORS_IPV6).get((kind, code), "")
        text = text or (_ERRORS_IPV4 if self._is_ipv4 else _ERRORS_IPV6).get((kind, -1), "")
        if quoted is None or not text:
            return None
        return self._answer(quoted, now, f"{text} (says {sender[0]})")

    def _quoted(self, packet: bytes) -> int | None:
        """Return the sequence number of the own request that an ICMP error quotes."""
        if self._is_ipv4:
            target, head = packet[16:20], packet[(packet[0] & 15) * 4 :] if packet else b""
        else:
            target, head = packet[24:40], packet[40:]
        if target != self._packed_target or len(head) < _HEAD.size:
            return None
        _, _, _, identifier, sequence = _HEAD.unpack_from(head)
        return int(sequence) if identifier == self._identifier else None

    def _answer(self, sequence: int, now: float, problem: str) -> EchoAnswer | None:
        sent_at = self._sent_at.pop(sequence, None)
        return None if sent_at is None else EchoAnswer(sequence, now - sent_at, problem)

    def _failed(self, error: OSError) -> EchoAnswer | None:
        """Return an error that the kernel queued on the socket as the newest request's."""
        if not self._sent_at:
            return None
        sequence, sent_at = self._sent_at.popitem()
        return EchoAnswer(sequence, time.monotonic() - sent_at, _refusal(error))


# By type and code; -1: any other code. RFC 792, RFC 1812 section 5.2.7.1, RFC 4443 section 3.
_ERRORS_IPV4: Final = {
    (3, 0): "no route to the network",
    (3, 1): "the host does not answer ARP",
    (3, 4): "too large: something on the way has a smaller MTU",
    (3, 9): "forbidden by a filter",
    (3, 10): "forbidden by a filter",
    (3, 13): "forbidden by a filter",
    (3, -1): "unreachable",
    (11, -1): "the packet went in a circle",
}
_ERRORS_IPV6: Final = {
    (1, 0): "no route to the network",
    (1, 1): "forbidden by a filter",
    (1, 3): "the host does not answer neighbor discovery",
    (1, -1): "unreachable",
    (2, -1): "too large: something on the way has a smaller MTU",
    (3, -1): "the packet went in a circle",
}


def _refusal(error: OSError) -> str:
    if error.errno == errno.EMSGSIZE:
        return "too large for the container's interface"
    if error.errno in _NO_PEER:
        return "the container has no route there, or does not find the neighbor"
    if error.errno in (errno.EPERM, errno.EACCES):
        return "a filter in the container forbids sending it"
    return error.strerror or str(error)


def checksum(packet: bytes) -> int:
    """Return the Internet checksum, RFC 1071."""
    if len(packet) % 2:
        packet += b"\0"
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
