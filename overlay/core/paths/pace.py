"""The pace of probes while nothing is wrong: what a pair of hosts pays for them.

Both hosts of a pair send a small frame and a report in each interval, and a large frame now and
then. What is seldom sent is sent at once where it is needed: for people who look, for traffic that
passes, and back to a peer that sends one.
"""

from __future__ import annotations

from overlay import limits
from overlay.core.paths.view import PeerPath

_BITS_OF_BOTH = 2 * 8  # of a byte that each of the two hosts sends


def round_interval_s(peer: PeerPath, peer_count: int) -> float:
    """Return the time from one round to the next; many peers have their turns one by one."""
    cycles = max(1, -(-peer_count // limits.PATH_PEERS_PER_CYCLE))
    return _round_s(peer) * cycles


def size_interval_s(peer: PeerPath) -> float:
    """Return how often the size that a path is known to carry is checked without need."""
    spare_bit_per_s = limits.PATH_PAIR_BIT_PER_S - _round_bits(peer) / _round_s(peer)
    return max(limits.PATH_SIZE_INTERVAL_S, _BITS_OF_BOTH * peer.size / spare_bit_per_s)


def _round_s(peer: PeerPath) -> float:
    bit_per_s = limits.PATH_PAIR_BIT_PER_S - limits.PATH_SIZE_BIT_PER_S
    return max(limits.PATH_PROBE_INTERVAL_S, _round_bits(peer) / bit_per_s)


def _round_bits(peer: PeerPath) -> float:
    return _BITS_OF_BOTH * (peer.probe_size + peer.report_size)
