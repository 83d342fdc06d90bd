"""Seal and open datagrams: by two identities, or under a cluster key.

Owns: which key seals which kind of datagram, headers and contexts. Does not: know what a body
says, who is trusted, or when anything is sent (`sessions`).
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay import limits
from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import NodeId
from overlay.wire.codec.datagram import (
    DATA,
    HELLO,
    JOIN,
    KEY,
    NOTICE,
    UNAUTHENTICATED,
    VERSION,
    Header,
    header_under,
)
from overlay.wire.identity.identity import Identity, derive_bytes
from overlay.wire.identity.keyring import Keyring
from overlay.wire.session.peers import Channel, Peer, SessionKeys

# Sealed with pairwise keys, so that a node that missed any number of cluster keys can open them.
PAIRWISE = {
    HELLO: b"overlayd/1 hello",
    NOTICE: b"overlayd/1 notice",
    KEY: b"overlayd/1 key",
}
_NOBODY = bytes(16)
UNKNOWN_GENERATION = "unknown-generation"


class Sealer:
    """Seals and opens datagrams for one process of one node."""

    def __init__(
        self,
        identity: Identity,
        cluster_id: bytes,
        keyring: Keyring,
        random_bytes: Callable[[int], bytes],
        session: bytes,
    ) -> None:
        self.own: NodeId = identity.node_id
        self.keyring = keyring
        self._cluster_id = cluster_id
        self._random_bytes = random_bytes
        self._session = session

    # --- by the two identities -------------------------------------------------------------

    def to_pair(self, kind: int, peer: Peer, body: bytes) -> bytes:
        """Return a hello, notice or key for one peer."""
        # These keys outlive a process, so their whole nonce is random.
        header = Header(VERSION, kind, 0, self.own, self._random_number(8), self._random_bytes(4))
        other = peer.card.node_id
        return seal(_pair_key(kind, peer, self.own, other), header, self._cluster_id + other, body)

    def open_pair(self, peer: Peer, header: Header, data: bytes) -> bytes:
        """Return the body of a peer's hello, notice or key; raises RemoteError."""
        key = _pair_key(header.kind, peer, header.sender, self.own)
        return open_box(key, header, self._cluster_id + self.own, data)

    # --- under a cluster key ---------------------------------------------------------------

    def key_of(self, header: Header) -> KeyId:
        """Return the cluster key that a datagram names.

        Raises RemoteError if it is not held.
        """
        key = self.keyring.key_of_header(header)
        if key is None:
            raise RemoteError(UNKNOWN_GENERATION)
        return key

    def join(self, key: KeyId, body: bytes) -> bytes:
        """Return a first contact, for any holder of a cluster key."""
        header = header_under(JOIN, key, self.own, self._random_number(8), self._random_bytes(4))
        return seal(self._join_key(key), header, self._cluster_id + _NOBODY, body)

    def open_join(self, key: KeyId, header: Header, data: bytes) -> bytes:
        """Return the body of a first contact; raises RemoteError."""
        return open_box(self._join_key(key), header, self._cluster_id + _NOBODY, data)

    def data(self, peer: Peer, channel: Channel, key: KeyId, payload: bytes) -> bytes:
        """Return a payload sealed for a peer's session."""
        header = header_under(DATA, key, self.own, channel.counter, self._random_bytes(4))
        channel.counter += 1
        sending = self._keys(peer, channel, key).sending
        return seal(sending, header, self._cluster_id + peer.card.node_id, payload)

    def open_data(
        self, peer: Peer, channel: Channel, key: KeyId, header: Header, data: bytes
    ) -> bytes:
        """Return the payload of a peer's session; raises RemoteError."""
        receiving = self._keys(peer, channel, key).receiving
        return open_box(receiving, header, self._cluster_id + self.own, data)

    def _keys(self, peer: Peer, channel: Channel, key: KeyId) -> SessionKeys:
        """Return a channel's keys under one cluster key, deriving them once."""
        keys = channel.keys.get(key)
        if keys is None:
            keys = channel.keys[key] = derive_keys(
                self.own, peer, self.keyring.secret(key), self._session, channel.peer_session
            )
        return keys

    def _join_key(self, key: KeyId) -> AESGCM:
        return derive(self.keyring.secret(key), b"", b"overlayd/1 join")

    def _random_number(self, count: int) -> int:
        return int.from_bytes(self._random_bytes(count), "big")


def derive_keys(
    own: NodeId, peer: Peer, secret: bytes, session: bytes, theirs: bytes
) -> SessionKeys:
    """Return the session keys for a peer under one cluster secret."""
    other = peer.card.node_id
    keying, info = peer.shared + secret, b"overlayd/1 data"
    return SessionKeys(
        sending=derive(keying, session + theirs, info + own + other),
        receiving=derive(keying, theirs + session, info + other + own),
    )


def _pair_key(kind: int, peer: Peer, sender: NodeId, recipient: NodeId) -> AESGCM:
    return derive(peer.shared, b"", PAIRWISE[kind] + sender + recipient)


# --- one AEAD box -----------------------------------------------------------------------------


def seal(key: AESGCM, header: Header, context: bytes, plain: bytes, clear: bytes = b"") -> bytes:
    """Return a datagram: header, `clear`, and the box.

    The box authenticates all of it, and `context`: the cluster id and the recipient's node id,
    which are not sent.
    """
    raw = header.pack() + clear
    return raw + key.encrypt(header.nonce, plain, raw + context)


def open_box(
    key: AESGCM, header: Header, context: bytes, data: bytes, clear_size: int = 0
) -> bytes:
    """Return a datagram's plaintext; raises RemoteError if not authentic."""
    start = limits.HEADER_SIZE + clear_size
    try:
        return key.decrypt(header.nonce, data[start:], data[:start] + context)
    except InvalidTag:
        raise RemoteError(UNAUTHENTICATED) from None


def derive(secret: bytes, salt: bytes, info: bytes) -> AESGCM:
    """Return an AES-256-GCM key by HKDF-SHA256 (RFC 5869)."""
    return AESGCM(derive_bytes(secret, salt, info))
