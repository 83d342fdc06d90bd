"""The messages to the kernel's WireGuard, read by another implementation of them."""

from __future__ import annotations

import base64
import importlib
import struct
from typing import Any

from overlay.core.encryption.device import DeviceChange, TunnelPeer
from overlay.kernel.netlink.codec import NetlinkMessage
from overlay.kernel.wireguard import netlink_device
from overlay.model import parse_ip
from pyroute2 import WireGuard

PEER = TunnelPeer(b"\x01" * 32, parse_ip("fd6f:766c::1"), parse_ip("192.0.2.2"), 7949)
OTHER = TunnelPeer(b"\x02" * 32, parse_ip("fd6f:766c::2"), parse_ip("2001:db8::2"), 7950)
WGMSG: Any = importlib.import_module(WireGuard.__module__).wgmsg
CHANGE = DeviceChange(b"\xaa" * 32, 7949, (PEER, OTHER), (b"\x03" * 32,))


def decoded(body: bytes) -> Any:
    """Return a message as pyroute2 reads it."""
    whole = struct.pack("=IHHII", 16 + len(body), 30, 0, 1, 0) + body
    message = WGMSG(whole)
    message.decode()
    return message


def test_another_implementation_reads_a_change() -> None:
    """Key and port of the device; key, endpoint and range of each peer; removed ones marked."""
    (body,) = netlink_device.encode("wg-ovl", CHANGE)
    message = decoded(body)
    peers = message.get_attr("WGDEVICE_A_PEERS")

    assert message["cmd"] == 1
    assert message.get_attr("WGDEVICE_A_IFNAME") == "wg-ovl"
    assert message.get_attr("WGDEVICE_A_LISTEN_PORT") == 7949
    assert base64.b64decode(message.get_attr("WGDEVICE_A_PRIVATE_KEY")) == b"\xaa" * 32
    keys = [base64.b64decode(each.get_attr("WGPEER_A_PUBLIC_KEY")) for each in peers]
    assert keys == [b"\x03" * 32, b"\x01" * 32, b"\x02" * 32]
    assert [each.get_attr("WGPEER_A_FLAGS") for each in peers] == [1, 2, 2]
    ends = [each.get_attr("WGPEER_A_ENDPOINT") for each in peers[1:]]
    assert [(end["addr"], end["port"]) for end in ends] == [
        ("192.0.2.2", 7949),
        ("2001:db8::2", 7950),
    ]
    ranges = [each.get_attr("WGPEER_A_ALLOWEDIPS") for each in peers[1:]]
    assert [[each["addr"] for each in found] for found in ranges] == [
        ["fd6f:766c::1/128"],
        ["fd6f:766c::2/128"],
    ]


def test_many_peers_share_a_message() -> None:
    """A thousand need four; the device's key travels in the first one alone."""
    many = tuple(PEER._replace(public_key=n.to_bytes(32, "big")) for n in range(1000))
    bodies = list(netlink_device.encode("wg-ovl", DeviceChange(b"\xaa" * 32, 7949, many)))
    messages = [decoded(body) for body in bodies]

    assert [len(each.get_attr("WGDEVICE_A_PEERS")) for each in messages] == [256, 256, 256, 232]
    assert [each.get_attr("WGDEVICE_A_LISTEN_PORT") for each in messages] == [
        7949,
        None,
        None,
        None,
    ]
    assert max(map(len, bodies)) < 65_000


def test_what_is_written_reads_back() -> None:
    """The kernel's reply has the attributes of the request; a peer may be spread over two."""
    change = DeviceChange(b"\xaa" * 32, 7949, (PEER,))
    (first,) = netlink_device.encode("wg-ovl", change)
    (second,) = netlink_device.encode(
        "wg-ovl", DeviceChange(put=(PEER._replace(inner=OTHER.inner),))
    )
    found = netlink_device.decode(
        [NetlinkMessage(30, body, 0, len(body)) for body in (first, second)]
    )

    assert (found.private_key, found.port) == (b"\xaa" * 32, 7949)
    assert found.peers[PEER.public_key].inner == ((PEER.inner, 128), (OTHER.inner, 128))
