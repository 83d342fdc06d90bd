"""A node that is member of a cluster: identity, records on disk, sessions, the running pump.

Owns: the order "durable, then published". Must not know: networks, containers, the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from overlay import __version__, limits
from overlay.agent.gossip.transport import Transport
from overlay.agent.state import documents
from overlay.agent.state.database import (
    PREVIOUS_NAME,
    Floor,
    Row,
    StateDatabase,
    StoredCard,
    StoredSegment,
)
from overlay.agent.state.documents import StoredCluster, next_epoch
from overlay.core.events import (
    CardAccepted,
    Confirmed,
    Event,
    MemberChanged,
    NodeForgotten,
    OwnCardAhead,
    SegmentAccepted,
)
from overlay.core.node import Node
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import Key, Scope, Segment, Value
from overlay.core.protocol.settings import ProtocolSettings
from overlay.errors import OverlayError, RemoteError
from overlay.model import Card, Certificate, Ip, NodeId
from overlay.wire.codec.messages import MsgpackCodec
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.session.sessions import Sessions

Read = TypeVar("Read", Card, Segment)
_LAZY_WRITE_S = 1.0
_DISK_RETRY_S = 5.0
_POLL_S = 0.005
_GOODBYE_S = 0.5


class GossipService:
    """This node's part in its cluster, from start to close."""

    def __init__(
        self,
        state: StateDatabase,
        cluster: StoredCluster,
        address: Ip,
        underlay_mtu: int,
        on_event: Callable[[Event], None],
    ) -> None:
        self.state = state
        self.cluster = cluster
        self.identity = documents.ensure_identity(state)
        self.anchor = TrustAnchor(bytes.fromhex(cluster.anchor))
        self.authority = documents.AUTHORITY.find(state)
        self.keyring = documents.require_keyring(state)
        self.codec = MsgpackCodec()
        self.signer = KeySigner(self.identity, self.anchor)
        self._on_event = on_event
        self._waits: dict[int, asyncio.Future[None]] = {}
        self._unsaved: list[Segment] = []
        self._unsaved_cards: list[Card] = []
        self._save_timer: asyncio.TimerHandle | None = None
        self.unreadable_count = 0  # records on disk that a damage has spoilt
        self._loop = asyncio.get_running_loop()
        self.card = self._own_card(address, underlay_mtu)
        self.node = Node(
            self.card,
            self.signer,
            self.codec,
            random.Random(os.urandom(16)),
            ProtocolSettings(),
            self._loop.time(),
        )
        self.sessions = Sessions(
            self.identity,
            self.signer,
            self.keyring,
            self.card,
            os.urandom,
            time.time,
        )
        self._restore()
        self.started = self._loop.time()
        self.transport = Transport(
            self.node, self.sessions, self.codec, (address, cluster.gossip_port), self._handle_event
        )

    @property
    def node_id(self) -> NodeId:
        """This node's identity."""
        return self.card.node_id

    def close(self) -> None:
        """Stop gossiping; what is not yet on disk is written, if the disk takes it: the others have
        it. Nothing is written later, when the state may be another membership's."""
        self.transport.close()
        self._save()
        self._saved()
        for waiting in self._waits.values():
            waiting.cancel()

    def _own_card(self, address: Ip, underlay_mtu: int) -> Card:
        return self.signer.issue_card(
            Card(
                node_id=self.identity.node_id,
                name=self.cluster.node_name,
                sign_key=self.identity.sign_public,
                seal_key=self.identity.seal_public,
                address=address,
                gossip_port=self.cluster.gossip_port,
                epoch=next_epoch(self.state),
                underlay_mtu=underlay_mtu,
                software=__version__,
                certificate=self._certificate(address),
            )
        )

    def _certificate(self, address: Ip) -> Certificate:
        """Return the stored certificate; the first host's own authority makes its first one."""
        certificate = documents.CERTIFICATE.find(self.state)
        if certificate is None:
            assert self.authority is not None, "no host is member without a certificate"
            certificate = self.issue_own_certificate(self.authority, address)
            documents.CERTIFICATE.put(self.state, certificate)
        return certificate

    def issue_own_certificate(self, authority: Authority, address: Ip) -> Certificate:
        """Return a new certificate for this node itself."""
        own = self.identity
        name = self.cluster.node_name
        return authority.sign_certificate(
            own.sign_public, own.seal_public, name, address, time.time()
        )

    def use_certificate(self, certificate: Certificate) -> bool:
        """Use a new certificate from now on; False if it is none for this node as it is."""
        if not self.anchor.verify_certificate(replace(self.card, certificate=certificate)):
            return False
        documents.CERTIFICATE.put(self.state, certificate)
        self.renew_card(certificate=certificate)
        return True

    def hold_authority(self, key: bytes) -> bool:
        """Hold the authority from now on; False if that is not its key."""
        authority = Authority(key)
        if authority.anchor != self.anchor.public:
            return False
        if self.authority is None:
            documents.AUTHORITY.put(self.state, authority)
            self.authority = authority
        return True

    def renew_card(self, **changes: object) -> None:
        """Publish a changed card (address, MTU, left) under a new epoch.

        Raises OverlayError if the disk refuses; the card then is as it was before.
        """
        changed = replace(self.card, epoch=next_epoch(self.state), **changes)  # type: ignore[arg-type]
        card = self.signer.issue_card(changed)
        self.state.commit(cards=[_stored_card(card)])
        self.card = card
        self.sessions.set_card(card)
        self.node.renew_card(self.card, self.transport.now())
        self.transport.flush_soon()

    def start(self) -> None:
        """Begin to gossip."""
        self.transport.start()

    def has_alive_peers(self) -> bool:
        """Say whether any other member is alive."""
        return bool(self.node.membership.alive())

    def drops(self) -> dict[str, int]:
        """Return what was dropped, by reason."""
        found = dict(self.transport.drops)
        queues = {
            "outbox-full": self.node.outbox.dropped_count,
            "handshake-queue-full": self.sessions.queue_drop_count,
        }
        return found | {reason: count for reason, count in queues.items() if count}

    async def wait_synced(self, scope: Scope, timeout_s: float) -> bool:
        """Wait until one who holds a scope has shown us all of it; False if that took too long."""
        self.transport.flush()
        return await self._wait_until(lambda: not self.node.scopes.is_pending(scope), timeout_s)

    async def wait_may_write(self, timeout_s: float) -> bool:
        """Wait until this node has heard enough of its peers to write and allocate (the amnesia
        rule); False if that took too long."""
        return await self._wait_until(lambda: self.node.may_write(self.transport.now()), timeout_s)

    async def _wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = self._loop.time() + timeout_s
        while not condition():
            if self._loop.time() >= deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    async def say_goodbye(self) -> None:
        """Tell everyone, in its signed card and twice, that this node leaves."""
        self.renew_card(left=True)
        self.transport.flush()
        await asyncio.sleep(_GOODBYE_S / 2)
        self.node.rebroadcast_card()
        self.transport.flush()
        await asyncio.sleep(_GOODBYE_S / 2)

    # --- disk ---------------------------------------------------------------------------

    def _restore(self) -> None:
        cards = {}
        for kept in self.state.cards():
            card = self._read(kept.node_id, self.codec.decode_card, kept.raw, kept.signature)
            if card is None or card.node_id == self.card.node_id:
                continue
            if self.signer.verify_card(card):
                cards[card.node_id] = card
                self.sessions.learn(card)
        by_id = {**cards, self.card.node_id: self.card}
        segments = []
        for row in self.state.segments():
            segment = self._read(row.origin, self.codec.decode_segment, row.raw, row.signature)
            if segment is None or segment.origin not in by_id:
                continue
            if self.signer.verify_segment(segment, by_id[segment.origin]):
                segments.append(segment)
        self.node.restore(cards.values(), segments, self._loop.time())
        newest = {(kept.origin, kept.scope): kept.upto for kept in segments}
        self.state.commit(
            floors=[
                Floor(origin, scope, upto)
                for (origin, scope), upto in newest.items()
                if self.node.store.log(origin, scope) is None  # no longer participates there
            ]
        )

    def _read(
        self, origin: bytes, decode: Callable[[bytes, bytes], Read], raw: bytes, signature: bytes
    ) -> Read | None:
        """Return what is on disk; None for what can't be read of others, who give it again.

        Raises OverlayError for this node's own: nobody else may have it.
        """
        try:
            return decode(raw, signature)
        except RemoteError as error:
            self.unreadable_count += 1
            if origin != self.node_id or decode == self.codec.decode_card:
                return None
            raise OverlayError(
                f"the state file {self.state.path} is damaged",
                why="a record of this node's own cannot be read: its disk's fault, or it is "
                "of a version in development",
                hint=f"Keep it for a report. {PREVIOUS_NAME} beside it is of the last sound start; "
                "without both this host joins anew. What is attached goes on forwarding",
            ) from error

    def commit(
        self,
        scope: Scope,
        puts: Sequence[Value] = (),
        deletes: Sequence[Key] = (),
        rows: Iterable[Row] = (),
    ) -> list[Segment]:
        """Write own records, durable together with rows of documents; nothing is sent yet.

        Raises OverlayError if the disk refuses; the node then is as it was before.
        """
        segments = self.node.write(scope, puts, deletes)
        # What it rests on goes with it: an attachment without its network would be lost.
        self._store([*self._unsaved, *segments], self._unsaved_cards, rows)
        self._saved()
        self.node.apply(segments, self.transport.now())
        self.transport.flush_soon()
        return segments

    def publish(self, segments: Sequence[Segment]) -> None:
        """Tell the others."""
        self.node.publish(segments, self.transport.now())
        self.transport.flush()

    async def publish_confirmed(
        self, segments: Sequence[Segment], timeout_s: float
    ) -> list[NodeId]:
        """Tell the others and wait until their kernels follow; return who has not confirmed."""
        wait = self.node.publish(segments, self.transport.now(), confirm=True)
        if wait is None:
            self.transport.flush()
            return []
        confirmed: asyncio.Future[None] = self._loop.create_future()
        self._waits[wait] = confirmed
        self.transport.flush()
        try:
            await asyncio.wait_for(confirmed, timeout_s)
        except TimeoutError:
            return sorted(self.node.unconfirmed_nodes(wait))
        finally:
            self._waits.pop(wait, None)
            self.node.cancel_confirmation(wait)
        return []

    def _handle_event(self, event: Event) -> None:
        match event:
            case SegmentAccepted(segment=segment):
                self._unsaved.append(segment)
                self._schedule_save()
            case CardAccepted(card=card):
                self.sessions.learn(card)
                if card.node_id == self.node_id:
                    return
                self._unsaved_cards.append(card)
                self._schedule_save()
                self._on_event(event)
            case Confirmed(wait_id=wait_id):
                waiting = self._waits.get(wait_id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
            case NodeForgotten(node_id=node_id):
                self.sessions.forget(node_id)
                self._on_event(event)
            case MemberChanged(node_id=node_id, after=MemberState.SUSPECT | MemberState.DEAD):
                self.sessions.mark_unresponsive(node_id)
                self._on_event(event)
            case OwnCardAhead(epoch=epoch):
                self._loop.call_soon(self._raise_epoch, epoch)
            case _:
                self._on_event(event)

    def _raise_epoch(self, epoch: int) -> None:
        """Publish our card above an epoch that peers have of it; where the disk refuses, they say
        it again, and `status` tells of the disk."""
        if epoch < self.card.epoch:
            return
        with contextlib.suppress(OverlayError):
            documents.EPOCH.put(self.state, epoch)
            self.renew_card()

    def _schedule_save(self) -> None:
        if len(self._unsaved) >= limits.RECENT_EVENTS_MAX and not self.state.fault:
            self._save()
        elif self._save_timer is None:
            pause_s = _DISK_RETRY_S if self.state.fault else _LAZY_WRITE_S
            self._save_timer = self._loop.call_later(pause_s, self._save)

    def _save(self) -> None:
        """Write what others sent: a loss here is repaired by the next exchange with them.

        A disk that refuses is tried again, with what fits the bound; `status` tells of it.
        """
        segments, cards = self._unsaved, self._unsaved_cards
        self._saved()
        try:
            self._store(segments, cards)
        except OverlayError:
            self._unsaved = segments[-limits.RECENT_EVENTS_MAX :]
            self._unsaved_cards = cards[-limits.RECENT_EVENTS_MAX :]
            self._schedule_save()

    def _saved(self) -> None:
        """Note that nothing waits to be written."""
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None
        self._unsaved, self._unsaved_cards = [], []

    def _store(
        self, segments: Sequence[Segment], cards: Iterable[Card], rows: Iterable[Row] = ()
    ) -> None:
        floors: dict[tuple[NodeId, Scope], int] = {}
        for segment in segments:
            log = (segment.origin, segment.scope)
            floors[log] = max(floors.get(log, 0), segment.floor)
        self.state.commit(
            rows,
            segments=map(_stored_segment, segments),
            floors=[Floor(*log, upto) for log, upto in floors.items() if upto],
            cards=map(_stored_card, cards),
        )


def _stored_segment(segment: Segment) -> StoredSegment:
    return StoredSegment(
        segment.origin, segment.scope, segment.upto, segment.raw, segment.signature
    )


def _stored_card(card: Card) -> StoredCard:
    return StoredCard(card.node_id, card.raw, card.signature)
