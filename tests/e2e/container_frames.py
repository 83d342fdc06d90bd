"""Frames that a container has a right to send, and frames that it has not."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from overlay.core.plug.probe import probe_frame, probe_mac
from overlay.lab.forged_frames import NamespaceRef
from overlay.lab.frames import (
    BROADCAST,
    arp,
    arp_frame,
    checksum,
    ethernet,
    icmpv6,
    packet_frame,
    udp,
)
from overlay.model import Mac, NodeId, Vni, parse_ip

GATEWAY = parse_ip("10.32.0.1")
ALL_NODES, ALL_NODES_MAC = parse_ip("ff02::1"), bytes.fromhex("333300000001")
ANY_IPV4, ANY_IPV6 = bytes(4), bytes(16)
EVERYBODY = b"\xff" * 4


@dataclass(frozen=True, slots=True)
class Guest:
    """A container: its host and its name on the network."""

    spot: NamespaceRef
    mac: bytes
    ipv4: bytes
    ipv6: bytes

    @property
    def link_local(self) -> bytes:
        """The link-local address that its kernel derives from its MAC."""
        identifier = bytes([self.mac[0] ^ 2]) + self.mac[1:3] + b"\xff\xfe" + self.mac[3:]
        return parse_ip("fe80::")[:8] + identifier


class Neighbors(Protocol):
    """Containers beside a sender: on its host, on another one, and one that it poses as."""

    near: Guest
    far: Guest
    victim: Guest


def datagram(
    source: Guest, target: Guest, label: str, ports: tuple[int, int] = (5000, 5001)
) -> bytes:
    """Return a frame from one container to another."""
    packet = udp(source.ipv4, target.ipv4, ports, tag(label))
    return packet_frame(target.mac, source.mac, packet)


def tag(label: str) -> bytes:
    """Return a label as it stands in a frame."""
    return f"<{label}>".encode()


def forged(stage: Neighbors, sender: Guest) -> dict[str, bytes]:
    """Return frames that a container has no right to send, by label."""
    near, far, victim = stage.near, stage.far, stage.victim
    nobody = bytes.fromhex("02aabbccddee")

    def to(target: Guest, packet: bytes, mac: bytes = sender.mac) -> bytes:
        return packet_frame(target.mac, mac, packet)

    def to_all(packet: bytes) -> bytes:
        return packet_frame(ALL_NODES_MAC, sender.mac, packet)

    def announced(ends: tuple[bytes, bytes], label: str) -> bytes:
        return arp_frame(sender.mac, arp(ends, (near.mac, near.ipv4), 2), tag(label))

    def plain(source: bytes, target: bytes, label: str) -> bytes:
        return udp(source, target, (5000, 5001), tag(label))

    def advertised(target: bytes, label: str) -> bytes:
        body = b"\x20\0\0\0" + target + b"\x02\x01" + sender.mac + tag(label)
        return icmpv6(sender.ipv6, ALL_NODES, 136, body)

    frames = {
        "victims mac": to(near, plain(sender.ipv4, near.ipv4, "victims mac"), victim.mac),
        "new mac": to(far, plain(sender.ipv4, far.ipv4, "new mac"), nobody),
        "victims ipv4": to(near, plain(victim.ipv4, near.ipv4, "victims ipv4")),
        "victims ipv4 afar": to(far, plain(victim.ipv4, far.ipv4, "victims ipv4 afar")),
        "new ipv4": to(far, plain(parse_ip("10.32.250.250"), far.ipv4, "new ipv4")),
        "victims ipv6": to(far, plain(victim.ipv6, far.ipv6, "victims ipv6")),
        "victims link-local": to(near, plain(victim.link_local, near.ipv6, "victims link-local")),
        "arp victim": announced((sender.mac, victim.ipv4), "arp victim"),
        "arp gateway": announced((sender.mac, GATEWAY), "arp gateway"),
        "arp mac": announced((nobody, sender.ipv4), "arp mac"),
        "advertises victim": to_all(advertised(victim.ipv6, "advertises victim")),
        "tries victims address": to_all(
            icmpv6(ANY_IPV6, ALL_NODES, 135, bytes(4) + victim.ipv6 + tag("tries victims address"))
        ),
        "router": to_all(
            icmpv6(
                sender.link_local, ALL_NODES, 134, struct.pack(">BBHII", 64, 0, 1800, 0, 0)
                + tag("router")
            )
        ),
        "redirect": to_all(
            icmpv6(
                sender.link_local, ALL_NODES, 137, bytes(4) + sender.ipv6 + far.ipv6
                + tag("redirect")
            )
        ),
        "dhcp": to(near, udp(sender.ipv4, near.ipv4, (67, 68), tag("dhcp"))),
        "dhcp afar": to(far, udp(sender.ipv4, far.ipv4, (67, 68), tag("dhcp afar"))),
        "dhcp by an odd port": to(
            near, udp(sender.ipv4, near.ipv4, (1067, 68), tag("dhcp by an odd port"))
        ),
        "dhcp to all": packet_frame(
            BROADCAST, sender.mac, udp(sender.ipv4, EVERYBODY, (67, 68), tag("dhcp to all"))
        ),
        "dhcpv6": to(near, udp(sender.ipv6, near.ipv6, (547, 546), tag("dhcpv6"))),
        "dhcpv6 by an odd port": to(
            far, udp(sender.ipv6, far.ipv6, (1547, 546), tag("dhcpv6 by an odd port"))
        ),
        "no ip at all": ethernet(near.mac, sender.mac, 0x88B5, tag("no ip at all")),
    }  # fmt: skip
    frames |= hidden(stage, sender)
    assert all(tag(label) in frame for label, frame in frames.items())
    return frames


def hidden(stage: Neighbors, sender: Guest) -> dict[str, bytes]:
    """Return forged frames behind headers that a careless filter would not parse."""
    near, victim = stage.near, stage.victim

    def advertisement(label: str) -> bytes:
        body = struct.pack(">BBHII", 64, 0, 1800, 0, 0) + tag(label)
        return icmpv6(sender.link_local, ALL_NODES, 134, body)

    def behind(packet: bytes, kind: int, header: bytes) -> bytes:
        """Put an extension header before the ICMPv6 message (RFC 8200 section 4)."""
        length = struct.pack(">H", len(packet) - 40 + len(header))
        return packet[:4] + length + bytes([kind]) + packet[7:40] + header + packet[40:]

    def with_options(packet: bytes) -> bytes:
        """Put four bytes of options (no operation) into an IPv4 header."""
        head = bytes([0x46]) + packet[1:2] + struct.pack(">H", len(packet) + 4) + packet[4:10]
        addresses, options = packet[12:20], b"\x01\x01\x01\x01"
        total = checksum(head + addresses + options)
        return head + struct.pack(">H", total) + addresses + options + packet[20:]

    def tagged(label: str, *tags: int, own: bool = False) -> bytes:
        """Put tags before a packet of the victim's, or the sender's own; 0xE000 is a priority."""
        packet = udp(sender.ipv4 if own else victim.ipv4, near.ipv4, (1, 2), tag(label))
        kinds = struct.pack(">H", 0x0800) + packet
        for each in reversed(tags):
            kinds = struct.pack(">HH", 0x8100, each) + kinds
        return near.mac + sender.mac + kinds

    def joins(source: bytes, label: str) -> bytes:
        """Return a report of a group (IGMPv2, RFC 2236; MLD, RFC 2710) from an address."""
        if len(source) == 4:
            packet = igmp(source, parse_ip("239.9.9.9"), 0x16, tag(label))
        else:
            group = parse_ip("ff15::9")
            packet = icmpv6(source, group, 131, bytes(4) + group + tag(label))
        return packet_frame(multicast_mac(packet), sender.mac, packet)

    options, fragment = b"\x3a\x00\x01\x04\0\0\0\0", b"\x3a\x00\0\0\0\0\0\x07"
    lease = udp(sender.ipv4, near.ipv4, (67, 68), tag("dhcp behind options"))
    return {
        "router behind options": packet_frame(
            ALL_NODES_MAC, sender.mac, behind(advertisement("router behind options"), 60, options)
        ),
        "router in a fragment": packet_frame(
            ALL_NODES_MAC, sender.mac, behind(advertisement("router in a fragment"), 44, fragment)
        ),
        "dhcp behind options": packet_frame(near.mac, sender.mac, with_options(lease)),
        "tagged": tagged("tagged", 7),
        "tagged twice": tagged("tagged twice", 7, 7),
        "tagged by priority": tagged("tagged by priority", 0xE000),
        "tagged its own": tagged("tagged its own", 0xE000, own=True),
        "joins as victim": joins(victim.ipv4, "joins as victim"),
        "joins as victim ipv6": joins(victim.link_local, "joins as victim ipv6"),
        "plug probe": probe_frame(probe_mac(NodeId(bytes(16)), Vni(1), "default"))
        + tag("plug probe"),
        "plug probe from its own": probe_frame(Mac(sender.mac)) + tag("plug probe from its own"),
    }


def igmp(source: bytes, group: bytes, kind: int, body: bytes) -> bytes:
    """Return an IPv4 packet with an IGMP message (RFC 2236) to a group."""
    message = bytes([kind, 0]) + bytes(2) + group + body
    message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(message), 1, 0, 1, 2, 0)
    total = checksum(head + source + group)
    return head[:10] + struct.pack(">H", total) + source + group + message


def multicast_mac(packet: bytes) -> bytes:
    """Return the MAC of a packet's group (RFC 1112 section 6.4, RFC 2464 section 7)."""
    if packet[0] >> 4 == 4:
        return b"\x01\0\x5e" + bytes([packet[17] & 0x7F]) + packet[18:20]
    return b"\x33\x33" + packet[36:40]


def honest(stage: Neighbors, sender: Guest) -> dict[str, bytes]:
    """Return frames that a container may send, by label."""
    near, far = stage.near, stage.far
    own = (sender.mac, sender.ipv4)
    probe = arp((sender.mac, ANY_IPV4), (bytes(6), parse_ip("10.32.99.99")))
    tried = bytes(4) + sender.link_local + tag("tries its own")
    solicited = bytes(4) + near.ipv6 + tag("solicits")
    return {
        "ipv4 near": datagram(sender, near, "ipv4 near"),
        "ipv4 far": datagram(sender, far, "ipv4 far"),
        "ipv6 far": packet_frame(
            far.mac, sender.mac, udp(sender.ipv6, far.ipv6, (5000, 5001), tag("ipv6 far"))
        ),
        "link-local": packet_frame(
            near.mac, sender.mac, udp(sender.link_local, near.ipv6, (1, 2), tag("link-local"))
        ),
        "arp": arp_frame(sender.mac, arp(own, (near.mac, near.ipv4), 2), tag("arp")),
        "probe": arp_frame(sender.mac, probe, tag("probe")),
        "discover": packet_frame(
            BROADCAST, sender.mac, udp(ANY_IPV4, EVERYBODY, (68, 67), tag("discover"))
        ),
        "tries its own": packet_frame(
            ALL_NODES_MAC, sender.mac, icmpv6(ANY_IPV6, ALL_NODES, 135, tried)
        ),
        "solicits": packet_frame(
            ALL_NODES_MAC, sender.mac, icmpv6(sender.link_local, ALL_NODES, 135, solicited)
        ),
    }
