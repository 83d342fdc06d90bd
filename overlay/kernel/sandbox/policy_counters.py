"""Read what the rules of a network's policies have decided in its sandbox.

Does not: know the policies of the rules; numbers are those of the rows.
"""

from __future__ import annotations

from typing import NamedTuple

from overlay.kernel.bpf.policy_maps import DeniedPacket, RuleCount
from overlay.kernel.sandbox.sandbox import Sandbox


class PolicyCounters(NamedTuple):
    """What was decided since this agent's start."""

    counts: dict[int, RuleCount]  # by rule; without those that decided nothing
    denied: list[DeniedPacket]  # samples, of rules with a log


def read_policy_counters(sandbox: Sandbox) -> PolicyCounters:
    """Return the counters of all rules, none for a network without policies. Raises OSError."""
    maps = None if sandbox.fast_path is None else sandbox.fast_path.policy_maps
    if maps is None:
        return PolicyCounters({}, [])
    return PolicyCounters(maps.counts(), maps.denied_packets())
