"""The members whose VXLAN port accepts IPv6 packets without a UDP checksum (RFC 6935).

Each says so by a declared object of its own, as only its kernel knows: the port's socket has one
setting for all VXLAN devices, and those that an earlier version made keep theirs until they are
made anew. The object has the version of the software that wrote it, and counts while the member's
card has the same: another version may make other devices. Agents before 0.4.0 ignore such objects.

Owns: the object, and which of them count.
"""

from __future__ import annotations

import hashlib

from overlay.core.declared.kinds import ZERO_CHECKSUM_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.log.store import Store
from overlay.model import NodeId


def object_name(node_id: NodeId) -> str:
    """Return the name of a member's object."""
    return hashlib.blake2s(node_id, digest_size=16).hexdigest()


class ZeroChecksumMembers:
    """The members that have said so, by the records."""

    def __init__(self, objects: DeclaredObjects, store: Store) -> None:
        self._objects = objects
        self._store = store
        self._number = -1
        self._said: dict[NodeId, bytes] = {}  # with the version of their software

    def nodes(self) -> frozenset[NodeId]:
        """Return the members; another member's object of that name counts for nothing."""
        number = self._objects.change_number()
        if number != self._number:
            self._said = {
                origin: value.body
                for origin, value in self._objects.existing(ZERO_CHECKSUM_KIND)
                if value.name == object_name(origin)
            }
            self._number = number
        return frozenset(origin for origin, body in self._said.items() if self._runs(origin, body))

    def _runs(self, origin: NodeId, version: bytes) -> bool:
        card = self._store.card(origin)
        return card is not None and card.software.encode() == version
