"""The queue of membership updates that are still to be gossiped.

Owns: the queue, its order and the transmission counts. Does not: judge updates
(`failure_detector`) or choose their receivers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from overlay import limits
from overlay.core.protocol.interfaces import Codec
from overlay.core.protocol.messages import MemberState, Rumour, Rumours
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import NodeId


def transmission_count(member_count: int, loss: float, settings: ProtocolSettings) -> int:
    """Return how often each node sends an update: SWIM's lambda * log(n).

    If each of n informed nodes sends an update to L random others, and `loss` (0 to 1) of it is
    lost, about n * e^(-L(1 - loss)) nodes miss it (SWIM section 4.1, from Bailey's epidemics). L
    is chosen to bring that below `rumour_miss_share`. Loss counts as at most one half, which
    bounds L.
    """
    wanted = math.log(max(member_count, 2) / settings.rumour_miss_share)
    return math.ceil(wanted / (1 - min(max(loss, 0.0), 0.5)))


class BroadcastQueue:
    """Updates to send, those sent least first; a newer one replaces an older.

    It holds at most one update per node, and for a suspect one per accuser that still counts, so
    it is bounded by the members. `count_max` updates always fit into one payload.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._levels: list[dict[tuple[NodeId, NodeId], Rumour]] = []  # by how often they were sent
        self._level_of: dict[tuple[NodeId, NodeId], int] = {}
        self._keys_of: dict[NodeId, list[tuple[NodeId, NodeId]]] = {}
        self._base_size, self._rumour_size = _sizes(codec)
        self.count_max = (limits.PAYLOAD_SIZE_MAX - self._base_size) // self._rumour_size

    def __len__(self) -> int:
        return len(self._level_of)

    def put(self, rumour: Rumour) -> None:
        """Queue an update, and drop those that it supersedes."""
        precedence = (rumour.incarnation, rumour.state)
        for key in list(self._keys_of.get(rumour.node_id, ())):
            old = self._levels[self._level_of[key]][key]
            if rumour.state != MemberState.SUSPECT or (old.incarnation, old.state) != precedence:
                self._drop(key)
        key = (rumour.node_id, rumour.accuser)
        if key in self._level_of:
            self._drop(key)
        self._keys_of.setdefault(rumour.node_id, []).append(key)
        self._place(key, rumour, 0)

    def forget(self, node_id: NodeId) -> None:
        """Drop all updates about a node."""
        for key in list(self._keys_of.get(node_id, ())):
            self._drop(key)

    def has(self, node_id: NodeId) -> bool:
        """Return whether an update about a node is queued."""
        return node_id in self._keys_of

    def datagram_count(self) -> int:
        """Return how many full payloads the whole queue fills."""
        return math.ceil(len(self) / self.count_max)

    def encoded(self, room: int, times: int, skip: Callable[[Rumour], bool]) -> list[bytes]:
        """Return encoded messages of at most `room` bytes, least sent first.

        Each update in them counts as sent once more, and is dropped after `times`. Those for
        which `skip` is true stay as they are.
        """
        if not self._level_of:
            return []
        chosen = self._choose((room - self._base_size) // self._rumour_size, skip)
        if not chosen:
            return []
        message = self._codec.encode(Rumours(tuple(chosen)))
        assert len(message) <= room, "rumours are larger than measured"
        for rumour in chosen:
            key = (rumour.node_id, rumour.accuser)
            sent = self._level_of[key] + 1
            self._drop(key)
            if sent < times:
                self._keys_of.setdefault(rumour.node_id, []).append(key)
                self._place(key, rumour, sent)
        return [message]

    def _choose(self, count: int, skip: Callable[[Rumour], bool]) -> list[Rumour]:
        chosen: list[Rumour] = []
        for level in filter(None, self._levels):
            for rumour in reversed(level.values()):  # the newest of those sent as often
                if len(chosen) >= count:
                    return chosen
                if not skip(rumour):
                    chosen.append(rumour)
        return chosen

    def _place(self, key: tuple[NodeId, NodeId], rumour: Rumour, sent: int) -> None:
        while len(self._levels) <= sent:
            self._levels.append({})
        self._levels[sent][key] = rumour
        self._level_of[key] = sent

    def _drop(self, key: tuple[NodeId, NodeId]) -> None:
        del self._levels[self._level_of.pop(key)][key]
        keys = self._keys_of[key[0]]
        keys.remove(key)
        if not keys:
            del self._keys_of[key[0]]


def _sizes(codec: Codec) -> tuple[int, int]:
    """Measure the encoding at its largest.

    Returns the bytes around all updates, and the bytes of one.
    """
    node_id = NodeId(b"\xff" * 16)
    largest = Rumour(node_id, limits.INCARNATION_MAX, MemberState.LEFT, node_id)
    one = len(codec.encode(Rumours((largest,))))
    rumour_size = len(codec.encode(Rumours((largest,) * 2))) - one
    # A long array has a longer header: measure what a full one has around its updates.
    count = limits.PAYLOAD_SIZE_MAX // rumour_size - 1
    full = len(codec.encode(Rumours((largest,) * count)))
    return full - count * rumour_size, rumour_size
