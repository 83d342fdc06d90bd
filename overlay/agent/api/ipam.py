"""Who owns which addresses, as the API shows it.

Owns: the shape of GET /v1/ipam documented in docs/API.md. Changes nothing, asks nobody: what
is shown of others is what this node's records say.
"""

from __future__ import annotations

from overlay import limits
from overlay.agent.api.schema import network_responses
from overlay.agent.api.schema.responses import STATES
from overlay.agent.components import Running
from overlay.core.ipam.allocator import Share
from overlay.core.ipam.ownership import ip_of
from overlay.model import Network, Subnet, ip_text


def ipam(running: Running, networks: list[Network]) -> network_responses.Ipam:
    """Show the owners of some networks' addresses; `elsewhere` names those not held here."""
    directory, own = running.directory, running.member.node_id
    held = [network for network in networks if directory.follows(own, network.vni)]
    return {
        "networks": [_network(running, network) for network in held],
        "elsewhere": [network.name for network in networks if network not in held],
    }


def _network(running: Running, network: Network) -> network_responses.NetworkOwners:
    found = running.addresses.space.shares(network)
    return {
        "network": network.name,
        "subnets": [
            _subnet(running, subnet, [share for share in found if share.subnet_index == index])
            for index, subnet in enumerate(network.subnets)
        ],
    }


def _subnet(running: Running, subnet: Subnet, found: list[Share]) -> network_responses.SubnetOwners:
    owners = [_owner(running, subnet, share) for share in found]
    return {
        "subnet": str(subnet),
        "block_length": subnet.block_length or None,
        "addresses": sum(owner["addresses"] for owner in owners),
        "used": sum(owner["used"] for owner in owners),
        "free": sum(owner["free"] for owner in owners),
        "unreachable": sum(owner["free"] for owner in owners if not owner["reachable"]),
        "owners": owners,
    }


def _owner(running: Running, subnet: Subnet, share: Share) -> network_responses.Owner:
    own = share.owner == running.member.node_id
    live = own or share.owner in running.member.node.membership.live()
    runs = share.space.runs
    return {
        "node": running.directory.node_name(share.owner),
        "state": "alive" if own else STATES[running.directory.node_state(share.owner)],
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
