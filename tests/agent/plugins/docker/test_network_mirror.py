"""Docker networks that an agent creates for the cluster's, against a Docker in memory."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import pytest
import pytest_asyncio
from overlay import limits
from overlay.agent.networks import definition
from overlay.agent.networks.definition import HostConstraints
from overlay.agent.networks.spec import NetworkSpec
from overlay.agent.networks.subnets import SubnetSpec
from overlay.agent.plugins.docker import network_mirror
from overlay.agent.plugins.docker.bindings import DockerBindings
from overlay.agent.plugins.docker.network_binding import MADE_BY_DOCKER
from overlay.agent.plugins.docker.network_mirror import DockerNetworkMirror, MirrorRemoval
from overlay.agent.records.directory import Directory
from overlay.agent.state.docker_documents import DockerNetwork
from overlay.core.ipam.address_space import AddressSpace
from overlay.errors import OverlayError
from overlay.signals import Signal

if TYPE_CHECKING:
    from tests.agent.conftest import Sites

FREE = HostConstraints(lambda _: None, frozenset())


class MemoryDocker:
    """Docker's networks; what it creates is bound as its driver would do it."""

    def __init__(self, directory: Directory, bindings: DockerBindings) -> None:
        self.networks: dict[str, dict[str, Any]] = {}
        self.users: dict[str, list[str]] = {}  # containers by network, running or not
        self._directory, self._bindings = directory, bindings
        self._count = 0

    def query(self, path: str) -> list[dict[str, Any]]:
        """Answer a GET."""
        if path.startswith("/containers/json?all=true&filters="):
            network_id, _ = json.loads(unquote(path.rpartition("=")[2]))["network"]
            return [{"Names": [f"/{each}"]} for each in self.users.get(network_id, ())]
        assert path == "/networks"
        return list(self.networks.values())

    def request(self, method: str, path: str, body: Any = None) -> None:
        """Create or remove a network."""
        if method == "DELETE":
            del self.networks[path.rpartition("/")[2]]
            self._bindings.drop_network(path.rpartition("/")[2])
            return
        self._count += 1
        network_id = f"{self._count:064x}"
        self.networks[network_id] = body | {"Id": network_id}
        name = body["Options"]["overlayd.network"]
        vni = self._directory.network(name).vni
        self._bindings.put_network(DockerNetwork(network_id, name, vni=vni), [])

    def names(self) -> set[str]:
        """Return the names of the networks."""
        return {each["Name"] for each in self.networks.values()}


class Bench:
    """A mirror, the cluster's networks and Docker's."""

    def __init__(self, sites: Sites) -> None:
        site = sites.first()
        space = AddressSpace(site.gossip.node.store, site.gossip.node_id)
        self.gossip = site.gossip
        self.event_log = site.event_log
        self.directory = Directory(site.gossip.node, site.gossip.node_id, space)
        self.bindings = DockerBindings(site.gossip.state)
        self.docker = MemoryDocker(self.directory, self.bindings)
        self.changed: Signal[[]] = Signal()
        components = SimpleNamespace(
            event_log=site.event_log,
            directory=self.directory,
            gossip=site.gossip,
            networks=SimpleNamespace(changed=self.changed),
        )
        self.mirror = DockerNetworkMirror(cast("Any", components), self.bindings, Signal())

    def create(self, name: str, *subnets: str, **options: Any) -> None:
        """Create a network of the cluster."""
        spec = NetworkSpec(name, [SubnetSpec(each) for each in subnets], **options)
        definition.create(self.gossip, self.directory, spec, FREE)

    def remove(self, name: str) -> None:
        """Remove a network of the cluster."""
        definition.remove(self.gossip, self.directory, name)


@pytest_asyncio.fixture
async def bench(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a mirror between a cluster and a Docker."""
    made = Bench(sites)
    monkeypatch.setattr(network_mirror, "query_docker", made.docker.query)
    monkeypatch.setattr(network_mirror, "request_docker", made.docker.request)
    monkeypatch.setattr(network_mirror, "DOCKER_SOCKET", Path("/"))  # it exists
    monkeypatch.setattr(type(made.gossip.node), "caught_up", property(lambda _: True))
    return made


async def test_each_network_is_shown_until_it_is_removed(bench: Bench) -> None:
    """With its subnets, and but once; a network that is Docker's own is not shown."""
    bench.create("blue", "10.80.0.0/16", "fd80::/64", internal=True)
    bench.create("dockers", "10.81.0.0/16", labels=(MADE_BY_DOCKER,))

    for _ in range(2):
        await bench.mirror.reconcile()

    (shown,) = bench.docker.networks.values()
    assert (shown["Name"], shown["Internal"], shown["EnableIPv6"]) == ("blue", True, True)
    assert [each["Subnet"] for each in shown["IPAM"]["Config"]] == ["10.80.0.0/16", "fd80::/64"]
    bench.remove("blue")
    await bench.mirror.reconcile()
    assert bench.docker.networks == {}


async def test_a_users_docker_network_is_enough(bench: Bench) -> None:
    """One that is bound under another name is neither doubled nor removed."""
    bench.create("blue", "10.80.0.0/16")
    bench.docker.request("POST", "", {"Name": "mine", "Options": {"overlayd.network": "blue"}})

    await bench.mirror.reconcile()
    bench.remove("blue")
    await bench.mirror.reconcile()

    assert bench.docker.names() == {"mine"}


async def test_a_name_of_dockers_is_reported(bench: Bench) -> None:
    """The other networks are shown nevertheless."""
    bench.create("blue", "10.80.0.0/16")
    bench.create("red", "10.81.0.0/16")
    bench.docker.networks["x"] = {"Id": "x", "Name": "blue", "Driver": "bridge", "Labels": {}}

    with pytest.raises(OverlayError, match="Docker has another network blue"):
        await bench.mirror.reconcile()

    assert bench.docker.names() == {"blue", "red"}


async def test_what_another_membership_made_is_replaced(bench: Bench) -> None:
    """A Docker network that the driver does not know has no addresses to give."""
    bench.create("blue", "10.80.0.0/16")
    await bench.mirror.reconcile()
    (before,) = bench.docker.networks
    bench.bindings.drop_network(before)

    await bench.mirror.reconcile()

    assert bench.docker.names() == {"blue"}
    assert before not in bench.docker.networks


async def test_missing_records_remove_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is behind does not know which networks are gone."""
    bench.create("blue", "10.80.0.0/16")
    await bench.mirror.reconcile()
    bench.remove("blue")
    monkeypatch.setattr(type(bench.gossip.node), "caught_up", property(lambda _: False))

    await bench.mirror.reconcile()

    assert bench.docker.names() == {"blue"}
    assert bench.mirror.next_interval_s() == limits.RUNTIME_RETRY_FIRST_S


async def test_a_removal_takes_what_was_made(bench: Bench) -> None:
    """After a leave, and where it was switched off; nothing else of Docker's, nor what is used."""
    bench.create("blue", "10.80.0.0/16")
    bench.create("red", "10.81.0.0/16")
    await bench.mirror.reconcile()
    bench.docker.networks["x"] = {"Id": "x", "Name": "bridge", "Driver": "bridge"}
    bench.docker.networks["y"] = {"Id": "y", "Name": "mine", "Driver": "overlayd", "Labels": None}
    red = next(key for key, each in bench.docker.networks.items() if each["Name"] == "red")
    bench.docker.users[red] = ["web", "db"]
    removal = MirrorRemoval(bench.event_log)

    await removal.attempt()

    assert bench.docker.names() == {"bridge", "mine", "red"}
    assert removal.fault is not None
    assert removal.fault.text.endswith("networks that overlayd made: red is used by db, web")
    assert "docker network disconnect -f red db" in removal.fault.hint
    bench.docker.users.clear()
    await removal.attempt()
    assert bench.docker.names() == {"bridge", "mine"}
    assert not list(removal.faults())


async def test_a_change_of_networks_starts_a_pass(bench: Bench) -> None:
    """The records announce it, so that Docker shows a new network within a moment."""
    bench.mirror._triggered.clear()

    bench.changed.emit()

    assert bench.mirror._triggered.is_set()
