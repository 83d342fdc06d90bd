"""ICMP echoes of several sizes, and the clock of another host (RFC 792, RFC 4443)."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from typing import Final

_HEADER: Final = struct.Struct("!BBHHH")  # type, code, checksum, id, sequence
_TIMES: Final = struct.Struct("!III")  # milliseconds since midnight UTC
_ECHO: Final = {4: (8, 0), 6: (128, 129)}  # request, reply
_TIMESTAMP: Final = (13, 14)
_IP_SIZE: Final = {4: 20, 6: 40}
_DAY_MS: Final = 86_400_000
_MTU_DISCOVER: Final = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_PMTUDISC_PROBE: Final = 3  # DF, and ignore what the kernel believes of the path's size
# Between the MTU and these lie the usual tunnels: PPPoE, IP in IP, GRE, VXLAN, WireGuard, IPsec.
_LESS: Final = (0, 8, 20, 28, 40, 50, 60, 80, 100, 120, 140, 160, 180, 200, 220)
_SIZES: Final = (1280, 1500, 4000, 8000)
_SMALL: Final = 84  # as ping(8)


class EchoProbe:
    """Echo requests to one address; without a socket (only root has one) nothing is known."""

    def __init__(self, address: str, mtu: int) -> None:
        self.echo_ms: float | None = None
        self.size_passed: int | None = None
        self.clock_ahead_s: float | None = None
        self._version = 6 if ":" in address else 4
        self._mtu = mtu
        self._id = os.getpid() & 0xFFFF
        self._sizes = sorted(
            {mtu - less for less in _LESS} | {size for size in _SIZES if size < mtu} | {_SMALL}
        )
        self._sent_at: dict[int, float] = {}
        self.socket = _open(self._version, address)
        self._is_raw = self.socket is not None and self.socket.type == socket.SOCK_RAW

    @property
    def is_complete(self) -> bool:
        """Whether the largest echo came back, or none can."""
        return self.socket is None or self.size_passed == self._mtu

    def send(self) -> None:
        """Send a request of each size, and ask for the time."""
        if self.socket is None or self.is_complete:
            return
        for sequence, size in enumerate(self._sizes):
            self._sent_at.setdefault(sequence, time.monotonic())
            data = bytes(size - _IP_SIZE[self._version] - _HEADER.size)
            self._send(_ECHO[self._version][0], sequence, data)
        if self._version == 4 and self._is_raw:
            self._send(_TIMESTAMP[0], 0, _TIMES.pack(_now_ms(), 0, 0))

    def _send(self, kind: int, sequence: int, data: bytes) -> None:
        assert self.socket is not None, "checked by the caller"
        message = _HEADER.pack(kind, 0, 0, self._id, sequence) + data
        if self._version == 4:
            message = message[:2] + struct.pack("!H", _checksum(message)) + message[4:]
        with contextlib.suppress(OSError):
            self.socket.send(message)

    def receive(self) -> None:
        """Read the replies that have come."""
        assert self.socket is not None, "only then it is polled"
        for _ in range(64):
            try:
                data = self.socket.recv(65535)
            except OSError:
                return
            if self._is_raw and self._version == 4:
                data = data[(data[0] & 15) * 4 :]
            if len(data) >= _HEADER.size:
                self._note(data)

    def _note(self, data: bytes) -> None:
        kind, _, _, ident, sequence = _HEADER.unpack_from(data)
        if self._is_raw and ident != self._id:
            return  # another program's
        if kind == _TIMESTAMP[1] and len(data) >= _HEADER.size + _TIMES.size:
            self._note_time(data)
        elif kind == _ECHO[self._version][1] and sequence < len(self._sizes):
            size = len(data) + _IP_SIZE[self._version]
            self.size_passed = max(self.size_passed or 0, size)
            if self.echo_ms is None:
                self.echo_ms = (time.monotonic() - self._sent_at[sequence]) * 1000

    def _note_time(self, data: bytes) -> None:
        asked, there, _ = _TIMES.unpack_from(data, _HEADER.size)
        if there & 0x80000000 or self.clock_ahead_s is not None:
            return  # not in milliseconds since midnight
        middle = asked + (_now_ms() - asked) % _DAY_MS / 2
        ahead = (there - middle + _DAY_MS / 2) % _DAY_MS - _DAY_MS / 2
        self.clock_ahead_s = round(ahead / 1000, 3)

    def close(self) -> None:
        """Close the socket."""
        if self.socket is not None:
            self.socket.close()


def _open(version: int, address: str) -> socket.socket | None:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
        try:
            opened = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        except OSError:
            continue
        try:
            opened.setsockopt(*_MTU_DISCOVER[version], _PMTUDISC_PROBE)
            opened.connect((address, 0))
        except OSError:
            opened.close()
            return None
        return opened
    return None


def _now_ms() -> int:
    return int(time.time() * 1000) % _DAY_MS


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
