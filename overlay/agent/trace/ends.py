"""Find the two endpoints that a member's request names, in this node's records.

Owns: which of them is this host's, and what is said where one is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.records.directory import Directory, PlacedEndpoint
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.agent.trace.context import WayContext
from overlay.agent.trace.party import NOWHERE, outside_endpoint
from overlay.errors import NotFoundError
from overlay.model import Endpoint, Ip, Network, ip_text


@dataclass(frozen=True, slots=True)
class Ends:
    """An endpoint of this host, and another one on its network, or one that a router connects."""

    network: Network  # of the own one
    own: Endpoint
    attachment: Attachment
    peer: PlacedEndpoint
    outside_vtep: Ip | None = None  # of a peer that a BGP EVPN fabric has; it has no origin
    routed: Network | None = None  # the peer's, if that is another one

    @property
    def peer_network(self) -> Network:
        """The network of the other one."""
        return self.routed or self.network

    def own_ip(self, like: Ip) -> Ip | None:
        """Return this host's endpoint's address of the same version of IP."""
        return next((ip for ip in self.own.ips if len(ip) == len(like)), None)


def find_ends(
    directory: Directory, attachments: Attachments, vni: int, own_id: bytes, peer_id: bytes
) -> Ends:
    """Return the endpoints with these ids; raises NotFoundError with the one that is missing."""
    network, own, attachment = _find_own(directory, attachments, vni, own_id)
    for each in (network, *directory.routed_with(network)):
        placed = directory.endpoints(each.vni)
        peer = next((found for found in placed if found.endpoint.endpoint_id == peer_id), None)
        if peer is not None:
            routed = None if each.vni == network.vni else each
            return Ends(network, own, attachment, peer, routed=routed)
    raise NotFoundError(f"endpoint {peer_id.hex()}")


def find_outside_ends(
    context: WayContext, fabric: FabricTable, vni: int, own_id: bytes, ip: Ip
) -> Ends:
    """Return an endpoint of this host, and an address of the fabric; raises NotFoundError."""
    directory = context.node.directory
    network, own, attachment = _find_own(directory, context.attachments, vni, own_id)
    found = outside_endpoint(fabric, network, ip)
    if found is None:
        raise NotFoundError(f"an address {ip_text(ip)} of the fabric")
    vtep, endpoint = found
    return Ends(network, own, attachment, PlacedEndpoint(NOWHERE, endpoint), vtep)


def _find_own(
    directory: Directory, attachments: Attachments, vni: int, own_id: bytes
) -> tuple[Network, Endpoint, Attachment]:
    network = directory.network_by_vni(vni)
    if network is None:
        raise NotFoundError(f"network {vni}")
    placed = {each.endpoint.endpoint_id: each for each in directory.endpoints(network.vni)}
    own, attachment = placed.get(own_id), attachments.get(own_id)
    if own is None or own.origin != directory.own or attachment is None:
        raise NotFoundError(f"endpoint {own_id.hex()}")
    return network, own.endpoint, attachment
