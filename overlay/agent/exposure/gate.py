"""Translate behind a gate, if the configuration asks for one and this host can have it.

Owns: the gate's namespace with its table, in the order in which no packet is led to rules that are
not there yet, and why the host's own namespace must translate instead.
Does not: decide what is translated, or keep the host's own table (`rules`).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import NamedTuple

from overlay import limits
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import HostState
from overlay.core.gate.host_view import HostView
from overlay.core.gate.inside import LOOPBACK_DESTINATION
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
from overlay.kernel import netns
from overlay.kernel.gate.gate import OTHER_AGENT, Gate, kept_block, refusal, remove_gate
from overlay.kernel.gate.host_reader import read_host
from overlay.kernel.gate.other_programs import admits_by_mark, other_use
from overlay.kernel.gate.used_ports import listening_ports
from overlay.kernel.host.conntrack import open_published_ports
from overlay.kernel.nft.host.translation_table import TranslationTable
from overlay.model import Ip, NodeId

_OFF, _AUTO = "off", "auto"
_TCP = "tcp"
_MARKS = "overlayd_user has rules that set marks, as routes from outside need them"
_RETRY_S = 30.0  # what is made and removed again would itself be the next reason to try


class _Failure(NamedTuple):
    """An attempt that failed: for what, and when."""

    wanted: HostState | None
    at: float

    def is_recent(self, wanted: HostState) -> bool:
        """Return whether the same need not be tried again yet."""
        return wanted == self.wanted and asyncio.get_running_loop().time() < self.at + _RETRY_S


class _Possible(NamedTuple):
    """The plan of a gate; or None, and why there can't be one."""

    plan: GatePlan | None
    why: str
    may_pass: bool = False  # by itself, within moments


class TranslationGate:
    """The gate of this host.

    `why` says why there is none although the configuration asks for one, or leaves it open; `plan`
    what it was made by, None without a gate; `look_again_s` when it may be otherwise without an
    event, None if not.

    If it is left open ("auto"), there is one unless something speaks against it as it would be
    made: another program that tracks, or would be passed by. Those of the host are given some time
    to start after it has booted. Then it stays as long as it can, and one that could not is not
    made again: each end cuts connections off. Both last until nothing is exposed, or the agent
    starts anew.
    """

    def __init__(self, node_id: NodeId, kernel: KernelThread, mode: str) -> None:
        self.mode = mode
        self.why = ""
        self.plan: GatePlan | None = None
        self.was_altered = False  # by another program, as the last pass found
        self.look_again_s: float | None = None
        self._node_id = node_id
        self._kernel = kernel
        self._gate: Gate | None = None
        self._table: TranslationTable | None = None
        self._failed: _Failure | None = None  # the last attempt, if it did
        self._may_be_left = True  # by the previous process
        self._declined = ""  # for good, as far as this agent knows: why
        self._made_for: HostState | None = None
        self._virtual: frozenset[VirtualAddress] = frozenset()
        self._former: frozenset[tuple[str, int]] = frozenset()  # ports with open connections
        self._former_until = 0.0  # so long that is believed
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
    def where(self) -> tuple[int, frozenset[Ip]] | None:
        """Return the namespace that translates, and the host's addresses; None without a gate."""
        if self._table is None or self.plan is None:
            return None
        return self._table.netns_fd, self.plan.translation.own | {*LOOPBACK_DESTINATION.values()}

    @property
    def place(self) -> tuple[str, tuple[int, int]] | None:
        """Return path and identity of the namespace that translates; None without a gate."""
        if self._gate is None or self._table is None or self.plan is None:
            return None
        return str(self._gate.path), netns.identity(self._table.netns_fd)

    async def bring(
        self, wanted: HostState | None, virtual: frozenset[VirtualAddress] = frozenset()
    ) -> GatePlan | None:
        """Have the gate translate for these networks, ports, and virtual addresses.

        Returns None if the host must do so itself; `why` has the reason. A gate that is in force
        stays where it can't be brought up to date for now, as its end would end connections: then
        this raises OverlayError or OSError.
        """
        # Perhaps of an agent of before, with its connections. One that never was whole has none.
        standing = await self._standing_block()
        self._virtual = virtual
        try:
            plan = await self._plan(wanted, standing)
            if plan is not None:
                plan = await self._with_former_ports(plan)
                await self._write(plan)
        except (OverlayError, OSError) as error:
            if standing is not None:
                raise
            self.why, plan = f"the gate could not be made: {error}", None
            self._failed = _Failure(wanted, asyncio.get_running_loop().time())
        self.plan, self._made_for = plan, wanted
        return plan

    async def _standing_block(self) -> PortBlock | None:
        """Return the ports of a gate that stands: its connections have them, so it keeps them."""
        if self.plan is not None:
            return self.plan.gate.block
        return await self._kernel.call(kept_block, self._node_id)

    async def _plan(self, wanted: HostState | None, standing: PortBlock | None) -> GatePlan | None:
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
        found = await self._possible(wanted, standing)
        if found.plan is None and standing is not None and found.may_pass and self._waits():
            if self.plan is not None and wanted == self._made_for:
                return self.plan
            raise OverlayError(found.why)  # so that the gate stays as it is
        self._obstructed_at = None
        why = found.why
        # One that a former agent left has been made here: a refusal now is a passing one.
        if found.plan is not None and standing is None:
            why = await self._kernel.call(refusal, self._node_id)
            if not why and self.is_optional:
                why = await self._kernel.call(other_use, self._node_id, found.plan.outside)
        is_final = not found.may_pass and (standing is not None or found.plan is not None)
        if why and self.is_optional and is_final and why != OTHER_AGENT:
            self._declined = why
        self.why = why
        return None if why else found.plan

    async def _possible(self, wanted: HostState, standing: PortBlock | None) -> _Possible:
        """Return the plan, or why the host can't have a gate."""
        host = await self._kernel.call(read_host)
        block = standing or await self._free_block(host, wanted)
        lasting = obstacle(host, wanted) or block_obstacle(host, block)
        if self.is_optional and not lasting and await self._kernel.call(admits_by_mark):
            lasting = _MARKS
        why = lasting or missing_address(host, wanted)
        if why or block is None:
            return _Possible(None, why, may_pass=not lasting)
        plan = plan_gate(host, wanted, block, self._virtual)
        why = _excess(plan.gate)
        return _Possible(None if why else plan, why)

    def _waits(self) -> bool:
        """Return whether to wait until what is in the way of a gate that stands has passed."""
        now_s = asyncio.get_running_loop().time()
        if self._obstructed_at is None:
            self._obstructed_at = now_s
        left_s = self._obstructed_at + limits.GATE_PATIENCE_S - now_s
        self.look_again_s = left_s if left_s > 0 else None
        return left_s > 0

    async def _free_block(self, host: HostView, wanted: HostState) -> PortBlock | None:
        """Return ports to masquerade with; None if too few are free."""
        listening = await self._kernel.call(listening_ports)
        published = {port for _, port in published_ports(wanted)}
        return choose_block(host, listening | published)

    async def _with_former_ports(self, plan: GatePlan) -> GatePlan:
        """Lead ports that are no longer published to the gate while connections to them are open.

        As where hooks translate, these live on. UDP flows are forgotten (`rules`).
        """
        wanted = plan.gate.published
        former = None if self.plan is None else self.plan.gate.published - wanted
        if former is not None and not any(protocol == _TCP for protocol, _ in former):
            return plan
        now_s = asyncio.get_running_loop().time()
        if former is not None and former <= self._former and now_s < self._former_until:
            self.look_again_s = self._former_until - now_s
            return plan._replace(gate=replace(plan.gate, published=wanted | former))
        _, table = await self._open()
        try:
            own = plan.gate.own | {*LOOPBACK_DESTINATION.values()}
            ports = await self._kernel.call(open_published_ports, table.netns_fd, own)
        except (OverlayError, OSError):  # what is led there in vain costs time alone
            kept = former or frozenset()
        else:
            found = frozenset((_TCP, port) for port in ports)
            kept = found if former is None else found & former
        # Each look goes through the kernel's whole table of connections.
        self._former, self._former_until = kept, now_s + limits.GATE_RETIRING_S
        self.look_again_s = limits.GATE_RETIRING_S if kept else self.look_again_s
        return plan._replace(gate=replace(plan.gate, published=wanted | kept))

    async def _write(self, plan: GatePlan) -> None:
        """Write what the host needs, rules before packets; what goes, the other way round."""
        gate, table = await self._open()
        before = await self._kernel.call(gate.read)
        is_table_right = await self._kernel.call(table.holds, plan.translation)
        wanted = plan.gate
        is_right = before == wanted and is_table_right
        self.was_altered = self._obstructed_at is None and plan == self.plan and not is_right
        kept = {(each.base, each.length) for each in wanted.networks}
        less = GateState(
            before.interfaces,
            before.own,
            frozenset(each for each in before.networks if (each.base, each.length) in kept),
            before.published & wanted.published,
            before.block,
            before.virtual & wanted.virtual,
        )
        if less != before:
            await self._kernel.call(gate.write, before, less)
        if not is_table_right:
            await self._kernel.call(table.write, plan.translation)
        if less != wanted:
            await self._kernel.call(gate.write, less, wanted)
        await self._kernel.call(gate.keep_block, wanted.block)  # so it stands

    async def _open(self) -> tuple[Gate, TranslationTable]:
        if self._gate is None or self._table is None:
            self._close()
            self._may_be_left = True
            self._gate = await self._kernel.call(Gate, self._node_id)
            await self._kernel.call(self._gate.prepare)
            self._table = await self._kernel.call(TranslationTable, self._gate.path)
        return self._gate, self._table

    async def end(self) -> None:
        """Remove the gate: the host's own namespace translates, or nothing does. Raises OSError."""
        if not self._may_be_left:
            return
        self._close()
        self.plan = None
        await self._kernel.call(remove_gate, self._node_id)
        self._may_be_left = False

    async def differences(self) -> list[str]:
        """Return how the kernel differs from what the gate was made by."""
        if self._gate is None or self._table is None or self.plan is None:
            return []
        found = await self._kernel.call(self._gate.read)
        texts = [] if found == self.plan.gate else ["the gate is altered"]
        if not await self._kernel.call(self._table.holds, self.plan.translation):
            texts.append("the gate's nft table is altered or gone")
        return texts

    def _close(self) -> None:
        if self._table is not None:
            self._table.close()
        if self._gate is not None:
            self._gate.close()
        self._table = self._gate = None

    def close(self) -> None:
        """Close the descriptors; the gate stays in force."""
        self._close()


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
