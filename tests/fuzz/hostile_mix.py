"""A mix of hostile datagrams against one member's sessions, by a seeded random generator.

Used by `scripts/hostile_datagrams.py` (millions) and `test_hostile_mix` (thousands).
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable

from overlay.wire.codec.datagram import VERSION, Datagram, UdpEndpoint
from tests.fuzz.targets import STRANGER, Intake

RECORDED_MAX = 256
PING_EVERY = 2000  # hostile datagrams between two payloads of the honest peer


class HostileMix:
    """Junk, changed and recorded datagrams, an insider's, and frames under a stolen session key.

    Now and then an honest peer sends a payload, which must arrive. Any exception that is not a
    named drop is a defect.
    """

    def __init__(self, seed: int, seeds: list[bytes]) -> None:
        self.rng = random.Random(seed)
        self.intake = Intake()
        self.intake.timers_every = 64
        self.seeds = seeds
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.delivered = 0
        self._recorded: list[Datagram] = []
        # Weights: hellos with the right mac cost the attacker as much as the attacked.
        self._attacks: list[tuple[Callable[[], str], int]] = [
            (lambda: self.intake.from_the_wire(self._junk()), 30),
            (lambda: self.intake.from_the_wire(self._changed()), 30),
            (lambda: self.intake.with_macs(self._changed()), 5),
            (lambda: self.intake.as_a_newcomer(self._changed()[:900]), 1),
            (lambda: self.intake.in_a_frame(self._changed()), 14),
            (self._replay, 20),
        ]

    def run(self, count: int) -> None:
        """Send so many hostile datagrams; raises on the first defect."""
        attacks, weights = zip(*self._attacks, strict=True)
        for number, attack in enumerate(self.rng.choices(attacks, weights, k=count)):
            reason = attack()
            assert isinstance(reason, str)
            self.verdicts[reason] += 1
            if number % PING_EVERY == PING_EVERY - 1:
                self._ping()

    def _junk(self) -> bytes:
        kind = self.rng.randrange(9)
        return bytes([VERSION, kind]) + self.rng.randbytes(self.rng.randrange(1300))

    def _changed(self) -> bytes:
        """Return a valid datagram with some bytes changed, cut or doubled."""
        rng = self.rng
        recorded = [each.data for each in self._recorded[-8:]]
        data = bytearray(rng.choice([*self.seeds, *recorded]))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data) or 1)
            data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
        return bytes(data[:1300])

    def _replay(self) -> str:
        """Play back something that the honest peer has sent."""
        if not self._recorded:
            return ""
        datagram = self.rng.choice(self._recorded)
        source = self.rng.choice([STRANGER, UdpEndpoint(self.intake.peer.card.address, 7948)])
        self.intake.wire.sources[datagram.data] = source
        drops, payloads = self.intake.wire.drops, self.intake.wire.payloads
        drops.clear()
        self.intake.wire.open(datagram)
        assert payloads == [], "a recording was accepted"
        return drops[0] if drops else ""

    def _ping(self) -> None:
        """Let the honest peer send a payload, and the member answer."""
        intake = self.intake
        intake.wire.now += 1.0
        for one, other in ((intake.peer, intake.own), (intake.own, intake.peer)):
            intake.wire.seen.clear()
            intake.wire.deliver(one.sessions.seal(other.node_id, b"ping", intake.wire.now))
            self._recorded += [
                each for each in intake.wire.seen if each.address == intake.own.card.address
            ]
        self._recorded = self._recorded[-RECORDED_MAX:]
        arrived = [payload for _, payload in intake.wire.payloads]
        assert arrived == [b"ping", b"ping"], f"the honest payloads did not arrive: {arrived}"
        self.delivered += 2
        intake.wire.payloads.clear()
        intake.wire.drops.clear()

    def sizes(self) -> dict[str, int]:
        """Return how much the attacked member remembers."""
        sessions = self.intake.own.sessions
        return {
            "links": len(list(sessions.table.links())),
            "sessions": len(sessions.table._sessions),
            "handshakes": len(sessions.table._handshakes),
            "newcomers": len(sessions.context.newcomers._since),
            "sources": len(sessions.context.gate._sources),
            "cookies": len(sessions.context.maker.jar._cookies)
            + len(sessions.context.maker.jar._sent),
            "cards": len(self.intake.node.store.cards),
        }
