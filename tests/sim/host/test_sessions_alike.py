"""The simulator's sessions give the same results as the real ones."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from overlay.core.keys.rotation import Ring
from overlay.errors import RemoteError
from overlay.model import Card, NodeId
from overlay.sim.host.sessions import (
    Addressed,
    Content,
    SealedFrame,
    SimHello,
    SimJoin,
    SimResponse,
)
from overlay.sim.host.sessions import Sessions as Modelled
from overlay.wire.codec.datagram import DATA, HELLO, JOIN, RESPONSE, Datagram
from overlay.wire.identity.keyring import ClusterKey
from tests.wire.conftest import Host, Wire, made_key

KIND = {SimHello: HELLO, SimResponse: RESPONSE, SealedFrame: DATA, SimJoin: JOIN}
KEYS = [made_key(generation) for generation in range(9)]
STEPS = 400


@dataclass
class Side:
    """One node: the real process, and its model."""

    real: Host
    model: Modelled


class Alike:
    """Two nodes in both worlds, whose datagrams are late, lost and reordered."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.wire = Wire(seed)
        self.under_way: list[tuple[int, Datagram, Content]] = []  # by receiver
        self.processes = 0
        self.opened = 0
        self.dropped: set[str] = set()
        self.sides: list[Side] = []
        self.sides = [self._start(0, None), self._start(1, None)]
        self._introduce()

    def _start(self, number: int, before: Side | None) -> Side:
        self.processes += 1
        if before is None:
            host = self.wire.host(1 + number)
        else:
            keyring = before.real.keyring
            in_use = keyring.key(keyring.sealing)  # the first is the one that a host starts with
            host = self.wire.host(
                1 + number,
                identity=before.real.identity,
                epoch=self.processes,
                keys=(in_use, *(key for key in keyring.keys if key != in_use)),
            )
        model = Modelled(self.processes, host.card, host.keyring.ring, self._card_of)
        return Side(host, model)

    def _card_of(self, node_id: NodeId) -> Card | None:
        cards = {side.real.node_id: side.real.card for side in self.sides}
        return cards.get(node_id)

    def _introduce(self) -> None:
        one, other = (side.real for side in self.sides)
        one.sessions.learn(other.card)
        other.sessions.learn(one.card)

    def send(self, number: int, datagrams: list[Datagram], sent: list[Addressed]) -> None:
        """Send the datagrams of one node, of the same kinds in both worlds."""
        contents = [each.content for each in sent]
        assert [each.data[1] for each in datagrams] == [KIND[type(each)] for each in contents]
        pairs = zip(datagrams, contents, strict=True)
        self.under_way += [(1 - number, datagram, content) for datagram, content in pairs]

    def run_timers(self) -> None:
        """Let both nodes repeat their hellos."""
        for number, side in enumerate(self.sides):
            now = self.wire.now
            assert side.real.sessions.next_timer() == side.model.next_timer()
            if side.model.next_timer() <= now:
                repeated = side.model.handle_timer(now)
                self.send(number, side.real.sessions.handle_timer(now), repeated)

    def seal(self, number: int) -> None:
        """Let one node send a payload to the other."""
        side, to = self.sides[number], self.node_id(1 - number)
        payload, now = self.rng.randbytes(4), self.wire.now
        self.send(
            number,
            side.real.sessions.seal(to, payload, now),
            side.model.seal(to, payload, now),
        )

    def contact(self, number: int) -> None:
        """Let one node contact the other as if it did not know it."""
        side, to = self.sides[number], self.sides[1 - number].real.card.address
        sent = [Addressed(to, side.model.first_contact())]
        self.send(number, side.real.sessions.first_hello(to, 7948, self.wire.now), sent)

    def hand(self, number: int) -> None:
        """Let one node send the other its newest key."""
        side, to, now = self.sides[number], self.node_id(1 - number), self.wire.now
        self.send(number, side.real.sessions.send_key(to, now), side.model.send_key(to, now))

    def follow(self, number: int, ring: Ring, new: ClusterKey | None = None) -> None:
        """Let one node use a ring."""
        side, now = self.sides[number], self.wire.now
        side.real.keyring.replace(ring, new)
        said = side.model.follow(ring, now)
        self.send(number, side.real.sessions.keys_changed(now), said)

    def turn(self, number: int) -> None:
        """Let one node take a rotation step, sensible or not."""
        ring = self.sides[number].real.keyring.ring
        unknown = [key for key in KEYS if ring.accepts(key.id)][:1]
        others = sorted(ring.held - {ring.sealing})
        match self.rng.choice(["hold", "use", "drop"]):
            case "hold" if unknown:
                self.follow(number, ring.with_key(unknown[0].id), unknown[0])
            case "use" if ring.newest > ring.sealing:
                self.follow(number, replace(ring, sealing=ring.newest))
            case "drop" if others:
                self.follow(number, replace(ring, held=ring.held - {others[0]}))

    def restart(self, number: int) -> None:
        """End a process and all its datagrams under way, and start another one."""
        self.under_way.clear()
        self.sides[number] = self._start(number, self.sides[number])
        self._introduce()

    def deliver(self) -> None:
        """Deliver any datagram; the result must be the same in both worlds."""
        index = self.rng.randrange(len(self.under_way))
        number, datagram, content = self.under_way[index]
        if self.rng.random() < 0.95:  # else the network has duplicated it
            del self.under_way[index]
        real, key = self._open_real(number, datagram)
        assert real == self._open_modelled(number, content)
        ring = self.sides[number].real.keyring.ring
        if key is not None and ring.accepts(key.id):
            self.follow(number, ring.with_key(key.id), key)

    def _open_real(self, number: int, datagram: Datagram) -> tuple[object, ClusterKey | None]:
        side = self.sides[number]
        try:
            opened = side.real.sessions.open(
                datagram.data, self.wire.source(datagram), self.wire.now
            )
        except RemoteError as error:
            self.dropped.add(error.reason)
            return (None, None, None, error.reason), None
        self._replies = list(opened.replies)
        self.opened += opened.payload is not None
        if opened.dropped:
            self.dropped.add(opened.dropped)
        key = None if opened.key is None else opened.key.id
        return (opened.payload, key, opened.card, opened.dropped), opened.key

    _replies: list[Datagram]

    def _open_modelled(self, number: int, content: Content) -> object:
        model, sender = self.sides[number].model, self.node_id(1 - number)
        replies, self._replies = self._replies, []
        source = self.sides[1 - number].real.card.address
        opened = model.open(sender, content, source, self.wire.now)
        self.send(number, replies, list(opened.replies))
        return opened.payload, opened.key, opened.card, opened.dropped

    def node_id(self, number: int) -> NodeId:
        """Return a node's id."""
        return self.sides[number].real.node_id

    def step(self) -> None:
        """Let one random event happen."""
        self._replies = []
        self.wire.now += self.rng.choice([0.0, 0.01, 0.15, 1.1, 200.0 * (self.rng.random() < 0.02)])
        self.run_timers()
        number = self.rng.randrange(2)
        dice = self.rng.random()
        if self.under_way and dice < 0.6:
            self.deliver()
        elif self.under_way and dice < 0.65:
            self.under_way.pop(self.rng.randrange(len(self.under_way)))
        elif dice < 0.87:
            self.seal(number)
        elif dice < 0.9:
            self.contact(number)
        elif dice < 0.93:
            self.hand(number)
        elif dice < 0.99:
            self.turn(number)
        else:
            self.restart(number)


def test_the_model_does_what_the_real_sessions_do() -> None:
    """Both send, open and drop the same, for the same reasons."""
    dropped: set[str] = set()
    for seed in range(1, 31):
        alike = Alike(seed)
        for step in range(STEPS):
            try:
                alike.step()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, step {step}") from error
        assert alike.opened > STEPS / 20
        dropped |= alike.dropped

    assert dropped == {"unknown-generation", "no-session", "late-response", "replayed"}
