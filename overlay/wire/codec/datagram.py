"""The sealed datagram: an authenticated clear-text header and an AEAD box.

 0        1        2                 4                                  20
 +--------+--------+-----------------+----------------------------------+
 | version| kind   | generation      | sender (node id, 16)             |
 +--------+--------+-----------------+----------------------------------+
 | counter (8)              | random (4) | box: ciphertext, tag (16)    |
 +--------------------------+------------+------------------------------+
 20                         28           32

Where a cluster key seals (data, joins), generation is the lower 16 bits of the key's, and the
upper 16 bits of the counter are its mark. The nonce is random || counter (NIST SP 800-38D section
8.2.1: 96 bits). The additional data are the header, the cluster id and the recipient's node id,
so that a datagram is worthless in another cluster or at another node.

Owns: this layout. Does not: know keys; `wire.session.sealer` seals and opens the box.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from overlay import limits
from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import Ip, NodeId

VERSION = 1
HELLO, JOIN, DATA, JOIN_HELLO, JOIN_REQUEST, NOTICE, KEY = 1, 2, 3, 4, 5, 6, 7
KIND_AT = 1  # offset of the kind in a datagram
_KINDS = frozenset({HELLO, JOIN, DATA, JOIN_HELLO, JOIN_REQUEST, NOTICE, KEY})
_NUMBER_BITS = 48  # of the counter; the 16 above are a cluster key's mark, or random
_LAYOUT = struct.Struct("!BBH16sQ4s")
assert _LAYOUT.size == limits.HEADER_SIZE

TOO_SHORT = "too-short"
TOO_LONG = "too-long"
OTHER_VERSION = "other-version"
UNKNOWN_KIND = "unknown-kind"
UNAUTHENTICATED = "unauthenticated"
OWN_DATAGRAM = "own-datagram"


class Datagram(NamedTuple):
    """Bytes to send, and their destination."""

    address: Ip
    port: int
    data: bytes


class Header(NamedTuple):
    """The clear-text header of a datagram."""

    version: int
    kind: int
    generation: int
    sender: NodeId
    counter: int
    random: bytes

    @property
    def mark(self) -> int:
        """The mark of the cluster key, in data and joins."""
        return self.counter >> _NUMBER_BITS

    @property
    def nonce(self) -> bytes:
        """The 12-byte nonce of the box that follows."""
        return self.random + self.counter.to_bytes(8, "big")

    @property
    def number(self) -> int:
        """The sequence number of data in a session."""
        return self.counter & (1 << _NUMBER_BITS) - 1

    def pack(self) -> bytes:
        """Return the 32 bytes of the header."""
        return _LAYOUT.pack(*self)


def header_under(kind: int, key: KeyId, sender: NodeId, number: int, random: bytes) -> Header:
    """Return the header of a datagram that a cluster key seals.

    Only the lower 48 bits of `number` are used: a session ends long before they are exhausted.
    """
    counter = key.mark << _NUMBER_BITS | number & (1 << _NUMBER_BITS) - 1
    return Header(VERSION, kind, key.generation & 0xFFFF, sender, counter, random)


def read_header(data: bytes) -> Header:
    """Return a datagram's header; raises RemoteError if it is invalid."""
    if len(data) < limits.HEADER_SIZE + limits.TAG_SIZE:
        raise RemoteError(TOO_SHORT)
    if len(data) > limits.DATAGRAM_SIZE_MAX:
        raise RemoteError(TOO_LONG)
    header = Header._make(_LAYOUT.unpack_from(data))
    if header.version != VERSION:
        raise RemoteError(OTHER_VERSION)
    if header.kind not in _KINDS:
        raise RemoteError(UNKNOWN_KIND)
    return header
