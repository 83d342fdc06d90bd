"""Published ports as the API shows them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from overlay.agent.api.endpoints import outcome
from overlay.agent.api.exposure import ExposureHandlers
from overlay.agent.exposure.published_ports import PublishedPortStatus
from overlay.agent.process.controller import Fault
from overlay.core.dataplane.published_port import PublishedPort
from overlay.model import Ip, Vni

WEB = PublishedPort("tcp", Ip(b""), 8080, Vni(7), "web", 80)


class Ports:
    """The published ports of a host, each with what is known to be wrong with it."""

    def __init__(self, *faults: str) -> None:
        self._faults = faults

    async def status(self) -> list[PublishedPortStatus]:
        """Return them."""
        return [PublishedPortStatus(WEB, (), fault) for fault in self._faults]


async def shown(rules: Fault | None, *faults: str) -> list[str | None]:
    """Return what the API says of ports, where the host's rules have a fault."""
    exposure = SimpleNamespace(
        published_ports=Ports(*faults),
        ingress=SimpleNamespace(status=()),
        rules=SimpleNamespace(fault=rules),
    )
    directory = SimpleNamespace(network_by_vni=lambda _vni: None)
    components = SimpleNamespace(exposure=exposure, directory=directory)
    agent = SimpleNamespace(require_components=lambda: components)
    answer = await ExposureHandlers(cast("Any", agent)).published()
    return [each["fault"] for each in answer["published"]]


async def test_a_port_without_rules_is_not_called_well() -> None:
    """Its container is there, but the kernel refuses what would lead to it."""
    refused = Fault("host rules: no space left on device", "")
    assert await shown(None, "", "nothing is called web") == [None, "nothing is called web"]
    assert await shown(refused, "", "nothing is called web") == [
        refused.text,
        "nothing is called web",
    ]


def test_an_attach_says_that_its_ports_lead_nowhere() -> None:
    """Where the kernel refuses the host's rules; an attach without ports does not mention them."""
    refused = Fault("host rules: no space left on device", "")
    forwarding = SimpleNamespace(reconciler=SimpleNamespace(runtime=lambda _vni: None))
    components: Any = SimpleNamespace(
        exposure=SimpleNamespace(rules=SimpleNamespace(fault=refused)), forwarding=forwarding
    )
    result: Any = SimpleNamespace(
        network=SimpleNamespace(name="blue", vni=7), unconfirmed=(), unreachable=(), unanswered=()
    )

    found = outcome([result], cast("Any", components), publishes=True)["degraded"]
    assert found == [f"blue: published ports lead nowhere yet: {refused.text}"]
    assert outcome([result], cast("Any", components), publishes=False)["degraded"] == []
    components.exposure.rules.fault = None
    assert outcome([result], cast("Any", components), publishes=True)["degraded"] == []
