"""Which exchanges run, where there is room for two."""

from __future__ import annotations

from overlay.core.log.store import Store
from overlay.core.protocol.messages import LogVersion, Versions
from overlay.core.protocol.outbox import Outbox
from overlay.core.protocol.records import CLUSTER_SCOPE
from overlay.core.protocol.settings import ProtocolSettings
from overlay.core.replication.anti_entropy import AntiEntropy
from overlay.model import NodeId
from overlay.wire.codec.messages import MsgpackCodec

OWN, HONEST, LIARS = NodeId(bytes(16)), NodeId(b"h" * 16), (NodeId(b"a" * 16), NodeId(b"b" * 16))
DIFFERENT = 1  # another root than that of an empty store


def test_advertised_logs_alone_do_not_block_other_exchanges() -> None:
    """Two members advertise logs again and again without sending any.

    Each holds its place for one turn; a third member is compared after that.
    """
    settings = ProtocolSettings()
    anti_entropy = AntiEntropy(Store(OWN), Outbox(MsgpackCodec()), settings)
    taken_at = None
    for step in range(200):
        now = step / 10
        for liar in LIARS:
            anti_entropy.compare(liar, DIFFERENT, now)
            claim = LogVersion(liar, CLUSTER_SCOPE, step + 1, 1)
            anti_entropy.receive_versions(Versions((), (claim,), answer=True), liar, now)
        anti_entropy.handle_timer(now)
        anti_entropy.compare(HONEST, DIFFERENT, now)
        if taken_at is None and anti_entropy.under_way(HONEST):
            taken_at = now

    assert taken_at is not None
    assert 0.5 * settings.repair_turn_s < taken_at <= settings.repair_turn_s


def test_a_repeated_exchange_is_the_same_turn() -> None:
    """A peer that delivers, and advertises more, gets no second turn first."""
    settings = ProtocolSettings()
    anti_entropy = AntiEntropy(Store(OWN), Outbox(MsgpackCodec()), settings)
    for step in range(70):
        now = step / 10
        for liar in LIARS:
            anti_entropy.compare(liar, DIFFERENT, now)
            claim = LogVersion(liar, CLUSTER_SCOPE, 0, 1)
            anti_entropy.receive_versions(Versions((), (claim,), answer=True), liar, now)
            anti_entropy.segment_received((liar, CLUSTER_SCOPE), 1, liar, now)
        anti_entropy.handle_timer(now)

    anti_entropy.compare(HONEST, DIFFERENT, 7.0)
    assert anti_entropy.under_way(HONEST)
