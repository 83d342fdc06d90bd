"""A segment's own controls in nftables: its boundary towards switches, and storm control.

Spanning tree, LLDP, LACP, pause frames and their like are meant for the next device only
(IEEE 802.1Q section 8.6.3). A Linux bridge without STP forwards spanning tree frames to all ports,
and any port forwards LLDP to another MAC. So a container could take part in the spanning tree of
whatever is plugged into its network, or pose as a switch to the host. A table of the family bridge
in each sandbox drops these frames at every port, also those that arrive from other hosts, and
whatever else is allowed: port security and its exemptions come after it.

The fast path carries IP and ARP alone (`kernel.bpf.programs`), so all others pass here.

Storm control drops what a container sends to groups of MACs (broadcast, multicast) above a number
of frames a second, and counts it. It comes after port security, so that forged frames are dropped
as such. The fast path carries no such frames.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from overlay.core.dataplane.link_state import POLICY_LINK
from overlay.core.dataplane.operations import PutRow
from overlay.core.dataplane.state import BoundaryRow, StormRow
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.elements.limit_elements import put_limited, read_limited
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.table import FAMILY_BRIDGE, PREROUTING, Chain, Set, Table
from overlay.kernel.nft.tables import NftMissingError
from overlay.kernel.nft.watched_table import WatchedTable
from overlay.kernel.row_operations import RefusedOperation, RowOperation, apply_each

_BEFORE_PORT_SECURITY, _AFTER_PORT_SECURITY = -250, -190
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

_STORM: Final = "storm"
_TYPE_INDEX: Final = 20  # nft's own number
_INDEX: Final = struct.Struct("=I")

ControlRow: TypeAlias = BoundaryRow | StormRow
CONTROL_ROWS: Final = (BoundaryRow, StormRow)


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


_FLOODING: Final[Rule] = (
    ex.link_header(0, 1),
    ex.masked(b"\x01"),
    ex.equals(b"\x01"),
    ex.incoming_index(),
    ex.in_set(_STORM),  # goes on with what is above the limit of the element
    ex.drop(),
)
TABLE: Final = Table(
    FAMILY_BRIDGE,
    "overlayd_controls",
    (Set(_STORM, _TYPE_INDEX, 4),),
    (
        Chain("boundary", _rules(), (PREROUTING, _BEFORE_PORT_SECURITY)),
        Chain("flooding", (_FLOODING,), (PREROUTING, _AFTER_PORT_SECURITY)),
    ),
)


class ControlTable(WatchedTable):
    """The table of one sandbox. Used by the kernel thread, except `altered`."""

    def __init__(self, netns_fd: int) -> None:
        """Probe the table.

        Raises NftMissingError if the kernel does not support it.
        """
        self._storms: dict[int, int] = {}  # frames a second by port's index, as last known
        super().__init__(netns_fd, TABLE)

    def read(self, names: Mapping[int, str]) -> frozenset[ControlRow]:
        """Return the rows in force; none if the table was changed.

        A port that no longer exists is named by its index ("#17"). Raises OSError.
        """
        self._is_intact = self._tables.holds(TABLE)
        if not self._is_intact:
            return frozenset()
        elements = map(read_limited, self._tables.element_parts(TABLE, _STORM))
        self._storms = {_INDEX.unpack(each.key)[0]: each.per_second for each in elements}
        storms = (StormRow(names.get(n, f"#{n}"), limit) for n, limit in self._storms.items())
        return frozenset({BoundaryRow(POLICY_LINK), *storms})

    def apply(
        self, operations: Iterable[RowOperation], index_of: Callable[[str], int]
    ) -> list[RefusedOperation]:
        """Apply operations on rows; return those that failed, with the error.

        A missing port is not a failure here: the port's own operation reports it.
        """

        def apply(operation: RowOperation) -> None:
            try:
                self._apply(operation, index_of)
            except NftMissingError as error:
                raise OSError(errno.EOPNOTSUPP, error.why) from error

        return apply_each(operations, apply)

    def _apply(self, operation: RowOperation, index_of: Callable[[str], int]) -> None:
        row, is_put = operation.row, isinstance(operation, PutRow)
        if isinstance(row, BoundaryRow):
            if is_put:
                self._replace()
            else:
                self._tables.delete(TABLE.family, TABLE.name)
                self._is_intact = False
            return
        assert isinstance(row, StormRow)
        index = int(row.link[1:]) if row.link.startswith("#") else index_of(row.link)
        if index:
            self._limit(index, row.per_second if is_put else 0)

    def _limit(self, index: int, per_second: int) -> None:
        key = _INDEX.pack(index)
        known = frozenset({key}) if index in self._storms else frozenset()
        self._storms.pop(index, None)
        wanted = {key: per_second} if per_second else {}
        try:
            self._tables.change(TABLE, {}, {_STORM: known}, put_limited(TABLE, _STORM, wanted))
            self._storms |= {index: per_second} if per_second else {}
        except (FileNotFoundError, FileExistsError):  # changed since it was read
            self._storms |= {index: per_second} if per_second else {}
            self._replace()

    def _replace(self) -> None:
        storms = {_INDEX.pack(index): each for index, each in self._storms.items()}
        self._tables.replace(TABLE, {}, put_limited(TABLE, _STORM, storms))
        self._is_intact = True

    def boundary_dropped(self) -> int:
        """Return how many frames of switches were dropped since the table was written."""
        return sum(self._tables.counted(TABLE))

    def storms_dropped(self) -> dict[int, int]:
        """Return how many frames above their limits were dropped, by the port's index.

        Since the limit was written. Raises OSError.
        """
        try:
            found = [*map(read_limited, self._tables.element_parts(TABLE, _STORM))]
        except FileNotFoundError:
            return {}
        return {_INDEX.unpack(each.key)[0]: each.packets for each in found}


def open_controls(netns_fd: int) -> ControlTable | None:
    """Return a sandbox's table; None if the kernel has no nftables for bridges.

    Raises OSError if the host is short of descriptors or memory: it may be possible later.
    """
    try:
        return ControlTable(netns_fd)
    except NftMissingError:
        return None
    except OSError as error:
        if error.errno in netns.SHORTAGE:
            raise
        return None


def require_storm_control() -> None:
    """Raise OverlayError unless this kernel can limit frames per port.

    Tested in a temporary namespace.
    """
    with netns.temporary() as netns_fd:
        try:
            table = ControlTable(netns_fd)
            try:
                failed = table.apply([PutRow(BoundaryRow()), PutRow(StormRow("lo", 1))], _loopback)
            finally:
                table.close()
            why = failed[0][1].strerror if failed else ""
        except NftMissingError as error:
            why = error.why
    if why:
        raise OverlayError(
            "this kernel cannot limit broadcast and multicast",
            why=why,
            hint="Load the modules nf_tables and nft_limit (modprobe); slim kernels keep them in a "
            "package such as linux-modules-extra",
        )


def _loopback(name: str) -> int:
    del name
    return 1
