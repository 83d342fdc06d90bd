"""Members may declare this host's plugs, within the limits that it sets."""

from __future__ import annotations

import errno

import pytest
from overlay.model import Network
from tests.agent.plug.bench import ETH2, ETH3
from tests.agent.plug.service_bench import ServiceBench


async def test_what_is_declared_is_plugged_and_given_back(host: ServiceBench) -> None:
    """Also after the agent was restarted in between; what a command plugged stays."""
    declared = host.declare("eth3", "hall")
    host.declare("eth4", "yard", host="vm2")
    await host.plug("eth2")
    await host.service.declared.reconcile()
    assert list(host.plugged) == [ETH2, ETH3._replace(is_declared=True)]

    host.declared.remove(declared.kind, declared.object_name)
    await host.service.declared.reconcile()
    assert list(host.plugged) == [ETH2]


async def test_another_segment_is_another_plug(host: ServiceBench) -> None:
    """The wire of a plug cannot be another one in place."""
    host.declare("eth2")
    await host.service.declared.reconcile()
    host.declare("eth2", "hall")
    await host.service.declared.reconcile()

    (plug,) = host.plugged
    assert (plug.segment, plug.is_declared) == ("hall", True)


async def test_a_plug_of_a_command_becomes_the_files(host: ServiceBench) -> None:
    """Its port stays open meanwhile."""
    await host.plug("eth2")
    await host.check(10.0)
    await host.check(10.0)
    host.log.clear()
    declared = host.declare("eth2")
    await host.service.declared.reconcile()
    await host.check(0.5)
    assert host.log == []
    assert [plug.is_declared for plug in host.plugged] == [True]

    host.declared.remove(declared.kind, declared.object_name)
    await host.service.declared.reconcile()
    assert list(host.plugged) == []


async def test_an_operator_ends_what_a_file_declares(host: ServiceBench) -> None:
    """The declaration goes as well, or it would come back at once."""
    host.declare("eth2")
    host.declare("eth2", host="vm2")
    await host.service.declared.reconcile()
    await host.service.unplug(host.network())
    await host.service.declared.reconcile()

    assert list(host.plugged) == []
    assert len(host.declarations()) == 1


async def test_an_interface_that_the_host_keeps_is_not_plugged(
    host: ServiceBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any member can declare a plug, so this host's own configuration has to name it."""
    host.serve(monkeypatch, "eth3, eth5.*")
    for number, interface in enumerate(("eth2", "eth3", "eth5.7")):
        host.declare(interface, f"s{number}")
    await host.service.declared.attempt()

    assert {plug.interface for plug in host.plugged} == {"eth3", "eth5.7"}
    (fault,) = host.service.declared.faults()
    assert fault.text == (
        "plug blue/eth2 is declared for this host, and not in force: "
        "cluster_plugs does not allow eth2"
    )
    assert "add it to cluster_plugs" in fault.hint


async def test_no_interface_is_allowed_without_configuration(
    host: ServiceBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host gives nothing away by itself."""
    host.serve(monkeypatch, "")
    host.declare("eth2")
    await host.service.declared.attempt()

    assert list(host.plugged) == []


async def test_very_many_declared_plugs_are_counted(
    host: ServiceBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member may declare as many as it has objects; `status` stays readable."""
    host.serve(monkeypatch, "")
    for number in range(20):
        host.declare(f"eth{number}", f"s{number}")
    await host.service.declared.attempt()

    *shown, last = host.service.declared.faults()
    assert len(shown) == 8
    assert last.text.startswith("12 further plugs are declared for this host")


async def test_an_interface_that_the_kernel_refuses_holds_up_no_other(
    host: ServiceBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the error is the kernel's own."""
    host.serve(monkeypatch, "eth*")
    for interface in ("eth2", "eth3"):
        host.declare(interface, interface)
    plug = host.service.plug

    async def refusing(network: Network, interface: str, segment: str, **more: bool) -> bool:
        if interface == "eth2":
            raise OSError(errno.ENOBUFS, "no buffer space available")
        return await plug(network, interface, segment, **more)

    monkeypatch.setattr(host.service, "plug", refusing)
    await host.service.declared.attempt()
    assert [each.interface for each in host.plugged] == ["eth3"]
    (fault,) = host.service.declared.faults()
    assert "plug blue/eth2" in fault.text
    assert "no buffer space available" in fault.text
