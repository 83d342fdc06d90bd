"""Published ports: those of an owner, and those of a container that gets another name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import PlacedEndpoint
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.core.dataplane.published_port import PortRequest, PublishedPort
from overlay.errors import ConflictError
from overlay.model import Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for, parse_ip
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

    def require_no_ingress(self, protocol: str, port: int) -> None:
        """Let every port be published: none leads to a service."""


class Kernel:
    """A kernel on whose host programs use some ports."""

    def __init__(self, *used: int) -> None:
        self._used = used

    async def call(self, _check: object, _protocol: str, _ip: Ip, port: int, *_: object) -> None:
        """Check a port."""
        if port in self._used:
            raise ConflictError(f"a program uses {port}")


def ports_of(
    state: StateDatabase, rules: Rules, *used: int, attached: Attachments | None = None
) -> PublishedPorts:
    """Return the ports that a state has, on a host whose programs use some."""
    directory = SimpleNamespace(endpoints=lambda _vni: [], network_by_vni=lambda _vni: None)
    gossip = cast("Any", SimpleNamespace(state=state))
    kernel = cast("Any", Kernel(*used))
    context = NodeContext(gossip, cast("Any", directory), kernel, EventLog(state.path.parent))
    exposure = cast("Any", SimpleNamespace(exposure_changed=Signal()))
    return PublishedPorts(
        context, exposure, cast("Any", rules), attached or Attachments(),
        cast("Any", Signal()), 30.0,
    )  # fmt: skip


def request(first: int, last: int) -> PortRequest:
    """Return a request for port 80 on one of some ports."""
    return PortRequest("tcp", Ip(b""), range(first, last + 1), 80)


async def test_an_owner_has_its_ports_until_it_withdraws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first free of a range, all or none, and again after a start of the agent."""
    state = StateDatabase(tmp_path)
    state.commit([documents.PUBLISHED_PORTS.row(WEB)])
    blue = SimpleNamespace(vni=Vni(7), name="blue", subnets=[SimpleNamespace(base=Ip(bytes(4)))])
    ports = ports_of(state, Rules(), 8081)
    monkeypatch.setattr(ports._names, "find", lambda name, _: (blue, name))

    with pytest.raises(ConflictError, match="8080/tcp of this host is taken"):
        await ports.publish_for("id", "new", "blue", [request(9000, 9000), request(8080, 8080)])
    with pytest.raises(ConflictError, match="a program uses 8081"):
        await ports.publish_for("id", "new", "blue", [request(8080, 8081)])
    assert ports.owners() == set()

    told: list[str] = []
    ports.places_changed.connect(lambda: told.append("taken"))
    for _ in range(2):  # Docker may repeat a call
        await ports.publish_for("id", "new", "blue", [request(8080, 8090)])
    await ports.name_owned("id", "shop")
    assert told == ["taken"]
    again = ports_of(state, Rules())
    again.places_changed.connect(lambda: told.append("free"))
    known = {(p.host_port, p.name, p.owner) for p in documents.PUBLISHED_PORTS.load(state)}
    assert known == {(8080, "Web", ""), (8082, "shop", "id")}
    await again.withdraw("id")
    await again.withdraw("")
    assert told == ["taken", "free"]  # a service may wait for the port
    assert documents.PUBLISHED_PORTS.load(state) == [WEB]
    assert "owner" not in next(iter(state.all("published").values()))
    state.close()


async def test_ports_end_with_their_endpoint(tmp_path: Path) -> None:
    """Those of an endpoint that is attached here stay, and so do Docker's and a user's."""
    state = StateDatabase(tmp_path)
    owned = [
        WEB._replace(host_port=port, owner=owner)
        for port, owner in ((9000, "endpoint/aa"), (9001, "endpoint/bb"), (9002, "docker"))
    ]
    state.commit(map(documents.PUBLISHED_PORTS.row, (WEB, *owned)))
    rules = Rules()
    ports = ports_of(state, rules, attached=cast("Any", {bytes.fromhex("aa"): NOTHING}))
    await ports.drop_ended()
    await ports.drop_ended()

    left = {each.host_port for each in documents.PUBLISHED_PORTS.load(state)}
    assert left == {8080, 9000, 9002}
    assert ports.owners() == {"docker"}
    assert rules.applied == 1
    state.close()


async def test_ports_follow_a_new_name_on_disk_too(tmp_path: Path) -> None:
    """On the network of the name; whatever its case."""
    state = StateDatabase(tmp_path)
    state.commit(map(documents.PUBLISHED_PORTS.row, (WEB, OTHER_NETWORK, DB)))
    rules = Rules()
    ports = ports_of(state, rules)
    await ports.endpoint_renamed(Vni(7), "web", "shop")
    await ports.endpoint_renamed(Vni(7), "nobody", "somebody")

    named = {each.host_port: each.name for each in documents.PUBLISHED_PORTS.load(state)}
    assert named == {8080: "shop", 8081: "web", 8082: "db"}
    assert [each.publication.name for each in await ports.status()] == ["shop", "web", "db"]
    assert rules.applied == 1
    state.close()


async def test_a_false_address_is_no_target(tmp_path: Path) -> None:
    """A member's record may say anything: not even then does a port lead to the host's services."""
    state = StateDatabase(tmp_path)
    state.commit([documents.PUBLISHED_PORTS.row(WEB)])
    ports = ports_of(state, Rules())
    base, gateway, own = map(parse_ip, ("10.0.0.0", "10.0.0.1", "10.0.0.9"))
    blue = Network(Vni(7), "blue", (Subnet(base, 24, gateway),), NodeId(bytes(16)))
    false = map(parse_ip, ("127.0.0.1", "172.17.0.1", "10.0.0.1"))
    web = Endpoint(bytes(8), blue.vni, "web", mac_for(blue.vni, own), (*false, own))
    directory = cast("Any", ports._directory)
    directory.network_by_vni = lambda _vni: blue
    directory.endpoints = lambda _vni: [PlacedEndpoint(blue.creator, web)]
    cast("Any", ports._exposure).host_endpoints = SimpleNamespace(of=lambda _vni: [NOTHING])

    (found,) = await ports.status()
    assert [each.ip for each in found.targets] == [own]
    state.close()
