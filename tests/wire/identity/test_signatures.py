"""This node signs only what every other node can read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.protocol.records import Entry, Scope, Segment, key_of
from overlay.errors import OverlayError
from overlay.model import Endpoint, Ip, Mac, Vni
from overlay.wire.codec.segments import unpack_segment
from overlay.wire.identity.authority import TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.signatures import KeySigner
from tests.wire.conftest import AUTHORITY

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
