"""Adopt containers that the kernel still connects, although the state file does not know them.

After a start with an old state file, the endpoint's record comes back from peers, and everything
else about the container is still in the kernel. Nothing in the kernel changes: an adopted
container loses no packet.

Owns: which containers are adopted, and their attachments. Does not: decide when (`startup`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from dataclasses import replace

from overlay.agent.dataplane.sandbox_names import is_own_sandbox, vni_of_sandbox
from overlay.agent.endpoints.attach import attachment_of
from overlay.agent.endpoints.context import EndpointContext
from overlay.agent.runtimes.namespace_owner import owner_of
from overlay.agent.runtimes.targets import Target
from overlay.agent.state import documents
from overlay.agent.state.documents import Attachment, StoredContainer, WithdrawnRecord
from overlay.core.dataplane.link_state import PORT_PREFIX
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.core.dataplane.planning.segments import port_name
from overlay.core.protocol.records import Scope
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.host.connected_containers import ConnectedContainer, connected_containers
from overlay.kernel.sandbox.container_namespace import is_bare_container
from overlay.model import SHARED_NAME_LABEL, Endpoint, Network, ip_text, is_host, parse_ip

_WITHOUT = (
    "without what its lost record alone had: name, aliases, labels, limits, VLANs, isolation; "
    "detach and attach it to set them again"
)


class Adoption:
    """Makes attachments for containers that are connected without one."""

    def __init__(self, context: EndpointContext) -> None:
        self._context = context
        self._node = context.node
        self.event_log = context.node.event_log
        self.attachments = context.attachments

    def note_withdrawn(self, endpoints: Iterable[Endpoint]) -> None:
        """Keep what the records of attached containers had that another host has withdrawn.

        Without it, a container that is adopted would be in no VLAN, and isolated from nobody; or
        not adopted, as something else, such as this host's endpoint, has its address meanwhile.
        """
        for endpoint in endpoints:
            former = self.attachments.get(endpoint.endpoint_id)
            if former is None:
                continue
            kept = replace(former, withdrawn=WithdrawnRecord.of(endpoint))
            self.attachments[endpoint.endpoint_id] = kept
            with contextlib.suppress(OverlayError):  # a full disk; memory has it until the end
                documents.ATTACHMENTS.put(self._node.gossip.state, kept)

    async def adopt(self, *, unrecorded: bool) -> list[str]:
        """Adopt every living container with an endpoint of this node; return their targets.

        With `unrecorded`, also those whose endpoint's record is lost, because no peer had it: they
        get a new record, with what the kernel shows. So do those that have an attachment whose
        record was withdrawn by another host with this node's identity, such as a copy of its disk:
        a detach here would have disconnected them. These get what their record had
        (`note_withdrawn`). A failure of one is an event. Raises
        OverlayError if the kernel cannot be searched.
        """
        lacking = self._records_without_attachment()
        withdrawn = {
            each.port: each
            for each in self.attachments.values()
            if self._node.directory.endpoint_of(each) is None
        }
        if not lacking and not withdrawn and not unrecorded:
            return []
        names = await self._node.kernel.call(netns.names)
        sandboxes = [name for name in names if is_own_sandbox(name, self._node.gossip.node_id)]
        marks = [
            port for port, (network, _) in lacking.items() if not has_sandbox(network)
        ]  # fmt: skip
        connected = await self._node.kernel.call(connected_containers, sandboxes, marks)
        known = {attachment.port for attachment in self.attachments.values()}
        adopted = []
        for found in connected:
            port, former = found.port, withdrawn.get(found.port)
            if former is None and (port in known or not (port in lacking or unrecorded)):
                continue
            try:
                target = await self._adopt(found, lacking.get(port), former)
            except OverlayError as error:
                self.event_log.record("return", f"{found.netns_path}: {error}")
                continue
            if target:
                adopted.append(target)
        return adopted

    def _records_without_attachment(self) -> dict[str, tuple[Network, Endpoint]]:
        """Return this node's endpoints that have no attachment, by port."""
        own = self._node.gossip.node_id
        return {
            port_name(placed.endpoint.endpoint_id): (network, placed.endpoint)
            for network in self._node.directory.networks()
            for placed in self._node.directory.endpoints(network.vni)
            if placed.origin == own
            and not is_host(placed.endpoint)
            and placed.endpoint.endpoint_id not in self.attachments
        }

    async def _adopt(
        self,
        found: ConnectedContainer,
        recorded: tuple[Network, Endpoint] | None,
        former: Attachment | None,
    ) -> str | None:
        """Adopt one container; return its target, or None if nothing can be known of it.

        `former`: its attachment whose record was withdrawn.
        """
        target = await asyncio.to_thread(owner_of, found.identity)
        if target is None:
            return None
        with contextlib.closing(target):
            async with self.attachments.alone_with(found.identity):
                if former is not None and bytes.fromhex(former.endpoint_id) not in self.attachments:
                    return None  # detached meanwhile
                if recorded is not None:
                    network, endpoint = recorded
                    attachment = _attachment(found, target, network, endpoint)
                    documents.ATTACHMENTS.put(self._node.gossip.state, attachment)
                    self.attachments[endpoint.endpoint_id] = attachment
                else:
                    network, endpoint = await self._record(found, target, former)
            self._remember_bare(target)
        await self._context.participation.begin(network)
        text = f"{target.text} was found connected with {ip_text(endpoint.ips[0])}: attached again"
        if recorded is None and (former is None or former.withdrawn is None):
            text = f"{text}, {_WITHOUT}"
        self.event_log.record(
            "return",
            text,
            network=network.name,
            endpoint=endpoint.name,
        )
        return target.text

    async def _record(
        self, found: ConnectedContainer, target: Target, former: Attachment | None
    ) -> tuple[Network, Endpoint]:
        """Make a record and an attachment for a container whose record is lost.

        Raises OverlayError if its network is unknown, or an address is no longer this node's.
        """
        network = self._node.directory.network_by_vni(vni_of_sandbox(found.sandbox))
        if network is None or not found.addresses:
            what = "network no longer exists" if network is None else "interface is empty"
            to = "it to another network" if network is None else "it anew"
            raise OverlayError(
                f"it is not attached again: its {what}", hint=f"Detach it, and attach {to}"
            )
        lost = None if former is None else former.withdrawn
        allocator, gossip = self._context.allocator, self._node.gossip
        async with allocator.lock(network.vni):
            ips, _ = await allocator.allocate(
                network,
                found.addresses,
                is_reserved=bool(found.runtime_endpoint),
                withdrawn=frozenset() if lost is None else frozenset(map(parse_ip, lost.ips)),
            )
            endpoint = Endpoint(
                endpoint_id=_new_id(found.port)
                if former is None
                else bytes.fromhex(former.endpoint_id),
                vni=network.vni,
                name=self._name(network, target, lost),
                mac=found.mac,
                ips=ips,
                aliases=() if lost is None else tuple(lost.aliases),
                labels=() if lost is None else tuple((key, value) for key, value in lost.labels),
            )
            attachment = (
                _attachment(found, target, network, endpoint)
                if former is None
                else replace(former, ifname=found.ifname, plugged=True, withdrawn=None)
            )
            rows = [documents.ATTACHMENTS.row(attachment)]
            segments = gossip.commit(Scope(network.vni), [endpoint], rows=rows)
            self.attachments[endpoint.endpoint_id] = attachment
        gossip.publish(segments)
        return network, endpoint

    def _name(self, network: Network, target: Target, lost: WithdrawnRecord | None) -> str:
        """Return the name of the lost record; another if it is taken, and was not shared."""
        name = target.name if lost is None else lost.name
        if lost is not None and [*SHARED_NAME_LABEL] in lost.labels:
            return name
        taken = {e.name.lower() for _, e in self._node.directory.all_endpoints(network.vni)}
        tries = (name, *(f"{name[:58]}-{number}" for number in range(2, 1000)))
        return next(each for each in tries if each.lower() not in taken)

    def _remember_bare(self, target: Target) -> None:
        """Remember a bare container again, so that the verbs for it know it."""
        state, name = self._node.gossip.state, target.text.removeprefix("netns:")
        if target.kind != "netns" or documents.CONTAINERS.find(state, name) is not None:
            return
        if is_bare_container(target.descriptor):
            documents.CONTAINERS.put(state, StoredContainer(name))


def _new_id(port: str) -> bytes:
    """Return an endpoint id with which the port has the name that it has."""
    return bytes.fromhex(port.removeprefix(PORT_PREFIX)) + os.urandom(2)


def _attachment(
    found: ConnectedContainer, target: Target, network: Network, endpoint: Endpoint
) -> Attachment:
    is_runtimes = bool(found.runtime_endpoint)  # which configures it, and asks again at a restart
    subnet_index = next((i for i, s in enumerate(network.subnets) if endpoint.ips[0] in s), 0)
    return replace(
        attachment_of(network, endpoint, target, subnet_index),
        container_id=None if is_runtimes else target.container_id,
        ifname=found.ifname,
        port=found.port,
        gateway=found.default_route,
        plugged=True,
        hands_off=is_runtimes,
        runtime_endpoint=found.runtime_endpoint,
    )
