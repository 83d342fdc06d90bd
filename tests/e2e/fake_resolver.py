"""A resolver for tests, as a program of its own: fake_resolver.py ADDRESS MODE [LOG].

It listens on UDP and TCP port 53. MODE: an IPv4 address, which is the answer to every A query
(other types have no records); `refused`, `servfail` or `silent`. It appends each name that it is
asked for to LOG.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import sys
import threading
from pathlib import Path
from typing import Any

CODES = {"servfail": 2, "refused": 5}


def answer(raw: bytes, mode: str, log: str | None) -> bytes:
    """Return the answer to a query; empty if the resolver is silent."""
    end, labels = 12, []
    while raw[end]:
        labels.append(raw[end + 1 : end + 1 + raw[end]].decode())
        end += raw[end] + 1
    (kind,) = struct.unpack("!H", raw[end + 1 : end + 3])
    if log is not None:
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(".".join(labels).lower() + "\n")
    if mode == "silent":
        return b""
    found = mode not in CODES and kind == 1
    head = raw[:2] + struct.pack("!5H", 0x8180 | CODES.get(mode, 0), 1, int(found), 0, 0)
    record = struct.pack("!3HIH", 0xC00C, 1, 1, 60, 4)
    return head + raw[12 : end + 5] + (record + socket.inet_aton(mode) if found else b"")


class ByUdp(socketserver.BaseRequestHandler):
    """Answers a datagram."""

    def handle(self) -> None:
        """Answer it, unless the resolver is silent."""
        raw, udp = self.request
        if reply := answer(raw, MODE, LOG):
            udp.sendto(reply, self.client_address)


class ByTcp(socketserver.StreamRequestHandler):
    """Answers the queries of one connection."""

    def handle(self) -> None:
        """Answer until the client closes it."""
        while size := self.rfile.read(2):
            reply = answer(self.rfile.read(*struct.unpack("!H", size)), MODE, LOG)
            if reply:
                self.wfile.write(struct.pack("!H", len(reply)) + reply)


class Udp(socketserver.ThreadingUDPServer):
    """The server for datagrams, of either family."""

    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET


class Tcp(socketserver.ThreadingTCPServer):
    """The server for connections, of either family."""

    address_family = Udp.address_family
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    MODE = sys.argv[2]
    LOG = sys.argv[3] if len(sys.argv) > 3 else None
    address, _, zone = sys.argv[1].partition("%")
    place: Any = (address, 53, 0, socket.if_nametoindex(zone)) if zone else (address, 53)
    with contextlib.suppress(KeyboardInterrupt), Tcp(place, ByTcp) as tcp, Udp(place, ByUdp) as udp:
        threading.Thread(target=tcp.serve_forever, daemon=True).start()
        print("ready", flush=True)  # noqa: T201 - for the test that started it
        udp.serve_forever()
