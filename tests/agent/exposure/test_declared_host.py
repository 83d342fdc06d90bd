"""Members may declare this host's settings, within the limits that it sets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from overlay.agent.exposure.controller import ExposureController
from overlay.agent.exposure.declared_host import DeclaredHost
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.port_ranges import parse_port_ranges
from overlay.core.declared.host_objects import DeclaredPort
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.protocol.records import DeclaredObject
from overlay.model import Ip


def declared(number: int) -> DeclaredObject:
    """Return the record of a port of this host."""
    port = DeclaredPort("vm1", "tcp", Ip(b""), number, "blue", "web", 80)
    return DeclaredObject(DeclaredPort.kind, port.object_name, 1, port.body())


class Bench:
    """Declared ports over published ports that only note what is asked."""

    def __init__(self, directory: Path, *ports: int) -> None:
        self.published: dict[str, int] = {}  # by owner: the port of the host
        records = [declared(number) for number in ports]
        objects = SimpleNamespace(
            existing=lambda _kind: [SimpleNamespace(value=r) for r in records]
        )
        context = SimpleNamespace(
            gossip=SimpleNamespace(node=SimpleNamespace(caught_up=True)),
            directory=SimpleNamespace(own=b"o", node_name=lambda _own: "vm1"),
            event_log=EventLog(directory),
        )
        preferences = SimpleNamespace(declared=dict)
        exposure = SimpleNamespace(
            interval_s=30.0, eligibility=SimpleNamespace(preferences=preferences)
        )
        self.host = DeclaredHost(
            cast("NodeContext", context),
            cast("DeclaredObjects", objects),
            cast("ExposureController", exposure),
            cast("PublishedPorts", self),
            parse_port_ranges("80, 1024-65535"),
        )

    def declared_owners(self) -> set[str]:
        """Return the owners of what is published."""
        return set(self.published)

    async def publish_for(self, owner: str, _name: str, _network: str, requests: Any) -> None:
        """Publish."""
        (request,) = requests
        self.published[owner] = request.host_ports.start

    async def withdraw(self, owner: str) -> None:
        """Take back."""
        self.published.pop(owner, None)


async def test_a_port_that_the_host_keeps_is_not_published(tmp_path: Path) -> None:
    """It is named, with what to do, and holds up no other."""
    bench = Bench(tmp_path, 22, 80, 8080)

    await bench.host.attempt()
    assert set(bench.published.values()) == {80, 8080}
    (fault,) = [each for each in bench.host.faults() if "*:22/tcp" in each.text]
    assert "cluster_ports does not allow it" in fault.text
    assert "Publish it by a command on this host" in fault.hint
