"""How long a suspect has to clear itself: Lifeguard's dynamic suspicion time-out.

Owns the arithmetic and the list of accusers of one suspicion. Sets no timer and knows neither
members nor messages: `membership` asks when a suspicion is due.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import NodeId


def least_timeout_s(member_count: int, settings: ProtocolSettings) -> float:
    """Return the shortest time between suspicion and death in a cluster of that size.

    It covers a direct word to the suspect and its refutation spreading to all, which takes a
    number of rumour rounds logarithmic in the members (SWIM section 4.1).
    """
    spread = settings.suspicion_growth * math.log10(max(member_count, 1))
    return settings.probe_interval_s * max(settings.suspicion_multiplier, spread)


def timeout_s(least_s: float, most_s: float, confirmations: int, expected: int) -> float:
    """Return how long a suspicion lasts that `confirmations` others share (Lifeguard IV.B).

    From `most_s` it falls with the logarithm of the confirmations to `least_s`, reached when
    `expected` have come; where none can be expected it is `least_s` from the start.
    """
    if expected <= 0:
        return least_s
    fallen = math.log(confirmations + 1) / math.log(expected + 1)
    return max(least_s, most_s - (most_s - least_s) * fallen)


@dataclass(slots=True)
class Suspicion:
    """One member's being suspected at one incarnation, as one node sees it."""

    started: float
    least_s: float
    most_s: float
    expected: int  # confirmations that bring it down to `least_s`
    accusers: list[NodeId] = field(default_factory=list)  # the first one opened it
    patience_s: float = 0.0  # how long an answer might take when it began
    asked_at: float | None = None  # when the suspect got its last chance to answer

    def confirm(self, accuser: NodeId) -> bool:
        """Count an accuser; False if it is known already or no more are needed."""
        if accuser in self.accusers or len(self.accusers) > self.expected:
            return False
        self.accusers.append(accuser)
        return True

    @property
    def is_confirmed(self) -> bool:
        """Whether as many others share it as could be asked for."""
        return 0 < self.expected < len(self.accusers)

    @property
    def due(self) -> float:
        """When the suspect is to be held dead, as far as is known now."""
        confirmations = max(len(self.accusers) - 1, 0)
        return self.started + timeout_s(self.least_s, self.most_s, confirmations, self.expected)


def open_suspicion(
    accuser: NodeId, member_count: int, settings: ProtocolSettings, now: float
) -> Suspicion:
    """Return a new suspicion; `member_count` includes this node and the suspect.

    Fewer confirmations are waited for where fewer could come: neither the suspect nor the
    first accuser confirms.
    """
    least_s = least_timeout_s(member_count, settings)
    others = member_count - 2
    expected = settings.suspicion_confirmations if others >= settings.suspicion_confirmations else 0
    most_s = settings.suspicion_max_multiplier * least_s
    return Suspicion(now, least_s, most_s, expected, [accuser])
