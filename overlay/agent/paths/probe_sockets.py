"""The sockets of data-path probes: one that sends VXLAN packets, one in each sandbox that receives.

A probe is sent from the host namespace as a UDP datagram that holds the VXLAN header and the frame
(`wire.codec.path_probe`), so it leaves as containers' traffic does: from the VTEP's address to the
VXLAN port of the peer, through this host's output hooks. At the peer it passes the input hooks, the
filter of the VXLAN port, the VXLAN device and the bridge.

Owns: the sockets. Does not: know what a probe means.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from overlay import limits
from overlay.kernel import netns
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Ip, Network, Vni, ip_text
from overlay.wire.codec import path_probe

# linux/in.h and linux/in6.h: set DF, and ignore what the kernel believes of the path's size.
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3
_SO_NO_CHECK: Final = 11  # asm-generic/socket.h: send IPv4 UDP without a checksum
_UDP_NO_CHECK6_RX: Final = 102  # linux/udp.h: accept IPv6 UDP without a checksum
_FLAGS: Final = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class ProbeSender:
    """Sends VXLAN packets from one underlay address."""

    def __init__(self) -> None:
        self._address: Ip | None = None
        self._socket: socket.socket | None = None

    def send(self, source: Ip, to: Ip, port: int, packet: bytes, *, is_bare: bool = False) -> None:
        """Send a packet; one that the kernel refuses is lost, as any may be.

        A bare one has no UDP checksum over IPv4; IPv6 demands one of whatever reaches VXLAN.
        """
        with contextlib.suppress(OSError):
            opened = self._bound(source)
            if not is_bare:
                opened.sendto(packet, (ip_text(to), port))
                return
            opened.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
            try:
                opened.sendto(packet, (ip_text(to), port))
            finally:
                opened.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 0)

    def _bound(self, source: Ip) -> socket.socket:
        if self._socket is not None and self._address == source:
            return self._socket
        self.close()
        is_ipv4 = len(source) == 4
        opened = socket.socket(
            socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM | _FLAGS
        )
        try:
            level = socket.IPPROTO_IP if is_ipv4 else socket.IPPROTO_IPV6
            option = _IP_MTU_DISCOVER if is_ipv4 else _IPV6_MTU_DISCOVER
            opened.setsockopt(level, option, _PMTUDISC_PROBE)
            opened.bind((ip_text(source), 0))
        except OSError:
            opened.close()
            raise
        self._socket, self._address = opened, source
        return opened

    def close(self) -> None:
        """Close the socket; a later `send` opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class ProbeReceivers:
    """One UDP socket in each sandbox, on the gateway address of its network's first subnet.

    `received` is called with the network's VNI and each payload.
    """

    def __init__(self, received: Callable[[Vni, bytes], None]) -> None:
        self._received = received
        self._sockets: dict[Vni, socket.socket] = {}
        self._buffer = bytearray(limits.IP_PACKET_SIZE_MAX)

    def is_open(self, vni: Vni) -> bool:
        """Return whether a network's probes are received."""
        return vni in self._sockets

    def add(self, vni: Vni, opened: socket.socket) -> None:
        """Receive the probes of a network on a bound socket."""
        self.remove(vni)
        self._sockets[vni] = opened
        asyncio.get_running_loop().add_reader(opened, self._on_readable, vni, opened)

    def remove(self, vni: Vni) -> None:
        """Stop receiving the probes of a network."""
        opened = self._sockets.pop(vni, None)
        if opened is not None:
            asyncio.get_running_loop().remove_reader(opened)
            opened.close()

    def close(self) -> None:
        """Close all sockets."""
        for vni in list(self._sockets):
            self.remove(vni)

    def _on_readable(self, vni: Vni, opened: socket.socket) -> None:
        for _ in range(limits.RECEIVE_BATCH_COUNT):
            try:
                size = opened.recv_into(self._buffer)
            except OSError:  # empty, or a queued error, which carries no news
                return
            self._received(vni, bytes(memoryview(self._buffer)[:size]))


def bound_socket(sandbox: Sandbox, network: Network) -> socket.socket:
    """Return the receiving socket of a network; raises OSError, also if the sandbox is closed."""
    ip = network.subnets[0].gateway
    family = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    with netns.inside(sandbox.netns_fd):
        opened = socket.socket(family, socket.SOCK_DGRAM | _FLAGS)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.PATH_SOCKET_BUFFER_SIZE)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_UDP, _UDP_NO_CHECK6_RX, 1)
        opened.bind((ip_text(ip), path_probe.PORT))
    except OSError:
        opened.close()
        raise
    return opened
