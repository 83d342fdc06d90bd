"""Replace this node's WireGuard key: on a schedule, by command, and when another member does.

Owns: when a step is taken, and what it waits for. Does not: know the order of the steps
(`core.encryption.rotation`), or make devices.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from overlay import limits
from overlay.agent.encryption.own_keys import OwnKeys
from overlay.agent.process.event_log import EventLog
from overlay.core.encryption.rotation import (
    MemberKeys,
    ReplacementStep,
    WaitReason,
    next_step,
    waits,
)
from overlay.model import NodeId


class KeyReplacement:
    """The rotation of this node's WireGuard key, step by step."""

    def __init__(self, keys: OwnKeys, event_log: EventLog, interval_s: float) -> None:
        self.interval_s = interval_s
        self.waiting: dict[NodeId, WaitReason] = {}
        """The members that the present step waits for."""
        self._keys = keys
        self._event_log = event_log
        self._is_asked = False
        self._began_at: float | None = None  # by the event loop's clock: the last rotation
        self._free_at: float | None = None  # since when nobody is waited for
        self._is_delayed = False

    @property
    def is_active(self) -> bool:
        """Return whether there are two keys, or soon will be."""
        slots = self._keys.slots
        has_two = slots.next is not None or slots.retired is not None
        return has_two or self._is_asked or self._is_delayed

    @property
    def is_stuck(self) -> bool:
        """Return whether a rotation waits for a member for longer than is usual."""
        began = self._began_at
        return bool(self.waiting) and began is not None and _now() - began > limits.KEY_STUCK_S

    @property
    def age_s(self) -> float | None:
        """Return for how long the key in use has existed; None before there is one."""
        key = self._keys.current
        return None if key is None or not key.made_s else max(0.0, time.time() - key.made_s)

    def ask(self) -> None:
        """Begin a rotation as soon as there is none."""
        self._is_asked = True

    def advance(self, members: Sequence[MemberKeys]) -> bool:
        """Take the next step, if its condition holds; return whether there was one.

        The devices must be as the keys of now ask for. Raises OverlayError.
        """
        slots = self._keys.slots
        if self.is_active and self._began_at is None:
            self._began_at = _now()  # the agent was started in the middle of a rotation
        self.waiting = dict(waits(slots, members))
        step = next_step(slots, members, due=self._is_due())
        self._is_delayed = not self._is_time_for(step)
        if self._is_delayed:
            return False
        match step:
            case ReplacementStep.ADOPT:
                self._keys.adopt()
                self._report("the other members use another slot")
            case ReplacementStep.BEGIN:
                self._keys.begin()
                self._is_asked = False
                self._began_at = _now()
            case ReplacementStep.RETIRE:
                self._keys.retire()
                self._report("all packets leave by it")
            case ReplacementStep.FORGET:
                self._keys.forget()
        return step is not ReplacementStep.NONE

    def waits_for(self) -> Iterator[tuple[NodeId, str]]:
        """Yield the members that a rotation waits for, and why."""
        for node_id, wait in self.waiting.items():
            yield node_id, wait.value

    def _is_due(self) -> bool:
        age_s = self.age_s
        is_old = self.interval_s > 0 and age_s is not None and age_s > self.interval_s
        return self._is_asked or is_old

    def _is_time_for(self, step: ReplacementStep) -> bool:
        """Return whether enough time has passed: for late packets, and since the last rotation."""
        if step is not ReplacementStep.FORGET:
            self._free_at = None
        elif self._free_at is None:
            self._free_at = _now()
        if step is ReplacementStep.FORGET and self._free_at is not None:
            return _now() - self._free_at >= limits.WIREGUARD_RETIRED_S
        if step is ReplacementStep.BEGIN and not self._is_asked and self._began_at is not None:
            return _now() - self._began_at >= limits.WIREGUARD_ROTATION_PAUSE_S
        return True

    def _report(self, why: str) -> None:
        key = self._keys.current
        if key is not None:
            text = f"the WireGuard key of epoch {key.epoch} is in use: {why}"
            self._event_log.record("encryption", text)


def _now() -> float:
    return asyncio.get_running_loop().time()
