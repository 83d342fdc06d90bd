"""Choose the network that has a container's default route.

Among the networks that it was attached to with a default route, the highest `--gateway-priority`
wins; of equal ones a network that is not internal, then the one that has the route, then the first
by name. So the first attached keeps it, and the next takes over when that one is detached.

A runtime that asked for an endpoint itself chooses among its networks, and keeps account of it.
"""

from __future__ import annotations

import logging

from overlay.agent.gossip.context import NodeContext
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.errors import OverlayError
from overlay.kernel.host import default_route
from overlay.kernel.host.default_route import DefaultRouteCandidate
from overlay.signals import Signal


class DefaultRoutes:
    """Keeps the default routes of this host's containers by that rule.

    Signal `default_route_moved`: a container's default route was set to another network.
    """

    def __init__(self, context: NodeContext, attachments: Attachments) -> None:
        self.default_route_moved: Signal[[]] = Signal()
        self._directory = context.directory
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._attachments = attachments

    async def reconcile_all(self) -> None:
        """Check all containers on several networks: a crash may have interrupted an attach."""
        counts: dict[tuple[int, int], int] = {}
        for attachment in self._attachments.values():
            counts[attachment.netns_identity] = counts.get(attachment.netns_identity, 0) + 1
        for identity, count in counts.items():
            if count > 1:
                await self.reconcile(identity)

    async def reconcile(self, identity: tuple[int, int]) -> None:
        """Set one container's default routes by the rule."""
        mine = self._attachments.of_target(identity)
        named = [
            (self._name(attachment), attachment)
            for attachment in mine
            if attachment.gateway and not attachment.runtime_endpoint
        ]
        ranked = [
            candidate
            for _, attachment in sorted(named, key=lambda pair: pair[0])
            if (candidate := self._candidate(attachment)) is not None
        ]
        if not ranked:
            return
        try:
            got = await self._kernel.call(
                default_route.reconcile, mine[0].netns_path, identity, ranked
            )
        except (OverlayError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else ""
            text = f"no default route in {mine[0].target}: {why or error}"
            self._event_log.record("gateway", text, level=logging.WARNING)
            return
        for name in got:
            self._event_log.record("gateway", f"{mine[0].target} goes out by {name}")
            self.default_route_moved.emit()

    def _name(self, attachment: Attachment) -> str:
        network = self._directory.network_by_vni(attachment.vni)
        return "" if network is None else network.name

    def _candidate(self, attachment: Attachment) -> DefaultRouteCandidate | None:
        network = self._directory.network_by_vni(attachment.vni)
        endpoint = self._directory.endpoint_of(attachment)
        if network is None or endpoint is None:
            return None
        used = [subnet for subnet in network.subnets if any(ip in subnet for ip in endpoint.ips)]
        return DefaultRouteCandidate(
            rank=(-attachment.gateway_priority, int(network.internal)),
            ifname=attachment.ifname,
            mac=endpoint.mac,
            gateways=tuple(subnet.gateway for subnet in used),
        )
