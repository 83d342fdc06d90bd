"""The WireGuard device gets its keys and peers, its port and its MTU."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.encryption.device import (
    DeviceChange,
    DeviceReading,
    PeerReading,
    TunnelPeer,
    TunnelState,
    device_change,
    tunnel_mtu,
    wireguard_port,
)
from overlay.core.encryption.inner_address import inner_address, inner_prefix
from overlay.model import NodeId, ip_text, parse_ip

PREFIX = inner_prefix(bytes.fromhex("04f7efba") + bytes(28))
PEER = TunnelPeer(b"p" * 32, inner_address(PREFIX, NodeId(b"P" * 16)), parse_ip("192.0.2.2"), 7949)
OTHER = TunnelPeer(b"o" * 32, inner_address(PREFIX, NodeId(b"O" * 16)), parse_ip("192.0.2.3"), 7949)
OWN = inner_address(PREFIX, NodeId(b"S" * 16))
WANTED = TunnelState(b"k" * 32, 7949, PREFIX, OWN, 1440, frozenset({PEER, OTHER}))


def reading(state: TunnelState = WANTED) -> DeviceReading:
    """Return the device that has exactly this state."""
    peers = {each.public_key: PeerReading(((each.inner, 128),), 0.0, 0, 0) for each in state.peers}
    return DeviceReading(state.private_key, state.port, peers)


def test_inner_addresses_are_in_the_clusters_range() -> None:
    """The range follows from the cluster, the rest from the node."""
    assert ip_text(PEER.inner) == "fd6f:766c:4f7:efba:5050:5050:5050:5050"


def test_an_equal_device_needs_no_change() -> None:
    """A pass that reads what the last one wrote writes nothing."""
    assert not device_change(WANTED, reading(), WANTED)


def test_a_new_device_gets_everything() -> None:
    """Key, port and all peers, in one change."""
    change = device_change(WANTED, DeviceReading(b"", 0, {}), None)

    assert change == DeviceChange(b"k" * 32, 7949, (OTHER, PEER), ())


def test_a_former_member_is_removed() -> None:
    """A peer without a record is taken out, whoever added it."""
    change = device_change(replace(WANTED, peers=frozenset({PEER})), reading(), WANTED)

    assert change == DeviceChange(remove=(b"o" * 32,))


def test_a_peer_may_send_from_its_inner_address_only() -> None:
    """A wider or another range is replaced."""
    found = reading()
    wide = PeerReading(((PEER.inner, 64),), 0.0, 0, 0)
    more = PeerReading(((OTHER.inner, 128), (OWN, 128)), 0.0, 0, 0)
    altered = replace(found, peers={PEER.public_key: wide, OTHER.public_key: more})

    assert device_change(WANTED, altered, WANTED) == DeviceChange(put=(OTHER, PEER))


def test_a_roaming_peer_is_left_alone() -> None:
    """Its address is written when its card changes, not whenever it differs."""
    moved = PEER._replace(address=parse_ip("198.51.100.9"))
    after = replace(WANTED, peers=frozenset({moved, OTHER}))

    assert device_change(WANTED, reading(), WANTED) == DeviceChange()
    assert device_change(after, reading(), WANTED) == DeviceChange(put=(moved,))


def test_no_key_is_shown() -> None:
    """Neither state nor change nor reading has the private key in its text."""
    change = device_change(WANTED, DeviceReading(b"", 0, {}), None)

    assert "kkkk" not in f"{WANTED!r}{change!r}{reading()!r}"


@pytest.mark.parametrize(
    ("gossip", "vxlan", "port"),
    [(7948, 4789, 7949), (4788, 4789, 4790), (65535, 4789, 65534), (65534, 65535, 65533)],
)
def test_the_port_follows_the_gossip_port(gossip: int, vxlan: int, port: int) -> None:
    """It is free whatever ports the cluster has, and all members agree on it."""
    assert wireguard_port(gossip, vxlan) == port


def test_the_device_carries_what_ipv6_needs() -> None:
    """Its MTU follows the underlay, down to what an encrypted network with IPv6 sends."""
    assert tunnel_mtu(1500, parse_ip("192.0.2.1")) == 1440
    assert tunnel_mtu(1500, parse_ip("2001:db8::1")) == 1420
    assert tunnel_mtu(1280, parse_ip("192.0.2.1")) == 1350
