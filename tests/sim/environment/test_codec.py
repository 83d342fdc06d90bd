from __future__ import annotations

import random

from overlay.core.protocol.messages import Delta, Ping
from overlay.core.protocol.records import Entry, Participation, Scope, key_of
from overlay.sim.environment.codec import SharingCodec
from overlay.sim.environment.notary import FakeSigner
from overlay.wire.codec.messages import MsgpackCodec

PART = Participation(5, forwards=True)
SEGMENT = FakeSigner(b"k" * 32).issue_segment(Scope(0), 0, 0, 1, [Entry(1, key_of(PART), PART)])


def test_it_is_the_real_wire_format() -> None:
    """Its encoding is that of the real codec, and can be decoded."""
    message = Delta((SEGMENT,))

    assert SharingCodec().encode(message) == MsgpackCodec().encode(message)
    assert MsgpackCodec().decode(SharingCodec().encode(message)) == [message]


def test_receivers_share_one_segment() -> None:
    """A segment that reaches many hosts in many datagrams is decoded once."""
    codec = SharingCodec()
    [first] = codec.decode(codec.encode(Delta((SEGMENT,))))
    [_, second] = codec.decode(codec.encode(Ping(1, 2)) + codec.encode(Delta((SEGMENT,))))

    assert isinstance(first, Delta)
    assert isinstance(second, Delta)
    assert first.segments[0] is second.segments[0]


def test_corrupted_bytes_are_rejected_or_decoded() -> None:
    """For any corrupted payload the decoder raises only RemoteError."""
    codec, rng = SharingCodec(), random.Random(1)
    payload = codec.encode(Delta((SEGMENT,))) + codec.encode(Ping(1, 2))
    for _ in range(3000):
        codec.survive(payload, rng)
