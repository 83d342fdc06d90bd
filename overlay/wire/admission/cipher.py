"""Seal and open the datagrams of the join handshake, for both sides."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay.errors import RemoteError
from overlay.model import NodeId
from overlay.wire.admission.messages import CLEAR_SIZE, seal_key_of
from overlay.wire.codec import validation
from overlay.wire.codec.contact_header import ContactHeader, new_header
from overlay.wire.codec.datagram import JOIN_HELLO, JOIN_REQUEST
from overlay.wire.handshake.box import derive, open_box, seal
from overlay.wire.handshake.hello import BAD_CARD
from overlay.wire.identity.identity import Identity


class JoinCipher:
    """Seals and opens the join handshake, for both sides."""

    def __init__(
        self, identity: Identity, cluster_id: bytes, random_bytes: Callable[[int], bytes]
    ) -> None:
        self.identity = identity
        self.cluster_id = cluster_id
        self.random_bytes = random_bytes

    def seal_hello(
        self, token_id: bytes, join_key: bytes, recipient: bytes, body: list[object]
    ) -> bytes:
        """Return a datagram that every holder of the join key can open."""
        header = self._header(JOIN_HELLO)
        context = self.cluster_id + recipient
        return seal(_hello_key(join_key), header, context, msgpack.packb(body), token_id)

    def seal_request(
        self, token_id: bytes, join_key: bytes, peer: tuple[NodeId, bytes], body: list[object]
    ) -> bytes:
        """Return a datagram that one peer, given by id and seal key, can open."""
        other, seal_key = peer
        key = self._pair_key(join_key, seal_key, self.identity.node_id, other)
        clear = token_id + self.identity.seal_public
        return seal(
            key, self._header(JOIN_REQUEST), self.cluster_id + other, msgpack.packb(body), clear
        )

    def open(
        self, header: ContactHeader, join_key: bytes, data: bytes, recipient: bytes
    ) -> tuple[object, ...]:
        """Return the opened body, an array; raises RemoteError."""
        size = CLEAR_SIZE[header.kind]
        context = self.cluster_id + recipient
        if header.kind == JOIN_HELLO:
            key = _hello_key(join_key)
        else:
            key = self._pair_key(join_key, seal_key_of(data), header.sender, self.identity.node_id)
        return validation.items(validation.unpack(open_box(key, header, context, data, size)), 10)

    def _header(self, kind: int) -> ContactHeader:
        return new_header(kind, self.identity.node_id, self.random_bytes)

    def _pair_key(
        self, join_key: bytes, seal_key: bytes, sender: NodeId, recipient: NodeId
    ) -> AESGCM:
        try:
            shared = self.identity.agree(seal_key)
        except ValueError:
            raise RemoteError(BAD_CARD) from None
        return derive(shared + join_key, b"", b"overlayd/1 admit" + sender + recipient)


def _hello_key(join_key: bytes) -> AESGCM:
    return derive(join_key, b"", b"overlayd/1 knock")
