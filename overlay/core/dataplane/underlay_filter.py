"""Whom a node lets in at its VXLAN port, as a value: what should be and what is there alike."""

from __future__ import annotations

from dataclasses import dataclass

from overlay.model import Ip, Vni


@dataclass(frozen=True, slots=True)
class FilterState:
    """The members' VTEP addresses, and the VNIs for which only those are let in."""

    members: frozenset[Ip] = frozenset()
    vnis: frozenset[Vni] = frozenset()

    def without(self, other: FilterState) -> FilterState:
        """Return what this has and the other has not."""
        return FilterState(self.members - other.members, self.vnis - other.vnis)

    def joined(self, other: FilterState) -> FilterState:
        """Return what either has."""
        return FilterState(self.members | other.members, self.vnis | other.vnis)
