"""A port whose removal the kernel refuses is removed later; a detach ends in any case."""

from __future__ import annotations

from unittest.mock import AsyncMock, MagicMock

from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.drivers.port_removals import PortRemovals
from overlay.errors import OverlayError
from overlay.model import Vni

BLUE, RED = Vni(7), Vni(8)
SHORT = OverlayError("cannot remove the port", why="too many open files")


def removals(**runtimes: MagicMock | None) -> tuple[PortRemovals, MagicMock]:
    """Return the removals from the sandboxes of these networks, and what finds these."""
    context = NodeContext(MagicMock(), MagicMock(), MagicMock(), MagicMock())
    by_vni = {BLUE: runtimes.get("blue"), RED: runtimes.get("red")}
    reconciler = MagicMock()
    reconciler.runtime = by_vni.__getitem__
    made = PortRemovals(context, reconciler)
    return made, reconciler


def sandbox(*results: bool | OverlayError | OSError) -> MagicMock:
    """Return a sandbox whose removals of ports end so, one after the other."""
    return MagicMock(remove_port=AsyncMock(side_effect=list(results)))


async def test_a_refused_removal_is_tried_again_until_it_succeeds() -> None:
    """Status says so meanwhile, with the reason and what to do about it."""
    blue = sandbox(OSError(24, "Too many open files"), SHORT, True)
    ports, _ = removals(blue=blue)

    assert await ports.remove(BLUE, blue, "p1", ["row"])  # type: ignore[list-item]
    assert [*ports.faults()] == []  # the first retry is at once
    await ports.attempt()
    (fault,) = ports.faults()
    assert "still has its interface: cannot remove the port: too many open files" in fault.text
    assert fault.hint
    await ports.attempt()

    assert [*ports.faults()] == []
    assert [call.args[1:] for call in blue.remove_port.await_args_list] == [("p1", ["row"])] * 3
    await ports.attempt()
    assert blue.remove_port.await_count == 3


async def test_a_port_that_stays_holds_up_no_other() -> None:
    """Each is tried in each pass."""
    blue, red = sandbox(SHORT, SHORT, True), sandbox(SHORT, True)
    ports, _ = removals(blue=blue, red=red)
    await ports.remove(BLUE, blue, "p1", [])
    await ports.remove(RED, red, "p2", [])

    await ports.attempt()
    assert red.remove_port.await_count == 2
    assert [*ports.faults()] != []
    await ports.attempt()
    assert [*ports.faults()] == []


async def test_a_port_goes_with_its_sandbox() -> None:
    """A sandbox of the same network that was made since has other ports."""
    older = sandbox(SHORT)
    ports, reconciler = removals(blue=older)
    await ports.remove(BLUE, older, "p1", [])
    newer = sandbox()
    reconciler.runtime = {BLUE: newer}.get

    await ports.attempt()

    newer.remove_port.assert_not_awaited()
    assert [*ports.faults()] == []


async def test_what_is_there_is_told_from_what_is_gone() -> None:
    """The driver has the sandbox read anew where the port was gone already."""
    blue = sandbox(True, False)
    ports, _ = removals(blue=blue)
    assert await ports.remove(BLUE, blue, "p1", [])
    assert not await ports.remove(BLUE, blue, "p1", [])
