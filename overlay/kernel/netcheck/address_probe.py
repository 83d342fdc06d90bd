"""Send packets to an address, and see what comes back: no agent is needed at either end.

Only answers of kernels are expected: ICMP messages about UDP packets, and echoes. None is larger
than what it answers, so that nobody can be flooded by it.
Owns: the sockets, for at most the given time. Does not: judge.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import socket
import struct
import time
from typing import Final, NamedTuple

from overlay.core.netcheck.facts import AddressFacts, Reply
from overlay.kernel.netcheck.counters import neighbor_state
from overlay.kernel.netcheck.icmp import EchoProbe

_GOSSIP_GREETING: Final = b"overlayd netcheck"  # an agent counts it as too short
# A VXLAN header with VNI 0, which no network has, and no frame: every receiver drops it.
_VXLAN_EMPTY: Final = struct.pack("!II", 0x08000000, 0)
_OTHER_PORTS: Final = range(33434, 33534)  # where traceroute(8) expects nothing to listen
_SOL: Final = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
_ERROR: Final = struct.Struct("=IBBBxII")  # struct sock_extended_err (ip(7))
_ORIGIN_ICMP: Final = (2, 3)
_PORT_UNREACHABLE: Final = {(3, 3), (1, 4)}  # (type, code) of ICMP and ICMPv6
_PROHIBITED: Final = {(3, 9), (3, 10), (3, 13), (1, 1), (1, 5), (1, 6)}


class _PortProbe:
    """UDP packets to one port."""

    def __init__(self, family: int, address: str, port: int, payload: bytes) -> None:
        self.reply = Reply.SILENT
        self.by: str | None = None
        self._payload = payload
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(*_SOL[socket.AddressFamily(family)], 1)  # IP_RECVERR
        try:
            self.socket.connect((address, port))
        except OSError:
            self.reply = Reply.UNREACHABLE

    def send(self) -> None:
        """Send the payload unless the outcome is known."""
        if self.reply is not Reply.SILENT:
            return
        try:
            self.socket.send(self._payload)
        except PermissionError:
            self.reply = Reply.UNSENT  # a filter of this host
        except OSError:
            self.receive()  # a queued ICMP message is reported first
            if self.reply is Reply.SILENT:
                with contextlib.suppress(OSError):
                    self.socket.send(self._payload)

    def receive(self) -> None:
        """Read answers and ICMP messages."""
        with contextlib.suppress(OSError):
            self.socket.recv(2048)
            self.reply = Reply.ANSWERED
            return
        with contextlib.suppress(OSError):
            _, ancillary, _, _ = self.socket.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
            for _, _, raw in ancillary:
                self._note_error(raw)

    def _note_error(self, raw: bytes) -> None:
        _, origin, kind, code, _, _ = _ERROR.unpack_from(raw)
        if origin not in _ORIGIN_ICMP:
            return
        if (kind, code) in _PORT_UNREACHABLE:
            self.reply = Reply.REFUSED
        elif (kind, code) in _PROHIBITED:
            self.reply = Reply.PROHIBITED
        elif kind in (1, 3) and code != 4:
            self.reply = Reply.UNREACHABLE
        self.by = _offender(raw[_ERROR.size :])


class _Ports(NamedTuple):
    """The ports of one address."""

    gossip: _PortProbe
    vxlan: _PortProbe
    other: _PortProbe
    tunnel: _PortProbe | None

    def all(self) -> list[_PortProbe]:
        """Return the probes of all ports."""
        found = (self.gossip, self.vxlan, self.other, self.tunnel)
        return [each for each in found if each is not None]

    def are_known(self, echo: EchoProbe) -> bool:
        """Return whether no further answer can come: an address that does not refuse is silent."""
        if self.tunnel is not None and self.tunnel.reply is Reply.SILENT:
            return False
        is_alive = echo.echo_ms is not None or self.other.reply is not Reply.SILENT
        return is_alive and Reply.SILENT not in (self.gossip.reply, self.vxlan.reply)


def _offender(raw: bytes) -> str | None:
    """Return the address in a struct sockaddr."""
    with contextlib.suppress(ValueError, struct.error):
        (family,) = struct.unpack_from("=H", raw)
        if family == socket.AF_INET:
            return str(ipaddress.ip_address(raw[4:8]))
        if family == socket.AF_INET6:
            return str(ipaddress.ip_address(raw[8:24]))
    return None


def probe_address(
    address: str,
    *,
    gossip_port: int,
    vxlan_port: int,
    wireguard_port: int | None = None,
    mtu: int,
    seconds: float,
) -> AddressFacts:
    """Return what packets to an address bring back within `seconds`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    other = _OTHER_PORTS[os.getpid() % len(_OTHER_PORTS)]
    ports = _Ports(
        _PortProbe(family, address, gossip_port, _GOSSIP_GREETING),
        _PortProbe(family, address, vxlan_port, _VXLAN_EMPTY),
        _PortProbe(family, address, other, _GOSSIP_GREETING),
        None
        if wireguard_port is None
        else _PortProbe(family, address, wireguard_port, _GOSSIP_GREETING),
    )
    echo = EchoProbe(address, mtu)
    try:
        _exchange(ports, echo, seconds)
    finally:
        echo.close()
        for probe in ports.all():
            probe.socket.close()
    is_neighbor, has_failed = neighbor_state(address)
    offenders = [probe.by for probe in ports.all() if probe.by not in {None, address}]
    return AddressFacts(
        address,
        gossip=ports.gossip.reply,
        vxlan=ports.vxlan.reply,
        wireguard=Reply.SILENT if ports.tunnel is None else ports.tunnel.reply,
        other=ports.other.reply,
        rejected_by=next(iter(offenders), None),
        is_neighbor=is_neighbor,
        neighbor_failed=is_neighbor and has_failed,
        echo_ms=None if echo.echo_ms is None else round(echo.echo_ms, 3),
        size_sent=mtu,
        size_passed=echo.size_passed,
        clock_ahead_s=echo.clock_ahead_s,
    )


def _exchange(ports: _Ports, echo: EchoProbe, seconds: float) -> None:
    """Send and read until the time is over or all is known."""
    started = time.monotonic()
    poll = select.poll()
    by_fd: dict[int, _PortProbe | EchoProbe] = {
        probe.socket.fileno(): probe for probe in ports.all()
    }
    if echo.socket is not None:
        by_fd[echo.socket.fileno()] = echo
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    due = dict.fromkeys(by_fd, started)
    while (now := time.monotonic()) < started + seconds:
        for fd, probe in by_fd.items():
            if due[fd] <= now:
                due[fd] = now + _pause_s(probe, ports, echo)
                probe.send()
        if ports.are_known(echo) and echo.is_complete:
            return
        until = min([*due.values(), started + seconds])
        for fd, _ in poll.poll(max(1, int((until - now) * 1000))):
            by_fd[fd].receive()


def _pause_s(probe: _PortProbe | EchoProbe, ports: _Ports, echo: EchoProbe) -> float:
    """Return when to send again. Kernels send few ICMP messages a second to one host.

    Those that others cause there may use them up, so the gossip port is asked often. The other
    port need not be asked where echoes are answered: both tell that the host is alive.
    """
    if probe is echo:
        return 0.3
    if probe is ports.gossip:
        return 0.05
    if probe is ports.tunnel:
        return 0.2
    if probe is ports.vxlan:
        return 0.05 if ports.gossip.reply is Reply.REFUSED else 0.4
    return 0.2 if echo.echo_ms is None else 3600.0
