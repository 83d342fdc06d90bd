"""The plugs of this host are on its disk before anything else knows of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.plug.intents import PluggedInterfaces
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import PluggedInterface
from overlay.core.dataplane.planning.inputs import LocalPlug
from overlay.errors import OverlayError
from overlay.model import Vni

BLUE, RED = Vni(7), Vni(70)
ETH2 = PluggedInterface(BLUE, "eth2", "default")
ETH3 = PluggedInterface(BLUE, "eth3.7", "hall", number=1, is_declared=True)
ETH4 = PluggedInterface(RED, "eth4", "default")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    """Return a database."""
    made = StateDatabase(tmp_path)
    yield made
    made.close()


def test_plugs_are_as_before_after_a_restart(state: StateDatabase) -> None:
    """With their numbers, so that ports keep their names, and the data plane knows them."""
    before = PluggedInterfaces(state, FabricTable())
    for plug in (ETH4, ETH3, ETH2):
        before.put(plug)
    fabric = FabricTable()
    after = PluggedInterfaces(state, fabric)

    assert list(after) == [ETH2, ETH3, ETH4]
    assert fabric.interfaces(BLUE) == (LocalPlug("plug0", "eth2"), LocalPlug("plug1", "eth3.7"))
    assert after.without_containers() == [BLUE, RED]


def test_a_number_is_used_again_when_it_is_free(state: StateDatabase) -> None:
    """Two plugs of one network never share a port."""
    plugged = PluggedInterfaces(state, FabricTable())
    assert plugged.free_number(BLUE) == 0
    plugged.put(ETH2)
    plugged.put(ETH3)
    assert plugged.free_number(BLUE) == 2
    assert plugged.free_number(RED) == 0

    plugged.drop(ETH2)
    assert plugged.free_number(BLUE) == 0
    assert list(plugged) == [ETH3]


def test_the_data_plane_hears_of_each_change(state: StateDatabase) -> None:
    """It plans the network anew, and no other."""
    fabric = FabricTable()
    heard: list[Vni] = []
    fabric.changed.connect(heard.append)
    plugged = PluggedInterfaces(state, fabric)
    plugged.put(ETH2)
    plugged.drop(ETH2)

    assert heard == [BLUE, BLUE]
    assert fabric.interfaces(BLUE) == ()
    assert not plugged.needs_no_container(BLUE)


def test_what_the_disk_refuses_is_not_plugged(
    state: StateDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor unplugged: memory and data plane stay with what a restart would read."""
    fabric = FabricTable()
    plugged = PluggedInterfaces(state, fabric)
    plugged.put(ETH2)

    def refuse(*_: object) -> None:
        raise OverlayError("the disk is full")

    monkeypatch.setattr(state, "commit", refuse)
    with pytest.raises(OverlayError):
        plugged.put(ETH3)
    with pytest.raises(OverlayError):
        plugged.drop(ETH2)
    assert list(plugged) == [ETH2]
    assert fabric.interfaces(BLUE) == (LocalPlug("plug0", "eth2"),)
