"""Servers and clients in namespaces: sockets stay where they were opened."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from overlay.kernel import netns

_TIMEOUT_S = 20
_SOURCE_UDP_SIZE_MAX = 65_535
PMTUDISC = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
WANT, DO, DONT = 1, 2, 0  # IPPMTUDISC_*


class Traffic:
    """Opens sockets in namespaces, by name."""

    def __init__(self, fds: dict[str, int]) -> None:
        self._fds = fds
        self._open: list[socket.socket] = []

    def socket(
        self, who: str, family: int, kind: int, *, binds: str = "", protocol: int = 0
    ) -> socket.socket:
        """Return a new socket in a namespace, which `close` closes."""
        with netns.inside(self._fds[who]):
            made = socket.socket(family, kind, protocol)
        made.settimeout(_TIMEOUT_S)
        self._open.append(made)
        if binds:
            made.bind((binds, 0))
        return made

    def serve(self, who: str, tcp: int, udp: int) -> None:
        """Answer at two ports, with the client's address and the data."""
        for family in (socket.AF_INET, socket.AF_INET6):
            listener = self.socket(who, family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            receiver = self.socket(who, family, socket.SOCK_DGRAM)
            for each, port in ((listener, tcp), (receiver, udp)):
                if family == socket.AF_INET6:
                    each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                each.settimeout(None)
                each.bind(("", port))
            receiver.setsockopt(*PMTUDISC[family], DONT)
            listener.listen(16)
            threading.Thread(target=_accept, args=(listener,), daemon=True).start()
            threading.Thread(target=_echo, args=(receiver,), daemon=True).start()

    def ask_tcp(self, who: str, address: str, port: int, size: int = 100) -> str:
        """Send as many bytes and have them back; return the address that the server saw."""
        client = self.socket(who, _family(address), socket.SOCK_STREAM)
        client.connect((address, port))
        sent = bytes(range(256)) * (size // 256 + 1)
        threading.Thread(target=_send, args=(client, sent[:size]), daemon=True).start()
        answer = all_of(client)
        client.close()
        seen, _, data = answer.partition(b"\n")
        assert data == sent[:size]
        return seen.decode()

    def ask_udp(
        self,
        who: str,
        address: str,
        port: int,
        size: int = 100,
        discovers: int = DONT,
    ) -> str:
        """Do the same by a datagram; raises OSError for an error of ICMP."""
        client = self.socket(who, _family(address), socket.SOCK_DGRAM)
        client.setsockopt(*PMTUDISC[socket.AddressFamily(client.family)], discovers)
        client.connect((address, port))
        client.send(b"q" * size)
        try:
            answer = client.recv(_SOURCE_UDP_SIZE_MAX)
        finally:
            client.close()
        seen, _, data = answer.partition(b"\n")
        assert set(data) <= {ord("q")}
        return seen.decode()

    def close(self) -> None:
        """Close all sockets, and so end the servers."""
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _accept(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client, address = listener.accept()
            threading.Thread(target=_answer, args=(client, address[0]), daemon=True).start()


def _answer(client: socket.socket, address: str) -> None:
    with suppress(OSError), client:
        data = all_of(client)
        client.sendall(address.encode() + b"\n" + data)


def _echo(receiver: socket.socket) -> None:
    with suppress(OSError):
        while True:
            data, address = receiver.recvfrom(_SOURCE_UDP_SIZE_MAX)
            if address is None:
                return  # it was shut down
            seen = address[0].encode() + b"\n"
            receiver.sendto(seen + data[len(seen) :], address)


def _send(client: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)


def all_of(source: socket.socket) -> bytes:
    """Return what a peer sends until it ends the connection."""
    found = b""
    while piece := source.recv(65_536):
        found += piece
    return found
