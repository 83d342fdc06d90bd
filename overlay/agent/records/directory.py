"""Lookups in the replicated records by the names people use.

Owns: which network, endpoint or node a name means, even if two hosts created the same name during a
network partition. Does not: know the kernel or the API.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from overlay.agent.records.known_names import known_text, meant_text
from overlay.agent.records.multicast_interests import MulticastInterests
from overlay.agent.records.policy_catalog import PolicyCatalog
from overlay.agent.records.router_catalog import RouterCatalog
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import (
    BRIDGE,
    driver_of,
    is_encrypted,
    is_supported,
    parent_interface_of,
)
from overlay.core.declared.host_objects import DeclaredRecord, existing
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.native.zero_checksum import ZeroChecksumMembers
from overlay.core.node import Node
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    CustomRecord,
    Participation,
    RemovedNetwork,
    Scope,
)
from overlay.core.services.derivation import PlacedService
from overlay.core.services.view import ServiceSource
from overlay.core.view import ExpirySource, OwnershipSource, View
from overlay.errors import ConflictError, NotFoundError
from overlay.model import Card, Endpoint, Network, NodeId, Vni, is_host, node_text


class PlacedEndpoint(NamedTuple):
    """An endpoint and the node that it lives on."""

    origin: NodeId
    endpoint: Endpoint


class Directory:
    """Read-only queries to one node's store and membership."""

    def __init__(
        self,
        node: Node,
        own: NodeId,
        owners: OwnershipSource | None = None,
        expiry: ExpirySource | None = None,
        inner_prefix: bytes = b"",
        services: ServiceSource | None = None,
        declared: DeclaredObjects | None = None,
    ) -> None:
        self._node = node
        self._store = node.store
        self.view = View(
            node.store, node.membership, own, owners, expiry, inner_prefix, services, declared
        )
        self.declared = declared
        self.policies = None if declared is None else PolicyCatalog(declared)
        self.routers = None if declared is None else RouterCatalog(declared)
        self.multicast = (
            None
            if declared is None
            else MulticastInterests(declared, self.view, own, self.node_state)
        )
        self.zero_checksum = None if declared is None else ZeroChecksumMembers(declared, node.store)
        self.own = own

    # --- networks -----------------------------------------------------------------------

    def networks(self) -> list[Network]:
        """Return the networks that exist, by name."""
        found = self.view.networks().values()
        return sorted(found, key=lambda network: (network.name, network.creator, network.vni))

    def routed_with(self, network: Network) -> list[Network]:
        """Return the networks that containers of a network reach through routers, by VNI."""
        if self.routers is None or not self.routers.on(network.vni):
            return []
        return self.routers.routed_with(self.view.networks(), network.vni)

    def definition(self, vni: int, creator: NodeId) -> Network | None:
        """Return a network's definition by its creator, even if another node removed it."""
        value = self._store.value(creator, CLUSTER_SCOPE, ("network", vni.to_bytes(3, "big")))
        return value if isinstance(value, Network) else None

    def removers(self, creator: NodeId) -> dict[int, NodeId]:
        """Return the nodes that request the removal of a creator's networks, by VNI.

        A new definition of the creator under such a VNI would be removed as well.
        """
        return {
            value.vni: origin
            for origin, value in self._store.values(CLUSTER_SCOPE, "removed")
            if isinstance(value, RemovedNetwork) and value.creator == creator
        }

    def require_participation(self, network: Network) -> None:
        """Raise ConflictError if this host cannot participate in a network.

        It cannot if the network's driver is unknown, or if a bridge network is another host's.
        """
        if not is_supported(network):
            driver, parent = driver_of(network), parent_interface_of(network)
            on = f"on {parent!r}" if parent else "without a parent interface"
            raise ConflictError(
                f"network {network.name} uses a driver that this version of overlayd does not know",
                why=f"its record says {driver!r} {on}",
                hint=f"Install the version that {self.node_name(network.creator)} has, or remove "
                f"the network: overlayd network rm {network.name}",
            )
        if driver_of(network) == BRIDGE and network.creator != self.own:
            owner = self.node_name(network.creator)
            raise ConflictError(
                f"network {network.name} exists only on {owner}",
                why="a bridge network is limited to the host that created it",
                hint="For containers on several hosts: overlayd network create NAME",
            )

    def network(self, name: str) -> Network:
        """Return the network with a name, whatever its case; raises NotFoundError.

        Of several created during a partition, it is an encrypted one, else the one whose creator
        has the lowest id, so that all nodes choose the same. Those that are written exactly so take
        precedence.
        """
        found = self.find_network(name)
        if found is not None:
            return found
        names = sorted({network.name for network in self.networks()})
        raise NotFoundError(
            f"there is no network {name!r}",
            why=f"known networks: {known_text(names)}" if names else "the cluster has no network",
            hint=meant_text(name, names)
            or ("overlayd network ls" if names else "Create one: overlayd network create NAME"),
        )

    def find_network(self, name: str) -> Network | None:
        """Return the network with a name, as `network` does, or None."""
        same = [each for each in self.networks() if each.name.lower() == name.lower()]  # as in DNS
        return min(
            same,
            key=lambda each: (each.name != name, not is_encrypted(each), each.creator, each.vni),
            default=None,
        )

    def require_not_removed(self, network: Network) -> None:
        """Raise NotFoundError if a network was removed during a wait."""
        if self.network_by_vni(network.vni) is None:
            raise NotFoundError(
                f"network {network.name!r} no longer exists",
                why="it was removed a moment ago",
                hint="overlayd network ls",
            )

    def network_by_vni(self, vni: int) -> Network | None:
        """Return the network with that VNI, or None."""
        return self.view.network(vni)

    def participants(self, vni: int, *, forwarding: bool) -> list[NodeId]:
        """Return the nodes that participate in a network, this one included, in order of id.

        With `forwarding`, only those that have a sandbox of the network: none that are gone.
        """
        return self.view.participants(vni, forwarding=forwarding)

    def has_participation(self, node_id: NodeId, part: Participation) -> bool:
        """Return whether a node has written exactly this record."""
        return self.view.takes_part(node_id, part)

    def networks_forwarded_by(self, node_id: NodeId) -> list[Vni]:
        """Return the networks for which a node announces a sandbox, in order of VNI."""
        return sorted(
            Vni(value.vni)
            for value in self._store.values_of(node_id, CLUSTER_SCOPE, "participation")
            if isinstance(value, Participation) and value.forwards
        )

    def follows(self, node_id: NodeId, vni: int) -> bool:
        """Return whether a node holds a network's records."""
        return self._store.takes_part(node_id, Scope(vni))

    def knows_endpoints(self, vni: int) -> bool:
        """Return whether this node can list a network's endpoints: it holds them, or none is."""
        return self.follows(self.own, vni) or not self.participants(vni, forwarding=True)

    def unseen(self, vni: Vni) -> list[NodeId]:
        """Return the nodes that forward for a network but whose records of it, with their
        endpoints, this node does not hold."""
        return [
            origin
            for origin in self.participants(vni, forwarding=True)
            if origin != self.own and not self._store.version(origin, Scope(vni))
        ]

    def surplus(self) -> Iterator[tuple[NodeId, str]]:
        """Yield the nodes that wrote more records of a kind than count, with the kind.

        Not forgotten ones: nothing more can be done about them.
        """
        found = ((origin, kind) for origin, _, kind, _ in self._store.surplus())
        return (each for each in found if not self._node.is_forgotten(each[0]))

    # --- endpoints ----------------------------------------------------------------------

    def endpoints(self, vni: Vni) -> Iterator[PlacedEndpoint]:
        """Yield the containers' endpoints on a network that this node knows."""
        return (placed for placed in self.all_endpoints(vni) if not is_host(placed.endpoint))

    def host_endpoints(self, vni: Vni) -> Iterator[PlacedEndpoint]:
        """Yield the host endpoints on a network."""
        return (placed for placed in self.all_endpoints(vni) if is_host(placed.endpoint))

    def all_endpoints(self, vni: Vni) -> Iterator[PlacedEndpoint]:
        """Yield all endpoints on a network, of containers and hosts."""
        for origin in self.endpoint_writers(vni):
            for endpoint in self.endpoints_of(origin, vni):
                yield PlacedEndpoint(origin, endpoint)

    def endpoint_writers(self, vni: Vni) -> list[NodeId]:
        """Return the nodes whose endpoints on a network count."""
        origins = self._store.origins(Scope(vni))
        return [each for each in origins if each == self.own or not self.view.is_gone(each)]

    def endpoints_of(self, origin: NodeId, vni: Vni) -> Iterator[Endpoint]:
        """Yield a node's endpoints on a network, of containers and of the host."""
        for value in self._store.values_of(origin, Scope(vni), "endpoint"):
            if isinstance(value, Endpoint):
                yield value

    def has_endpoint_name(self, vni: Vni, name: str) -> bool:
        """Return whether any endpoint on a network may have a name, whatever its case.

        Without reading them all; one that does not count is enough.
        """
        return self._store.has_endpoint_name(Scope(vni), name)

    def whereabouts(self, name: str) -> str:
        """Return which other hosts have an endpoint with a name, as text; or empty."""
        found = {
            f"on {self.node_name(placed.origin)}, on network {network.name}"
            for network in self.networks()
            for placed in self.endpoints(network.vni)
            if placed.origin != self.own and placed.endpoint.name.lower() == name.lower()
        }
        return f"{name} is {' and '.join(sorted(found))}" if found else ""

    def own_endpoints(self, vni: Vni) -> Iterator[Endpoint]:
        """Yield this node's own endpoints on a network."""
        return self.endpoints_of(self.own, vni)

    def own_version(self, vni: Vni) -> int:
        """Return a number that grows with each change of this node's records of a network."""
        return self._store.version(self.own, Scope(vni))

    def endpoint_of(self, attachment: Attachment) -> Endpoint | None:
        """Return the record that belongs to an attachment of this node."""
        key = ("endpoint", bytes.fromhex(attachment.endpoint_id))
        value = self._store.value(self.own, Scope(attachment.vni), key)
        return value if isinstance(value, Endpoint) else None

    def services(self, vni: Vni) -> tuple[PlacedService, ...]:
        """Return the services on a network with their backends, by name."""
        network = self.network_by_vni(vni)
        return () if network is None else self.view.services.placed(network)

    def custom_records(self, vni: Vni) -> Iterator[tuple[NodeId, CustomRecord]]:
        """Yield the custom DNS records that a network's DNS serves, each with its writer's node.

        A declared one takes the place of all others of its name; without addresses it hides them.
        """
        declared = self.declared_records(vni)
        for origin, record in self.added_records(vni):
            if record.name.lower() not in declared:
                yield origin, record
        yield from ((self.own, record) for record in declared.values() if record.ips)

    def declared_records(self, vni: Vni) -> dict[str, CustomRecord]:
        """Return a network's declared DNS records by name in lower case."""
        network = self.network_by_vni(vni)
        if self.declared is None or network is None or self.find_network(network.name) != network:
            return {}
        return {
            record.name.lower(): CustomRecord(record.name, record.ips)
            for record in existing(self.declared, DeclaredRecord)
            if record.network.lower() == network.name.lower()
        }

    def added_records(self, vni: Vni) -> Iterator[tuple[NodeId, CustomRecord]]:
        """Yield the DNS records that hosts have added to a network, also hidden ones."""
        for origin, value in self._store.values(Scope(vni), "name"):
            if isinstance(value, CustomRecord) and (
                origin == self.own or not self.view.is_gone(origin)
            ):
                yield origin, value

    # --- nodes --------------------------------------------------------------------------

    def card(self, node_id: NodeId) -> Card | None:
        """Return a node's card, if known."""
        return self._store.card(node_id)

    def node_name(self, node_id: NodeId) -> str:
        """Return a node's name, or its short id if its card is unknown."""
        card = self.card(node_id)
        return card.name if card is not None else node_text(node_id)

    def node_state(self, node_id: NodeId) -> MemberState:
        """Return a node's state, as this node sees it; an unknown node is dead."""
        if node_id == self.own:
            return MemberState.ALIVE
        state = self._node.membership.state_of(node_id)
        return MemberState.DEAD if state is None else state

    def node(self, name: str) -> NodeId:
        """Return the node with a name or id; raises NotFoundError, or ConflictError for several.

        A node that has left is chosen only if no other node has the name.
        """
        known = [member.node_id for member in self._node.membership.members()]
        matches = sorted(
            {
                node_id
                for node_id in [*known, self.own]
                if name in (self.node_name(node_id), node_text(node_id), node_id.hex())
            }
        )
        staying = [each for each in matches if self.node_state(each) is not MemberState.LEFT]
        matches = staying or matches
        if not matches:
            present = {each for each in known if self.node_state(each) is not MemberState.LEFT}
            names = sorted(map(self.node_name, present | {self.own}))
            hint = meant_text(name, names) or "'overlayd members' lists them"
            raise NotFoundError(f"there is no node {name!r}", hint=hint)
        if len(matches) > 1:
            ids = ", ".join(node_text(node_id) for node_id in matches)
            raise ConflictError(f"node name {name!r} is ambiguous", hint=f"Use an id: {ids}")
        return matches[0]

    def forgotten_node(self, name: str) -> NodeId | None:
        """Return the forgotten node with a name or id; None if there is none, or several."""
        found = [
            node_id
            for node_id in self._store.cards
            if self._node.is_forgotten(node_id)
            and name in (self.node_name(node_id), node_text(node_id), node_id.hex())
        ]
        return found[0] if len(found) == 1 else None
