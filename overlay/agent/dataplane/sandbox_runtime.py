"""One open sandbox of this node: its state between reconcile passes, and changes of its ports.

Owns: the lock that a pass and a change of ports hold, and the book of ports that are not where
the last plan had them. Code outside this package changes ports by `change_ports` and
`remove_port` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from overlay.agent.dataplane.fast_path import FastPathSupport
from overlay.agent.dataplane.port_removal import PortRemoval
from overlay.agent.process.controller import Fault
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.mac_changes import LastMacs
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.planning.inputs import PolicyRows, RecordsPosition
from overlay.core.dataplane.planning.planner import PlanBasis
from overlay.core.dataplane.planning.ports import PortRows
from overlay.core.dataplane.planning.remote_table import RemoteTable
from overlay.core.dataplane.planning.row_comparison import pause_after_s
from overlay.core.dataplane.state import Row, SandboxState
from overlay.errors import ConflictError
from overlay.kernel.router.link import RouterPeers
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.monitor import SandboxMonitor
from overlay.kernel.sandbox.operation_failure import OperationFailure
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.signals import Signal

_RETRY_FIRST_S = 0.2
_RETRY_MAX_S = 30.0
_FAILURES_LOGGED_MAX = 3


@dataclass(frozen=True, slots=True)
class PassResult:
    """The outcome of a pass."""

    operation_count: int
    failures: list[OperationFailure]
    rows_before: int
    repair_count: int  # of the operations, those that undo changes made by others; not those of
    # ports that are gone: their containers ended, or `agent.endpoints.repair` says what it did
    has_drifted: bool  # since the pass before, which went well


@dataclass(slots=True)
class SandboxRuntime:
    """One open sandbox and how its passes went."""

    sandbox: Sandbox
    monitor: SandboxMonitor
    lock: asyncio.Lock  # held by passes and changes of ports; outlives this sandbox
    desired: SandboxState = field(default_factory=SandboxState)
    left: SandboxState | None = None  # by the last pass, if all of it went well
    table: RemoteTable | None = None  # of the remote endpoints, as the last pass had them
    reconnected: set[str] = field(default_factory=set)  # ports made or removed since that pass
    leaving: set[str] = field(default_factory=set)  # ports that `remove_port` is removing
    dirty: bool = True
    stale: bool = True  # what the last pass left may have been altered: the next one reads
    altered: bool = False  # so may rows of remote endpoints: they are compared after that pass
    due: bool = False  # so they are, as they were compared long ago
    next_due_s: float = 0.0  # by the loop's clock
    passes: int = 0
    reads: int = 0  # passes that read the kernel
    comparisons: int = 0  # of rows of remote endpoints, part by part
    operations: int = 0  # applied since the start
    drifts: int = 0  # passes that found what somebody else had changed since the pass before
    repairs: int = 0  # operations that undid such changes
    rows_desired: int = 0
    rows_actual: int = 0
    last_macs: LastMacs = field(default_factory=LastMacs)
    neighbor_count: int = 0  # of the rows, those in the kernel's neighbor tables
    failures: list[str] = field(default_factory=list)
    unusable: str = ""  # why the network has no bridge or tunnel here, as the last pass found
    policy: PolicyRows | None = None  # as the last pass had them
    redirects: bool = True  # frames go past the bridge, if there is a fast path
    support: FastPathSupport | None = None  # whether they come past the VXLAN device, as well
    basis: PlanBasis | None = None  # of the last plan, if it follows remote endpoints by itself
    port_rows: PortRows = field(default_factory=PortRows)  # of this host's ports, likewise
    followed: tuple[PlanBasis | None, dict[str, int]] | None = None  # see `has_moved`
    shortcuts: dict[str, int] = field(default_factory=dict)
    """The shortcuts that work, by name, with the indexes of their ends in the host's namespace."""
    without_programs: str = ""  # why there are none that could apply policies
    unpoliced: str = ""  # why policies are not in force, so that nothing new is allowed
    retry_s: float = _RETRY_FIRST_S
    retry: asyncio.TimerHandle | None = None
    hints: list[str] = field(default_factory=list)  # what the kernel said was altered
    unexplained: list[str] = field(default_factory=list)  # of these: the pass after found nothing
    settling: asyncio.TimerHandle | None = None  # until notifications are read
    judging: asyncio.Task[None] | None = None  # waits for the lock
    changed: Signal[[]] = field(default_factory=Signal)
    """The sandbox needs a pass: its ports changed, or may have."""
    _removal: PortRemoval = field(init=False)

    def __post_init__(self) -> None:
        self._removal = PortRemoval(self.sandbox)

    @classmethod
    def adopt(
        cls,
        name: str,
        lock: asyncio.Lock,
        support: FastPathSupport,
        peers: RouterPeers,
        unfinished: Sequence[str],
        *,
        over_ipv6: bool,
    ) -> Self:
        """Open or create a sandbox, completely or not at all; runs in the kernel thread.

        The ports in `unfinished` are removed.
        """
        with contextlib.ExitStack() as undo:
            fast = support.make()
            if fast is not None:
                undo.callback(fast.close)
            sandbox = Sandbox.open(
                name, create=True, fast_path=fast, peers=peers, over_ipv6=over_ipv6
            )
            undo.callback(sandbox.close)
            veth.detach_interfaces(sandbox, unfinished)
            runtime = cls(
                sandbox,
                sandbox.monitor(),
                lock,
                redirects=support.redirects,
                support=support,
                without_programs=support.refusal,
            )
            undo.pop_all()
        return runtime

    @property
    def is_native(self) -> bool:
        """Return whether frames come past the VXLAN device where they may."""
        return self.support is not None and self.support.is_native

    @property
    def is_shut(self) -> bool:
        """Whether the network has policies that this kernel can't apply: no port is on a bridge."""
        return self.policy is not None and self.sandbox.fast_path is None

    @property
    def has_shut_ports(self) -> bool:
        """Whether ports are on no bridge because this kernel would not keep them apart."""
        lacks_any = self.sandbox.guard is None or self.sandbox.fast_path is None
        return lacks_any and any(
            isinstance(link, Port) and not link.master for link in self.desired.links.values()
        )

    @property
    def position(self) -> RecordsPosition | None:
        """Return how far the last plan followed the remote endpoints; None if it did not."""
        return None if self.table is None else self.table.position

    @property
    def is_comparable(self) -> bool:
        """Return whether rows are to be compared with what the last pass left."""
        return (self.altered or self.due) and self.left is not None

    def begin_pass(self, *, whole: bool) -> bool:
        """Return whether the pass that begins reads the kernel; a `whole` one reads all of it."""
        read, self.stale = whole or self.stale, False
        if whole:
            self.altered = self.due = False
        return read

    def begin_comparison(self) -> bool:
        """Return whether the comparison that begins should be done soon."""
        altered, self.altered, self.due = self.altered, False, False
        return altered

    def end_comparison(self, spent_s: float) -> None:
        """Note what a comparison took, in seconds of processor time: so long is its pause."""
        self.comparisons += 1
        self.next_due_s = asyncio.get_running_loop().time() + pause_after_s(spent_s)

    def note_pass(self, done: PassResult, hints: list[str]) -> str:
        """Count what a pass did; return what it repaired, for the events.

        `hints` were there before it: the kernel also tells of what the pass itself changes.
        """
        self.passes += 1
        self._count(done)
        if not done.repair_count and self.altered:
            self.unexplained = hints or self.unexplained
        return _repaired(hints, done)

    def has_moved(self, *, read: bool) -> bool:
        """Return whether a pass did more than follow other hosts' endpoints; called after each.

        That is, whether the plan was made anew, or the shortcuts, or the kernel was `read`.
        """
        before, self.followed = self.followed, (self.basis, self.shortcuts)
        is_same = self.basis is not None and before == self.followed
        return read or bool(self.failures) or not is_same

    def note_comparison(self, done: PassResult) -> str:
        """Count what a comparison of rows did; return what it repaired, for the events."""
        self._count(done)
        hints, self.unexplained = self.unexplained, []
        return _repaired(hints, done)

    def leave_to_pass(self) -> None:
        """Have the next pass tell of what no comparison could explain."""
        self.hints, self.unexplained = self.hints or self.unexplained, []

    def _count(self, done: PassResult) -> None:
        rows = len(self.desired.rows)
        self.rows_desired, self.rows_actual = rows, done.rows_before if done.failures else rows
        self.operations += done.operation_count
        if done.has_drifted:
            self.drifts += 1
            self.repairs += done.repair_count

    def require_usable(self, network: str) -> None:
        """Raise ConflictError if nothing can be attached, as the last pass found."""
        if self.is_shut:
            raise ConflictError(
                f"network {network} is shut on this host",
                why=f"its policies cannot be applied: {self.without_programs}",
                hint="Attach on another host, or remove the policies: overlayd policy ls",
            )
        if self.unusable:
            raise ConflictError(
                f"network {network} does not work on this host",
                why=self.unusable,
                hint="Remove what is in the way, and repeat the command; a new cluster can use "
                "another port: overlayd join --vxlan-port N",
            )

    def note_failures(self, texts: list[str], retry: Callable[[], None]) -> list[str]:
        """Keep the failures for `status`, and retry later; return the new ones, for the log."""
        logged, self.failures = self.failures, texts
        if not texts:
            self.retry_s = _RETRY_FIRST_S
            return []
        if self.retry is not None:  # otherwise each failed pass would add one
            self.retry.cancel()
        self.retry = asyncio.get_running_loop().call_later(self.retry_s, retry)
        self.retry_s = min(2 * self.retry_s, _RETRY_MAX_S)
        return [text for text in texts[:_FAILURES_LOGGED_MAX] if text not in logged]

    def faults(self, network: str) -> Iterator[Fault]:
        """Yield how the policies of its network are not as they should be."""
        too_many = "" if self.policy is None else self.policy.fault
        if self.is_shut:
            yield Fault(
                f"the ports of network {network} are shut on this host, because its policies "
                f"cannot be applied: {self.without_programs}",
                "Use a kernel with eBPF, and restart the agent; or do without policies: overlayd "
                f"policy ls, and overlayd network set {network} --default-deny off",
                "error",
            )
        elif self.unpoliced:
            yield Fault(
                f"network {network} allows nothing new on this host, because its policies could "
                f"not be programmed: {self.unpoliced}",
                "The agent tries again; what the kernel refused: overlayd verify",
                "error",
            )
        elif self.has_shut_ports:
            yield Fault(
                f"isolated ports and those in VLANs of network {network} are shut on this host: "
                f"{self.sandbox.guard_fault or self.without_programs}",
                "modprobe nf_tables, or use a kernel with eBPF, and restart the agent; or attach "
                "the containers on another host",
                "error",
            )
        elif too_many:
            yield Fault(
                f"network {network} allows nothing new on this host, because there is too much in "
                f"its policies: {too_many}",
                "Remove policies, or use fewer ports and labels in them: overlayd policy ls",
                "error",
            )

    @property
    def ports_in_transition(self) -> set[str]:
        """Return the ports that are not where the last plan had them, and rightly so."""
        return self.reconnected | self.leaving

    @contextlib.asynccontextmanager
    async def change_ports(self, *ports: str) -> AsyncIterator[set[str]]:
        """Keep passes away while ports are made or removed, then have one check the sandbox.

        A pass that was planned without a port must not read the kernel with it. Yields the set of
        changed ports, to which the block adds those that it did not know before. No pass follows
        if nothing changed.
        """
        async with self.lock:
            changed = set(ports)
            self.reconnected |= changed
            try:
                yield changed
            finally:
                if changed:
                    self.reconnected |= changed
                    self.mark_dirty()

    async def remove_port(self, kernel: KernelThread, port: str, rows: Sequence[Row]) -> bool:
        """Remove a port and, before it, `rows` that name it by a number that may be given again.

        Returns False if there was no such port. The caller's plan is without the port already.
        """
        self.leaving.add(port)  # passes until it is gone do not touch it
        self.reconnected.add(port)
        try:
            async with self.change_ports(port):  # a pass under way still puts what it planned
                if rows:
                    await kernel.call(self.sandbox.apply, [DeleteRow(row) for row in rows])
            return await self._removal.remove(port)
        finally:
            self.leaving.discard(port)

    def mark_dirty(self) -> None:
        """Have a pass check the sandbox."""
        self.dirty = True
        self.followed = None
        self.changed.emit()

    def mark_stale(self) -> None:
        """Have a pass read the kernel: it may hold something else than the last pass left."""
        self.note_altered()
        self.mark_dirty()

    def note_altered(self) -> None:
        """Have the next pass read the kernel, and all rows compared after it."""
        self.stale = self.altered = True

    def note_unprotected(self, why: str, *, whole: bool) -> None:
        """Note that a pass was not made; what a `whole` one would have compared is still to be."""
        self.passes += 1
        self.unusable = why
        if whole:
            self.note_altered()

    def note_interval(self) -> None:
        """Have the next pass read the kernel; compare rows of remote endpoints if it is time."""
        self.stale = True
        self.due = self.due or asyncio.get_running_loop().time() >= self.next_due_s


def port_security_faults(runtimes: Iterable[SandboxRuntime]) -> Iterator[Fault]:
    """Yield that this host's sandboxes have no port security: the reason is the same for all."""
    reason = next((each.sandbox.guard_fault for each in runtimes if each.sandbox.guard_fault), "")
    if reason:
        yield Fault(
            "a container here can use other containers' addresses, and send router "
            f"advertisements and DHCP answers: {reason}",
            "Port security needs nftables for bridges: modprobe nf_tables",
        )


def _repaired(hints: Sequence[str], done: PassResult) -> str:
    if not hints or not done.repair_count:
        return ""
    plural = "" if done.repair_count == 1 else "s"
    return f"{'; '.join(hints)}: repaired by {done.repair_count} operation{plural}"
