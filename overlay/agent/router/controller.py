"""Keep this host on the networks that routers lead to from those in use here.

Owns: when it begins to participate in them, and when that ends. Does not: plan routes, which
follow from which sandboxes there are.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.router.sandbox_needs import SandboxNeeds
from overlay.errors import OverlayError
from overlay.model import Vni


class RouterController(Controller):
    """Begins and ends this host's participation in routed networks."""

    name = "routers"
    problem = "networks of routers are not followed"
    interval_s = 30.0

    def __init__(
        self,
        context: NodeContext,
        needs: SandboxNeeds,
        participation: ParticipationService,
    ) -> None:
        super().__init__(context.event_log)
        self._gossip = context.gossip
        self._directory = context.directory
        self._needs = needs
        self._participation = participation
        self._begun: set[Vni] = set()
        self._failures: dict[str, OverlayError] = {}  # by network, of the last pass
        participation.changed.connect(self.trigger)

    async def reconcile(self) -> None:
        """Have a sandbox of each network that routers lead to, and of no other."""
        await self._gossip.until_may_write()
        wanted = self._needs.routed()
        self._failures = {}
        for vni, network in sorted(wanted.items()):
            try:
                segments = await self._participation.begin(network)
            except OverlayError as error:
                self._failures[network.name] = error
            else:
                self._gossip.publish(segments)
                self._begun.add(vni)
        for vni in sorted(self._begun - wanted.keys()):
            self._gossip.publish(await self._participation.end_unused(vni))
            self._begun.discard(vni)

    async def withdraw(self) -> None:
        """Leave all networks that only routers lead to, before leaving the cluster."""
        self._needs.disregard()
        for vni in self._directory.networks_forwarded_by(self._gossip.node_id):
            await self._participation.end_unused(vni)

    def faults(self) -> Iterator[Fault]:
        """Yield the networks that this host does not route to."""
        yield from super().faults()
        for name, error in sorted(self._failures.items()):
            yield Fault(
                f"this host does not route to network {name}: {error.what}",
                error.hint or "The agent retries automatically; see: overlayd events",
                "error",
                error.why,
            )
