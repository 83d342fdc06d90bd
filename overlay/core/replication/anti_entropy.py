"""Anti-entropy: find differences by digests, and repair them.

Each probe carries a root digest. Where two roots differ, one side sends 64 bucket digests, the
other answers with the log versions in the buckets that differ, and the first then pulls what it
lacks and sends what the other lacks. Owns: the exchanges in progress, their bounds and pace.

Exchanging digests and sending what the other side lacks follows Scuttlebutt (van Renesse,
Dumitriu, Gough, Thomas: "Efficient Reconciliation and Flow Control for Anti-Entropy Protocols",
LADIS 2008).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from overlay import limits
from overlay.core.log.store import BUCKET_COUNT, Store
from overlay.core.protocol.messages import Buckets, LogVersion, Pull, Versions
from overlay.core.protocol.outbox import (
    LOG_VERSIONS_PER_MESSAGE,
    Outbox,
    Priority,
    card_messages,
    deltas,
    pages,
)
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope, Segment
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import Card, NodeId

DATAGRAMS_PER_PULL = 32  # limit of one Pull: 38 kB, well within any socket buffer
_PULL_RETRY_S = 0.1  # without any answer
_PULL_QUIET_S = 0.02  # after the last datagram of an answer: the rest of it is lost
_PULL_AGAIN_SHARE = 2 / 3  # of a pull's logs complete before the next pull is sent
# Or this much of long logs has come: nearly all that a pull brings, because what is still in
# transit would be sent twice. Datagrams are rarely filled to more than nine tenths.
_PULL_AGAIN_SIZE = int(0.7 * DATAGRAMS_PER_PULL * limits.PAYLOAD_SIZE_MAX)

_LogKey = tuple[NodeId, Scope]


@dataclass(slots=True)
class _Exchange:
    peer: NodeId
    begun_at: float
    progress_at: float
    wanted: dict[_LogKey, LogVersion] = field(default_factory=dict)
    asked_count: int = 0
    got_count: int = 0
    got_size: int = 0
    pull_due: float | None = None
    ask_due: float | None = None  # no Versions yet: the Buckets or the answer may be lost
    # One side does not know a scope that both hold: its logs were not compared.
    is_partial: bool = False


class AntiEntropy:
    """The exchanges that make this node and its peers equal."""

    def __init__(self, store: Store, outbox: Outbox, settings: ProtocolSettings) -> None:
        self._store = store
        self._outbox = outbox
        self._settings = settings
        self._exchanges: dict[NodeId, _Exchange] = {}
        self.matched: set[NodeId] = set()  # peers whose logs have all come since the start
        self.equal_at: dict[NodeId, float] = {}  # when a peer's digest was last equal

    def root_of(self, peer: NodeId) -> int:
        """Return the digest of the logs that this node and a peer both hold."""
        return self._store.root(self._store.common_scopes(peer))

    def under_way(self, peer: NodeId) -> bool:
        """Return whether an exchange with a peer is in progress."""
        return peer in self._exchanges

    def origin_version(self, origin: NodeId, scope: Scope) -> int:
        """Return the newest known version of a log, whether it is held or not."""
        log = (origin, scope)
        wanted = [exchange.wanted.get(log) for exchange in self._exchanges.values()]
        heard = [item.version for item in wanted if item is not None]
        held = self._store.log(*log)
        if held is not None:
            heard += [held.version, *(segment.upto for segment in held.early.values())]
        return max(heard, default=0)

    def has_room(self) -> bool:
        """Return whether another exchange may begin."""
        return len(self._exchanges) < self._settings.repairs_in_flight

    # --- begin --------------------------------------------------------------------------

    def compare(self, peer: NodeId, root: int, now: float) -> None:
        """Begin an exchange if a peer's root differs.

        Only if there is room, or an exchange that has had its turn.
        """
        if root == self.root_of(peer):
            self.matched.add(peer)
            self.equal_at[peer] = now
            self._exchanges.pop(peer, None)
            return
        if peer in self._exchanges:
            return
        if not self.has_room():
            oldest = min(self._exchanges.values(), key=lambda exchange: exchange.begun_at)
            if now < oldest.begun_at + self._settings.repair_turn_s:
                return
            del self._exchanges[oldest.peer]
        self.begin(peer, now)

    def begin(self, peer: NodeId, now: float) -> None:
        """Send this node's bucket digests to a peer."""
        self._ask(_Exchange(peer, now, now), now)

    def _ask(self, exchange: _Exchange, now: float) -> None:
        peer = exchange.peer
        self._exchanges[peer] = exchange
        exchange.ask_due = now + self._settings.repair_retry_s
        sums = self._store.buckets(self._store.common_scopes(peer))
        self._outbox.put(peer, Buckets(sums), Priority.REPAIR)

    def receive_buckets(self, message: Buckets, sender: NodeId) -> None:
        """Answer with the versions in the buckets that differ."""
        scopes = self._store.common_scopes(sender)
        own = self._store.buckets(scopes)
        differing = [i for i in range(BUCKET_COUNT) if own[i] != message.digests[i]]
        found = {bucket: self._store.bucket_versions(scopes, bucket) for bucket in differing}
        complete: list[int] = []
        batch: list[LogVersion] = []
        for bucket, versions in found.items():
            if len(versions) > LOG_VERSIONS_PER_MESSAGE:
                for page in pages(versions):
                    self._outbox.put(sender, Versions((), page, answer=True), Priority.REPAIR)
                continue
            if len(batch) + len(versions) > LOG_VERSIONS_PER_MESSAGE:
                self._answer(sender, complete, batch)
                complete, batch = [], []
            complete.append(bucket)
            batch += versions
        if complete or not differing:
            self._answer(sender, complete, batch)

    def _answer(self, peer: NodeId, complete: list[int], batch: list[LogVersion]) -> None:
        self._outbox.put(
            peer, Versions(tuple(complete), tuple(batch), answer=True), Priority.REPAIR
        )

    # --- repair ---------------------------------------------------------------------------

    def receive_versions(self, message: Versions, sender: NodeId, now: float) -> None:
        """Pull what this node lacks, and send what the peer lacks."""
        exchange = self._exchanges.get(sender)
        scopes = set(self._store.common_scopes(sender))
        listed: set[_LogKey] = set()
        sending: list[Segment] = []
        cards: list[Card] = []
        for theirs in message.versions:
            log = (theirs.origin, theirs.scope)
            if theirs.scope not in scopes:
                if exchange is not None:
                    exchange.is_partial = True
                continue
            listed.add(log)
            ours = self._store.log_version(*log)
            card = self._store.card(theirs.origin)
            ahead = theirs.version > ours.version or theirs.epoch > ours.epoch
            if exchange is not None and (card is None or ahead):
                exchange.wanted[log] = theirs
            if card is not None and card.epoch > theirs.epoch:
                cards.append(card)
            if ours.version > theirs.version:
                sending += self._store.segments_beyond(*log, theirs.version)
                self._note_outdated_peer(exchange, log)
        lacking = self._unlisted(set(message.complete_buckets), sorted(scopes), listed)
        for log in lacking:
            card = self._store.card(log[0])
            if card is not None:
                cards.append(card)
            sending += self._store.segments_beyond(*log, 0)
            self._note_outdated_peer(exchange, log)
        self._send(sender, cards, sending)
        if exchange is None:
            return
        exchange.progress_at = now
        exchange.ask_due = None
        if exchange.wanted and exchange.pull_due is None:
            self._pull(exchange, now)
        elif not exchange.wanted:
            self._end(exchange)

    def _note_outdated_peer(self, exchange: _Exchange | None, log: _LogKey) -> None:
        """Note whether a peer lacks this node's newest participations.

        Then it has not listed the logs of those scopes.
        """
        if exchange is not None and log == (self._store.self_id, CLUSTER_SCOPE):
            exchange.is_partial = True

    def _unlisted(
        self, complete: set[int], scopes: list[Scope], listed: set[_LogKey]
    ) -> list[_LogKey]:
        """Return the logs that the peer lacks altogether."""
        if not complete:
            return []
        return [
            (version.origin, version.scope)
            for bucket in sorted(complete)
            for version in self._store.bucket_versions(scopes, bucket)
            if (version.origin, version.scope) not in listed
        ]

    def receive_pull(self, message: Pull, sender: NodeId) -> None:
        """Send the requested segments, up to the limit of one Pull."""
        scopes = set(self._store.common_scopes(sender))
        segments: list[Segment] = []
        cards: list[Card] = []
        for want in message.wants:
            if want.scope not in scopes:
                continue
            card = self._store.card(want.origin)
            # Version 0 may mean that the peer lacks even the card.
            if card is not None and (card.epoch > want.epoch or want.version == 0):
                cards.append(card)
            segments += self._store.segments_beyond(want.origin, want.scope, want.version)
        self._send(sender, cards, segments)

    def _send(self, peer: NodeId, cards: Iterable[Card], segments: list[Segment]) -> None:
        """Send cards first: a log requires the card of its origin."""
        by_id = {card.node_id: card for card in cards}
        for count, cards_message in enumerate(card_messages(by_id.values())):
            if count < DATAGRAMS_PER_PULL:
                self._outbox.put(peer, cards_message, Priority.REPAIR)
        for count, message in enumerate(deltas(segments)):
            if count >= DATAGRAMS_PER_PULL:
                break
            self._outbox.put(peer, message, Priority.REPAIR)

    def _pull(self, exchange: _Exchange, now: float) -> None:
        wants: list[LogVersion] = []
        for origin, scope in list(exchange.wanted)[:LOG_VERSIONS_PER_MESSAGE]:
            card = self._store.card(origin)
            epoch = 0 if card is None else card.epoch
            wants.append(LogVersion(origin, scope, self._store.version(origin, scope), epoch))
        exchange.asked_count = max(1, int(_PULL_AGAIN_SHARE * len(wants)))
        exchange.got_count = exchange.got_size = 0
        exchange.pull_due = now + _PULL_RETRY_S
        self._outbox.put(exchange.peer, Pull(tuple(wants)), Priority.REPAIR)

    def segment_received(self, log: _LogKey, size: int, sender: NodeId, now: float) -> None:
        """Note that a peer's message advanced a log or renewed a card.

        `size` is the number of bytes by which the log advanced.
        """
        exchange = self._exchanges.get(sender)
        if exchange is None:
            return
        want = exchange.wanted.get(log)
        if want is None:
            return
        exchange.progress_at = now
        exchange.got_size += size
        exchange.pull_due = now + _PULL_QUIET_S
        ours = self._store.log_version(*log)
        if ours.version >= want.version and ours.epoch >= want.epoch:
            del exchange.wanted[log]
            exchange.got_count += 1
        if not exchange.wanted:
            # Equal as far as known then; compare again at once, there may be more.
            self._end(exchange)
            self._ask(_Exchange(sender, exchange.begun_at, now), now)
        elif exchange.got_count >= exchange.asked_count or exchange.got_size >= _PULL_AGAIN_SIZE:
            self._pull(exchange, now)

    def _end(self, exchange: _Exchange) -> None:
        """Note that all that a peer listed is held here."""
        self._exchanges.pop(exchange.peer, None)
        if not exchange.is_partial:
            self.matched.add(exchange.peer)

    # --- time ---------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when something is due to be repeated or given up."""
        if not self._exchanges:
            return None
        timeout_s = self._settings.repair_timeout_s
        due = [exchange.progress_at + timeout_s for exchange in self._exchanges.values()]
        due += [r.pull_due for r in self._exchanges.values() if r.pull_due is not None]
        due += [r.ask_due for r in self._exchanges.values() if r.ask_due is not None]
        return min(due, default=None)

    def handle_timer(self, now: float) -> None:
        """Repeat lost messages; end exchanges without progress."""
        for peer, exchange in list(self._exchanges.items()):
            if now >= exchange.progress_at + self._settings.repair_timeout_s:
                del self._exchanges[peer]
            elif exchange.pull_due is not None and now >= exchange.pull_due:
                self._pull(exchange, now)
            elif exchange.ask_due is not None and now >= exchange.ask_due:
                self._ask(exchange, now)

    def forget(self, node_id: NodeId) -> None:
        """Drop the state of a peer."""
        self._exchanges.pop(node_id, None)
        self.matched.discard(node_id)
        self.equal_at.pop(node_id, None)
