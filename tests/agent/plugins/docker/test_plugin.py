"""Docker's calls over the plugin's socket: bodies, order, repetition, and no cluster."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_asyncio
from overlay import limits
from overlay.agent.endpoints.edit import EndpointEdit
from overlay.agent.ipam.address_management import AddressManagement
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.networks import definition
from overlay.agent.networks.definition import HostConstraints
from overlay.agent.networks.spec import NetworkSpec
from overlay.agent.networks.subnets import Range, SubnetSpec
from overlay.agent.plugins.docker import container_labels
from overlay.agent.plugins.docker import plugin as plugin_module
from overlay.agent.plugins.docker.plugin import DockerPlugin
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.lean_aiohttp import aiohttp
from overlay.agent.records.directory import Directory
from overlay.agent.state import docker_documents
from overlay.core.dataplane.published_port import PortRequest
from overlay.core.ipam.address_space import AddressSpace
from overlay.errors import ConflictError
from overlay.model import Ip, Network
from overlay.signals import Signal

if TYPE_CHECKING:
    from tests.agent.conftest import Site, Sites

NETWORK, ENDPOINT, OTHER = "a" * 64, "b" * 64, "c" * 64
PORT_MAP = "com.docker.network.portmap"
FREE = HostConstraints(lambda _: None, frozenset())
CALLS = (
    "IpamDriver.RequestPool",
    "IpamDriver.ReleasePool",
    "IpamDriver.RequestAddress",
    "IpamDriver.ReleaseAddress",
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.EndpointOperInfo",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.RevokeExternalConnectivity",
)


class FakeNetworks:
    """Creates networks without asking a kernel."""

    def __init__(self, site: Site, directory: Directory) -> None:
        self._gossip, self._directory = site.gossip, directory
        self.changed: Signal[[]] = Signal()

    async def create(self, spec: NetworkSpec) -> tuple[Network, bool]:
        """Return the network of a definition."""
        return definition.create(self._gossip, self._directory, spec, FREE), True

    async def remove(self, name: str) -> Network:
        """Remove a network."""
        return definition.remove(self._gossip, self._directory, name)

    async def free_subnet(self, taken: list[Range]) -> Range:
        """Return a free subnet."""
        return definition.default_subnet(self._directory, FREE, taken).network

    async def host_constraints(self) -> HostConstraints:
        """Return that the host has no routes."""
        return FREE


class FakeOffered:
    """Records what is attached, without a kernel."""

    def __init__(self) -> None:
        self.attached: dict[str, Any] = {}
        self.failure: Exception | None = None

    def find(self, endpoint: str) -> Any:
        """Return what is attached under an id."""
        return self.attached.get(endpoint)

    def all(self) -> list[Any]:
        """Return everything attached."""
        return [SimpleNamespace(runtime_endpoint=each) for each in self.attached]

    async def attach(self, target: Any, _network: Network, options: Any) -> None:
        """Attach, or fail as told."""
        if self.failure is not None:
            raise self.failure
        self.attached[target.runtime_endpoint] = options

    async def detach(self, endpoint: str) -> None:
        """Detach; nothing is no error."""
        self.attached.pop(endpoint, None)


class FakePublished:
    """Records which ports are published, by owner."""

    def __init__(self) -> None:
        self.ports: dict[str, tuple[str, list[Any]]] = {}

    def owners(self) -> set[str]:
        """Return who has ports."""
        return set(self.ports)

    async def publish_for(self, owner: str, name: str, _network: str, requests: list[Any]) -> None:
        """Publish ports of a name."""
        self.ports.setdefault(owner, (name, requests))

    async def name_owned(self, owner: str, name: str) -> None:
        """Map an owner's ports to another name."""
        self.ports[owner] = (name, self.ports[owner][1])

    async def withdraw(self, owner: str) -> None:
        """Unpublish an owner's ports."""
        self.ports.pop(owner, None)


class Engine:
    """Docker's side of the socket."""

    def __init__(self, plugin: DockerPlugin, agent: Any) -> None:
        self.plugin, self.agent = plugin, agent

    async def post(self, call: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Send a body as it is; return the status and the answer."""
        connector = aiohttp.UnixConnector(path=str(self.plugin.path))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://localhost/{call}", data=body) as response,
        ):
            return response.status, json.loads(await response.read())

    async def call(self, name: str, **fields: Any) -> dict[str, Any]:
        """Make a call that the plugin understands; return its answer."""
        status, answer = await self.post(name, json.dumps(fields).encode())
        assert status == 200, answer
        return answer

    async def network(self, subnet: str = "10.77.0.0/16", **options: Any) -> str:
        """Create a Docker network bound to blue; return its pool."""
        pool = await self.call(
            "IpamDriver.RequestPool", AddressSpace="overlayd", Pool=subnet, SubPool=""
        )
        generic = options or {"overlayd.network": "blue"}
        made = await self.call(
            "NetworkDriver.CreateNetwork",
            NetworkID=NETWORK,
            Options={"com.docker.network.generic": generic},
            IPv4Data=[{"AddressSpace": "overlayd", "Pool": pool["Pool"], "Gateway": ""}],
            IPv6Data=[],
        )
        assert made == {}
        return str(pool["PoolID"])

    async def endpoint(self, pool: str, endpoint: str = ENDPOINT, **fields: Any) -> str:
        """Request an address and create an endpoint with it; return the address."""
        found = await self.call("IpamDriver.RequestAddress", PoolID=pool, **fields)
        address = str(found["Address"])
        await self.call(
            "NetworkDriver.CreateEndpoint",
            NetworkID=NETWORK,
            EndpointID=endpoint,
            Interface={"Address": address},
        )
        return address

    async def about(
        self, name: str, endpoint: str = ENDPOINT, options: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Make a call about an endpoint."""
        return await self.call(
            f"NetworkDriver.{name}",
            NetworkID=NETWORK,
            EndpointID=endpoint,
            SandboxKey="/var/run/docker/netns/1",
            Options=options,
        )


@pytest_asyncio.fixture
async def unjoined(tmp_path: Path) -> AsyncIterator[Engine]:
    """Return the plugin of an agent that is in no cluster."""
    agent = AgentLifecycle(Config(state_dir=tmp_path / "state", run_dir=tmp_path / "run"))
    plugin = DockerPlugin(agent, "on", tmp_path / "plugins")
    await plugin.reconcile()
    yield Engine(plugin, agent)
    await plugin.close()
    await agent.close()


def components_of(site: Site) -> Any:
    """Return a member's components, as far as the drivers use them."""
    space = AddressSpace(site.gossip.node.store, site.gossip.node_id)
    directory = Directory(site.gossip.node, site.gossip.node_id, space)
    return SimpleNamespace(
        config=Config(),
        gossip=site.gossip,
        directory=directory,
        event_log=site.event_log,
        ipam=AddressManagement(site.gossip, directory, space, site.event_log),
        networks=FakeNetworks(site, directory),
        runtime_endpoints=FakeOffered(),
        attach_service=None,
        attachments={},
        restart=None,
        exposure=SimpleNamespace(published_ports=FakePublished()),
    )


@pytest_asyncio.fixture
async def engine(sites: Sites, tmp_path: Path) -> AsyncIterator[Engine]:
    """Return the plugin of a member of a cluster, without a kernel and without Docker."""
    components = components_of(sites.first())
    agent = SimpleNamespace(
        event_log=EventLog(tmp_path / "log"),
        components=components,
        require_components=lambda: components,
    )
    plugin = DockerPlugin(cast("AgentLifecycle", agent), "on", tmp_path / "plugins")
    await plugin.reconcile()
    yield Engine(plugin, agent)
    await plugin.close()


# --- the socket -----------------------------------------------------------------------------


async def test_the_socket_is_roots_alone(unjoined: Engine) -> None:
    """Nobody but root may call the drivers."""
    assert stat.S_IMODE(unjoined.plugin.path.stat().st_mode) == 0o600


async def test_off_removes_the_socket(unjoined: Engine, tmp_path: Path) -> None:
    """An agent whose plugin is switched off leaves nothing that Docker would wait for."""
    off = DockerPlugin(unjoined.agent, "off", tmp_path / "plugins")

    await off.reconcile()

    assert not off.path.exists()


async def test_a_second_agent_takes_no_socket(unjoined: Engine, tmp_path: Path) -> None:
    """Docker has one plugin of a name: it stays with the agent that serves it."""
    second = DockerPlugin(unjoined.agent, "on", tmp_path / "plugins")

    with pytest.raises(ConflictError, match="another agent already serves Docker"):
        await second.reconcile()

    assert "Implements" in await unjoined.call("Plugin.Activate")


async def test_a_stop_keeps_the_sockets_name(unjoined: Engine) -> None:
    """Docker waits for an agent that restarts; without the file it would give up at once."""
    await unjoined.plugin.close()

    assert unjoined.plugin.path.is_socket()


async def test_auto_serves_where_docker_is(tmp_path: Path, unjoined: Engine) -> None:
    """Docker's directory shows that it is installed."""
    (tmp_path / "docker").mkdir()
    auto = DockerPlugin(unjoined.agent, "auto", tmp_path / "docker/plugins")

    await auto.reconcile()

    assert auto.path.is_socket()
    await auto.close()


async def test_activation_needs_no_cluster(unjoined: Engine) -> None:
    """Docker learns at any time what the plugin is."""
    assert await unjoined.call("Plugin.Activate") == {"Implements": ["NetworkDriver", "IpamDriver"]}
    assert (await unjoined.call("NetworkDriver.GetCapabilities"))["Scope"] == "local"


@pytest.mark.parametrize("name", CALLS)
async def test_without_a_cluster_calls_say_what_to_do(unjoined: Engine, name: str) -> None:
    """Each call fails at once, under the key that Docker reads."""
    answer = await unjoined.call(name)

    assert answer["Err"] == answer["Error"]
    assert "this host is not in a cluster" in answer["Err"]
    assert "sudo overlayd join" in answer["Err"]


async def test_events_are_followed_for_the_present_membership(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a leave and a join, and after a defect, what follows Docker's events is replaced."""
    monkeypatch.setattr(plugin_module, "DOCKER_SOCKET", tmp_path)  # exists, and answers nothing
    plugin = engine.plugin
    await plugin.reconcile()
    before = plugin._syncing
    assert before is not None
    again = SimpleNamespace(**vars(engine.agent.components))
    engine.agent.components, engine.agent.require_components = again, lambda: again
    await engine.call("IpamDriver.RequestPool")  # makes the drivers of the new membership

    await plugin.reconcile()

    assert before.cancelled()
    assert plugin._syncing is not None
    plugin._syncing.cancel()
    await asyncio.wait([plugin._syncing])
    await plugin.reconcile()
    assert not plugin._syncing.done()


async def test_labels_that_cannot_be_are_a_fault(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` shows it, until it is attached or has ended."""
    monkeypatch.setattr(plugin_module, "DOCKER_SOCKET", tmp_path)
    await engine.plugin.reconcile()
    assert list(engine.plugin.faults()) == []
    labeled = engine.plugin._require_drivers().labeled
    monkeypatch.setattr(
        container_labels, "find_container", lambda *_: SimpleNamespace(pid=7, name="web")
    )
    monkeypatch.setattr(container_labels, "own_labels", lambda _, labels: labels)

    labeled.started("d" * 64, {"overlayd.network": ""})
    await labeled.attempt()

    (fault,) = engine.plugin.faults()
    assert "web: label overlayd.network needs one network" in fault.text
    assert "Make the container anew" in fault.hint


# --- bodies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff\xfe", b'{"NetworkID": 7}', b"null"])
async def test_bodies_that_are_malformed_are_refused(
    engine: Engine, name: str, body: bytes
) -> None:
    """No body raises a defect; what is no request is answered with its problem."""
    status, answer = await engine.post(name, body)

    assert "defect" not in answer.get("Err", "")
    if status != 200:
        assert status == 400
        assert answer["Err"].startswith(f"overlayd: the body of {name} is invalid")


async def test_a_call_repeated_without_content_says_so(engine: Engine) -> None:
    """Docker does so where the agent was restarted during the call."""
    status, answer = await engine.post("NetworkDriver.Join", b"")

    assert status == 400
    assert "the agent was restarted meanwhile" in answer["Err"]
    assert "Run the command again" in answer["Err"]


async def test_a_body_that_is_too_large_is_refused(engine: Engine) -> None:
    """A body has a bound."""
    body = json.dumps({"PoolID": "x" * limits.DOCKER_BODY_SIZE_MAX}).encode()

    status, answer = await engine.post("IpamDriver.ReleasePool", body)

    assert status == 413
    assert "larger than" in answer["Err"]


async def test_unknown_methods_do_not_exist(engine: Engine) -> None:
    """Docker recognizes a missing method by the status."""
    status, answer = await engine.post("NetworkDriver.AllocateNetwork", b"{}")

    assert status == 404
    assert "no method" in answer["Err"]


@pytest.mark.parametrize(
    "fields",
    [
        {"PoolID": "overlayd-0000000000000000"},
        {"PoolID": "POOL"},
        {"PoolID": "overlayd-0000000000000000", "Address": "10.77.0.2"},
    ],
)
async def test_unknown_pools_are_errors(engine: Engine, fields: dict[str, str]) -> None:
    """A pool of another life has no addresses, and releasing it is no error."""
    _, answer = await engine.post("IpamDriver.RequestAddress", json.dumps(fields).encode())

    assert "Error" in answer
    if fields["PoolID"] != "POOL":
        assert await engine.call("IpamDriver.ReleaseAddress", **fields) == {}
        assert await engine.call("IpamDriver.ReleasePool", **fields) == {}


# --- networks -------------------------------------------------------------------------------


async def test_a_named_network_is_created(engine: Engine) -> None:
    """The cluster gets a network with the subnet that Docker's user chose."""
    await engine.network()

    found = engine.agent.components.directory.network("blue")
    assert [str(each) for each in found.subnets] == ["10.77.0.0/16"]
    await engine.network()  # a request that Docker repeats


async def test_an_existing_network_is_bound_by_subnet(engine: Engine) -> None:
    """Docker tells no name, so the subnet finds the network."""
    components = engine.agent.components
    spec = NetworkSpec("red", [SubnetSpec("10.78.0.0/16")])
    red, _ = await components.networks.create(spec)

    await engine.network("10.78.0.0/16", **{"com.example": "x"})
    await engine.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
    assert components.directory.network("red") == red


async def test_dockers_network_goes_with_its_last_binding(engine: Engine) -> None:
    """Docker removes the network that it created; a second removal is not an error."""
    await engine.network()

    for _ in range(2):
        assert await engine.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK) == {}

    assert engine.agent.components.directory.find_network("blue") is None


async def test_an_interrupted_removal_is_finished_by_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker repeats a call that got no answer; the cluster's network is still bound then."""
    await engine.network()

    async def fail(_name: str) -> Network:
        raise OSError(errno.EIO, "interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(engine.agent.components.networks, "remove", fail)
        assert "Err" in await engine.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
    assert await engine.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK) == {}

    assert engine.agent.components.directory.find_network("blue") is None


@pytest.mark.parametrize(
    ("data", "options", "told"),
    [
        ({"AddressSpace": "LocalDefault", "Pool": "10.77.0.0/16"}, {}, "--ipam-driver overlayd"),
        ({"AddressSpace": "overlayd", "Pool": "10.99.0.0/16"}, {}, "has no pool"),
        ({}, {"overlayd.colour": "x"}, "unknown option overlayd.colour"),
    ],
)
async def test_networks_that_cannot_be_are_refused(
    engine: Engine, data: dict[str, str], options: dict[str, str], told: str
) -> None:
    """Nothing is left of a network that is refused."""
    answer = await engine.call(
        "NetworkDriver.CreateNetwork",
        NetworkID=NETWORK,
        Options={"com.docker.network.generic": options},
        IPv4Data=[data] if data else [],
    )

    assert told in answer["Err"]
    later = await engine.about("CreateEndpoint")
    assert "has no Docker network" in later["Err"]


async def test_another_subnet_of_a_known_name_is_refused(engine: Engine) -> None:
    """A name stands for one network of the cluster."""
    await engine.agent.components.networks.create(NetworkSpec("blue", [SubnetSpec("10.78.0.0/16")]))
    pool = await engine.call("IpamDriver.RequestPool", Pool="10.77.0.0/16")

    answer = await engine.call(
        "NetworkDriver.CreateNetwork",
        NetworkID=NETWORK,
        Options={"com.docker.network.generic": {"overlayd.network": "blue"}},
        IPv4Data=[{"AddressSpace": "overlayd", "Pool": pool["Pool"]}],
    )

    assert "exists with other subnets" in answer["Err"]
    assert "10.78.0.0/16" in answer["Err"]


async def test_pools_without_a_network_are_bounded(engine: Engine) -> None:
    """Docker asks without end where it rejects each subnet; the plugin ends that."""
    answers = [
        await engine.call("IpamDriver.RequestPool")
        for _ in range(limits.DOCKER_POOLS_UNBOUND_MAX + 1)
    ]

    assert len({each["Pool"] for each in answers[:-1]}) == limits.DOCKER_POOLS_UNBOUND_MAX
    assert "pools without a network" in answers[-1]["Error"]


# --- addresses ------------------------------------------------------------------------------


async def test_the_gateway_is_not_allocated(engine: Engine) -> None:
    """Docker asks for the gateway's address, which no container gets."""
    gateway = {"RequestAddressType": "com.docker.network.gateway"}
    pool = await engine.call("IpamDriver.RequestPool", Pool="10.77.0.0/16")

    answer = await engine.call("IpamDriver.RequestAddress", PoolID=pool["PoolID"], Options=gateway)

    assert answer["Address"] == "10.77.0.1/16"
    assert engine.agent.components.ipam.reservations.all() == []


async def test_addresses_are_reserved_until_released(engine: Engine) -> None:
    """Two requests get two addresses; a wanted one is given once."""
    pool = await engine.network()
    first = await engine.endpoint(pool)
    second = await engine.endpoint(pool, OTHER)
    assert first != second

    wanted = first.partition("/")[0]
    taken = await engine.call("IpamDriver.RequestAddress", PoolID=pool, Address=wanted)
    assert "is in use" in taken["Error"]
    outside = await engine.call("IpamDriver.RequestAddress", PoolID=pool, Address="10.1.0.9")
    assert "is not an address of network blue" in outside["Error"]
    reserved = engine.agent.components.gossip.state
    assert len(reserved.all("reservation")) == 2


async def test_a_restarted_container_gets_its_address_again(engine: Engine) -> None:
    """Docker releases the address and asks for any: it is the one released last."""
    pool = await engine.network()
    before = await engine.endpoint(pool)
    for name in ("Leave", "DeleteEndpoint"):
        await engine.about(name)
    for _ in range(2):
        address = before.partition("/")[0]
        assert await engine.call("IpamDriver.ReleaseAddress", PoolID=pool, Address=address) == {}

    assert await engine.endpoint(pool, OTHER) == before


# --- endpoints ------------------------------------------------------------------------------


async def test_join_offers_an_interface(engine: Engine) -> None:
    """The answer names interface and gateway; a repeated call gets the same."""
    pool = await engine.network()
    await engine.endpoint(pool)

    answers = [await engine.about("Join") for _ in range(2)]

    assert answers[0] == answers[1]
    assert answers[0]["Gateway"] == "10.77.0.1"
    assert answers[0]["InterfaceName"]["DstPrefix"] == "eth"
    assert len(answers[0]["InterfaceName"]["SrcName"]) < 16
    assert list(engine.agent.components.runtime_endpoints.attached) == [ENDPOINT]


async def test_driver_options_are_options_of_the_port(engine: Engine) -> None:
    """They are stored with the endpoint, so that a join after a restart of the agent has them."""
    await engine.network()

    async def create(options: dict[str, Any]) -> dict[str, Any]:
        return await engine.call(
            "NetworkDriver.CreateEndpoint",
            NetworkID=NETWORK,
            EndpointID=ENDPOINT,
            Interface={"Address": "10.77.0.9/16"},
            Options=options,
        )

    for name, value, told in (
        ("priority", "9", "is not a priority"),
        ("allow-non-ip", "all", "driver option overlayd.allow-non-ip is not allowed"),
        ("colour", "red", "unknown driver option overlayd.colour"),
    ):
        assert told in (await create({f"overlayd.{name}": value}))["Err"]
    await create({"overlayd.priority": "5", "overlayd.vlan": "10", PORT_MAP: []})
    (stored,) = docker_documents.ENDPOINTS.load(engine.agent.components.gossip.state)
    assert stored.options == {"priority": "5", "vlan": "10"}

    await engine.about("Join")

    attached = engine.agent.components.runtime_endpoints.attached[ENDPOINT]
    assert (attached.controls.priority, str(attached.vlans)) == ("5", "10")


async def test_calls_out_of_order_are_errors_in_words(engine: Engine) -> None:
    """A call for what does not exist says so, and removals of it succeed."""
    for name in ("Join", "CreateEndpoint"):
        assert "has no Docker" in (await engine.about(name))["Err"]
    assert "has no Docker endpoint" in (await engine.about("EndpointOperInfo"))["Err"]
    for name in ("Leave", "DeleteEndpoint"):
        assert await engine.about(name) == {}

    pool = await engine.network()
    await engine.endpoint(pool)
    await engine.about("DeleteEndpoint")
    assert "has no Docker endpoint" in (await engine.about("Join"))["Err"]


async def test_a_failed_join_can_be_repeated(engine: Engine) -> None:
    """The error reaches Docker, and the endpoint stays until Docker deletes it."""
    pool = await engine.network()
    await engine.endpoint(pool)
    offered = engine.agent.components.runtime_endpoints
    offered.failure = ConflictError("the bridge is full")
    assert "the bridge is full" in (await engine.about("Join"))["Err"]

    offered.failure = None

    assert "InterfaceName" in await engine.about("Join")


async def test_ports_that_cannot_be_published_are_refused(engine: Engine) -> None:
    """Before the endpoint exists, in Docker's error line."""
    await engine.network()

    for port, told in (
        ({"Proto": 132, "Port": 80, "HostPort": 8080}, "ports of TCP and UDP"),
        ({"Proto": 6, "Port": 0}, "not understood"),
        ({"Proto": 6, "Port": 80, "HostIP": "x"}, "not understood"),
        (7, "not understood"),
    ):
        answer = await engine.call(
            "NetworkDriver.CreateEndpoint",
            NetworkID=NETWORK,
            EndpointID=ENDPOINT,
            Interface={"Address": "10.77.0.9/16"},
            Options={PORT_MAP: [port]},
        )
        assert told in answer["Err"]


async def test_ports_are_published_until_docker_revokes_them(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the end of the endpoint, where Docker leaves the call out."""
    pool = await engine.network()
    await engine.endpoint(pool)
    options = {PORT_MAP: [{"Proto": 17, "Port": 53, "HostIP": "192.0.2.1", "HostPort": 5300}]}
    early = await engine.about("ProgramExternalConnectivity", options=options)
    assert "to publish ports for" in early["Err"]
    await engine.about("Join")
    components = engine.agent.components
    vni = components.directory.network("blue").vni
    endpoint = SimpleNamespace(name="docker-bbbbbbbbbbbb", vni=vni)
    monkeypatch.setattr(components.directory, "endpoint_of", lambda _: endpoint)
    published = components.exposure.published_ports

    for end in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
        assert await engine.about("ProgramExternalConnectivity", options=options) == {}
        request = PortRequest("udp", Ip(bytes([192, 0, 2, 1])), range(5300, 5301), 53)
        assert published.ports == {ENDPOINT: (endpoint.name, [request])}
        assert await engine.about(end) == {}
        assert published.ports == {}
        await engine.about("Join")
        await engine.endpoint(pool)
        await engine.about("Join")


async def test_ports_of_nobody_are_unpublished(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill at any moment; those of an endpoint that has another name follow it."""
    components = engine.agent.components
    published, offered = components.exposure.published_ports, components.runtime_endpoints
    published.ports = {ENDPOINT: ("docker-bbbbbbbbbbbb", []), OTHER: ("gone", [])}
    offered.attached[ENDPOINT] = SimpleNamespace()
    web = SimpleNamespace(name="web")
    monkeypatch.setattr(components.directory, "endpoint_of", lambda _: web)

    await engine.plugin._require_drivers().sync._ports.compare([ENDPOINT])

    assert published.ports == {ENDPOINT: ("web", [])}


async def test_what_docker_created_survives_the_agent(engine: Engine) -> None:
    """An agent that is killed knows pools, networks, endpoints and addresses again."""
    pool = await engine.network()
    await engine.endpoint(pool)
    components = engine.agent.components
    again = SimpleNamespace(**vars(components))
    gossip = components.gossip
    space = AddressSpace(gossip.node.store, gossip.node_id)
    again.ipam = AddressManagement(gossip, components.directory, space, components.event_log)
    engine.agent.require_components = lambda: again

    assert "InterfaceName" in await engine.about("Join")
    assert space.reserved(components.directory.network("blue").vni)


async def test_calls_at_once_are_bounded(engine: Engine) -> None:
    """The call beyond the bound fails at once; those before it are served."""
    engine.plugin._calls_in_progress = limits.DOCKER_CALLS_MAX

    async with asyncio.timeout(10):
        answer = await engine.call("IpamDriver.RequestPool")

    assert "already serves" in answer["Err"]


# --- Docker's events ------------------------------------------------------------------------


async def event(engine: Engine, kind: str, action: str, found: str, **attributes: str) -> None:
    """Handle an event as Docker's stream has it."""
    actor = {"ID": found, "Attributes": attributes}
    sync = engine.plugin._require_drivers().sync
    await sync._report_errors(sync._handle({"Type": kind, "Action": action, "Actor": actor}))


async def unnamed(engine: Engine) -> str:
    """Create a Docker network without naming the cluster's; return its pool."""
    pool = await engine.call("IpamDriver.RequestPool")
    data = {"AddressSpace": "overlayd", "Pool": pool["Pool"], "Gateway": ""}
    made = await engine.call("NetworkDriver.CreateNetwork", NetworkID=NETWORK, IPv4Data=[data])
    assert made == {}
    return str(pool["PoolID"])


async def test_a_network_gets_the_name_of_its_event(engine: Engine) -> None:
    """A call that is earlier than the event waits for it."""
    pool = await unnamed(engine)
    early = asyncio.create_task(engine.call("IpamDriver.RequestAddress", PoolID=pool))
    await asyncio.sleep(0)

    await event(engine, "network", "create", NETWORK, name="green")

    network = engine.agent.components.directory.network("green")
    assert (await early)["Address"].endswith("/16")
    assert dict(network.labels)["overlayd.made-by"] == "docker"


async def test_a_name_that_cannot_be_is_told_to_containers(engine: Engine) -> None:
    """The network exists in Docker already, so its first container gets the error."""
    pool = await unnamed(engine)

    await event(engine, "network", "create", NETWORK, name="host")

    answer = await engine.call("IpamDriver.RequestAddress", PoolID=pool)
    assert "cannot be named 'host'" in answer["Error"]


async def test_a_new_container_gets_a_new_address(engine: Engine) -> None:
    """A stopped container's address is kept for it while a new one starts."""
    pool = await engine.network()
    before = await engine.endpoint(pool)
    await engine.about("DeleteEndpoint")
    address = before.partition("/")[0]
    await engine.call("IpamDriver.ReleaseAddress", PoolID=pool, Address=address)
    await event(engine, "container", "create", "d" * 64, name="new")

    assert await engine.endpoint(pool, OTHER) != before


async def test_events_that_make_no_sense_are_reported(engine: Engine) -> None:
    """An event without what it should have ends nothing."""
    await event(engine, "network", "create", NETWORK)

    last = engine.agent.components.event_log.last("docker")
    assert "Docker's answer is not understood" in last["text"]


async def test_what_docker_lacks_twice_is_removed(engine: Engine) -> None:
    """One comparison may be too early: Docker lists nothing that it is still creating."""
    pool = await engine.network()
    await engine.endpoint(pool)
    await engine.about("Join")
    components = engine.agent.components
    sync = engine.plugin._require_drivers().sync

    await sync._sweep(set(), set())
    assert components.ipam.reservations.all()
    assert components.directory.find_network("blue") is not None
    for _ in range(2):  # what an endpoint held is unused once the endpoint is gone
        await sync._sweep(set(), set())
        await sync._sweep(set(), set())

    assert components.runtime_endpoints.attached == {}
    components.runtime_endpoints.attached[OTHER] = None  # adopted: it has no binding
    for _ in range(2):
        await sync._sweep(set(), set())
    assert components.runtime_endpoints.attached == {}
    assert components.ipam.reservations.all() == []
    assert components.directory.find_network("blue") is None


async def test_a_name_that_is_taken_is_reported_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each comparison tries again; an event each minute would push others out."""
    pool = await engine.network()
    await engine.endpoint(pool)
    await engine.about("Join")
    components = engine.agent.components
    endpoint = SimpleNamespace(name="docker-bbbbbbbbbbbb", aliases=())
    monkeypatch.setattr(components.directory, "endpoint_of", lambda _: endpoint)

    async def rename(_endpoint: str, edit: EndpointEdit) -> None:
        if edit.name is not None:
            raise ConflictError("the name 'web' is taken on network blue")

    components.runtime_endpoints.rename = rename
    sync = engine.plugin._require_drivers().sync

    for _ in range(3):
        await sync._names._rename(ENDPOINT, "web", [])

    told = [each["text"] for each in components.event_log.since(0.0) if each["kind"] == "docker"]
    assert told == ["web stays docker-bbbbbbbbbbbb in DNS: the name 'web' is taken on network blue"]


# --- any calls ------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    None, "", "x", -1, 7, [], {}, [7], {"overlayd.network": 7}, "10.77.0.9/16", "fd77::9/64",
    "10.77.0.0/16", "10.77.0.0/33", "02:00:00:00:00:01", "blue", "b" * 300, True,
)  # fmt: skip
LIKELY: dict[str, tuple[Any, ...]] = {
    "NetworkID": (NETWORK, OTHER),
    "EndpointID": (ENDPOINT, OTHER),
    "SandboxKey": ("/run/docker/netns/1",),
    "AddressSpace": ("overlayd", "LocalDefault"),
    "Pool": ("", "10.77.0.0/16", "10.78.0.0/24", "fd77::/64"),
    "SubPool": ("", "10.77.1.0/24"),
    "V6": (False, True),
    "Address": ("", "10.77.0.2", "10.77.0.9"),
    "Interface": ({"Address": "10.77.0.9/16"}, {"Address": "10.77.0.9/16", "MacAddress": "z"}),
    "IPv4Data": (
        [{"AddressSpace": "overlayd", "Pool": "10.77.0.0/16", "Gateway": "10.77.0.1/16"}],
    ),
    "Options": (
        {"com.docker.network.generic": {"overlayd.network": "blue"}},
        {"RequestAddressType": "com.docker.network.gateway"},
        {PORT_MAP: [{"Proto": 6, "Port": 80, "HostPort": 8080}]},
    ),
}


@pytest.mark.parametrize("seed", range(3))
async def test_any_calls_in_any_order_leave_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Likely and odd values: no defect, and the removals of all that was named remove all."""
    monkeypatch.setattr(limits, "DOCKER_NAME_WAIT_S", 0.01)
    rng = random.Random(seed)
    pools: list[str] = ["overlayd-0000000000000000"]
    for _ in range(400):
        fields = {
            key: rng.choice(ODD) if rng.random() < 0.05 else rng.choice(values)
            for key, values in [*LIKELY.items(), ("PoolID", tuple(pools))]
            if rng.random() < 0.9
        }
        status, answer = await engine.post(rng.choice(CALLS), json.dumps(fields).encode())
        assert status in (200, 400), answer
        assert "defect" not in str(answer.get("Err")), (fields, answer)
        pools += [str(answer["PoolID"])] if "PoolID" in answer else []

    for endpoint in (ENDPOINT, OTHER):
        for network in (NETWORK, OTHER):
            ids = {"NetworkID": network, "EndpointID": endpoint}
            assert await engine.call("NetworkDriver.DeleteEndpoint", **ids) == {}
    for network in (NETWORK, OTHER):
        assert await engine.call("NetworkDriver.DeleteNetwork", NetworkID=network) == {}
    for pool in pools:
        assert await engine.call("IpamDriver.ReleasePool", PoolID=pool) == {}
    components = engine.agent.components
    assert components.runtime_endpoints.attached == {}
    assert components.exposure.published_ports.ports == {}
    for kind in ("docker-pool", "docker-network", "docker-endpoint"):
        assert components.gossip.state.all(kind) == {}
