"""One node's protocol machine, which agent and simulator drive.

Owns: how messages, timers and local writes reach the parts, and the order of messages and events.
Sans-IO: time and randomness are arguments, messages and events are drained. Signatures are
verified only for what would change something.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence

from overlay import limits
from overlay.core.events import (
    CardAccepted,
    ConfirmRequested,
    Event,
    InitialSyncDone,
    MemberChanged,
    NodeForgotten,
    OwnEndpointsWithdrawn,
    OwnLogAhead,
    SegmentAccepted,
    StoreChanged,
    event_of,
)
from overlay.core.log.store import Acceptance, Store
from overlay.core.log.writer import LogWriter
from overlay.core.membership.machine import Membership
from overlay.core.protocol.interfaces import Codec, Signer
from overlay.core.protocol.messages import (
    Ack,
    Buckets,
    Cards,
    Confirm,
    Delta,
    MemberState,
    Message,
    Nack,
    Ping,
    PingRequest,
    Pull,
    Rumours,
    Versions,
)
from overlay.core.protocol.outbox import Outbox, Priority
from overlay.core.protocol.records import CLUSTER_SCOPE, ForgottenNode, Key, Scope, Segment, Value
from overlay.core.protocol.settings import ProtocolSettings
from overlay.core.replication.anti_entropy import AntiEntropy
from overlay.core.replication.broadcast import Broadcast
from overlay.core.replication.card_intake import BAD_SIGNATURE, EPOCH_SHIFT, CardIntake
from overlay.core.replication.confirmations import Confirmations
from overlay.core.replication.initial_sync import WITNESS_COUNT, InitialSync
from overlay.core.replication.scope_sync import ScopeSync
from overlay.core.replication.segment_policy import counted_declarations, violates_forget_rules
from overlay.errors import RemoteError
from overlay.model import Card, Endpoint, NodeId

_GONE = frozenset({MemberState.DEAD, MemberState.LEFT})
UNKNOWN_ORIGIN = "unknown-origin"
FORGOTTEN = "forgotten-origin"
LOG_FULL = "log-full"
LIVE_NODE_FORGOTTEN = "living-node-forgotten"


class Node:
    """One member of a cluster, without input or output."""

    def __init__(
        self,
        card: Card,
        signer: Signer,
        codec: Codec,
        random: random.Random,
        settings: ProtocolSettings,
        now: float,
    ) -> None:
        self.card = card
        self._signer = signer
        self._settings = settings
        self._started = now
        self._events: deque[Event] = deque(maxlen=limits.EVENT_QUEUE_MAX)
        self._forgotten: set[NodeId] = set()
        self.last_contact_at: float | None = None  # any peer; if old, seeds are contacted again
        self.outbox = Outbox(codec)
        self.store = Store(card.node_id)
        self.store.accept_card(card)
        self._writer = LogWriter(self.store, signer)
        self.anti_entropy = AntiEntropy(self.store, self.outbox, settings)
        self.membership = Membership(
            card.node_id,
            card.epoch << EPOCH_SHIFT,
            settings,
            random,
            self.outbox,
            root_of=self.anti_entropy.root_of,
            now=now,
        )
        self._cards = CardIntake(self.store, self.membership, signer, self._forgotten, self._emit)
        self._broadcast = Broadcast(self.store, self.membership, self.outbox, settings, random)
        self.confirmations = Confirmations(self.store, self.outbox, settings)
        self.scopes = ScopeSync(self.store, self.membership, self.anti_entropy, settings, random)
        self._initial_sync = InitialSync(
            self.store,
            self.membership,
            self.anti_entropy,
            self.scopes,
            self._forgotten,
            settings,
            now,
        )

    def restore(self, cards: Iterable[Card], segments: Iterable[Segment], now: float) -> None:
        """Restore verified cards and segments from disk; call this first."""
        for card in cards:
            if card.node_id != self.card.node_id and self.store.accept_card(card):
                self._cards.admit(card, now)
        self.store.restore(segments)
        for _, value in list(self.store.values(CLUSTER_SCOPE, "forgotten")):
            if isinstance(value, ForgottenNode):
                self._ban(value.node_id, now)
        for scope in self.store.common_scopes(self.card.node_id)[1:]:
            self.scopes.begin(scope, WITNESS_COUNT, now)

    # --- in -----------------------------------------------------------------------------

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        """Handle one authenticated message; raises RemoteError if it is dropped."""
        if sender in self._forgotten:
            raise RemoteError(FORGOTTEN)
        self.last_contact_at = now
        match message:
            case Ping(root=root):
                self.membership.receive_ping(message, sender, now)
                self.anti_entropy.compare(sender, root, now)
            case Ack(root=root):
                self.membership.receive_ack(message, sender, now)
                # A relayed Ack carries the relay's digest: that of the sender, again.
                self.anti_entropy.compare(sender, root, now)
            case PingRequest():
                self.membership.receive_ping_request(message, sender, now)
            case Nack():
                self.membership.receive_nack(message, sender, now)
            case Rumours():
                self.membership.receive_rumours(message, sender, now)
            case Cards():
                self._receive_cards(message, sender, now)
            case Delta():
                self._receive_delta(message, sender, now)
            case Buckets():
                self.anti_entropy.receive_buckets(message, sender)
            case Versions():
                self.anti_entropy.receive_versions(message, sender, now)
            case Pull():
                self.anti_entropy.receive_pull(message, sender)
            case Confirm():
                self.confirmations.receive(message, sender)
            case _:
                self._emit(event_of(message, sender))

    def _receive_cards(self, message: Cards, sender: NodeId, now: float) -> None:
        for card in message.cards:
            self._cards.handle_card(card, now)
            self.anti_entropy.segment_received(
                (card.node_id, CLUSTER_SCOPE), len(card.raw), sender, now
            )

    def _receive_delta(self, message: Delta, sender: NodeId, now: float) -> None:
        bad: RemoteError | None = None
        for segment in message.segments:
            log = (segment.origin, segment.scope)
            before = self.store.version(*log)
            try:
                self._receive_segment(segment, sender, now)
            except RemoteError as error:
                bad = error
                continue
            held = self.store.version(*log)
            if (
                message.confirm
                and held >= segment.upto
                and self.confirmations.handle_request(segment, sender)
            ):
                self._emit(ConfirmRequested(segment.scope))
            self.anti_entropy.segment_received(
                log, len(segment.raw) if held > before else 0, sender, now
            )
        if bad is not None:
            raise bad

    def _receive_segment(self, segment: Segment, sender: NodeId, now: float) -> None:
        origin, scope = segment.origin, segment.scope
        if not self.store.takes_part(self.card.node_id, scope):
            return
        if self.store.version(origin, scope) >= segment.upto:
            return
        card = self.store.card(origin)
        if card is None:
            if sender not in self._forgotten and not self.anti_entropy.under_way(sender):
                self.anti_entropy.begin(sender, now)
            raise RemoteError(UNKNOWN_ORIGIN)
        if not self._signer.verify_segment(segment, card):
            raise RemoteError(BAD_SIGNATURE)
        if violates_forget_rules(segment, self._forgotten, self.membership, self._signer, now):
            raise RemoteError(LIVE_NODE_FORGOTTEN)
        own = [*self._own_endpoints(scope)] if self._is_own(segment) else []
        held = self.store.common_scopes(self.card.node_id) if self._is_own(segment) else []
        verdict, applied = self.store.accept(segment)
        if self._is_own(segment):
            self._begin_scopes_beyond(held, now)
            left = {each.endpoint_id for each in self._own_endpoints(scope)}
            if gone := tuple(each for each in own if each.endpoint_id not in left):
                self._emit(OwnEndpointsWithdrawn(gone))
        if verdict is Acceptance.FULL:
            raise RemoteError(LOG_FULL)
        if verdict is Acceptance.GAP and not self.anti_entropy.under_way(sender):
            self.anti_entropy.begin(sender, now)
        for one in applied:
            self._applied(one, sender, now)

    def _is_own(self, segment: Segment) -> bool:
        return segment.origin == self.card.node_id

    def _own_endpoints(self, scope: Scope) -> Iterator[Endpoint]:
        values = self.store.values_of(self.card.node_id, scope, "endpoint")
        return (value for value in values if isinstance(value, Endpoint))

    def _begin_scopes_beyond(self, held: Collection[Scope], now: float) -> None:
        """Sync the scopes that this disk did not know of: peers sent the participation again."""
        for scope in self.store.common_scopes(self.card.node_id):
            if scope not in held and scope != CLUSTER_SCOPE:
                self.scopes.begin(scope, WITNESS_COUNT, now)

    def _applied(self, segment: Segment, sender: NodeId, now: float) -> None:
        self._emit(SegmentAccepted(segment))
        keys = tuple(entry.key for entry in segment.entries)
        self._emit(StoreChanged(segment.origin, segment.scope, keys))
        if segment.origin == self.card.node_id:
            self._emit(OwnLogAhead(segment.scope, segment.upto))
        if not self.anti_entropy.under_way(sender):
            self._broadcast.relay(segment, now)
        for node_id in counted_declarations(segment, self.store, self._signer):
            self._ban(node_id, now)

    def _ban(self, node_id: NodeId, now: float) -> None:
        if node_id in self._forgotten or node_id == self.card.node_id:
            return
        self._forgotten.add(node_id)
        self.membership.remove(node_id, now)
        self.anti_entropy.forget(node_id)
        self.confirmations.forget_node(node_id)
        self._emit(NodeForgotten(node_id))

    # --- time ---------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due, on the clock of `now`."""
        due = (
            self.membership.next_timer(),
            self._broadcast.next_timer(),
            self.anti_entropy.next_timer(),
            self.confirmations.next_timer(),
            self.scopes.next_timer(),
            self._initial_sync.next_timer(),
        )
        return min((when for when in due if when is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Run all timers that are due."""
        self.membership.handle_timer(now)
        self._broadcast.handle_timer(now)
        self.anti_entropy.handle_timer(now)
        self.confirmations.handle_timer(now)
        self.scopes.handle_timer(now)
        if self._initial_sync.handle_timer(now):
            self._emit(InitialSyncDone())

    def observe_lag(self, lag_s: float, now: float) -> None:
        """Note that this node's event loop ran late."""
        self.membership.observe_lag(lag_s, now)

    # --- out ----------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """Return the next event, oldest first; None if there is none."""
        for event in self.membership.drain_events():
            # Not for a suspicion: most are refuted, and the member would have been left out
            # without notice. The wait is bounded, and members that have not confirmed by then are
            # named.
            if isinstance(event, MemberChanged) and event.after in _GONE:
                self.confirmations.forget_node(event.node_id)
            self._emit(event)
        return self._events.popleft() if self._events else None

    def _emit(self, event: Event) -> None:
        self._events.append(event)

    # --- calls by the owner -------------------------------------------------------------

    def add_peer(self, card: Card, now: float) -> None:
        """Add a node that authenticated in a handshake; sync with a new one.

        With a known one, the next probe shows whether there are differences.
        """
        known = self.store.card(card.node_id)
        self._cards.handle_card(card, now)
        if known is not None and known.epoch >= card.epoch and known.raw != card.raw:
            # Its disk was rolled back or copied: it must continue above what is known here. Where
            # the epochs are equal, no digest would show it.
            self.outbox.put(card.node_id, Cards((known,)), Priority.REPAIR)
        if known is None and self.store.card(card.node_id) is not None:
            self.anti_entropy.begin(card.node_id, now)

    def write(
        self, scope: Scope, puts: Sequence[Value], deletes: Iterable[Key] = ()
    ) -> list[Segment]:
        """Return the segments of a local write; nothing is changed yet.

        The owner makes them durable, then calls `apply`, then `publish`.
        """
        return self._writer.write(scope, puts, deletes)

    def apply(self, segments: Sequence[Segment], now: float) -> None:
        """Apply a durable local write to this node's logs."""
        held = set(self.store.common_scopes(self.card.node_id))
        for segment in segments:
            self.store.accept(segment)
        for scope in self.store.common_scopes(self.card.node_id):
            if scope not in held:
                self.scopes.begin(scope, 1, now)
        for segment in segments:
            keys = tuple(entry.key for entry in segment.entries)
            self._emit(StoreChanged(segment.origin, segment.scope, keys))
            for entry in segment.entries:
                if isinstance(entry.value, ForgottenNode):
                    self._ban(entry.value.node_id, now)

    def publish(
        self, segments: Sequence[Segment], now: float, *, confirm: bool = False
    ) -> int | None:
        """Send a local write to the holders of its scope.

        With `confirm`, return the id of a wait whose end `confirmations.confirmed` announces, or
        None if no node must confirm.
        """
        if not confirm:
            self._broadcast.publish(list(segments), now)
            return None
        peers = {
            scope: self._confirmers(scope, segments)
            for scope in sorted({segment.scope for segment in segments})
        }
        has_others = any(
            len(self._broadcast.interested(scope)) > len(found) for scope, found in peers.items()
        )
        wait_id = self.confirmations.wait_for(list(segments), peers, now)
        if wait_id is None or any(
            len(found) > self._settings.push_direct_max for found in peers.values()
        ):
            self._broadcast.publish(list(segments), now)
        elif has_others:
            self._broadcast.publish(list(segments), now, skip=peers)
        return wait_id

    def _confirmers(self, scope: Scope, segments: Sequence[Segment]) -> list[NodeId]:
        """Return the live holders of a scope that must confirm these segments.

        Those without a sandbox have nothing to program, but must know of grants: who leaves must
        not be the only one that knows to whom it gave its space.
        """
        forwards = self.store.participants.get(scope, {})
        concerns_all = scope == CLUSTER_SCOPE or any(
            entry.key[0] == "grant"
            for segment in segments
            if segment.scope == scope
            for entry in segment.entries
        )
        return [
            node_id
            for node_id in self._broadcast.interested(scope)
            if (concerns_all or forwards[node_id])
            and self.membership.state_of(node_id) is MemberState.ALIVE
        ]

    def unconfirmed_nodes(self, wait_id: int) -> tuple[NodeId, ...]:
        """Return the nodes that have not confirmed yet."""
        return self.confirmations.missing(wait_id)

    def cancel_confirmation(self, wait_id: int) -> None:
        """Cancel a wait."""
        self.confirmations.forget(wait_id)

    def renew_card(self, card: Card, now: float) -> None:
        """Use and publish a changed card of this node, already durable.

        If it says `left`, keep driving the node for a moment, so that all receive it.
        """
        self.card = card
        self.store.accept_card(card)
        self.membership.renew(card.epoch << EPOCH_SHIFT)
        if card.left:
            self.membership.leave()
        self.rebroadcast_card()
        self._events.append(CardAccepted(card))
        assert now >= self._started, "time runs forwards"

    def rebroadcast_card(self) -> None:
        """Send this node's card again: a departure must not depend on repair."""
        for peer in self.membership.live():
            self.outbox.put(peer, Cards((self.card,)), Priority.OWN)

    def send_to(self, to: NodeId, message: Message) -> None:
        """Send a message to one member, without a guarantee of delivery."""
        self.outbox.put(to, message, Priority.OWN)

    # --- progress -----------------------------------------------------------------------

    @property
    def caught_up(self) -> bool:
        """Whether all that the live members held at the start is here.

        Once true, true for this run: members that join later send what they have. False while
        this node is alone although it knows of others, neither gone nor forgotten: it may not know
        what they know.
        """
        return self._initial_sync.is_done

    def may_write(self, now: float) -> bool:
        """Return whether this node may write and allocate (the amnesia rule)."""
        return self._initial_sync.may_write(now)

    def is_forgotten(self, node_id: NodeId) -> bool:
        """Return whether a node is declared gone permanently."""
        return node_id in self._forgotten
