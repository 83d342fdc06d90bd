"""Have containers whose default route is elsewhere ask their network's gateway.

A Docker or Podman container that is attached beside its engine's own network asks the resolvers of
its engine by that network. So these queries are sent to the gateway (`kernel.nft.
resolver_redirect`), for as long as it is attached and the agent runs.

Not to that of an internal network: it answers no other names, and the container may have them by
its engine's network. But a container without any way out, as Docker makes it on such a network,
reaches its resolvers by routes through that gateway, which answers overlayd's names.

Owns: which containers, resolvers and gateways.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from overlay.agent.gossip.context import NodeContext
from overlay.agent.resolvers.container_resolvers import ContainerResolvers
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.errors import OverlayError
from overlay.kernel.host import default_route, subnet_routes
from overlay.kernel.host.subnet_routes import SubnetRoute
from overlay.kernel.nft.resolver_redirect import ResolverRedirect
from overlay.model import Ip, Mac, Network, parse_ip
from overlay.signals import AsyncSignal

_ENGINES = ("docker", "podman")
_Identity: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The needs of a container's queries: its interfaces, and a gateway for each resolver.

    `inward` are routes through gateways of internal networks, for a container without a way out.
    """

    interfaces: tuple[tuple[str, Mac], ...]
    gateways: Mapping[Ip, Ip]
    inward: tuple[SubnetRoute, ...]


class ResolverRedirects:
    """The redirects in this host's containers.

    `container_changed` is emitted with the namespace of a container, which is locked, after its
    attachments or interfaces may have changed.
    """

    def __init__(
        self,
        context: NodeContext,
        attachments: Attachments,
        container_resolvers: ContainerResolvers,
        container_changed: AsyncSignal[[_Identity]],
    ) -> None:
        self._directory = context.directory
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._attachments = attachments
        self._container_resolvers = container_resolvers
        self._redirects: dict[_Identity, ResolverRedirect] = {}  # of the kernel thread
        self._reported: dict[_Identity, str] = {}
        container_changed.connect(self.ensure)

    async def ensure_all(self) -> None:
        """Check all containers: a start of the agent finds no redirect in them."""
        for identity in {each.netns_identity for each in self._attachments.values()}:
            async with self._attachments.alone_with(identity):
                await self.ensure(identity)

    async def ensure(self, identity: _Identity) -> None:
        """Have the redirect that a container needs, or none; a refusal is recorded as an event."""
        mine = self._attachments.of_target(identity)
        wanted = self._wanted(mine)
        if wanted is None and identity not in self._redirects:
            return
        path = mine[0].netns_path if mine else ""
        try:
            await self._kernel.call(self._apply, path, identity, wanted)
            self._reported.pop(identity, None)
        except (OverlayError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else ""
            text = f"overlayd's names are not found in {mine[0].target if mine else path}: "
            text += f"{why or error}; start it with --dns GATEWAY"
            if self._reported.get(identity) != text:
                self._reported[identity] = text
                self._event_log.record("dns", text, level=logging.WARNING)

    async def close(self) -> None:
        """Remove all redirects."""
        await self._kernel.call(self._close)

    def _wanted(self, mine: Sequence[Attachment]) -> _Wanted | None:
        gateways: dict[int, Ip] = {}  # by size of the address
        inner: dict[int, tuple[str, Mac, Ip]] = {}  # with the interface
        interfaces: list[tuple[str, Mac]] = []
        given: dict[str, None] = {}
        for attachment, network in self._redirectable(mine):
            endpoint = self._directory.endpoint_of(attachment)
            if endpoint is None:
                continue
            interfaces.append((attachment.ifname, endpoint.mac))
            given.update(dict.fromkeys(attachment.resolvers))
            for subnet in network.subnets:
                size = len(subnet.gateway)
                if not any(ip in subnet for ip in endpoint.ips):
                    continue
                if not network.internal:
                    gateways.setdefault(size, subnet.gateway)
                elif attachment.runtime_endpoint:
                    inner.setdefault(size, (attachment.ifname, endpoint.mac, subnet.gateway))
        if not interfaces:
            return None
        resolvers = (*map(parse_ip, given), *self._container_resolvers.of_host())
        chosen = {ip: gateways[len(ip)] for ip in resolvers if len(ip) in gateways}
        inward = tuple(
            SubnetRoute(*inner[len(ip)][:2], ip, 8 * len(ip), inner[len(ip)][2])
            for ip in resolvers
            if len(ip) in inner
        )
        return _Wanted(tuple(interfaces), chosen, inward) if chosen or inward else None

    def _redirectable(self, mine: Sequence[Attachment]) -> Iterator[tuple[Attachment, Network]]:
        """Yield a container's attachments to networks that serve names, if an engine made it."""
        for attachment in mine:
            network = self._directory.network_by_vni(attachment.vni)
            is_runtimes = bool(attachment.runtime_endpoint)
            is_engines = is_runtimes or attachment.target.partition(":")[0] in _ENGINES
            is_left_alone = attachment.hands_off and not is_runtimes
            if network is None or not is_engines or is_left_alone or not attachment.plugged:
                continue
            if has_sandbox(network):
                yield attachment, network

    # --- in the kernel thread ---------------------------------------------------------------

    def _apply(self, netns_path: str, identity: _Identity, wanted: _Wanted | None) -> None:
        gateways: dict[Ip, Ip] = {}
        if wanted is not None:
            elsewhere = default_route.reached_elsewhere(
                netns_path, identity, wanted.interfaces, tuple(wanted.gateways)
            )
            gateways = {ip: wanted.gateways[ip] for ip in elsewhere}
        if wanted is not None and wanted.inward:
            led = default_route.families_led_out(netns_path, identity)
            inside = [each for each in wanted.inward if len(each.base) not in led]
            outward = [each for each in wanted.inward if len(each.base) in led]
            subnet_routes.ensure(netns_path, identity, inside)
            subnet_routes.drop(netns_path, identity, outward)
        redirect = self._redirects.get(identity)
        if not gateways:
            if redirect is not None:
                self._redirects.pop(identity).close()
            return
        if redirect is None:
            redirect = ResolverRedirect.open(netns_path, identity)
            if redirect is None:  # the container has ended
                return
            self._redirects[identity] = redirect
        redirect.put(gateways)

    def _close(self) -> None:
        for redirect in self._redirects.values():
            redirect.close()
        self._redirects.clear()
