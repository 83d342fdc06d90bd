"""The header of datagrams that precede a session: joins and admissions.

```
 0        1        2                 4                                  20
 +--------+--------+-----------------+----------------------------------+
 | version| kind   | generation      | sender: node id (16)             |
 +--------+--------+-----------------+----------------------------------+
 | counter (8)              | random (4) | box: ciphertext, tag (16)    |
 +--------------------------+------------+------------------------------+
 20                         28           32
```
In a join, which a cluster key seals, generation is the lower 16 bits of the key's, and the upper
16 bits of the counter are its mark. The nonce is random || counter (NIST SP 800-38D section 8.2.1:
96 bits), and nothing of it is ever counted up.

Owns: this layout. Does not: know keys; `wire.handshake.box` seals and opens the box.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from overlay import limits
from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import NodeId
from overlay.wire.codec.datagram import (
    JOIN,
    JOIN_HELLO,
    JOIN_REQUEST,
    UNKNOWN_KIND,
    VERSION,
    read_kind,
)

_MARK_SHIFT = 48  # of the counter; the bits below are random
_LAYOUT = struct.Struct("!BBH16sQ4s")
assert _LAYOUT.size == limits.CONTACT_HEADER_SIZE


class ContactHeader(NamedTuple):
    """The clear-text header of a datagram without a session."""

    version: int
    kind: int
    generation: int
    sender: NodeId
    counter: int
    random: bytes

    @property
    def mark(self) -> int:
        """The mark of the cluster key, in joins."""
        return self.counter >> _MARK_SHIFT

    @property
    def nonce(self) -> bytes:
        """The 12-byte nonce of the box that follows."""
        return self.random + self.counter.to_bytes(8, "big")

    def pack(self) -> bytes:
        """Return the 32 bytes of the header."""
        return _LAYOUT.pack(*self)


def new_header(kind: int, sender: NodeId, random_bytes: Callable[[int], bytes]) -> ContactHeader:
    """Return the header of an admission's datagram, with a random nonce."""
    counter = int.from_bytes(random_bytes(8), "big")
    return ContactHeader(VERSION, kind, 0, sender, counter, random_bytes(4))


def join_header(key: KeyId, sender: NodeId, random_bytes: Callable[[int], bytes]) -> ContactHeader:
    """Return the header of a join that a cluster key seals."""
    low = int.from_bytes(random_bytes(8), "big") & (1 << _MARK_SHIFT) - 1
    generation = key.generation & 0xFFFF
    counter = key.mark << _MARK_SHIFT | low
    return ContactHeader(VERSION, JOIN, generation, sender, counter, random_bytes(4))


def read_contact_header(data: bytes) -> ContactHeader:
    """Return the header of a join or of an admission's datagram.

    Raises RemoteError if it is invalid, or of another kind.
    """
    if read_kind(data) not in (JOIN, JOIN_HELLO, JOIN_REQUEST):
        raise RemoteError(UNKNOWN_KIND)
    return ContactHeader._make(_LAYOUT.unpack_from(data))
