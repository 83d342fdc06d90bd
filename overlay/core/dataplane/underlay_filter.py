"""The VXLAN port filter as a value, both desired and actual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from overlay.model import Ip, Vni


class ArrivalPath(NamedTuple):
    """An interface, by index, through which packets of a member may come besides the best route's.

    The index is this host's, and the address that of the member's VTEP.
    """

    interface: int
    member: Ip


@dataclass(frozen=True, slots=True)
class FilterState:
    """The members' VTEP addresses, the VNIs that only they may send, and further paths of theirs.

    The interface of the best route to a member needs no path. Frames of the `encrypted` VNIs pass
    by the WireGuard device alone, in both directions; those of the `switching` ones come by either
    way, and nothing stops any that leave in clear. The `outside` VTEPs, of IPv4, are those of a
    BGP EVPN fabric: they may send on the `exported` VNIs, and no others.
    """

    members: frozenset[Ip] = frozenset()
    vnis: frozenset[Vni] = frozenset()
    paths: frozenset[ArrivalPath] = frozenset()
    encrypted: frozenset[Vni] = frozenset()
    switching: frozenset[Vni] = frozenset()
    outside: frozenset[Ip] = frozenset()
    exported: frozenset[Vni] = frozenset()

    def without(self, other: FilterState) -> FilterState:
        """Return what is in this state and not in the other."""
        return FilterState(
            self.members - other.members,
            self.vnis - other.vnis,
            self.paths - other.paths,
            self.encrypted - other.encrypted,
            self.switching - other.switching,
            self.outside - other.outside,
            self.exported - other.exported,
        )

    def joined(self, other: FilterState) -> FilterState:
        """Return the members and VNIs of both states; the paths are this one's."""
        return FilterState(
            self.members | other.members,
            self.vnis | other.vnis,
            self.paths,
            self.encrypted | other.encrypted,
            self.switching | other.switching,
            self.outside | other.outside,
            self.exported | other.exported,
        )
