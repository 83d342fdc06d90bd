"""Plugging and unplugging: what is refused, and that nothing is left of what failed."""

from __future__ import annotations

import pytest
from overlay.agent.plug import service as service_module
from overlay.errors import ConflictError, OverlayError
from overlay.model import Vni
from tests.agent.plug.bench import BLUE, ETH2, ETH3, RED
from tests.agent.plug.service_bench import ServiceBench


async def test_a_plug_is_on_disk_before_its_port_is_made(host: ServiceBench) -> None:
    """So that an agent that dies in between makes it, or gives it back."""
    stored: list[bool] = []

    async def note(_vni: Vni) -> None:
        stored.append(ETH2 in host.plugged)

    host.reconciler.reconcile_network = note  # type: ignore[method-assign, assignment]
    assert await host.plug("eth2") is True
    assert await host.plug("eth2") is False
    assert stored == [True]
    assert host.used == [BLUE]


@pytest.mark.parametrize("step", ["interface", "participation", "port"])
async def test_nothing_is_left_of_a_plug_that_failed(
    host: ServiceBench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """No document, no sandbox, no table; the VLAN that was made for it goes, too."""

    def refuse(*_: object, **__: object) -> None:
        raise ConflictError("the kernel says no")

    if step == "interface":
        monkeypatch.setattr(service_module, "require_pluggable", refuse)
    elif step == "participation":
        host.service._participation.begin = refuse  # type: ignore[assignment, method-assign]
    else:
        host.reconciler.runtimes[BLUE].failures.append("plug0: eth2 cannot be a port")
    with pytest.raises(ConflictError):
        await host.plug("eth2")

    assert list(host.plugged) == []
    assert host.used == []
    assert host.released == 1
    assert all(guard.is_removed for guard in host.guards.values())
    assert host.own_records() == []


async def test_a_port_is_shut_before_its_plug_is_forgotten(host: ServiceBench) -> None:
    """Else a crash could leave an open port that no agent knows; the table goes last."""
    await host.plug("eth2")
    await host.opened()
    await host.check(10.0)
    assert host.guards["plug0"].is_port_open
    host.log.clear()
    drop = host.plugged.drop

    def note(plug: object) -> None:
        host.log.append("forget")
        drop(plug)  # type: ignore[arg-type]

    host.plugged.drop = note  # type: ignore[method-assign]
    assert await host.service.unplug(host.network()) == "eth2"

    assert host.log == [
        "close plug0",
        "flush 1",
        "forget",
        "ip link del plug0",
        "remove guard plug0",
    ]
    assert host.used == []
    assert host.own_records() == []


async def test_an_agent_that_has_just_started_shuts_a_port_as_well(host: ServiceBench) -> None:
    """Before its first pass it knows the port by its document only."""
    await host.plug("eth2")
    await host.check(10.0)
    await host.check(10.0)
    host.controller.close()
    assert host.controller.ports == {}
    host.log.clear()
    await host.service.unplug(host.network())

    assert host.log[0] == "close plug0"
    assert host.guards["plug0"].is_removed


async def test_a_host_has_one_plug_on_each_wire(host: ServiceBench) -> None:
    """Another interface needs another segment; each has a port of its own."""
    await host.plug("eth2")
    with pytest.raises(ConflictError, match="eth2 is plugged into blue here already") as caught:
        await host.plug("eth3")
    assert "--segment NAME" in str(caught.value.hint)
    await host.plug("eth3", "hall")
    assert list(host.plugged) == [ETH2, ETH3]

    with pytest.raises(ConflictError, match="several interfaces") as several:
        await host.service.unplug(host.network())
    assert several.value.why == "eth2, eth3"
    assert await host.service.unplug(host.network(), "eth2") == "eth2"
    assert await host.service.unplug(host.network(), "eth2") == ""
    assert host.used == [BLUE]
    assert await host.service.unplug(host.network()) == "eth3"
    assert host.used == []


@pytest.mark.parametrize(
    ("vni", "interface", "segment", "what"),
    [
        (BLUE, "eth2", "hall", "eth2 is plugged into blue"),
        (RED, "eth2", "default", "eth2 is plugged into blue"),
        (BLUE, "eth1", "hall", "eth1 carries the cluster's own packets"),
        (BLUE, "eth3", "no name!", "is not a valid name of a segment"),
    ],
    ids=["other segment", "other network", "underlay", "segment's name"],
)
async def test_what_cannot_be_plugged_is_named(
    host: ServiceBench, vni: Vni, interface: str, segment: str, what: str
) -> None:
    """And what was plugged before stays."""
    await host.plug("eth2")
    with pytest.raises(OverlayError, match=what):
        await host.service.plug(host.network(vni), interface, segment)

    assert list(host.plugged) == [ETH2]


async def test_plugs_of_a_network_are_bounded(
    host: ServiceBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says so."""
    monkeypatch.setattr("overlay.limits.PLUGS_PER_NETWORK_MAX", 2)
    await host.plug("eth2")
    await host.plug("eth3", "hall")
    with pytest.raises(ConflictError, match="2 interfaces of this host are plugged into blue"):
        await host.plug("eth4", "yard")


async def test_a_host_that_leaves_gives_all_back(host: ServiceBench) -> None:
    """And takes nothing more, whatever is declared for it."""
    host.declare("eth2")
    await host.service.declared.reconcile()
    await host.plug("eth3", "hall")
    await host.service.withdraw()
    await host.service.declared.reconcile()

    assert list(host.plugged) == []
    assert host.declarations() == ["eth2"]


async def test_what_is_unplugged_twice_hurts_no_later_plug(host: ServiceBench) -> None:
    """A command and a file may both do it, and the port's name is another plug's by then."""
    await host.plug("eth2")
    await host.service.remove([ETH2])
    await host.plug("eth3")
    await host.service.remove([ETH2])

    assert [plug.interface for plug in host.plugged] == ["eth3"]
    assert host.used == [BLUE]


async def test_a_disk_that_is_full_keeps_an_adopted_port(
    host: ServiceBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plug that a file declares stays the command's, and open, until it can be written."""
    await host.plug("eth2")
    await host.check(10.0)
    await host.check(10.0)
    host.declare("eth2")

    def refuse(_plug: object) -> None:
        raise OverlayError("the disk is full")

    monkeypatch.setattr(host.plugged, "put", refuse)
    await host.service.declared.attempt()
    assert list(host.plugged) == [ETH2]
    assert host.guards["plug0"].is_port_open
    assert ETH2 in host.controller.ports
