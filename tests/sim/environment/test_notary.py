from __future__ import annotations

from dataclasses import replace

from overlay.core.protocol.records import Entry, Participation, Scope, key_of
from overlay.model import Card, Ip, node_id_of
from overlay.sim.environment.notary import FakeSigner

KEY, OTHER = b"k" * 32, b"o" * 32


def card(key: bytes) -> Card:
    """Return a signed card of that key's node."""
    plain = Card(node_id_of(key), "n", key, key, Ip(b"\x0a\x00\x00\x01"), 7948, 1, 1500, "test")
    return FakeSigner(key).issue_card(plain)


def entries(count: int) -> list[Entry]:
    """Return some entries."""
    parts = [Participation(number, forwards=True) for number in range(1, count + 1)]
    return [Entry(number, key_of(part), part) for number, part in enumerate(parts, 1)]


def test_it_rejects_what_a_real_notary_would() -> None:
    """Another node's card, altered bytes and a wrong signature do not verify."""
    signer = FakeSigner(KEY)
    segment = signer.issue_segment(Scope(3), 0, 0, 2, entries(2))

    assert signer.verify_segment(segment, card(KEY))
    assert not signer.verify_segment(segment, card(OTHER))
    assert not signer.verify_segment(replace(segment, raw=segment.raw + b"x"), card(KEY))
    assert not signer.verify_segment(replace(segment, signature=bytes(64)), card(KEY))
    assert signer.verify_card(card(KEY))
    assert not signer.verify_card(replace(card(KEY), signature=bytes(64)))
    assert not signer.verify_card(replace(card(KEY), node_id=node_id_of(OTHER)))


def test_the_size_is_an_upper_bound() -> None:
    """A segment is never larger than predicted from its entries."""
    signer = FakeSigner(KEY)
    for count in (0, 1, 7):
        bound = signer.segment_size(entries(count))
        segment = signer.issue_segment(Scope(2**24 - 1), 0, 0, max(1, count), entries(count))

        assert len(segment.raw) + len(segment.signature) <= bound
