"""One simulated host: a small agent around the real core node.

Owns: the life of the agent's process (start, crash, stall) and the rule "durable, then published".
`transport` moves datagrams, `agent` attaches containers, `reconciler` updates the kernel. Kernel
and disk outlive the agent.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

from overlay.core.events import (
    CardAccepted,
    Event,
    MemberChanged,
    OwnCardAhead,
    SegmentAccepted,
)
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.keys.rotation import Ring
from overlay.core.node import Node
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import Key, KeyId, Scope, Segment, Value
from overlay.model import Card, Ip, NodeId, node_id_of
from overlay.sim.environment.network import Flight, SimProbe
from overlay.sim.environment.notary import FakeSigner
from overlay.sim.host.authority import AuthoritySharing
from overlay.sim.host.disk import AttachmentRow, Disk
from overlay.sim.host.environment import AgentKilled, Environment
from overlay.sim.host.kernel import Kernel
from overlay.sim.host.key_invariants import FIRST_MADE_S
from overlay.sim.host.key_rotation import KeyRotation
from overlay.sim.host.sessions import Sessions
from overlay.sim.host.transport import Transport

GOSSIP_PORT: Final = 7948
UNDERLAY_MTU: Final = 1500
_CLOCK_S: Final = 60.0  # maximum error of wall clocks
_WOKEN_S: Final = 0.5
_LAZY_WRITE_S: Final = 1.0  # as in the agent: delay before others' records are written to disk


def is_holder(index: int, holders: int) -> bool:
    """Return whether a host holds the authority from the start: every second one, to a number."""
    return index % 2 == 0 and index < 2 * holders


class Host:
    """A host of the simulated cluster. `node` is None while its agent is down."""

    def __init__(self, index: int, address: Ip, environment: Environment) -> None:
        self.index = index
        self.name = f"h{index}"
        self.address = address
        self.environment = environment
        self.schedule = environment.schedule
        self.sign_key = random.Random(f"identity/{index}").randbytes(32)
        self.node_id = node_id_of(self.sign_key)
        self.signer = FakeSigner(self.sign_key)
        self.disk = Disk()
        self.backup: Disk | None = None
        self.kernel = Kernel()
        self.line = environment.network.plug(address, self.deliver)
        self.drops: Counter[str] = Counter()
        self.formed_with: Collection[NodeId] = ()  # peers with a session at the first start
        self.disk.holds_authority = is_holder(index, environment.holders)
        self.clock_s = FIRST_MADE_S + random.Random(f"clock/{index}").uniform(-_CLOCK_S, _CLOCK_S)
        self.leaving = False
        self.gone = False  # has left the cluster permanently
        self.on_event: Callable[[Event], None] = lambda _event: None
        self.on_start: Callable[[], None] = lambda: None
        self.take_frame: Callable[[Flight], None] = lambda _flight: None
        self.card: Card | None = None
        self.node: Node | None = None
        self.keys: KeyRotation | None = None
        self.authority: AuthoritySharing | None = None
        self.transport: Transport | None = None
        self.addressing: AddressSpace | None = None
        self.started_at = 0.0
        self._life = 0
        self._writes_to_live: int | None = None
        self._unsaved_segments: list[Segment] = []
        self._unsaved_cards: list[Card] = []

    def __repr__(self) -> str:
        return self.name

    @property
    def is_holder(self) -> bool:
        """Whether this host holds the authority."""
        return self.disk.holds_authority

    # --- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the agent from its disk."""
        assert self.node is None
        assert not self.gone
        now = self.started_at = self.schedule.now
        self._life += 1
        if self.card is None or self._life > 1:
            self.card = self._issue_card()
        rng = random.Random(self.environment.rng.getrandbits(64))
        codec = self.environment.codec
        self.node = Node(self.card, self.signer, codec, rng, self.environment.settings, now)
        cards = [card for card in self.disk.all_cards() if card.node_id != self.node_id]
        self.node.restore(cards, self.disk.all_segments(), now)
        self.addressing = AddressSpace(self.node.store, self.node_id)
        self.transport = Transport(
            self.node,
            Sessions(
                self._life,
                self.card,
                self.disk.ring,
                self.node.store.card,
                self.formed_with if self._life == 1 else (),
            ),
            self.environment,
            self,
            address=self.address,
            drops=self.drops,
        )
        self.keys = KeyRotation(self, self.node, self.transport)
        self.authority = AuthoritySharing(self, self.node)
        self.on_start()
        self.transport.contact_seeds(self.disk.seeds, self.later)
        self.transport.flush()

    def first_card(self) -> Card:
        """Issue the card for the first start, for a cluster that starts formed."""
        self.card = self._issue_card()
        return self.card

    def _issue_card(self, *, left: bool = False) -> Card:
        card = self.signer.issue_card(
            Card(
                node_id=self.node_id,
                name=self.name,
                sign_key=self.sign_key,
                seal_key=bytes(reversed(self.sign_key)),
                address=self.address,
                gossip_port=GOSSIP_PORT,
                epoch=self.disk.next_epoch(),
                underlay_mtu=UNDERLAY_MTU,
                software="sim",
                left=left,
            )
        )
        self.disk.put_cards([card])
        return card

    def stop(self) -> None:
        """Kill the agent, as kill -9 does: unsaved state is lost."""
        self._life += 1
        if self.transport is not None:
            self.transport.close()
        self.node = self.transport = self.addressing = self.keys = None
        self.authority = None
        self._writes_to_live = None
        self._unsaved_segments.clear()
        self._unsaved_cards.clear()

    def stall(self, until: float) -> None:
        """Suspend the agent until then."""
        if self.transport is not None:
            self.transport.stall(until)

    def asleep_until(self) -> float:
        """Return when the agent resumes.

        Returns a time in the past if it is not suspended.
        """
        return 0.0 if self.transport is None else self.transport.stalled() or 0.0

    def schedule_crash(self, after_writes: int) -> None:
        """Kill the agent in the middle of its work, after so many durable steps."""
        self._writes_to_live = after_writes

    def end_faults(self) -> None:
        """Cancel a scheduled crash, and resume a suspended agent."""
        self._writes_to_live = None
        if self.transport is not None:
            self.transport.wake()

    def back_up(self) -> None:
        """Keep a copy of the disk, for a later restoration."""
        self.backup = self.disk.snapshot()

    def crash_point(self) -> None:
        """Raise AgentKilled if the agent is scheduled to die here."""
        if self._writes_to_live is not None:
            self._writes_to_live -= 1
            if self._writes_to_live < 0:
                raise AgentKilled

    def later(self, delay_s: float, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call `action(argument)` after a delay, if the agent still runs.

        The delay is in seconds.
        """
        self.schedule.after(delay_s, self._later, (self._life, action, argument))

    def _later(self, what: tuple[int, Callable[[Any], None], Any]) -> None:
        life, action, argument = what
        if life != self._life or self.transport is None:
            return
        stalled_until = self.transport.stalled()
        if stalled_until is not None:
            soon = self.schedule.now + _WOKEN_S  # it may be resumed early
            self.schedule.at(min(stalled_until, soon), self._later, what)
            return
        self.guarded(action, argument)

    def guarded(self, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call `action(argument)`; if it raises AgentKilled, stop the agent."""
        try:
            action(argument)
        except AgentKilled:
            self.crash()

    def crash(self) -> None:
        """End the agent, which was killed in the middle of its work."""
        self.environment.tell(f"{self.name}: is killed in the middle of its work")
        self.stop()

    # --- datagrams ----------------------------------------------------------------------

    def deliver(self, flight: Flight) -> None:
        """Receive a datagram; without a running agent it is lost."""
        if type(flight.content) is SimProbe:
            if self.transport is not None and self.transport.stalled() is None:
                self.take_frame(flight)
        elif self.transport is not None:
            self.transport.deliver(flight)

    def flush(self) -> None:
        """Send pending messages and handle pending events."""
        if self.transport is not None:
            self.transport.flush()

    # --- records ------------------------------------------------------------------------

    def commit(
        self,
        scope: Scope,
        puts: Sequence[Value] = (),
        deletes: Sequence[Key] = (),
        rows: Iterable[AttachmentRow | Ring] = (),
    ) -> list[Segment]:
        """Write own records, durable together with rows of documents.

        Nothing is sent yet.
        """
        assert self.node is not None
        segments = self.node.write(scope, puts, deletes)
        self.crash_point()
        self.disk.put_segments(segments)
        self.disk.put_rows(rows)
        self.crash_point()
        self.node.apply(segments, self.schedule.now)
        return segments

    def publish(self, segments: Sequence[Segment], *, confirm: bool = False) -> int | None:
        """Send own records; with `confirm`, return the id of the wait for that."""
        assert self.node is not None
        wait = self.node.publish(segments, self.schedule.now, confirm=confirm)
        self.crash_point()
        return wait

    def move(self, address: Ip) -> None:
        """Change the underlay address; a running agent publishes it in a new card."""
        self.environment.network.unplug(self.address)
        self.address = address
        self.line = self.environment.network.plug(address, self.deliver)
        if self.transport is not None:
            self.transport.address = address
            self.renew_card()
            self.flush()

    def renew_card(self, *, left: bool = False) -> None:
        """Publish a new card with this host's address, after making it durable."""
        assert self.node is not None
        assert self.transport is not None
        self.card = self._issue_card(left=left)
        self.transport.sessions.card = self.card
        self.node.renew_card(self.card, self.schedule.now)

    def receive_key(self, sender: NodeId, key: KeyId) -> None:
        """Use a cluster key that a peer sent."""
        if self.keys is not None:
            self.keys.take(sender, key)

    def handle_event(self, event: Event) -> None:
        """Act on an event of the node, or hand it on."""
        if self.keys is not None and self.authority is not None:
            self.keys.note(event)
            self.authority.note(event)
        match event:
            case SegmentAccepted(segment=segment):
                self._unsaved_segments.append(segment)
                self._save_later()
            case CardAccepted(card=card):
                self._unsaved_cards.append(card)
                self._save_later()
                self.on_event(event)
            case OwnCardAhead(epoch=epoch):
                self._raise_epoch(epoch)
            case MemberChanged(node_id=node_id, after=MemberState.SUSPECT | MemberState.DEAD):
                assert self.transport is not None
                self.transport.sessions.mark_unresponsive(node_id)
                self.on_event(event)
            case _:
                self.on_event(event)

    def _raise_epoch(self, epoch: int) -> None:
        """Continue above an epoch that peers know, if it is later than the disk's."""
        assert self.card is not None
        if epoch >= self.card.epoch:
            self.disk.epoch = max(self.disk.epoch, epoch)
            self.renew_card()

    def _save_later(self) -> None:
        if len(self._unsaved_segments) + len(self._unsaved_cards) == 1:
            self.later(_LAZY_WRITE_S, self._save)

    def _save(self, _: Any = None) -> None:
        self.disk.put_segments(self._unsaved_segments)
        self.disk.put_cards(self._unsaved_cards)
        self._unsaved_segments.clear()
        self._unsaved_cards.clear()
