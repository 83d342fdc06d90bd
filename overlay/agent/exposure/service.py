"""What joins networks with the host and the world beyond it, wired together.

Owns: construction order of the host's rules and ends, and when each is started and taken back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.exposure.controller import ExposureController
from overlay.agent.exposure.eligibility import Eligibility
from overlay.agent.exposure.host_endpoints import HostEndpoints
from overlay.agent.exposure.ip_forwarding import HostForwarding
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.exposure.rules import HostRules
from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.model import Vni


class ExposureService:
    """This host's side of its networks."""

    def __init__(
        self,
        config: Config,
        gossip: GossipService,
        directory: Directory,
        allocator: AddressAllocator,
        reconciler: Reconciler,
        participation: ParticipationService,
        kernel: KernelThread,
        event_log: EventLog,
        attachments: Attachments,
    ) -> None:
        self._interval_s = config.reconcile_interval_s
        self.rules = HostRules(gossip.node_id, kernel, event_log, self._interval_s)
        host_endpoints = HostEndpoints(
            gossip, directory, allocator, reconciler, kernel, event_log, self.rules
        )
        self.controller = ExposureController(
            host_endpoints,
            Eligibility(gossip.state, directory, host_endpoints, kernel, attachments),
            HostForwarding(host_endpoints, self.rules, kernel, event_log, config.run_dir),
            gossip,
            directory,
            reconciler,
            participation,
            kernel,
            event_log,
        )
        self.published_ports = PublishedPorts(
            gossip, directory, self.controller, self.rules, kernel, event_log, attachments
        )
        self.controller.changed = self.published_ports.endpoints_changed
        participation.is_exposed_by_hand = self.controller.eligibility.is_exposed_by_hand
        participation.before_sandbox_removal = self.controller.withdraw_before_removal

    async def endpoint_attached(self, vni: Vni) -> None:
        """Let what leads in and out work before the attach of a container returns."""
        await self.controller.endpoint_attached(vni)
        if self.published_ports.has_port_on(vni):
            await self.published_ports.refresh()

    async def start(self) -> None:
        """Adopt what is there; before any pass may prune."""
        await self.published_ports.start()
        await self.controller.start()

    def tasks(self) -> Iterator[tuple[Callable[[], Awaitable[None]], str]]:
        """Yield what runs in the background, and its name."""
        yield self.rules.run, "host rules"
        yield partial(self.controller.run, self._interval_s), "exposure"
        yield partial(self.published_ports.run, self._interval_s), "publishing"

    async def reconcile_all(self) -> None:
        """Look at all of it now, and put it right."""
        await self.controller.reconcile_all()
        await self.rules.apply(doubted=True)

    async def differences(self) -> list[str]:
        """Return how the host's namespace differs from what it should be."""
        return [*await self.controller.differences(), *await self.rules.differences()]

    async def withdraw(self) -> None:
        """Before leaving the cluster: undo all of it."""
        await self.controller.withdraw_all()

    def close(self) -> None:
        """Let go; all of it stays in force."""
        self.rules.close()
