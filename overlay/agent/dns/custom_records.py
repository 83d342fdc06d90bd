"""Custom DNS records: names that an administrator adds with `dns add`.

Owns: which host may add or remove a record, and how many it may have on a network.
Does not: know the API or the DNS format.
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
    """Add a record to a network, replacing this host's record of the same name.

    Raises ConflictError if this host does not hold the network's records, or at the limit.
    """
    if not directory.follows(gossip.node_id, network.vni):
        raise ConflictError(
            f"cannot add a DNS record to network {network.name} on this host",
            why="nothing on this host is attached to it, so this host does not hold its records",
            hint="Run the command on a host with a container on it, or on the one that created it",
        )
    record = CustomRecord(name.lower(), ips)
    own = [item for at, item in directory.custom_records(network.vni) if at == gossip.node_id]
    if record in own:
        return
    if len(own) >= limits.CUSTOM_RECORDS_MAX and key_of(record) not in map(key_of, own):
        raise ConflictError(
            f"this host has {limits.CUSTOM_RECORDS_MAX} DNS records on {network.name}: the limit",
            hint=f"Remove one: overlayd dns rm NAME --network {network.name}, "
            "or add the record on another host",
        )
    gossip.publish(gossip.commit(Scope(network.vni), [record]))


def remove(gossip: GossipService, directory: Directory, network: Network, name: str) -> None:
    """Remove a record that this host added; raises NotFoundError if there is none."""
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
        f"this host has no DNS record {name} on {network.name}",
        why=f"it was added on {hosts}" if hosts else "",
        hint=f"Remove it there: overlayd dns rm {name} --network {network.name}"
        if hosts
        else "A container's name and aliases are removed by its detach. "
        "To list all names: overlayd dns ls",
    )
