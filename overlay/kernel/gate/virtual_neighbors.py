"""The next hop of virtual addresses, for the host: its own interface on the network.

A permanent neighbor has that interface's own MAC. By it the gate's program knows what to take;
where that is missing, the network's bridge sends no frame back to where it came from.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping
from typing import Final

from overlay.core.dataplane.state import NeighborRow
from overlay.core.gate.state import GatedAddress
from overlay.kernel.netlink import codec, neighbor_rows
from overlay.kernel.netlink.codec import NetlinkMessage, Request, attribute
from overlay.kernel.netlink.neighbor_format import NDA_IFINDEX
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Mac

_INDEX: Final = struct.Struct("=I")
_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT})  # with the interface


class VirtualNeighbors:
    """The neighbors of interfaces, whose MACs are given by index, in the namespace of a socket."""

    def __init__(self, host: NetlinkSocket, macs: Mapping[int, Mac]) -> None:
        self._host = host
        self._macs = macs

    def read(self) -> frozenset[GatedAddress]:
        """Return the addresses whose next hop is the interface. Raises NetlinkError, OverlayError.

        Only what these interfaces have is read: the host may have thousands of other neighbors.
        """
        found = (
            self._address(message)
            for index in self._macs
            for message in self._host.dump(
                codec.RTM_GETNEIGH,
                neighbor_rows.NEIGHBOR_DUMP + attribute(NDA_IFINDEX, _INDEX.pack(index)),
            )
        )
        return frozenset(each for each in found if each is not None)

    def put(self, addresses: Iterable[GatedAddress]) -> None:
        """Add addresses; an interface that is gone is no failure. Raises NetlinkError."""
        flags = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
        self._request(codec.RTM_NEWNEIGH, flags, addresses)

    def delete(self, addresses: Iterable[GatedAddress]) -> None:
        """Remove addresses. Raises NetlinkError."""
        self._request(codec.RTM_DELNEIGH, 0, addresses)

    def _request(self, kind: int, flags: int, addresses: Iterable[GatedAddress]) -> None:
        requests: list[Request] = [
            (kind, flags, self._encode(each))
            for each in addresses
            if each.interface_index in self._macs
        ]
        self._host.request(*requests, harmless=_GONE)

    def _encode(self, address: GatedAddress) -> bytes:
        row = NeighborRow("", address.ip, self._macs[address.interface_index])
        return neighbor_rows.encode_neighbor(row, address.interface_index)

    def _address(self, message: NetlinkMessage) -> GatedAddress | None:
        link = neighbor_rows.neighbor_subject(message).link
        row = neighbor_rows.decode_neighbor(message, {link: str(link)}, {})
        if not isinstance(row, NeighborRow) or row.mac != self._macs.get(link):
            return None
        return GatedAddress(row.ip, link)
