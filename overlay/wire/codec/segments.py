"""Log segments to and from the msgpack arrays that their origin signs.

Owns: those bytes. Does not: sign or verify them (`wire.identity.signatures`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from overlay import limits
from overlay.core.protocol.records import Entry, Scope, Segment
from overlay.model import NodeId
from overlay.wire.codec import validation
from overlay.wire.codec.records import decode_entry, encode_entry, shared

_PACK: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True).pack


def pack_segment(
    origin: NodeId, scope: int, floor: int, after: int, upto: int, entries: tuple[Entry, ...]
) -> bytes:
    """Return the bytes of a segment, for its origin to sign."""
    body = [encode_entry(entry, after) for entry in entries]
    return _PACK([origin, scope, floor, after, upto - after, body])


def unpack_segment(raw: bytes, signature: bytes) -> Segment:
    """Return the segment in `raw`; its signature is not verified here."""
    if len(raw) + len(signature) > limits.SEGMENT_SIZE_MAX:
        validation.refuse_malformed()
    origin, scope, floor, after, span, body = validation.array(validation.unpack(raw), 6)
    start = validation.integer(after, 2**62)
    end = start + validation.integer(span, 2**32, 1)
    entries = [decode_entry(item, start) for item in validation.items(body)]
    if end - start != len(entries):
        validation.refuse_malformed()
    if any(entry.version != version for version, entry in enumerate(entries, start + 1)):
        validation.refuse_malformed()
    return Segment(
        shared(NodeId(validation.octets(origin, 16))),
        Scope(validation.integer(scope, limits.VNI_MAX)),
        validation.integer(floor, start),
        start,
        end,
        tuple(entry.written for entry in entries),
        raw,
        signature,
    )
