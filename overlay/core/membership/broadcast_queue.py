"""Membership news on its way: what is to be passed on, and how many times still.

Owns the queue and its order. Does not judge news (`membership` does) nor choose whom to tell.
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
    """Return how often each node passes a piece of news on: SWIM's lambda * log(n).

    Where each of n informed nodes tells L random others with `loss` (0 to 1) on the way, about
    n * e^(-L(1 - loss)) hear nothing (SWIM section 4.1, from Bailey's epidemics); L is chosen to
    bring that below `rumour_miss_share`. Loss counts as at most one half, which bounds L.
    """
    wanted = math.log(max(member_count, 2) / settings.rumour_miss_share)
    return math.ceil(wanted / (1 - min(max(loss, 0.0), 0.5)))


class BroadcastQueue:
    """News to pass on, the least told first; newer news of a node replaces older.

    It holds at most one rumour per node, and for a suspect one per accuser that still counts,
    so it is bounded by the members. `count_max` rumours always fit into one payload.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._levels: list[dict[tuple[NodeId, NodeId], Rumour]] = []  # by times told
        self._level_of: dict[tuple[NodeId, NodeId], int] = {}
        self._keys_of: dict[NodeId, list[tuple[NodeId, NodeId]]] = {}
        self._base_size, self._rumour_size = _sizes(codec)
        self.count_max = (limits.PAYLOAD_SIZE_MAX - self._base_size) // self._rumour_size

    def __len__(self) -> int:
        return len(self._level_of)

    def put(self, rumour: Rumour) -> None:
        """Start telling a piece of news, and stop telling what it supersedes."""
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
        """Stop telling anything about the node."""
        for key in list(self._keys_of.get(node_id, ())):
            self._drop(key)

    def has(self, node_id: NodeId) -> bool:
        """Say whether anything about the node is being told."""
        return node_id in self._keys_of

    def datagram_count(self) -> int:
        """Return how many full payloads one telling of everything takes."""
        return math.ceil(len(self) / self.count_max)

    def encoded(self, room: int, times: int, skip: Callable[[Rumour], bool]) -> list[bytes]:
        """Return encoded messages of at most `room` bytes with what was told least so far.

        Each rumour in them counts as told once more, and leaves after `times`. Those that
        `skip` names stay as they are.
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
            told = self._level_of[key] + 1
            self._drop(key)
            if told < times:
                self._keys_of.setdefault(rumour.node_id, []).append(key)
                self._place(key, rumour, told)
        return [message]

    def _choose(self, count: int, skip: Callable[[Rumour], bool]) -> list[Rumour]:
        chosen: list[Rumour] = []
        for level in filter(None, self._levels):
            for rumour in reversed(level.values()):  # the newest of those told as often
                if len(chosen) >= count:
                    return chosen
                if not skip(rumour):
                    chosen.append(rumour)
        return chosen

    def _place(self, key: tuple[NodeId, NodeId], rumour: Rumour, told: int) -> None:
        while len(self._levels) <= told:
            self._levels.append({})
        self._levels[told][key] = rumour
        self._level_of[key] = told

    def _drop(self, key: tuple[NodeId, NodeId]) -> None:
        del self._levels[self._level_of.pop(key)][key]
        keys = self._keys_of[key[0]]
        keys.remove(key)
        if not keys:
            del self._keys_of[key[0]]


def _sizes(codec: Codec) -> tuple[int, int]:
    """Measure the encoding: bytes around all rumours, bytes per rumour, both at the largest."""
    node_id = NodeId(b"\xff" * 16)
    largest = Rumour(node_id, limits.INCARNATION_MAX, MemberState.LEFT, node_id)
    one = len(codec.encode(Rumours((largest,))))
    rumour_size = len(codec.encode(Rumours((largest,) * 2))) - one
    # Long arrays have longer headers: measure what a full one has around its rumours.
    count = limits.PAYLOAD_SIZE_MAX // rumour_size - 1
    full = len(codec.encode(Rumours((largest,) * count)))
    return full - count * rumour_size, rumour_size
