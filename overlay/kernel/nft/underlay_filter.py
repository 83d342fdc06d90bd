"""The table that admits VXLAN packets only from members.

VXLAN has no authentication (RFC 7348 section 7). Packets to its port for one of the cluster's VNIs
must therefore come from a member's VTEP, through the interface that leads back there, or one
through which they may come as well (`ArrivalPath`): a container that uses a member's address sends
through another one. The same applies to forwarded packets, as a
container must not reach another host's VTEP from this host's address. One check before routing
covers both, because each hook costs every packet of the host. So does each rule: the host's own
packets meet three, which send them on unless they come by a tunnel or go to one of the cluster's
ports, and the chain of encrypted networks exists only while there is one. Other VNIs are ignored:
another VXLAN of this host (Docker swarm's, another agent's) may share the port.

Accepted packets are not tracked, so the host never masquerades them, and a container whose traffic
was masqueraded to source port 4789 does not receive VXLAN packets that look like replies.

Gossip is restricted less, because a host that joins is not a member yet: packets to its port are
dropped if they come from a container by the host endpoint of a network, or are forwarded and not a
member's. Otherwise a container's packets, masqueraded, would count as this host's on the others.
Gossip is not tracked either: a full table of connections would cut this host off.

Frames of encrypted networks pass through the WireGuard devices alone: any that come by another
interface, also from a member's address, and any that would leave by another one are dropped. By
interface, not by a mark, because others' rules can set or clear marks; after all other programs'
output hooks, as these may change the route.

Frames of a network that is being switched to encryption, or back, may come by the devices as well.

The tunnels carry nothing else: what comes by the device and is no frame of an encrypted network is
dropped, and nothing is forwarded into it, so neither members nor containers reach a host's services
by inner addresses.

The VTEPs of a BGP EVPN fabric are no members: they may send on the exported networks alone, by the
interface that leads back to them.

Nothing is accepted by the loopback: no member's packets come by it, and any local user can send
from any IPv6 address there.

Limitation: what processes in the host's own network namespace send to other hosts is not stopped.
The kernel's own VXLAN packets pass the same hook and may carry the process's socket.
"""

from __future__ import annotations

import struct
from typing import Final

from overlay.core.dataplane.link_state import HOST_LINK_PREFIX
from overlay.core.dataplane.underlay_filter import ArrivalPath, FilterState
from overlay.core.encryption.device import DEVICES
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft import userdata
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.table import FAMILY_INET, FORWARD, OUTPUT, PREROUTING, Chain, Set, Table
from overlay.kernel.nft.tables import NftTables
from overlay.model import Ip, NodeId, Vni

_BEFORE_TRACKING: Final = -300  # as iptables' raw table: tracking is at -200
_AFTER_OTHERS: Final = 300
_IPV4_SOURCE, _IPV6_SOURCE = (12, 4), (8, 16)  # offset and size in the IP header
_VNI: Final = (8 + 4, 3)  # behind the UDP header: flags and reserved bytes first
_TYPE_INTEGER, _TYPE_IPV4, _TYPE_IPV6, _TYPE_INDEX = 4, 7, 8, 20  # nft's own numbers
_MEMBERS_IPV4, _MEMBERS_IPV6, _VNIS = "members4", "members6", "vnis"
_PATHS_IPV4, _PATHS_IPV6 = "paths4", "paths6"
_ENCRYPTED: Final = "encrypted"
_SWITCHING: Final = "switching"
_OUTSIDE, _EXPORTED = "outside4", "exported"
_CHECK_COUNTERS: Final = 3  # of the first chain
_GOSSIP_COUNTERS: Final = 2  # of the last chain but `leaving`
_INDEX: Final = struct.Struct("=I")
_REFUSED: Final = (ex.counter(), ex.drop())
_LET_IN: Final = (ex.notrack(), ex.accept())
_DEVICE_PREFIX: Final = DEVICES[0]  # the other begins with it

_SETS: Final = (
    Set(_MEMBERS_IPV4, _TYPE_IPV4, 4),
    Set(_MEMBERS_IPV6, _TYPE_IPV6, 16),
    *(
        Set(name, _TYPE_INTEGER, 3, userdata.transport_header(*_VNI))
        for name in (_VNIS, _ENCRYPTED, _SWITCHING, _EXPORTED)
    ),
    Set(_OUTSIDE, _TYPE_IPV4, 4),
    Set(_PATHS_IPV4, _TYPE_INDEX << 6 | _TYPE_IPV4, 8),
    Set(_PATHS_IPV6, _TYPE_INDEX << 6 | _TYPE_IPV6, 20),
)


def table_name(node_id: NodeId) -> str:
    """Return the table's name, unique by node.

    Several agents may share a host.
    """
    return f"overlayd_{node_id[:3].hex()}"


def table_of(node_id: NodeId, port: int, gossip_port: int, *, has_encrypted: bool = False) -> Table:
    """Return the table of a node, for the cluster's ports of VXLAN and gossip.

    What leaves is checked only if a network is encrypted.
    """
    to_cluster = (*ex.udp_to(port), ex.transport_header(*_VNI), ex.in_set(_VNIS))
    check, gossip = _from_members()
    of_encrypted = (*ex.udp_to(port), ex.transport_header(*_VNI), ex.in_set(_ENCRYPTED))
    of_switching = (*ex.udp_to(port), ex.transport_header(*_VNI), ex.in_set(_SWITCHING))
    from_outside = (*ex.udp_to(port), ex.transport_header(*_VNI), ex.in_set(_EXPORTED))
    from_outside += (*ex.is_ipv4(), ex.network_header(*_IPV4_SOURCE), ex.in_set(_OUTSIDE))
    to_cluster_ports: tuple[Rule, ...] = (
        (*_with_port(2, port), ex.goto("vxlan")),
        (*_with_port(2, gossip_port), ex.goto("gossip")),
    )
    by_device: tuple[Rule, ...] = tuple(
        (*ex.iifname_is(device), *rule)
        for device in DEVICES
        for rule in ((*of_encrypted, *_LET_IN), (*of_switching, *_LET_IN), (ex.drop(),))
    )
    vxlan = (
        (*of_encrypted, ex.goto("tunneled")),
        (*from_outside, *ex.passes_reverse_path(), *_LET_IN),
        (*to_cluster, ex.goto("check")),
        *_short_fragments(port),
    )
    arriving = ((*ex.iifname_prefix(_DEVICE_PREFIX), ex.goto("by_device")), *to_cluster_ports)
    sent = (
        (*_with_port(2, port), ex.transport_header(*_VNI), ex.in_set(_VNIS), ex.notrack()),
        (*_with_port(0, gossip_port), ex.notrack()),
    )
    forwarded = tuple((*ex.oifname_is(device), ex.drop()) for device in DEVICES)
    by_none = tuple(part for device in DEVICES for part in ex.oifname_is_not(device))
    leaving = Chain("leaving", ((*of_encrypted, *by_none, *_REFUSED),), (OUTPUT, _AFTER_OTHERS))
    return Table(
        FAMILY_INET,
        table_name(node_id),
        _SETS,
        (
            Chain("check", check),  # the first, for `refused_counts`
            Chain("tunneled", (_REFUSED,)),  # the second, for `clear_counts`
            Chain("vxlan", vxlan),
            Chain("by_device", (*by_device, *to_cluster_ports)),
            Chain("arriving", arriving, (PREROUTING, _BEFORE_TRACKING)),
            Chain("sent", sent, (OUTPUT, _BEFORE_TRACKING)),
            Chain("forwarded", forwarded, (FORWARD, _AFTER_OTHERS)),
            Chain("gossip", gossip),  # and its counters, for `refused_counts`
            *([leaving] if has_encrypted else []),  # the last, for `clear_counts`
        ),
    )


def _with_port(offset: int, port: int) -> Rule:
    """Match UDP with a port at this offset of the header; the port first, as few packets have it.

    Other UDP packets meet two expressions of each such rule, and four if the protocol comes first.
    """
    of_port = (ex.transport_header(offset, 2), ex.equals(struct.pack(">H", port)))
    return (*of_port, *ex.transport(ex.UDP))


def _from_members() -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Return the chains that look who sent a VXLAN packet, and who a gossip datagram."""
    ipv4 = (*ex.is_ipv4(), ex.network_header(*_IPV4_SOURCE), ex.in_set(_MEMBERS_IPV4))
    ipv6 = (*ex.is_ipv6(), ex.network_header(*_IPV6_SOURCE), ex.in_set(_MEMBERS_IPV6))
    path4 = (*ex.is_ipv4(), *_path(_IPV4_SOURCE, _PATHS_IPV4))
    path6 = (*ex.is_ipv6(), *_path(_IPV6_SOURCE, _PATHS_IPV6))
    from_members: tuple[Rule, ...] = (
        *((*member, *ex.passes_reverse_path(), *_LET_IN) for member in (ipv4, ipv6)),
        *((*path, *_LET_IN) for path in (path4, path6)),
    )
    check: tuple[Rule, ...] = (
        *from_members,
        *((*member, *_REFUSED) for member in (ipv4, ipv6)),
        _REFUSED,
    )
    gossip: tuple[Rule, ...] = (
        (*ex.iifname_prefix(HOST_LINK_PREFIX), *_REFUSED),
        (*ex.to_this_host(), *_LET_IN),
        *from_members,
        _REFUSED,
    )
    return check, gossip


def _path(source: tuple[int, int], paths: str) -> Rule:
    """Match if the pair of interface and source address is in a set."""
    return (ex.incoming_index(), ex.network_header(*source, ex.REG32_01), ex.in_set(paths))


def _short_fragments(port: int) -> tuple[Rule, ...]:
    """Drop first fragments too short to contain the VNI.

    Without them the rest is useless. Longer ones were checked by their VNI. Legitimate senders
    never produce such short fragments.
    """
    offset_and_more = (ex.network_header(6, 2), ex.masked(b"\x3f\xff"), ex.differs(bytes(2)))
    ipv4 = (*ex.udp_to(port), *ex.is_ipv4(), *offset_and_more)
    ipv6 = (*ex.udp_to(port), *ex.is_ipv6(), *ex.is_ipv6_fragment())
    # Matches any value; nft(8) could not print a rule that only loads it.
    shown = (ex.transport_header(*_VNI), ex.masked(bytes(3)), ex.equals(bytes(3)), ex.accept())
    end = (ex.counter(), ex.drop())
    return ((*ipv4, *shown), (*ipv4, *end), (*ipv6, *shown), (*ipv6, *end))


class UnderlayTable:
    """The table of one node, read and changed as a `FilterState`."""

    def __init__(self, node_id: NodeId, port: int, gossip_port: int) -> None:
        """Raise NftMissingError if the kernel has no nftables."""
        self.table = table_of(node_id, port, gossip_port)
        self._with_encrypted = table_of(node_id, port, gossip_port, has_encrypted=True)
        rules = [rule for chain in self.table.chains for rule in chain.rules]
        self._counters = sum(ex.counter() in rule for rule in rules)  # without `leaving`
        self._tables = NftTables()

    @property
    def port_id(self) -> int:
        """Return this socket's port id, which the kernel's notifications carry."""
        return self._tables.port_id

    def close(self) -> None:
        """Close the socket; the table stays in force."""
        self._tables.close()

    def read(self) -> FilterState | None:
        """Return the admitted members, VNIs and paths.

        Returns None if the table is missing or was changed.
        """
        table = next(filter(self._tables.holds, (self.table, self._with_encrypted)), None)
        if table is None:
            return None
        try:
            found = self._tables.elements(table)
        except FileNotFoundError:
            return None
        if table is not self._table_for(has_encrypted=bool(found[_ENCRYPTED])):
            return None
        members = found[_MEMBERS_IPV4] | found[_MEMBERS_IPV6]
        vnis = (Vni(int.from_bytes(raw, "big")) for raw in found[_VNIS])
        encrypted = (Vni(int.from_bytes(raw, "big")) for raw in found[_ENCRYPTED])
        switching = (Vni(int.from_bytes(raw, "big")) for raw in found[_SWITCHING])
        exported = (Vni(int.from_bytes(raw, "big")) for raw in found[_EXPORTED])
        paths = (
            ArrivalPath(_INDEX.unpack_from(raw)[0], Ip(raw[_INDEX.size :]))
            for raw in found[_PATHS_IPV4] | found[_PATHS_IPV6]
        )
        return FilterState(
            frozenset(map(Ip, members)),
            frozenset(vnis),
            frozenset(paths),
            frozenset(encrypted),
            frozenset(switching),
            frozenset(map(Ip, found[_OUTSIDE])),
            frozenset(exported),
        )

    def write(self, before: FilterState | None, after: FilterState) -> None:
        """Change the table from one state to another in one transaction.

        Raises OSError. With `before` None the whole table is replaced.
        """
        table = self._table_for(has_encrypted=bool(after.encrypted))
        if before is None or table is not self._table_for(has_encrypted=bool(before.encrypted)):
            self._tables.replace(table, _elements(after))
        else:
            put, delete = _elements(after.without(before)), _elements(before.without(after))
            self._tables.change(table, put, delete)

    def _table_for(self, *, has_encrypted: bool) -> Table:
        return self._with_encrypted if has_encrypted else self.table

    def remove(self) -> None:
        """Delete the table. Raises OSError."""
        self._tables.delete(self.table.family, self.table.name)

    def refused_counts(self) -> tuple[int, int]:
        """Return the counts of dropped VXLAN packets.

        The first is the total, the second those of members through a wrong interface.
        """
        counts = self._checked_counts()[0]
        return sum(counts), sum(counts[:2])

    def clear_counts(self) -> tuple[int, int]:
        """Return how many unencrypted packets of encrypted networks were dropped: in, and out."""
        counts, sent = self._checked_counts()
        return (counts[_CHECK_COUNTERS] if len(counts) > _CHECK_COUNTERS else 0), sent

    def _checked_counts(self) -> tuple[list[int], int]:
        """Return the counts of arriving VXLAN packets, and that of the chain `leaving`."""
        counts = self._tables.counted(self.table)
        sent = counts.pop() if len(counts) > self._counters else 0
        return counts[:-_GOSSIP_COUNTERS], sent


def _elements(state: FilterState) -> dict[str, frozenset[bytes]]:
    return {
        _MEMBERS_IPV4: frozenset(bytes(ip) for ip in state.members if len(ip) == 4),
        _MEMBERS_IPV6: frozenset(bytes(ip) for ip in state.members if len(ip) == 16),
        _VNIS: frozenset(int(vni).to_bytes(3, "big") for vni in state.vnis),
        _ENCRYPTED: frozenset(int(vni).to_bytes(3, "big") for vni in state.encrypted),
        _SWITCHING: frozenset(int(vni).to_bytes(3, "big") for vni in state.switching),
        _OUTSIDE: frozenset(bytes(ip) for ip in state.outside if len(ip) == 4),
        _EXPORTED: frozenset(int(vni).to_bytes(3, "big") for vni in state.exported),
        _PATHS_IPV4: _path_keys(state, 4),
        _PATHS_IPV6: _path_keys(state, 16),
    }


def _path_keys(state: FilterState, size: int) -> frozenset[bytes]:
    paths = (path for path in state.paths if len(path.member) == size)
    return frozenset(_INDEX.pack(path.interface) + path.member for path in paths)
