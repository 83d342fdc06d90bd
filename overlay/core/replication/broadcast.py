"""Broadcast new segments: directly by the author, then by gossip.

Owns: where a segment is sent, how often and when. Up to `push_direct_max` interested peers, the
author sends to each of them. Beyond that, segments spread by gossip with a bounded number of
transmissions (SWIM section 4.1); the size of a round follows the queue, because a fixed budget
would cap what a whole cluster can change. Anti-entropy repairs what gossip misses.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from overlay import limits
from overlay.core.log.store import Store
from overlay.core.membership.broadcast_queue import transmission_count
from overlay.core.membership.machine import Membership
from overlay.core.protocol.messages import Cards, Delta
from overlay.core.protocol.outbox import Outbox, Priority, deltas
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, Scope, Segment
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import NodeId

_ROUND_SEGMENTS_MIN = 16


@dataclass(slots=True)
class _Item:
    segment: Segment
    left: int  # remaining transmissions
    own: bool


class Broadcast:
    """The queue of segments to send."""

    def __init__(
        self,
        store: Store,
        membership: Membership,
        outbox: Outbox,
        settings: ProtocolSettings,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._membership = membership
        self._outbox = outbox
        self._settings = settings
        self._rng = rng
        self._news: deque[_Item] = deque(maxlen=limits.NEWS_MAX)
        self._due = 0.0
        self._again: deque[tuple[float, list[NodeId], Delta]] = deque(maxlen=limits.NEWS_MAX)

    def interested(self, scope: Scope) -> list[NodeId]:
        """Return the live members that hold a scope, in a reproducible order."""
        live = self._membership.live()
        if scope == CLUSTER_SCOPE:
            return live
        part = self._store.participants.get(scope, {})
        return [node_id for node_id in live if node_id in part]

    def publish(
        self,
        segments: list[Segment],
        now: float,
        skip: Mapping[Scope, Collection[NodeId]] = MappingProxyType({}),
    ) -> None:
        """Send own segments to all interested members, directly or by gossip.

        `skip` are those of each scope that have them otherwise, where they are sent directly.
        """
        by_scope: dict[Scope, list[Segment]] = {}
        for segment in segments:
            by_scope.setdefault(segment.scope, []).append(segment)
        for scope, batch in by_scope.items():
            peers = self.interested(scope)
            if len(peers) > self._settings.push_direct_max:
                for segment in reversed(batch):  # each goes to the front of the queue
                    self._add(segment, len(peers), own=True)
                self._due = now
                peers = self._new_peers(batch)
            peers = [peer for peer in peers if peer not in skip.get(scope, ())]
            for message in deltas(batch) if peers else ():
                for peer in peers:
                    self._outbox.put(peer, message, Priority.OWN)
                self._again.append((now + self._settings.push_repeat_s, peers, message))

    def _new_peers(self, batch: list[Segment]) -> list[NodeId]:
        """Return holders of the scopes that this node begins to participate in.

        They must learn of it at once, with this node's card: what they have is needed here.
        """
        part = [entry.value for segment in batch for entry in segment.entries]
        scopes = [Scope(value.vni) for value in part if isinstance(value, Participation)]
        holders = dict.fromkeys(peer for scope in scopes for peer in self.interested(scope))
        peers = list(holders)
        if len(peers) > self._settings.push_direct_max:
            peers = self._rng.sample(peers, self._settings.push_direct_max)
        for peer in peers:
            self._outbox.put(peer, Cards((self._store.cards[self._store.self_id],)), Priority.OWN)
        return peers

    def relay(self, segment: Segment, now: float) -> None:
        """Gossip a received segment, if its author could not send it to all."""
        peers = len(self.interested(segment.scope))
        if peers > self._settings.push_direct_max:
            if not self._news:
                self._due = now + self._rng.random() * self._settings.push_interval_s
            self._add(segment, peers, own=False)

    def _add(self, segment: Segment, peers: int, *, own: bool) -> None:
        times = transmission_count(peers + 1, self._membership.loss, self._settings)
        news = _Item(segment, times, own)
        if own:
            self._news.appendleft(news)
        else:
            self._news.append(news)

    def next_timer(self) -> float | None:
        """Return when the next round is due."""
        rounds = self._due if self._news else None
        repeat = self._again[0][0] if self._again else None
        return min((due for due in (rounds, repeat) if due is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Repeat direct sends, and send one gossip round."""
        while self._again and self._again[0][0] <= now:
            _, peers, message = self._again.popleft()
            for peer in peers:
                self._outbox.put(peer, message, Priority.RELAYED)
        if not self._news or now < self._due:
            return
        self._due = now + self._settings.push_interval_s
        fanout = self._settings.push_fanout
        size = max(_ROUND_SEGMENTS_MIN, len(self._news) // 4)
        batch = [self._news.popleft() for _ in range(min(size, len(self._news)))]
        by_scope: dict[Scope, list[_Item]] = {}
        for news in batch:
            by_scope.setdefault(news.segment.scope, []).append(news)
        for scope, items in by_scope.items():
            for peer in self._draw(scope, fanout):
                segments = [item.segment for item in items]
                self._outbox.put_segments(peer, segments, Priority.RELAYED)
        for news in batch:
            news.left -= fanout
            if news.left > 0:
                self._news.append(news)

    def _draw(self, scope: Scope, count: int) -> list[NodeId]:
        if scope == CLUSTER_SCOPE:
            return self._membership.choose(count)
        peers = self.interested(scope)
        return peers if len(peers) <= count else self._rng.sample(peers, count)
