"""Lifeguard's dynamic suspicion timeout.

Owns: the arithmetic and the accusers of one suspicion. Does not: set timers, or know members and
messages; the failure detector asks when a suspicion is due.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import NodeId


def least_timeout_s(member_count: int, settings: ProtocolSettings) -> float:
    """Return the minimum suspicion timeout in seconds for a cluster size.

    It covers the notification of the suspect and the spreading of its refutation, which takes a
    number of gossip rounds logarithmic in the members (SWIM section 4.1).
    """
    spread = settings.suspicion_growth * math.log10(max(member_count, 1))
    return settings.probe_interval_s * max(settings.suspicion_multiplier, spread)


def timeout_s(least_s: float, most_s: float, confirmations: int, expected: int) -> float:
    """Return the timeout in seconds of a suspicion, by its confirmations.

    It falls from `most_s` with the logarithm of the confirmations to `least_s`, reached at
    `expected` (Lifeguard section IV.B); where none are expected, it is `least_s` from the start.
    """
    if expected <= 0:
        return least_s
    fallen = math.log(confirmations + 1) / math.log(expected + 1)
    return max(least_s, most_s - (most_s - least_s) * fallen)


@dataclass(slots=True)
class Suspicion:
    """A suspicion of one member at one incarnation, as one node has it."""

    started: float
    least_s: float
    most_s: float
    expected: int  # confirmations that reduce the timeout to `least_s`
    accusers: list[NodeId] = field(default_factory=list)  # the first one began it
    patience_s: float = 0.0  # how long an answer could take when it began
    asked_at: float | None = None  # when the suspect was given its last chance to answer

    def confirm(self, accuser: NodeId) -> bool:
        """Count an accuser; False if it is known or no further one is needed."""
        if accuser in self.accusers or len(self.accusers) > self.expected:
            return False
        self.accusers.append(accuser)
        return True

    @property
    def is_confirmed(self) -> bool:
        """Whether all expected confirmations have come."""
        return 0 < self.expected < len(self.accusers)

    @property
    def due(self) -> float:
        """When the suspect will be declared dead, as far as known now."""
        confirmations = max(len(self.accusers) - 1, 0)
        return self.started + timeout_s(self.least_s, self.most_s, confirmations, self.expected)


def open_suspicion(
    accuser: NodeId, member_count: int, settings: ProtocolSettings, now: float
) -> Suspicion:
    """Return a new suspicion.

    `member_count` includes this node and the suspect. No confirmations are expected where too few
    members could send one: neither the suspect nor the first accuser confirms.
    """
    least_s = least_timeout_s(member_count, settings)
    others = member_count - 2
    expected = settings.suspicion_confirmations if others >= settings.suspicion_confirmations else 0
    most_s = settings.suspicion_max_multiplier * least_s
    return Suspicion(now, least_s, most_s, expected, [accuser])
