"""Say in one line what is in a frame: addresses, protocol, and what the packet does.

A packet that is cut off, or malformed, is described as far as it can be read. Owns: the line. Does
not: decode anything above TCP, UDP and ICMP; Wireshark does.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from overlay.core.capture.frame_bytes import CutError, FrameBytes
from overlay.model import Ip, Mac, ip_text, mac_text

_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_TCP_FLAGS: Final = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x20, "U"), (0x10, "."))
_ICMP: Final = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request",
                11: "time exceeded"}  # fmt: skip
_ICMPV6: Final = {1: "unreachable", 2: "packet too big", 3: "time exceeded", 128: "echo request",
                  129: "echo reply", 133: "router solicitation", 134: "router advertisement",
                  135: "neighbor solicitation", 136: "neighbor advertisement",
                  143: "multicast listener report"}  # fmt: skip
_ECHOES: Final = ("echo request", "echo reply")
_HEADERS_MAX: Final = 8  # extension headers of one IPv6 packet that are followed
_EXTENSIONS: Final = frozenset({0, 43, 60})  # RFC 8200: hop-by-hop, routing, destination options
_FRAGMENT: Final = 44


class FrameSummary(NamedTuple):
    """The content of a frame; ports are None where the protocol has none, or they are cut off."""

    protocol: str
    source: str
    target: str
    source_port: int | None = None
    target_port: int | None = None
    info: str = ""

    def text(self) -> str:
        """Return one line."""
        if self.protocol == "arp":
            return f"arp {self.info}"
        source, target = (
            text if port is None else f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
            for text, port in ((self.source, self.source_port), (self.target, self.target_port))
        )
        return f"{source} > {target} {self.protocol} {self.info}".rstrip()


def summary(data: bytes) -> FrameSummary:
    """Return what is in an Ethernet frame."""
    frame = FrameBytes(data)
    try:
        target, source = Mac(frame.octets(0, 6)), Mac(frame.octets(6, 6))
        kind = frame.half(12)
    except CutError:
        return FrameSummary("ethernet", "?", "?", info="cut off")
    bare = FrameSummary(f"0x{kind:04x}", mac_text(source), mac_text(target))
    try:
        if kind == _ARP:
            return _arp(frame, bare)
        if kind == _IPV4:
            return _ipv4(frame)
        if kind == _IPV6:
            return _ipv6(frame)
    except CutError:
        return bare._replace(info="cut off")
    return bare._replace(info=f"length {len(data)}")


def _arp(frame: FrameBytes, bare: FrameSummary) -> FrameSummary:
    sender, asked = ip_text(Ip(frame.octets(28, 4))), ip_text(Ip(frame.octets(38, 4)))
    if frame.half(20) == 1:
        info = f"who has {asked}? tell {sender}"
    else:
        info = f"{sender} is at {mac_text(Mac(frame.octets(22, 6)))}"
    return bare._replace(protocol="arp", info=info)


def _ipv4(frame: FrameBytes) -> FrameSummary:
    source, target = ip_text(Ip(frame.octets(26, 4))), ip_text(Ip(frame.octets(30, 4)))
    header = (frame.byte(14) & 15) * 4
    size, fragment, number = frame.half(16), frame.half(20) & 0x3FFF, frame.byte(23)
    if fragment & 0x1FFF:
        return FrameSummary("ip", source, target, info=f"fragment of protocol {number}")
    found = _transport(frame, 14 + header, number, size - header)
    return found._replace(source=source, target=target)


def _ipv6(frame: FrameBytes) -> FrameSummary:
    source, target = ip_text(Ip(frame.octets(22, 16))), ip_text(Ip(frame.octets(38, 16)))
    number, at, size = frame.byte(20), 54, frame.half(18)
    for _ in range(_HEADERS_MAX):
        if number == _FRAGMENT and frame.half(at + 2) & 0xFFF8:
            info = f"fragment of protocol {frame.byte(at)}"
            return FrameSummary("ip6", source, target, info=info)
        if number == _FRAGMENT:
            length = 8
        elif number in _EXTENSIONS:
            length = 8 * (frame.byte(at + 1) + 1)
        else:
            break
        number, at, size = frame.byte(at), at + length, size - length
    found = _transport(frame, at, number, size)
    return found._replace(source=source, target=target)


def _transport(frame: FrameBytes, at: int, number: int, size: int) -> FrameSummary:
    """Return what a packet carries, without its addresses; `size` is that of its payload."""
    bare = FrameSummary(f"protocol {number}", "", "", info=f"length {max(size, 0)}")
    try:
        if number == 6:
            return _tcp(frame, at, size)
        if number == 17:
            ports = frame.half(at), frame.half(at + 2)
            return FrameSummary("udp", "", "", *ports, f"length {max(frame.half(at + 4) - 8, 0)}")
        if number in (1, 58):
            return _icmp(frame, at, number, size)
    except CutError:
        return bare._replace(info="cut off")
    return bare


def _tcp(frame: FrameBytes, at: int, size: int) -> FrameSummary:
    ports = frame.half(at), frame.half(at + 2)
    sequence, acknowledged = struct.unpack("!II", frame.octets(at + 4, 8))
    header, flags = (frame.byte(at + 12) >> 4) * 4, frame.byte(at + 13)
    shown = "".join(letter for bit, letter in _TCP_FLAGS if flags & bit)
    info = f"{shown or 'none'} seq {sequence}"
    if flags & 0x10:
        info += f" ack {acknowledged}"
    info += f" win {frame.half(at + 14)} length {max(size - header, 0)}"
    return FrameSummary("tcp", "", "", *ports, info)


def _icmp(frame: FrameBytes, at: int, number: int, size: int) -> FrameSummary:
    kind, code = frame.byte(at), frame.byte(at + 1)
    text = (_ICMP if number == 1 else _ICMPV6).get(kind, f"type {kind}")
    if text in _ECHOES:
        text += f" id {frame.half(at + 4)} seq {frame.half(at + 6)}"
    elif number == 58 and kind in (135, 136):
        text += f" of {ip_text(Ip(frame.octets(at + 8, 16)))}"
    elif code:
        text += f" code {code}"
    name = "icmp" if number == 1 else "icmp6"
    return FrameSummary(name, "", "", info=f"{text} length {max(size, 0)}")
