"""The goal of a network whose creator is no longer a member.

Nobody can change its definition. So the newest goal that a member follows counts: a member gives
the network a goal by publishing progress towards it. The serial number is even where the goal is to
encrypt. And no definition says at the end that the network is encrypted: each member goes by its
own progress, which it keeps.

What others publish can never move a member into the clear: without progress of its own it is where
the definition says, or still encrypted.

Owns: these rules. Does not: know which members exist (`switch_view`), or the order of the phases
(`switch_phase`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from overlay.core.dataplane.network_drivers import (
    EncryptionGoal,
    encryption_goal,
    is_encrypted,
    with_goal,
)
from overlay.core.encryption.switch_phase import Progress, SwitchPhase, final_progress
from overlay.model import Network


def goal_after(before: Iterable[int], now_s: int, *, encrypted: bool) -> EncryptionGoal:
    """Return a goal that is newer than those with these serial numbers."""
    serial = max([now_s, *(each + 1 for each in before)])
    return EncryptionGoal(encrypted, serial + ((serial % 2 == 0) != encrypted))


def serial_of(network: Network) -> int:
    """Return the serial number of a network's goal; 0 if it has had none."""
    goal = encryption_goal(network)
    return goal.serial if goal else 0


def orphan_in_effect(
    definition: Network, own: Progress | None, others: Iterable[Progress]
) -> Network:
    """Return a network without a creator as it is for this member."""
    defined = serial_of(definition)
    newer = [each for each in others if each.serial > defined]
    serial = max([defined, own.serial if own else 0, *(each.serial for each in newer)])
    if not serial:
        return definition
    goal = EncryptionGoal(serial % 2 == 0, serial)
    if serial == defined:
        goal = encryption_goal(definition) or goal
    is_there = _is_there(definition, goal, own, newer)
    return with_goal(definition, goal, encrypted=goal.encrypted is is_there)


def _is_there(
    definition: Network, goal: EncryptionGoal, own: Progress | None, newer: Sequence[Progress]
) -> bool:
    """Return whether this member is where the goal is."""
    if own == final_progress(definition.vni, goal):
        return True
    is_defined = is_encrypted(definition) is goal.encrypted
    if goal.serial == serial_of(definition):
        return is_defined
    if own is not None:
        return False
    # It has joined since, or the goal is what the network has been all along.
    is_clear = all(each.phase is SwitchPhase.CLEAR for each in newer)
    return is_defined and (goal.encrypted or is_clear)
