"""Fuzzing targets: all network decoders, and a member's receive path.

Each target takes bytes and returns the drop reason, or "" if they were accepted. Any exception is
a defect, and so is a drop without a reason. Used by `scripts/fuzz.py` (atheris, millions of
inputs) and by `test_targets` (hypothesis, hundreds).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

from overlay import limits
from overlay.core.node import Node
from overlay.core.protocol.settings import ProtocolSettings
from overlay.errors import OverlayError, RemoteError
from overlay.model import parse_ip
from overlay.wire.codec.cards import unpack_card
from overlay.wire.codec.datagram import (
    DATA,
    HELLO,
    JOIN,
    KIND_AT,
    RESPONSE,
    VERSION,
    UdpEndpoint,
)
from overlay.wire.codec.messages import MsgpackCodec
from overlay.wire.codec.segments import unpack_segment
from overlay.wire.codec.session_header import data_header, hello_header
from overlay.wire.handshake.cookies import mac, receiver_key
from overlay.wire.handshake.handshake_maker import HandshakeMaker
from overlay.wire.handshake.hello import read_join, read_statement
from overlay.wire.handshake.key_transfer import read_key_body
from overlay.wire.handshake.noise import Initiator, nonce
from overlay.wire.identity.authority import TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.identity.token import Token
from overlay.wire.session.frames import read_frame
from tests.wire.conftest import AUTHORITY, Host, Wire
from tests.wire.test_admission import Member, Policy, member

Target: TypeAlias = Callable[[bytes], str]
STEP_S = 0.001  # between two datagrams: timers, windows and rates all take effect
STRANGER = UdpEndpoint(parse_ip("10.0.0.99"), 7948)
NODE = Identity(b"i" * 32, b"s" * 32)
NOTARY = KeySigner(NODE, TrustAnchor(AUTHORITY.anchor))


class Intake:
    """A member as seen from its socket, and a peer of it."""

    def __init__(self) -> None:
        self.wire = Wire(4711)
        self.own, self.peer = self.wire.host(1), self.wire.host(2)
        self.wire.meet(self.peer, self.own)
        self.node = self._node(self.own)
        self.node.add_peer(self.peer.card, self.wire.now)
        self.timers_every = 1  # inputs
        self._steps = 0
        self.cluster_id = TrustAnchor(AUTHORITY.anchor).cluster_id
        self.door: Member = member(1, self.own.card.address, Policy(is_holder=True))
        self.codec = MsgpackCodec()

    def _node(self, host: Host) -> Node:
        signer = KeySigner(host.identity, TrustAnchor(AUTHORITY.anchor))
        rng = random.Random(1)
        return Node(host.card, signer, MsgpackCodec(), rng, ProtocolSettings(), self.wire.now)

    def from_the_wire(self, data: bytes) -> str:
        """Handle any bytes, from a stranger's address and from a member's."""
        self._pass_time()
        now = self.wire.now
        reasons = [""]
        for source in (STRANGER, UdpEndpoint(self.peer.card.address, 7948)):
            try:
                opened = self.own.sessions.open(data, source, now)
                reasons.append(opened.dropped)
            except RemoteError as error:
                reasons.append(error.reason)
        return reasons[-1]

    def with_macs(self, data: bytes) -> str:
        """Handle any bytes behind the right header and before the right mac: as an insider's."""
        kind = (HELLO, JOIN, RESPONSE)[data[0] % 3] if data else HELLO
        name = self.own.identity.seal_public if kind == HELLO else self.cluster_id
        inside = bytes([VERSION, kind]) + data[1 : limits.DATAGRAM_SIZE_MAX - 40]
        mac1 = mac(receiver_key(name), inside)
        return self.from_the_wire(inside + mac1 + bytes(16))

    def as_a_newcomer(self, data: bytes) -> str:
        """Handle any statement in a hello whose sender has no certificate."""
        self._pass_time()
        identity = Identity(b"n" * 32, (data[:1] or b"x") * 32)
        maker = HandshakeMaker(identity, self.cluster_id, self.wire.rng.randbytes)
        initiator = Initiator(
            identity.seal_pair, maker._ephemeral(), self.own.card.seal_key, maker._prologue
        )
        inside = hello_header(1) + initiator.write(data[:1000])
        mac1 = mac(receiver_key(self.own.card.seal_key), inside)
        return self.from_the_wire(inside + mac1 + bytes(16))

    def in_a_frame(self, plain: bytes) -> str:
        """Handle any plaintext under a session's keys."""
        self._pass_time()
        now = self.wire.now
        link = self.peer.sessions.table.find(self.own.node_id)
        session = None if link is None else link.current
        if link is None or session is None or now >= session.sends_until():
            self.wire.deliver(self.peer.sessions.seal(self.own.node_id, b"", now))
            return ""
        header = data_header(session.peer.number, session.counter)
        box = session.keys.sending.encrypt(nonce(session.counter), plain, header)
        session.counter += 1
        try:
            opened = self.own.sessions.open(
                header + box, UdpEndpoint(self.peer.card.address, 7948), now
            )
        except RemoteError as error:
            return error.reason
        return opened.dropped

    def at_the_door(self, data: bytes) -> str:
        """Handle any bytes as part of a join handshake."""
        try:
            self.door.responder.open(data)
        except RemoteError as error:
            return error.reason
        return ""

    def from_a_member(self, payload: bytes) -> str:
        """Handle any payload sealed by a member, as with a stolen key."""
        self._pass_time()
        now = self.wire.now
        payload = payload[: limits.PAYLOAD_SIZE_MAX]
        sent = self.peer.sessions.seal(self.own.node_id, payload, now)
        if [each.data[KIND_AT] for each in sent] != [DATA]:  # the session is being renewed
            self.wire.deliver(sent)
            self.wire.payloads.clear()
            return ""
        (sealed,) = sent
        try:
            opened = self.own.sessions.open(sealed.data, self.wire.source(sealed), now)
            assert opened.payload == payload
            messages = self.codec.decode(payload)
        except RemoteError as error:
            return error.reason
        reason = ""
        for message in messages:
            try:
                self.node.receive(message, opened.sender, now)
            except RemoteError as error:
                reason = error.reason
        return reason

    def _pass_time(self) -> None:
        """Run the node's timers as its transport would, without receivers."""
        self.wire.now += STEP_S
        self._steps += 1
        if self._steps % self.timers_every:
            return
        due = self.node.next_timer()
        if due is not None and self.wire.now >= due:
            self.node.handle_timer(self.wire.now)
        while self.node.next_event() is not None:
            pass
        self.node.outbox.drain(self.node.membership)
        for host in (self.own, self.peer):
            if host.sessions.next_timer() <= self.wire.now:
                host.sessions.handle_timer(self.wire.now)
        self.wire.sources.clear()


def decoders(data: bytes) -> str:
    """Decode any bytes as payload, card, segment, cluster key, frame, join and statement."""
    reasons = [""]
    for decode in (
        MsgpackCodec().decode,
        lambda raw: unpack_card(raw, bytes(64)),
        lambda raw: unpack_segment(raw, bytes(64)),
        read_key_body,
        read_frame,
        lambda raw: read_join(NOTARY, raw, None),
        lambda raw: read_statement(NOTARY, raw, None),
    ):
        try:
            decode(data)
        except RemoteError as error:
            reasons.append(error.reason)
    return reasons[-1]


def token(data: bytes) -> str:
    """Parse any text as a token: users type those, so the error is for them."""
    try:
        Token.parse(data.decode("utf-8", "replace"))
    except OverlayError as error:
        return error.what
    return ""


def make(name: str) -> Target:
    """Return a fresh target."""
    intake = Intake()
    targets: dict[str, Target] = {
        "wire": intake.from_the_wire,
        "insider": intake.with_macs,
        "newcomer": intake.as_a_newcomer,
        "frame": intake.in_a_frame,
        "door": intake.at_the_door,
        "member": intake.from_a_member,
        "decoders": decoders,
        "token": token,
    }
    return targets[name]


NAMES = ("wire", "insider", "newcomer", "frame", "door", "member", "decoders", "token")
