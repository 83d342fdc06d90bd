"""The content of a session's box: one frame, padded so that its size says little.

```
 type 1 | length 2 | content | zeros, so that the content's part has 64, 256 or 1152 bytes
```
Owns: this layout and the types. Does not: know what a content means.
"""

from __future__ import annotations

import bisect
import enum
import struct

from overlay import limits
from overlay.errors import RemoteError
from overlay.wire.codec import validation

_HEAD = struct.Struct("!BH")
HEAD_SIZE = _HEAD.size
SIZES = (64, 256, limits.PAYLOAD_SIZE_MAX)  # of a content with its padding


class FrameType(enum.IntEnum):
    """The kinds of frames. Wire numbers: append only."""

    PAYLOAD = 1  # messages of the protocol
    KEY = 2  # a cluster key
    DUPLICATE = 3  # the card of another host with the receiver's identity
    CONFIRM = 4  # nothing: the sender has the session


def padded_size(size: int) -> int:
    """Return the size of a content with its padding."""
    return SIZES[bisect.bisect_left(SIZES, size)]


def pack_frame(kind: FrameType, content: bytes) -> bytes:
    """Return the plaintext of a datagram; `content` has at most PAYLOAD_SIZE_MAX bytes."""
    size = len(content)
    return (_HEAD.pack(kind, size) + content).ljust(HEAD_SIZE + padded_size(size), b"\0")


def read_frame(plain: bytes) -> tuple[FrameType, bytes]:
    """Return type and content; raises RemoteError if malformed."""
    if len(plain) - HEAD_SIZE not in SIZES:
        validation.refuse_malformed()
    kind, size = _HEAD.unpack_from(plain)
    if size > len(plain) - HEAD_SIZE:
        validation.refuse_malformed()
    try:
        return FrameType(kind), plain[HEAD_SIZE : HEAD_SIZE + size]
    except ValueError:
        raise RemoteError("unknown-message") from None
