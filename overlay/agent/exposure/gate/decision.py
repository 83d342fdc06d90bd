"""Whether this host translates behind a gate, and the plan of that.

If the configuration leaves it open ("auto"), there is one unless something speaks against it as it
would be made: another program that tracks, or would be passed by, or interfaces that would drop
packets. Those of the host are given some time to start after it has booted. Then it stays as long
as it can, and one that could not is not made again: each end cuts connections off. Both last until
nothing is exposed, or the agent starts anew.

Owns: why there is none. Does not: write anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from overlay import limits
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import HostState
from overlay.core.gate.host_view import HostView
from overlay.core.gate.port_block import PortBlock, block_obstacle, choose_block
from overlay.core.gate.state import GateState
from overlay.core.gate.translation import (
    GatePlan,
    VirtualAddress,
    missing_address,
    obstacle,
    plan_gate,
    published_ports,
)
from overlay.errors import OverlayError
from overlay.kernel.bpf.hooks.interface_hooks import obstacle as hook_obstacle
from overlay.kernel.bpf.hooks.interface_hooks import stops_interfaces
from overlay.kernel.gate.gate import OTHER_AGENT, refusal
from overlay.kernel.gate.host_reader import read_host
from overlay.kernel.gate.other_programs import admits_by_mark, other_use
from overlay.kernel.gate.used_ports import listening_ports
from overlay.model import NodeId

_OFF, _AUTO = "off", "auto"
_MARKS: Final = "overlayd_user has rules that set marks, as routes from outside need them"
_STOPS_INTERFACES: Final = (
    "before Linux 6.6 interfaces drop packets for some milliseconds when a gate comes or goes; "
    'gate = "on" accepts that'
)


class Standing(NamedTuple):
    """A gate that stands, perhaps of an agent of before: its connections have these ports.

    The plan is this agent's, for what it last wrote; None before.
    """

    block: PortBlock
    plan: GatePlan | None
    made_for: HostState | None


class _Failure(NamedTuple):
    """An attempt that failed: for what, and when."""

    wanted: HostState
    at: float

    def is_recent(self, wanted: HostState) -> bool:
        """Return whether the same need not be tried again yet."""
        pause_s = limits.GATE_RETRY_STOPPING_S if stops_interfaces() else limits.GATE_RETRY_S
        return wanted == self.wanted and asyncio.get_running_loop().time() < self.at + pause_s


class _Possible(NamedTuple):
    """The plan of a gate; or None, and why there can't be one."""

    plan: GatePlan | None
    why: str
    may_pass: bool = False  # by itself, within moments


class GateDecision:
    """`why` says why there is no gate although the configuration asks for one, or leaves it open.

    `look_again_s` is when it may be otherwise without an event, None if not.
    """

    def __init__(self, node_id: NodeId, kernel: KernelThread, mode: str) -> None:
        self.mode = mode
        self.why = ""
        self.look_again_s: float | None = None
        self._node_id = node_id
        self._kernel = kernel
        self._failed: _Failure | None = None  # the last attempt, if it did
        self._declined = ""  # for good, as far as this agent knows: why
        self._obstructed_at: float | None = None  # since then something is in the way of one

    @property
    def is_off(self) -> bool:
        """Return whether the host is to have none."""
        return self.mode == _OFF

    @property
    def is_optional(self) -> bool:
        """Return whether the host does as well without a gate."""
        return self.mode == _AUTO

    @property
    def follows_host(self) -> bool:
        """Return whether a change of the host's addresses or policies may change the gate."""
        return not self.is_off and not self._declined

    @property
    def is_obstructed(self) -> bool:
        """Return whether something is in the way of a gate that stands, and may pass."""
        return self._obstructed_at is not None

    async def plan(
        self,
        wanted: HostState | None,
        virtual: AbstractSet[VirtualAddress],
        standing: Standing | None,
    ) -> GatePlan | None:
        """Return the plan of the gate; None if the host must translate itself.

        Raises OverlayError where one that stands is to stay as it is for now, OSError.
        """
        if self.is_off or wanted is None or not wanted.links:
            self.why, self._declined, self.look_again_s = "", "", None
            return None
        if self._declined or (self._failed is not None and self._failed.is_recent(wanted)):
            return None
        self.look_again_s = None
        if standing is None and self.is_optional:
            left_s = limits.GATE_AFTER_BOOT_S - time.clock_gettime(time.CLOCK_BOOTTIME)
            if left_s > 0:
                self.why, self.look_again_s = "", left_s
                return None
        found = await self._possible(wanted, virtual, standing)
        if found.plan is None and standing is not None and found.may_pass and self._waits():
            if standing.plan is not None and wanted == standing.made_for:
                return standing.plan
            raise OverlayError(found.why)  # so that the gate stays as it is
        self._obstructed_at = None
        why = found.why
        # One that a former agent left has been made here: a refusal now is a passing one.
        if found.plan is not None and standing is None:
            why = await self._objection(found.plan)
        is_final = not found.may_pass and (standing is not None or found.plan is not None)
        if why and self.is_optional and is_final and why != OTHER_AGENT:
            self._declined = why
        self.why = why
        return None if why else found.plan

    def note_failure(self, wanted: HostState | None, error: OverlayError | OSError) -> None:
        """Note that a plan could not be written, so that the same is not tried at once again."""
        self.why = f"the gate could not be made: {error}"
        if wanted is not None:
            self._failed = _Failure(wanted, asyncio.get_running_loop().time())

    async def _possible(
        self,
        wanted: HostState,
        virtual: AbstractSet[VirtualAddress],
        standing: Standing | None,
    ) -> _Possible:
        """Return the plan, or why the host can't have a gate."""
        host = await self._kernel.call(read_host)
        block = standing.block if standing else await self._free_block(host, wanted)
        lasting = obstacle(host, wanted) or block_obstacle(host, block)
        if self.is_optional and not lasting and await self._kernel.call(admits_by_mark):
            lasting = _MARKS
        why = lasting or missing_address(host, wanted)
        if why or block is None:
            return _Possible(None, why, may_pass=not lasting)
        plan = plan_gate(host, wanted, block, frozenset(virtual))
        indexes = {each.interface_index for each in plan.gate.interfaces}
        why = _excess(plan.gate) or await self._kernel.call(hook_obstacle, indexes)
        return _Possible(None if why else plan, why)

    async def _free_block(self, host: HostView, wanted: HostState) -> PortBlock | None:
        """Return ports to masquerade with; None if too few are free."""
        listening = await self._kernel.call(listening_ports)
        published = {port for _, port in published_ports(wanted)}
        return choose_block(host, listening | published)

    async def _objection(self, plan: GatePlan) -> str:
        """Return what speaks against a new gate; empty if nothing does."""
        why = await self._kernel.call(refusal, self._node_id)
        if why or not self.is_optional:
            return why
        if stops_interfaces():
            return _STOPS_INTERFACES
        return await self._kernel.call(other_use, self._node_id, plan.outside)

    def _waits(self) -> bool:
        """Return whether to wait until what is in the way of a gate that stands has passed."""
        now_s = asyncio.get_running_loop().time()
        if self._obstructed_at is None:
            self._obstructed_at = now_s
        left_s = limits.GATE_PATIENCE_S - (now_s - self._obstructed_at)
        self.look_again_s = left_s if left_s > 0 else None
        return left_s > 0


def _excess(gate: GateState) -> str:
    """Return what there is too much of for the gate's tables."""
    counts = (
        (len(gate.interfaces), limits.GATE_INTERFACES_MAX, "interfaces with addresses"),
        (len(gate.own), limits.GATE_ADDRESSES_MAX, "addresses"),
        (len(gate.networks), limits.GATE_NETWORKS_MAX, "subnets of exposed networks"),
    )
    for count, most, what in counts:
        if count > most:
            return f"the host has {count} {what}, and a gate takes {most}"
    return ""
