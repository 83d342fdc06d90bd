"""Docker's network driver: networks and endpoints by the attach service.

At Join the container's namespace does not exist yet. So the interface is made in the host's
namespace, behind a port that is complete: Docker moves it into the container, gives it its
addresses and brings it up. Owns: what each call means.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from hashlib import blake2s
from typing import Any

from overlay.agent.components import Components
from overlay.agent.endpoints.runtimes.port_options import (
    PORT_OPTIONS,
    require_known,
    with_port_options,
)
from overlay.agent.endpoints.spec import EndpointOptions
from overlay.agent.plugins.docker.arrivals import ContainerArrivals, interface_name
from overlay.agent.plugins.docker.bindings import DockerBindings
from overlay.agent.plugins.docker.messages import (
    ConnectivityCall,
    EndpointCall,
    EndpointCreation,
    IpamData,
    JoinCall,
    NetworkCreation,
    NetworkDeletion,
)
from overlay.agent.plugins.docker.network_binding import NetworkBinder
from overlay.agent.plugins.docker.port_mappings import DockerPortMappings, port_requests
from overlay.agent.runtimes.targets import Target
from overlay.agent.state.docker_documents import DockerEndpoint, DockerNetwork, DockerPool
from overlay.docker_socket import ADDRESS_SPACE
from overlay.driver_options import NETWORK_OPTION, DriverOptions
from overlay.errors import NotFoundError, UsageError
from overlay.model import (
    LABEL_PREFIX,
    Ip,
    Mac,
    Network,
    ip_text,
    mac_for,
    mac_text,
    parse_ip,
    parse_mac,
)

_GENERIC = "com.docker.network.generic"
_INTERNAL = "com.docker.network.internal"
PROVISIONAL_NAME_PREFIX = "docker-"
"""Of an endpoint's name until the engine's events tell the container's."""
_HOST_NAMESPACE = "/proc/self/ns/net"


class DockerNetworkDriver:
    """Answers Docker's calls about networks and endpoints."""

    def __init__(
        self,
        components: Components,
        bindings: DockerBindings,
        binder: NetworkBinder,
        ports: DockerPortMappings,
        arrivals: ContainerArrivals,
    ) -> None:
        self._offered = components.runtime_endpoints
        self._arrivals = arrivals
        self._ports = ports
        self._bindings = bindings
        self._binder = binder

    # --- networks -----------------------------------------------------------------------

    async def create_network(
        self, request: NetworkCreation, *, of_swarm: bool = False
    ) -> dict[str, Any]:
        """Bind a Docker network, or store it until its name is known."""
        if request.network_id in self._bindings.networks:
            return {}  # Docker repeats a request whose answer it has not seen
        options = request.options or {}
        generic = options.get(_GENERIC)
        asked = DriverOptions(generic if isinstance(generic, dict) else {}, "Docker")
        taken: list[DockerPool] = []
        for data in [*(request.ipv4 or []), *(request.ipv6 or [])]:
            taken.append(self._pool_of(data, taken))
        named = {asked.name, *(pool.network_name for pool in taken)} - {""}
        if len(named) > 1:
            raise UsageError(
                f"the network is named twice: {' and '.join(sorted(named))}",
                hint=f"Use the same NAME in -o and --ipam-opt {NETWORK_OPTION}=NAME",
            )
        network = DockerNetwork(
            request.network_id,
            next(iter(named), ""),
            options.get(_INTERNAL) is True,
            of_swarm=of_swarm,
            encrypted=asked.encrypted,
        )
        await self._binder.create(network, taken)
        return {}

    def _pool_of(self, data: IpamData, taken: list[DockerPool]) -> DockerPool:
        """Return the pool that Docker requested for this network a moment ago."""
        if data.address_space != ADDRESS_SPACE:
            raise UsageError(
                "the network's addresses do not come from overlayd",
                why="Docker's own would be the same on each host",
                hint="docker network create -d overlayd --ipam-driver overlayd NAME",
            )
        free = [
            pool
            for pool in self._bindings.pools.values()
            if pool.subnet == data.pool and not pool.network_id and pool not in taken
        ]
        if not free:
            raise missing_pool_error(data)
        auxiliary = [[key, str(ip).partition("/")[0]] for key, ip in (data.auxiliary or {}).items()]
        return replace(free[-1], gateway=data.gateway.partition("/")[0], auxiliary=auxiliary)

    async def delete_network(self, request: NetworkDeletion) -> dict[str, Any]:
        """Unbind a Docker network."""
        await self._binder.delete(request.network_id)
        return {}

    # --- endpoints ----------------------------------------------------------------------

    async def create_endpoint(self, request: EndpointCreation) -> dict[str, Any]:
        """Store an endpoint with the addresses that Docker has requested before."""
        port_requests(request.options)  # what cannot be published is refused early
        wanted = _port_options(request.options or {})
        with_port_options(EndpointOptions(), wanted)
        network = await self._binder.network(request.network_id)
        given = request.interface
        texts = [] if given is None else [given.address, given.address_ipv6]
        ips = [_ip(text) for text in texts if text]
        if not ips:
            raise UsageError(
                "Docker names no address for the endpoint",
                why="its network has another IPAM driver",
                hint="docker network create -d overlayd --ipam-driver overlayd NAME",
            )
        mac = mac_for(network.vni, ips[0])
        if given is not None and given.mac:
            mac = _mac(given.mac)
        known = self._bindings.endpoints.get(request.endpoint_id)
        if known is None:
            self._bindings.put_endpoint(
                DockerEndpoint(
                    request.endpoint_id,
                    request.network_id,
                    [ip_text(ip) for ip in ips],
                    mac.hex(),
                    wanted,
                )
            )
        supplied = given is not None and given.mac
        return {"Interface": {} if supplied else {"MacAddress": mac_text(mac)}}

    def _require_endpoint(self, network_id: str, endpoint_id: str) -> DockerEndpoint:
        found = self._bindings.endpoints.get(endpoint_id)
        if found is None or found.network_id != network_id:
            raise NotFoundError(
                f"overlayd has no Docker endpoint {endpoint_id[:12]} on this network",
                why="it was deleted, or the host has left its cluster since",
                hint="Start the container again",
            )
        return found

    async def join(self, request: JoinCall) -> dict[str, Any]:
        """Attach a container; return the interface that Docker is to move into it."""
        stored = self._require_endpoint(request.network_id, request.endpoint_id)
        network = await self._binder.network(request.network_id)
        options = EndpointOptions(
            name=PROVISIONAL_NAME_PREFIX + stored.endpoint_id[:12],
            ips=tuple(parse_ip(text) for text in stored.ips),
            mac=Mac(bytes.fromhex(stored.mac)),
            ifname=interface_name(stored.endpoint_id),
            hands_off=True,  # Docker configures the interface
        )
        options = with_port_options(options, stored.options)
        if self._offered.find(stored.endpoint_id) is None:
            descriptor = os.open(_HOST_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
            target = _target(stored.endpoint_id, request.sandbox_key, descriptor)
            with contextlib.closing(target):
                await self._offered.attach(target, network, options)
        self._arrivals.expect(stored.endpoint_id, request.sandbox_key)
        return _joined(network, options.ips, stored.endpoint_id)

    async def publish_ports(self, request: ConnectivityCall) -> dict[str, Any]:
        """Publish a container's ports: its default route is by this network."""
        self._require_endpoint(request.network_id, request.endpoint_id)
        await self._ports.publish(request.endpoint_id, request.options)
        return {}

    async def unpublish_ports(self, request: EndpointCall) -> dict[str, Any]:
        """Unpublish a container's ports: it leaves, or another network has its default route."""
        await self._ports.withdraw(request.endpoint_id)
        return {}

    async def leave(self, request: EndpointCall) -> dict[str, Any]:
        """Detach a container; it is not an error if it is detached already."""
        await self._ports.withdraw(request.endpoint_id)
        await self._offered.detach(request.endpoint_id)
        return {}

    async def delete_endpoint(self, request: EndpointCall) -> dict[str, Any]:
        """Forget an endpoint, detached before if Docker has left that out."""
        await self._ports.withdraw(request.endpoint_id)
        await self._offered.detach(request.endpoint_id)
        self._bindings.drop_endpoint(request.endpoint_id)
        return {}

    async def endpoint_info(self, request: EndpointCall) -> dict[str, Any]:
        """Return what `docker inspect` may show of an endpoint."""
        self._require_endpoint(request.network_id, request.endpoint_id)
        return {"Value": {}}


def missing_pool_error(data: IpamData) -> NotFoundError:
    """Return the error for the pool of a network to create if this host does not have the pool."""
    return NotFoundError(
        f"overlayd has no pool {data.pool[:64]}",
        why="Docker did not request it, or has released it",
        hint="docker network create -d overlayd --ipam-driver overlayd NAME",
    )


def _port_options(options: dict[str, Any]) -> dict[str, str]:
    """Return what `--driver-opt` says of a container's port; raises UsageError.

    Docker passes such options on beside its own, whose names have other prefixes.
    """
    found = {
        key.removeprefix(LABEL_PREFIX): value
        for key, value in options.items()
        if key.startswith(LABEL_PREFIX) and isinstance(value, str)
    }
    require_known(set(found), PORT_OPTIONS, of="driver option")
    return found


def _target(endpoint_id: str, sandbox_key: str, descriptor: int) -> Target:
    """Return the target of a container whose namespace does not exist yet."""
    return Target(
        kind="docker",
        name=PROVISIONAL_NAME_PREFIX + endpoint_id[:12],
        netns_path=sandbox_key,
        pid=None,
        container_id=None,
        text=sandbox_key,
        runtime_endpoint=endpoint_id,
        descriptor=descriptor,
        # No device has number 0: unlike any namespace's, until the container's is known.
        identity=(0, int.from_bytes(blake2s(endpoint_id.encode(), digest_size=6).digest(), "big")),
    )


def _joined(network: Network, ips: tuple[Ip, ...], endpoint_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "InterfaceName": {"SrcName": interface_name(endpoint_id), "DstPrefix": "eth"},
        "DisableGatewayService": True,  # else Docker adds an interface of its own
    }
    for ip in ips if not network.internal else ():
        gateway = next((each.gateway for each in network.subnets if ip in each), None)
        if gateway is not None:
            answer["Gateway" if len(ip) == 4 else "GatewayIPv6"] = ip_text(gateway)
    return answer


def _ip(text: str) -> Ip:
    try:
        return parse_ip(text.partition("/")[0])
    except ValueError as error:
        raise UsageError(f"{text[:64]!r} is not an IP address") from error


def _mac(text: str) -> Mac:
    try:
        return parse_mac(text)
    except ValueError as error:
        raise UsageError(f"{text[:64]!r} is not a MAC address") from error
