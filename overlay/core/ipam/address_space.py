"""The address space of one node: owned, used and resting addresses.

Owns: the cached ownership of each network, and what an address is chosen from. Does not: write
records, send messages or wait; agent and simulator do, and make a grant durable before they
publish it.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from overlay.core.ipam import reclaim
from overlay.core.ipam.address_choice import pick, pick_last, reserved_addresses
from overlay.core.ipam.departures import Departures
from overlay.core.ipam.grants import decide_grant, fault_of, superseded
from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.ownership import Ownership, ownership_after
from overlay.core.ipam.quarantine import Quarantine
from overlay.core.ipam.shares import Share, address_shares, grant_candidates
from overlay.core.log.store import Store
from overlay.core.protocol.messages import GrantRefusal, GrantRequest
from overlay.core.protocol.records import CLUSTER_SCOPE, ForgottenNode, ReclaimStatement, Scope
from overlay.model import Endpoint, Grant, Ip, Network, NodeId, Vni

Stamp: TypeAlias = tuple[Network, int, int, Departures]
"""Equal while a network's ownership and use are."""
V = TypeVar("V", Endpoint, Grant, ForgottenNode, ReclaimStatement)


class AddressClaims(NamedTuple):
    """The owners of a network's addresses, and the addresses that are in use on each node.

    It does not change with the records, so that another thread may count.
    """

    ownership: Ownership
    used: list[tuple[NodeId, tuple[Ip, ...]]]

    def shares(self) -> list[Share]:
        """Return each owner's share: 0.1 s for 10,000 endpoints.

        Only an owner's own endpoints use its space: others' false ones would make it seem full.
        """
        owner_of = self.ownership.owner_of
        ips = (ip for origin, ips in self.used for ip in ips if owner_of(ip) == origin)
        return address_shares(self.ownership, ips)


class VirtualAddressSource(Protocol):
    """Knows the addresses of services, whichever node owns them."""

    def virtual_ips(self, vni: Vni) -> AbstractSet[Ip]:
        """Return the virtual addresses on a network."""


class OutsideAddressSource(Protocol):
    """Knows the addresses that machines outside the cluster use on a network."""

    def outside_ips(self, vni: Vni) -> AbstractSet[Ip]:
        """Return the addresses that were seen behind plugs of a network."""


class WithdrawnAddressSource(Protocol):
    """Knows the addresses of this node's containers whose records another host withdrew."""

    def withdrawn_ips(self, vni: Vni) -> AbstractSet[Ip]:
        """Return the addresses on a network that such containers still have."""


class AddressSpace:
    """The addresses that one node may allocate and grant, from its own store.

    A virtual address belongs to no host: whoever owns it after the host that created its service
    has gone gives it to nobody as long as the service exists.
    """

    def __init__(
        self,
        store: Store,
        self_id: NodeId,
        virtual: VirtualAddressSource | None = None,
        outside: OutsideAddressSource | None = None,
        withdrawn: WithdrawnAddressSource | None = None,
    ) -> None:
        self._withdrawn = withdrawn
        self._virtual = virtual
        self._outside = outside
        self._store = store
        self._self_id = self_id
        self._ownership: dict[Vni, tuple[tuple[Network, int, Departures], Ownership]] = {}
        self._departures: tuple[list[int], Departures] = ([], Departures())
        # The ownerships and members with which nothing was left to reclaim.
        self._reclaimed: dict[Vni, tuple[Ownership, list[NodeId]]] = {}
        self._quarantine: dict[Vni, Quarantine] = {}
        self._reserved: dict[Vni, dict[Ip, bool]] = {}

    def ownership(self, network: Network) -> Ownership:
        """Return the ownership of a network by the records held now."""
        # The counts of changes identify the records exactly: between this node's own write and
        # the event that reports it, a stale ownership could grant the same space twice.
        scope = Scope(network.vni)
        stamp = (network, self._store.change_count(scope, "grant"), self.departures())
        known = self._ownership.get(network.vni)
        if known is None or known[0] != stamp:
            grants = _values(self._store, scope, "grant", Grant)
            known = self._ownership[network.vni] = (
                stamp,
                ownership_after(stamp[2], network, grants),
            )
        return known[1]

    def stamp(self, network: Network) -> Stamp:
        """Return a value that changes with the records that owners and free space depend on."""
        counts = self._store.change_count
        scope = Scope(network.vni)
        return (network, counts(scope, "grant"), counts(scope, "endpoint"), self.departures())

    def departures(self) -> Departures:
        """Return the forgotten nodes and all statements; the same object until they change."""
        changes = [
            self._store.change_count(CLUSTER_SCOPE, kind) for kind in ("forgotten", "settled")
        ]
        if self._departures[0] != changes:
            found = Departures(
                _values(self._store, CLUSTER_SCOPE, "forgotten", ForgottenNode),
                _values(self._store, CLUSTER_SCOPE, "settled", ReclaimStatement),
            )
            self._departures = (changes, found)
        return self._departures[1]

    def used(self, vni: Vni) -> set[Ip]:
        """Return the addresses of this node's own endpoints, and the reserved ones."""
        return self._of_endpoints(vni) | self.reserved(vni)

    def occupied(self, vni: Vni, withdrawn: AbstractSet[Ip] = frozenset()) -> set[Ip]:
        """Return the addresses that this node gives to nobody: in use, virtual or outside.

        `withdrawn` are those of the asking container, whose record another host withdrew.
        """
        others = self.withdrawn_ips(vni) - withdrawn
        return self.used(vni) | self.virtual_ips(vni) | self.outside_ips(vni) | others

    def withdrawn_ips(self, vni: Vni) -> AbstractSet[Ip]:
        """Return the addresses of own containers whose records another host withdrew."""
        return frozenset() if self._withdrawn is None else self._withdrawn.withdrawn_ips(vni)

    def outside_ips(self, vni: Vni) -> AbstractSet[Ip]:
        """Return the addresses that machines outside use on a network."""
        return frozenset() if self._outside is None else self._outside.outside_ips(vni)

    def virtual_ips(self, vni: Vni) -> AbstractSet[Ip]:
        """Return the virtual addresses of a network's services."""
        return frozenset() if self._virtual is None else self._virtual.virtual_ips(vni)

    def _of_endpoints(self, vni: Vni) -> set[Ip]:
        return {
            ip
            for endpoint in self._store.values_of(self._self_id, Scope(vni), "endpoint")
            if isinstance(endpoint, Endpoint)
            for ip in endpoint.ips
        }

    def reserve(self, vni: Vni, ip: Ip, *, for_any_node: bool = False) -> None:
        """Keep an own address for an endpoint that is still to come.

        With `for_any_node` it may come on another node, which is granted the address.
        """
        self._reserved.setdefault(vni, {})[ip] = for_any_node

    def unreserve(self, vni: Vni, ip: Ip) -> None:
        """End the reservation of an address, if there is one."""
        self._reserved.get(vni, {}).pop(ip, None)

    def reserved(self, vni: Vni) -> AbstractSet[Ip]:
        """Return the reserved addresses of a network."""
        return self._reserved.get(vni, {}).keys()

    def quarantine(self, vni: Vni, ips: Iterable[Ip], now: float) -> None:
        """Put the addresses of a removed endpoint into quarantine."""
        for ip in ips:
            self._quarantine_of(vni).release(ip, now)

    def resting(self, vni: Vni, now: float) -> AbstractSet[Ip]:
        """Return the addresses in quarantine."""
        return self._quarantine_of(vni).resting(now).keys()

    def pick(self, network: Network, subnet_index: int, now: float) -> Ip | None:
        """Return a free address of this node's own space, or None."""
        subnet = network.subnets[subnet_index]
        return pick(
            subnet,
            self.ownership(network).owned(self._self_id, subnet_index),
            self.occupied(network.vni),
            self._quarantine_of(network.vni).resting(now),
            reserved_addresses(subnet),
        )

    def pick_last(self, network: Network, subnet_index: int, now: float) -> Ip | None:
        """Return the highest free own address, for the host endpoint, or None."""
        return pick_last(
            network.subnets[subnet_index],
            self.owned(network, subnet_index),
            self.occupied(network.vni),
            self._quarantine_of(network.vni).resting(now),
        )

    def fault_of(
        self,
        network: Network,
        ip: Ip,
        *,
        is_reserved: bool = False,
        withdrawn: AbstractSet[Ip] = frozenset(),
    ) -> str | None:
        """Return why this address is not available now, or None if it is.

        The reasons are the constants of `core.ipam.grants`. With `is_reserved`, a reservation is
        the caller's own; `withdrawn` as for `occupied`.
        """
        vni = network.vni
        used = self._of_endpoints(vni) if is_reserved else self.occupied(vni, withdrawn)
        return fault_of(self.ownership(network), ip, self._self_id, used)

    def owned(self, network: Network, subnet_index: int) -> Intervals:
        """Return the addresses of a subnet that this node owns."""
        return self.ownership(network).owned(self._self_id, subnet_index)

    def has_grant(self, network: Network, request_id: bytes) -> bool:
        """Return whether a request of this node was granted, as far as known here."""
        return any(
            grant.request_id == request_id and grant.grantee == self._self_id
            for _, grant in self.ownership(network).grants
        )

    def participant_count(self, vni: Vni) -> int:
        """Return how many nodes hold a network's records."""
        return len(self._store.participants.get(Scope(vni), {}))

    def shares(self, network: Network) -> list[Share]:
        """Return each owner's share of a network, as far as known here."""
        return self.claims(network).shares()

    def claims(self, network: Network) -> AddressClaims:
        """Return what the shares of a network follow from, as the records are now."""
        endpoints = _values(self._store, Scope(network.vni), "endpoint", Endpoint)
        ownership = self.ownership(network)
        used = [(origin, endpoint.ips) for origin, endpoint in endpoints]
        for ip in self.virtual_ips(network.vni):
            owner = ownership.owner_of(ip)
            if owner is not None:
                used.append((owner, (ip,)))
        return AddressClaims(ownership, used)

    def grant_candidates(
        self, network: Network, subnet_index: int, reachable: Container[NodeId]
    ) -> list[NodeId]:
        """Return the reachable owners with free space, the most free first."""
        return grant_candidates(self.shares(network), subnet_index, self._self_id, reachable)

    def decide_grant(
        self, network: Network, requester: NodeId, request: GrantRequest, now: float
    ) -> tuple[Grant | GrantRefusal, list[Grant]]:
        """Return the answer to a request, and the older grants that it replaces.

        Put the grant and delete those in one write. If the grant is in this node's log already (a
        repeated request), writing it again changes nothing.
        """
        known = self.ownership(network)
        resting = self._quarantine_of(network.vni).resting(now)
        used = self.occupied(network.vni)
        if request.exact and self._reserved.get(network.vni, {}).get(request.around):
            used.discard(request.around)
        answer = decide_grant(known, self._self_id, requester, request, used=used, resting=resting)
        if isinstance(answer, GrantRefusal):
            return answer, []
        return answer, superseded(known, self._self_id, answer)

    # --- space of forgotten nodes ---------------------------------------------------------

    def reclaim_statements(self, networks: Sequence[Network]) -> list[ReclaimStatement]:
        """Return the missing statements about forgotten nodes; usually none.

        `networks` are those whose records this node holds. Write the statements durably, in one
        write to the cluster's log, before any other change to addresses.
        """
        if not self.departures().owed_by(self._self_id):
            return []
        own_grants = [
            grant
            for network in networks
            for origin, grant in _values(self._store, Scope(network.vni), "grant", Grant)
            if origin == self._self_id
        ]
        return reclaim.reclaim_statements(
            self._self_id,
            _values(self._store, CLUSTER_SCOPE, "forgotten", ForgottenNode),
            _values(self._store, CLUSTER_SCOPE, "settled", ReclaimStatement),
            ownerships=[self.ownership(network) for network in networks],
            own_grants=own_grants,
            used=[(network.vni, ip) for network in networks for ip in self.used(network.vni)],
        )

    def reclaiming_nodes(self, forgotten: Iterable[NodeId]) -> list[NodeId]:
        """Return every node that a statement names as reclaiming node of these.

        Or as reclaiming node of such a node.
        """
        named: dict[NodeId, set[NodeId]] = {}
        for _, record in _values(self._store, CLUSTER_SCOPE, "settled", ReclaimStatement):
            named.setdefault(record.node_id, set()).add(record.reclaiming_node)
        found: set[NodeId] = set()
        due = list(forgotten)
        while due:
            further = named.get(due.pop(), set()) - found
            found |= further
            due += further
        return sorted(found)

    def reclaim_grants(self, network: Network, members: Collection[NodeId]) -> list[Grant]:
        """Return the grants by which this node reclaims space; usually none.

        `members` are all nodes known, this one included, except those that left or are forgotten.
        Write the grants durably to the network's log before the space is used.
        """
        asked = (self.ownership(network), list(members))
        if self._reclaimed.get(network.vni) == asked:
            return []
        found = reclaim.reclaim_grants(asked[0], self._self_id, members)
        if not found:
            self._reclaimed[network.vni] = asked
        return found

    def _quarantine_of(self, vni: Vni) -> Quarantine:
        return self._quarantine.setdefault(vni, Quarantine())


def _values(store: Store, scope: Scope, kind: str, wanted: type[V]) -> Iterator[tuple[NodeId, V]]:
    for origin, value in store.values(scope, kind):
        if isinstance(value, wanted):
            yield origin, value
