"""Translate behind a gate, if the configuration asks for one and this host can have it.

Owns: the gate's namespace with its table, in the order in which no packet is led to rules that are
not there yet. Does not: decide whether there is one (`decision`), or what is translated, or keep
the host's own table (`rules`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from overlay.agent.exposure.gate.decision import GateDecision, Standing
from overlay.agent.exposure.gate.former_ports import FormerPorts
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import HostState
from overlay.core.gate.inside import LOOPBACK_DESTINATION
from overlay.core.gate.state import GateState
from overlay.core.gate.translation import GatePlan, VirtualAddress
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.gate.gate import Gate, existing, kept_block, remove_gate
from overlay.kernel.nft.host.translation_table import TranslationTable
from overlay.model import Ip, NodeId


class TranslationGate:
    """The gate of this host; `plan` is what it was made by, None without a gate."""

    def __init__(
        self, node_id: NodeId, kernel: KernelThread, mode: str, run_dir: Path | None = None
    ) -> None:
        self.decision = GateDecision(node_id, kernel, mode)
        self.plan: GatePlan | None = None
        self.was_altered = False  # by another program, as the last pass found
        self._node_id = node_id
        self._kernel = kernel
        self._run_dir = run_dir
        self._gate: Gate | None = None
        self._table: TranslationTable | None = None
        self._may_be_left = True  # by the previous process
        self._made_for: HostState | None = None
        self._former_ports = FormerPorts(kernel)

    @property
    def look_again_s(self) -> float | None:
        """Return when the gate may be otherwise without an event; None if not."""
        former_s = None if self.plan is None else self._former_ports.look_again_s
        looks = (self.decision.look_again_s, former_s)
        return min((each for each in looks if each is not None), default=None)

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

        Returns None if the host must do so itself; the decision says why. A gate that is in force
        stays where it can't be brought up to date for now, as its end would end connections: then
        this raises OverlayError or OSError.
        """
        standing = await self._standing()
        try:
            plan = await self.decision.plan(wanted, virtual, standing)
            if plan is not None:
                plan = await self._put(plan)
        except (OverlayError, OSError) as error:
            if standing is not None:
                raise
            self.decision.note_failure(wanted, error)
            plan = None
        self.plan, self._made_for = plan, wanted
        return plan

    async def _standing(self) -> Standing | None:
        """Return the gate that stands; one that never was whole has no connections."""
        if self.plan is not None:
            return Standing(self.plan.gate.block, self.plan, self._made_for)
        block = await self._kernel.call(kept_block, self._node_id)
        return None if block is None else Standing(block, None, None)

    async def _put(self, plan: GatePlan) -> GatePlan:
        """Write a plan with the former ports that it needs, and return that."""
        gate, table = await self._open()
        former = await self._former_ports.of_plan(plan, self.plan, table.netns_fd)
        published = plan.gate.published | former
        whole = plan._replace(gate=replace(plan.gate, published=published))
        await self._write(gate, table, whole)
        return whole

    async def _write(self, gate: Gate, table: TranslationTable, plan: GatePlan) -> None:
        """Write what the host needs, rules before packets; what goes, the other way round."""
        before = await self._kernel.call(gate.read)
        is_table_right = await self._kernel.call(table.holds, plan.translation)
        wanted = plan.gate
        self.was_altered = False
        if plan == self.plan and not self.decision.is_obstructed:
            lost = wanted.interfaces - before.interfaces
            gone = lost - await self._kernel.call(existing, lost) if lost else lost
            is_right = replace(wanted, interfaces=wanted.interfaces - gone) == before
            self.was_altered = not (is_right and is_table_right)
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
            self._gate = await self._kernel.call(Gate, self._node_id, self._run_dir)
            await self._kernel.call(self._gate.prepare)
            self._table = await self._kernel.call(TranslationTable, self._gate.path)
        return self._gate, self._table

    async def end(self) -> None:
        """Remove the gate: the host's own namespace translates, or nothing does. Raises OSError."""
        if not self._may_be_left:
            return
        self._close()
        self.plan = None
        await self._kernel.call(remove_gate, self._node_id, self._run_dir)
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
