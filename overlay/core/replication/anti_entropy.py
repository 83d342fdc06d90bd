"""Finding and closing differences: root, buckets, versions, what is missing.

A root digest rides on every probe. Where two roots differ, one side sends 64 bucket digests, the
other answers with the log versions of the buckets that differ, and the first then pulls what
it lacks and sends what the other lacks. Owns: the repairs under way, their bounds and pace.

The idea of exchanging digests and sending what the other's lacks is Scuttlebutt's (van
Renesse, Dumitriu, Gough, Thomas: "Efficient Reconciliation and Flow Control for Anti-Entropy
Protocols", LADIS 2008).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from overlay import limits
from overlay.core.log.store import BUCKET_COUNT, Store
from overlay.core.protocol.messages import Buckets, LogVersion, Pull, Versions
from overlay.core.protocol.outbox import Outbox, Priority
from overlay.core.protocol.packer import LOG_VERSIONS_PER_MESSAGE, card_messages, deltas, pages
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope, Segment
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import Card, NodeId

DATAGRAMS_PER_PULL = 32  # what one Pull may ask for: 38 kB, well within any socket buffer
_PULL_RETRY_S = 0.1  # without any answer
_PULL_QUIET_S = 0.02  # after the last datagram of an answer: the rest of it is lost
_PULL_AGAIN_SHARE = 2 / 3  # of a pull's logs that are complete when the next is sent
# Or so much has come of long logs: nearly all that a pull brings, for what is still on its way
# would be sent twice. Datagrams are rarely filled to more than nine tenths.
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
    ask_due: float | None = None  # no Versions yet: the question or its answer may be lost
    # One of the two does not know of a scope that they have in common: its logs were not compared.
    is_partial: bool = False


class AntiEntropy:
    """The exchanges by which this node and others become equal."""

    def __init__(self, store: Store, outbox: Outbox, settings: ProtocolSettings) -> None:
        self._store = store
        self._outbox = outbox
        self._settings = settings
        self._repairs: dict[NodeId, _Exchange] = {}
        self.matched: set[NodeId] = set()  # peers of whom we have had all since the start
        self.equal_at: dict[NodeId, float] = {}  # when a peer's digest was last the same as ours

    def root_of(self, peer: NodeId) -> int:
        """Return the digest of all that this node and a peer both hold."""
        return self._store.root(self._store.common_scopes(peer))

    def under_way(self, peer: NodeId) -> bool:
        """Say whether what a peer sends now belongs to a repair."""
        return peer in self._repairs

    def origin_version(self, origin: NodeId, scope: Scope) -> int:
        """Return the newest version of a log that anyone has told us of, held or not."""
        log = (origin, scope)
        wanted = [repair.wanted.get(log) for repair in self._repairs.values()]
        heard = [item.version for item in wanted if item is not None]
        held = self._store.log(*log)
        if held is not None:
            heard += [held.version, *(segment.upto for segment in held.early.values())]
        return max(heard, default=0)

    def has_room(self) -> bool:
        """Say whether one more repair may run."""
        return len(self._repairs) < self._settings.repairs_in_flight

    # --- beginning ----------------------------------------------------------------------

    def compare(self, peer: NodeId, root: int, now: float) -> None:
        """Begin a repair if a peer's root differs from ours, and there is room for one, or one
        that has had its turn."""
        if root == self.root_of(peer):
            self.matched.add(peer)
            self.equal_at[peer] = now
            self._repairs.pop(peer, None)
            return
        if peer in self._repairs:
            return
        if not self.has_room():
            oldest = min(self._repairs.values(), key=lambda repair: repair.begun_at)
            if now < oldest.begun_at + self._settings.repair_turn_s:
                return
            del self._repairs[oldest.peer]
        self.begin(peer, now)

    def begin(self, peer: NodeId, now: float) -> None:
        """Send our bucket digests to a peer."""
        self._ask(_Exchange(peer, now, now), now)

    def _ask(self, repair: _Exchange, now: float) -> None:
        peer = repair.peer
        self._repairs[peer] = repair
        repair.ask_due = now + self._settings.repair_retry_s
        sums = self._store.buckets(self._store.common_scopes(peer))
        self._outbox.put(peer, Buckets(sums), Priority.REPAIR)

    def receive_buckets(self, message: Buckets, sender: NodeId) -> None:
        """Answer with our versions in the buckets that differ, or that none does."""
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

    # --- closing ------------------------------------------------------------------------

    def receive_versions(self, message: Versions, sender: NodeId, now: float) -> None:
        """Pull what we lack and send what the other lacks."""
        repair = self._repairs.get(sender)
        scopes = set(self._store.common_scopes(sender))
        listed: set[_LogKey] = set()
        sending: list[Segment] = []
        cards: list[Card] = []
        for theirs in message.versions:
            log = (theirs.origin, theirs.scope)
            if theirs.scope not in scopes:
                if repair is not None:
                    repair.is_partial = True
                continue
            listed.add(log)
            ours = self._store.log_version(*log)
            card = self._store.card(theirs.origin)
            ahead = theirs.version > ours.version or theirs.epoch > ours.epoch
            if repair is not None and (card is None or ahead):
                repair.wanted[log] = theirs
            if card is not None and card.epoch > theirs.epoch:
                cards.append(card)
            if ours.version > theirs.version:
                sending += self._store.segments_beyond(*log, theirs.version)
                self._note_outdated_peer(repair, log)
        lacking = self._unlisted(set(message.complete_buckets), sorted(scopes), listed)
        for log in lacking:
            card = self._store.card(log[0])
            if card is not None:
                cards.append(card)
            sending += self._store.segments_beyond(*log, 0)
            self._note_outdated_peer(repair, log)
        self._send(sender, cards, sending)
        if repair is None:
            return
        repair.progress_at = now
        repair.ask_due = None
        if repair.wanted and repair.pull_due is None:
            self._pull(repair, now)
        elif not repair.wanted:
            self._end(repair)

    def _note_outdated_peer(self, repair: _Exchange | None, log: _LogKey) -> None:
        """Who lacks our newest participations has not listed the logs of those scopes."""
        if repair is not None and log == (self._store.self_id, CLUSTER_SCOPE):
            repair.is_partial = True

    def _unlisted(
        self, complete: set[int], scopes: list[Scope], listed: set[_LogKey]
    ) -> list[_LogKey]:
        """Return the logs that the other lacks altogether."""
        if not complete:
            return []
        return [
            (version.origin, version.scope)
            for bucket in sorted(complete)
            for version in self._store.bucket_versions(scopes, bucket)
            if (version.origin, version.scope) not in listed
        ]

    def receive_pull(self, message: Pull, sender: NodeId) -> None:
        """Send what is asked for, as far as one Pull may ask."""
        scopes = set(self._store.common_scopes(sender))
        segments: list[Segment] = []
        cards: list[Card] = []
        for want in message.wants:
            if want.scope not in scopes:
                continue
            card = self._store.card(want.origin)
            # Version 0 may mean that the asker lacks even the card.
            if card is not None and (card.epoch > want.epoch or want.version == 0):
                cards.append(card)
            segments += self._store.segments_beyond(want.origin, want.scope, want.version)
        self._send(sender, cards, segments)

    def _send(self, peer: NodeId, cards: Iterable[Card], segments: list[Segment]) -> None:
        """Cards first: a log is taken only from an origin whose card is known."""
        by_id = {card.node_id: card for card in cards}
        for count, cards_message in enumerate(card_messages(by_id.values())):
            if count < DATAGRAMS_PER_PULL:
                self._outbox.put(peer, cards_message, Priority.REPAIR)
        for count, message in enumerate(deltas(segments)):
            if count >= DATAGRAMS_PER_PULL:
                break
            self._outbox.put(peer, message, Priority.REPAIR)

    def _pull(self, repair: _Exchange, now: float) -> None:
        wants: list[LogVersion] = []
        for origin, scope in list(repair.wanted)[:LOG_VERSIONS_PER_MESSAGE]:
            card = self._store.card(origin)
            epoch = 0 if card is None else card.epoch
            wants.append(LogVersion(origin, scope, self._store.version(origin, scope), epoch))
        repair.asked_count = max(1, int(_PULL_AGAIN_SHARE * len(wants)))
        repair.got_count = repair.got_size = 0
        repair.pull_due = now + _PULL_RETRY_S
        self._outbox.put(repair.peer, Pull(tuple(wants)), Priority.REPAIR)

    def segment_received(self, log: _LogKey, size: int, sender: NodeId, now: float) -> None:
        """Note that a log advanced by `size` bytes, or a card was renewed, by what a peer sent."""
        repair = self._repairs.get(sender)
        if repair is None:
            return
        want = repair.wanted.get(log)
        if want is None:
            return
        repair.progress_at = now
        repair.got_size += size
        repair.pull_due = now + _PULL_QUIET_S
        ours = self._store.log_version(*log)
        if ours.version >= want.version and ours.epoch >= want.epoch:
            del repair.wanted[log]
            repair.got_count += 1
        if not repair.wanted:
            # Equal as far as was known then; look again at once, there may be more.
            self._end(repair)
            self._ask(_Exchange(sender, repair.begun_at, now), now)
        elif repair.got_count >= repair.asked_count or repair.got_size >= _PULL_AGAIN_SIZE:
            self._pull(repair, now)

    def _end(self, repair: _Exchange) -> None:
        """Note that all that a peer listed is here."""
        self._repairs.pop(repair.peer, None)
        if not repair.is_partial:
            self.matched.add(repair.peer)

    # --- time ---------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when something is to be repeated or a repair given up."""
        if not self._repairs:
            return None
        timeout_s = self._settings.repair_timeout_s
        due = [repair.progress_at + timeout_s for repair in self._repairs.values()]
        due += [r.pull_due for r in self._repairs.values() if r.pull_due is not None]
        due += [r.ask_due for r in self._repairs.values() if r.ask_due is not None]
        return min(due, default=None)

    def handle_timer(self, now: float) -> None:
        """Repeat what lost something on its way; give up repairs without progress."""
        for peer, repair in list(self._repairs.items()):
            if now >= repair.progress_at + self._settings.repair_timeout_s:
                del self._repairs[peer]
            elif repair.pull_due is not None and now >= repair.pull_due:
                self._pull(repair, now)
            elif repair.ask_due is not None and now >= repair.ask_due:
                self._ask(repair, now)

    def forget(self, node_id: NodeId) -> None:
        """Give up on a peer."""
        self._repairs.pop(node_id, None)
        self.matched.discard(node_id)
        self.equal_at.pop(node_id, None)
