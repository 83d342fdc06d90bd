"""This node as a cluster member: identity, durable records, sessions, the running transport.

Owns: the order "durable, then published". Does not: know networks, containers, the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from overlay import __version__
from overlay.agent.gossip.stored_records import UnsavedRecords, read_records, stored_card
from overlay.agent.gossip.transport import Transport
from overlay.agent.state import membership_documents
from overlay.agent.state.database import Floor, Row, StateDatabase
from overlay.agent.state.membership_documents import LostState, StoredCluster, next_epoch
from overlay.core.node import Node
from overlay.core.protocol.records import Key, Scope, Segment, Value
from overlay.core.protocol.settings import ProtocolSettings
from overlay.errors import OverlayError, TimedOutError
from overlay.model import Card, Certificate, Ip, NodeId
from overlay.wire.codec.messages import MsgpackCodec
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.session.sessions import Sessions

Missing: TypeAlias = Callable[[float], Awaitable[list[NodeId]]]
"""Waits for confirmations, for some seconds, and returns the nodes that have not confirmed."""

_POLL_S = 0.005
_LONG_POLL_S = 0.05  # in waits that may take hours
_GOODBYE_S = 0.5
# Of a node whose disk is known to be old: what it wrote last, only its peers know. Those that it
# no longer knows of probe it within seconds.
_PATIENT = ProtocolSettings(amnesia_wait_s=math.inf, first_contact_wait_s=10.0)


class GossipService:
    """This node's membership of one cluster, from start to close."""

    def __init__(
        self, state: StateDatabase, cluster: StoredCluster, address: Ip, underlay_mtu: int
    ) -> None:
        self.state = state
        self.cluster = cluster
        self.identity = membership_documents.ensure_identity(state)
        self.anchor = TrustAnchor(bytes.fromhex(cluster.anchor))
        self.authority = membership_documents.AUTHORITY.find(state)
        self.keyring = membership_documents.require_keyring(state)
        self.codec = MsgpackCodec()
        self.signer = KeySigner(self.identity, self.anchor)
        self._waits: dict[int, asyncio.Future[None]] = {}
        self._unsaved = UnsavedRecords(state)
        self._loop = asyncio.get_running_loop()
        self.card = self._own_card(address, underlay_mtu)
        stored = read_records(state, self.codec, self.signer, self.card)
        self.unreadable_count = stored.unreadable_count
        self.lost_state = stored.lost_state
        """The finding that the records on disk are old; None once peers have sent newer ones."""
        settings = ProtocolSettings() if self.lost_state is None else _PATIENT
        self.node = Node(
            self.card,
            self.signer,
            self.codec,
            random.Random(os.urandom(16)),
            replace(settings, founded_cluster=self._has_founded()),
            self._loop.time(),
        )
        self.node.confirmations.confirmed.connect(self._on_confirmed)
        self.sessions = Sessions(
            self.identity,
            self.signer,
            self.keyring,
            self.card,
            os.urandom,
            time.time,
        )
        self._restore(stored.cards, stored.segments)
        self.started = self._loop.time()
        endpoint = (address, cluster.gossip_port)
        self.transport = Transport(self.node, self.sessions, self.codec, endpoint)
        self._has_session = asyncio.Event()
        self.transport.session_opened.connect(lambda _peer: self._has_session.set())

    @property
    def node_id(self) -> NodeId:
        """This node's identity."""
        return self.card.node_id

    def _has_founded(self) -> bool:
        """Return whether this node founded its cluster, as far as a disk that is not old says."""
        return not self.cluster.seeds and self.lost_state is None

    @property
    def may_write(self) -> bool:
        """Whether enough peers have synced for this node to write (the amnesia rule)."""
        return self.node.may_write(self.transport.now())

    def close(self) -> None:
        """Stop gossiping, and write unsaved records if the disk accepts them: peers have them too.

        Nothing is written later, when the state may belong to another membership.
        """
        self.transport.close()
        self._unsaved.close()
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
        """Return the stored certificate; the cluster's first host issues its own."""
        certificate = membership_documents.CERTIFICATE.find(self.state)
        if certificate is None:
            assert self.authority is not None, "every member has a certificate"
            certificate = self.issue_own_certificate(self.authority, address)
            membership_documents.CERTIFICATE.put(self.state, certificate)
        return certificate

    def issue_own_certificate(self, authority: Authority, address: Ip) -> Certificate:
        """Return a new certificate for this node itself."""
        own = self.identity
        name = self.cluster.node_name
        return authority.sign_certificate(
            own.sign_public, own.seal_public, name, address, time.time()
        )

    def use_certificate(self, certificate: Certificate) -> bool:
        """Use a new certificate from now on; return False if it is not valid for this node."""
        if not self.anchor.verify_certificate(replace(self.card, certificate=certificate)):
            return False
        membership_documents.CERTIFICATE.put(self.state, certificate)
        self.renew_card(certificate=certificate)
        return True

    def hold_authority(self, key: bytes) -> bool:
        """Hold the cluster's authority from now on; return False if `key` is not its key."""
        authority = Authority(key)
        if authority.anchor != self.anchor.public:
            return False
        if self.authority is None:
            membership_documents.AUTHORITY.put(self.state, authority)
            self.authority = authority
        return True

    def renew_card(self, **changes: object) -> None:
        """Publish a changed card (address, MTU, left) under a new epoch.

        Raises OverlayError if the disk rejects the write; the card is then unchanged.
        """
        changed = replace(self.card, epoch=next_epoch(self.state), **changes)  # type: ignore[arg-type]
        card = self.signer.issue_card(changed)
        self.state.commit(cards=[stored_card(card)])
        self.card = card
        self.sessions.set_card(card)
        self.node.renew_card(self.card, self.transport.now())
        self.transport.flush_soon()

    def start(self) -> None:
        """Start gossiping."""
        self.transport.start()

    def has_alive_peers(self) -> bool:
        """Return whether any other member is alive."""
        return bool(self.node.membership.alive())

    def drops(self) -> dict[str, int]:
        """Return how many datagrams and messages were dropped, by reason."""
        found = dict(self.transport.drops)
        queues = {
            "outbox-full": self.node.outbox.dropped_count,
            "handshake-queue-full": self.sessions.table.queue_drop_count,
        }
        return found | {reason: count for reason, count in queues.items() if count}

    async def wait_synced(self, scope: Scope, timeout_s: float) -> bool:
        """Wait until a peer that holds a scope has sent all of it; return False on time-out."""
        self.transport.flush()
        return await self._wait_until(lambda: not self.node.scopes.is_pending(scope), timeout_s)

    async def wait_may_write(self, timeout_s: float) -> bool:
        """Wait until this node may write; return False on time-out."""
        return await self._wait_until(lambda: self.may_write, timeout_s)

    async def until_may_write(self) -> None:
        """Wait until this node may write, however long: without its peers an old disk never may."""
        await self._wait_until(lambda: self.may_write, math.inf, _LONG_POLL_S)

    async def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until this node knows all that the live members know; return False on time-out."""
        return await self._wait_until(lambda: self.node.caught_up, timeout_s)

    async def wait_member(self, addresses: Collection[tuple[Ip, int]], timeout_s: float) -> bool:
        """Wait until a member is known at one of some addresses and ports; False on time-out.

        One that has left or was forgotten is no member.
        """

        def is_known() -> bool:
            return any(
                (card.address, card.gossip_port) in addresses
                for card in self.node.store.cards.values()
                if not card.left and not self.node.is_forgotten(card.node_id)
            )

        return await self._wait_until(is_known, timeout_s)

    async def wait_session(self, timeout_s: float) -> bool:
        """Wait until a session with any peer was opened since the start; return False on
        time-out."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._has_session.wait()
        return self._has_session.is_set()

    async def _wait_until(
        self, condition: Callable[[], bool], timeout_s: float, poll_s: float = _POLL_S
    ) -> bool:
        deadline = self._loop.time() + timeout_s
        while not condition():
            if self._loop.time() >= deadline:
                return False
            await asyncio.sleep(poll_s)
        return True

    async def say_goodbye(self) -> None:
        """Announce twice, in the signed card, that this node leaves the cluster."""
        self.renew_card(left=True)
        self.transport.flush()
        await asyncio.sleep(_GOODBYE_S / 2)
        self.node.rebroadcast_card()
        self.transport.flush()
        await asyncio.sleep(_GOODBYE_S / 2)

    # --- disk ---------------------------------------------------------------------------

    def _restore(self, cards: Sequence[Card], segments: Sequence[Segment]) -> None:
        for card in cards:
            self.sessions.learn(card)
        self.node.restore(cards, segments, self._loop.time())
        newest = {(kept.origin, kept.scope): kept.upto for kept in segments}
        self.state.commit(
            floors=[
                Floor(origin, scope, upto)
                for (origin, scope), upto in newest.items()
                if self.node.store.log(origin, scope) is None  # no longer participates there
            ]
        )

    def state_caught_up(self) -> None:
        """Note that what this node's disk had lost is back, as far as it can be."""
        if self.lost_state is not None:
            membership_documents.LOST.drop(self.state)
            self.lost_state = None

    def commit(
        self,
        scope: Scope,
        puts: Sequence[Value] = (),
        deletes: Sequence[Key] = (),
        rows: Iterable[Row] = (),
        *,
        on_old_state: bool = False,
    ) -> list[Segment]:
        """Write own records in one transaction with rows of documents; nothing is sent yet.

        Raises OverlayError if the disk rejects the write; the node is then unchanged. Raises
        TimedOutError, unless `on_old_state`, while the state is known to be old: peers would take
        what is written for the records that they have.
        """
        if self.lost_state is not None and not on_old_state:
            self._require_may_write(self.lost_state)
        segments = self.node.write(scope, puts, deletes)
        self._unsaved.commit_with(rows, segments)
        self.node.apply(segments, self.transport.now())
        self.transport.flush_soon()
        return segments

    def _require_may_write(self, lost: LostState) -> None:
        if not self.node.may_write(self.transport.now()):
            raise TimedOutError(
                "this host does not know its own newest records yet",
                why=f"{lost.why}, and no member has sent what it holds",
                hint="Start the other hosts; 'overlayd status' shows when this has ended",
            )

    def publish(self, segments: Sequence[Segment]) -> None:
        """Send committed segments to the peers."""
        self.node.publish(segments, self.transport.now())
        self.transport.flush()

    async def publish_confirmed(
        self, segments: Sequence[Segment], timeout_s: float
    ) -> list[NodeId]:
        """Send segments and wait until the peers' kernels are programmed.

        Returns the nodes that have not confirmed within `timeout_s`.
        """
        with self.asking(segments) as missing:
            return await missing(timeout_s)

    @contextlib.contextmanager
    def asking(self, segments: Sequence[Segment]) -> Iterator[Missing]:
        """Send segments; yield what waits until the peers' kernels are programmed, if called.

        It waits for some seconds at most, and returns the nodes that have not confirmed. Nobody is
        asked after the block.
        """
        wait = self.node.publish(segments, self.transport.now(), confirm=True)
        confirmed: asyncio.Future[None] = self._loop.create_future()
        if wait is not None:
            self._waits[wait] = confirmed
        self.transport.flush()

        async def missing(timeout_s: float) -> list[NodeId]:
            if wait is not None:
                try:
                    async with asyncio.timeout(timeout_s):
                        await confirmed
                except TimeoutError:
                    return sorted(self.node.unconfirmed_nodes(wait))
            return []

        try:
            yield missing
        finally:
            if wait is not None:
                self._waits.pop(wait, None)
                self.node.cancel_confirmation(wait)

    def _on_confirmed(self, wait_id: int, _confirmed_by: list[NodeId]) -> None:
        waiting = self._waits.get(wait_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # --- events of the node (called by the event router) --------------------------------

    def segment_accepted(self, segment: Segment) -> None:
        """Save another node's segment, soon."""
        self._unsaved.add_segment(segment)

    def card_accepted(self, card: Card) -> None:
        """Use a card for sessions; save it, soon, if it is another node's."""
        self.sessions.learn(card)
        if card.node_id != self.node_id:
            self._unsaved.add_card(card)

    def node_forgotten(self, node_id: NodeId) -> None:
        """End the sessions with a forgotten node."""
        self.sessions.forget(node_id)

    def member_unresponsive(self, node_id: NodeId) -> None:
        """Mark a suspected or dead member as not answering, until it answers."""
        self.sessions.mark_unresponsive(node_id)

    def own_card_ahead(self, epoch: int) -> None:
        """Publish this node's card above an epoch under which peers know it."""
        self._loop.call_soon(self._raise_epoch, epoch)  # the node is in the middle of an event

    def _raise_epoch(self, epoch: int) -> None:
        """Renew the card above an epoch. If the disk rejects it, peers report the epoch again, and
        `status` shows the disk's fault."""
        if epoch < self.card.epoch:
            return
        with contextlib.suppress(OverlayError):
            membership_documents.EPOCH.put(self.state, epoch)
            self.renew_card()
