"""Custom DNS records: names that an administrator adds with `dns add`.

A host adds a record to its own log. One that another host has added is removed by a declared
record without addresses, which hides it until its host has deleted it (`removed_records`). What a
file has declared, any host replaces or removes.

Owns: which host may add or remove a record, and how many it may have on a network.
Does not: know the API or the DNS format.
"""

from __future__ import annotations

from overlay import limits
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.service import GossipService
from overlay.agent.records.directory import Directory
from overlay.core.declared.host_objects import DeclaredRecord, existing
from overlay.core.protocol.records import CustomRecord, Scope, key_of
from overlay.errors import ConflictError, NotFoundError
from overlay.model import Ip, Network, NodeId


class CustomRecords:
    """The custom DNS records of all networks, as this host may change them."""

    def __init__(
        self, gossip: GossipService, directory: Directory, declared: DeclaredService
    ) -> None:
        self._gossip = gossip
        self._directory = directory
        self._declared = declared

    def add(self, network: Network, name: str, ips: tuple[Ip, ...]) -> None:
        """Add a record to a network, replacing this host's or a declared one of the same name.

        Raises ConflictError if this host does not hold the network's records, or at the limit.
        """
        declared = self._declared_record(network, name)
        if declared is not None and declared.ips:
            changed = DeclaredRecord(network.name, declared.name, ips, declared.owner)
            self._declared.put(changed.kind, changed.object_name, changed.body())
            return
        if declared is not None:  # it hides what another host had added, and is added again
            self._declared.remove(declared.kind, declared.object_name)
        if not self._directory.follows(self._gossip.node_id, network.vni):
            raise ConflictError(
                f"cannot add a DNS record to network {network.name} on this host",
                why="nothing on this host is attached to it, so this host does not hold its "
                "records",
                hint="Run the command on a host with a container on it, or on the one that created "
                "it; or declare the record in a file: overlayd apply",
            )
        record = CustomRecord(name.lower(), ips)
        own = self.own(network)
        if record in own:
            return
        if len(own) >= limits.CUSTOM_RECORDS_MAX and key_of(record) not in map(key_of, own):
            raise ConflictError(
                f"this host has {limits.CUSTOM_RECORDS_MAX} DNS records on {network.name}: "
                "the limit",
                hint=f"Remove one: overlayd dns rm NAME --network {network.name}, "
                "or add the record on another host",
            )
        self._gossip.publish(self._gossip.commit(Scope(network.vni), [record]))

    def remove(self, network: Network, name: str) -> None:
        """Remove a record, whichever host added it; raises NotFoundError if there is none."""
        served = {record.name.lower() for _, record in self._directory.custom_records(network.vni)}
        if name.lower() not in served:
            raise NotFoundError(
                f"there is no DNS record {name} on {network.name}",
                hint="A container's name and aliases are removed by its detach. "
                "To list all names: overlayd dns ls",
            )
        self.drop_own(network, name)
        hiding = DeclaredRecord(network.name, name.lower(), ())
        if self.hosts_with(network, name):
            self._declared.put(hiding.kind, hiding.object_name, hiding.body())
        else:
            self._declared.remove(hiding.kind, hiding.object_name)

    def hosts_with(self, network: Network, name: str) -> set[NodeId]:
        """Return the hosts that have added a record of a name, also a hidden one."""
        found = self._directory.added_records(network.vni)
        return {origin for origin, item in found if item.name.lower() == name.lower()}

    def drop_own(self, network: Network, name: str) -> bool:
        """Delete the record of a name that this host has added; return whether there was one."""
        key = key_of(CustomRecord(name, ()))
        found = any(key_of(record) == key for record in self.own(network))
        if found:
            self._gossip.publish(self._gossip.commit(Scope(network.vni), deletes=[key]))
        return found

    def own(self, network: Network) -> list[CustomRecord]:
        """Return the records that this host has added to a network, also hidden ones."""
        found = self._directory.added_records(network.vni)
        return [record for origin, record in found if origin == self._gossip.node_id]

    def _declared_record(self, network: Network, name: str) -> DeclaredRecord | None:
        wanted = DeclaredRecord(network.name, name, ()).object_name
        records = existing(self._declared.objects, DeclaredRecord)
        return next((each for each in records if each.object_name == wanted), None)
