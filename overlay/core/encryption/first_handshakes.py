"""Since when each peer has answered by the key that it has, as far as this node has seen.

Owns: that rule. Does not: read devices.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay.core.encryption.device import DeviceReading


class FirstHandshakes:
    """The first handshake with each peer's key that was seen since the agent's start."""

    def __init__(self) -> None:
        self._first: dict[bytes, float] = {}

    def update(self, readings: Iterable[DeviceReading]) -> None:
        """Take up a reading of all devices; keys that are peers no longer are left out."""
        peers = {key: peer for reading in readings for key, peer in reading.peers.items()}
        self._first = {
            key: self._first.get(key, peer.handshake_s)
            for key, peer in peers.items()
            if peer.handshake_s
        }

    def of(self, key: bytes) -> float | None:
        """Return the Unix time of a key's first handshake; None if there was none."""
        return self._first.get(key)
