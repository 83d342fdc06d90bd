"""The native receive path of a node as a value, both desired and actual.

On the interfaces of the underlay a program takes VXLAN frames of members out of their packets and
hands them to a sandbox by a shortcut; whatever it does not know goes on to the VXLAN port's filter
and the VXLAN device. So an entry that is missing costs speed, and one too many would let a frame
pass that the filter drops: it is narrowed as the filter is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from overlay.core.dataplane.underlay_filter import ArrivalPath
from overlay.model import Ip, Vni


class NativeVni(NamedTuple):
    """A VNI, and the host's end of the shortcut into its sandbox, by index."""

    vni: Vni
    shortcut: int


@dataclass(frozen=True, slots=True)
class NativeState:
    """The frames that programs on the underlay's interfaces take out of packets, and where to.

    `interfaces` run the program, by index. Frames count that come from a member by one of its
    `paths`, to one of this host's `own` VTEPs, with one of the `vnis`.
    """

    interfaces: frozenset[int] = frozenset()
    own: frozenset[Ip] = frozenset()
    paths: frozenset[ArrivalPath] = frozenset()
    vnis: frozenset[NativeVni] = frozenset()

    def without(self, other: NativeState) -> NativeState:
        """Return what is in this state and not in the other."""
        return NativeState(
            self.interfaces - other.interfaces,
            self.own - other.own,
            self.paths - other.paths,
            self.vnis - other.vnis,
        )

    def common(self, other: NativeState) -> NativeState:
        """Return what is in both states."""
        return NativeState(
            self.interfaces & other.interfaces,
            self.own & other.own,
            self.paths & other.paths,
            self.vnis & other.vnis,
        )
