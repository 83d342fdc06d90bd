"""Rows of remote endpoints, read part by part from the real kernel while attaches go on."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import count

import pytest
from overlay.agent.dataplane import watch
from overlay.agent.dataplane.reconcile_pass import run_pass
from overlay.agent.dataplane.sandbox_runtime import PassResult
from overlay.agent.dataplane.watch import compare_rows
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.operations import ChangeLink, DeleteRow, PutRow
from overlay.core.dataplane.planning.row_comparison import RowComparison
from overlay.core.dataplane.state import FdbRow, FloodRow, Row
from overlay.model import mac_for, mac_text, parse_ip
from tests.agent.dataplane.test_reconcile_pass import NINE, TEN, Node
from tests.kernel.conftest import VNI, World

pytestmark = pytest.mark.netns

MANY = [parse_ip(f"10.32.{high}.{low}") for high in range(1, 6) for low in range(1, 251)]
FOREIGN_MAC = "02:00:00:00:00:99"


@pytest.fixture
def node(world: World) -> Iterator[Node]:
    """Return a node after a pass that knows many remote endpoints."""
    made = Node(world)
    made.remotes = [NINE, *MANY]
    assert made.passes(read=True)[1] == 0
    yield made
    made.runtime.monitor.close()


@pytest.fixture
def kernel() -> Iterator[KernelThread]:
    """Return a kernel thread."""
    thread = KernelThread()
    yield thread
    thread.close()


async def nothing() -> None:
    """Do nothing between two parts."""


async def compared(
    node: Node, kernel: KernelThread, between: Callable[[], Awaitable[None]] = nothing
) -> PassResult | None:
    """Compare the rows."""

    async def call() -> bool:
        await between()
        return node.runtime.altered

    return await compare_rows(node.runtime, kernel, call, lambda: True)


async def test_what_others_changed_is_repaired(node: Node, kernel: KernelThread) -> None:
    """A pass that reads repairs what is this host's own at once; the rest is compared after it."""
    name, mac = node.host.sandbox.name, mac_text(mac_for(VNI, NINE))
    node.world.run(name, "ip", "address", "add", "10.99.0.1/32", "dev", "br0")
    node.world.run(name, "bridge", "fdb", "del", mac, "dev", "vxlan0", "self")
    node.world.run(name, "ip", "neighbour", "del", "10.32.1.7", "dev", "br0")
    fdb = ("bridge", "fdb", "add", FOREIGN_MAC, "dev", "vxlan0")
    node.world.run(name, *fdb, "dst", "192.168.56.99", "self", "permanent")

    done = run_pass(node.runtime, node.given(), prune=True, read=True, apart=True)
    assert (done.operation_count, done.has_drifted) == (1, True)
    assert len(node.differences()) == 3
    repaired = await compared(node, kernel)
    assert repaired is not None
    assert (repaired.operation_count, repaired.repair_count, repaired.failures) == (3, 3, [])
    assert repaired.has_drifted
    assert node.differences() == []
    again = await compared(node, kernel)
    assert again is not None
    assert (again.operation_count, again.has_drifted) == (0, False)


async def test_attaches_and_passes_go_between_parts(node: Node, kernel: KernelThread) -> None:
    """They find the lock free, and what they change is no difference."""
    parts = count()
    locked = []

    async def between() -> None:
        locked.append(node.runtime.lock.locked())
        number = next(parts)
        if number == 1:
            node.attach(TEN)
        elif number == 2:
            node.remotes += [parse_ip("10.32.9.1"), parse_ip("10.32.9.2")]
            del node.remotes[3:7]
            assert node.passes()[1] == 0

    done = await compared(node, kernel, between)

    assert len(locked) >= 10
    assert not any(locked)
    assert done is not None
    assert done.operation_count == 0
    assert node.differences() == []
    assert node.host.sandbox.reading is None


async def test_a_link_that_is_replaced_is_read_whole(node: Node, kernel: KernelThread) -> None:
    """Its rows went with it: also while a comparison is under way, which then says nothing."""
    node.world.run(node.host.sandbox.name, "ip", "link", "del", "vxlan0")
    done = run_pass(node.runtime, node.given(), prune=True, read=True, apart=True)
    assert done.operation_count > len(MANY)
    assert node.differences() == []
    bridge = node.runtime.desired.links["br0"]

    async def between() -> None:
        node.host.sandbox.apply([ChangeLink(bridge, bridge)])

    assert await compared(node, kernel, between) is None
    assert await compared(node, kernel) is not None


async def test_one_that_is_overtaken_while_it_rests_is_made_anew(
    node: Node, kernel: KernelThread
) -> None:
    """In less time, before a pass has to read all rows at once."""
    bridge = node.runtime.desired.links["br0"]
    parts = count()

    async def between() -> None:
        if next(parts) == 1:
            node.host.sandbox.apply([ChangeLink(bridge, bridge)])

    done = await compared(node, kernel, between)
    assert done is not None
    assert (done.operation_count, node.runtime.comparisons) == (0, 1)
    node.runtime.altered, parts = True, count()
    assert await compared(node, kernel, between) is None


async def test_a_periodic_comparison_rests_longer(
    node: Node, kernel: KernelThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But only until something is known to be altered."""
    rests: list[float] = []
    monkeypatch.setattr(watch, "_REST_FACTOR", 1e9)
    monkeypatch.setattr(watch, "_REST_MAX_S", longest := 600.0)
    sleep = asyncio.sleep

    async def rest(delay: float) -> None:
        rests.append(delay)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", rest)

    async def between() -> None:
        node.runtime.altered = len(rests) >= 3

    assert await compared(node, kernel, between) is not None
    assert rests[:3] == [longest] * 3
    assert max(rests[3:]) < longest
    rests.clear()
    assert node.runtime.altered
    assert await compared(node, kernel) is not None
    assert max(rests) < longest


async def test_a_failed_pass_has_the_next_one_read_whole(node: Node, kernel: KernelThread) -> None:
    """The state that it left is not known, so nothing is compared with it."""
    row = FdbRow("vxlan0", mac_for(VNI, NINE), parse_ip("192.168.56.12"))
    node.host.sandbox.apply([DeleteRow(row)])
    node.runtime.left = None
    assert await compared(node, kernel) is None
    done = run_pass(node.runtime, node.given(), prune=True, read=False, apart=True)
    assert done.operation_count == 1
    assert node.differences() == []


@pytest.mark.parametrize("overtaken", [False, True])
async def test_what_a_reading_noted_is_forgotten_after_it(
    node: Node, kernel: KernelThread, *, overtaken: bool
) -> None:
    """Of 50,000 remote endpoints that is 5 MiB, and the next one may come after minutes."""
    bridge, readings = node.runtime.desired.links["br0"], []
    node.runtime.altered = True
    gc.disable()
    try:

        async def between() -> None:
            reading = node.host.sandbox.reading
            assert reading is not None
            readings.append(weakref.ref(reading))
            if overtaken and len(readings) == 3:
                node.host.sandbox.apply([ChangeLink(bridge, bridge)])
                assert not reading.found.planned

        assert (await compared(node, kernel, between) is None) == overtaken
        await kernel.call(int)  # so that the thread has another call
        assert len(readings) >= 3
        assert [each() for each in readings] == [None] * len(readings)
    finally:
        gc.enable()


async def test_a_closed_sandbox_ends_the_reading(node: Node, kernel: KernelThread) -> None:
    """It says nothing, and raises nothing."""

    async def between() -> None:
        node.host.sandbox.end_reading()
        await asyncio.sleep(0)

    assert await compared(node, kernel, between) is None


async def test_a_row_that_a_pass_puts_is_not_another_programs(
    node: Node, kernel: KernelThread
) -> None:
    """Also one that was read before, as somebody else's."""
    row = FdbRow("vxlan0", mac_for(VNI, TEN), parse_ip("192.168.56.12"))
    node.host.sandbox.apply([PutRow(row)])
    parts = count()

    async def between() -> None:
        if next(parts) == 8:
            node.remotes.append(TEN)
            node.passes()

    done = await compared(node, kernel, between)
    assert done is not None
    assert done.operation_count == 0
    assert node.differences() == []


async def test_fewer_rows_are_noticed_by_a_comparison(node: Node, kernel: KernelThread) -> None:
    """Their number decides which FDBs a reading walks; a whole one may come never again."""
    reader = node.host.sandbox._reader
    assert await compared(node, kernel) is not None
    many = reader._row_count
    assert many > len(MANY)
    del node.remotes[1:]
    node.passes()
    assert await compared(node, kernel) is not None

    assert reader._row_count < many - len(MANY)


async def test_a_skipped_row_of_this_host_is_no_repair(
    node: Node, kernel: KernelThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump leaves one out where an entry before it was deleted meanwhile; it is read again."""
    skipped = FloodRow("vxlan0", parse_ip("192.168.56.12"))
    update, skips = RowComparison.update, [1]

    def update_without(comparison: RowComparison, rows: Iterable[Row]) -> None:
        kept = [row for row in rows if not (skips and row == skipped and skips.pop())]
        update(comparison, kept)

    monkeypatch.setattr(RowComparison, "update", update_without)
    done = await compared(node, kernel)

    assert not skips
    assert done is not None
    assert (done.operation_count, done.repair_count) == (0, 0)
