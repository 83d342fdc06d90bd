"""Build, send and capture raw frames, for tests of port security.

Imported to build frames, and run as a program inside a namespace (`python frames.py`) to send and
capture them. A frame of interest carries a label, <like this>, by which the capture recognizes it.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

LABEL: Final = re.compile(rb"<([a-z0-9 .:-]+)>")
_SILENCE_MAX_S: Final = 10.0
BROADCAST: Final = b"\xff" * 6
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_ICMP, _UDP, _ICMPV6 = 1, 17, 58


def ethernet(target: bytes, source: bytes, kind: int, body: bytes) -> bytes:
    """Return an Ethernet frame."""
    return target + source + struct.pack(">H", kind) + body


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(source: bytes, target: bytes, ports: tuple[int, int], body: bytes) -> bytes:
    """Return an IPv4 or IPv6 packet with a UDP datagram (RFC 768)."""
    length = 8 + len(body)
    datagram = struct.pack(">HHHH", *ports, length, 0) + body
    if len(source) == 4:
        return _ipv4(source, target, _UDP, datagram)
    return ipv6(source, target, _UDP, datagram, at=6)


def _ipv4(source: bytes, target: bytes, protocol: int, body: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0)
    total = checksum(head + source + target)
    return head[:10] + struct.pack(">H", total) + source + target + body


def fragments(packet: bytes, first_bytes: int, number: int) -> tuple[bytes, bytes]:
    """Return an IPv4 packet in two fragments (RFC 791 section 3.2).

    `first_bytes`, a multiple of eight, is the size of the first fragment's body; `number` is the
    packet's identification.
    """
    parts = []
    for body, offset_and_more in (
        (packet[20 : 20 + first_bytes], 0x2000),
        (packet[20 + first_bytes :], first_bytes // 8),
    ):
        size, offset = struct.pack(">H", 20 + len(body)), struct.pack(">H", offset_and_more)
        head = (
            packet[:2]
            + size
            + struct.pack(">H", number)
            + offset
            + packet[8:10]
            + b"\0\0"
            + packet[12:20]
        )
        parts.append(head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body)
    return parts[0], parts[1]


def ipv6(source: bytes, target: bytes, protocol: int, body: bytes, *, at: int) -> bytes:
    """Return an IPv6 packet (RFC 8200).

    The checksum of its body goes to offset `at`.
    """
    pseudo = source + target + struct.pack(">IHBB", len(body), 0, 0, protocol)
    body = body[:at] + struct.pack(">H", checksum(pseudo + body)) + body[at + 2 :]
    return struct.pack(">IHBB", 6 << 28, len(body), protocol, 255) + source + target + body


def icmpv6(source: bytes, target: bytes, kind: int, body: bytes) -> bytes:
    """Return an IPv6 packet with an ICMPv6 message (RFC 4443).

    `body` follows the checksum.
    """
    return ipv6(source, target, _ICMPV6, bytes([kind, 0, 0, 0]) + body, at=2)


def too_big(source: bytes, quoted: bytes, mtu: int) -> bytes:
    """Return the packet by which a router says that a packet was too big for a link.

    `quoted` is that packet; its sender is told. RFC 1191 section 4, RFC 4443 section 3.2.
    """
    if len(source) == 16:
        return icmpv6(source, quoted[8:24], 2, struct.pack(">I", mtu) + quoted[:1000])
    message = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + quoted[:28]
    message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
    return _ipv4(source, quoted[12:16], _ICMP, message)


def echo_reply(source: bytes, target: bytes) -> bytes:
    """Return the kernel's reply to a ping: about it, ICMP errors are believed without a socket."""
    if len(source) == 16:
        return icmpv6(source, target, 129, bytes(4))
    return _ipv4(source, target, _ICMP, struct.pack(">BBHHH", 0, 0, 0xFFFF, 0, 0))


def packet_frame(target: bytes, source: bytes, packet: bytes) -> bytes:
    """Return the Ethernet frame of an IPv4 or IPv6 packet."""
    return ethernet(target, source, _IPV4 if packet[0] >> 4 == 4 else _IPV6, packet)


def arp(sender: tuple[bytes, bytes], target: tuple[bytes, bytes], kind: int = 1) -> bytes:
    """Return an ARP request (1) or reply (2), RFC 826.

    `sender` and `target` are (MAC, IPv4 address).
    """
    return struct.pack(">HHBBH", 1, _IPV4, 6, 4, kind) + b"".join((*sender, *target))


def arp_frame(source: bytes, body: bytes, label: bytes = b"") -> bytes:
    """Return an ARP broadcast.

    A label goes after the message, where it is ignored.
    """
    return ethernet(BROADCAST, source, _ARP, body + label)


def vxlan(vni: int, frame: bytes) -> bytes:
    """Return the UDP payload that carries a frame (RFC 7348 section 5)."""
    return struct.pack(">II", 0x08 << 24, vni << 8) + frame


# --- inside a namespace -----------------------------------------------------------------------


def _watch(interface: str, last: str) -> None:
    """Print the labels of received frames, up to the one labeled `last`."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
        raw.bind((interface, 3))
        raw.settimeout(_SILENCE_MAX_S)
        print("ready", flush=True)
        label = ""
        while label != last:
            frame, (_, _, kind, _, _) = raw.recvfrom(65536)
            found = LABEL.search(frame)
            if found is not None and kind != socket.PACKET_OUTGOING:
                label = found[1].decode("ascii")
                print(label, flush=True)


def _send_frames(interface: str, *texts: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        for text in texts:
            raw.send(bytes.fromhex(text))


def _send_packet(target: str, text: str) -> None:
    """Send an IPv4 packet including its header, by the routing table (raw(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(bytes.fromhex(text), (target, 0))


def _send_datagram(target: str, port: str, source_port: str, text: str) -> None:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("", int(source_port)))
        datagrams.sendto(bytes.fromhex(text), (target, int(port)))


if __name__ == "__main__":
    verbs: dict[str, Callable[..., None]] = {
        "watch": _watch,
        "frames": _send_frames,
        "packet": _send_packet,
        "datagram": _send_datagram,
    }
    verbs[sys.argv[1]](*sys.argv[2:])
