"""The decisions of the policies of this host's networks, as the kernel counts them.

Owns: which policy a number of the kernel means. Does not: keep anything between two readings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.policy_catalog import PolicyCatalog
from overlay.core.dataplane.state import DEFAULT_RULE
from overlay.core.policy.compiler import rule_numbers
from overlay.kernel.bpf.policy_maps import DeniedPacket, RuleCount
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Vni

DEFAULT_NAME = ""
"""In place of a policy's name: the network's default."""


class PolicyCount(NamedTuple):
    """A policy's decisions on this host since the agent's start."""

    allowed: int = 0  # connections
    denied: int = 0  # packets


@dataclass(frozen=True, slots=True)
class PolicyReading:
    """The counts of one network's policies by their names in lower case, and what was denied.

    The packets of which there were most come first."""

    counts: dict[str, PolicyCount] = field(default_factory=dict)
    denied: dict[str, list[DeniedPacket]] = field(default_factory=dict)


class PolicyCounters:
    """Reads counts and samples."""

    def __init__(
        self, kernel: KernelThread, reconciler: Reconciler, catalog: PolicyCatalog
    ) -> None:
        self._kernel = kernel
        self._reconciler = reconciler
        self._catalog = catalog

    async def read(self, vni: Vni) -> PolicyReading | None:
        """Return what a network's policies decided here; None if it has no sandbox here."""
        runtime = self._reconciler.runtime(vni)
        if runtime is None:
            return None
        found = await self._kernel.call(_read, runtime.sandbox)
        if found is None:
            return PolicyReading()
        counts, denied = found
        numbers = rule_numbers(policy.name for policy in self._catalog.policies(vni))
        names = {number: name for name, number in numbers.items()} | {DEFAULT_RULE: DEFAULT_NAME}
        return PolicyReading(
            {names[rule]: PolicyCount(*count) for rule, count in counts.items() if rule in names},
            _by_policy(denied, names),
        )


def _by_policy(
    denied: Iterable[DeniedPacket], names: dict[int, str]
) -> dict[str, list[DeniedPacket]]:
    found: dict[str, list[DeniedPacket]] = {}
    for each in denied:
        if each.rule in names:
            found.setdefault(names[each.rule], []).append(each)
    for packets in found.values():
        packets.sort(key=lambda each: -each.packets)
    return found


def _read(sandbox: Sandbox) -> tuple[dict[int, RuleCount], list[DeniedPacket]] | None:
    """Return a sandbox's counts and samples; None if it has no policies, or is closed."""
    maps = None if sandbox.fast_path is None else sandbox.fast_path.policy_maps
    if maps is None or sandbox.netns_fd < 0:
        return None
    try:
        return maps.counts(), maps.denied_packets()
    except OSError:
        return None
