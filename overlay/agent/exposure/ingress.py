"""Lead this host's ports to services, wherever their backends are.

A port that a service publishes is answered by every host of the cluster, also by one that has no
backend: the host is on the service's network for that (`eligibility`). A backend of this
host sees the client's address. A remote one would answer by its own host, so this host masquerades
the client there.

A host with a gate reaches the services' virtual addresses through that, so the rules learn them.

Owns: the present backends of each port, the conflicts, and the ports in the host's rules.
Does not: derive services from records, or write rules (`rules`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from overlay import limits
from overlay.agent.exposure.controller import ExposureController
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.exposure.rules import HostRules
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.port_ranges import PortRanges, contains
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.host_rules import IngressForward
from overlay.core.services.maglev import sharing_at
from overlay.core.services.values import Backend, IngressPort
from overlay.errors import OverlayError
from overlay.kernel.host import default_route, port_check
from overlay.model import Ip, Vni

_ALLOW = (
    "Choose another port for the service, or add this one to cluster_ports in "
    "/etc/overlayd/overlayd.toml and restart the agent"
)


class IngressStatus(NamedTuple):
    """A port of this host that should lead to a service; `fault`: why it does not."""

    port: IngressPort
    forward: IngressForward | None
    fault: str
    hint: str = "Other hosts answer it; see: overlayd publish ls"


class Ingress(Controller):
    """Keeps this host's ports at the services that publish them."""

    name = "ports of services"
    problem = "ports of services are not answered here"
    event_kind = "services"

    def __init__(
        self,
        context: NodeContext,
        exposure: ExposureController,
        rules: HostRules,
        published: PublishedPorts,
        attachments: Attachments,
        allowed: PortRanges,
    ) -> None:
        super().__init__(context.event_log)
        self.interval_s = exposure.interval_s
        self.status: tuple[IngressStatus, ...] = ()
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._exposure = exposure
        self._rules = rules
        self._published = published
        self._attachments = attachments
        self._allowed = allowed
        self._joined: set[Vni] = set()  # networks that the last pass joined for a port
        exposure.exposure_changed.connect(self.trigger)

    async def start(self) -> None:
        """Set the ports in the rules before these are first written."""
        await self._update()

    async def reconcile(self) -> None:
        """Have the host on the networks of the ports, then lead the ports there."""
        wanted = set(self._exposure.eligibility.preferences.ingress_vnis())
        for vni in sorted(wanted - self._exposure.host_endpoints.exposed_vnis):
            await self._exposure.expose_for_ingress(vni)
        await self._update()
        await self._rules.apply()
        for vni in sorted(self._joined - wanted):
            await self._exposure.end_ingress(vni)
        self._joined = wanted

    def rest_s(self) -> float:
        """Return the time in which many changes of endpoints wait for one pass."""
        return limits.PUBLISH_CHECK_INTERVAL_S

    def faults(self) -> Iterator[Fault]:
        """Yield the ports that this host does not answer."""
        yield from super().faults()
        for text, hint in {each.fault: each.hint for each in self.status if each.fault}.items():
            yield Fault(text, hint)

    def _ports(self) -> Iterator[IngressPort]:
        for network in self._directory.networks():
            yield from self._directory.view.services.ingress_ports(network)

    def _virtual_addresses(self) -> dict[Vni, frozenset[Ip]]:
        services = self._directory.view.services
        return {
            Vni(network.vni): frozenset(port.ip for port in services.virtual_ports(network))
            for network in self._directory.networks()
            if self._exposure.host_endpoints.of(network.vni)
        }

    async def _update(self) -> None:
        if self._rules.gate.decision.follows_host:
            self._rules.set_virtual(self._virtual_addresses())
        before = {(each.port.protocol, each.port.port) for each in self.status if each.forward}
        found = []
        for port in self._ports():
            held = (port.protocol, port.port) in before
            found.append(await self._status_of(port, is_held=held))
        self.status = tuple(found)
        self._rules.set_ingress(each.forward for each in found if each.forward is not None)

    def refusal(self, protocol: str, port: int) -> str:
        """Return why this host's configuration lets no member publish a port; empty if it does."""
        if contains(self._allowed, port):
            return ""
        return f"port {port}/{protocol} is not answered here: cluster_ports does not allow it"

    async def _status_of(self, port: IngressPort, *, is_held: bool) -> IngressStatus:
        backends = sharing_at(port.target, self._gossip.node_id)
        if port.mode == "host":
            backends = tuple(each for each in backends if each.node == self._gossip.node_id)
        taking = [each for each in backends if not each.is_resting]
        if port.mode == "host" and not taking:
            return IngressStatus(port, None, "")
        place = f"port {port.port}/{port.protocol}"
        if refusal := self.refusal(port.protocol, port.port):
            return IngressStatus(port, None, refusal, _ALLOW)
        network = self._directory.network_by_vni(port.target.vni)
        if network is None or not self._exposure.host_endpoints.of(port.target.vni):
            name = network.name if network is not None else str(port.target.vni)
            why = network is not None and self._exposure.refusal_reason(network)
            text = f"{place} is not answered here: network {name} is not exposed to this host"
            return IngressStatus(port, None, f"{text}: {why}" if why else text)
        size = len(port.target.ip)
        holder = self._published.holder_of(port.protocol, port.port, size)
        if holder is not None:
            text = f"{place} is not answered here: it is published for {holder}"
            return IngressStatus(port, None, text)
        if not is_held:
            try:
                arguments = (port.protocol, Ip(b""), port.port, (size,))
                await self._kernel.call(port_check.require_free, *arguments)
            except OverlayError as error:
                return IngressStatus(port, None, f"{place} is not answered here: {error.why}")
        if not taking:
            return IngressStatus(port, None, "")
        borrowed = frozenset([each.ip for each in taking if await self._is_borrowed(port, each)])
        forward = IngressForward(
            port.protocol,
            port.port,
            backends,
            port.target.affinity,
            borrowed,
            _sources(port, size),
        )
        if port.sources and not forward.sources:
            return IngressStatus(port, None, "")  # clients of the other family may ask
        return IngressStatus(port, forward, "")

    async def _is_borrowed(self, port: IngressPort, backend: Backend) -> bool:
        """Return whether a backend's replies take another route than by this host."""
        if backend.node != self._gossip.node_id:
            return True
        for endpoint in self._directory.own_endpoints(port.target.vni):
            attachment = self._attachments.get(endpoint.endpoint_id)
            if backend.ip in endpoint.ips and attachment is not None:
                place = (attachment.netns_path, attachment.netns_identity, attachment.ifname)
                size = len(backend.ip)
                return not await self._kernel.call(default_route.leads_out_by, *place, size)
        return True


def _sources(port: IngressPort, size: int) -> tuple[tuple[Ip, int], ...]:
    """Return the ranges of a port's clients, of the family with this size of address."""
    ranges = ((Ip(each.network_address.packed), each.prefixlen) for each in port.sources)
    return tuple((base, length) for base, length in ranges if len(base) == size)
