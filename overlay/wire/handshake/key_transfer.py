"""A cluster key in transfer from one member to another.

Owns: the fields of a key, within a session and in a join grant. Does not: know when it is sent
(`core.keys.rotation`).
"""

from __future__ import annotations

from typing import Any

import msgpack

from overlay import limits
from overlay.wire.codec import validation
from overlay.wire.identity.keyring import SECRET_SIZE, ClusterKey

UNWARRANTED_KEY = "unwarranted-key"


def key_fields(key: ClusterKey) -> list[Any]:
    """Return a key as an array."""
    return [key.generation, key.made_s, key.secret, key.warrant]


def read_key(value: Any) -> ClusterKey:
    """Return the key in an array; its warrant is not verified here."""
    generation, made_s, secret, warrant = validation.array(value, 4)
    return ClusterKey(
        validation.integer(generation, limits.KEY_GENERATION_MAX),
        validation.integer(made_s, 2**40),
        validation.octets(secret, SECRET_SIZE),
        validation.octets(warrant, 64),
    )


def key_body(key: ClusterKey) -> bytes:
    """Return the content of a frame that transfers a key."""
    body: bytes = msgpack.packb(key_fields(key))
    return body


def read_key_body(body: bytes) -> ClusterKey:
    """Return the key; raises RemoteError if malformed."""
    return read_key(validation.unpack(body))
