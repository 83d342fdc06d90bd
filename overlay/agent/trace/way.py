"""The way that frames of a pair take, as this host knows it.

Owns: which of this host's forwarding paths a pair uses, and the size that fits. Does not: read the
kernel, or send anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlay.agent.trace.context import WayContext
from overlay.agent.trace.party import Pair, PartyKind
from overlay.core.dataplane.network_drivers import has_sandbox, has_tunnel, is_encrypted
from overlay.core.dataplane.planning.segments import segment_of
from overlay.core.dataplane.port_security import uses_fast_path
from overlay.core.mtu import encrypted_mtu, overlay_mtu
from overlay.core.paths.view import PathView
from overlay.core.vlan.vlans import NO_VLANS, port_mtu, vlans_of
from overlay.model import Ip, Network


@dataclass(frozen=True, slots=True)
class Way:
    """The way of frames of a pair; `local_vtep` and `peer_vtep` are None within one host."""

    kind: str  # "fast", "bridge", or "parent": by the parent interface, without overlayd
    is_routed: bool  # by the gateway, between two subnets or networks
    mtu: int  # of the network's interfaces here
    fits: int  # the largest packet of a container that the whole way carries, as far as known
    local_vtep: Ip | None
    peer_vtep: Ip | None
    probed: PathView | None


class WayFinder:
    """Tells how frames travel from this host."""

    def __init__(self, context: WayContext) -> None:
        self._gossip = context.node.gossip
        self._directory = context.node.directory
        self._attachments = context.attachments
        self._reconciler = context.reconciler
        self._paths = context.paths

    def way(self, pair: Pair) -> Way:
        """Return the way of a pair whose source is on this host."""
        network, card = pair.target.network, self._gossip.card
        own = self._reconciler.vtep_of(network, card)
        source = pair.source.endpoint
        vlans = NO_VLANS if source is None else vlans_of(source)
        mtu = port_mtu(min(map(self._reconciler.mtu_of, (pair.network, network))), vlans)
        peer, probed = None, None
        if not pair.is_local and has_tunnel(network):
            other = self._directory.card(pair.target.node_id)
            peer = pair.target.vtep
            if other is not None:
                peer = self._reconciler.vtep_of(network, other)
            probed = self._paths.path(pair.target.node_id)
        fits = fitting_size(network, mtu, probed, card.address)
        indexes = {subnet_index(network, ip) for ip in (pair.source_ip, pair.target_ip)}
        is_routed = pair.is_between_networks or len(indexes) > 1
        return Way(self._kind(pair), is_routed, mtu, fits, own if peer else None, peer, probed)

    def _kind(self, pair: Pair) -> str:
        network, source = pair.network, pair.source.endpoint
        if not has_sandbox(network):
            return "parent"
        runtime = self._reconciler.runtime(network.vni)
        index = subnet_index(network, pair.source_ip)
        if pair.is_between_networks:
            return "bridge"
        if runtime is None or source is None or index != subnet_index(network, pair.target_ip):
            return "bridge"
        attachment = self._attachments.get(source.endpoint_id)
        ends = (PartyKind.CONTAINER, PartyKind.OUTSIDE, PartyKind.PLUGGED)
        if attachment is None or pair.target.kind not in ends:
            return "bridge"
        target = pair.target.endpoint
        here = None if target is None else self._attachments.get(target.endpoint_id)
        is_fast = uses_fast_path(
            runtime.desired,
            segment_of(network, index),
            attachment.port,
            (source.mac, pair.source_ip),
            None if here is None or target is None else (target.mac, here.port),
        )
        return "fast" if is_fast else "bridge"


def subnet_index(network: Network, ip: Ip) -> int:
    """Return the number of the subnet that an address is in; 0 where it is in none."""
    return next((n for n, subnet in enumerate(network.subnets) if ip in subnet), 0)


def fitting_size(network: Network, mtu: int, probed: PathView | None, underlay: Ip) -> int:
    """Return the largest packet of a container that passes, as far as it is known."""
    carried = None if probed is None else probed.size_carried
    if not carried:
        return mtu
    if is_encrypted(network):
        return min(mtu, encrypted_mtu(network, carried, underlay))
    return min(mtu, overlay_mtu(carried, underlay))
