"""The two messages of a session's handshake, as datagrams.

Owns: Noise with this cluster's prologue and keys, around the statements of both processes. Does
not: keep sessions, know who is trusted, or decide when a hello is sent or answered (`sessions`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from overlay import limits
from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import Card
from overlay.wire.codec.datagram import TOO_SHORT, VERSION
from overlay.wire.codec.session_header import (
    RESPONSE_SIZE,
    SHORT_SIZE,
    hello_header,
    response_header,
)
from overlay.wire.handshake.hello import Statement, statement_body
from overlay.wire.handshake.noise import (
    FIRST_SIZE,
    KEY_SIZE,
    SECOND_SIZE,
    Initiator,
    Responder,
    TransportKeys,
)
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.key_pair import KeyPair

NO_CLUSTER_KEY = bytes(32)  # in the handshake of members that share no cluster key


class OpenedHello(NamedTuple):
    """A hello whose sender has the seal key `seal_key`; it may be a recording."""

    seal_key: bytes
    ephemeral: bytes
    body: bytes
    responder: Responder


class HandshakeMaker:
    """Makes and opens the handshakes of one process."""

    def __init__(
        self, identity: Identity, cluster_id: bytes, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._static = identity.seal_pair
        self._prologue = b"overlayd" + bytes([VERSION]) + cluster_id
        self._random_bytes = random_bytes

    def hello(self, statement: Statement, to: Card) -> tuple[Initiator, bytes]:
        """Return a hello to a peer, and what opens the response; raises RemoteError."""
        initiator = Initiator(self._static, self._ephemeral(), to.seal_key, self._prologue)
        message = initiator.write(statement_body(statement))
        return initiator, hello_header(statement.number) + message

    def open_hello(self, data: bytes) -> OpenedHello:
        """Return what a hello contains; raises RemoteError."""
        if len(data) < SHORT_SIZE + FIRST_SIZE:
            raise RemoteError(TOO_SHORT)
        responder = Responder(self._static, self._prologue)
        body = responder.read(data[SHORT_SIZE:])
        return OpenedHello(
            responder.initiator_static, responder.initiator_ephemeral, body, responder
        )

    def response(
        self,
        responder: Responder,
        statement: Statement,
        receiver_index: int,
        key: tuple[KeyId, bytes] | None,
        *,
        is_banned: bool = False,
    ) -> tuple[TransportKeys, bytes]:
        """Return the response to a hello, and the session's keys; `key` is a cluster key."""
        known, psk = key or (None, NO_CLUSTER_KEY)
        body = statement_body(statement, is_banned=is_banned)
        message, keys = responder.write(self._ephemeral(), psk, body)
        return keys, response_header(statement.number, receiver_index, known) + message

    @staticmethod
    def open_response(initiator: Initiator, data: bytes, psk: bytes) -> tuple[bytes, TransportKeys]:
        """Return the body of a response, and the session's keys; raises RemoteError."""
        if len(data) < RESPONSE_SIZE + SECOND_SIZE:
            raise RemoteError(TOO_SHORT)
        return initiator.read(data[RESPONSE_SIZE:], psk)

    def _ephemeral(self) -> KeyPair:
        return KeyPair(self._random_bytes(KEY_SIZE))


assert limits.TAG_SIZE == SECOND_SIZE - KEY_SIZE, "both boxes are AES-256-GCM"
