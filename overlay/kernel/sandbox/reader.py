"""Read a sandbox's state as a value: its links, then its rows.

Owns: the required netlink dumps (rtnetlink(7)), and which of their entries count.
Does not: change anything; `sandbox` does.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from overlay.core.dataplane.link_state import (
    HOST_PORT_PREFIX,
    Bridge,
    Link,
    Port,
    RouterLink,
    Shortcut,
    Vxlan,
)
from overlay.core.dataplane.planning.planned_rows import PlannedRows, RemoteRows, SeenRows
from overlay.core.dataplane.state import Row
from overlay.kernel.bpf.fast_path import FastPath, hooks_left
from overlay.kernel.controls.priority import PriorityMarks
from overlay.kernel.controls.shared_rate import SharedRates
from overlay.kernel.controls.table import ControlTable
from overlay.kernel.netlink import (
    address_rows,
    codec,
    link_decoder,
    local_entry,
    neighbor_dumps,
    neighbor_rows,
)
from overlay.kernel.netlink import routes as routing
from overlay.kernel.netlink import socket as netlinksocket
from overlay.kernel.netlink.link_lookup import all_links
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.nft.port_security import PortSecurity
from overlay.kernel.router import link as router_link
from overlay.kernel.router.link import RouterPeers
from overlay.kernel.sandbox import rate_limit
from overlay.kernel.sandbox.interception import Interception
from overlay.kernel.sandbox.row_reading import RowReading
from overlay.kernel.shortcut import pair, sender

# Maximum number of steps for the kernel to dump all FDBs; a million take some 10 ms.
_FDB_WALK_MAX: Final = 1_000_000


class SeenLinks(NamedTuple):
    """The sandbox's links, and what is known of them beside their state."""

    own: dict[int, Link]  # by index
    names: dict[int, str]  # of all links, by index
    macs: dict[int, bytes]  # likewise
    shortcuts: dict[str, int]  # by name: the indexes of the ends in the host's namespace
    zero_checksums: dict[str, bool]  # by name: whether a VXLAN device accepts packets without

    @property
    def by_name(self) -> dict[str, Link]:
        """Return the links as a state has them."""
        return {link.name: link for link in self.own.values()}


class SandboxTables(NamedTuple):
    """The places of a sandbox's rows beside netlink tables; None where the kernel lacks one."""

    guard: PortSecurity | None
    controls: ControlTable | None
    interception: Interception | None
    marks: PriorityMarks
    shared_rates: SharedRates


class SandboxReader:
    """Reads the state of one sandbox."""

    def __init__(
        self,
        socket: NetlinkSocket,
        host_fd: int,
        tables: SandboxTables,
        peers: RouterPeers | None,
    ) -> None:
        self._socket = socket
        self._host_fd = host_fd
        self._tables = tables
        self._peers = peers
        self._row_count = _FDB_WALK_MAX  # at the last read; assumed large before the first

    def read_links(self) -> SeenLinks:
        """Return the sandbox's links. Raises TornDumpError if they change during every attempt."""
        found = all_links(self._socket)
        names = {link.index: link.name for link in found}
        host_netns = netlinksocket.namespace_id(self._socket, self._host_fd)
        own_links: dict[int, Link] = {}
        shortcuts: dict[str, int] = {}
        for each in found:
            link = link_decoder.to_link(each, names, host_netns)
            if isinstance(link, Bridge) and not self._has_local_entry(each.index, each.mac):
                link = link._replace(altered=(*link.altered, local_entry.LOCAL_ENTRY))
            if isinstance(link, RouterLink) and self._peers is not None:
                link = router_link.checked(link, each, self._socket, self._peers)
            if isinstance(link, Shortcut):
                end = pair.host_end(each, host_netns, self._socket)
                link = pair.checked(link, end)
                shortcuts[link.name] = 0 if end is None else end.index
            if link is not None:
                own_links[each.index] = link
        accepting = {
            each.name: link_decoder.accepts_zero_checksum(each)
            for each in found
            if each.kind == "vxlan"
        }
        macs = {each.index: each.mac for each in found}
        return SeenLinks(own_links, names, macs, shortcuts, accepting)

    def read_rows(
        self, links: SeenLinks, fast_path: FastPath | None, planned: RemoteRows
    ) -> AbstractSet[Row]:
        """Return the rows on the links, and those of the fast path.

        Of the `planned` rows, those that it has are not held once more.
        Excludes what the kernel creates by itself: learned rows, its own MACs, multicast,
        link-local addresses, the loopback. Raises TornDumpError if the tables change during every
        attempt.
        """
        seen = netlinksocket.whole(lambda: self._dump_neighbors(links, planned))
        self._row_count = seen.count
        if fast_path is not None:
            seen.update(fast_path.remote.rows())
        seen.update(self.read_own_rows(links, fast_path))
        return seen.rows()

    def read_own_rows(self, links: SeenLinks, fast_path: FastPath | None) -> set[Row]:
        """Return the rows on the links, without those in tables of remote endpoints' rows."""
        owned = {index: link.name for index, link in links.own.items()}
        found: set[Row] = self._addresses(owned) | self._routing(owned)
        if fast_path is None:
            found |= hooks_left(self._socket, owned)
        else:
            found |= fast_path.read(self._socket, owned)
        found |= sender.read(fast_path, links.shortcuts, self._host_fd)
        for rows in self._read_tables(owned):
            found |= rows
        found |= rate_limit.read(self._socket, links.names)
        found |= self._tables.marks.read(self._socket, owned)
        return found | self._tables.shared_rates.read(self._socket, owned)

    def begin(
        self, netns_fd: int, links: SeenLinks, fast_path: FastPath | None, planned: PlannedRows
    ) -> RowReading:
        """Begin to read, part by part, what `read_own_rows` leaves out. Raises OSError."""
        names = {index: link.name for index, link in links.own.items()}
        self._row_count = max(self._row_count, len(planned.remote))
        ports = self._ports_to_read(links.own)
        socket = NetlinkSocket(netns_fd)
        return RowReading(socket, names, links.macs, ports, fast_path, planned)

    def end(self, reading: RowReading) -> None:
        """End what `begin` began, and note how many rows there are."""
        reading.close()
        if reading.row_count is not None:
            self._row_count = reading.row_count

    def _read_tables(self, owned: Mapping[int, str]) -> Iterator[frozenset[Row]]:
        """Yield the rows of each nftables table."""
        guard, controls, interception, *_ = self._tables
        if guard is not None:
            yield guard.read(owned)
        if controls is not None:
            yield controls.read(owned)
        if interception is not None:
            yield interception.read()

    def _has_local_entry(self, bridge: int, mac: bytes) -> bool:
        """Return whether frames for a bridge's own MAC are for this host.

        If not, containers reach no gateway here; they may reach another host's. Asked for by
        itself, as a dump of the entries on the bridge walks the whole FDB.
        """
        try:
            found = self._socket.get(local_entry.get_entry(bridge, mac))
        except NetlinkError as error:
            return error.errno != errno.ENOENT  # deleted since the links were read
        return any(local_entry.is_local_entry(each, bridge) for each in found)

    def _addresses(self, names: Mapping[int, str]) -> set[Row]:
        messages = self._socket.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP)
        found = (address_rows.decode_address(message, names) for message in messages)
        return {row for row in found if row is not None}

    def _dump_neighbors(self, links: SeenLinks, planned: RemoteRows) -> SeenRows:
        """Return the rows in the dumps, each decoded as it comes. Raises TornDumpError."""
        names = {index: link.name for index, link in links.own.items()}
        dumps = [self._socket.dump_stream(codec.RTM_GETNEIGH, neighbor_rows.NEIGHBOR_DUMP)]
        dumps += [
            self._dump_port(neighbor_rows.fdb_dump(index))
            for index in self._ports_to_read(links.own)
        ]
        seen = SeenRows(planned)
        for dump in dumps:
            seen.update(neighbor_dumps.decode_neighbors(dump, names, links.macs))
        return seen

    def _routing(self, names: Mapping[int, str]) -> set[Row]:
        routes = self._socket.dump(codec.RTM_GETROUTE, routing.DUMP)
        rules = self._socket.dump(codec.RTM_GETRULE, routing.DUMP)
        found: list[Row | None] = [routing.decode_route(message, names) for message in routes]
        for decode in (routing.decode_barrier, routing.decode_entry):
            found += [decode(message) for message in rules]
        return {row for row in found if row is not None}

    def _ports_to_read(self, own_links: Mapping[int, Link]) -> Sequence[int]:
        """Return the indexes of the ports whose FDB to read; 0 for all.

        Overlayd's rows are on VTEPs and uplink ports; other ports have none unless another program
        adds them.
        """
        if len(own_links) * self._row_count <= _FDB_WALK_MAX:
            return [0]
        return [
            index
            for index, link in own_links.items()
            if isinstance(link, Vxlan)
            or (isinstance(link, Port) and link.name.startswith(HOST_PORT_PREFIX))
        ]

    def _dump_port(self, request: bytes) -> Iterator[bytes]:
        try:
            yield from self._socket.dump_stream(codec.RTM_GETNEIGH, request)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:  # deleted since the links were read
                raise
