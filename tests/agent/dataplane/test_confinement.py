"""No sandbox of an encrypted network changes before both locks are in place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from overlay import limits
from overlay.agent.dataplane import reconciler as reconciler_module
from overlay.agent.dataplane import watch
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.sandbox_runtime import PassResult, SandboxRuntime
from overlay.agent.dataplane.underlay_filter import UnderlayFilter
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.event_log import EventLog
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.network_drivers import OVERLAY, labels_of
from overlay.core.dataplane.state import SandboxState
from overlay.core.dataplane.underlay_filter import FilterState
from overlay.core.encryption.switch_phase import phase_of
from overlay.errors import ConflictError, OverlayError
from overlay.kernel.nft.underlay_filter import UnderlayTable
from overlay.model import Network, NodeId, Subnet, Vni, parse_ip
from tests.agent.conftest import until

SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
VAULT = Network(
    Vni(9), "vault", (SUBNET,), NodeId(b"c" * 16), labels=labels_of(OVERLAY, "", encrypted=True)
)
BLUE = Network(Vni(8), "blue", (SUBNET,), NodeId(b"c" * 16))


class PlannedError(Exception):
    """A pass has begun to plan."""


class Host:
    """A reconciler whose locks are what a test says."""

    def __init__(self, path: Path, *, filtered: bool, fenced: bool) -> None:
        card = SimpleNamespace(underlay_mtu=1500, address=parse_ip("192.0.2.1"))
        node = SimpleNamespace(
            confirmations=SimpleNamespace(confirmable=self._plan),
            store=SimpleNamespace(versions=lambda _scope: iter(())),
        )
        cluster = SimpleNamespace(vxlan_port=4789, gossip_port=7948)
        gossip = SimpleNamespace(card=card, node=node, node_id=b"", cluster=cluster)
        self._filtered = filtered
        networks = {VAULT.vni: VAULT, BLUE.vni: BLUE}
        view = SimpleNamespace(
            losing_origins=None,
            encryption_phase=lambda network: phase_of(network, None, ()),
            vteps=frozenset,
            vnis=frozenset,
            switching_vnis=frozenset,
            encrypted_vnis=lambda: frozenset({VAULT.vni}),
        )
        directory = SimpleNamespace(
            network_by_vni=networks.get, policies=None, multicast=None, view=view
        )
        table = Table(refuses=not filtered)
        context = NodeContext(
            cast("Any", gossip), cast("Any", directory), cast("Any", table), EventLog(path)
        )
        self.reconciler = Reconciler(
            context,
            Attachments(),
            UnderlayFilter(context, FabricTable(), 30.0),
            cast("Any", None),
            cast("Any", SimpleNamespace(is_fenced=fenced)),
            FabricTable(),
            30.0,
        )
        for vni in networks:
            self.reconciler._runtimes[vni] = SandboxRuntime(
                cast("Any", None), cast("Any", None), asyncio.Lock()
            )

    @staticmethod
    def _plan(*_arguments: object) -> None:
        raise PlannedError


@pytest.mark.parametrize(("filtered", "fenced"), [(False, True), (True, False), (False, False)])
async def test_no_pass_without_both_locks(tmp_path: Path, *, filtered: bool, fenced: bool) -> None:
    """Nothing is planned, status says why, and an attach fails; other networks do not care."""
    host = Host(tmp_path, filtered=filtered, fenced=fenced)
    await host.reconciler.reconcile_network(VAULT.vni)
    runtime = host.reconciler.runtime(VAULT.vni)

    assert runtime is not None
    assert "in clear" in runtime.failures[0]
    with pytest.raises(ConflictError, match="vault does not work"):
        await host.reconciler.require_usable(VAULT)
    with pytest.raises(PlannedError):
        await host.reconciler.reconcile_network(BLUE.vni)


async def test_both_locks_let_a_pass_begin(tmp_path: Path) -> None:
    """The table drops the network's VNIs, and the unreachable route exists."""
    host = Host(tmp_path, filtered=True, fenced=True)

    with pytest.raises(PlannedError):
        await host.reconciler.reconcile_network(VAULT.vni)


async def test_an_error_of_the_filter_is_no_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it comes between two parts of a comparison, which goes on to its end."""
    host = Host(tmp_path, filtered=True, fenced=True)
    reconciler = host.reconciler
    compared = cast("SandboxRuntime", reconciler.runtime(VAULT.vni))
    compared.altered, compared.left = True, SandboxState()
    tries = 0

    async def compare_rows(
        runtime: SandboxRuntime, _kernel: object, between: Callable[[], Awaitable[bool]], *_: object
    ) -> PassResult:
        for _part in range(3):
            await between()
        assert runtime is compared
        return PassResult(0, [], 0, 0, has_drifted=False)

    async def refuse() -> None:
        nonlocal tries
        tries += 1
        raise OverlayError("the filter of the VXLAN port is missing")

    monkeypatch.setattr(watch, "compare_rows", compare_rows)
    reconciler.underlay_filter = cast("Any", SimpleNamespace(admit_members=refuse))
    for runtime in reconciler._runtimes.values():
        runtime.dirty = True

    with pytest.raises(OverlayError, match="the filter of the VXLAN port"):
        await reconciler._compare(VAULT.vni, compared)

    assert tries == 1
    assert compared.failures == []


async def test_a_comparison_hurries_for_what_is_altered_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another network's rows, which somebody changed, are compared after it."""
    reconciler = Host(tmp_path, filtered=True, fenced=True).reconciler
    vault, blue = reconciler._runtimes[VAULT.vni], reconciler._runtimes[BLUE.vni]
    vault.dirty = blue.dirty = False
    hurries: list[bool] = []

    async def compare_rows(
        _runtime: object, _kernel: object, between: Callable[[], Awaitable[bool]], *_: object
    ) -> PassResult:
        hurries.append(await between())
        blue.altered = True
        hurries.append(await between())
        return PassResult(0, [], 0, 0, has_drifted=False)

    monkeypatch.setattr(watch, "compare_rows", compare_rows)
    await reconciler._compare(VAULT.vni, vault)

    assert hurries == [False, True]


async def test_the_first_pass_that_may_prune_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what passes before it had to leave would stay until the next check of everything."""
    host = Host(tmp_path, filtered=True, fenced=True)
    monkeypatch.setattr(reconciler_module, "_WATCH_INTERVAL_S", 0.0)
    monkeypatch.setattr(host.reconciler._gossip.node, "caught_up", True, raising=False)
    runtimes = host.reconciler._runtimes.values()
    for each in runtimes:
        each.stale = False
    watching = asyncio.create_task(host.reconciler.watch())
    await asyncio.sleep(0.05)
    assert not any(each.stale for each in runtimes), "containers are not all known yet"

    host.reconciler.note_adopted()
    await until(lambda: all(each.stale and each.dirty for each in runtimes))

    watching.cancel()


class Table:
    """A table that is written, or refuses to be."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.state = FilterState()
        self.refuses = refuses
        self.refused = (0, 0)

    async def call(self, function: Callable[..., Any], *arguments: object) -> object:
        """Stand for the kernel thread."""
        return self if function is UnderlayTable else function(*arguments)

    def read(self) -> FilterState:
        """Return what was written last."""
        return self.state

    def refused_counts(self) -> tuple[int, int]:
        """Return how many packets were dropped."""
        return self.refused

    def clear_counts(self) -> tuple[int, int]:
        """Return that no packet came in clear."""
        return (0, 0)

    def write(self, _before: FilterState | None, after: FilterState) -> None:
        """Write, or refuse."""
        if self.refuses:
            raise OSError("no buffer space available")
        self.state = after


def filter_of(
    path: Path, table: Table, encrypted: set[Vni], now: Callable[[], float] = float
) -> UnderlayFilter:
    """Return the filter of a host without members."""
    view = SimpleNamespace(
        vteps=frozenset, vnis=frozenset, switching_vnis=frozenset,
        encrypted_vnis=lambda: frozenset(encrypted),
    )  # fmt: skip
    cluster = SimpleNamespace(vxlan_port=4789, gossip_port=7948)
    gossip = SimpleNamespace(cluster=cluster, node_id=b"", transport=SimpleNamespace(now=now))
    directory = SimpleNamespace(view=view)
    context = NodeContext(
        cast("Any", gossip), cast("Any", directory), cast("Any", table), EventLog(path)
    )
    return UnderlayFilter(context, FabricTable(), 30.0)


async def test_misdirected_packets_are_told_of_while_they_come(tmp_path: Path) -> None:
    """Some are in flight when an address changes: a line that stayed would say nothing."""
    table, clock = Table(), [100.0]
    underlay_filter = filter_of(tmp_path, table, set(), lambda: clock[0])
    await underlay_filter.admit_members()
    await underlay_filter.reconcile()
    assert list(underlay_filter.faults()) == []

    table.refused = (5, 2)
    await underlay_filter.reconcile()
    (told,) = underlay_filter.faults()
    assert told.text.startswith("2 VXLAN packets with a member's address were dropped")

    clock[0] += limits.MISDIRECTED_RECENT_S
    await underlay_filter.reconcile()
    assert list(underlay_filter.faults()) == []
    assert underlay_filter.refused_misdirected == 2


async def test_a_pass_has_its_network_confined(tmp_path: Path) -> None:
    """A network that has just become encrypted is added at once, so a pass reports nothing."""
    encrypted: set[Vni] = set()
    table = Table()
    underlay_filter = filter_of(tmp_path, table, encrypted)
    await underlay_filter.admit_members()
    encrypted.add(VAULT.vni)
    assert await underlay_filter.confine(VAULT)
    assert table.state.encrypted == {VAULT.vni}

    table.refuses = True
    encrypted.add(BLUE.vni)
    assert not await underlay_filter.confine(BLUE)
    assert underlay_filter.fault is not None
    assert await underlay_filter.differences() == [underlay_filter.fault.text]


async def test_former_members_are_looked_for_where_some_were_kept(tmp_path: Path) -> None:
    """A pass that changes endpoints alone asks for members once, not before and after it."""
    table, encrypted = Table(), {VAULT.vni}
    underlay_filter = filter_of(tmp_path, table, encrypted)
    view = MagicMock(wraps=underlay_filter._directory.view)
    underlay_filter._directory.view = view
    await underlay_filter.admit_members()
    view.vteps.reset_mock()
    await underlay_filter.drop_former_members()
    view.vteps.assert_not_called()

    encrypted.clear()
    await underlay_filter.admit_members()
    assert table.state.encrypted == {VAULT.vni}, "kept until no row points there"
    await underlay_filter.drop_former_members()
    assert table.state.encrypted == set()
    assert underlay_filter.is_exact
