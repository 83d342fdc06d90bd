"""A probe of the data path: a VXLAN packet to the gateway address in a peer's sandbox.

The frame in it is plain IP and UDP, so that whatever lies between treats it as containers' traffic;
every host has the gateway's address and MAC, so that it needs no row of its own. The UDP payload:

 0       4                20          28                  44
 +-------+----------------+-----------+-------------------+----------
 | magic | sender (16)    | sequence  | tag (16)          | zeros ...
 +-------+----------------+-----------+-------------------+----------

A probe with exactly 8 zeros at its end is *bare*: its UDP checksum is left out.

The tag is BLAKE2s (RFC 7693), keyed with the key that the sender told the receiver by gossip, over
the VNI, the receiver, the payload's size and what precedes the tag.

Owns: these bytes. Does not: keep keys or sequence numbers (`core.paths`).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct
from typing import Final, NamedTuple

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Ip, Network, NodeId, Vni, gateway_mac

PORT: Final = 7949  # of the receiver's socket, in its sandbox
MALFORMED: Final = "malformed-path-probe"
FORGED: Final = "forged-path-probe"
UNKNOWN_SENDER: Final = "path-probe-of-unknown-sender"

_MAGIC: Final = b"ovpp"
_BARE_PADDING_SIZE: Final = 8  # no other probe has so few zeros, unless it has none
_TAG_SIZE: Final = 16
_LAYOUT: Final = struct.Struct("!4s16sQ")
_PAYLOAD_SIZE_MIN: Final = _LAYOUT.size + _TAG_SIZE
_UDP_SIZE: Final = 8
_REPORT_SIZE: Final = 98  # of a sealed datagram with nothing else in it
_ETHERNET_SIZE: Final = 14
_VXLAN_SIZE: Final = 8
_IP_SIZE: Final = {4: 20, 16: 40}  # by the length of an address
_SENDER_MAC: Final = bytes.fromhex("0602ffffffff")  # of the range that no container may have
_SENDER_IP: Final = {  # link-local: no address of any network
    4: ipaddress.ip_address("169.254.79.49").packed,
    16: ipaddress.ip_address("fe80::7949").packed,
}
_VXLAN_VNI_VALID: Final = 0x08000000  # RFC 7348 section 5: flag I


class PathProbe(NamedTuple):
    """The content of a probe, before its tag is checked."""

    sender: NodeId
    sequence: int
    tag: bytes
    is_bare: bool = False
    is_large: bool = False


def encode_path_probe(
    network: Network,
    sender: NodeId,
    receiver: NodeId,
    key: bytes,
    sequence: int,
    padding_size: int,
    *,
    is_bare: bool = False,
) -> bytes:
    """Return the payload of the UDP datagram to a peer's VXLAN port.

    A bare one has a padding of its own, and no UDP checksum in the frame.
    """
    if is_bare:
        padding_size = _BARE_PADDING_SIZE
    head = _LAYOUT.pack(_MAGIC, sender, sequence)
    size = _PAYLOAD_SIZE_MIN + padding_size
    tag = _tag(key, network.vni, receiver, size, head)
    frame = _frame(network, head + tag + bytes(padding_size), is_bare=is_bare)
    return struct.pack("!II", _VXLAN_VNI_VALID, network.vni << 8) + frame


def padding_size_of(network: Network, underlay_size: int, address: Ip) -> int:
    """Return the padding that makes the packet on the underlay `underlay_size` bytes long.

    `address` is of the underlay's family. A size below the smallest packet needs no padding.
    """
    return max(0, underlay_size - smallest_size_of(network, address))


def smallest_size_of(network: Network, address: Ip) -> int:
    """Return the size in bytes of the smallest probe on an underlay of this address' family."""
    gateway = network.subnets[0].gateway
    inner = _ETHERNET_SIZE + _IP_SIZE[len(gateway)] + _UDP_SIZE + _PAYLOAD_SIZE_MIN
    return _IP_SIZE[len(address)] + _UDP_SIZE + _VXLAN_SIZE + inner


def report_size_of(address: Ip) -> int:
    """Return the size in bytes of the packet with a path-report, on an underlay of this family."""
    return _IP_SIZE[len(address)] + _UDP_SIZE + _REPORT_SIZE


def decode_path_probe(payload: bytes) -> PathProbe:
    """Return what a received UDP payload says; raises RemoteError unless it is a probe."""
    if not _PAYLOAD_SIZE_MIN <= len(payload) <= limits.IP_PACKET_SIZE_MAX:
        raise RemoteError(MALFORMED)
    magic, sender, sequence = _LAYOUT.unpack_from(payload)
    if magic != _MAGIC or any(payload[_PAYLOAD_SIZE_MIN:]):
        raise RemoteError(MALFORMED)
    padding_size = len(payload) - _PAYLOAD_SIZE_MIN
    tag = payload[_LAYOUT.size : _PAYLOAD_SIZE_MIN]
    return PathProbe(
        NodeId(sender),
        sequence,
        tag,
        is_bare=padding_size == _BARE_PADDING_SIZE,
        is_large=padding_size > _BARE_PADDING_SIZE,
    )


def verify_path_probe(payload: bytes, key: bytes | None, vni: Vni, receiver: NodeId) -> None:
    """Check a payload's tag, if the sender's key is known; raises RemoteError."""
    if key is None:
        raise RemoteError(UNKNOWN_SENDER)
    expected = _tag(key, vni, receiver, len(payload), payload[: _LAYOUT.size])
    if not hmac.compare_digest(expected, payload[_LAYOUT.size : _PAYLOAD_SIZE_MIN]):
        raise RemoteError(FORGED)


def _tag(key: bytes, vni: Vni, receiver: NodeId, size: int, head: bytes) -> bytes:
    covered = struct.pack("!II", vni, size) + receiver + head
    return hashlib.blake2s(covered, key=key, digest_size=_TAG_SIZE, person=b"ovpath").digest()


def _frame(network: Network, payload: bytes, *, is_bare: bool) -> bytes:
    """Return an Ethernet frame with a UDP datagram to the network's gateway."""
    to = network.subnets[0].gateway
    source = _SENDER_IP[len(to)]
    size = _UDP_SIZE + len(payload)
    pseudo = source + to + struct.pack("!II", size, 17)  # the sum of both families' pseudo-headers
    bare = struct.pack("!HHHH", PORT, PORT, size, 0) + payload
    # RFC 768: a sum of 0 means none.
    checksum = 0 if is_bare else _checksum(pseudo + bare) or 0xFFFF
    udp = bare[:6] + struct.pack("!H", checksum) + payload
    mac = gateway_mac(network.vni, 0)
    if len(to) == 16:
        header = struct.pack("!IHBB", 6 << 28, size, 17, 64) + source + to
        return mac + _SENDER_MAC + b"\x86\xdd" + header + udp
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, 64, 17, 0) + source + to
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return mac + _SENDER_MAC + b"\x08\x00" + header + udp


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
