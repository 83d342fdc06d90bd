"""Published ports follow a container that gets another name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.event_log import EventLog
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.core.dataplane.published_port import PublishedPort
from overlay.model import Ip, Vni
from overlay.signals import Signal

NOTHING = cast("Any", None)
WEB, OTHER_NETWORK, DB = (
    PublishedPort("tcp", Ip(b""), port, Vni(vni), name, 80)
    for port, vni, name in ((8080, 7, "Web"), (8081, 8, "web"), (8082, 7, "db"))
)


class Rules:
    """Host rules that count how often they are applied."""

    def __init__(self) -> None:
        self.applied = 0

    def set_ports(self, _ports: object) -> None:
        """Set the ports."""

    async def apply(self) -> None:
        """Count one call."""
        self.applied += 1


async def test_ports_follow_a_new_name_on_disk_too(tmp_path: Path) -> None:
    """On the network of the name; whatever its case."""
    state = StateDatabase(tmp_path)
    state.commit(map(documents.PUBLISHED_PORTS.row, (WEB, OTHER_NETWORK, DB)))
    directory = SimpleNamespace(endpoints=lambda _vni: [], network_by_vni=lambda _vni: None)
    gossip = cast("Any", SimpleNamespace(state=state))
    context = NodeContext(gossip, cast("Any", directory), NOTHING, EventLog(tmp_path))
    exposure, rules = cast("Any", SimpleNamespace(exposure_changed=Signal())), Rules()
    ports = PublishedPorts(
        context, exposure, cast("Any", rules), Attachments(), cast("Any", Signal()), 30.0
    )
    await ports.endpoint_renamed(Vni(7), "web", "shop")
    await ports.endpoint_renamed(Vni(7), "nobody", "somebody")

    named = {each.host_port: each.name for each in documents.PUBLISHED_PORTS.load(state)}
    assert named == {8080: "shop", 8081: "web", 8082: "db"}
    assert [each.publication.name for each in await ports.status()] == ["shop", "web", "db"]
    assert rules.applied == 1
    state.close()
