"""One network's namespace on this host: made, changed by operations, removed.

Owns the sandbox's namespace, its socket and the table of its links' indexes. Does what it is
told; what is there is read by `sandboxreader`, which state is wanted is the planner's business,
and what an operation's messages look like is that of `requests` and `rows`.

All calls block for microseconds to milliseconds: run them in the agent's kernel thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from overlay import failpoint
from overlay.core.dataplane.mac_changes import MacChange
from overlay.core.dataplane.operations import (
    ChangeLink,
    DeleteLink,
    DeleteRow,
    Operation,
    PutLink,
    PutRow,
)
from overlay.core.dataplane.state import (
    AddressRow,
    Bridge,
    GuardRow,
    Link,
    NeighborRow,
    Port,
    RateRow,
    SandboxState,
    Vxlan,
)
from overlay.errors import NotFoundError, UsageError
from overlay.kernel import netns
from overlay.kernel.bpf import tc_filters
from overlay.kernel.bpf.fast_path import FAST_ROWS, FastPath
from overlay.kernel.bpf.fast_path import apply as apply_fast
from overlay.kernel.netlink import link_requests, neighbor_rows
from overlay.kernel.netlink.codec import Request
from overlay.kernel.netlink.link_decoder import ALIAS_DEFAULT
from overlay.kernel.netlink.link_lookup import delete_links, find_link, links_best_effort
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.nft.port_security import PortSecurity
from overlay.kernel.nft.port_security import apply as apply_guard
from overlay.kernel.nft.tables import NftMissingError
from overlay.kernel.sandbox import gratuitous_arp, kernel_support, rate_limit
from overlay.kernel.sandbox.monitor import SandboxMonitor
from overlay.kernel.sandbox.reader import SandboxReader

# Set before any device exists, so that each is born with them.
_SYSCTLS: Final = (
    # Ports and VTEPs are silent: no MLD reports. A bridge gets IPv6 with an IPv6 address.
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv6/conf/default/addr_gen_mode", "1"),  # none: no fe80::, no router solicitations
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),  # frames come in by the other host's gateway
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/ip_forward", "1"),  # a network's subnets are routed here
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    # Where Docker has loaded br_netfilter, bridged frames would go through iptables' hooks too.
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
)


@dataclass(frozen=True, slots=True)
class OperationFailure:
    """An operation that the kernel refused, and its words for why."""

    operation: Operation
    errno: int
    reason: str


class Sandbox:
    """An open sandbox. Its namespace lives on when this object or the process ends."""

    def __init__(self, name: str, netns_fd: int, alias: str, fast_path: FastPath | None) -> None:
        self.name = name
        self.netns_fd = netns_fd
        self.alias = alias
        self.fast_path = fast_path
        with ExitStack() as undo:
            self.guard, self.guard_fault = _port_guard(netns_fd)
            if self.guard is not None:
                undo.callback(self.guard.close)
            self.socket = undo.enter_context(NetlinkSocket(netns_fd))
            self._host_fd = netns.own_fd()
            undo.pop_all()
        self._names: dict[int, str] = {}
        self._indexes: dict[str, int] = {}
        self._reader = SandboxReader(self.socket, self._host_fd, self.guard)

    @classmethod
    def open(
        cls,
        name: str,
        *,
        create: bool,
        alias: str = ALIAS_DEFAULT,
        fast_path: FastPath | None = None,
    ) -> Self:
        """Open the sandbox of that name, made if there is none and `create` says so.

        What is in an existing one stays as it is. `alias` marks what we make as ours. The
        calling thread's namespace becomes the host's: there VTEPs get their UDP socket.
        Raises NotFoundError, or OverlayError if the kernel does not let us.
        """
        try:
            netns_fd = netns.open_fd(netns.path_of(name))
        except (NotFoundError, UsageError):  # the latter: a name that a crash left
            if not create:
                raise NotFoundError(f"no sandbox {name}") from None
            netns_fd = netns.create(name)
        try:
            sandbox = cls(name, netns_fd, alias, fast_path)
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
        """Set the namespace up: sysctls, loopback up and marked as ours."""
        self._set_sysctls(_SYSCTLS)
        self.socket.transact([link_requests.set_alias(1, self.alias), link_requests.set_up(1)])

    def _set_sysctls(self, settings: Sequence[tuple[str, str]]) -> None:
        failpoint.failpoint("sandbox.sysctl")
        with netns.inside(self.netns_fd):
            for path, value in settings:
                with suppress(OSError):  # a kernel without IPv6 has no such file
                    Path("/proc/sys", path).write_text(value, encoding="ascii")

    def close(self) -> None:
        """Let go; everything goes on forwarding. A second time is harmless."""
        self.socket.close()
        if self.fast_path is not None:
            self.fast_path.close()
        if self.guard is not None:
            self.guard.close()
        if self.netns_fd >= 0:
            os.close(self.netns_fd)
            os.close(self._host_fd)
            self.netns_fd = self._host_fd = -1

    def destroy(self) -> None:
        """Remove everything in it, then the namespace; closes this object.

        Links go first: the kernel tears a namespace down some time later, and until then
        the VNI would be taken.
        """
        delete_links(
            self.socket,
            [each.index for each in links_best_effort(self.socket) if each.kind in _OWN_KINDS],
        )
        self.close()
        netns.remove(self.name)

    def monitor(self) -> SandboxMonitor:
        """Return a new listener for changes in this sandbox."""
        return SandboxMonitor(self.netns_fd)

    def named(self) -> bool:
        """Say whether the name still leads to this namespace (`ip netns del` takes it away)."""
        return netns.names_identity(self.name) == netns.identity(self.netns_fd)

    def restore_name(self) -> None:
        """Give the living namespace its name back; nothing of what it forwards is lost."""
        netns.give_name(self.netns_fd, self.name)

    def read(self) -> SandboxState:
        """Return what is there and ours; raises TornDumpError if it never holds still."""
        seen = self._reader.read(self.fast_path)
        self._names = seen.names
        self._indexes = {name: index for index, name in seen.names.items()}
        return seen.state

    def announce(self, announcements: Sequence[MacChange]) -> None:
        """Tell the containers here which addresses have another MAC; where the kernel takes no
        eBPF they find it out by themselves."""
        for bridge, ip, mac, is_local in announcements:
            index = self._index_of(bridge)
            if is_local:  # the bridge does not hear itself: let it forget what it has asked for
                request = neighbor_rows.delete(NeighborRow(bridge, ip, mac), index)
                list(self.socket.transact([request]))
            with suppress(OSError):
                gratuitous_arp.announce(self.netns_fd, index, ip, mac)

    # --- Applying -----------------------------------------------------------------------

    def apply(self, operations: Sequence[Operation]) -> list[OperationFailure]:
        """Do the operations in order; return those that failed. One failure stops no other.

        Deleting what is gone already is success. A missing `Port` fails: only an attach
        makes those.
        """
        failures: list[OperationFailure] = []
        row_operations: list[PutRow | DeleteRow] = []
        for operation in operations:
            if isinstance(operation, PutRow | DeleteRow):
                row_operations.append(operation)
                continue
            self._apply_rows(row_operations, failures)
            row_operations = []
            try:
                self._apply_link(operation)
            except NetlinkError as error:
                failures.append(self._failure(operation, error))
        self._apply_rows(row_operations, failures)
        return failures

    def _apply_link(self, operation: PutLink | ChangeLink | DeleteLink) -> None:
        match operation:
            case PutLink(link):
                self._put_link(link, None)
            case ChangeLink(before, link):
                self._put_link(link, before)
            case DeleteLink(link):
                index = self._indexes.get(link.name) or self._find(link.name)
                if index:
                    self._delete_link(link.name, index)

    def _delete_link(self, name: str, index: int) -> None:
        for refusal in self.socket.transact([link_requests.delete_link(index)]):
            if refusal.errno != errno.ENODEV:
                raise NetlinkError(refusal.errno, str(refusal))
        self._names.pop(index, None)
        self._indexes.pop(name, None)

    def _put_link(self, link: Link, before: Link | None) -> None:
        index = 0 if before is None and not isinstance(link, Port) else self._find(link.name)
        master = 0 if isinstance(link, Bridge) else self._master(link.master)
        created = False
        if not index and not isinstance(link, Port):
            created = self._create(link, master)
            index = self._find(link.name)
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
        for refusal in self.socket.transact(steps):
            raise NetlinkError(refusal.errno, str(refusal))

    def _create(self, link: Bridge | Vxlan, master: int) -> bool:
        """Make the link; False if there is one of that name already."""
        try:
            if isinstance(link, Bridge):
                self.socket.request(link_requests.create_bridge(link))
            else:
                with NetlinkSocket(self._host_fd) as host:
                    host.request(link_requests.create_vxlan(link, self.netns_fd, master))
        except NetlinkError as error:
            # The kernel says EEXIST for the name as for the VNI.
            if error.errno == errno.EEXIST and self._find(link.name):
                return False
            raise
        self.prepare_hooks(link.name)
        return True

    def prepare_hooks(self, name: str) -> None:
        """Give a new link the hooks of the fast path, while nothing passes it yet.

        The kernel stops a link's queue while hooks are added (`qdisc_graft`, net/sched/sch_api.c),
        and drops what is sent in these milliseconds: the first ARP answer, for instance.
        """
        if self.fast_path is not None and not name.startswith("br"):
            self.socket.transact([tc_filters.add_clsact(self._find(name))])

    def _master(self, name: str) -> int:
        if not name:
            return 0
        index = self._indexes.get(name) or self._find(name)
        if not index:
            raise NetlinkError(errno.ENODEV, f"there is no bridge {name}")
        return index

    def _find(self, name: str) -> int:
        """Return the index that a link has now; 0 if there is none of that name."""
        index = find_link(self.socket, name)
        if index:
            self._names[index] = name
            self._indexes[name] = index
        return index

    def link_index(self, name: str) -> int:
        """Return a link's index; raises NotFoundError if there is none of that name."""
        index = self._index_of(name)
        if not index:
            raise NotFoundError(f"no link {name} in sandbox {self.name}")
        return index

    def _apply_rows(
        self, operations: Sequence[PutRow | DeleteRow], failures: list[OperationFailure]
    ) -> None:
        fast = [operation for operation in operations if type(operation.row) in FAST_ROWS]
        guarded = [operation for operation in operations if type(operation.row) is GuardRow]
        rated = [operation for operation in operations if type(operation.row) is RateRow]
        if fast or guarded or rated:
            elsewhere = (*FAST_ROWS, GuardRow, RateRow)
            operations = [each for each in operations if type(each.row) not in elsewhere]
        batch: list[Request] = []
        sent: list[PutRow | DeleteRow] = []
        put_neighbours: set[tuple[str, bytes]] = set()
        indexes = self._indexes
        for operation in operations:
            row = operation.row
            index = indexes.get(row.link) or self._find(row.link)
            is_put = type(operation) is PutRow
            if type(row) is AddressRow and is_put and len(row.ip) == 16:
                self._set_sysctls([(f"net/ipv6/conf/{row.link}/disable_ipv6", "0")])
            if type(row) is NeighborRow:
                # The kernel deletes neighbours by address alone: not the one just put.
                if is_put:
                    put_neighbours.add((row.link, row.ip))
                elif (row.link, row.ip) in put_neighbours:
                    continue
            if index:
                batch.append(
                    neighbor_rows.put(row, index) if is_put else neighbor_rows.delete(row, index)
                )
                sent.append(operation)
            elif is_put:
                text = f"there is no interface {row.link}"
                failures.append(OperationFailure(operation, errno.ENODEV, text))
        for refusal in self.socket.transact(batch):
            operation = sent[refusal.position]
            if isinstance(operation, DeleteRow) and refusal.errno in _GONE:
                continue
            failures.append(OperationFailure(operation, refusal.errno, str(refusal)))
        for operation, error in (
            *apply_guard(self.guard, guarded, self._index_of),
            *rate_limit.apply(rated, self.socket, self._index_of),
            *apply_fast(self.fast_path, fast, self.socket, self._index_of),
        ):
            failures.append(self._failure(operation, error))

    def _index_of(self, name: str) -> int:
        return self._indexes.get(name) or self._find(name)

    def _failure(self, operation: Operation, error: OSError) -> OperationFailure:
        reason = error.strerror or str(error)
        link = _link_of(operation)
        if isinstance(link, Vxlan) and error.errno in {errno.EEXIST, errno.EADDRINUSE}:
            reason = kernel_support.vni_conflict_text(self._host_fd, link.vni, link.port, error)
        return OperationFailure(operation, error.errno or 0, reason)


def _port_guard(netns_fd: int) -> tuple[PortSecurity | None, str]:
    """Return the sandbox's port security, or why it can't have any: containers come first.

    Raises OSError on a host that lacks descriptors or memory: later there may be one.
    """
    try:
        return PortSecurity(netns_fd), ""
    except NftMissingError as error:
        return None, error.why
    except OSError as error:
        if error.errno in netns.SHORTAGE:
            raise
        return None, error.strerror or str(error)


_OWN_KINDS: Final = frozenset({"vxlan", "bridge", "veth", "ifb"})
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH})


def _link_of(operation: Operation) -> Link | None:
    match operation:
        case PutLink(link) | ChangeLink(_, link) | DeleteLink(link):
            return link
    return None
