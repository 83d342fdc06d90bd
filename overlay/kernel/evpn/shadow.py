"""The shadow: a namespace whose devices carry no packet, and are FRR's view of this host.

For each exported segment it has a bridge, a VXLAN device with the segment's VNI and this host's
VTEP, and a veth port, `own`. Static FDB entries of that port, and permanent neighbors of the
bridge, are what zebra announces; what it writes itself are other hosts' containers. So the
kernel's tables are the whole interface to FRR. The namespace outlives the agent.

Owns: the namespace, its devices and its own rows. Does not: run FRR (`supervisor`), or decide
which rows there are (`core.evpn`).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from typing import Final, Self

from overlay.core.dataplane.link_state import Bridge, Port, Vxlan
from overlay.core.dataplane.state import AddressRow, NeighborRow
from overlay.core.evpn.announcement import OwnMac, OwnRow
from overlay.errors import NotFoundError, UsageError
from overlay.kernel import netns
from overlay.kernel.evpn.shadow_table import BRIDGE, OWN, PEER, VXLAN, ShadowTable
from overlay.kernel.netlink import (
    address_requests,
    address_rows,
    codec,
    link_decoder,
    link_requests,
    neighbor_rows,
    row_requests,
)
from overlay.kernel.netlink.codec import Request, attribute
from overlay.kernel.netlink.link_decoder import ALIAS_DEFAULT, LinkInfo
from overlay.kernel.netlink.link_lookup import all_links, delete_links, find_link
from overlay.kernel.netlink.socket import (
    LostNotificationsError,
    NetlinkSocket,
    messages_of,
)
from overlay.kernel.sandbox import sysctls
from overlay.model import Ip, Mac, Vni, gateway_mac

ALIAS: Final = f"{ALIAS_DEFAULT}:evpn"
_MTU: Final = 1500  # of devices that carry nothing
_NEXT_HOP, _NEXT_HOP_PEER = "nh0", "nh1"
# A default route would not do: FRR resolves no next hop by it.
_HALVES: Final = (Ip(bytes(4)), Ip(b"\x80\0\0\0"))
_NEIGHBOR: Final = struct.Struct("=BxxxiHBB")  # linux/neighbour.h
_NTF_MASTER: Final = 0x04
_NUD_STATIC: Final = 0x42  # NOARP, REACHABLE: "static" of bridge(8)
_NDA_LLADDR: Final = 2
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # struct rtmsg, linux/rtnetlink.h
_RTA_DST, _RTA_OIF = 1, 4
_TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_LINK = 254, 4, 253
_REPLACE: Final = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL})
_NOTIFICATIONS_MAX: Final = 4096  # read at a time


def shadow_name(node_part: str) -> str:
    """Return the namespace's name; by node, as several agents may share a host."""
    return f"ov-evpn-{node_part}"


class Shadow:
    """An open shadow."""

    def __init__(self, name: str, netns_fd: int) -> None:
        self.name = name
        self._netns_fd = netns_fd
        self._socket = NetlinkSocket(netns_fd)
        self._monitor = NetlinkSocket(netns_fd, groups=(codec.RTNLGRP_NEIGH, codec.RTNLGRP_LINK))
        self._table = ShadowTable()
        self._is_stale = True

    @classmethod
    def open(cls, name: str, *, create: bool) -> Self:
        """Open the shadow of that name; with `create`, make it if it is missing.

        Raises NotFoundError without `create`, and OverlayError if the kernel refuses.
        """
        try:
            netns_fd = netns.open_fd(netns.path_of(name))
        except (NotFoundError, UsageError):  # UsageError: a name left by a crash
            if not create:
                raise
            netns_fd = netns.create(name)
        try:
            return cls(name, netns_fd)
        except BaseException:
            os.close(netns_fd)
            raise

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when rows change."""
        return self._monitor.fileno()

    def close(self) -> None:
        """Close the sockets; the shadow stays."""
        self._socket.close()
        self._monitor.close()
        if self._netns_fd >= 0:
            os.close(self._netns_fd)
            self._netns_fd = -1

    def destroy(self) -> None:
        """Remove all devices and the name; FRR's processes end with it. Closes this object."""
        indexes = [each.index for each in all_links(self._socket) if each.name != "lo"]
        delete_links(self._socket, indexes)
        self.close()
        netns.remove(self.name)

    def is_named(self) -> bool:
        """Return whether the name still refers to this namespace."""
        return netns.names_identity(self.name) == netns.identity(self._netns_fd)

    # --- devices --------------------------------------------------------------------------

    def prepare(self, local: Ip) -> None:
        """Set up what all segments share: this host's VTEP address, and a way to any next hop."""
        sysctls.prepare(self._netns_fd)
        self._socket.transact([link_requests.set_alias(1, ALIAS), link_requests.set_up(1)])
        for row in self._local_addresses():
            if row.ip != local:
                self._socket.transact(
                    [address_requests.delete_address(1, row.ip, row.prefix_length)]
                )
        self._socket.transact([address_requests.add_address(1, local, 32)])
        if not find_link(self._socket, _NEXT_HOP):
            self._make_pair(_NEXT_HOP, _NEXT_HOP_PEER, 0)
        index = find_link(self._socket, _NEXT_HOP)
        self._socket.transact([_half_route(half, index) for half in _HALVES])

    def _local_addresses(self) -> list[AddressRow]:
        dumped = self._socket.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP)
        rows = (address_rows.decode_address(each, {1: "lo"}) for each in dumped)
        return [row for row in rows if row is not None and row.prefix_length == 32]

    def use_segments(self, vnis: frozenset[Vni], local: Ip, port: int) -> None:
        """Have devices for exactly these segments. Raises OSError."""
        links = {link.name: link for link in all_links(self._socket)}
        wrong = [vni for vni in self._vnis(links) if not _is_right(links, vni, local, port)]
        surplus = [vni for vni in self._vnis(links) if vni not in vnis]
        doomed = {f"{kind}{vni}" for vni in (*wrong, *surplus) for kind in (VXLAN, OWN, BRIDGE)}
        delete_links(self._socket, [link.index for name, link in links.items() if name in doomed])
        for vni in sorted(vnis):
            if vni in wrong or f"{BRIDGE}{vni}" not in links:
                self._make_segment(vni, local, port)
        self._table.use_devices({each.index: each.name for each in all_links(self._socket)})
        self._is_stale = self._is_stale or bool(doomed)

    @staticmethod
    def _vnis(links: dict[str, LinkInfo]) -> list[Vni]:
        names = (name.removeprefix(BRIDGE) for name in links if name.startswith(BRIDGE))
        return sorted(Vni(int(number)) for number in names if number.isdigit())

    def _make_segment(self, vni: Vni, local: Ip, port: int) -> None:
        bridge = Bridge(f"{BRIDGE}{vni}", gateway_mac(vni, 0), _MTU)
        self._socket.request(link_requests.create_bridge(bridge))
        master = find_link(self._socket, bridge.name)
        sysctls.enable_ipv6(self._netns_fd, bridge.name)
        self._socket.request(*link_requests.set_bridge(master, bridge, None, ALIAS))
        vxlan = Vxlan(f"{VXLAN}{vni}", vni, local, port, _MTU, bridge.name)
        self._socket.request(link_requests.create_vxlan(vxlan, self._netns_fd, master))
        index = find_link(self._socket, vxlan.name)
        self._socket.request(*link_requests.set_vxlan(index, vxlan, None, master, ALIAS))
        self._make_pair(f"{OWN}{vni}", f"{PEER}{vni}", master)

    def _make_pair(self, name: str, peer: str, master: int) -> None:
        """Make a veth pair with both ends up: a port without carrier announces nothing."""
        mac = Mac(b"\x02" + os.urandom(5))
        port = Port(name, _MTU, "")
        self._socket.request(link_requests.create_veth(port, master, self._netns_fd, peer, mac))
        self._socket.request(link_requests.set_up(find_link(self._socket, peer)))

    # --- rows -----------------------------------------------------------------------------

    def read(self) -> ShadowTable:
        """Return the rows as they are now. Raises OSError, TornDumpError."""
        try:
            waiting = self._monitor.notifications(_NOTIFICATIONS_MAX)
        except LostNotificationsError:
            self._is_stale, waiting = True, []
        if self._is_stale:
            buffers = self._socket.dump_buffers(codec.RTM_GETNEIGH, neighbor_rows.NEIGHBOR_DUMP)
            buffers += self._socket.dump_buffers(codec.RTM_GETNEIGH, neighbor_rows.fdb_dump(0))
            self._table.replace(messages_of(buffers))
            self._is_stale = False
        else:
            for message in waiting:
                self._table.follow(message)
        return self._table

    def read_devices(self) -> ShadowTable:
        """Return the rows of all devices that there are; changes none. Raises as `read`."""
        self._table.use_devices({each.index: each.name for each in all_links(self._socket)})
        return self.read()

    def mark_stale(self) -> None:
        """Have the next read take everything from the kernel."""
        self._is_stale = True

    def put(self, rows: Iterable[OwnRow]) -> None:
        """Write rows of this host; a device that is gone meanwhile is made again by a later pass.

        Raises OSError.
        """
        self._apply(rows, add=True)

    def delete(self, rows: Iterable[OwnRow]) -> None:
        """Delete rows of this host; a missing one is not an error. Raises OSError."""
        self._apply(rows, add=False)

    def _apply(self, rows: Iterable[OwnRow], *, add: bool) -> None:
        indexes = {link.name: link.index for link in all_links(self._socket)}
        requests: list[Request] = []
        for row in rows:
            if isinstance(row, OwnMac):
                index = indexes.get(f"{OWN}{row.vni}")
                if index is not None:
                    requests.append(_static_entry(row.mac, index, add=add))
                continue
            index = indexes.get(f"{BRIDGE}{row.vni}")
            if index is not None:
                neighbor = NeighborRow("", row.ip, row.mac)
                encode = row_requests.put if add else row_requests.delete
                requests.append(encode(neighbor, index))
        self._socket.request(*requests, harmless=_GONE)


def _half_route(half: Ip, index: int) -> Request:
    """Return the request for a route to half of all addresses; zebra ignores the kernel's own."""
    head = _ROUTE.pack(socket.AF_INET, 1, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_LINK, 1, 0)
    body = head + attribute(_RTA_DST, half) + attribute(_RTA_OIF, struct.pack("=I", index))
    return (codec.RTM_NEWROUTE, _REPLACE, body)


def _is_right(links: dict[str, LinkInfo], vni: Vni, local: Ip, port: int) -> bool:
    vxlan = links.get(f"{VXLAN}{vni}")
    if vxlan is None or f"{OWN}{vni}" not in links:
        return False
    return link_decoder.vxlan_identity(vxlan) == (vni, port, local)


def _static_entry(mac: Mac, index: int, *, add: bool) -> Request:
    """Return the request for an entry of a port: of the bridge, and no MAC of the host itself."""
    head = _NEIGHBOR.pack(codec.AF_BRIDGE, index, _NUD_STATIC, _NTF_MASTER, 0)
    body = head + attribute(_NDA_LLADDR, mac)
    return (codec.RTM_NEWNEIGH, _REPLACE, body) if add else (codec.RTM_DELNEIGH, 0, body)
