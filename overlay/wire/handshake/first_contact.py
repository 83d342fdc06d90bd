"""Joins: how members that do not have each other's cards learn them.

A join is sealed under a cluster key, which all members have. So it proves nothing but membership,
and teaches nothing but cards, which their subjects sign; a session comes from a handshake alone.

Owns: sealing and opening joins. Does not: know when one is sent or answered (`sessions`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import Card, NodeId
from overlay.wire.codec.contact_header import join_header, read_contact_header
from overlay.wire.codec.datagram import OWN_DATAGRAM
from overlay.wire.handshake.box import derive, open_box, seal
from overlay.wire.handshake.hello import BAD_CARD, Join, read_join
from overlay.wire.identity.keyring import Keyring
from overlay.wire.identity.signatures import KeySigner

UNKNOWN_GENERATION = "unknown-generation"
_NOBODY = bytes(16)


class ReceivedJoin(NamedTuple):
    """A join; neither `key` nor `join` if it is sealed under a key that is not held."""

    sender: NodeId
    key: KeyId | None
    join: Join | None


class FirstContact:
    """Seals and opens the joins of one process."""

    def __init__(
        self,
        own: NodeId,
        cluster_id: bytes,
        keyring: Keyring,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._own = own
        self._context = cluster_id + _NOBODY
        self._keyring = keyring
        self._random_bytes = random_bytes
        self._ciphers: dict[KeyId, AESGCM] = {}

    def seal(self, key: KeyId, body: bytes) -> bytes:
        """Return a join, for any holder of a cluster key."""
        header = join_header(key, self._own, self._random_bytes)
        return seal(self._cipher(key), header, self._context, body)

    def read(
        self, data: bytes, signer: KeySigner, known: Callable[[NodeId], Card | None]
    ) -> ReceivedJoin:
        """Return a join without its macs; raises RemoteError.

        `known` returns a card that was verified before.
        """
        header = read_contact_header(data)
        if header.sender == self._own:
            raise RemoteError(OWN_DATAGRAM)
        key = self._keyring.named(header.generation, header.mark)
        if key is None:
            return ReceivedJoin(header.sender, None, None)
        body = open_box(self._cipher(key), header, self._context, data)
        join = read_join(signer, body, known(header.sender))
        if join.card.node_id != header.sender:
            raise RemoteError(BAD_CARD)
        return ReceivedJoin(header.sender, key, join)

    def forget_keys(self) -> None:
        """Drop what is derived from cluster keys that are gone."""
        held = self._keyring.ring.held
        self._ciphers = {each: kept for each, kept in self._ciphers.items() if each in held}

    def _cipher(self, key: KeyId) -> AESGCM:
        if key not in self._ciphers:
            self._ciphers[key] = derive(self._keyring.secret(key), b"", b"overlayd/2 join")
        return self._ciphers[key]
