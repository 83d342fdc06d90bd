"""Explain this host's half of a way, from its records and its kernel.

Owns: which facts are read, for the judgement in `core.trace`. Does not: ask other hosts.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.gossip.context import NodeContext
from overlay.agent.paths.controller import PathController
from overlay.agent.records.directory import PlacedEndpoint
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.agent.trace.way import fitting_size, subnet_index
from overlay.core.dataplane.planner import segment_of
from overlay.core.dataplane.state import SandboxState
from overlay.core.protocol.trace import Finding, Phase, TraceRequest
from overlay.core.trace import judge
from overlay.core.trace.facts import HostFacts, OwnEnd, PeerEnd
from overlay.kernel.trace import read_container
from overlay.model import Endpoint, Ip, Network, Vni, ip_text

_EMPTY = SandboxState()
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
_WITH_PORTS = {number: name for name, number in PROTOCOLS.items() if name != "icmp"}


@dataclass(frozen=True, slots=True)
class _Ends:
    """The records that a request names."""

    network: Network
    own: Endpoint
    own_ip: Ip
    attachment: Attachment
    peer: PlacedEndpoint


class HalfReader:
    """Reads and judges what this host knows of a way."""

    def __init__(
        self,
        context: NodeContext,
        attachments: Attachments,
        reconciler: Reconciler,
        paths: PathController,
    ) -> None:
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._attachments = attachments
        self._reconciler = reconciler
        self._paths = paths

    async def findings(self, request: TraceRequest) -> list[Finding]:
        """Return the findings of this host; raises OverlayError or OSError if it cannot read."""
        ends = self._ends(request)
        if isinstance(ends, str):
            name = self._directory.node_name(self._directory.own)
            return [judge.unknown_record(phase, name, ends) for phase in Phase]
        facts = await self._facts(ends, request)
        return judge.findings(facts)

    def _ends(self, request: TraceRequest) -> _Ends | str:
        """Return the records of both ends, or the name of the one that is missing."""
        network = self._directory.network_by_vni(request.vni)
        if network is None:
            return f"network {request.vni}"
        placed = {
            each.endpoint.endpoint_id: each for each in self._directory.endpoints(network.vni)
        }
        own, peer = placed.get(request.endpoint_id), placed.get(request.peer_id)
        attachment = self._attachments.get(request.endpoint_id)
        size = len(request.peer_ip)
        if own is None or attachment is None:
            return f"endpoint {request.endpoint_id.hex()}"
        own_ip = next((ip for ip in own.endpoint.ips if len(ip) == size), None)
        if peer is None or own_ip is None or request.peer_ip not in peer.endpoint.ips:
            return f"a container with the address {ip_text(request.peer_ip)}"
        return _Ends(network, own.endpoint, own_ip, attachment, peer)

    async def _facts(self, ends: _Ends, request: TraceRequest) -> HostFacts:
        network, card = ends.network, self._gossip.card
        own, peer = self._own_end(ends), self._peer_end(ends, request.peer_ip)
        protocol = _WITH_PORTS.get(request.protocol, "")
        asks = bool(protocol and request.port)
        container = await self._kernel.call(
            read_container,
            ends.attachment.netns_path,
            ends.attachment.netns_identity,
            (ends.attachment.ifname, ends.own.mac),
            request.peer_ip,
            (protocol, request.port, ends.own_ip) if asks else None,
        )
        states = await self._reconciler.states(network.vni)
        desired, actual = states if states is not None else (_EMPTY, _EMPTY)
        probed = None if peer.vtep is None else self._paths.path(ends.peer.origin)
        vni = Vni(network.vni + own.segment)
        admits = None
        if peer.vtep is not None:
            admits = await self._reconciler.underlay_filter.admits(peer.vtep, vni)
        return HostFacts(
            own=own,
            peer=peer,
            local_vtep=self._reconciler.vtep_of(network, card),
            vxlan_port=self._gossip.cluster.vxlan_port,
            is_isolated=network.isolate_subnets,
            desired=desired,
            actual=actual,
            container=container,
            fits=fitting_size(network, self._reconciler.mtu_of(network), probed, card.address),
            path=probed,
            admits=admits,
            listener=f"{protocol} port {request.port}" if asks else "",
        )

    def _own_end(self, ends: _Ends) -> OwnEnd:
        index = subnet_index(ends.network, ends.own_ip)
        return OwnEnd(
            ends.own.name,
            self._directory.node_name(self._directory.own),
            ends.attachment.ifname,
            ends.own.mac,
            ends.own_ip,
            ends.attachment.port,
            segment_of(ends.network, index),
            ends.network.subnets[index].gateway,
        )

    def _peer_end(self, ends: _Ends, ip: Ip) -> PeerEnd:
        origin, endpoint = ends.peer
        local = (
            self._attachments.get(endpoint.endpoint_id) if origin == self._directory.own else None
        )
        card = None if origin == self._directory.own else self._directory.card(origin)
        return PeerEnd(
            endpoint.name,
            self._directory.node_name(origin),
            endpoint.mac,
            ip,
            segment_of(ends.network, subnet_index(ends.network, ip)),
            None if card is None else self._reconciler.vtep_of(ends.network, card),
            "" if local is None else local.port,
        )
