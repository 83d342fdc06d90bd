"""This node's WireGuard keys: made at random, kept on disk, published to the cluster.

They are never derived from the identity: a stolen identity opens no recorded traffic.

Owns: the stored keys and their records. Does not: know other nodes' keys, when a key is replaced
(`core.encryption.rotation`), or the devices.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

from overlay.agent.gossip.service import GossipService
from overlay.agent.state.wireguard_keys import WIREGUARD, StoredWireguardKey, StoredWireguardKeys
from overlay.core.encryption.key_record import WireguardKey, key_record, keys_of
from overlay.core.encryption.rotation import OwnSlots, other_slot
from overlay.core.protocol.records import CLUSTER_SCOPE, CustomRecord, key_of
from overlay.wire.identity.key_pair import KeyPair

_SIZE = 32


class OwnKeys:
    """The keys of this membership; the first is made when it is first published."""

    def __init__(self, gossip: GossipService) -> None:
        self._gossip = gossip
        self._stored = WIREGUARD.find(gossip.state)

    @property
    def stored(self) -> StoredWireguardKeys | None:
        """Return the private keys; None before the first is made."""
        return self._stored

    @property
    def slots(self) -> OwnSlots:
        """Return the slots of the keys."""
        if self._stored is None:
            return OwnSlots(0)
        current, *others = self._stored
        return OwnSlots(current.slot, *(None if key is None else key.slot for key in others))

    @property
    def current(self) -> StoredWireguardKey | None:
        """Return the key in use; None before it is made."""
        return None if self._stored is None else self._stored.current

    @property
    def public(self) -> tuple[WireguardKey, ...]:
        """Return the public keys to publish, the one in use first; none before it is made."""
        if self._stored is None:
            return ()
        return tuple(
            WireguardKey(each.epoch, KeyPair(each.private).public, each.slot)
            for each in (self._stored.current, self._stored.next)
            if each is not None
        )

    @property
    def is_published(self) -> bool:
        """Return whether the cluster's records hold exactly these keys."""
        return bool(self.public) and keys_of(self._records()) == self.public

    # --- changes: each is on disk, with its records, before anybody hears of it. They raise
    # OverlayError if the disk rejects it -------------------------------------------------

    def publish(self) -> None:
        """Make the first key if there is none, and have the records hold exactly these.

        Where they hold others, the disk was an older copy: the key gets an epoch of its own.
        """
        if self.is_published:
            return
        published = keys_of(self._records())
        found = self._stored
        if found is None or published:
            private = os.urandom(_SIZE) if found is None else found.current.private
            epoch = max((key.epoch for key in published), default=0) + 1
            slot = published[0].slot if published else 0
            found = StoredWireguardKeys(_made(private, epoch, slot))
        self._write(found)

    def begin(self) -> None:
        """Publish a next key, in the other slot."""
        found = self._required()
        if found.next is None and found.retired is None:
            following = _made(
                os.urandom(_SIZE), found.current.epoch + 1, other_slot(found.current.slot)
            )
            self._write(found._replace(next=following))

    def retire(self) -> None:
        """Withdraw the key in use: the next one is in use now."""
        found = self._required()
        if found.next is not None:
            self._write(StoredWireguardKeys(found.next, None, found.current))

    def forget(self) -> None:
        """Delete the withdrawn key: nobody sends to it."""
        self._write(self._required()._replace(retired=None))

    def adopt(self) -> None:
        """Replace the key by one in the other slot at once: the other members use that one."""
        found = self._required().current
        self._write(
            StoredWireguardKeys(
                _made(os.urandom(_SIZE), found.epoch + 1, other_slot(found.slot))
            )
        )  # fmt: skip

    def date(self) -> None:
        """Date a key of an agent that wrote down no time: its age counts from now."""
        found = self._required()
        if not found.current.made_s:
            self._write(found._replace(current=replace(found.current, made_s=time.time())))

    def withdraw(self) -> None:
        """Delete the records: this host can carry no encrypted network."""
        keys = [key_of(record) for record in self._records()]
        if keys:
            self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, deletes=keys))

    def _required(self) -> StoredWireguardKeys:
        if self._stored is None:
            raise AssertionError("no key was made yet")
        return self._stored

    def _write(self, keys: StoredWireguardKeys) -> None:
        before, self._stored = self._stored, keys
        try:
            records = [key_record(key) for key in self.public]
            there = self._records()
            segments = self._gossip.commit(
                CLUSTER_SCOPE,
                [record for record in records if record not in there],
                [key_of(record) for record in there if record not in records],
                [WIREGUARD.row(keys)],
            )
        except BaseException:
            self._stored = before
            raise
        self._gossip.publish(segments)

    def _records(self) -> list[CustomRecord]:
        store, own = self._gossip.node.store, self._gossip.node_id
        return [
            value
            for value in store.values_of(own, CLUSTER_SCOPE, "name")
            if isinstance(value, CustomRecord) and keys_of([value])
        ]


def _made(private: bytes, epoch: int, slot: int) -> StoredWireguardKey:
    """Return a key made now, in the form in which devices show it (RFC 7748 section 5)."""
    raw = bytearray(private)
    raw[0] &= 0xF8
    raw[31] = raw[31] & 0x7F | 0x40
    return StoredWireguardKey(epoch, bytes(raw), slot, time.time())
