"""Give containers routes to all subnets of their networks.

A container has an address in one subnet of a family. It reaches the network's further subnets
through that one's gateway, also where its default route leads through another network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from overlay.agent.gossip.context import NodeContext
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.errors import OverlayError
from overlay.kernel.host import subnet_routes
from overlay.kernel.host.subnet_routes import SubnetRoute
from overlay.model import Endpoint, Network


class SubnetRoutes:
    """Keeps these routes of this host's containers."""

    def __init__(self, context: NodeContext, attachments: Attachments) -> None:
        self._directory = context.directory
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._attachments = attachments

    async def ensure_all(self) -> None:
        """Check all containers: an attach may have been interrupted, or made without routes."""
        for identity in {each.netns_identity for each in self._attachments.values()}:
            await self.ensure(identity)

    async def ensure(self, identity: tuple[int, int]) -> None:
        """Add the routes that one container lacks; those of a removed interface are gone with it.

        A refusal is recorded as an event.
        """
        mine = self._attachments.of_target(identity)
        wanted = [route for attachment in mine for route in self._routes_of(attachment)]
        if not wanted:
            return
        try:
            await self._kernel.call(subnet_routes.ensure, mine[0].netns_path, identity, wanted)
        except (OverlayError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else ""
            text = f"not all subnets are reached from {mine[0].target}: {why or error}"
            self._event_log.record("gateway", text, level=logging.WARNING)

    def _routes_of(self, attachment: Attachment) -> Iterator[SubnetRoute]:
        network = self._directory.network_by_vni(attachment.vni)
        endpoint = self._directory.endpoint_of(attachment)
        if network is not None and endpoint is not None:
            yield from routes_of(network, endpoint, attachment.ifname)


def routes_of(network: Network, endpoint: Endpoint, ifname: str) -> Iterator[SubnetRoute]:
    """Yield the routes from an endpoint to the subnets that it has no address in.

    There are none where nothing routes between the subnets: they are isolated, or the network is
    internal and on a parent interface, so that its segment's router is not used.
    """
    if network.isolate_subnets or (network.internal and not has_sandbox(network)):
        return
    used = [subnet for subnet in network.subnets if any(ip in subnet for ip in endpoint.ips)]
    for subnet in network.subnets:
        gateways = [own.gateway for own in used if len(own.base) == len(subnet.base)]
        if subnet not in used and gateways:
            yield SubnetRoute(ifname, endpoint.mac, subnet.base, subnet.prefix_length, gateways[0])
