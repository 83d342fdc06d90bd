"""The headers of a session's datagrams: hello, response, cookie and data.

```
 hello      version 1 | kind 1 | 0 (2)          | sender's index 4   | first Noise message | macs 32
 response   version 1 | kind 1 | generation 2   | sender's index 4   |
            receiver's index 4 | mark 2 | has key 1 | 0 (1)          | second Noise message
 cookie     version 1 | kind 1 | 0 (2)          | receiver's index 4 | nonce 16 | box 32
 data       version 1 | kind 1 | 0 (2)          | receiver's index 4 | counter 8 | box
```
An index is a random number by which one process finds a session or handshake; it says nothing to
anyone else. Generation and mark name the cluster key in the handshake.

Owns: these layouts. Does not: know keys.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.wire.codec.datagram import COOKIE, DATA, HELLO, RESPONSE, TOO_SHORT, VERSION

_SHORT = struct.Struct("!BBHI")  # hello and cookie
_RESPONSE = struct.Struct("!BBHIIHBB")
_DATA = struct.Struct("!BBHIQ")
SHORT_SIZE, RESPONSE_SIZE = _SHORT.size, _RESPONSE.size


class ResponseHeader(NamedTuple):
    """The clear text of a response; `key` is None if no cluster key is in the handshake."""

    sender_index: int
    receiver_index: int
    key: tuple[int, int] | None  # lower 16 bits of the generation, and mark


def hello_header(index: int) -> bytes:
    """Return the header of a hello."""
    return _SHORT.pack(VERSION, HELLO, 0, index)


def cookie_header(index: int) -> bytes:
    """Return the header of a cookie for the sender of a hello or join."""
    return _SHORT.pack(VERSION, COOKIE, 0, index)


def short_index(data: bytes) -> int:
    """Return the index in a hello or cookie."""
    if len(data) < SHORT_SIZE:
        raise RemoteError(TOO_SHORT)
    index: int = _SHORT.unpack_from(data)[3]
    return index


def response_header(index: int, receiver_index: int, key: KeyId | None) -> bytes:
    """Return the header of a response."""
    generation, mark = (0, 0) if key is None else (key.generation & 0xFFFF, key.mark)
    return _RESPONSE.pack(
        VERSION, RESPONSE, generation, index, receiver_index, mark, key is not None, 0
    )


def read_response_header(data: bytes) -> ResponseHeader:
    """Return the header of a response."""
    _, _, generation, index, receiver_index, mark, has_key, _ = _RESPONSE.unpack_from(data)
    return ResponseHeader(index, receiver_index, (generation, mark) if has_key else None)


def data_header(index: int, counter: int) -> bytes:
    """Return the header of a datagram within a session."""
    return _DATA.pack(VERSION, DATA, 0, index, counter)


def read_data_header(data: bytes) -> tuple[int, int]:
    """Return the receiver's index and the counter."""
    _, _, _, index, counter = _DATA.unpack_from(data)
    return index, counter
