"""Identities, cards and sessions for tests; all randomness is seeded."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pytest
from overlay.errors import RemoteError
from overlay.model import Card, Ip, NodeId, parse_ip
from overlay.wire.codec.datagram import Datagram, UdpEndpoint
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import ClusterKey, Keyring
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.session.opened_datagram import OpenedDatagram
from overlay.wire.session.sessions import Sessions

AUTHORITY = Authority(b"a" * 32)
SECRET = b"s" * 32
STRANGER = UdpEndpoint(parse_ip("10.9.9.9"), 7948)
EPOCH_S = 1_760_000_000.0  # Unix time at the start of a wire's clock


def made_key(
    generation: int, authority: Authority = AUTHORITY, secret: bytes = SECRET
) -> ClusterKey:
    """Return a cluster key of a generation, the same at each call."""
    return authority.make_key(generation, secret[1:] + bytes([generation]), EPOCH_S)


@dataclass
class Host:
    """One process of one node."""

    identity: Identity
    card: Card
    sessions: TracedSessions
    keyring: Keyring

    @property
    def node_id(self) -> NodeId:
        """The node's id."""
        return self.card.node_id


class TracedSessions(Sessions):
    """Sessions that note the source of each datagram that they make."""

    def trace(self, sources: dict[bytes, UdpEndpoint], own: UdpEndpoint) -> None:
        """Note all datagrams from now on as coming from an address."""
        self._sources, self._own = sources, own

    def _traced(self, made: Iterable[Datagram]) -> list[Datagram]:
        found = list(made)
        self._sources.update((each.data, self._own) for each in found)
        return found

    def seal(self, to: NodeId, payload: bytes, now: float) -> list[Datagram]:
        """Return the datagrams for a payload."""
        return self._traced(super().seal(to, payload, now))

    def first_hello(self, address: Ip, port: int, now: float) -> list[Datagram]:
        """Return a first contact."""
        return self._traced(super().first_hello(address, port, now))

    def send_key(self, to: NodeId, now: float) -> list[Datagram]:
        """Return the newest key for a peer."""
        return self._traced(super().send_key(to, now))

    def keys_changed(self, now: float) -> list[Datagram]:
        """Follow the keyring."""
        return self._traced(super().keys_changed(now))

    def handle_timer(self, now: float) -> list[Datagram]:
        """Return repeated hellos."""
        return self._traced(super().handle_timer(now))

    def open(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        """Return a datagram's content."""
        opened = super().open(data, source, now)
        self._traced(opened.replies)
        return opened


class Wire:
    """Hosts by address; delivers datagrams, and records payloads and drops."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.hosts: dict[Ip, Host] = {}
        self.payloads: list[tuple[NodeId, bytes]] = []
        self.drops: list[str] = []
        self.now = 0.0
        self.seen: list[Datagram] = []
        self.sources: dict[bytes, UdpEndpoint] = {}  # of all datagrams that a host has made

    def wall_clock(self) -> float:
        """Return Unix time."""
        return EPOCH_S + self.now

    def host(
        self,
        number: int,
        *,
        identity: Identity | None = None,
        epoch: int = 1,
        authority: Authority = AUTHORITY,
        certified_by: Authority | None = None,
        keys: tuple[ClusterKey, ...] = (),
    ) -> Host:
        """Start a process at 10.0.0.`number`, with a new identity by default."""
        own = identity or Identity.generate(self.rng.randbytes)
        address = parse_ip(f"10.0.0.{number}")
        name = f"vm{number}"
        certificate = (certified_by or authority).sign_certificate(
            own.sign_public, own.seal_public, name, address, self.wall_clock()
        )
        signer = KeySigner(own, TrustAnchor(authority.anchor))
        card = signer.issue_card(
            Card(own.node_id, name, own.sign_public, own.seal_public, address, 7948,
                 epoch, 1500, "0.1.0", certificate=certificate)
        )  # fmt: skip
        held = keys or (made_key(0, authority),)
        keyring = Keyring(held, held[0].id)
        sessions = TracedSessions(own, signer, keyring, card, self.rng.randbytes, self.wall_clock)
        sessions.trace(self.sources, UdpEndpoint(address, card.gossip_port))
        self.hosts[address] = Host(own, card, sessions, keyring)
        return self.hosts[address]

    def deliver(
        self, datagrams: list[Datagram], keep: Callable[[Datagram], bool] = lambda _: True
    ) -> None:
        """Deliver datagrams and replies, if `keep` returns true; bounded."""
        waiting = list(datagrams)
        for _ in range(200):
            if not waiting:
                return
            datagram = waiting.pop(0)
            self.seen.append(datagram)
            self.now += 0.11
            if keep(datagram):
                waiting += self.open(datagram)
        raise AssertionError("the hosts never stop answering each other")

    def open(self, datagram: Datagram) -> list[Datagram]:
        """Deliver one datagram; return the replies."""
        receiver = self.hosts[datagram.address]
        try:
            opened = receiver.sessions.open(datagram.data, self.source(datagram), self.now)
        except RemoteError as error:
            self.drops.append(error.reason)
            return []
        if opened.dropped:
            self.drops.append(opened.dropped)
        if opened.payload is not None:
            self.payloads.append((opened.sender, opened.payload))
        if opened.key is not None and receiver.keyring.ring.accepts(opened.key.id):
            return [*opened.replies, *self.hold(receiver, opened.key)]
        return list(opened.replies)

    def source(self, datagram: Datagram) -> UdpEndpoint:
        """Return where a datagram came from; one that no host has made is a stranger's."""
        return self.sources.get(datagram.data, STRANGER)

    def hold(self, host: Host, key: ClusterKey) -> list[Datagram]:
        """Let a host hold one more key; return what it sends then."""
        host.keyring.replace(host.keyring.ring.with_key(key.id), key)
        return host.sessions.keys_changed(self.now)

    def use(self, host: Host, key: ClusterKey) -> list[Datagram]:
        """Let a host seal with a key that it holds; return what it sends then."""
        host.keyring.replace(replace(host.keyring.ring, sealing=key.id))
        return host.sessions.keys_changed(self.now)

    def drop(self, host: Host, key: ClusterKey) -> list[Datagram]:
        """Let a host drop a key; return what it sends then."""
        ring = host.keyring.ring
        host.keyring.replace(replace(ring, held=ring.held - {key.id}))
        return host.sessions.keys_changed(self.now)

    def meet(self, one: Host, other: Host) -> None:
        """Let one host join through the other."""
        self.deliver(one.sessions.first_hello(other.card.address, 7948, self.now))
        assert one.sessions.established(other.node_id, self.now)
        assert other.sessions.established(one.node_id, self.now)


@pytest.fixture
def wire() -> Wire:
    """Return an empty wire."""
    return Wire(7)


@pytest.fixture(scope="session")
def new_wire() -> type[Wire]:
    """Return the class of wires, for tests that need one per example."""
    return Wire


def pair(wire: Wire) -> tuple[Host, Host]:
    """Return two hosts that know each other."""
    one, other = wire.host(1), wire.host(2)
    wire.meet(one, other)
    return one, other
