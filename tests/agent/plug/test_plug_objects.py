"""Plugs of an applied file: on this host at once, and on others by the records."""

from __future__ import annotations

import asyncio

import pytest
from overlay.agent.apply.host.items import plug_item
from overlay.agent.apply.host.plug import PlugObjects
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import Action, PlannedStep
from overlay.core.declared.host_objects import DeclaredPlug
from overlay.errors import ConflictError
from tests.agent.plug.bench import ETH2, far_plug
from tests.agent.plug.service_bench import ServiceBench


def step(
    action: Action, host: str, interface: str = "eth2", segment: str = "default"
) -> PlannedStep:
    """Return a step of a plan about a plug on blue."""
    return PlannedStep(action, plug_item(DeclaredPlug(host, "blue", interface, segment, "lan")))


@pytest.fixture
def objects(host: ServiceBench) -> PlugObjects:
    """Return the plugs that a file may declare."""
    return PlugObjects(host.directory, host.declared, host.service)


def titles(items: list[DeclaredItem]) -> list[str]:
    """Return the objects by name, with their owner."""
    return sorted(f"{item.title} {item.owner}".strip() for item in items)


async def test_this_hosts_plug_is_made_at_once(host: ServiceBench, objects: PlugObjects) -> None:
    """And given back before the next step, which may remove its network."""
    await objects.check(step("create", "vm1"))
    assert list(host.plugged) == []
    await objects.carry_out(step("create", "vm1"))
    assert list(host.plugged) == [ETH2._replace(is_declared=True)]

    await objects.carry_out(step("remove", "vm1"))
    assert list(host.plugged) == []
    assert host.declarations() == []


async def test_a_plug_of_a_command_is_present_here_alone(
    host: ServiceBench, objects: PlugObjects
) -> None:
    """One that a file declares is so on all hosts, and counts once."""
    await host.plug("eth2")
    host.declare("eth3", "hall", host="vm2")
    assert titles(list(objects.present())) == ["plug vm1/blue/eth2", "plug vm2/blue/eth3"]

    await objects.carry_out(step("create", "vm1"))
    assert titles(list(objects.present())) == ["plug vm1/blue/eth2 lan", "plug vm2/blue/eth3"]


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [("", "cluster_plugs does not allow eth3"), ("*", "eth2 is plugged into blue here already")],
    ids=["not allowed", "second on a wire"],
)
async def test_what_this_host_would_refuse_fails_before_any_change(
    host: ServiceBench,
    objects: PlugObjects,
    monkeypatch: pytest.MonkeyPatch,
    allowed: str,
    refused: str,
) -> None:
    """A refusal of another host is reported by that host."""
    host.serve(monkeypatch, allowed)
    await host.plug("eth2")
    objects = PlugObjects(host.directory, host.declared, host.service)
    with pytest.raises(ConflictError, match=refused):
        await objects.check(step("create", "vm1", "eth3"))

    await objects.check(step("create", "vm2", "eth3"))
    assert host.declarations() == []


async def test_another_hosts_plug_is_waited_for(
    host: ServiceBench, objects: PlugObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network may be removed next; a host that is down is named."""
    monkeypatch.setattr(host.directory, "node_name", lambda _origin: "vm2")
    await objects.carry_out(step("create", "vm3", "eth9"))
    host.catalog.far = (far_plug(),)
    monkeypatch.setattr("overlay.limits.PLUG_REMOVAL_WAIT_S", 0.05)
    monkeypatch.setattr(objects, "_is_here", lambda _plug: False)
    with pytest.raises(ConflictError, match="eth9 is plugged into blue on vm2"):
        await objects.carry_out(step("remove", "vm2", "eth9"))

    monkeypatch.setattr("overlay.limits.PLUG_REMOVAL_WAIT_S", 60.0)
    waiting = asyncio.ensure_future(objects.carry_out(step("remove", "vm2", "eth9")))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    host.catalog.far = ()
    await waiting
