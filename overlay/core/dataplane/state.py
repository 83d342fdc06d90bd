"""The state of one sandbox, as a value: what should be there and what is there alike.

The planner makes one from records, the kernel layer reads one from the kernel; converged
means that the two are equal. Kernel quirks are normalised in the kernel layer's reader, so
nothing here or in `diff` knows of them. Sets hold named tuples of packed bytes and names,
never interface indexes: those are the kernel layer's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from overlay.model import Ip, Mac, Vni


class Bridge(NamedTuple):
    """A bridge of a sandbox: no multicast snooping, no STP, no IPv6 address of its own.

    `altered` is empty in every desired link; in an actual one it names what we always set
    and somebody changed ("up", "neigh_suppress").
    """

    name: str
    mac: Mac
    mtu: int
    altered: tuple[str, ...] = ()


class Vxlan(NamedTuple):
    """A VTEP: `nolearning`, own `local`, no checksum tricks, port of `master`
    with neigh_suppress on and learning off."""

    name: str
    vni: Vni
    local: Ip
    port: int
    mtu: int
    master: str
    altered: tuple[str, ...] = ()


PORT_PREFIX = "ve"
"""How the name of every container's port begins: port security looks at those."""
HOST_PORT_PREFIX = "host"
"""How the name of the port of this host's own end begins: the segment's number follows."""
HOST_LINK_PREFIX = "ovh"
"""Prefix of the host's own interface on a network, in the host's namespace."""


class Port(NamedTuple):
    """The sandbox's end of an endpoint's veth pair, a port of `master`."""

    name: str
    mtu: int
    master: str
    altered: tuple[str, ...] = ()


Link: TypeAlias = Bridge | Vxlan | Port


class AddressRow(NamedTuple):
    """An address on a link of the sandbox (the gateway's, on a bridge)."""

    link: str
    ip: Ip
    prefix_length: int


class FdbRow(NamedTuple):
    """On a VXLAN device (NTF_SELF): frames to `mac` go to `vtep`."""

    link: str
    mac: Mac
    vtep: Ip


class FloodRow(NamedTuple):
    """On a VXLAN device (NTF_SELF, all-zeros MAC, appended): what is flooded goes here too."""

    link: str
    vtep: Ip


class BridgeFdbRow(NamedTuple):
    """On a bridge port (NTF_MASTER | NTF_EXT_LEARNED, never permanent): `mac` is behind it."""

    link: str
    mac: Mac


class NeighborRow(NamedTuple):
    """A permanent neighbour of a bridge: what neigh_suppress answers with."""

    link: str
    ip: Ip
    mac: Mac


class RouteRow(NamedTuple):
    """A route of the sandbox by way of an address on a link: `base` and length 0 is the default."""

    link: str
    base: Ip
    prefix_length: int
    gateway: Ip


class BarrierRow(NamedTuple):
    """What comes in by a link is not routed to a range: a rule of type prohibit (ip-rule(8))."""

    link: str
    prefix_length: int  # before the address, or it would equal an AddressRow
    base: Ip


class GuardRow(NamedTuple):
    """Port security at a port: its container sends from this MAC and these addresses, sorted, or
    is not heard. Without a MAC the port is open; without a row it is shut."""

    mac: Mac
    ips: tuple[Ip, ...]
    link: str


class SourceRow(NamedTuple):
    """On the fast path a port may send from this MAC and address; others take the bridge."""

    ip: Ip  # the order of fields differs from all other rows': tuples of one content are equal
    mac: Mac
    link: str


class TargetRow(NamedTuple):
    """On the fast path, a segment's frames to `mac` go out by `link`: straight into the container
    behind a port; to a bridge's own end, the usual way. The zero MAC stands for all others."""

    mac: Mac
    segment: int
    link: str


class HookRow(NamedTuple):
    """The segment's program of the fast path runs on what comes in by `link`."""

    segment: int
    link: str


class RateRow(NamedTuple):
    """A port's limits in bits per second, 0 for none: to its container, and from it."""

    link: str
    in_bits: int
    out_bits: int


class UnexpectedRow(NamedTuple):
    """A fixed row in our sandbox that no plan of ours writes: another VNI, VLAN or kind.

    Only ever read and deleted: `request` is the kernel layer's own way to do that.
    """

    link: str
    text: str
    request: bytes


Row: TypeAlias = (
    AddressRow
    | FdbRow
    | FloodRow
    | BridgeFdbRow
    | NeighborRow
    | RouteRow
    | BarrierRow
    | GuardRow
    | SourceRow
    | TargetRow
    | HookRow
    | RateRow
    | UnexpectedRow
)


@dataclass(frozen=True, slots=True)
class SandboxState:
    """All that is ours in one sandbox. Everything permanent inside a sandbox is ours."""

    links: dict[str, Link] = field(default_factory=dict)
    rows: frozenset[Row] = frozenset()
