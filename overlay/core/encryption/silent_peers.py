"""Find the peers that do not answer through the tunnel, by the device's counters.

WireGuard answers what it receives within seconds, so bytes that were sent and nothing that came
back, over two intervals between readings, mean that its packets are lost on the way.

Owns: that rule. Does not: read the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from overlay.core.encryption.device import PeerReading

_INTERVALS = 2


class _Count(NamedTuple):
    received: int
    sent: int
    unanswered: int  # intervals in a row in which something was sent, and nothing received


class SilentPeers:
    """The peers by which packets leave, from reading to reading."""

    def __init__(self) -> None:
        self._counts: Mapping[bytes, _Count] = {}

    @property
    def keys(self) -> frozenset[bytes]:
        """Return the public keys of the peers that do not answer."""
        return frozenset(
            key for key, count in self._counts.items() if count.unanswered >= _INTERVALS
        )

    def update(self, peers: Mapping[bytes, PeerReading]) -> None:
        """Take up a reading; counters that have decreased are those of a new device."""
        self._counts = {
            key: self._next(self._counts.get(key), peer.received, peer.sent)
            for key, peer in peers.items()
        }

    @staticmethod
    def _next(before: _Count | None, received: int, sent: int) -> _Count:
        if before is None or received != before.received or sent < before.sent:
            return _Count(received, sent, 0)
        return _Count(received, sent, before.unanswered + (sent > before.sent))
