"""Announce to a bridge's containers that an address has a new MAC.

Sends a gratuitous ARP request (RFC 5227 section 3) or an unsolicited neighbor advertisement
(RFC 4861 section 7.2.6) out of the bridge itself, where port security does not apply. A bridge
floods neither to ports with neigh_suppress (net/bridge/br_arp_nd_proxy.c), and thus not into the
VXLAN: each host informs its own containers.

The frame is sent by running a small eBPF program on it once (BPF_PROG_TEST_RUN). A packet socket
would need CAP_NET_RAW, which an agent with `capture_from_peers = false` has not.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from overlay.kernel import netns
from overlay.kernel.bpf import programs, syscall
from overlay.model import Ip, Mac

_BROADCAST: Final = b"\xff" * 6
_ARP: Final = struct.Struct("!6s6sHHHBBH6s4s6s4s")
_ARP_TYPE, _IPV4_TYPE, _IPV6_TYPE = 0x0806, 0x0800, 0x86DD
_ETHERNET, _REQUEST = 1, 1
_ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
_ALL_NODES: Final = bytes.fromhex("ff020000000000000000000000000001")
_IPV6: Final = struct.Struct("!6s6sHIHBB16s16s")
_ADVERTISEMENT: Final = struct.Struct("!BBHI16sBB6s")
_VERSION: Final = 6 << 28
_ICMPV6, _HOP_LIMIT = 58, 255
_NEIGHBOR_ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 1 << 29
_TARGET_LINK_LAYER_ADDRESS, _IN_EIGHT_BYTES = 2, 1


def announce(netns_fd: int, index: int, ip: Ip, mac: Mac) -> None:
    """Announce the address on the bridge with that index.

    Raises OSError if the kernel refuses eBPF.
    """
    program = syscall.load(programs.send_program(index), "overlayd_tell")
    try:
        with netns.inside(netns_fd):
            syscall.run(program, announcement_frame(ip, mac))
    finally:
        os.close(program)


def announcement_frame(ip: Ip, mac: Mac) -> bytes:
    """Return the Ethernet frame that announces an address."""
    if len(ip) == 4:
        return _ARP.pack(
            _BROADCAST, mac, _ARP_TYPE,
            _ETHERNET, _IPV4_TYPE, 6, 4, _REQUEST, mac, ip, bytes(6), ip,
        )  # fmt: skip
    body = _advertisement(ip, mac, 0)
    body = _advertisement(ip, mac, _checksum(ip + _ALL_NODES, body))
    head = _IPV6.pack(
        _ALL_NODES_MAC, mac, _IPV6_TYPE, _VERSION, len(body), _ICMPV6, _HOP_LIMIT, ip, _ALL_NODES
    )
    return head + body


def _advertisement(ip: Ip, mac: Mac, checksum: int) -> bytes:
    option = _TARGET_LINK_LAYER_ADDRESS, _IN_EIGHT_BYTES, mac
    return _ADVERTISEMENT.pack(_NEIGHBOR_ADVERTISEMENT, 0, checksum, _OVERRIDE, ip, *option)


def _checksum(addresses: bytes, body: bytes) -> int:
    """Return the ICMPv6 checksum (RFC 1071, RFC 8200 section 8.1)."""
    data = addresses + struct.pack("!II", len(body), _ICMPV6) + body
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
