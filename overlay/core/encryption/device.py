"""A WireGuard device as a value: desired, read, and the difference.

Owns: what must be written so that the device has exactly the desired key, port and peers.
Does not: know how a device is read or written (`kernel.wireguard`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from overlay import limits
from overlay.model import Ip

DEVICES: Final = ("wg-ovl", "wg-ovl2")
"""The devices' names by slot; nftables rules and people refer to them.

A device has one private key, and replacing it there loses packets. So a key is replaced by a second
device with a port of its own, and each rotation moves from one to the other.
"""


class TunnelPeer(NamedTuple):
    """A member as a WireGuard peer: it may send from its one inner address only."""

    public_key: bytes
    inner: Ip
    address: Ip  # of its underlay
    port: int


@dataclass(frozen=True, slots=True)
class TunnelState:
    """A desired device of this node, with its addresses and routes."""

    private_key: bytes = field(repr=False)
    port: int
    prefix: bytes  # of all inner addresses
    address: Ip  # this node's inner address
    mtu: int
    peers: frozenset[TunnelPeer] = frozenset()
    standby: frozenset[Ip] = frozenset()  # the peers whose packets leave by the other device
    slot: int = 0

    @property
    def name(self) -> str:
        """Return the device's name."""
        return DEVICES[self.slot]


class PeerReading(NamedTuple):
    """A peer as the device has it."""

    inner: tuple[tuple[Ip, int], ...]  # the ranges that it may send from
    handshake_s: float  # Unix time of the last one; 0: never
    received: int  # bytes
    sent: int


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """The device's configuration and counters, as read."""

    private_key: bytes = field(repr=False)
    port: int
    peers: Mapping[bytes, PeerReading]  # by public key


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """A change of a device; None and empty parts stay as they are."""

    private_key: bytes | None = field(default=None, repr=False)
    port: int | None = None
    put: tuple[TunnelPeer, ...] = ()
    remove: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return self != DeviceChange()


def device_change(
    wanted: TunnelState, found: DeviceReading, before: TunnelState | None
) -> DeviceChange:
    """Return the change that makes a device the desired one.

    A peer's endpoint is written only when it differs from the one written `before`: WireGuard
    itself follows a peer whose authenticated packets come from elsewhere, behind NAT for example.
    """
    written = before.peers if before is not None else frozenset()
    put = [
        peer
        for peer in wanted.peers
        if (there := found.peers.get(peer.public_key)) is None
        or there.inner != ((peer.inner, 128),)
        or peer not in written
    ]
    surplus = found.peers.keys() - {peer.public_key for peer in wanted.peers}
    return DeviceChange(
        None if found.private_key == wanted.private_key else wanted.private_key,
        None if found.port == wanted.port else wanted.port,
        tuple(sorted(put)),
        tuple(sorted(surplus)),
    )


def wireguard_port(gossip_port: int, vxlan_port: int, slot: int = 0) -> int:
    """Return the UDP port of a device: the first free one after the gossip port, or the second."""
    near = (gossip_port + step for step in (1, 2, 3, -1, -2, -3))
    return [port for port in near if port != vxlan_port and 0 < port < 65536][slot]


def wireguard_overhead(underlay: Ip) -> int:
    """Return the bytes that WireGuard adds to a packet over an underlay of this family."""
    return limits.WIREGUARD_OVERHEAD_IPV4 if len(underlay) == 4 else limits.WIREGUARD_OVERHEAD_IPV6


def tunnel_mtu(underlay_mtu: int, underlay: Ip) -> int:
    """Return the device's MTU.

    At least what a network with IPv6 needs: WireGuard's packets are fragmented where necessary.
    """
    smallest = limits.IPV6_MTU_MIN + limits.VXLAN_OVERHEAD_IPV6
    return max(underlay_mtu - wireguard_overhead(underlay), smallest)
