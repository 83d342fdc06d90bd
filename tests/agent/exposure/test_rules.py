"""Tests for the host's rules: when the kernel's tables are read, and when only written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from overlay import limits
from overlay.agent.exposure import rules
from overlay.agent.exposure.gate import decision, translation_gate
from overlay.agent.exposure.gate.translation_gate import TranslationGate
from overlay.agent.exposure.rules import HostRules
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import ExposedLink, HostState, PortForward
from overlay.core.gate.translation import VirtualAddress
from overlay.errors import OverlayError
from overlay.kernel.host import conntrack
from overlay.kernel.nft.foreign_rules import DroppingChain
from overlay.kernel.nft.host.host_table import Gated
from overlay.model import Ip, NodeId, Vni

LINK = ExposedLink("ovx1", ((Ip(bytes([10, 32, 0, 0])), 16),))
OTHER_LINK = ExposedLink("ovx2", ((Ip(bytes([10, 33, 0, 0])), 16),))
PORT = PortForward("tcp", Ip(b""), 8080, Ip(bytes([10, 32, 0, 2])), 80, borrowed=False)


class Kernel:
    """The tables of a host, and the calls that reached them."""

    port_id = 1
    name = "table"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.held: HostState | None = None
        self.form: Gated | None = None
        self.refuses = False
        self.services = False

    def has_services(self) -> bool:
        """Return whether the host has a table of virtual addresses."""
        return self.services

    def holds(self, state: HostState, gated: Gated | None) -> bool:
        """Read this node's table."""
        self.calls.append("holds")
        return (state, gated) == (self.held, self.form)

    def write(self, state: HostState, gated: Gated | None) -> None:
        """Replace this node's table."""
        self.calls.append("write")
        self.held, self.form = state, gated

    def insert_accept_rules(self, *, ipv6: bool) -> tuple[bool, list[DroppingChain]]:
        """Change the tables of others."""
        del ipv6
        self.calls.append("others")
        if self.refuses:
            raise OSError(12, "no memory")
        return False, []

    def is_there(self) -> bool:
        """Return whether this node has a table."""
        return self.held is not None

    def remove(self) -> None:
        """Remove this node's table."""
        self.calls.append("remove")
        self.held = None

    def remove_accept_rules(self) -> None:
        """Change the tables of others back."""
        self.calls.append("others back")

    def close(self) -> None:
        """Close nothing."""


def without_gate(thread: KernelThread, directory: Path) -> HostRules:
    """Return the rules of a host whose configuration asks for no gate."""
    node_id = NodeId(bytes(16))
    none = TranslationGate(node_id, thread, "off")
    return HostRules(node_id, thread, EventLog(directory), none, 30.0)


def calls_of(
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
    work: Callable[[HostRules, Kernel], Awaitable[None]],
) -> list[str]:
    """Return the kernel calls of `work`, with rules that were applied for one network before."""
    kernel = Kernel()
    monkeypatch.setattr(rules, "HostTable", lambda _node_id: kernel)
    monkeypatch.setattr(rules, "ForeignRules", lambda: kernel)
    monkeypatch.setattr(translation_gate, "remove_gate", lambda _node_id, _run_dir: None)

    async def main() -> None:
        thread = KernelThread()
        try:
            made = without_gate(thread, directory)
            made.set_links(Vni(1), [LINK])
            await made.apply()
            kernel.calls.clear()
            await work(made, kernel)
        finally:
            thread.close()

    asyncio.run(main())
    return kernel.calls


def test_the_first_write_reads_the_kernels_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A table that a process before this one left, and that is right, is not written again."""

    async def work(_made: HostRules, _kernel: Kernel) -> None:
        thread = KernelThread()
        successor = without_gate(thread, tmp_path)
        successor.set_links(Vni(1), [LINK])
        await successor.apply()
        thread.close()

    assert calls_of(monkeypatch, tmp_path, work) == ["holds", "others"]


def test_hooks_of_before_stay_until_they_translate_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also while that can't be read; loopback addresses are routed just as long."""
    forms: list[tuple[bool | None, bool | None]] = []
    answers: list[bool | OSError] = [True, OSError(105, "no buffers"), False]

    def translates(_ranges: object) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(limits, "GATE_RETIRING_MAX_S", 0.0)

    async def work(made: HostRules, kernel: Kernel) -> None:
        bring = AsyncMock(return_value=SimpleNamespace(outside=frozenset({2})))
        monkeypatch.setattr(made.gate, "bring", bring)
        monkeypatch.setattr(conntrack, "translates_any", translates)
        for _ in range(4):
            await made.reconcile()
            gated = kernel.form
            forms.append((gated.is_retiring if gated else None, made.routes_localnet))

    calls_of(monkeypatch, tmp_path, work)
    assert forms == [(True, True), (True, True), (True, True), (False, False)]


def test_a_decision_about_a_gate_lasts_while_anything_is_exposed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Then there is nothing to tell, and the next network asks anew; changes are heard always."""
    monkeypatch.setattr(translation_gate, "kept_block", lambda _node_id: None)
    monkeypatch.setattr(decision, "refusal", lambda _node_id: "no programs")

    async def work(made: HostRules, _kernel: Kernel) -> None:
        made.gate.decision.mode = "auto"
        await made.reconcile()
        assert (made.gate.decision.why, made.gate.decision.follows_host) == ("no programs", False)
        assert list(made.faults()) == []
        made.set_links(Vni(1), [])
        await made.apply()
        assert (made.gate.decision.why, made.gate.decision.follows_host) == ("", True)

    calls_of(monkeypatch, tmp_path, work)


def test_a_pass_looks_again_when_the_gate_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The sooner of two times counts, whichever was asked for first."""

    async def work(made: HostRules, _kernel: Kernel) -> None:
        triggered = asyncio.Event()
        monkeypatch.setattr(made, "trigger", triggered.set)
        monkeypatch.setattr(made.gate, "bring", AsyncMock(return_value=None))
        for delay_s in (60.0, 0.01, 60.0):
            made.gate.decision.look_again_s = delay_s
            await made.reconcile()
        async with asyncio.timeout(30.0):
            await triggered.wait()

    calls_of(monkeypatch, tmp_path, work)


def test_a_published_port_only_writes_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A port that is published needs no reading: the table is known to be another one."""

    async def work(made: HostRules, kernel: Kernel) -> None:
        made.set_ports([PORT])
        await made.apply()
        assert kernel.held is not None
        assert kernel.held.ports == {PORT}

    assert calls_of(monkeypatch, tmp_path, work) == ["write"]


def test_virtual_addresses_are_for_the_gate_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The host's table is not written for them, and without a gate nobody asks for them."""
    inside, outside = Ip(bytes([10, 32, 9, 1])), Ip(bytes([10, 40, 9, 1]))

    async def work(made: HostRules, _kernel: Kernel) -> None:
        bring = AsyncMock(return_value=None)
        monkeypatch.setattr(made.gate, "bring", bring)
        made.set_virtual({Vni(1): frozenset({inside, outside}), Vni(2): frozenset({inside})})
        await made.apply()
        assert bring.await_count == 0
        made.gate.decision.mode = "on"
        for _ in range(2):
            await made.apply()
            assert made.is_settled
            expected = frozenset({VirtualAddress("ovx1", inside)})
            bring.assert_awaited_once_with(made._written, expected)

    assert calls_of(monkeypatch, tmp_path, work) == []


def test_where_the_host_translates_becomes_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the first write that succeeds, and not again by other ports; a failure is no answer."""

    async def work(made: HostRules, _kernel: Kernel) -> None:
        made.set_links(Vni(1), [])
        await made.apply()
        made.gate.decision.mode = "on"
        bring = AsyncMock(side_effect=OverlayError("not now"))
        monkeypatch.setattr(made.gate, "bring", bring)
        told: list[bool] = []
        made.place_known.connect(lambda: told.append(made.is_settled))
        assert made.is_settled
        made.set_links(Vni(1), [LINK])
        await made.apply()
        assert (made.is_settled, told) == (False, [])
        bring.side_effect, bring.return_value = None, None
        await made.apply()
        assert (made.is_settled, told) == (True, [True])
        made.set_ports([PORT])
        assert made.is_settled
        await made.apply()
        assert told == [True]

    calls_of(monkeypatch, tmp_path, work)


def test_a_former_table_of_virtual_addresses_keeps_the_hooks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A former agent had one in the host's own namespace, with connections that go on."""
    plan = SimpleNamespace(outside=frozenset({2}))
    last = Gated(frozenset({2}), is_retiring=False)

    async def work(made: HostRules, kernel: Kernel) -> None:
        made.gate.decision.mode = "on"
        monkeypatch.setattr(made.gate, "bring", AsyncMock(return_value=plan))
        kernel.form, kernel.services = last, True
        monkeypatch.setattr(conntrack, "translates_any", lambda _ranges: False)
        for _ in range(3):
            await made.reconcile()
            assert kernel.form == last._replace(is_retiring=True)
        kernel.services = False
        await made.reconcile()
        assert kernel.form == last
        made._check_at.cancel()  # type: ignore[union-attr]

    calls_of(monkeypatch, tmp_path, work)


def test_another_link_adapts_the_tables_of_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An IPv6 network may need rules in tables that an IPv4 network does not touch."""

    async def work(made: HostRules, _kernel: Kernel) -> None:
        made.set_links(Vni(2), [OTHER_LINK])
        await made.apply()

    assert calls_of(monkeypatch, tmp_path, work) == ["write", "others"]


def test_a_pass_writes_a_table_that_was_altered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A pass reads the table even if nothing else is wanted."""

    async def work(made: HostRules, kernel: Kernel) -> None:
        kernel.held = None
        await made.reconcile()

    assert calls_of(monkeypatch, tmp_path, work) == ["holds", "write", "others"]


def test_an_unfinished_change_is_finished_by_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a failure in the tables of others, the next change visits them again."""

    async def work(made: HostRules, kernel: Kernel) -> None:
        kernel.refuses = True
        made.set_links(Vni(2), [OTHER_LINK])
        await made.apply()
        assert made.fault is not None
        assert await made.differences() == [made.fault.text]  # it was not compared
        kernel.refuses = False
        kernel.calls.clear()
        made.set_ports([PORT])
        await made.apply()
        assert made.fault is None

    assert calls_of(monkeypatch, tmp_path, work) == ["holds", "write", "others"]


def test_what_a_former_process_left_is_found_and_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It was killed before it removed the table; the next process needs none."""

    async def work(_made: HostRules, _kernel: Kernel) -> None:
        thread = KernelThread()
        successor = without_gate(thread, tmp_path)
        assert await successor.differences() == ["nft table inet table is left over"]
        await successor.remove_leftovers()
        assert await successor.differences() == []
        await successor.remove_leftovers()
        thread.close()

    assert calls_of(monkeypatch, tmp_path, work) == ["others back", "remove"]


def test_a_table_that_is_wanted_is_no_leftover(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next process takes it over."""

    async def work(_made: HostRules, kernel: Kernel) -> None:
        thread = KernelThread()
        successor = without_gate(thread, tmp_path)
        successor.set_links(Vni(1), [LINK])
        await successor.remove_leftovers()
        assert kernel.is_there()
        thread.close()

    assert calls_of(monkeypatch, tmp_path, work) == []


def test_a_node_that_leaves_at_once_removes_what_was_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Though nobody has looked for it before."""

    async def work(_made: HostRules, _kernel: Kernel) -> None:
        thread = KernelThread()
        await without_gate(thread, tmp_path).remove()
        thread.close()

    assert calls_of(monkeypatch, tmp_path, work) == ["remove", "others back"]
