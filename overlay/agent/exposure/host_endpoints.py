"""This host's own endpoints on networks: their records and interfaces.

A host endpoint is an endpoint like a container's: it has an address from this node's own space and
is announced to all members, so that a container anywhere answers it over the overlay without
translation.

Owns: the records of the host's endpoints, of which it is the only writer, and their interfaces.
Does not: decide which network has one (`eligibility`), or when that is checked (`controller`).
"""

from __future__ import annotations

import asyncio
import logging
import os

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.exposure.rules import HostRules
from overlay.agent.gossip.context import NodeContext
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.state import documents
from overlay.agent.state.database import Row
from overlay.agent.state.documents import FormerAddresses
from overlay.core.dataplane.host_rules import ExposedLink
from overlay.core.dataplane.planning.segments import host_port_name, segment_count, segment_of
from overlay.core.protocol.records import Scope, Segment, key_of
from overlay.errors import ConflictError
from overlay.kernel.host import uplink
from overlay.kernel.host.uplink import Uplink
from overlay.model import HOST_LABEL, Endpoint, Network, Vni, is_host, mac_for


class HostEndpoints:
    """This host's endpoints. `exposed_vnis`: the networks on which it has interfaces."""

    def __init__(
        self,
        context: NodeContext,
        allocator: AddressAllocator,
        reconciler: Reconciler,
        rules: HostRules,
    ) -> None:
        self.exposed_vnis: set[Vni] = set()
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._former = {
            each.vni: each for each in documents.FORMER_HOST_ADDRESSES.load(context.gossip.state)
        }
        self._allocator = allocator
        self._reconciler = reconciler
        self._rules = rules
        self._connected: dict[Vni, tuple[Uplink, ...]] = {}  # as they were made last
        self._rivals: dict[Vni, list[str]] = {}  # what takes their packets, as seen then

    # --- reading ------------------------------------------------------------------------

    def of(self, vni: Vni) -> list[Endpoint]:
        """Return this host's endpoints on a network, one for each segment; none: not exposed."""
        return [each for each in self._directory.own_endpoints(vni) if is_host(each)]

    def links(self, network: Network) -> tuple[Uplink, ...]:
        """Return this host's interfaces on a network as they should be."""
        found: dict[int, Uplink] = {}
        for end in self.of(network.vni):
            lengths = {ip: s.prefix_length for s in network.subnets for ip in end.ips if ip in s}
            segment = _segment(network, end)
            if segment is not None:
                found[segment] = Uplink(
                    name=uplink.uplink_name(Vni(network.vni + segment), self._gossip.node_id),
                    port=host_port_name(segment),
                    bridge=f"br{segment}",
                    mac=end.mac,
                    mtu=self._reconciler.mtu_of(network),
                    addresses=tuple((ip, lengths[ip]) for ip in end.ips if ip in lengths),
                )
        return tuple(found[segment] for segment in sorted(found))

    def names(self) -> tuple[set[str], bool]:
        """Return the names of the host's interfaces on networks, and whether any has IPv6."""
        links = [link for links in self._all_links().values() for link in links]
        has_ipv6 = any(len(ip) == 16 for link in links for ip, _ in link.addresses)
        return {link.name for link in links}, has_ipv6

    async def differences(self) -> dict[Vni, list[str]]:
        """Describe what is wrong with the interfaces in the host's namespace, by network."""
        wanted = self._all_links()
        if not wanted:
            return {}
        everything = [link for links in wanted.values() for link in links]
        found = await self._kernel.call(uplink.survey, everything)
        altered: dict[Vni, list[str]] = {}
        for vni, links in wanted.items():
            faults = [fault for link in links for fault in uplink.uplink_faults(link, found)]
            if faults:
                altered[vni] = faults
        return altered

    def _all_links(self) -> dict[Vni, tuple[Uplink, ...]]:
        networks = self._directory.view.networks()
        return {
            vni: self.links(networks[vni]) for vni in sorted(self.exposed_vnis) if vni in networks
        }

    @property
    def remembered_vnis(self) -> set[Vni]:
        """Return the networks on which this host had an endpoint before."""
        return set(self._former)

    def forget_former(self, vni: Vni) -> None:
        """Forget the addresses that this host had on a network that no longer exists."""
        if self._former.pop(vni, None) is not None:
            documents.FORMER_HOST_ADDRESSES.drop(self._gossip.state, str(vni))

    # --- changing -----------------------------------------------------------------------

    async def ensure_records(self, network: Network) -> list[Segment]:
        """Write the host's endpoint on each segment that has none; return what was written."""
        there = {_segment(network, end) for end in self.of(network.vni)}
        written: list[Segment] = []
        for segment in range(segment_count(network)):
            if segment in there:
                continue
            async with self._allocator.lock(network.vni):
                former = self._former.get(network.vni, FormerAddresses(network.vni, ())).ips
                ips = await self._allocator.allocate_host(network, segment, former)
                self._directory.require_not_removed(network)
                end = Endpoint(
                    endpoint_id=os.urandom(8),
                    vni=network.vni,
                    name=f"host-{self._gossip.card.name}"[: limits.NAME_LENGTH_MAX].rstrip(".-_"),
                    mac=mac_for(network.vni, ips[0]),
                    ips=ips,
                    labels=(HOST_LABEL,),
                )
                written += self._gossip.commit(Scope(network.vni), [end])
        return written

    async def connect(self, network: Network, runtime: SandboxRuntime) -> bool:
        """Create or repair the interfaces; return whether anything changed."""
        links, fresh = self.links(network), network.vni not in self.exposed_vnis
        async with runtime.change_ports() as changed:
            found = await self._kernel.call(uplink.survey, links)
            wrong: list[str] = []
            for link in links:
                wrong += await self._kernel.call(uplink.ensure_uplink, runtime.sandbox, link, found)
            if found.unrouted:  # as the kernel sees it, once its route is there
                found = await self._kernel.call(uplink.survey, links)
                unmended = {text for link in links for text in uplink.uplink_faults(link, found)}
                wrong = [text for text in wrong if text not in unmended]
            if wrong:
                changed.update(link.port for link in links)  # their rows went with them
        self.exposed_vnis.add(network.vni)
        self._rules.set_links(network.vni, [ExposedLink(link.name, link.ranges) for link in links])
        # An interface whose desired state has changed, by its MTU say, was not damaged.
        if wrong and self._connected.get(network.vni) == links:
            text = f"{'; '.join(wrong)}: repaired"
            self._event_log.record("repaired", text, level=logging.WARNING, network=network.name)
        self._connected[network.vni] = links
        self._rivals[network.vni] = uplink.rivals(links, found)
        return bool(wrong) or fresh

    def require_way(self, network: Network) -> None:
        """Raise ConflictError if packets from this host to the network leave by another way."""
        taken = self._rivals.get(network.vni)
        if taken:
            raise ConflictError(
                f"this host's way to network {network.name} is another interface's",
                why="; ".join(taken),
                hint="Remove that interface's address or route (ip address, ip route), or make "
                "the network again with another subnet",
            )

    async def remove(self, vni: Vni) -> bool:
        """Remove the host's endpoints on a network; return whether there were any.

        The records are deleted first: an interface without one is removed by the next
        pass or start.
        """
        ends = self.of(vni)
        if not ends and vni not in self.exposed_vnis:
            return False
        self._connected.pop(vni, None)
        self._rivals.pop(vni, None)
        self.exposed_vnis.discard(vni)  # first: who asks where it translates must not see it
        self._rules.set_links(vni, ())
        await self._rules.apply()
        rows: list[Row] = []
        if ends and self._directory.network_by_vni(vni) is not None:
            former = FormerAddresses(vni, tuple(ip for end in ends for ip in end.ips))
            self._former[vni] = former
            rows.append(documents.FORMER_HOST_ADDRESSES.row(former))
        deletes = [key_of(end) for end in ends]
        segments = self._gossip.commit(Scope(vni), deletes=deletes, rows=rows)
        for end in ends:
            self._allocator.quarantine(end)
        runtime = self._reconciler.runtime(vni)
        if runtime is not None:
            ports = [host_port_name(number) for number in range(max(1, len(ends)))]
            async with runtime.change_ports(*ports):
                for port in ports:
                    await asyncio.to_thread(uplink.remove_uplink, runtime.sandbox, port)
        self._gossip.publish(segments)
        self._reconciler.mark_dirty(vni)
        return True


def _segment(network: Network, end: Endpoint) -> int | None:
    for index, subnet in enumerate(network.subnets):
        if end.ips[0] in subnet:
            return segment_of(network, index)
    return None
