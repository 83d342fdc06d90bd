"""Names that people give: `dns add` and `dns rm`.

Owns: who may give and take a name, and how many there can be. Must not know: the API, DNS.
"""

from __future__ import annotations

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.records.directory import Directory
from overlay.core.protocol.records import CustomRecord, Scope, key_of
from overlay.errors import ConflictError, NotFoundError
from overlay.model import Ip, Network


def add(
    gossip: GossipService, directory: Directory, network: Network, name: str, ips: tuple[Ip, ...]
) -> None:
    """Give a name on a network, in place of what this host gave it before.

    Raises ConflictError where this host does not hold the network's records, or at the limit.
    """
    if not directory.follows(gossip.node_id, network.vni):
        raise ConflictError(
            f"cannot give a name on network {network.name} from here",
            why="nothing on this host is attached to it, so it does not hold its records",
            hint="Do it on a host that has a container on it, or on the one that made it",
        )
    given = CustomRecord(name.lower(), ips)
    own = [item for at, item in directory.custom_records(network.vni) if at == gossip.node_id]
    if given in own:
        return
    if len(own) >= limits.CUSTOM_RECORDS_MAX and key_of(given) not in map(key_of, own):
        raise ConflictError(
            f"this host has given {limits.CUSTOM_RECORDS_MAX} names on {network.name}: the limit",
            hint=f"overlayd dns rm NAME --network {network.name}, or give it on another host",
        )
    gossip.publish(gossip.commit(Scope(network.vni), [given]))


def remove(gossip: GossipService, directory: Directory, network: Network, name: str) -> None:
    """Take back a name that this host gave; raises NotFoundError for any other."""
    origins = [
        origin
        for origin, item in directory.custom_records(network.vni)
        if item.name.lower() == name.lower()
    ]
    if gossip.node_id in origins:
        key = key_of(CustomRecord(name, ()))
        gossip.publish(gossip.commit(Scope(network.vni), deletes=[key]))
        return
    hosts = ", ".join(map(directory.node_name, origins))
    raise NotFoundError(
        f"this host has not given the name {name} on {network.name}",
        why=f"it was given on {hosts}" if hosts else "",
        hint=f"Take it back there: overlayd dns rm {name} --network {network.name}"
        if hosts
        else "A container's name and aliases end with its detach. overlayd dns ls",
    )
