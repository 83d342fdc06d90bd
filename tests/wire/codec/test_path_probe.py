"""The bytes of a data-path probe."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.errors import RemoteError
from overlay.model import Ip, Network, NodeId, Subnet, Vni, gateway_mac
from overlay.wire.codec import path_probe

SENDER, RECEIVER = NodeId(b"s" * 16), NodeId(b"r" * 16)
KEY = bytes(range(16))
VNI = Vni(0x0ABCDE)
UNDERLAY = {4: 28, 6: 48}  # bytes of IP and UDP


def network(version: int) -> Network:
    """Return a network of one subnet."""
    base, length, gateway = {4: ("10.32.0.0", 16, "10.32.0.1"), 6: ("fd00::", 64, "fd00::1")}[
        version
    ]
    packed = [Ip(ipaddress.ip_address(each).packed) for each in (base, gateway)]
    return Network(VNI, "blue", (Subnet(packed[0], length, packed[1]),), SENDER)


def encoded(version: int, padding: int = 0, sequence: int = 9) -> bytes:
    """Return a probe's packet."""
    return path_probe.encode_path_probe(network(version), SENDER, RECEIVER, KEY, sequence, padding)


def payload_of(packet: bytes, version: int) -> bytes:
    """Return what the receiver's UDP socket reads."""
    return packet[8 + 14 + {4: 20, 6: 40}[version] + 8 :]


def read(payload: bytes) -> None:
    """Read a payload as the receiver does."""
    path_probe.decode_path_probe(payload)
    path_probe.verify_path_probe(payload, KEY, VNI, RECEIVER)


def internet_sum(data: bytes) -> int:
    """Return the folded sum of a block, checksum included: 0xffff if that is right (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("version", [4, 6])
@given(st.integers(0, 2**64 - 1), st.integers(0, 3000))
def test_a_probe_is_read_as_it_was_sent(version: int, sequence: int, padding: int) -> None:
    """Sender and sequence come back, and the tag holds."""
    payload = payload_of(encoded(version, padding, sequence), version)
    probe = path_probe.decode_path_probe(payload)
    assert (probe.sender, probe.sequence) == (SENDER, sequence)
    path_probe.verify_path_probe(payload, KEY, VNI, RECEIVER)


@pytest.mark.parametrize("version", [4, 6])
def test_a_bare_probe_has_no_checksum(version: int) -> None:
    """It is read like any other, and known by its size."""
    packet = path_probe.encode_path_probe(
        network(version), SENDER, RECEIVER, KEY, 9, 0, is_bare=True
    )
    payload = payload_of(packet, version)
    udp = packet[-8 - len(payload) :]
    assert udp[6:8] == bytes(2)
    assert path_probe.decode_path_probe(payload).is_bare
    assert not path_probe.decode_path_probe(payload_of(encoded(version), version)).is_bare
    path_probe.verify_path_probe(payload, KEY, VNI, RECEIVER)


@pytest.mark.parametrize("version", [4, 6])
def test_the_packet_is_what_the_standards_say(version: int) -> None:
    """VXLAN header, the gateway's MAC, and right checksums (RFC 7348, RFC 1071)."""
    packet = encoded(version, 11)
    assert struct.unpack("!II", packet[:8]) == (0x08000000, VNI << 8)
    assert packet[8:14] == gateway_mac(VNI, 0)
    frame = packet[22:]
    if version == 4:
        assert internet_sum(frame[:20]) == 0xFFFF
        addresses, udp = frame[12:20], frame[20:]
    else:
        addresses, udp = frame[8:40], frame[40:]
    assert struct.unpack("!H", udp[4:6]) == (len(udp),)
    assert internet_sum(addresses + struct.pack("!II", len(udp), 17) + udp) == 0xFFFF


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
def test_the_padding_gives_the_size_asked_for(version: int, outer: int) -> None:
    """The packet on the underlay has exactly that many bytes."""
    address = Ip(bytes({4: 4, 6: 16}[outer]))
    padding = path_probe.padding_size_of(network(version), 1500, address)
    assert UNDERLAY[outer] + len(encoded(version, padding)) == 1500
    assert path_probe.padding_size_of(network(version), 0, address) == 0


@given(st.integers(0, 500), st.integers(1, 255))
def test_no_changed_byte_is_accepted(at: int, change: int) -> None:
    """A changed payload is malformed or forged."""
    payload = bytearray(payload_of(encoded(4, 100), 4))
    payload[at % len(payload)] ^= change
    with pytest.raises(RemoteError):
        read(bytes(payload))


@given(st.binary(max_size=200))
def test_noise_is_no_probe(noise: bytes) -> None:
    """Whatever a container sends to the port is dropped with a reason."""
    with pytest.raises(RemoteError):
        read(noise)


@pytest.mark.parametrize(
    ("key", "vni", "receiver"),
    [
        (bytes(16), VNI, RECEIVER),
        (KEY, Vni(VNI + 1), RECEIVER),
        (KEY, VNI, SENDER),
        (None, VNI, RECEIVER),
    ],
)
def test_a_probe_holds_for_one_path_only(key: bytes | None, vni: Vni, receiver: NodeId) -> None:
    """Not with another key, on another network, or at another node."""
    payload = payload_of(encoded(4), 4)
    with pytest.raises(RemoteError):
        path_probe.verify_path_probe(payload, key, vni, receiver)
