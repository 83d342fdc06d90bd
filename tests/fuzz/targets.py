"""Fuzzing targets: all network decoders, and a member's receive path.

Each target takes bytes and returns the drop reason, or "" if they were accepted. Any exception is
a defect, and so is a drop without a reason. Used by `scripts/fuzz.py` (atheris, millions of
inputs) and by `test_targets` (hypothesis, hundreds).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

from overlay.core.node import Node
from overlay.core.protocol.settings import ProtocolSettings
from overlay.errors import OverlayError, RemoteError
from overlay.model import parse_ip
from overlay.wire.codec.datagram import read_header
from overlay.wire.codec.messages import MsgpackCodec
from overlay.wire.codec.records import unpack_card, unpack_segment
from overlay.wire.identity.authority import TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.identity.token import Token
from overlay.wire.session.handshake_limiter import HandshakeLimiter
from overlay.wire.session.hello import read_hello
from overlay.wire.session.key_transfer import read_key_body
from tests.wire.conftest import AUTHORITY, Host, Wire
from tests.wire.test_admission import Member, Policy, member

Target: TypeAlias = Callable[[bytes], str]
STEP_S = 0.001  # between two datagrams: timers, windows and rates all take effect
STRANGER = parse_ip("10.0.0.99")
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
        self.gate = HandshakeLimiter(self.own.sessions.is_member_address, self.wire.now)
        self.door: Member = member(1, self.own.card.address, Policy(is_holder=True))
        self.codec = MsgpackCodec()

    def _node(self, host: Host) -> Node:
        signer = KeySigner(host.identity, TrustAnchor(AUTHORITY.anchor))
        rng = random.Random(1)
        return Node(host.card, signer, MsgpackCodec(), rng, ProtocolSettings(), self.wire.now)

    def from_the_wire(self, data: bytes) -> str:
        """Handle any bytes from any address."""
        self._pass_time()
        now = self.wire.now
        try:
            header = read_header(data)
            self.gate.check(header.kind, STRANGER, now)
            opened = self.own.sessions.open(header, data, now)
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
        (sealed,) = self.peer.sessions.seal(self.own.node_id, payload, now)
        try:
            opened = self.own.sessions.open(read_header(sealed.data), sealed.data, now)
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
        due = self.node.next_timer()
        if due is not None and self.wire.now >= due:
            self.node.handle_timer(self.wire.now)
        while self.node.next_event() is not None:
            pass
        self.node.outbox.drain(self.node.membership)


def decoders(data: bytes) -> str:
    """Decode any bytes as payload, card, segment, cluster key and hello."""
    reasons = [""]
    for decode in (
        MsgpackCodec().decode,
        lambda raw: unpack_card(raw, bytes(64)),
        lambda raw: unpack_segment(raw, bytes(64)),
        read_key_body,
        lambda raw: read_hello(NODE.node_id, NOTARY, raw),
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
        "door": intake.at_the_door,
        "member": intake.from_a_member,
        "decoders": decoders,
        "token": token,
    }
    return targets[name]


NAMES = ("wire", "door", "member", "decoders", "token")
