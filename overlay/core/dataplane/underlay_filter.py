"""The VXLAN port filter as a value, both desired and actual, and the paths that members used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from overlay import limits
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


class SeenPaths:
    """The paths by which each member has come.

    One that a member no longer uses is forgotten when the member has been heard by others for
    `ARRIVAL_PATH_KEPT_S`. The paths of a silent member stay, whatever the time.
    """

    def __init__(self) -> None:
        # By interface: since when the member has been heard by others alone; None: it has not.
        self._ways: dict[Ip, dict[int, float | None]] = {}

    def note(self, path: ArrivalPath, now: float) -> bool:
        """Note that a member has come by a path; return whether it is a new one.

        `now` is in seconds of any steady clock.
        """
        ways = self._ways.setdefault(path.member, {})
        is_new = path.interface not in ways
        ways[path.interface] = None
        for other, since in list(ways.items()):
            if other == path.interface:
                continue
            if since is None:
                ways[other] = now
            elif now - since >= limits.ARRIVAL_PATH_KEPT_S:
                del ways[other]
        return is_new

    def restore(self, paths: Iterable[ArrivalPath]) -> None:
        """Take up the paths that a former process had; they count as used now."""
        for path in paths:
            self._ways.setdefault(path.member, {}).setdefault(path.interface, None)

    def paths(self) -> frozenset[ArrivalPath]:
        """Return the paths."""
        return frozenset(
            ArrivalPath(interface, member)
            for member, ways in self._ways.items()
            for interface in ways
        )

    def keep(self, existing: frozenset[ArrivalPath]) -> None:
        """Forget all other paths."""
        kept: dict[Ip, dict[int, float | None]] = {}
        for interface, member in existing:
            if interface in self._ways.get(member, {}):
                kept.setdefault(member, {})[interface] = self._ways[member][interface]
        self._ways = kept
