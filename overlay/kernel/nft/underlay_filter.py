"""The table that guards the VXLAN port on the underlay: only members get in, nobody through.

VXLAN (RFC 7348) authenticates nobody, so what comes to its port for one of the cluster's VNIs
must come from a member's VTEP, by the interface that leads back there (a container that takes
a member's address for its own comes by another). The same holds for what is forwarded: a
container must not reach another host's VTEP under this host's address. One look before routing
serves both: a hook costs as much as all of its rules (a flood ping between two hosts takes 18.5 us
from packet to packet without a filter, 20.3 with this one, 21.0 with one more hook). VNIs that are
not the cluster's are left alone: another VXLAN of this host (Docker swarm's, another agent's) may
share the port.

What passes is not tracked: no masquerade of the host ever changes it, and a container that
was masqueraded to the source port 4789 does not get the VXLAN frames that look like answers.

Not stopped: processes in the host's own network namespace. The kernel's VXLAN leaves by the same
hook, and can carry their socket.
"""

from __future__ import annotations

from typing import Final

from overlay.core.dataplane.underlay_filter import FilterState
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft import userdata
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.tables import (
    FAMILY_INET,
    OUTPUT,
    PREROUTING,
    Chain,
    NftTables,
    Set,
    Table,
)
from overlay.model import Ip, NodeId, Vni

_BEFORE_TRACKING: Final = -300  # as iptables' raw table: tracking is at -200
_IPV4_SOURCE, _IPV6_SOURCE = (12, 4), (8, 16)  # offset and size in the IP header
_VNI: Final = (8 + 4, 3)  # behind the UDP header: flags and reserved bytes first
_TYPE_INTEGER, _TYPE_IPV4, _TYPE_IPV6 = 4, 7, 8  # nft's own numbers
_MEMBERS_IPV4, _MEMBERS_IPV6, _VNIS = "members4", "members6", "vnis"


def table_name(node_id: NodeId) -> str:
    """Return the table's name: by node, for several agents may share a host."""
    return f"overlayd_{node_id[:3].hex()}"


def table_of(node_id: NodeId, port: int) -> Table:
    """Return the table of a node, for the cluster's VXLAN port."""
    ours = (*ex.udp_to(port), ex.transport_header(*_VNI), ex.in_set(_VNIS))
    ipv4 = (*ex.is_ipv4(), ex.network_header(*_IPV4_SOURCE), ex.in_set(_MEMBERS_IPV4))
    ipv6 = (*ex.is_ipv6(), ex.network_header(*_IPV6_SOURCE), ex.in_set(_MEMBERS_IPV6))
    refused = (ex.counter(), ex.drop())
    let_in = (ex.notrack(), ex.accept())
    check: tuple[Rule, ...] = (
        *((*member, *ex.passes_reverse_path(), *let_in) for member in (ipv4, ipv6)),
        *((*member, *refused) for member in (ipv4, ipv6)),
        refused,
    )
    arriving = ((*ours, ex.goto("check")), *_short_fragments(port))
    return Table(
        FAMILY_INET,
        table_name(node_id),
        (
            Set(_MEMBERS_IPV4, _TYPE_IPV4, 4),
            Set(_MEMBERS_IPV6, _TYPE_IPV6, 16),
            Set(_VNIS, _TYPE_INTEGER, 3, userdata.transport_header(*_VNI)),
        ),
        (
            Chain("check", check),
            Chain("arriving", arriving, (PREROUTING, _BEFORE_TRACKING)),
            Chain("sent", ((*ours, ex.notrack()),), (OUTPUT, _BEFORE_TRACKING)),
        ),
    )


def _short_fragments(port: int) -> tuple[Rule, ...]:
    """Refuse a first fragment that is too short to show its VNI; the rest is worth nothing then.

    One that shows it was judged by it. Nobody sends so short ones but to get by.
    """
    offset_and_more = (ex.network_header(6, 2), ex.masked(b"\x3f\xff"), ex.differs(bytes(2)))
    ipv4 = (*ex.udp_to(port), *ex.is_ipv4(), *offset_and_more)
    ipv6 = (*ex.udp_to(port), *ex.is_ipv6(), *ex.is_ipv6_fragment())
    # Anything there will do; nft could not show a rule that only loads it.
    shown = (ex.transport_header(*_VNI), ex.masked(bytes(3)), ex.equals(bytes(3)), ex.accept())
    end = (ex.counter(), ex.drop())
    return ((*ipv4, *shown), (*ipv4, *end), (*ipv6, *shown), (*ipv6, *end))


class UnderlayTable:
    """The table of one node in this namespace: read as a value, changed to be another."""

    def __init__(self, node_id: NodeId, port: int) -> None:
        """Raise MissingError where the kernel has no nftables."""
        self.table = table_of(node_id, port)
        self._tables = NftTables()

    @property
    def port_id(self) -> int:
        """Return who we are in the kernel's notifications."""
        return self._tables.port_id

    def close(self) -> None:
        """Let go; the table goes on."""
        self._tables.close()

    def read(self) -> FilterState | None:
        """Return whom it lets in for which VNIs; None if it is not there, or not as we made it."""
        if not self._tables.holds(self.table):
            return None
        try:
            found = self._tables.elements(self.table)
        except FileNotFoundError:
            return None
        members = found[_MEMBERS_IPV4] | found[_MEMBERS_IPV6]
        vnis = (Vni(int.from_bytes(raw, "big")) for raw in found[_VNIS])
        return FilterState(frozenset(map(Ip, members)), frozenset(vnis))

    def write(self, before: FilterState | None, after: FilterState) -> None:
        """Turn what was read into what should be, in one step."""
        if before is None:
            self._tables.replace(self.table, _elements(after))
        else:
            put, delete = _elements(after.without(before)), _elements(before.without(after))
            self._tables.change(self.table, put, delete)

    def remove(self) -> None:
        """Take the table away."""
        self._tables.delete(self.table.family, self.table.name)

    def refused_counts(self) -> tuple[int, int]:
        """Return how many packets were dropped: in all, and those of members by a strange way."""
        counts = self._tables.counted(self.table)
        return sum(counts), sum(counts[:2])


def _elements(state: FilterState) -> dict[str, frozenset[bytes]]:
    return {
        _MEMBERS_IPV4: frozenset(bytes(ip) for ip in state.members if len(ip) == 4),
        _MEMBERS_IPV6: frozenset(bytes(ip) for ip in state.members if len(ip) == 16),
        _VNIS: frozenset(int(vni).to_bytes(3, "big") for vni in state.vnis),
    }
