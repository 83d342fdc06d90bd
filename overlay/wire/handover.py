"""A cluster key as one member hands it to another.

Owns: the fields of a key, in a key datagram and in a welcome. Must not know when it is handed over
(`core.rotation`), nor the session that a datagram is for (`sessions`).
"""

from __future__ import annotations

from typing import Any

import msgpack

from overlay import limits
from overlay.wire import shapes
from overlay.wire.keyring import SECRET_SIZE, ClusterKey
from overlay.wire.peers import SESSION_SIZE

UNWARRANTED_KEY = "unwarranted-key"


def key_fields(key: ClusterKey) -> list[Any]:
    """Return a key as an array."""
    return [key.generation, key.made_s, key.secret, key.warrant]


def read_key(value: Any) -> ClusterKey:
    """Return the key in an array; whether it is the authority's is for the anchor."""
    generation, made_s, secret, warrant = shapes.array(value, 4)
    return ClusterKey(
        shapes.integer(generation, limits.KEY_GENERATION_MAX),
        shapes.integer(made_s, 2**40),
        shapes.octets(secret, SECRET_SIZE),
        shapes.octets(warrant, 64),
    )


def key_body(session: bytes, key: ClusterKey) -> bytes:
    """Return the body for the process of a session: recorded, it is worth nothing to another."""
    body: bytes = msgpack.packb([session, key_fields(key)])
    return body


def read_key_body(body: bytes) -> tuple[bytes, ClusterKey]:
    """Return the session meant and the key; raises RemoteError if malformed."""
    session, fields = shapes.array(shapes.unpack(body), 2)
    return shapes.octets(session, SESSION_SIZE), read_key(fields)
