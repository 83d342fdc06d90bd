"""The rows of the shadow: what this host announces, and what FRR has written of others.

Follows rtnetlink messages one by one, so that a change costs what it changes: reading 100,000 rows
takes a second. Owns: which entry of the kernel means what. Does not: open sockets.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Final

from overlay.core.evpn.announcement import OwnMac, OwnNeighbor, OwnRow
from overlay.core.fabric import FabricFlood, FabricMac, FabricNeighbor, FabricRows
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import NetlinkMessage, attributes
from overlay.model import Ip, Mac, Vni

BRIDGE, VXLAN, OWN, PEER = "br", "vx", "own", "peer"
"""Prefixes of the names of a segment's devices; its VNI follows."""

_NEIGHBOR: Final = struct.Struct("=BxxxiHBB")  # linux/neighbour.h
_NDA_DST, _NDA_LLADDR = 1, 2
_WANTED: Final = frozenset({_NDA_DST, _NDA_LLADDR})
_NTF_SELF, _NTF_EXT_LEARNED = 0x02, 0x10
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_NO_MAC: Final = Mac(bytes(6))
_DEVICE: Final = re.compile(rf"({BRIDGE}|{VXLAN}|{OWN})([1-9]\d*)")


class ShadowTable:
    """All rows of the shadow, by what identifies each."""

    def __init__(self) -> None:
        self._devices: dict[int, tuple[str, Vni]] = {}
        self._tunnel: dict[tuple[Vni, Mac], Ip] = {}  # FRR's, of the VXLAN device itself
        self._floods: set[FabricFlood] = set()
        self._ports: dict[tuple[Vni, Mac], bool] = {}  # the bridge's: whether on the own port
        self._addresses: dict[tuple[Vni, Ip], tuple[Mac, bool]] = {}  # and whether it is own
        # Made when they are asked for, and kept until a row changes: there may be very many.
        self._own: frozenset[OwnRow] | None = None
        self._fabric: FabricRows | None = None

    def use_devices(self, names: dict[int, str]) -> None:
        """Learn the devices by index; rows of others are ignored, and those of old ones go."""
        devices: dict[int, tuple[str, Vni]] = {}
        for index, name in names.items():
            found = _DEVICE.fullmatch(name)
            if found is not None:
                devices[index] = (found[1], Vni(int(found[2])))
        self._devices = devices
        self._own = self._fabric = None
        vnis = {vni for _, vni in devices.values()}
        self._tunnel = {key: vtep for key, vtep in self._tunnel.items() if key[0] in vnis}
        self._floods = {row for row in self._floods if row.vni in vnis}
        self._ports = {key: own for key, own in self._ports.items() if key[0] in vnis}
        self._addresses = {key: mac for key, mac in self._addresses.items() if key[0] in vnis}

    def replace(self, dumped: Iterable[NetlinkMessage]) -> None:
        """Take a dump of all entries."""
        self._own = self._fabric = None
        self._tunnel.clear()
        self._floods.clear()
        self._ports.clear()
        self._addresses.clear()
        for message in dumped:
            self.follow(message)

    def follow(self, message: NetlinkMessage) -> None:
        """Take one entry of a dump, or a notification."""
        kind, buffer, start, end = message
        if kind not in (codec.RTM_NEWNEIGH, codec.RTM_DELNEIGH):
            return
        family, index, state, flags, _ = _NEIGHBOR.unpack_from(buffer, start)
        device = self._devices.get(index)
        if device is None:
            return
        self._own = self._fabric = None
        is_there = kind == codec.RTM_NEWNEIGH
        found = attributes(buffer, start + 12, end, _WANTED)
        if family == codec.AF_BRIDGE:
            self._follow_entry(device, found, state, flags, is_there=is_there)
        elif device[0] == BRIDGE and _NDA_DST in found:
            self._follow_neighbor(device[1], found, state, flags, is_there=is_there)

    def _follow_entry(
        self,
        device: tuple[str, Vni],
        found: dict[int, bytes],
        state: int,
        flags: int,
        *,
        is_there: bool,
    ) -> None:
        name, vni = device
        mac, vtep = Mac(found.get(_NDA_LLADDR, b"")), found.get(_NDA_DST)
        if flags & _NTF_SELF:
            if name != VXLAN or vtep is None:
                return
            if mac == _NO_MAC:
                row = FabricFlood(vni, Ip(vtep))
                (self._floods.add if is_there else self._floods.discard)(row)
            elif is_there and flags & _NTF_EXT_LEARNED:
                self._tunnel[vni, mac] = Ip(vtep)
            else:
                self._tunnel.pop((vni, mac), None)
        elif not is_there:
            # The bridge has moved an entry to another port without deleting it: only the port
            # that has it now can lose it.
            if self._ports.get((vni, mac)) == (name == OWN):
                del self._ports[vni, mac]
        elif name == VXLAN or (name == OWN and state & _NUD_NOARP):
            self._ports[vni, mac] = name == OWN

    def _follow_neighbor(
        self, vni: Vni, found: dict[int, bytes], state: int, flags: int, *, is_there: bool
    ) -> None:
        key, mac = (vni, Ip(found[_NDA_DST])), Mac(found.get(_NDA_LLADDR, b""))
        is_learned = bool(flags & _NTF_EXT_LEARNED)
        if is_there and mac and (is_learned or state & _NUD_PERMANENT):
            self._addresses[key] = (mac, not is_learned)
        else:
            self._addresses.pop(key, None)

    def own(self) -> frozenset[OwnRow]:
        """Return the rows that this host announces."""
        if self._own is None:
            self._own = self._make_own()
        return self._own

    def _make_own(self) -> frozenset[OwnRow]:
        macs = (OwnMac(vni, mac) for (vni, mac), is_own in self._ports.items() if is_own)
        neighbors = (
            OwnNeighbor(vni, ip, mac)
            for (vni, ip), (mac, is_own) in self._addresses.items()
            if is_own
        )
        return frozenset([*macs, *neighbors])

    def fabric(self) -> FabricRows:
        """Return the rows of others.

        FRR leaves a row in the VXLAN device for a MAC that came back to this host: the bridge's
        entry says where the MAC is.
        """
        if self._fabric is None:
            self._fabric = self._make_fabric()
        return self._fabric

    def _make_fabric(self) -> FabricRows:
        return FabricRows(
            frozenset(
                FabricMac(vni, mac, vtep)
                for (vni, mac), vtep in self._tunnel.items()
                if not self._ports.get((vni, mac))
            ),
            frozenset(
                FabricNeighbor(vni, ip, mac)
                for (vni, ip), (mac, is_own) in self._addresses.items()
                if not is_own
            ),
            frozenset(self._floods),
        )
