"""The networks of a forgotten node: which no other host uses, and their removal.

Networks outlive their creator, because other hosts' containers may be on them. Those of a member
that was under another's control may be very many, and nobody wants them.

Owns: that choice. Does not: remove a network in use.
"""

from __future__ import annotations

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.records.directory import Directory
from overlay.core.protocol.records import CLUSTER_SCOPE, RemovedNetwork
from overlay.model import Network, NodeId


def networks_of(directory: Directory, creator: NodeId) -> list[Network]:
    """Return the networks that a node created, by name."""
    return [network for network in directory.networks() if network.creator == creator]


def remove_unused(gossip: GossipService, directory: Directory, creator: NodeId) -> list[Network]:
    """Request the removal of a forgotten node's unused networks, and return them.

    At most as many as one node may request; repeat it on another host for the others.
    """
    unused = [
        network
        for network in networks_of(directory, creator)
        if not _is_used(directory, network, creator)
    ]
    requested = gossip.node.store.values_of(gossip.node_id, CLUSTER_SCOPE, "removed")
    room = limits.REMOVED_NETWORKS_PER_NODE_MAX - sum(1 for _ in requested)
    chosen = unused[: max(0, room)]
    records = [RemovedNetwork(network.vni, network.creator) for network in chosen]
    if records:
        gossip.publish(gossip.commit(CLUSTER_SCOPE, records))
    return chosen


def _is_used(directory: Directory, network: Network, creator: NodeId) -> bool:
    """Return whether a host other than the creator has containers on a network, or may have."""
    users = directory.participants(network.vni, forwarding=True)
    return any(user != creator for user in users)
