"""Bring DNS queries for resolvers elsewhere to the node's DNS server, where it has a socket.

A container asks the resolvers that its runtime wrote into it, and its queries pass the gateway on
their way there. The agent opens transparent sockets (ip(7), IP_TRANSPARENT) on the addresses of
these resolvers inside the sandbox. A table of the family inet marks queries that enter by a bridge
if there is such a socket (the `socket` expression of nft(8)), and routing rules deliver marked
packets locally. So nothing is translated or tracked, and without an agent there are no sockets:
the queries go to their resolvers as if this did not exist.

Owns: the table, the rules and their routes, as rows. Does not: open the sockets.
"""

from __future__ import annotations

import errno
import socket as sockets
import struct
from collections.abc import Iterable
from typing import Final

from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.state import InterceptRow
from overlay.kernel import netns
from overlay.kernel.netlink import codec, routes
from overlay.kernel.netlink.codec import NetlinkMessage, attribute, attributes
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.table import FAMILY_INET, PREROUTING, Chain, Table
from overlay.kernel.nft.tables import NftMissingError
from overlay.kernel.nft.watched_table import WatchedTable
from overlay.kernel.row_operations import RefusedOperation, RowOperation, apply_each

_BRIDGE_PREFIX: Final = "br"
_MARK: Final = 0x35  # within the sandbox's own namespace
_ROUTE_TABLE: Final = 53
_MANGLE: Final = -150  # before routing
_DNS_PORT: Final = 53
# After the local table (0), before the barriers between subnets (1000) and the main table.
_PRIORITY: Final = 900

_HEADER: Final = struct.Struct("=BBBBBBBBI")  # struct rtmsg, struct fib_rule_hdr: see `routes`
_FRA_IIFNAME, _FRA_PRIORITY, _FRA_MARK = 3, 6, 10  # linux/fib_rules.h
_FR_ACT_TO_TABLE: Final = 1
_RTA_OIF: Final = 4
_RTN_LOCAL: Final = 2
_RT_SCOPE_HOST: Final = 254
_RTPROT_STATIC: Final = 4
_LOOPBACK: Final = 1  # its index in every namespace
_U32: Final = struct.Struct("=I")
_SIZES: Final = {int(sockets.AF_INET): 4, int(sockets.AF_INET6): 16}
_FAMILIES: Final = {size: family for family, size in _SIZES.items()}


def _marked(protocol: bytes) -> ex.Rule:
    return (
        *ex.iifname_prefix(_BRIDGE_PREFIX),
        *ex.to_port(protocol, _DNS_PORT),
        *ex.has_transparent_socket(),
        *ex.set_mark(_MARK),
    )


TABLE: Final = Table(
    FAMILY_INET,
    "overlayd_names",
    (),
    (Chain("arriving", (_marked(ex.UDP), _marked(ex.TCP)), (PREROUTING, _MANGLE)),),
)


class Interception(WatchedTable):
    """Table, rules and routes of one sandbox. Used by the kernel thread, except `altered`."""

    def __init__(self, netns_fd: int, socket: NetlinkSocket) -> None:
        """Probe the table.

        Raises NftMissingError if the kernel does not support it.
        """
        self._socket = socket
        super().__init__(netns_fd, TABLE)

    def read(self) -> frozenset[InterceptRow]:
        """Return a row for each rule that works: none without the table or the rule's route."""
        if not self._tables.holds(TABLE):
            return frozenset()
        routed = {
            size
            for message in self._socket.dump(codec.RTM_GETROUTE, routes.DUMP)
            if (size := route_of(message)) is not None
        }
        rows = map(decode_rule, self._socket.dump(codec.RTM_GETRULE, routes.DUMP))
        return frozenset(row for row in rows if row is not None and row.address_size in routed)

    def apply(self, operations: Iterable[RowOperation]) -> list[RefusedOperation]:
        """Apply operations on rows; return those that failed, with the error."""
        return apply_each(operations, self._apply)

    def _apply(self, operation: RowOperation) -> None:
        row = operation.row
        assert isinstance(row, InterceptRow)
        if isinstance(operation, PutRow):
            self._put(row)
        else:
            self._socket.request((codec.RTM_DELRULE, 0, _rule(row)), harmless={errno.ENOENT})

    def _put(self, row: InterceptRow) -> None:
        if not self._tables.holds(TABLE):
            self._tables.replace(TABLE, {})
        replace = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
        self._socket.request((codec.RTM_NEWROUTE, replace, _route(row.address_size)))
        new = codec.NLM_F_CREATE | codec.NLM_F_EXCL
        self._socket.request((codec.RTM_NEWRULE, new, _rule(row)), harmless={errno.EEXIST})


def open_interception(netns_fd: int, socket: NetlinkSocket) -> Interception | None:
    """Return a sandbox's interception; None if the kernel has no part of it.

    Raises OSError if the host is short of descriptors or memory: it may be possible later.
    """
    try:
        return Interception(netns_fd, socket)
    except NftMissingError:
        return None
    except OSError as error:
        if error.errno in netns.SHORTAGE:
            raise
        return None


# --- messages -------------------------------------------------------------------------------


def _rule(row: InterceptRow) -> bytes:
    family = _FAMILIES[row.address_size]
    return (
        _HEADER.pack(family, 0, 0, 0, _ROUTE_TABLE, 0, 0, _FR_ACT_TO_TABLE, 0)
        + attribute(_FRA_IIFNAME, row.link.encode() + b"\0")
        + attribute(_FRA_PRIORITY, _U32.pack(_PRIORITY))
        + attribute(_FRA_MARK, _U32.pack(_MARK))
    )


def _route(size: int) -> bytes:
    head = _HEADER.pack(
        _FAMILIES[size], 0, 0, 0, _ROUTE_TABLE, _RTPROT_STATIC, _RT_SCOPE_HOST, _RTN_LOCAL, 0
    )
    return head + attribute(_RTA_OIF, _U32.pack(_LOOPBACK))


def decode_rule(message: NetlinkMessage) -> InterceptRow | None:
    """Return the rule of a message; None for any other rule."""
    _, buffer, start, end = message
    family, _, _, _, table, _, _, action, _ = _HEADER.unpack_from(buffer, start)
    found = attributes(buffer, start + routes.HEADER_SIZE, end)
    link = found.get(_FRA_IIFNAME)
    is_ours = action == _FR_ACT_TO_TABLE and table == _ROUTE_TABLE and family in _SIZES
    if not is_ours or link is None or found.get(_FRA_MARK) != _U32.pack(_MARK):
        return None
    return InterceptRow(link.rstrip(b"\0").decode(), _SIZES[family])


def route_of(message: NetlinkMessage) -> int | None:
    """Return the address size of the rules' route; None for any other route."""
    _, buffer, start, end = message
    family, length, _, _, table, _, _, kind, _ = _HEADER.unpack_from(buffer, start)
    if length or table != _ROUTE_TABLE or kind != _RTN_LOCAL:
        return None
    out = attributes(buffer, start + routes.HEADER_SIZE, end).get(_RTA_OIF)
    return _SIZES.get(family) if out == _U32.pack(_LOOPBACK) else None
