"""The datagram: version and kind, which are checked before anything else.

```
 0        1        2
 +--------+--------+----------------
 | version| kind   | as the kind says
 +--------+--------+----------------
```
Owns: the kinds, and the checks that need no key. Does not: know the rest of a header, which is in
`contact_header` (before there is a session) and `session_header`.
"""

from __future__ import annotations

from typing import NamedTuple

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Ip

VERSION = 2
# 1 and 7: the two messages of a session's handshake; 2: first contact of members; 3: within a
# session; 4 and 5: admission of a host; 6: asks for proof of the sender's address
HELLO, JOIN, DATA, JOIN_HELLO, JOIN_REQUEST, COOKIE, RESPONSE = 1, 2, 3, 4, 5, 6, 7
KIND_AT = 1  # offset of the kind in a datagram
_KINDS = frozenset({HELLO, JOIN, DATA, JOIN_HELLO, JOIN_REQUEST, COOKIE, RESPONSE})

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


class UdpEndpoint(NamedTuple):
    """The underlay address and port that a datagram came from or goes to."""

    address: Ip
    port: int


def read_kind(data: bytes) -> int:
    """Return a datagram's kind; raises RemoteError if it cannot be valid."""
    if len(data) < limits.DATAGRAM_SIZE_MIN:
        raise RemoteError(TOO_SHORT)
    if len(data) > limits.DATAGRAM_SIZE_MAX:
        raise RemoteError(TOO_LONG)
    if data[0] != VERSION:
        raise RemoteError(OTHER_VERSION)
    kind = data[KIND_AT]
    if kind not in _KINDS:
        raise RemoteError(UNKNOWN_KIND)
    return kind
