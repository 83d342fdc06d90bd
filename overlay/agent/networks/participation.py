"""Participation in networks: from the first use of a network on this host to the last.

Owns: the participation records, and when a network's sandbox is opened and destroyed; what could
not be ended yet is tried again, and a fault until then. Does not: know how a container is attached
or detached, or what else needs a sandbox (`SandboxUser`).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.encryption.controller import EncryptionController
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, Scope, Segment, key_of
from overlay.errors import OverlayError
from overlay.model import Network, NodeId, Vni
from overlay.signals import AsyncSignal, Signal

_POLL_S = 0.05


class SandboxUser(Protocol):
    """Knows networks that need their sandbox without a container."""

    def needs_no_container(self, vni: Vni) -> bool:
        """Return whether a network is exposed, for a service's port too, plugged or routed to."""

    def without_containers(self) -> Iterable[Vni]:
        """Return these networks."""


class ParticipationService(Controller):
    """This node's participation in networks.

    Signals:
    `before_sandbox_removal`: a network's sandbox is removed once the handlers return;
    `changed`: a network's sandbox was opened or removed.
    """

    name = "participation"
    problem = "a network that nothing on this host uses is not left yet"
    runs_at_start = False  # `Startup` looks at all networks then

    def __init__(
        self,
        context: NodeContext,
        reconciler: Reconciler,
        attachments: Attachments,
        sandbox_user: SandboxUser,
        encryption: EncryptionController,
    ) -> None:
        super().__init__(context.event_log)
        self.before_sandbox_removal: AsyncSignal[[Vni]] = AsyncSignal()
        self.changed: Signal[[]] = Signal()
        self._gossip = context.gossip
        self._directory = context.directory
        self._reconciler = reconciler
        self._attachments = attachments
        self._sandbox_user = sandbox_user
        self._encryption = encryption
        self._attaches_in_progress: collections.Counter[Vni] = collections.Counter()
        self._locks: dict[Vni, asyncio.Lock] = {}
        self._unreleased: set[Vni] = set()

    async def begin(self, network: Network) -> list[Segment]:
        """Become a forwarding participant with a sandbox; return the records that tell of it.

        Raises ConflictError if the network is encrypted, and this host has no WireGuard; or if it
        is in clear, and this host requires encryption and does not use it yet.
        """
        await self._encryption.require_support(network)
        part = Participation(network.vni, forwards=True)
        segments: list[Segment] = []
        async with self._alone_on(network.vni):
            if not self._directory.has_participation(self._gossip.node_id, part):
                self._encryption.policy.require_allowed(network)
                segments = self._gossip.commit(CLUSTER_SCOPE, [part])
                self._gossip.publish(segments)
                await self._gossip.wait_synced(Scope(network.vni), limits.ATTACH_CONFIRM_TIMEOUT_S)
            if has_sandbox(network) and not self._reconciler.is_open(network.vni):
                await self._reconciler.open(network)
                self._sandboxes_changed()
        await self._reconciler.require_usable(network)
        return segments

    async def end_unused(self, vni: Vni) -> list[Segment]:
        """Destroy the sandbox if nothing here needs it; return the records that tell of it.

        Addresses that this node owns stay its own. Raises OverlayError or OSError where kernel or
        disk refuse; a part may be done then.
        """
        async with self._alone_on(vni):
            used = any(attachment.vni == vni for attachment in self._attachments.values())
            used = used or self._sandbox_user.needs_no_container(vni)
            if used or self._attaches_in_progress[vni]:
                return []
            await self.before_sandbox_removal.emit(vni)
            await self._reconciler.destroy(vni)
            self._sandboxes_changed()
            if not self._directory.has_participation(
                self._gossip.node_id, Participation(vni, forwards=True)
            ):
                return []
            return self._gossip.commit(CLUSTER_SCOPE, [Participation(vni, forwards=False)])

    async def release(self, vni: Vni) -> list[Segment]:
        """End what nothing here needs, now or later; return the records that tell of it, if any."""
        try:
            segments = await self.end_unused(vni)
        except (OverlayError, OSError):  # the pass meets it as well, and reports it
            self._unreleased.add(vni)
            self.trigger()
            return []
        self._unreleased.discard(vni)
        return segments

    async def reconcile(self) -> None:
        """End what could not be ended at its time; one that fails holds up no other."""
        failures: list[OverlayError | OSError] = []
        for vni in sorted(self._unreleased):
            try:
                self._gossip.publish(await self.end_unused(vni))
                self._unreleased.discard(vni)
            except (OverlayError, OSError) as error:
                failures.append(error)
        if failures:
            raise failures[0]

    @contextlib.asynccontextmanager
    async def attach_in_progress(self, vni: Vni) -> AsyncIterator[None]:
        """Keep the network's sandbox during an attach; if that fails, end what it began."""
        self._attaches_in_progress[vni] += 1
        try:
            yield
        except BaseException:
            self._attaches_in_progress[vni] -= 1
            self._gossip.publish(await self.release(vni))
            raise
        self._attaches_in_progress[vni] -= 1

    @contextlib.asynccontextmanager
    async def holding_records(self, network: Network) -> AsyncIterator[None]:
        """Hold a network's records during the block, as new as those of all that it reaches.

        Also if this node does not participate. The others do not wait for a node without a
        sandbox when they attach, so it asks each of them again.
        """
        vni, part = network.vni, Participation(network.vni, forwards=False)
        used_by = self._directory.participants(vni, forwarding=True)
        own, now = self._gossip.node_id, self._gossip.transport.now()
        if own in used_by or not used_by:
            yield
            return
        if self._directory.follows(own, vni):
            self._gossip.node.scopes.begin(Scope(vni), limits.MEMBER_COUNT_MAX, now)
            self._gossip.transport.flush_soon()
            await self._gossip.wait_synced(Scope(vni), limits.ATTACH_CONFIRM_TIMEOUT_S)
            yield
            return
        async with self._alone_on(vni):
            if not self._directory.follows(self._gossip.node_id, vni):
                self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, [part]))
                await self._gossip.wait_synced(Scope(vni), limits.ATTACH_CONFIRM_TIMEOUT_S)
            try:
                yield
            finally:
                if self._directory.has_participation(self._gossip.node_id, part):
                    deletes = [key_of(part)]
                    self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, deletes=deletes))

    async def wait_seen(self, vni: Vni) -> None:
        """Wait a while for live hosts that are on a network, and have shown nothing attached.

        Their records are under way, or they leave: the router that led to it was just removed.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.NETWORK_LEAVE_TIMEOUT_S):
                while not self._live().isdisjoint(self._directory.unseen(vni)):  # noqa: ASYNC110 - records have no event
                    await asyncio.sleep(_POLL_S)

    def _live(self) -> set[NodeId]:
        return set(self._gossip.node.membership.live())

    def _sandboxes_changed(self) -> None:
        self._reconciler.mark_dirty()  # those that routers connect with it
        self.changed.emit()

    def _alone_on(self, vni: Vni) -> asyncio.Lock:
        """Return the lock under which participation in a network begins and ends."""
        return self._locks.setdefault(vni, asyncio.Lock())
