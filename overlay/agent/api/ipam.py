"""The owners of addresses, as GET /v1/ipam shows them.

Does not: change anything, or query other nodes: what it shows is in this node's records.
"""

from __future__ import annotations

from overlay import limits
from overlay.agent.api.schema.cluster import STATE_NAMES
from overlay.agent.api.schema.networks import (
    IpamResponse,
    NetworkOwnersResponse,
    OwnerResponse,
    SubnetOwnersResponse,
)
from overlay.agent.components import Components
from overlay.core.ipam.shares import Share
from overlay.core.ipam.subnet_numbers import ip_of
from overlay.model import Network, Subnet, ip_text


def ipam(components: Components, networks: list[Network]) -> IpamResponse:
    """Return the owners of the addresses of networks; `elsewhere`: networks not held here."""
    directory, own = components.directory, components.gossip.node_id
    held = [network for network in networks if directory.follows(own, network.vni)]
    return {
        "networks": [_network(components, network) for network in held],
        "elsewhere": [network.name for network in networks if network not in held],
    }


def _network(components: Components, network: Network) -> NetworkOwnersResponse:
    found = components.ipam.allocator.space.shares(network)
    return {
        "network": network.name,
        "subnets": [
            _subnet(components, subnet, [share for share in found if share.subnet_index == index])
            for index, subnet in enumerate(network.subnets)
        ],
    }


def _subnet(components: Components, subnet: Subnet, found: list[Share]) -> SubnetOwnersResponse:
    owners = sorted(
        (_owner(components, subnet, share) for share in found), key=lambda owner: owner["node"]
    )
    return {
        "subnet": str(subnet),
        "block_length": subnet.block_length or None,
        "addresses": sum(owner["addresses"] for owner in owners),
        "used": sum(owner["used"] for owner in owners),
        "free": sum(owner["free"] for owner in owners),
        "unreachable": sum(owner["free"] for owner in owners if not owner["reachable"]),
        "owners": owners,
    }


def _owner(components: Components, subnet: Subnet, share: Share) -> OwnerResponse:
    own = share.owner == components.gossip.node_id
    live = own or share.owner in components.gossip.node.membership.live()
    runs = share.space.runs
    return {
        "node": components.directory.node_name(share.owner),
        "state": "alive" if own else STATE_NAMES[components.directory.node_state(share.owner)],
        "reachable": live and not share.is_stranded,
        "inherited": not share.is_stranded,
        "addresses": share.owned,
        "used": share.used,
        "free": share.free,
        "ranges": [
            f"{ip_text(ip_of(first, subnet))}-{ip_text(ip_of(last, subnet))}"
            for first, last in runs[: limits.SHOWN_RANGES_MAX]
        ],
        "ranges_more": max(0, len(runs) - limits.SHOWN_RANGES_MAX),
    }
