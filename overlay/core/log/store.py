"""The replica of every log that this node holds, and digests of them.

Owns: merging, which is commutative, associative and idempotent because no key has two writers,
and the sums over logs that show where two nodes differ. Does not: know who is alive or what is
sent to whom, or verify signatures (segments and cards are verified before they come here).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Iterator

from overlay import limits
from overlay.core.log.change_journal import Change, ChangeJournal
from overlay.core.log.endpoint_names import EndpointNames
from overlay.core.log.log import Log
from overlay.core.protocol.messages import LogVersion
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    Key,
    Participation,
    Scope,
    Segment,
    Value,
)
from overlay.model import Card, NodeId

BUCKET_COUNT = 64
_ROOT_MASK = 2**128 - 1
_BUCKET_MASK = 2**64 - 1


class Acceptance(enum.Enum):
    """The result of merging a segment."""

    NEW = "new"
    KNOWN = "known"
    GAP = "gap"  # an earlier segment is missing: buffered if there is room
    UNKNOWN_ORIGIN = "unknown-origin"
    FULL = "full"  # the log exceeds its bound: its origin does not clean it


class Store:
    """All logs and cards that a node holds."""

    def __init__(self, self_id: NodeId) -> None:
        self.self_id = self_id
        self.cards: dict[NodeId, Card] = {}
        self._scopes: dict[Scope, dict[NodeId, Log]] = {}
        self._roots: dict[Scope, int] = {}
        self._buckets: dict[Scope, list[int]] = {}
        self._origins: dict[Scope, list[dict[NodeId, None]]] = {}  # by bucket
        self._participations: dict[NodeId, dict[Scope, bool]] = {}  # scope -> forwards
        self.participants: dict[Scope, dict[NodeId, bool]] = {}
        self._journal = ChangeJournal()
        self._names: dict[Scope, EndpointNames] = {}
        self._oversized: dict[tuple[NodeId, Scope], None] = {}

    # --- lookups ------------------------------------------------------------------------

    def card(self, node_id: NodeId) -> Card | None:
        """Return a node's newest card."""
        return self.cards.get(node_id)

    def log(self, origin: NodeId, scope: Scope) -> Log | None:
        """Return a log, or None if nothing of it is held."""
        return self._scopes.get(scope, {}).get(origin)

    def version(self, origin: NodeId, scope: Scope) -> int:
        """Return the version up to which a log is held; 0 for nothing."""
        log = self.log(origin, scope)
        return 0 if log is None else log.version

    def log_version(self, origin: NodeId, scope: Scope) -> LogVersion:
        """Return a log's version and its origin's card epoch."""
        card = self.cards.get(origin)
        epoch = -1 if card is None else card.epoch
        return LogVersion(origin, scope, self.version(origin, scope), max(0, epoch))

    def versions(self, scope: Scope) -> Iterator[LogVersion]:
        """Yield the versions of all logs of a scope."""
        for origin in self._scopes.get(scope, {}):
            yield self.log_version(origin, scope)

    def origins(self, scope: Scope) -> list[NodeId]:
        """Return the nodes of whose logs in a scope anything is held."""
        return list(self._scopes.get(scope, ()))

    def values(self, scope: Scope, kind: str) -> Iterator[tuple[NodeId, Value]]:
        """Yield the live values of one kind with their origins, as far as they count."""
        for origin in self._scopes.get(scope, {}):
            for value in self.values_of(origin, scope, kind):
                yield origin, value

    def values_of(self, origin: NodeId, scope: Scope, kind: str) -> Iterator[Value]:
        """Yield one origin's live values of one kind, as far as they count."""
        log = self.log(origin, scope)
        return iter(()) if log is None else log.live.values_of(kind)

    def value(self, origin: NodeId, scope: Scope, key: Key) -> Value | None:
        """Return one live value, if it counts."""
        log = self.log(origin, scope)
        return None if log is None else log.live.value(key)

    def has_endpoint_name(self, scope: Scope, name: str) -> bool:
        """Return whether an endpoint has a name, whatever its case; one that does not count too."""
        return scope in self._names and name in self._names[scope]

    def change_count(self, scope: Scope, kind: str) -> int:
        """Return a number that grows with each change to the records of one kind."""
        return self._journal.count(scope, kind)

    def changed_since(self, scope: Scope, kind: str, count: int) -> list[Change] | None:
        """Return which records of a kind changed since a `change_count`; None if unknown."""
        return self._journal.since(scope, kind, count)

    def surplus(self) -> Iterator[tuple[NodeId, Scope, str, int]]:
        """Yield each log and kind with more live records than count, and how many do not."""
        for origin, scope in self._oversized:
            for kind, count in self._scopes[scope][origin].live.surplus().items():
                yield origin, scope, kind, count

    def takes_part(self, node_id: NodeId, scope: Scope) -> bool:
        """Return whether a node holds a scope; every node holds the cluster's."""
        return scope == CLUSTER_SCOPE or scope in self._participations.get(node_id, {})

    def common_scopes(self, node_id: NodeId) -> list[Scope]:
        """Return the scopes that this node and another both hold, in order."""
        theirs = self._participations.get(node_id, {})
        mine = self._participations.get(self.self_id, {})
        return [CLUSTER_SCOPE, *sorted(scope for scope in theirs if scope in mine)]

    def segments_beyond(self, origin: NodeId, scope: Scope, version: int) -> list[Segment]:
        """Return the segments from `version` to the newest, in order.

        Below the floor the newest segment comes first, because it contains the floor: without it,
        the receiver would take the others for segments beyond a gap.
        """
        log = self.log(origin, scope)
        if log is None:
            return []
        segments = log.segments
        low, high = 0, len(segments)
        while low < high:
            middle = (low + high) // 2
            if segments[middle].upto <= version:
                low = middle + 1
            else:
                high = middle
        if version < log.floor and len(segments) > 1:
            return [segments[-1], *segments[:-1]]
        return segments[low:]

    # --- digests ------------------------------------------------------------------------

    def root(self, scopes: Iterable[Scope]) -> int:
        """Return the 128-bit sum over all logs of some scopes."""
        return sum(self._roots.get(scope, 0) for scope in scopes) & _ROOT_MASK

    def buckets(self, scopes: Iterable[Scope]) -> tuple[int, ...]:
        """Return the 64 sums over the logs of some scopes."""
        sums = [0] * BUCKET_COUNT
        for scope in scopes:
            for index, value in enumerate(self._buckets.get(scope, ())):
                sums[index] += value
        return tuple(value & _BUCKET_MASK for value in sums)

    def bucket_versions(self, scopes: Iterable[Scope], bucket: int) -> list[LogVersion]:
        """Return the versions of the logs of some scopes that fall into a bucket."""
        return [
            self.log_version(origin, scope)
            for scope in scopes
            if scope in self._origins
            for origin in self._origins[scope][bucket]
        ]

    def _update_sums(self, origin: NodeId, scope: Scope, log: Log) -> None:
        """Update a log's contribution to the sums."""
        card = self.cards.get(origin)
        epoch = card.epoch if card is not None and scope == CLUSTER_SCOPE else 0
        text = origin + scope.to_bytes(3, "big") + log.version.to_bytes(8, "big")
        digest = hashlib.blake2s(text + epoch.to_bytes(8, "big"), digest_size=16).digest()
        element = int.from_bytes(digest, "big")
        buckets = self._buckets.setdefault(scope, [0] * BUCKET_COUNT)
        index = bucket_of(origin, scope)
        change = element - log.element
        if not log.element:
            if scope not in self._origins:
                self._origins[scope] = [{} for _ in range(BUCKET_COUNT)]
            self._origins[scope][index][origin] = None
        self._roots[scope] = (self._roots.get(scope, 0) + change) & _ROOT_MASK
        buckets[index] = (buckets[index] + change) & _BUCKET_MASK
        log.element = element

    # --- merging ------------------------------------------------------------------------

    def accept_card(self, card: Card) -> bool:
        """Merge a card; return False if one as new is held."""
        known = self.cards.get(card.node_id)
        if known is not None and known.epoch >= card.epoch:
            return False
        self.cards[card.node_id] = card
        log = self._scopes.setdefault(CLUSTER_SCOPE, {}).setdefault(card.node_id, Log())
        self._update_sums(card.node_id, CLUSTER_SCOPE, log)
        return True

    def accept(self, segment: Segment) -> tuple[Acceptance, list[Segment]]:
        """Merge a segment.

        Returns the result and the segments that were applied, in order.
        """
        origin, scope = segment.origin, segment.scope
        if origin not in self.cards:
            return Acceptance.UNKNOWN_ORIGIN, []
        logs = self._scopes.setdefault(scope, {})
        log = logs.get(origin)
        if log is None:
            log = logs[origin] = Log()
        if segment.upto <= log.version:
            return Acceptance.KNOWN, []
        if len(log.segments) >= limits.SEGMENTS_PER_LOG_MAX and segment.floor <= log.floor:
            return Acceptance.FULL, []
        before, floor_before = log.version, log.floor
        if segment.floor > log.version:
            log.continue_from(segment.floor)  # its origin has dropped the segments in between
        is_next = segment.after <= log.version
        if is_next or len(log.early) < limits.EARLY_SEGMENTS_PER_LOG_MAX:
            log.early[segment.after] = segment
        applied = []
        for each in log.take_next():
            log.apply(each, self._journal, self._names.setdefault(scope, EndpointNames()))
            applied.append(each)
        if log.version != before:  # an empty log counts as an unknown one
            self._update_sums(origin, scope, log)
        kinds = {entry.key[0] for each in applied for entry in each.entries}
        if scope == CLUSTER_SCOPE and ("participation" in kinds or log.floor != floor_before):
            self._note_participation(origin, log)
        self._note_surplus(origin, scope, log)
        return (Acceptance.NEW if applied else Acceptance.GAP), applied

    def restore(self, segments: Iterable[Segment]) -> None:
        """Merge the segments from disk, each log in version order.

        The segment of each log that contains its floor is merged first; otherwise all before it
        would be taken for segments beyond a gap, of which few are buffered.
        """
        logs: dict[tuple[NodeId, Scope], list[Segment]] = {}
        for segment in segments:
            logs.setdefault((segment.origin, segment.scope), []).append(segment)
        for kept in logs.values():
            self.accept(max(kept, key=lambda segment: segment.floor))
            for segment in kept:
                self.accept(segment)
        for scope in [scope for _, scope in logs if not self.takes_part(self.self_id, scope)]:
            self.drop_scope(scope)  # dropped since, but still on disk

    def _note_participation(self, origin: NodeId, log: Log) -> None:
        parts = {
            Scope(value.vni): value.forwards
            for value in log.live.values_of("participation")
            if isinstance(value, Participation)
        }
        before = self._participations.get(origin, {})
        if parts == before:
            return
        self._participations[origin] = parts
        for scope in before:
            self._end_participation(origin, scope)
        for scope, forwards in parts.items():
            self.participants.setdefault(scope, {})[origin] = forwards
        if origin == self.self_id:
            for scope in before:
                if scope not in parts:
                    self.drop_scope(scope)

    def _end_participation(self, origin: NodeId, scope: Scope) -> None:
        found = self.participants.get(scope, {})
        found.pop(origin, None)
        if not found:
            self.participants.pop(scope, None)

    def _note_surplus(self, origin: NodeId, scope: Scope, log: Log) -> None:
        if log.live.surplus():
            self._oversized[origin, scope] = None
        else:
            self._oversized.pop((origin, scope), None)

    # --- forgetting ---------------------------------------------------------------------

    def drop_scope(self, scope: Scope) -> None:
        """Drop other nodes' logs in a scope that this node no longer holds."""
        for origin in list(self._scopes.get(scope, {})):
            if origin != self.self_id:
                self._drop(origin, scope)

    def _drop(self, origin: NodeId, scope: Scope) -> None:
        log = self._scopes[scope].pop(origin)
        self._oversized.pop((origin, scope), None)
        for kind in {key[0] for key in log.live}:
            self._journal.note_many(scope, kind)
        for value in log.live.values():
            self._names[scope].replace(value, None)
        buckets = self._buckets.get(scope)
        if buckets is not None:
            index = bucket_of(origin, scope)
            buckets[index] = (buckets[index] - log.element) & _BUCKET_MASK
            self._roots[scope] = (self._roots[scope] - log.element) & _ROOT_MASK


def bucket_of(origin: NodeId, scope: Scope) -> int:
    """Return the bucket of a log.

    Node ids are hashes, so their bits are evenly distributed.
    """
    return (origin[0] ^ (scope * 0x9E3779B1 >> 8)) & (BUCKET_COUNT - 1)
