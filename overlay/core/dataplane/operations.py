"""The operations that change a sandbox state, as values.

Owns: the effect of each operation on a `SandboxState` (`applied`), which rows the kernel holds at
most once (`row_key`), and the text of an operation: the `ip` or `bridge` command that would do
the same. Does not: decide which operations are needed (`diff`), or perform them (the kernel
layer).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from overlay.core.dataplane.link_state import (
    Bridge,
    Link,
    PlugPort,
    Port,
    RouterLink,
    Shortcut,
    Vxlan,
)
from overlay.core.dataplane.state import (
    TRUSTED,
    AddressRow,
    BarrierRow,
    BoundaryRow,
    BridgeFdbRow,
    EntryRow,
    FdbRow,
    FloodRow,
    GroupRow,
    GuardRow,
    HookRow,
    InterceptRow,
    IsolatedRow,
    MarkRow,
    NeighborRow,
    PolicyClassRow,
    RateRow,
    RemoteRow,
    RouteRow,
    Row,
    SandboxState,
    SharedRateRow,
    SourceRow,
    StormRow,
    TargetRow,
    UnexpectedRow,
    VerdictRow,
    VlanRow,
)
from overlay.core.vlan.vlans import Vlans
from overlay.model import Ip, Mac, ip_text, mac_text


@dataclass(frozen=True, slots=True)
class PutLink:
    """Create the link and bring it up; adopt an existing veth end (`Port`).

    Fails for a `Port` whose interface is not in the sandbox: only an attach creates those.
    """

    link: Link

    def __str__(self) -> str:
        link = self.link
        match link:
            case Bridge():
                return f"ip link add {link.name} {_attributes(link)} type bridge"
            case Vxlan():
                return (
                    f"ip link add {link.name} mtu {link.mtu} master {link.master} type vxlan"
                    f" id {link.vni} local {ip_text(link.local)} dstport {link.port} nolearning"
                )
            case Shortcut():
                return f"ip link add {link.name} mtu {link.mtu} type veth peer netns HOST"
            case Port():
                return f"ip link set {link.name} {_attributes(link)}"
            case RouterLink():
                return f"ip link add {link.name} {_attributes(link)} type veth"
            case PlugPort():
                return (
                    f"ip link add {link.name} link {link.parent} mtu {link.mtu} master"
                    f" {link.master} type macvlan mode passthru"
                )


@dataclass(frozen=True, slots=True)
class ChangeLink:
    """Change what differs between two links of one name and kind.

    Never a VXLAN's VNI, port or address family: the kernel rejects those, and `diff` replaces the
    device.
    """

    before: Link
    after: Link

    def __str__(self) -> str:
        changed = _attributes(self.after, unlike=self.before)
        return f"ip link set {self.after.name} {changed}"


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Remove the link with its rows; its ports lose their master."""

    link: Link

    def __str__(self) -> str:
        return f"ip link del {self.link.name}"


@dataclass(frozen=True, slots=True)
class PutRow:
    """Create the row, in place of any row with the same `row_key`."""

    row: Row

    def __str__(self) -> str:
        return _row_text(self.row, add=True)


@dataclass(frozen=True, slots=True)
class DeleteRow:
    """Remove the row; a missing one is not an error."""

    row: Row

    def __str__(self) -> str:
        return _row_text(self.row, add=False)


Operation: TypeAlias = PutLink | ChangeLink | DeleteLink | PutRow | DeleteRow


def name_of_link(operation: Operation) -> str:
    """Return the name of the link that an operation changes, or whose row it is."""
    match operation:
        case PutLink(link) | ChangeLink(_, link) | DeleteLink(link):
            return link.name
        case PutRow(row) | DeleteRow(row):
            return row.link


RowKey: TypeAlias = tuple[str, str, bytes, bytes]
_VERDICT_KEY: Final = struct.Struct("=IIIII")


def row_key(row: Row) -> RowKey:
    """Return the kernel's key of a row: a put replaces, a delete looks it up."""
    match row:
        case AddressRow(link, ip, _):
            return ("address", link, ip, b"")
        case FdbRow(link, mac, _):
            return ("fdb", link, mac, b"")
        case FloodRow(link, vtep):
            return ("flood", link, vtep, b"")
        case GroupRow(mac, link, vtep):
            return ("group", link, mac, vtep)
        case BridgeFdbRow(link, mac):
            return ("bridge-fdb", link, mac, b"")
        case NeighborRow(link, ip, _):
            return ("neighbour", link, ip, b"")
        case RouteRow(link, base, prefix_length, _):
            return ("route", link, base, bytes([prefix_length]))
        case BarrierRow(link, prefix_length, base):
            return ("barrier", link, base, bytes([prefix_length]))
        case EntryRow(link, base, prefix_length, allow):
            return ("entry", link, base, bytes([prefix_length, allow]))
        case GuardRow():
            return ("guard", row.link, b"", b"")
        case BoundaryRow(link):
            return ("boundary", link, b"", b"")
        case IsolatedRow(address):
            return ("isolated", "", address, b"")
        case StormRow(link, _):
            return ("storm", link, b"", b"")
        case MarkRow(link, _):
            return ("mark", link, b"", b"")
        case SharedRateRow(link, _):
            return ("shared rate", link, b"", b"")
        case SourceRow(ip, mac, link):
            return ("source", link, ip, mac)
        case TargetRow(mac, segment, _):
            return ("target", str(segment), mac, b"")
        case VlanRow(_, _, link):
            return ("vlan", link, b"", b"")
        case RemoteRow(mac, segment, _):
            return ("remote", str(segment), mac, b"")
        case HookRow(_, link, _, is_leaving):
            return ("hook", link, bytes([is_leaving]), b"")
        case PolicyClassRow(base, prefix_length, _):
            return ("class", "", base, bytes([prefix_length]))
        case VerdictRow():
            return ("verdict", "", _VERDICT_KEY.pack(*row[:5]), b"")
        case RateRow(link, _, _):
            return ("rate", link, b"", b"")
        case InterceptRow(link, size):
            return ("intercept", link, bytes([size]), b"")
        case UnexpectedRow(link, _, request):
            return ("strange", link, request, b"")


def applied(state: SandboxState, operations: Iterable[Operation]) -> SandboxState:
    """Return the state after the operations, as the kernel would have it.

    The model that tests and simulator compare with the real kernel. Raises ValueError where the
    kernel would refuse: a row or a port on a link that does not exist.
    """
    links = dict(state.links)
    rows = {row_key(row): row for row in state.rows}
    for operation in operations:
        match operation:
            case PutLink(link) | ChangeLink(_, link):
                if isinstance(link, Vxlan | Port) and link.master not in {"", *links}:
                    raise ValueError(f"{operation}: no bridge {link.master}")
                links[link.name] = link
            case DeleteLink(link):
                _delete_link(links, rows, link.name)
            case PutRow(row):
                if row.link not in links:
                    raise ValueError(f"{operation}: no link {row.link}")
                rows[row_key(row)] = row
            case DeleteRow(row):
                rows.pop(row_key(row), None)
    return SandboxState(links, frozenset(rows.values()))


def _delete_link(links: dict[str, Link], rows: dict[RowKey, Row], name: str) -> None:
    links.pop(name, None)
    for key in [key for key, row in rows.items() if row.link == name]:
        del rows[key]
    for other in list(links.values()):
        if isinstance(other, Vxlan | Port) and other.master == name:
            links[other.name] = other._replace(master="")


def _attributes(link: Link, unlike: Link | None = None) -> str:
    """Return link attributes as for `ip link set`; only those that differ."""
    before: dict[str, object] = {} if unlike is None else unlike._asdict()
    words = []
    for field_name, value in link._asdict().items():
        if field_name == "name" or (unlike is not None and before.get(field_name) == value):
            continue
        match field_name:
            case "mac":
                words.append(f"address {mac_text(value)}")
            case "local":
                words.append(f"type vxlan local {ip_text(value)}")
            case "altered":
                if unlike is not None:
                    words.append(f"# restores {', '.join(unlike.altered)}")
            case "peer":
                words.append(f"# to the sandbox of VNI {value}")
            case "master" if not value:
                words.append("nomaster")
            case _:
                words.append(f"{field_name} {value}")
    return " ".join(words)


def _row_text(row: Row, *, add: bool) -> str:
    verb = "replace" if add else "del"
    match row:
        case AddressRow(link, ip, prefix_length):
            return f"ip address {verb} {ip_text(ip)}/{prefix_length} dev {link}"
        case FdbRow(link, mac, vtep):
            return f"bridge fdb {verb} {mac_text(mac)} dev {link} dst {ip_text(vtep)} self"
        case FloodRow(link, vtep):
            verb = "append" if add else "del"
            return f"bridge fdb {verb} 00:00:00:00:00:00 dev {link} dst {ip_text(vtep)} self"
        case GroupRow(mac, link, vtep):
            verb = "append" if add else "del"
            return f"bridge fdb {verb} {mac_text(mac)} dev {link} dst {ip_text(vtep)} self"
        case BridgeFdbRow(link, mac):
            suffix = " extern_learn" if add else ""
            return f"bridge fdb {verb} {mac_text(mac)} dev {link} master{suffix}"
        case NeighborRow(link, ip, mac):
            suffix = f" lladdr {mac_text(mac)} nud permanent" if add else ""
            return f"ip neighbour {verb} {ip_text(ip)}{suffix} dev {link}"
        case RouteRow(link, base, prefix_length, gateway):
            where = f"{ip_text(base)}/{prefix_length}"
            return f"ip route {verb} {where} via {ip_text(gateway)} dev {link}"
        case BarrierRow(link, prefix_length, base):
            verb = "add" if add else "del"
            return f"ip rule {verb} iif {link} to {ip_text(base)}/{prefix_length} prohibit"
        case EntryRow(link, base, prefix_length, allow):
            verb, action = "add" if add else "del", "lookup main" if allow else "prohibit"
            return f"ip rule {verb} iif {link} from {ip_text(base)}/{prefix_length} {action}"
        case IsolatedRow(address):
            shown = mac_text(Mac(address)) if len(address) == 6 else ip_text(Ip(address))
            return f"port security {verb} isolated {shown}"
        case GuardRow():
            return _guard_text(row, verb)
        case BoundaryRow(link):
            return f"boundary {verb} at the ports of {link}"
        case StormRow(link, per_second):
            return f"storm control {verb} {per_second} frames a second at {link}"
        case VlanRow(ranges, is_trunk, link):
            kind = "trunk" if is_trunk else "access"
            return f"vlan {verb} {kind} {Vlans(ranges, is_trunk)} at {link}"
        case MarkRow(link, priority):
            what = "the container's own" if priority == TRUSTED else str(priority)
            return f"priority {verb} {what} at {link}"
        case SharedRateRow(link, bits):
            return f"shared rate {verb} {bits} bit/s at {link}"
        case SourceRow() | TargetRow() | RemoteRow() | HookRow():
            return _fast_text(row, verb)
        case PolicyClassRow() | VerdictRow():
            return _policy_text(row, verb)
        case RateRow(link, in_bits, out_bits):
            return f"rate {verb} {in_bits} bit/s in, {out_bits} bit/s out at {link}"
        case InterceptRow(link, size):
            family = "-4" if size == 4 else "-6"
            verb = "add" if add else "del"
            return f"ip {family} rule {verb} iif {link} fwmark 0x35 lookup 53"
        case UnexpectedRow(_, text, _):
            return f"bridge fdb {verb} {text}"


def _guard_text(row: GuardRow, verb: str) -> str:
    roles = ["dhcp-server"] * row.is_dhcp_server + ["router"] * row.is_router
    roles += ["isolated"] * row.is_isolated
    types = [f"type {each:#06x}" if each else "any type" for each in row.ethertypes]
    words = [*map(mac_text, row.macs), *map(ip_text, row.ips), *roles, *types]
    return f"port security {verb} {' '.join(words) or 'open'} at {row.link}"


def _fast_text(row: SourceRow | TargetRow | RemoteRow | HookRow, verb: str) -> str:
    match row:
        case SourceRow(ip, mac, link):
            return f"fast path {verb} source {ip_text(ip)} {mac_text(mac)} at {link}"
        case TargetRow(mac, segment, link):
            where = mac_text(mac) if any(mac) else "all others"
            return f"fast path {verb} {where} of segment {segment} by {link}"
        case RemoteRow(mac, segment, vtep):
            return f"native path {verb} {mac_text(mac)} of segment {segment} to {ip_text(vtep)}"
        case HookRow(segment, link, is_policed, is_leaving, is_vlan):
            kind = "policed program" if is_policed else "program"
            kind = f"VLAN's {kind}" if is_vlan else kind
            leaving = ", leaving" if is_leaving else ""
            return f"fast path {verb} {kind} of segment {segment} on {link}{leaving}"


def _policy_text(row: PolicyClassRow | VerdictRow, verb: str) -> str:
    if isinstance(row, PolicyClassRow):
        return f"policy {verb} class {row.number} of {ip_text(row.base)}/{row.prefix_length}"
    action = "allow" if row.allow else "deny"
    words = f"policy {verb} {action} by rule {row.rule}{' and log' if row.log else ''}"
    if not row.prefix_length:
        return f"{words} by default"
    what = f" protocol {row.protocol}" if row.protocol else ""
    port = f" port {row.port}/{row.port_bits}" if row.protocol and row.port_bits else ""
    return f"{words} class {row.source} to {row.destination}{what}{port}"
