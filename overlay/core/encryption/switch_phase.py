"""How far a host is in encrypting a network that exists, and how far it may go.

The network's creator writes the goal into the network's record: a label with a serial number; for a
creator that is gone see `orphan_goal`. Each member then moves by one phase at a time, and publishes
each phase when its kernel is there. It moves on when every member has reached its own phase, so two
members are never more than one phase apart, and neighboring phases understand each other: a member
that sends through the tunnels meets none that does not receive there, and one that has stopped
receiving in clear none that sends so.

Nobody coordinates, so a host that dies holds the others up where they are, and continues when it is
back. Only a member that was forgotten is no longer waited for. The way back is the same backwards.

Owns: these rules. Does not: know the records' form (`switch_records`), or change the kernel
(`agent.encryption`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from overlay.core.dataplane.network_drivers import EncryptionGoal, encryption_goal, is_encrypted
from overlay.model import Network, NodeId


class SwitchPhase(enum.IntEnum):
    """How a host sends and accepts a network's frames."""

    CLEAR = 0
    READY = 1  # containers' MTU fits the tunnels, and the tunnels are there
    BOTH = 2  # receives by the tunnels, too
    SENDING = 3  # sends by the tunnels, and still receives in clear
    ENCRYPTED = 4


class Progress(NamedTuple):
    """A member's record: its phase, and whether its kernel is there already."""

    vni: int
    serial: int  # of the goal that it follows
    phase: SwitchPhase
    is_done: bool


class SwitchWait(enum.Enum):
    """Why a switch waits for a member."""

    UNAWARE = "it has not taken it up"
    BEHIND = "it has not confirmed its last step"


def is_switching(network: Network) -> bool:
    """Return whether a network is on its way into the tunnels, or out of them."""
    goal = encryption_goal(network)
    return goal is not None and goal.encrypted != is_encrypted(network)


def phase_of(network: Network, own: Progress | None, others: Iterable[Progress]) -> SwitchPhase:
    """Return the phase of a member with this progress, None before it has written any."""
    goal = encryption_goal(network)
    if goal is None or not is_switching(network):
        return SwitchPhase.ENCRYPTED if is_encrypted(network) else SwitchPhase.CLEAR
    if own is not None:
        return own.phase
    return _entry_phase(goal, [each.phase for each in others if each.serial == goal.serial])


def _entry_phase(goal: EncryptionGoal, others: list[SwitchPhase]) -> SwitchPhase:
    """Return the phase of a member that knows of the switch, and has taken no part in it.

    On the way into the tunnels, the one that the others reach next: none sends in clear then,
    where all can do without. On the way out, the first: nothing that others say opens anything.
    """
    if not goal.encrypted:
        return SwitchPhase.ENCRYPTED
    if not others:
        return SwitchPhase.CLEAR
    if min(others) >= SwitchPhase.BOTH:
        return max(*others, SwitchPhase.SENDING)
    return max(others)


def waits(
    goal: EncryptionGoal, phase: SwitchPhase, others: Mapping[NodeId, Progress | None]
) -> Iterator[tuple[NodeId, SwitchWait]]:
    """Yield the members that have not reached a phase, each with the reason."""
    for node_id, there in others.items():
        if there is None or there.serial != goal.serial:
            yield node_id, SwitchWait.UNAWARE
            continue
        # One that is on its way to a phase has reached the one before.
        ahead = (there.phase - phase) * _direction(goal)
        if ahead < (0 if there.is_done else 1):
            yield node_id, SwitchWait.BEHIND


def next_progress(
    network: Network, own: Progress | None, others: Mapping[NodeId, Progress | None]
) -> Progress | None:
    """Return what this node publishes next; None while it waits, or is where the goal is.

    A step that has begun is finished first: nobody else knows in which of two phases it is. A new
    goal is taken up where this node stands.
    """
    goal = encryption_goal(network)
    if goal is None or not is_switching(network) or (own is not None and not own.is_done):
        return None
    if own is None or own.serial != goal.serial:
        phase = phase_of(network, own, (each for each in others.values() if each is not None))
        return Progress(network.vni, goal.serial, phase, is_done=True)
    if own.phase == final_phase(goal) or any(True for _ in waits(goal, own.phase, others)):
        return None
    following = SwitchPhase(own.phase + _direction(goal))
    return Progress(network.vni, goal.serial, following, is_done=False)


def is_complete(
    network: Network, own: Progress | None, others: Mapping[NodeId, Progress | None]
) -> bool:
    """Return whether every member is where the goal is: the definition may say so."""
    goal = encryption_goal(network)
    if goal is None or not is_switching(network):
        return False
    is_here = own == final_progress(network.vni, goal)
    return is_here and not any(True for _ in waits(goal, final_phase(goal), others))


def final_phase(goal: EncryptionGoal) -> SwitchPhase:
    """Return the phase that a goal ends in."""
    return SwitchPhase.ENCRYPTED if goal.encrypted else SwitchPhase.CLEAR


def final_progress(vni: int, goal: EncryptionGoal) -> Progress:
    """Return what a member publishes at last."""
    return Progress(vni, goal.serial, final_phase(goal), is_done=True)


def _direction(goal: EncryptionGoal) -> int:
    return 1 if goal.encrypted else -1
