"""The state of one sandbox as a value, both desired and actual.

The planner derives one from records, the kernel layer reads one from the kernel; converged means
that the two are equal. The kernel layer's reader normalises kernel quirks, so nothing here or in
`diff` knows them. Sets hold named tuples of packed bytes and names, never interface indexes,
which only the kernel layer knows.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from overlay.core.dataplane.link_state import POLICY_LINK, SHORTCUT_PREFIX, Link
from overlay.model import Ip, Mac


class AddressRow(NamedTuple):
    """An address on a link of the sandbox (the gateway's, on a bridge)."""

    link: str
    ip: Ip
    prefix_length: int


class FdbRow(NamedTuple):
    """On a VXLAN device (NTF_SELF): sends frames for `mac` to `vtep`."""

    link: str
    mac: Mac
    vtep: Ip


class FloodRow(NamedTuple):
    """On a VXLAN device: flooded frames go to this VTEP too.

    NTF_SELF, all-zeros MAC, appended.
    """

    link: str
    vtep: Ip


class GroupRow(NamedTuple):
    """On a VXLAN device: frames for a multicast MAC go to this VTEP, and not to all.

    NTF_SELF, appended: one row for each VTEP. The zero address stands for none: the device drops
    what is sent there.
    """

    mac: Mac  # a field order unlike all other rows'
    link: str
    vtep: Ip


class BridgeFdbRow(NamedTuple):
    """On a bridge port: `mac` is behind it.

    NTF_MASTER | NTF_EXT_LEARNED, never permanent.
    """

    link: str
    mac: Mac


class NeighborRow(NamedTuple):
    """A permanent neighbor of a bridge, for neigh_suppress to answer with."""

    link: str
    ip: Ip
    mac: Mac


class RouteRow(NamedTuple):
    """A route of the sandbox through an address on a link.

    `base` with length 0 is the default route.
    """

    link: str
    base: Ip
    prefix_length: int
    gateway: Ip


class BarrierRow(NamedTuple):
    """Packets that enter by a link are not routed to a range.

    A rule of type prohibit (ip-rule(8)).
    """

    link: str
    prefix_length: int  # before the address, as otherwise it could equal an AddressRow
    base: Ip


class EntryRow(NamedTuple):
    """Packets that enter by a router's link from a range of sources are routed, or are not.

    A rule that looks up the main table, or for all other sources of a family one of type prohibit.
    """

    link: str
    base: Ip
    prefix_length: int
    allow: bool


ANY_ETHERTYPE = 0
"""In a `GuardRow`: all types but those of VLAN tags, which could hide a forged packet."""


class GuardRow(NamedTuple):
    """Port security: the container may send from these MACs and addresses only.

    Both are sorted. Without a MAC the port is open; without a row it is closed. Answers of a DHCP
    server and router advertisements pass where the row says so, from these addresses, too. An
    isolated port exchanges no frames with the addresses that have an `IsolatedRow`.
    """

    macs: tuple[Mac, ...]
    ips: tuple[Ip, ...]
    link: str
    is_dhcp_server: bool = False
    is_router: bool = False
    is_isolated: bool = False
    is_tagged: bool = False  # all its frames have VLAN tags on the bridge; else none has
    ethertypes: tuple[int, ...] = ()  # beside IP and ARP, sorted


class IsolatedRow(NamedTuple):
    """A MAC or IP address of an isolated endpoint, on whatever host it is."""

    address: Mac | Ip

    @property
    def link(self) -> str:
        """Return the link that the row is filed under: it is of the whole sandbox."""
        return POLICY_LINK


class BoundaryRow(NamedTuple):
    """Frames of protocols between switches (STP, LLDP, ...) end at the sandbox's ports."""

    link: str = POLICY_LINK  # it is of the whole sandbox


class StormRow(NamedTuple):
    """Storm control: a port may send so many broadcast and multicast frames a second."""

    link: str
    per_second: int


TRUSTED = 8
"""In a `MarkRow`: in place of a priority, that which the container's own DSCP asks for."""


class MarkRow(NamedTuple):
    """Packets that a container sends by a port get a priority, 0 to 7 or `TRUSTED`."""

    link: str
    priority: int


class SharedRateRow(NamedTuple):
    """A rate in bits per second, a multiple of 8, that all frames to a VXLAN device share."""

    link: str
    bits: int


class SourceRow(NamedTuple):
    """On the fast path, a port may send from this MAC and address.

    Other frames use the bridge.
    """

    ip: Ip  # a field order unlike all other rows': tuples with equal content are equal
    mac: Mac
    link: str


class TargetRow(NamedTuple):
    """On the fast path, frames of a segment for `mac` leave by `link`.

    Directly into the container behind a port, or to a bridge for the bridge's own MACs. The zero
    MAC stands for all others.
    """

    mac: Mac
    segment: int
    link: str


class RemoteRow(NamedTuple):
    """On the native path, frames of a segment for `mac` go to `vtep`, as an equal FdbRow says."""

    mac: Mac
    segment: int
    vtep: Ip

    @property
    def link(self) -> str:
        """Return the sandbox's end of the shortcut that the frames leave by."""
        return f"{SHORTCUT_PREFIX}{self.segment}"


class HookRow(NamedTuple):
    """The segment's program runs on frames that enter by `link`.

    With `is_leaving`, on frames that the sandbox sends by it. A policed program also applies the
    network's policies; only those run on frames that leave, and at a shortcut the program that
    sends to other hosts. With `is_vlan` it is the program of a port that is in VLANs, in both
    directions.
    """

    segment: int
    link: str
    is_policed: bool = False
    is_leaving: bool = False
    is_vlan: bool = False


class VlanRow(NamedTuple):
    """The VLANs of a port, for the programs of `HookRow`s with `is_vlan`.

    A trunk's frames have their tags in the container, too; those of another port have none there.
    """

    ranges: tuple[tuple[int, int], ...]
    is_trunk: bool
    link: str


NO_CLASS = 0
"""Number of the addresses without a `PolicyClassRow`: only the default applies to them."""
GATEWAY_CLASS = 1
"""Number of the class of a network's gateways, which DNS and DHCP always reach."""
DEFAULT_RULE = 0
"""The `rule` of a network's default; policies have other numbers."""


class PolicyClassRow(NamedTuple):
    """The addresses of a range are of a class; of several ranges, the longest prefix counts."""

    base: Ip
    prefix_length: int
    number: int  # at most limits.POLICY_CLASSES_MAX

    @property
    def link(self) -> str:
        """Return the link that the row is filed under: it is of the whole sandbox."""
        return POLICY_LINK


class VerdictRow(NamedTuple):
    """Whether connections from one class to another may be opened.

    One match by longest prefix finds it: the network's default (`NO_CLASS` twice), a pair of
    classes, of these a protocol, and of that the destination ports that share the first
    `port_bits` bits with `port`. Protocol 0 is any, 1 is ICMP of both IP versions; all others than
    TCP and UDP have port 0. Without a default row, what no row covers is denied.
    """

    source: int
    destination: int
    protocol: int
    port: int
    port_bits: int  # 0: any port
    allow: bool
    log: bool = False  # keep samples of what it denies
    rule: int = DEFAULT_RULE  # counts what it decides; below limits.POLICY_RULES_MAX

    @property
    def link(self) -> str:
        """Return the link that the row is filed under: it is of the whole sandbox."""
        return POLICY_LINK

    @property
    def prefix_length(self) -> int:
        """Return how many bits of classes, protocol and port count: 0, 32, 48, up to 64."""
        if self.source == self.destination == NO_CLASS:
            return 0
        return 48 + self.port_bits if self.protocol else 32


class RateRow(NamedTuple):
    """A port's limits in bits per second, 0 for none.

    `in_bits` is to its container, `out_bits` from it.
    """

    link: str
    in_bits: int
    out_bits: int


class InterceptRow(NamedTuple):
    """DNS queries that enter by a bridge for a resolver elsewhere reach this node's server.

    Those of one family, and only while the server has a socket on that resolver's address.
    """

    link: str
    address_size: int  # 4 or 16 bytes


class UnexpectedRow(NamedTuple):
    """A permanent row that no plan contains: another VNI, VLAN or kind.

    Only read and deleted: `request` is the kernel layer's way to delete it.
    """

    link: str
    text: str
    request: bytes


Row: TypeAlias = (
    AddressRow
    | FdbRow
    | FloodRow
    | GroupRow
    | BridgeFdbRow
    | NeighborRow
    | RouteRow
    | BarrierRow
    | EntryRow
    | GuardRow
    | BoundaryRow
    | IsolatedRow
    | StormRow
    | MarkRow
    | SharedRateRow
    | SourceRow
    | TargetRow
    | VlanRow
    | RemoteRow
    | HookRow
    | PolicyClassRow
    | VerdictRow
    | RateRow
    | InterceptRow
    | UnexpectedRow
)


@dataclass(frozen=True, slots=True)
class SandboxState:
    """The whole state of one sandbox.

    Everything permanent inside a sandbox belongs to overlayd.
    """

    links: dict[str, Link] = field(default_factory=dict)
    rows: AbstractSet[Row] = frozenset()
