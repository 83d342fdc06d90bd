"""Keep a reserve of free addresses on this node, in each network whose records it holds.

A node with few free addresses asks the reachable owner with most, in the background, so that an
attach finds one without asking. It asks only an owner that has clearly more than itself: each
grant then makes the shares more equal, so it ends, and nobody is asked for its last address.

Owns: which networks to hold records of, when to ask whom, and when to repeat it. Does not: send,
write, or answer requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from overlay import limits
from overlay.core.ipam import spread
from overlay.core.ipam.address_choice import dynamic_addresses, reserved_addresses
from overlay.core.ipam.address_space import AddressSpace, Stamp
from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.shares import grant_candidates
from overlay.core.ipam.subnet_numbers import number_of
from overlay.core.log.store import Store
from overlay.core.protocol.messages import GrantRefusal, GrantRequest
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, Scope
from overlay.model import Network, NodeId, Vni


class SyncProgress(Protocol):
    """Knows which records may still be missing here."""

    def is_pending(self, scope: Scope) -> bool:
        """Return whether holders of a scope may have records that are not here."""


@dataclass(slots=True)
class _Question:
    owner: NodeId
    request: GrantRequest
    sent_at: float
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Cluster:
    """The members as this node sees them now."""

    members: tuple[NodeId, ...]  # dead ones and this one too, but not those that left
    live: frozenset[NodeId]  # reachable, without this one


class Reserves:
    """The reserves of one node, and its requests for more."""

    def __init__(
        self,
        space: AddressSpace,
        store: Store,
        sync: SyncProgress,
        draw_id: Callable[[], bytes],
    ) -> None:
        self._space = space
        self._store = store
        self._self_id = store.self_id
        self._sync = sync
        self._draw_id = draw_id
        self._questions: dict[tuple[Vni, int], _Question] = {}
        self._resting: dict[tuple[Vni, int, NodeId], float] = {}  # not asked until then
        self._first_seen: dict[Vni, float] = {}
        self._enough: dict[Vni, tuple[Stamp, Cluster]] = {}  # nothing to ask at that state
        self._cluster = Cluster((), frozenset())
        self._waiting = False
        self._has_more = False  # networks that the last pass did not get to

    def participations(self, networks: Iterable[Network], cluster: Cluster) -> list[Participation]:
        """Return the records by which this node begins to hold networks' records; usually none.

        `networks` are those that this node may participate in. Of very many, it keeps so many that
        what it must participate in has room (`core.log.live_entries`).
        """
        present = sorted({*cluster.live, self._self_id})
        held = self._store.values_of(self._self_id, CLUSTER_SCOPE, "participation")
        idle = sum(1 for each in held if isinstance(each, Participation) and not each.forwards)
        room = limits.RESERVE_NETWORKS_MAX + limits.NETWORKS_PER_NODE_MAX - idle
        found = [
            Participation(network.vni, forwards=False)
            for network in spread.fairly_ordered(networks)[: limits.RESERVE_NETWORKS_MAX]
            if not self._store.takes_part(self._self_id, Scope(network.vni))
            and self._self_id in spread.keepers(network, present)
        ]
        return found[: max(0, room)]

    def due_in(self) -> float | None:
        """Return when to look again if no record changes, in seconds; None for never."""
        if self._has_more:
            return limits.RESERVE_SETTLE_S
        if self._questions or self._waiting:
            return limits.RESERVE_RETRY_S
        return limits.RESERVE_REFUSED_S if self._resting else None

    def requests(
        self, networks: Sequence[Network], cluster: Cluster, now: float
    ) -> list[tuple[NodeId, GrantRequest]]:
        """Return the requests to send now, each with its owner."""
        if cluster == self._cluster:
            cluster = self._cluster  # the same object: compared quickly for each network
        self._cluster, self._waiting = cluster, False
        self._forget_ended({network.vni for network in networks}, now)
        found: list[tuple[NodeId, GrantRequest]] = []
        checks = 0
        self._has_more = False
        for network in networks:
            state = (self._space.stamp(network), cluster)
            if self._enough.get(network.vni) == state or not self._is_known(network, cluster, now):
                continue
            checks += 1
            if checks > limits.RESERVE_CHECKS_MAX:
                self._has_more = True
                break
            before = len(self._questions)
            is_quiet = True
            for index, _ in enumerate(network.subnets):
                is_quiet = self._look_at(network, index, cluster, now, found) and is_quiet
            if is_quiet and len(self._questions) <= before:
                self._enough[network.vni] = state
        return found

    def handle_refusal(self, refusal: GrantRefusal, now: float) -> bool:
        """Note a refusal; return whether it answers a request of this object."""
        for place, question in list(self._questions.items()):
            if question.request.request_id == refusal.request_id:
                del self._questions[place]
                self._resting[(*place, question.owner)] = now + limits.RESERVE_REFUSED_S
                return True
        return False

    def _forget_ended(self, vnis: Collection[Vni], now: float) -> None:
        """Drop what concerns networks that are gone, and rests that are over."""
        for place in [place for place in self._questions if place[0] not in vnis]:
            del self._questions[place]
        for known in (self._first_seen, self._enough):
            for vni in [vni for vni in known if vni not in vnis]:
                del known[vni]
        over = [key for key, until in self._resting.items() if until <= now or key[0] not in vnis]
        for key in over:
            del self._resting[key]
            self._enough.pop(key[0], None)

    def _is_known(self, network: Network, cluster: Cluster, now: float) -> bool:
        """Return whether the network's grants are here, as far as can be known."""
        scope, seen = Scope(network.vni), self._first_seen.setdefault(network.vni, now)
        if not self._store.takes_part(self._self_id, scope):
            return False
        known = not self._sync.is_pending(scope) and (
            network.creator not in cluster.live
            or self._store.version(network.creator, scope) > 0
            or now >= seen + limits.RESERVE_GRACE_S
        )
        self._waiting = self._waiting or not known
        return known

    def _look_at(
        self,
        network: Network,
        index: int,
        cluster: Cluster,
        now: float,
        found: list[tuple[NodeId, GrantRequest]],
    ) -> bool:
        """Add the messages about one subnet; return whether no answer is awaited."""
        place = (network.vni, index)
        question = self._questions.get(place)
        free = self._free(network, index)
        low = self._low(network, index, cluster)
        if free >= low:
            self._questions.pop(place, None)
            return True
        if question is not None and self._space.has_grant(network, question.request.request_id):
            del self._questions[place]
            question = None
        if question is not None and question.owner in cluster.live:
            if now < question.sent_at + limits.RESERVE_RETRY_S:
                return False
            if question.tries < limits.RESERVE_TRIES:
                question.tries, question.sent_at = question.tries + 1, now
                found.append((question.owner, question.request))
                return False
            self._resting[(*place, question.owner)] = now + limits.RESERVE_REFUSED_S
        self._questions.pop(place, None)
        if len(self._questions) >= limits.RESERVE_REQUESTS_MAX:
            self._waiting = True
            return False
        owner = self._richer_owner(network, index, free, cluster)
        if owner is None:
            return True
        subnet = network.subnets[index]
        count = spread.wanted_count(subnet, self._sharers(network, cluster))
        request = GrantRequest(self._draw_id(), network.vni, subnet.base, count, exact=False)
        self._questions[place] = _Question(owner, request, now)
        found.append((owner, request))
        return False

    def _free(self, network: Network, index: int) -> int:
        """Return how many addresses this node may still allocate."""
        subnet = network.subnets[index]
        owned = self._space.owned(network, index) & dynamic_addresses(subnet)
        if not owned:
            return 0
        size = len(subnet.base)
        used = (number_of(ip) for ip in self._space.used(network.vni) if len(ip) == size)
        return (owned - reserved_addresses(subnet) - Intervals.of_numbers(used)).count

    def _low(self, network: Network, index: int, cluster: Cluster) -> int:
        """Return the number of free addresses below which this node asks for more."""
        share = spread.fair_share(network.subnets[index], self._sharers(network, cluster))
        return max(1, min(limits.RESERVE_LOW, share // 4))

    def _sharers(self, network: Network, cluster: Cluster) -> int:
        participants = self._space.participant_count(network.vni)
        return spread.sharer_count(len(cluster.members), participants)

    def _richer_owner(
        self, network: Network, index: int, free: int, cluster: Cluster
    ) -> NodeId | None:
        """Return the reachable owner with most free addresses, if it has clearly more."""
        subnet = network.subnets[index]
        block = 1 << 8 * len(subnet.base) - subnet.block_length if subnet.block_length else 1
        shares = self._space.shares(network)
        by_owner = {share.owner: share.free for share in shares if share.subnet_index == index}
        ranked = grant_candidates(shares, index, self._self_id, cluster.live)
        for owner in ranked:
            if (network.vni, index, owner) in self._resting:
                continue
            return owner if by_owner[owner] >= 2 * block + 2 * free else None
        return None
