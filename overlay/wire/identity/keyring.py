"""The cluster keys of one member: one that seals, and all that still open.

A key is identified by its generation and a mark, which are both in the header of a datagram, so
only one key is tried. The authority signs each key (`warrant`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from overlay.core.keys.rotation import Ring
from overlay.core.protocol.records import KeyId

SECRET_SIZE = 32
_MARK = b"overlayd/1 mark\0"


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """One generation of the cluster's secret."""

    generation: int
    made_s: int  # Unix time, in seconds
    secret: bytes = field(repr=False)
    warrant: bytes = field(repr=False)  # the authority's signature

    @property
    def id(self) -> KeyId:
        """The key's id: two secrets of one generation have different marks."""
        digest = hashlib.sha256(_MARK + self.secret).digest()
        return KeyId(self.generation, int.from_bytes(digest[:2], "big"))


class Keyring:
    """The keys of one member, shared by all that seal and open."""

    def __init__(self, keys: Iterable[ClusterKey], sealing: KeyId) -> None:
        self._keys = {key.id: key for key in keys}
        self._by_header = {_in_header(known): known for known in self._keys}
        self.ring = Ring(frozenset(self._keys), sealing)  # the keys' ids alone
        assert sealing in self._keys, "a keyring has the key it seals with"

    @property
    def sealing(self) -> KeyId:
        """The key in use."""
        return self.ring.sealing

    @property
    def keys(self) -> list[ClusterKey]:
        """All keys, the oldest first."""
        return [self._keys[known] for known in sorted(self._keys)]

    def key(self, known: KeyId) -> ClusterKey:
        """Return a key that is held."""
        return self._keys[known]

    def named(self, generation: int, mark: int) -> KeyId | None:
        """Return the key of a mark and of the lower 16 bits of its generation, if it is held."""
        return self._by_header.get(generation << 16 | mark)

    def secret(self, known: KeyId) -> bytes:
        """Return the secret of a key that is held."""
        return self._keys[known].secret

    def replace(self, ring: Ring, new: ClusterKey | None = None) -> None:
        """Hold and use the keys of a ring.

        `new` is the key that it has in addition to those held, if any.
        """
        keys = {**self._keys, **({} if new is None else {new.id: new})}
        self._keys = {known: keys[known] for known in ring.held}
        self._by_header = {_in_header(known): known for known in self._keys}
        self.ring = ring


def _in_header(known: KeyId) -> int:
    """Return a key's id as in headers: 16 bits of generation, and the mark."""
    return (known.generation & 0xFFFF) << 16 | known.mark
