"""This node signs its statements, and accepts only valid signatures of others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.protocol.records import Entry, Scope, Segment, key_of
from overlay.errors import OverlayError
from overlay.model import Card, Endpoint, Ip, Mac, NodeId, Vni
from overlay.wire.codec.cards import pack_card
from overlay.wire.codec.segments import unpack_segment
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.signatures import KeySigner
from tests.wire.conftest import AUTHORITY, EPOCH_S

NOTARY = KeySigner(Identity(b"n" * 32, b"s" * 32), TrustAnchor(AUTHORITY.anchor))
WEB = Endpoint(b"e" * 8, Vni(7), "web", Mac(b"\2" * 6), (Ip(b"\n\0\0\2"),), ("www",), (("a", "b"),))


def issue(endpoint: Endpoint) -> Segment:
    """Return the segment of one endpoint."""
    return NOTARY.issue_segment(Scope(7), 0, 0, 1, [Entry(1, key_of(endpoint), endpoint)])


def test_a_signed_segment_reads_back() -> None:
    """Byte for byte, as a peer receives it."""
    segment = issue(WEB)

    assert unpack_segment(segment.raw, segment.signature) == segment


@pytest.mark.parametrize(
    "endpoint",
    [
        replace(WEB, labels=(("a", "\x14"),)),
        replace(WEB, aliases=("x" * 65,)),
        replace(WEB, aliases=("two\nlines",)),
        replace(WEB, mac=Mac(b"\1" * 6)),
        replace(WEB, ips=()),
    ],
    ids=["control character", "long alias", "two lines", "multicast", "no address"],
)
def test_a_record_that_no_peer_would_accept_is_not_signed(endpoint: Endpoint) -> None:
    """It would stop the replication of all later writes of this node."""
    with pytest.raises(OverlayError, match="other nodes would reject it"):
        issue(endpoint)


def card_of(number: int, authority: Authority = AUTHORITY) -> tuple[KeySigner, Card]:
    """Return the signer and the card of a member that an authority has certified."""
    own = Identity(bytes([number]) * 32, bytes([number + 100]) * 32)
    address = Ip(bytes([10, 0, 0, number]))
    certificate = authority.sign_certificate(
        own.sign_public, own.seal_public, "vm", address, EPOCH_S
    )
    card = Card(
        own.node_id, "vm", own.sign_public, own.seal_public, address, 7948, 1, 1500, "0.4.0",
        certificate=certificate,
    )  # fmt: skip
    signer = KeySigner(own, TrustAnchor(authority.anchor))
    return signer, signer.issue_card(card)


def test_a_card_counts_by_certificate_and_own_signature() -> None:
    """Neither of them alone, nor with another node's id."""
    _, card = card_of(1)
    _, foreign = card_of(1, Authority(b"o" * 32))
    changed = replace(card, epoch=9)

    assert NOTARY.verify_card(card)
    assert not NOTARY.verify_card(foreign)
    assert not NOTARY.verify_card(replace(changed, raw=pack_card(changed)))
    assert not NOTARY.verify_card(replace(card, node_id=NodeId(b"x" * 16)))


def test_a_segment_counts_by_the_signature_of_its_origin() -> None:
    """A member can neither change what another has signed, nor sign in its name."""
    (one, one_card), (other, other_card) = card_of(1), card_of(2)
    segment = one.issue_segment(Scope(7), 0, 0, 1, [Entry(1, key_of(WEB), WEB)])
    own = other.issue_segment(Scope(7), 0, 0, 1, [Entry(1, key_of(WEB), WEB)])

    assert NOTARY.verify_segment(segment, one_card)
    assert not NOTARY.verify_segment(segment, other_card)
    assert not NOTARY.verify_segment(replace(segment, raw=segment.raw + b"\0"), one_card)
    assert not NOTARY.verify_segment(replace(own, origin=segment.origin), other_card)
