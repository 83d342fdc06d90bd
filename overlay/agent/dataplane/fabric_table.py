"""The rows that this host has taken from a BGP EVPN fabric, beside those of the records.

So are the machines behind interfaces that members plug into networks: rows of the same form. Empty
while there are neither. `agent.evpn` and `agent.plug` publish them; the reconciler plans their
rows, and the filter of the VXLAN port admits the fabric's VTEPs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from overlay.core.dataplane.planning.inputs import LocalPlug
from overlay.core.evpn.intake import Intake
from overlay.core.fabric import FabricRows
from overlay.model import Ip, Mac, Vni
from overlay.signals import Signal

_NOTHING = Intake()


class OutsidePlace(NamedTuple):
    """An address that the fabric has, with its MAC, behind an outside VTEP."""

    ip: Ip
    mac: Mac
    vtep: Ip


class FabricTable:
    """The rows of outside VTEPs, by network.

    `changed`: the rows of the network with this VNI are others.
    """

    def __init__(self) -> None:
        self.changed: Signal[[Vni]] = Signal()
        self.intake = _NOTHING
        self.vnis: frozenset[Vni] = frozenset()  # of the segments that are exported
        self.vteps: frozenset[Ip] = frozenset()  # outside ones: they may send on these VNIs
        self._plugged: Mapping[Vni, FabricRows] = {}
        self._interfaces: dict[Vni, tuple[LocalPlug, ...]] = {}

    def rows(self, vni: Vni) -> FabricRows:
        """Return the rows of a network: what is behind plugs of members precedes the fabric."""
        rows, plugged = self.intake.rows(vni), self._plugged.get(vni)
        return rows if plugged is None else rows.updated(plugged)

    def interfaces(self, vni: Vni) -> tuple[LocalPlug, ...]:
        """Return the interfaces of this host that are ports of a network."""
        return self._interfaces.get(vni, ())

    def put_interfaces(self, vni: Vni, interfaces: tuple[LocalPlug, ...]) -> None:
        """Make interfaces of this host the ports of a network, and no others."""
        if interfaces:
            self._interfaces[vni] = interfaces
        else:
            self._interfaces.pop(vni, None)
        self.changed.emit(vni)

    def put_plugged(self, plugged: Mapping[Vni, FabricRows]) -> None:
        """Replace what is behind plugs of members, and announce the networks that changed."""
        before, self._plugged = self._plugged, plugged
        for vni in sorted(before.keys() | plugged.keys()):
            if before.get(vni) != plugged.get(vni):
                self.changed.emit(vni)

    def is_plugged(self, vni: Vni, ip: Ip) -> bool:
        """Return whether an address of a network is that of a machine behind a member's plug."""
        rows = self._plugged.get(vni)
        return rows is not None and any(row.ip == ip for row in rows.neighbors)

    def place_of(self, vni: Vni, ips: Sequence[Ip]) -> OutsidePlace | None:
        """Return where the fabric has one of some addresses of a network, or None."""
        rows = self.rows(vni)
        ip_of = {(row.vni, row.mac): row.ip for row in rows.neighbors if row.ip in ips}
        if not ip_of:
            return None
        places = (
            OutsidePlace(ip_of[row.vni, row.mac], row.mac, row.vtep)
            for row in rows.macs
            if (row.vni, row.mac) in ip_of
        )
        return next(places, None)

    def publish(self, intake: Intake, vnis: frozenset[Vni]) -> None:
        """Replace what was taken before, and announce the networks that changed."""
        before, self.intake = self.intake, intake
        self.vnis = vnis
        if intake is before:
            return
        self.vteps = intake.vteps
        for vni in sorted(before.by_network.keys() | intake.by_network.keys()):
            if before.rows(vni) != intake.rows(vni):
                self.changed.emit(vni)

    def clear(self) -> None:
        """Forget all: EVPN is disabled."""
        self.publish(_NOTHING, frozenset())
