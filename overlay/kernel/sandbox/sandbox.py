"""Create, change and remove one network's namespace on this host.

Owns: the sandbox's namespace, its netlink socket, and the order in which operations are applied.
Does not: read the state (`reader`), decide what is wanted (the planner), or encode messages
(`kernel.netlink`).

All calls block for microseconds to milliseconds, so run them in the agent's kernel thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, suppress
from typing import Final, Self

from overlay.core.dataplane.link_state import (
    Bridge,
    Link,
    PlugPort,
    Port,
    RouterLink,
    Shortcut,
    Vxlan,
)
from overlay.core.dataplane.mac_changes import MacChange
from overlay.core.dataplane.operations import (
    ChangeLink,
    DeleteLink,
    DeleteRow,
    Operation,
    PutLink,
    PutRow,
)
from overlay.core.dataplane.planning.planned_rows import NO_REMOTE_ROWS, PlannedRows, RemoteRows
from overlay.core.dataplane.state import NeighborRow, Row, SandboxState
from overlay.errors import NotFoundError, UsageError
from overlay.kernel import netns
from overlay.kernel.bpf import tc_filters
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.controls.priority import PriorityMarks
from overlay.kernel.controls.shared_rate import SharedRates
from overlay.kernel.controls.table import open_controls
from overlay.kernel.netlink import link_requests, row_requests
from overlay.kernel.netlink.link_decoder import ALIAS_DEFAULT
from overlay.kernel.netlink.link_lookup import delete_links, links_best_effort
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.nft.port_security import PortSecurity
from overlay.kernel.nft.tables import NftMissingError
from overlay.kernel.plug import plug_port
from overlay.kernel.router import link as router_link
from overlay.kernel.router.link import RouterPeers
from overlay.kernel.row_operations import RowOperation
from overlay.kernel.sandbox import gratuitous_arp, kernel_support, sysctls
from overlay.kernel.sandbox.interception import open_interception
from overlay.kernel.sandbox.link_indexes import LinkIndexes
from overlay.kernel.sandbox.monitor import SandboxMonitor
from overlay.kernel.sandbox.operation_failure import OperationFailure, link_of
from overlay.kernel.sandbox.reader import SandboxReader, SandboxTables, SeenLinks
from overlay.kernel.sandbox.row_applier import RowApplier
from overlay.kernel.sandbox.row_reading import RowReading
from overlay.kernel.shortcut import sender
from overlay.kernel.shortcut.pair import ShortcutPairs
from overlay.model import Mac


class Sandbox:
    """An open sandbox. Its namespace outlives this object and the process."""

    def __init__(
        self,
        name: str,
        netns_fd: int,
        alias: str,
        fast_path: FastPath | None,
        peers: RouterPeers | None = None,
        *,
        over_ipv6: bool = False,
    ) -> None:
        self.zero_checksums: dict[str, bool] = {}
        """By name, whether VXLAN devices accept IPv6 packets without a UDP checksum."""
        self._wants_zero_checksums = over_ipv6
        self.reading: RowReading | None = None
        self.name = name
        self.netns_fd = netns_fd
        self.alias = alias
        self.fast_path = fast_path
        self._peers = peers
        with ExitStack() as undo:
            self.guard, self.guard_fault = _port_guard(netns_fd)
            if self.guard is not None:
                undo.callback(self.guard.close)
            self.controls = open_controls(netns_fd)
            if self.controls is not None:
                undo.callback(self.controls.close)
            self.socket = undo.enter_context(NetlinkSocket(netns_fd))
            self.interception = open_interception(netns_fd, self.socket)
            if self.interception is not None:
                undo.callback(self.interception.close)
            self._host_fd = netns.own_fd()
            undo.pop_all()
        self._links = LinkIndexes(self.socket)
        self.shortcuts = ShortcutPairs(name, self.socket, netns_fd, self._host_fd, alias)
        self._marks = PriorityMarks()
        self.shared_rates = SharedRates()
        tables = SandboxTables(
            self.guard, self.controls, self.interception, self._marks, self.shared_rates
        )
        self._rows = RowApplier(netns_fd, self.socket, self._links, tables, self.shortcuts)
        self._reader = SandboxReader(self.socket, self._host_fd, tables, peers)

    @classmethod
    def open(
        cls,
        name: str,
        *,
        create: bool,
        alias: str = ALIAS_DEFAULT,
        fast_path: FastPath | None = None,
        peers: RouterPeers | None = None,
        over_ipv6: bool = False,
    ) -> Self:
        """Open the sandbox of that name.

        With `create`, creates it if it does not exist. The contents of an existing one are kept.
        `alias` marks overlayd's links, `peers` says where those of routers may lead, `over_ipv6`
        that the underlay is IPv6. The calling thread's namespace is used as the host's, where VTEPs
        get their UDP socket. Raises NotFoundError if there is no such sandbox, OverlayError if the
        kernel refuses.
        """
        try:
            netns_fd = netns.open_fd(netns.path_of(name))
        except (NotFoundError, UsageError):  # UsageError: a stale name left by a crash
            if not create:
                raise NotFoundError(f"no sandbox {name}") from None
            netns_fd = netns.create(name)
        try:
            sandbox = cls(name, netns_fd, alias, fast_path, peers, over_ipv6=over_ipv6)
        except BaseException:
            os.close(netns_fd)
            raise
        try:
            sandbox._prepare()
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    def _prepare(self) -> None:
        """Set up the namespace: sysctls; loopback up and marked as overlayd's."""
        sysctls.prepare(self.netns_fd)
        self.socket.transact([link_requests.set_alias(1, self.alias), link_requests.set_up(1)])

    def close(self) -> None:
        """Close the sockets; forwarding continues. Closing again does nothing."""
        self.end_reading()
        self.socket.close()
        if self.fast_path is not None:
            self.fast_path.close()
        tables = (self.guard, self.controls, self.interception, self._marks, self.shared_rates)
        for each in tables:
            if each is not None:
                each.close()
        if self.netns_fd >= 0:
            os.close(self.netns_fd)
            os.close(self._host_fd)
            self.netns_fd = self._host_fd = -1

    def destroy(self) -> None:
        """Delete all links, then the namespace; closes this object.

        Links go first: the kernel destroys a namespace some time later, and until then the VNI
        would be in use. Ports of plugged interfaces go down before all (see `plug_port`): deleted
        together with its bridge, a port is freed first, as also when the kernel destroys a
        namespace.
        """
        links = [each for each in links_best_effort(self.socket) if each.kind in _OWN_KINDS]
        plugs = [each.index for each in links if each.kind == "macvlan" and each.master]
        self.socket.transact([link_requests.set_down(index) for index in plugs])
        delete_links(self.socket, [each.index for each in links])
        self.close()
        netns.remove(self.name)

    def monitor(self) -> SandboxMonitor:
        """Return a new monitor of changes in this sandbox."""
        return SandboxMonitor(self.netns_fd)

    def named(self) -> bool:
        """Return whether the name still refers to this namespace.

        `ip netns del` removes the name (ip-netns(8)).
        """
        return netns.names_identity(self.name) == netns.identity(self.netns_fd)

    def restore_name(self) -> None:
        """Restore the namespace's name; forwarding is not interrupted.

        Raises OSError.
        """
        netns.give_name(self.netns_fd, self.name)

    def read(self, planned: RemoteRows = NO_REMOTE_ROWS) -> SandboxState:
        """Return the present state, as `read_links` and `read_rows` do."""
        links = self.read_links()
        return SandboxState(links.by_name, self.read_rows(links, planned))

    def read_links(self) -> SeenLinks:
        """Return the present links, and note them. Raises TornDumpError."""
        seen = self._reader.read_links()
        self._links.replace(seen.names)
        self.shortcuts.host_ends = seen.shortcuts
        self.zero_checksums = seen.zero_checksums
        return seen

    def read_rows(self, links: SeenLinks, planned: RemoteRows) -> AbstractSet[Row]:
        """Return the present rows on links that were just read; no copies of the `planned` ones.

        Raises TornDumpError.
        """
        return self._reader.read_rows(links, self.fast_path, planned)

    def read_own_rows(self, links: SeenLinks) -> AbstractSet[Row]:
        """Return the present rows but those that `begin_reading` reads. Raises TornDumpError."""
        return self._reader.read_own_rows(links, self.fast_path)

    def begin_reading(self, planned: PlannedRows) -> RowReading:
        """Begin to read the rows of remote endpoints part by part, in place of a former reading.

        Raises OSError, TornDumpError.
        """
        links = self.read_links()
        self.end_reading()
        self.reading = self._reader.begin(self.netns_fd, links, self.fast_path, planned)
        return self.reading

    def end_reading(self) -> None:
        """End what `begin_reading` began, if that has not ended."""
        if self.reading is not None:
            self._reader.end(self.reading)
            self.reading = None

    def announce(self, announcements: Sequence[MacChange]) -> None:
        """Announce changed MACs of addresses to this host's containers.

        Without eBPF, the containers' own neighbor entries have to expire.
        """
        for bridge, ip, mac, is_local in announcements:
            index = self._links.of(bridge)
            if is_local:  # the bridge does not receive its own frame: delete its neighbor entry
                request = row_requests.delete(NeighborRow(bridge, ip, mac), index)
                list(self.socket.transact([request]))
            with suppress(OSError):
                gratuitous_arp.announce(self.netns_fd, index, ip, mac)

    # --- Applying -----------------------------------------------------------------------

    def apply(self, operations: Sequence[Operation]) -> list[OperationFailure]:
        """Apply the operations in order; return those that failed.

        A failure stops no other. Deleting something that does not exist succeeds. A missing `Port`
        fails, as only an attach creates those.
        """
        if self.reading is not None:
            self.reading.note(operations)
        failures: list[OperationFailure] = []
        row_operations: list[RowOperation] = []
        for operation in operations:
            if isinstance(operation, PutRow | DeleteRow):
                row_operations.append(operation)
                continue
            failures += self._rows.apply(row_operations, self.fast_path)
            row_operations = []
            try:
                self._apply_link(operation)
            except NetlinkError as error:
                failures.append(self._failure(operation, error))
        return failures + self._rows.apply(row_operations, self.fast_path)

    def _apply_link(self, operation: PutLink | ChangeLink | DeleteLink) -> None:
        match operation:
            case PutLink(link):
                self._put_link(link, None)
            case ChangeLink(before, link):
                self._put_link(link, before)
            case DeleteLink(link):
                index = self._links.of(link.name)
                if index:
                    self._delete_link(link.name, index)

    def _delete_link(self, name: str, index: int) -> None:
        self.socket.request(link_requests.delete_link(index), harmless={errno.ENODEV})
        self._links.forget(name)
        self.shortcuts.host_ends.pop(name, None)
        self.zero_checksums.pop(name, None)

    def _put_link(self, link: Link, before: Link | None) -> None:
        if isinstance(link, Shortcut):
            if self.shortcuts.put(link, self._links.find(link.name)):
                self._links.find(link.name)
                self._prepare_hooks(link.name)
            return
        index = 0 if before is None and not isinstance(link, Port) else self._links.find(link.name)
        master = (
            self._links.of_master(link.master) if isinstance(link, Vxlan | Port | PlugPort) else 0
        )
        created = False
        if not index and not isinstance(link, Port):
            created = self._create(link, master)
            index = self._links.find(link.name)
        if not index:
            raise NetlinkError(errno.ENODEV, f"there is no interface {link.name}")
        now = None if created else before or link
        match link:
            case Bridge():
                steps = link_requests.set_bridge(index, link, now, self.alias)
            case Vxlan():
                steps = link_requests.set_vxlan(index, link, now, master, self.alias)
            case Port():
                steps = link_requests.set_port(index, link, now, master, self.alias)
            case RouterLink():
                steps = router_link.set_up(index, link, now, self.alias)
            case PlugPort():
                steps = plug_port.set_up(index, link, now, master, self.alias)
        for refusal in self.socket.transact(steps):
            if refusal.errno == errno.EADDRINUSE and self.zero_checksums.get(link.name):
                # A device without this setting, as earlier versions make them, has the socket.
                self._wants_zero_checksums = False
                self._delete_link(link.name, index)
                self._put_link(link, None)
                return
            raise NetlinkError(refusal.errno, str(refusal))
        if isinstance(link, Vxlan):
            sender.refresh(self.fast_path, self.shortcuts, link.name)

    def _create(self, link: Bridge | Vxlan | RouterLink | PlugPort, master: int) -> bool:
        """Create the link; return False if there already is one of that name."""
        try:
            if isinstance(link, Bridge):
                self.socket.request(link_requests.create_bridge(link))
            elif isinstance(link, RouterLink):
                router_link.create(self.socket, link, self._peers)
            elif isinstance(link, PlugPort):
                plug_port.create(link, self.netns_fd, self._host_fd)
            else:
                accepts = self._wants_zero_checksums and len(link.local) == 16
                request = link_requests.create_vxlan(
                    link, self.netns_fd, master, zero_checksum=accepts
                )
                with NetlinkSocket(self._host_fd) as host:
                    host.request(request)
                self.zero_checksums[link.name] = accepts
        except NetlinkError as error:
            # EEXIST means that either the name or the VNI is taken.
            if error.errno == errno.EEXIST and self._links.find(link.name):
                return False
            raise
        self._prepare_hooks(link.name)
        return True

    def is_host(self, netns_fd: int) -> bool:
        """Return whether a namespace is the host's."""
        return netns.identity(netns_fd) == netns.identity(self._host_fd)

    def create_port(self, port: Port, netns_fd: int, ifname: str, mac: Mac, inner: int) -> int:
        """Create a veth pair from a port to a container's namespace; return the port's index.

        The container's end is called `ifname` and has the index `inner`; 0 is a free one. With a
        fast path the port has its hooks before it carries traffic (see `_prepare_hooks`). Raises
        NetlinkError, of EBUSY if an index is taken.
        """
        index = self._links.choose()
        indexes = (index, inner)
        master = self.link_index(port.master)
        steps = [link_requests.create_veth(port, master, netns_fd, ifname, mac, indexes)]
        if self.fast_path is not None:
            steps.append(tc_filters.add_clsact(index))
        for refusal in self.socket.transact(steps):
            if refusal.position == 0:
                raise NetlinkError(refusal.errno, str(refusal))
        self._links.remember(port.name, index)
        return index

    def _prepare_hooks(self, name: str) -> None:
        """Add the fast path's hooks to a new link, before it carries traffic.

        The kernel stops a link's queue while hooks are added (`qdisc_graft`, net/sched/sch_api.c),
        and drops frames sent in these milliseconds, for example the first ARP reply.
        """
        if self.fast_path is not None and not name.startswith("br"):
            self.socket.transact([tc_filters.add_clsact(self._links.find(name))])

    def link_index(self, name: str) -> int:
        """Return a link's index.

        Raises NotFoundError if there is none of that name.
        """
        index = self._links.of(name)
        if not index:
            raise NotFoundError(f"no link {name} in sandbox {self.name}")
        return index

    def _failure(self, operation: Operation, error: OSError) -> OperationFailure:
        reason = error.strerror or str(error)
        link = link_of(operation)
        if isinstance(link, Vxlan) and error.errno in {errno.EEXIST, errno.EADDRINUSE}:
            reason = kernel_support.vni_conflict_text(self._host_fd, self.netns_fd, link, error)
        return OperationFailure(operation, error.errno or 0, reason)


def destroy_sandbox(name: str) -> None:
    """Remove a sandbox by name, or a stale name."""
    try:
        Sandbox.open(name, create=False).destroy()
    except NotFoundError:
        netns.remove(name)


def _port_guard(netns_fd: int) -> tuple[PortSecurity | None, str]:
    """Return the sandbox's port security, or the reason for having none.

    Containers work without it. Raises OSError if the host is short of descriptors or memory, as
    port security may be possible later.
    """
    try:
        return PortSecurity(netns_fd), ""
    except NftMissingError as error:
        return None, error.why
    except OSError as error:
        if error.errno in netns.SHORTAGE:
            raise
        return None, error.strerror or str(error)


_OWN_KINDS: Final = frozenset({"vxlan", "bridge", "veth", "ifb", "macvlan"})
