"""The reconcile loop of a simulated host.

Owns: which sandboxes are reconciled, and when. The equivalent of the agent's reconciler, with the
same planner and the same diff. As there, a pass follows what has changed of remote endpoints.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.planning.inputs import LocalPort
from overlay.core.dataplane.planning.planned_rows import own_rows
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.remote_table import RemoteTable, updated
from overlay.core.dataplane.state import Row, SandboxState
from overlay.core.mtu import overlay_mtu
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.core.view import View
from overlay.model import Ip, Network, Vni
from overlay.sim.host.host import UNDERLAY_MTU, Host
from overlay.sim.host.oracle import VXLAN_PORT

_PASS_DELAY_S: Final = 0.002  # waiting for the kernel thread, and the duration of one pass
_RETRY_S: Final = 0.2
_PERIOD_S: Final = 10.0  # every sandbox is reconciled this often, even without a trigger


class _Remotes(NamedTuple):
    """The remote endpoints of a network as the last pass had them, and their rows."""

    table: RemoteTable
    rows: frozenset[Row]


class Reconciler:
    """Reconciles all sandboxes of one host while its agent runs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.passes = 0
        self.operations = 0
        self._dirty: set[Vni] = set()
        self._due = False
        self._view: View | None = None
        self._remotes: dict[Vni, _Remotes] = {}

    def start(self) -> None:
        """Adopt the kernel's state; called when the agent starts."""
        node = self.host.node
        assert node is not None
        assert self.host.addressing is not None
        owners = self.host.addressing
        self._view = View(node.store, node.membership, self.host.node_id, owners)
        self._dirty.clear()
        self._remotes.clear()
        self._due = False
        self.host.later(0.0, self._period)

    @property
    def view(self) -> View:
        """The records, as this host sees them."""
        assert self._view is not None
        return self._view

    def _period(self, _: Any = None) -> None:
        self.wake()
        self.host.later(_PERIOD_S, self._period)

    def wake(self, scope: Scope | None = None) -> None:
        """Mark the sandboxes dirty that records of a scope may affect.

        A scope of None or 0 means all.
        """
        if scope is None or scope == CLUSTER_SCOPE:
            self._dirty.update(self.host.kernel.sandboxes)
        else:
            self._dirty.add(Vni(scope))
        if self._dirty:
            self._arm(_PASS_DELAY_S)

    def wake_all(self) -> None:
        """Mark all sandboxes dirty, if the agent runs."""
        if self.host.node is not None:
            self.wake()

    def _arm(self, delay_s: float) -> None:
        if not self._due:
            self._due = True
            self.host.later(delay_s, self._pass)

    def _pass(self, _: Any = None) -> None:
        self._due = False
        for vni in sorted(self._dirty):
            self._dirty.discard(vni)
            self.reconcile(vni)
        self.host.flush()

    def open(self, network: Network) -> bool:
        """Create or adopt a network's sandbox.

        Returns whether it is fully programmed.
        """
        self.host.kernel.open(network.vni)
        return self.reconcile(network.vni)

    def reconcile(self, vni: Vni) -> bool:
        """Run one pass: plan, read, diff, apply; return whether all was applied."""
        node = self.host.node
        assert node is not None
        scope = Scope(vni)
        losers = self.view.losing_origins
        versions = node.confirmations.confirmable(node.store.versions(scope), losers)
        actual = self.host.kernel.read(vni)
        if actual is None:  # no sandbox here: nothing to program
            node.confirmations.programmed(versions)
            return True
        self.passes += 1
        operations = diff(self._followed(vni), actual, prune=self.may_prune())
        self.operations += len(operations)
        if operations and not self._apply(vni, operations):
            self._dirty.add(vni)
            self._arm(_RETRY_S)
            return False
        node.confirmations.programmed(versions)
        return True

    def _apply(self, vni: Vni, operations: list[Any]) -> bool:
        middle = len(operations) // 2
        kernel = self.host.kernel
        if not kernel.apply(vni, operations[:middle]):
            return False
        self.host.crash_point()
        return kernel.apply(vni, operations[middle:])

    def may_prune(self) -> bool:
        """Return whether enough is known to delete what no record requires."""
        node = self.host.node
        return node is not None and node.caught_up

    def desired(self, vni: Vni) -> SandboxState:
        """Return the desired state of the sandbox, planned anew from all records."""
        network = self.view.networks().get(vni)
        if network is None:
            return SandboxState()
        return self.view.desired(network, *self._local_facts(vni))

    def _followed(self, vni: Vni) -> SandboxState:
        """Return the desired state of the sandbox, from what has changed since the last pass."""
        network = self.view.networks().get(vni)
        if network is None:
            return SandboxState()
        given = self.view.collect_input(network, *self._local_facts(vni), remotes=False)
        last = self._remotes.get(vni)
        since = None if last is None else last.table.position
        changes = self.view.remote_changes(network, since)
        table, difference = updated(None if last is None else last.table, given, changes)
        if last is None or difference is None:
            rows = frozenset(table.rows)
        else:
            rows = (last.rows - difference.removed) | difference.added
        self._remotes[vni] = _Remotes(table, rows)
        state = plan_sandbox(given, table)
        return SandboxState(state.links, own_rows(state) | rows)

    def _local_facts(self, vni: Vni) -> tuple[Ip, int, int, tuple[LocalPort, ...]]:
        plugged = self._ports(vni)
        ports = tuple(
            LocalPort(attachment.port, attachment.subnet_index)
            for attachment in self.host.disk.attachments.values()
            if attachment.endpoint.vni == vni and attachment.port in plugged
        )
        mtu = overlay_mtu(UNDERLAY_MTU, self.host.address)
        return self.host.address, VXLAN_PORT, mtu, ports

    def _ports(self, vni: Vni) -> set[str]:
        return {
            container.port
            for container in self.host.kernel.containers.values()
            if container.endpoint.vni == vni
        }
