"""Drop the frames by which switches talk to each other: a segment is no part of their network.

Spanning tree, LLDP, LACP, pause frames and their like are meant for the next device only
(IEEE 802.1Q section 8.6.3). A Linux bridge without STP forwards spanning tree frames to all ports,
and any port forwards LLDP to another MAC. So a container could take part in the spanning tree of
whatever is plugged into its network, or pose as a switch to the host. A table of the family bridge
in each sandbox drops these frames at every port, also those that arrive from other hosts, and
whatever else is allowed: port security and its exemptions come after it.

The fast path carries IP and ARP alone (`kernel.bpf.programs`), so all others pass here.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final, TypeAlias

from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import POLICY_LINK, BoundaryRow
from overlay.kernel import netns
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.table import FAMILY_BRIDGE, PREROUTING, Chain, Table
from overlay.kernel.nft.tables import NftMissingError
from overlay.kernel.nft.watched_table import WatchedTable

_BEFORE_PORT_SECURITY: Final = -250
_REFUSED: Final = (ex.counter(), ex.drop())
# Groups of sixteen MACs, of which the last four bits don't matter: those that no bridge forwards,
# those of protocols between bridges (MVRP, MMRP), and those of Cisco's (CDP, VTP, PVST+).
_GROUPS: Final = tuple(map(bytes.fromhex, ("0180c2000000", "0180c2000020", "01000cccccc0")))
_GROUP_MASK: Final = b"\xff" * 5 + b"\xf0"
_LLDP, _SLOW_PROTOCOLS, _MAC_CONTROL = 0x88CC, 0x8809, 0x8808
_TYPES: Final = (_LLDP, _SLOW_PROTOCOLS, _MAC_CONTROL)
_TAGS: Final = (0x8100, 0x88A8)  # of a second VLAN tag: the kernel takes the first one off
_LLC: Final = 0x0004  # ETH_P_802_2: what the kernel calls a frame with a length in place of a type
_SPANNING_TREE: Final = b"\x42\x42"  # service access points, IEEE 802.1D

RowOperation: TypeAlias = PutRow | DeleteRow


def _rules() -> tuple[Rule, ...]:
    groups = tuple(
        (ex.link_header(0, 6), ex.masked(_GROUP_MASK), ex.equals(group), *_REFUSED)
        for group in _GROUPS
    )
    types = tuple((*ex.ethertype(each), *_REFUSED) for each in _TYPES)
    tagged = tuple(
        (ex.link_header(20, 2), ex.equals(each.to_bytes(2, "big")), *ex.ethertype(tag), *_REFUSED)
        for tag in _TAGS
        for each in _TYPES
    )
    llc = (*ex.ethertype(_LLC), ex.network_header(0, 2), ex.equals(_SPANNING_TREE), *_REFUSED)
    return (*groups, *types, *tagged, llc)


TABLE: Final = Table(
    FAMILY_BRIDGE,
    "overlayd_boundary",
    (),
    (Chain("arriving", _rules(), (PREROUTING, _BEFORE_PORT_SECURITY)),),
)


class Boundary(WatchedTable):
    """The table of one sandbox. Used by the kernel thread, except `altered`."""

    def __init__(self, netns_fd: int) -> None:
        """Probe the table.

        Raises NftMissingError if the kernel does not support it.
        """
        super().__init__(netns_fd, TABLE)

    def read(self) -> frozenset[BoundaryRow]:
        """Return the row of the table, if it is as it should be."""
        return frozenset({BoundaryRow(POLICY_LINK)} if self._tables.holds(TABLE) else ())

    def apply(self, operations: Iterable[RowOperation]) -> list[tuple[RowOperation, OSError]]:
        """Apply operations on the row; return those that failed, with the error."""
        failures: list[tuple[RowOperation, OSError]] = []
        for operation in operations:
            try:
                if isinstance(operation, PutRow):
                    self._tables.replace(TABLE, {})
                else:
                    self._tables.delete(TABLE.family, TABLE.name)
            except NftMissingError as error:
                failures.append((operation, OSError(errno.EOPNOTSUPP, error.why)))
            except OSError as error:
                failures.append((operation, error))
        return failures

    def dropped(self) -> int:
        """Return how many frames were dropped since the table was written. Raises OSError."""
        return sum(self._tables.counted(TABLE))


def open_boundary(netns_fd: int) -> Boundary | None:
    """Return a sandbox's table; None if the kernel has no nftables for bridges.

    Raises OSError if the host is short of descriptors or memory: it may be possible later.
    """
    try:
        return Boundary(netns_fd)
    except NftMissingError:
        return None
    except OSError as error:
        if error.errno in netns.SHORTAGE:
            raise
        return None
