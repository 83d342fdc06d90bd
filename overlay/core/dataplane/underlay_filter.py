"""The VXLAN port filter as a value, both desired and actual."""

from __future__ import annotations

from dataclasses import dataclass

from overlay.model import Ip, Vni


@dataclass(frozen=True, slots=True)
class FilterState:
    """The members' VTEP addresses, and the VNIs that only they may send."""

    members: frozenset[Ip] = frozenset()
    vnis: frozenset[Vni] = frozenset()

    def without(self, other: FilterState) -> FilterState:
        """Return what is in this state and not in the other."""
        return FilterState(self.members - other.members, self.vnis - other.vnis)

    def joined(self, other: FilterState) -> FilterState:
        """Return the union of both states."""
        return FilterState(self.members | other.members, self.vnis | other.vnis)
