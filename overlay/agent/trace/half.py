"""Explain this host's half of a way, from its records and its kernel.

Owns: which facts are read, for the judgement in `core.trace`. Does not: ask other hosts.
"""

from __future__ import annotations

from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.trace.context import WayContext
from overlay.agent.trace.ends import Ends, find_ends, find_outside_ends
from overlay.agent.trace.party import OUTSIDE_ID
from overlay.agent.trace.way import fitting_size, subnet_index
from overlay.core.dataplane.planning.router_rows import router_link_name
from overlay.core.dataplane.planning.segments import segment_of
from overlay.core.dataplane.state import SandboxState
from overlay.core.protocol.trace import Finding, Phase, TraceRequest
from overlay.core.trace import judge
from overlay.core.trace.facts import HostFacts, OwnEnd, PeerEnd, PolicyFacts, RouterFacts
from overlay.core.vlan.vlans import port_mtu, vlans_of
from overlay.errors import NotFoundError
from overlay.kernel.trace import read_container
from overlay.model import Ip, Network, NodeId, Vni, ip_text

_EMPTY = SandboxState()
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
ICMP6 = 58
_WITH_PORTS = {number: name for name, number in PROTOCOLS.items() if name != "icmp"}


class HalfReader:
    """Reads and judges what this host knows of a way."""

    def __init__(self, context: WayContext, fabric: FabricTable) -> None:
        self._context = context
        self._fabric = fabric
        self._gossip = context.node.gossip
        self._directory = context.node.directory
        self._kernel = context.node.kernel
        self._attachments = context.attachments
        self._reconciler = context.reconciler
        self._paths = context.paths
        self._decider = context.policies

    async def findings(self, request: TraceRequest) -> list[Finding]:
        """Return the findings of this host; raises OverlayError or OSError if it cannot read."""
        try:
            ends, own_ip = self._ends(request)
        except NotFoundError as error:
            name = self._directory.node_name(self._directory.own)
            return [judge.unknown_record(phase, name, error.what) for phase in Phase]
        return judge.findings(await self._facts(ends, own_ip, request))

    def _ends(self, request: TraceRequest) -> tuple[Ends, Ip]:
        """Return the records of both ends, and the own address; raises NotFoundError."""
        vni, own_id, peer_id = request.vni, request.endpoint_id, request.peer_id
        if peer_id == OUTSIDE_ID:
            ends = find_outside_ends(self._context, self._fabric, vni, own_id, request.peer_ip)
        else:
            ends = find_ends(self._directory, self._attachments, vni, own_id, peer_id)
        own_ip = ends.own_ip(request.peer_ip)
        if own_ip is None or request.peer_ip not in ends.peer.endpoint.ips:
            raise NotFoundError(f"a container with the address {ip_text(request.peer_ip)}")
        return ends, own_ip

    async def _facts(self, ends: Ends, own_ip: Ip, request: TraceRequest) -> HostFacts:
        network, card = ends.network, self._gossip.card
        own, peer = self._own_end(ends, own_ip), self._peer_end(ends, request.peer_ip)
        protocol = _WITH_PORTS.get(request.protocol, "")
        asks = bool(protocol and request.port)
        container = await self._kernel.call(
            read_container,
            ends.attachment.netns_path,
            ends.attachment.netns_identity,
            (ends.attachment.ifname, ends.own.mac),
            request.peer_ip,
            (protocol, request.port, own_ip) if asks else None,
        )
        states = await self._reconciler.states(network.vni)
        desired, actual = states if states is not None else (_EMPTY, _EMPTY)
        router = None if ends.routed is None else await self._router(ends, ends.routed)
        arrives_from = peer.vtep if router is None else router.peer_vtep
        is_probed = peer.vtep is not None and not peer.is_outside
        probed = None if not is_probed else self._paths.path(ends.peer.origin)
        vni = Vni(network.vni + own.segment)
        admits = None
        if arrives_from is not None:
            admits = await self._reconciler.underlay_filter.admits(arrives_from, vni)
        return HostFacts(
            own=own,
            peer=peer,
            local_vtep=self._reconciler.vtep_of(network, card),
            vxlan_port=self._gossip.cluster.vxlan_port,
            is_isolated=network.isolate_subnets,
            desired=desired,
            actual=actual,
            container=container,
            fits=min(
                fitting_size(each, mtu, probed, card.address)
                for each, mtu in (
                    (each, port_mtu(self._reconciler.mtu_of(each), own.vlans))
                    for each in (network, ends.peer_network)
                )
            ),
            path=probed,
            admits=admits,
            listener=f"{protocol} port {request.port}" if asks else "",
            policy=self._policy(network, own_ip, request),
            router=router,
        )

    async def _router(self, ends: Ends, network: Network) -> RouterFacts:
        """Return what leads to another network here."""
        states = await self._reconciler.states(network.vni)
        desired, actual = states if states is not None else (_EMPTY, _EMPTY)
        return RouterFacts(
            network.name,
            router_link_name(network.vni),
            self._reconciler.vtep_of(network, self._gossip.card),
            self._vtep_of(ends.network, ends.peer.origin),
            desired,
            actual,
        )

    def _vtep_of(self, network: Network, origin: NodeId) -> Ip | None:
        """Return another host's VTEP of a network; None for this host."""
        card = None if origin == self._directory.own else self._directory.card(origin)
        return None if card is None else self._reconciler.vtep_of(network, card)

    def _policy(self, network: Network, own_ip: Ip, request: TraceRequest) -> PolicyFacts | None:
        """Return what the records decide; None where nothing is denied."""
        if not self._decider.is_policed(network):
            return None
        own = self._decider.at(network, own_ip)
        peer = self._decider.at(network, request.peer_ip)
        opens = request.opened_port is not None
        ends = (own, peer) if opens else (peer, own)
        is_icmp6 = request.protocol == PROTOCOLS["icmp"] and len(own_ip) == 16
        protocol = ICMP6 if is_icmp6 else request.protocol
        port = request.port if request.opened_port is None else request.opened_port
        return PolicyFacts(
            network.name, self._decider.decide(network, *ends, protocol, port), opens
        )

    def _own_end(self, ends: Ends, own_ip: Ip) -> OwnEnd:
        index = subnet_index(ends.network, own_ip)
        return OwnEnd(
            ends.own.name,
            self._directory.node_name(self._directory.own),
            ends.attachment.ifname,
            ends.own.mac,
            own_ip,
            ends.attachment.port,
            segment_of(ends.network, index),
            ends.network.subnets[index].gateway,
            vlans_of(ends.own),
        )

    def _peer_end(self, ends: Ends, ip: Ip) -> PeerEnd:
        origin, endpoint = ends.peer
        network = ends.peer_network
        segment = segment_of(network, subnet_index(network, ip))
        if ends.outside_vtep is not None:
            node, vtep = f"VTEP {ip_text(ends.outside_vtep)}", ends.outside_vtep
            return PeerEnd(endpoint.name, node, endpoint.mac, ip, segment, vtep, is_outside=True)
        local = (
            self._attachments.get(endpoint.endpoint_id) if origin == self._directory.own else None
        )
        return PeerEnd(
            endpoint.name,
            self._directory.node_name(origin),
            endpoint.mac,
            ip,
            segment,
            self._vtep_of(network, origin),
            "" if local is None else local.port,
            vlans_of(endpoint),
        )
