"""Which peers do not answer through the tunnel."""

from __future__ import annotations

from overlay.core.encryption.device import PeerReading
from overlay.core.encryption.silent_peers import SilentPeers

KEY = b"p" * 32


def after(*counts: tuple[int, int]) -> bool:
    """Return whether a peer is silent after readings of (received, sent)."""
    peers = SilentPeers()
    for received, sent in counts:
        peers.update({KEY: PeerReading((), 0.0, received, sent)})
    return KEY in peers.keys


def test_a_peer_that_never_answers_is_silent() -> None:
    """Something was sent in two intervals, and nothing came."""
    assert not after((0, 148))
    assert not after((0, 148), (0, 296))
    assert after((0, 148), (0, 296), (0, 444))


def test_a_peer_that_answers_is_not() -> None:
    """One answer is enough, also after a silence."""
    assert not after((0, 148), (92, 296), (92, 444))
    assert not after((0, 148), (0, 296), (0, 444), (92, 592))


def test_no_traffic_is_no_silence() -> None:
    """Nothing is expected of a peer to which nothing was sent."""
    assert not after((92, 148), (92, 148), (92, 148), (92, 148))


def test_a_new_device_starts_afresh() -> None:
    """Its counters begin at zero."""
    assert not after((0, 148), (0, 296), (0, 0), (0, 148))
