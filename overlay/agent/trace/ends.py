"""Find the two endpoints that a member's request names, in this node's records.

Owns: which of them is this host's, and what is said where one is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlay.agent.records.directory import Directory, PlacedEndpoint
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.errors import NotFoundError
from overlay.model import Endpoint, Ip, Network


@dataclass(frozen=True, slots=True)
class Ends:
    """An endpoint of this host, and another one on its network."""

    network: Network
    own: Endpoint
    attachment: Attachment
    peer: PlacedEndpoint

    def own_ip(self, like: Ip) -> Ip | None:
        """Return this host's endpoint's address of the same version of IP."""
        return next((ip for ip in self.own.ips if len(ip) == len(like)), None)


def find_ends(
    directory: Directory, attachments: Attachments, vni: int, own_id: bytes, peer_id: bytes
) -> Ends:
    """Return the endpoints with these ids; raises NotFoundError with the one that is missing."""
    network = directory.network_by_vni(vni)
    if network is None:
        raise NotFoundError(f"network {vni}")
    placed = {each.endpoint.endpoint_id: each for each in directory.endpoints(network.vni)}
    own, peer, attachment = placed.get(own_id), placed.get(peer_id), attachments.get(own_id)
    if own is None or own.origin != directory.own or attachment is None:
        raise NotFoundError(f"endpoint {own_id.hex()}")
    if peer is None:
        raise NotFoundError(f"endpoint {peer_id.hex()}")
    return Ends(network, own.endpoint, attachment, peer)
