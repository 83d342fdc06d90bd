"""VXLAN packets, byte by byte, that a member would or would not send."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from overlay.model import Ip, Mac


@dataclass(frozen=True)
class VxlanPacket:
    """A packet on the underlay with an IPv4 datagram inside; all fields can be forged."""

    vni: int
    source: Ip
    destination: Ip
    macs: bytes  # of the frame inside: destination, source
    ips: bytes  # of the packet inside: source, destination
    flags: int = 0x08000000
    reserved: int = 0
    port: int = 4789
    ecn: int = 0
    inner_ecn: int = 0
    fragment: int = 0x4000
    options: bytes = b""
    spoiled: int = 0  # added to the checksum of the outer header
    cut: int = 0  # bytes that the lengths count and the packet lacks
    inner_type: int = 0x0800
    payload: bytes = b"forged"

    def frame(self, destination: Mac, source: Mac) -> bytes:
        """Return the frame on the underlay."""
        packet = self._packet()
        kind = b"\x08\x00" if len(self.source) == 4 else b"\x86\xdd"
        return destination + source + kind + packet

    def _packet(self) -> bytes:
        vxlan = struct.pack("!II", self.flags, self.vni << 8 | self.reserved)
        inner = vxlan + self.macs + struct.pack("!H", self.inner_type) + self._inside()
        udp = struct.pack("!HHHH", 40000, self.port, 8 + len(inner) + self.cut, 0) + inner
        if len(self.source) == 16:
            first = 0x60000000 | self.ecn << 20
            head = struct.pack("!IHBB", first, len(udp) + self.cut, 17, 64)
            return head + self.source + self.destination + udp
        return self._ipv4(udp)

    def _ipv4(self, udp: bytes) -> bytes:
        size = 20 + len(self.options)
        head = struct.pack(
            "!BBHHHBBH",
            0x40 | size // 4,
            self.ecn,
            size + len(udp) + self.cut,
            7,
            self.fragment,
            64,
            17,
            0,
        )
        head += self.source + self.destination + self.options
        return head[:10] + struct.pack("!H", (_sum(head) + self.spoiled) & 0xFFFF) + head[12:] + udp

    def _inside(self) -> bytes:
        udp = struct.pack("!HHHH", 7, 7777, 8 + len(self.payload), 0) + self.payload
        head = struct.pack("!BBHHHBBH", 0x45, self.inner_ecn, 20 + len(udp), 7, 0x4000, 64, 17, 0)
        head += self.ips
        return head[:10] + struct.pack("!H", _sum(head)) + head[12:] + udp


def _sum(head: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
