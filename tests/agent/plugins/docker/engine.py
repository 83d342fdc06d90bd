"""Docker's side of the plugin's socket, and a member of a cluster without a kernel behind it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from overlay.agent.ipam.address_management import AddressManagement
from overlay.agent.networks import definition
from overlay.agent.networks.definition import HostConstraints
from overlay.agent.networks.spec import NetworkSpec
from overlay.agent.networks.subnets import Range
from overlay.agent.plugins.docker.plugin import DockerPlugin
from overlay.agent.process.config import Config
from overlay.agent.process.lean_aiohttp import aiohttp
from overlay.agent.records.directory import Directory
from overlay.core.ipam.address_space import AddressSpace
from overlay.model import Network
from overlay.signals import Signal

if TYPE_CHECKING:
    from tests.agent.conftest import Site


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
        endpoints=SimpleNamespace(restart=None),
        exposure=SimpleNamespace(published_ports=FakePublished()),
    )
