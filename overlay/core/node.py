"""One node's protocol machine: the only class that the agent and the simulator drive.

Owns: how messages, timers and local writes reach the parts, and the order of what comes out.
Sans-IO: time is an argument, chance is given, what is to be sent and what happened is asked
for. Verification of signatures goes through the notary, and only for what would change a thing.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence

from overlay import limits
from overlay.core.events import (
    AuthorityMessage,
    CardAccepted,
    Confirmed,
    ConfirmRequested,
    Event,
    GrantRefused,
    GrantRequested,
    InitialSyncDone,
    MemberChanged,
    NodeForgotten,
    OwnLogAhead,
    SegmentAccepted,
    StoreChanged,
)
from overlay.core.log.store import Acceptance, Store
from overlay.core.log.writer import LogWriter
from overlay.core.membership.machine import Membership
from overlay.core.protocol.interfaces import Codec, Signer
from overlay.core.protocol.messages import (
    Ack,
    AuthorityHandover,
    Buckets,
    Cards,
    CertificateRenewal,
    CertificateRequest,
    Confirm,
    Delta,
    GrantRefusal,
    GrantRequest,
    LogVersion,
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
from overlay.core.replication.segment_policy import violates_forget_rules
from overlay.errors import RemoteError
from overlay.model import Card, NodeId

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
        self.last_contact_at: float | None = None  # anyone; who hears nobody knocks at doors again
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
        self._cards = CardIntake(self.store, self.membership, signer, self._forgotten, self._event)
        self._broadcast = Broadcast(self.store, self.membership, self.outbox, settings, random)
        self._confirmations = Confirmations(self.store, self.outbox, settings)
        self.scopes = ScopeSync(self.store, self.membership, self.anti_entropy, settings, random)
        self._catch_up = InitialSync(
            self.store, self.membership, self.anti_entropy, self.scopes, settings, now
        )

    def restore(self, cards: Iterable[Card], segments: Iterable[Segment], now: float) -> None:
        """Take back what was on disk, already verified, before anything else happens."""
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
        """Take one authenticated message; raises RemoteError with the reason of its drop."""
        if sender in self._forgotten:
            raise RemoteError(FORGOTTEN)
        self.last_contact_at = now
        match message:
            case Ping(root=root):
                self.membership.receive_ping(message, sender, now)
                self.anti_entropy.compare(sender, root, now)
            case Ack(root=root):
                self.membership.receive_ack(message, sender, now)
                # A relayed Ack carries the digest of the one who relays it: still the sender's.
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
                self._confirmations.receive(message, sender)
            case GrantRequest():
                self._event(GrantRequested(sender, message))
            case GrantRefusal():
                self._event(GrantRefused(sender, message))
            case CertificateRequest() | CertificateRenewal() | AuthorityHandover():
                self._event(AuthorityMessage(sender, message))

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
                self._take_segment(segment, sender, now)
            except RemoteError as error:
                bad = error
                continue
            held = self.store.version(*log)
            if (
                message.confirm
                and held >= segment.upto
                and self._confirmations.handle_request(segment, sender)
            ):
                self._event(ConfirmRequested(segment.scope))
            self.anti_entropy.segment_received(
                log, len(segment.raw) if held > before else 0, sender, now
            )
        if bad is not None:
            raise bad

    def _take_segment(self, segment: Segment, sender: NodeId, now: float) -> None:
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
        verdict, applied = self.store.accept(segment)
        if verdict is Acceptance.FULL:
            raise RemoteError(LOG_FULL)
        if verdict is Acceptance.GAP and not self.anti_entropy.under_way(sender):
            self.anti_entropy.begin(sender, now)
        for one in applied:
            self._applied(one, sender, now)

    def _applied(self, segment: Segment, sender: NodeId, now: float) -> None:
        self._event(SegmentAccepted(segment))
        keys = tuple(entry.key for entry in segment.entries)
        self._event(StoreChanged(segment.origin, segment.scope, keys))
        if segment.origin == self.card.node_id:
            self._event(OwnLogAhead(segment.scope, segment.upto))
        if not self.anti_entropy.under_way(sender):
            self._broadcast.relay(segment, now)
        for entry in segment.entries:
            if isinstance(entry.value, ForgottenNode):
                self._ban(entry.value.node_id, now)

    def _ban(self, node_id: NodeId, now: float) -> None:
        if node_id in self._forgotten or node_id == self.card.node_id:
            return
        self._forgotten.add(node_id)
        self.membership.remove(node_id, now)
        self.anti_entropy.forget(node_id)
        self._confirmations.forget_node(node_id)
        self._event(NodeForgotten(node_id))

    # --- time ---------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due, on the clock of `now`."""
        due = (
            self.membership.next_timer(),
            self._broadcast.next_timer(),
            self.anti_entropy.next_timer(),
            self._confirmations.next_timer(),
            self.scopes.next_timer(),
            self._catch_up.next_timer(),
        )
        return min((when for when in due if when is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do everything that is due."""
        self.membership.handle_timer(now)
        self._broadcast.handle_timer(now)
        self.anti_entropy.handle_timer(now)
        self._confirmations.handle_timer(now)
        self.scopes.handle_timer(now)
        if self._catch_up.handle_timer(now):
            self._event(InitialSyncDone())

    def observe_lag(self, lag_s: float, now: float) -> None:
        """Note that our own event loop ran late."""
        self.membership.observe_lag(lag_s, now)

    # --- out ----------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """Return what happened, oldest first; None when that is all."""
        for event in self.membership.drain_events():
            # Not for a suspicion: most are refuted, and then it would have been left out in
            # silence. The wait is bounded; who has not confirmed by then is named.
            if isinstance(event, MemberChanged) and event.after in _GONE:
                self._confirmations.forget_node(event.node_id)
            self._event(event)
        for wait_id in self._confirmations.done:
            self._event(Confirmed(wait_id))
        self._confirmations.done.clear()
        return self._events.popleft() if self._events else None

    def _event(self, event: Event) -> None:
        self._events.append(event)

    # --- what the owner does ------------------------------------------------------------

    def add_peer(self, card: Card, now: float) -> None:
        """Take in a node that proved itself in a handshake, and learn what a new one knows.

        With a known one the next probe shows whether there is anything to learn.
        """
        known = self.store.card(card.node_id)
        self._cards.handle_card(card, now)
        if known is not None and known.epoch >= card.epoch and known.raw != card.raw:
            # Its disk was rolled back or copied: it must go on above what is known here. Where
            # the epochs are equal, no digest would show it.
            self.outbox.put(card.node_id, Cards((known,)), Priority.REPAIR)
        if known is None and self.store.card(card.node_id) is not None:
            self.anti_entropy.begin(card.node_id, now)

    def write(
        self, scope: Scope, puts: Sequence[Value], deletes: Iterable[Key] = ()
    ) -> list[Segment]:
        """Return the segments of a local write; nothing is changed until `publish`-ed or applied.

        The owner makes them durable, then calls `apply`, then `publish`.
        """
        return self._writer.write(scope, puts, deletes)

    def apply(self, segments: Sequence[Segment], now: float) -> None:
        """Make a durable local write part of this node's logs."""
        held = self.store.common_scopes(self.card.node_id)
        for segment in segments:
            self.store.accept(segment)
        for scope in self.store.common_scopes(self.card.node_id):
            if scope not in held:
                self.scopes.begin(scope, 1, now)
        for segment in segments:
            keys = tuple(entry.key for entry in segment.entries)
            self._event(StoreChanged(segment.origin, segment.scope, keys))
            for entry in segment.entries:
                if isinstance(entry.value, ForgottenNode):
                    self._ban(entry.value.node_id, now)

    def publish(
        self, segments: Sequence[Segment], now: float, *, confirm: bool = False
    ) -> int | None:
        """Tell a local write to those who hold its scope.

        With `confirm`, return the id of a wait that ends with `Confirmed`, or None if there is
        nobody to wait for.
        """
        if not confirm:
            self._broadcast.publish(list(segments), now)
            return None
        scopes = sorted({segment.scope for segment in segments})
        peers = {
            scope: [
                node_id
                for node_id in self._broadcast.interested(scope)
                if self.membership.state_of(node_id) is MemberState.ALIVE
            ]
            for scope in scopes
        }
        wait_id = self._confirmations.wait_for(list(segments), peers, now)
        if wait_id is None or any(
            len(found) > self._settings.push_direct_max for found in peers.values()
        ):
            self._broadcast.publish(list(segments), now)
        return wait_id

    def unconfirmed_nodes(self, wait_id: int) -> tuple[NodeId, ...]:
        """Return who has not confirmed a wait yet."""
        return self._confirmations.missing(wait_id)

    def cancel_confirmation(self, wait_id: int) -> None:
        """Give a wait up."""
        self._confirmations.forget(wait_id)

    def programmed(self, versions: Iterable[LogVersion], now: float) -> None:  # noqa: ARG002
        """Note how far our kernel is; whoever waits for it hears it."""
        self._confirmations.programmed(list(versions))

    def renew_card(self, card: Card, now: float) -> None:
        """Use and tell a changed card of our own, already durable. With `left` it is the goodbye:
        keep driving the node for a moment, so that all hear it."""
        self.card = card
        self.store.accept_card(card)
        self.membership.renew(card.epoch << EPOCH_SHIFT)
        if card.left:
            self.membership.leave()
        self.rebroadcast_card()
        self._events.append(CardAccepted(card))
        assert now >= self._started, "time runs forwards"

    def rebroadcast_card(self) -> None:
        """Say again what the last changed card said: a goodbye is not to depend on repair."""
        for peer in self.membership.live():
            self.outbox.put(peer, Cards((self.card,)), Priority.OWN)

    def send_to(self, to: NodeId, message: Message) -> None:
        """Ask or answer one member; whether it arrives shows by what it does."""
        self.outbox.put(to, message, Priority.OWN)

    # --- how far it is ------------------------------------------------------------------

    @property
    def caught_up(self) -> bool:
        """Whether all that the live members held has come here since the start.

        Once true, true for this run: whoever joins later sends what it has. False as long as
        this node is alone although it knows of others: it may not know what they know.
        """
        return self._catch_up.is_done

    def may_write(self, now: float) -> bool:
        """Say whether this node may write and allocate (the amnesia rule)."""
        return self._catch_up.may_write(now)

    def is_forgotten(self, node_id: NodeId) -> bool:
        """Say whether a node was declared gone for ever."""
        return node_id in self._forgotten
