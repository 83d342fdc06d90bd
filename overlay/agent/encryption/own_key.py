"""This node's WireGuard key: made at random, kept on disk, published to the cluster.

It is never derived from the identity: a stolen identity opens no recorded traffic.

Owns: the stored key and its record. Does not: know other nodes' keys, or the device.
"""

from __future__ import annotations

import os

from overlay.agent.gossip.service import GossipService
from overlay.agent.state import documents
from overlay.agent.state.documents import StoredWireguardKey
from overlay.core.encryption.key_record import WireguardKey, current_key, key_record
from overlay.core.protocol.records import CLUSTER_SCOPE, CustomRecord, key_of
from overlay.wire.identity.key_pair import KeyPair

_SIZE = 32


class OwnKey:
    """The key of this membership; made when it is first published."""

    def __init__(self, gossip: GossipService) -> None:
        self._gossip = gossip
        self._stored = documents.WIREGUARD.find(gossip.state)

    @property
    def private(self) -> bytes | None:
        """Return the private key; None before it is made."""
        return None if self._stored is None else self._stored.private

    @property
    def public(self) -> WireguardKey | None:
        """Return the public key with its epoch; None before it is made."""
        if self._stored is None:
            return None
        return WireguardKey(self._stored.epoch, KeyPair(self._stored.private).public)

    @property
    def is_published(self) -> bool:
        """Return whether the cluster's records hold exactly this key."""
        return self.public is not None and self._published() == self.public

    def publish(self) -> None:
        """Make the key if there is none, and have the records hold exactly this one.

        Where they hold another, the disk was an older copy: the key gets an epoch of its own.
        Raises OverlayError if the disk rejects it.
        """
        if self.is_published:
            return
        published = self._published()
        epoch = published.epoch + 1 if published is not None else self._epoch
        private = self.private or _clamped(os.urandom(_SIZE))
        stored = StoredWireguardKey(epoch, private)
        record = key_record(WireguardKey(epoch, KeyPair(private).public))
        segments = self._gossip.commit(
            CLUSTER_SCOPE, [record], self._keys(), [documents.WIREGUARD.row(stored)]
        )
        self._stored = stored
        self._gossip.publish(segments)

    @property
    def _epoch(self) -> int:
        return 1 if self._stored is None else self._stored.epoch

    def withdraw(self) -> None:
        """Delete the record: this host can carry no encrypted network. Raises OverlayError."""
        keys = self._keys()
        if keys:
            self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, deletes=keys))

    def _published(self) -> WireguardKey | None:
        return current_key(self._records())

    def _records(self) -> list[CustomRecord]:
        store, own = self._gossip.node.store, self._gossip.node_id
        return [
            value
            for value in store.values_of(own, CLUSTER_SCOPE, "name")
            if isinstance(value, CustomRecord) and current_key([value]) is not None
        ]

    def _keys(self) -> list[tuple[str, bytes]]:
        return [key_of(record) for record in self._records()]


def _clamped(private: bytes) -> bytes:
    """Return a private key in the form in which devices show it (RFC 7748 section 5)."""
    raw = bytearray(private)
    raw[0] &= 0xF8
    raw[31] = raw[31] & 0x7F | 0x40
    return bytes(raw)
