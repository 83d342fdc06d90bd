"""Invariants of key rotation: each receiver holds the sender's key.

Owns: the keys' ids and ages, the members that each one considered alive at its rotation steps, and
the judgment of every datagram dropped because its receiver lacks the key. docs/PROTOCOL.md 3.4
allows such a drop if the sender considered the receiver dead when it began to use the key, if the
receiver considered the sender dead when it dropped the key, or if the receiver's disk was rolled
back and lacks keys that its record lists. The receiver's next hello must end the condition.
Does not: decide anything for a member.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Protocol

from overlay import limits
from overlay.core.keys.rotation import Ring
from overlay.core.node import Node
from overlay.core.protocol.records import KeyId
from overlay.model import Ip, NodeId
from overlay.sim.environment.network import Flight
from overlay.sim.host.disk import FIRST_KEY, Disk

FIRST_MADE_S: Final = 1_800_000_000.0  # Unix time at the start of the simulation
_HEALING_S: Final = 15.0  # some hellos may be lost, but not all
_HEALING_COUNT: Final = 50


class WatchedHost(Protocol):
    """The part of a host that is inspected.

    `node` is None while its agent is down.
    """

    name: str
    node_id: NodeId
    address: Ip
    disk: Disk
    node: Node | None


class KeysBrokenError(AssertionError):
    """A receiver lacks a key that it should hold."""


class KeyInvariants:
    """Checks every rotation step of every member.

    `host_of` finds a host by node id; `is_cut` returns whether nothing passes from one address to
    another.
    """

    def __init__(
        self,
        rng: random.Random,
        host_of: Callable[[NodeId], WatchedHost],
        is_cut: Callable[[Ip, Ip], bool],
        interval_s: float = 0.0,
    ) -> None:
        self.rng = rng
        self.interval_s = interval_s
        self.made_s: dict[KeyId, float] = {FIRST_KEY: FIRST_MADE_S}
        self.excused_count = 0
        self.tell: Callable[[str], None] = lambda _text: None
        self._host_of = host_of
        self._is_cut = is_cut
        self._live_at_use: dict[tuple[NodeId, KeyId], set[NodeId]] = {}
        self._live_at_drop: dict[tuple[NodeId, KeyId], set[NodeId]] = {}
        self._lost: dict[NodeId, frozenset[KeyId]] = {}
        self._sealed: dict[NodeId, KeyId] = {}  # key in use before the disk was rolled back
        self._healing: dict[tuple[NodeId, NodeId, KeyId], tuple[float, int]] = {}

    def made(self, host: WatchedHost, key: KeyId, wall_s: float) -> None:
        """Record that a host has created a key."""
        self.made_s[key] = float(int(wall_s))
        self.tell(f"{host.name}: creates {_key_text(key)}")

    def rolled_back(self, host: WatchedHost, before: Ring, after: Ring) -> None:
        """Record that a host's disk holds an earlier ring again."""
        self._lost[host.node_id] = self._lost.get(host.node_id, frozenset()) | (
            before.held - after.held
        )
        self._sealed[host.node_id] = max(before.sealing, self._sealed.get(host.node_id, FIRST_KEY))

    # --- steps --------------------------------------------------------------------------

    def followed(self, host: WatchedHost, before: Ring, after: Ring) -> None:
        """Check a member's step, which is now durable. Raises KeysBrokenError."""
        assert host.node is not None
        live = set(host.node.membership.live())
        if host.node_id in self._lost:
            self._lost[host.node_id] -= after.held
        if after.sealing != before.sealing:
            self.tell(f"{host.name}: seals with {_key_text(after.sealing)}")
            self._live_at_use[host.node_id, after.sealing] = live
            for node_id in sorted(live):
                self._require_held(host, self._host_of(node_id), after.sealing)
        is_full = len(before.held) >= limits.KEYS_HELD_MAX and after.newest != before.newest
        for key in sorted(before.held - after.held):
            self.tell(f"{host.name}: drops {_key_text(key)}")
            self._live_at_drop[host.node_id, key] = set() if is_full else live
            for node_id in () if is_full else sorted(live):
                self._require_unused(host, self._host_of(node_id), key)

    def _require_held(self, host: WatchedHost, other: WatchedHost, key: KeyId) -> None:
        if key in other.disk.ring.held or key in self._lost.get(other.node_id, ()):
            return
        dropped_by = self._live_at_drop.get((other.node_id, key))
        if dropped_by is None or host.node_id in dropped_by:
            raise KeysBrokenError(
                f"{host.name} seals with {_key_text(key)}, which {other.name} does not hold"
            )

    def _require_unused(self, host: WatchedHost, other: WatchedHost, key: KeyId) -> None:
        sealing = other.disk.ring.sealing
        if sealing <= key and sealing >= self._sealed.get(other.node_id, FIRST_KEY):
            raise KeysBrokenError(
                f"{host.name} drops {_key_text(key)}, "
                f"and {other.name} seals with {_key_text(sealing)}"
            )

    # --- datagrams ----------------------------------------------------------------------

    def unknown(self, receiver_id: NodeId, key: KeyId, flight: Flight, now: float) -> None:
        """Check a datagram whose session its receiver ended with a cluster key.

        The sender stops using such a session soon after it uses the next key. Raises
        KeysBrokenError.
        """
        sender, receiver = self._host_of(flight.sender), self._host_of(receiver_id)
        is_excused = self._is_excused(sender, receiver, key)
        if not is_excused and now - flight.sent_s < limits.KEY_REST_S - limits.KEY_SWITCH_S:
            raise KeysBrokenError(
                f"{receiver.name} lacks {_key_text(key)}, under which {sender.name} sealed for it "
                f"{now - flight.sent_s:.3f} s ago"
            )
        self.excused_count += 1
        self._require_healing(sender, receiver, key, now)

    def _is_excused(self, sender: WatchedHost, receiver: WatchedHost, key: KeyId) -> bool:
        if key in self._lost.get(receiver.node_id, ()):
            return True
        dropped_by = self._live_at_drop.get((receiver.node_id, key))
        if dropped_by is not None:
            return sender.node_id not in dropped_by
        used_by = self._live_at_use.get((sender.node_id, key))
        return used_by is not None and receiver.node_id not in used_by

    def _require_healing(
        self, sender: WatchedHost, receiver: WatchedHost, key: KeyId, now: float
    ) -> None:
        """Check that an excused condition ends.

        Each such datagram triggers a hello, which must end it.
        """
        pair = (sender.node_id, receiver.node_id, key)
        if self._is_cut(receiver.address, sender.address):
            self._healing.pop(pair, None)
            return
        since, count = self._healing.get(pair, (now, 0))
        self._healing[pair] = (since, count + 1)
        if count >= _HEALING_COUNT and now - since > _HEALING_S:
            raise KeysBrokenError(
                f"{sender.name} has sealed with {_key_text(key)} for {receiver.name}, "
                f"which lacks it, for {now - since:.0f} s"
            )


def _key_text(key: KeyId) -> str:
    return f"key {key.generation}/{key.mark:04x}"
