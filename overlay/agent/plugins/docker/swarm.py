"""Docker's calls for the networks of a swarm: on its managers, and on the hosts of its tasks.

A manager allocates a network and an address for each task, before it is known on which host the
task will run; that host then requests this very address. So such an address is reserved for any
node, and the grant to the task's node follows. Owns: what the calls mean that a swarm's manager
makes, and in which space a pool is. Does not: know the calls of a task's host; they are those of
any Docker network (`ipam_driver`, `network_driver`).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Final

from overlay.agent.components import Components
from overlay.agent.plugins.docker.bindings import DockerBindings
from overlay.agent.plugins.docker.ipam_driver import (
    DockerIpamDriver,
    address_answer,
    address_of,
    asks_for_gateway,
    subnet_index,
)
from overlay.agent.plugins.docker.messages import (
    AddressRequest,
    IpamData,
    NetworkAllocation,
    NetworkCreation,
    NetworkDeletion,
    PoolRequest,
)
from overlay.agent.plugins.docker.network_binding import ALLOCATED, NetworkBinder
from overlay.agent.plugins.docker.network_driver import DockerNetworkDriver, missing_pool_error
from overlay.agent.state.docker_documents import DockerNetwork, DockerPool
from overlay.docker_socket import ADDRESS_SPACE
from overlay.driver_options import NETWORK_OPTION, DriverOptions
from overlay.errors import OverlayError, UsageError
from overlay.model import Ip, Network, ip_text

SWARM_SPACE: Final = "overlayd-swarm"

CAPABILITIES: Final[dict[str, dict[str, Any]]] = {
    "NetworkDriver.GetCapabilities": {"Scope": "global", "ConnectivityScope": "global"},
    "IpamDriver.GetDefaultAddressSpaces": {
        "LocalDefaultAddressSpace": ADDRESS_SPACE,
        "GlobalDefaultAddressSpace": SWARM_SPACE,
    },
}


class SwarmDrivers:
    """Answers the calls of which a swarm's manager makes some and a task's host others."""

    def __init__(
        self,
        components: Components,
        bindings: DockerBindings,
        binder: NetworkBinder,
        ipam: DockerIpamDriver,
        network: DockerNetworkDriver,
    ) -> None:
        self._event_log = components.event_log
        self._allocator = components.ipam.allocator
        self._reservations = components.ipam.reservations
        self._bindings = bindings
        self._binder = binder
        self._ipam = ipam
        self._network = network

    # --- addresses ----------------------------------------------------------------------

    async def request_pool(self, request: PoolRequest) -> dict[str, Any]:
        """Return a pool; a manager's has an id that its next requests, and a successor's, have."""
        if request.address_space != SWARM_SPACE:
            return await self._ipam.request_pool(request)
        answer = await self._ipam.request_pool(request, may_guess=False)
        drafted = self._bindings.require_pool(answer["PoolID"])
        self._bindings.drop_pool(drafted.pool_id)
        pool_id = ALLOCATED + drafted.subnet.translate(str.maketrans(".:/", "---"))
        if pool_id not in self._bindings.pools:
            self._bindings.put_pool(replace(drafted, pool_id=pool_id))
        return {**answer, "PoolID": pool_id}

    async def request_address(self, request: AddressRequest) -> dict[str, Any]:
        """Return an address: a manager's for any node, else as for any Docker network."""
        pool = self._bindings.require_pool(request.pool_id)
        if not _is_allocated(pool) or not pool.network_id or asks_for_gateway(request):
            return await self._ipam.request_address(request)
        network = await self._binder.network(pool.network_id)
        index = subnet_index(network, pool)
        async with self._allocator.lock(network.vni):
            if request.address:
                ip = self._known(network, address_of(request.address))
            else:
                ip = await self._allocator.allocate_on(network, index)
                self._reservations.reserve(network.vni, ip, for_any_node=True)
        return address_answer(ip, str(network.subnets[index]))

    def _known(self, network: Network, ip: Ip) -> Ip:
        """Return the address that a task has, or will be refused by its host.

        Docker repeats these requests wherever a manager starts or takes over.
        """
        if not any(ip in subnet for subnet in network.subnets):
            shown = " ".join(str(subnet) for subnet in network.subnets)
            raise UsageError(
                f"{ip_text(ip)} is not an address of network {network.name}",
                why=f"its subnets are {shown}",
                hint="Choose an address in one of them, or omit --ip",
            )
        if self._allocator.space.fault_of(network, ip) is None:
            self._reservations.reserve(network.vni, ip, for_any_node=True)
        return ip

    # --- networks -----------------------------------------------------------------------

    async def allocate_network(self, request: NetworkAllocation) -> dict[str, Any]:
        """Bind a network that the swarm has created; the answer goes to the hosts of its tasks.

        An error is an event as well: Docker creates the network without a driver then, and prints
        nothing.
        """
        try:
            return await self._allocate_network(request)
        except OverlayError as error:
            text = f"Docker's swarm has a network that cannot be used: {error}"
            self._event_log.record("docker", text, level=logging.ERROR)
            raise

    async def _allocate_network(self, request: NetworkAllocation) -> dict[str, Any]:
        given = request.options or {}
        asked = DriverOptions(given, "Docker")
        network_id = ALLOCATED + request.network_id
        known = self._bindings.networks.get(network_id)
        pools: list[DockerPool] = []
        for data in [*(request.ipv4 or []), *(request.ipv6 or [])]:
            pools.append(self._pool_of(data, network_id, pools))
        pool_names = (pool.network_name for pool in pools)
        name = next(filter(None, (asked.name, *pool_names, known.name if known else "")), "")
        wanted = DockerNetwork(network_id, name, encrypted=asked.encrypted)
        await self._binder.create(wanted, pools)
        bound = self._bindings.networks[network_id]
        return {"Options": {**given, NETWORK_OPTION: bound.name} if bound.vni else given}

    def _pool_of(self, data: IpamData, network_id: str, taken: list[DockerPool]) -> DockerPool:
        """Return the pool that the manager requested for this network."""
        for pool in self._bindings.pools.values():
            is_free = _is_allocated(pool) and pool.network_id in ("", network_id)
            if is_free and pool.subnet == data.pool and pool not in taken:
                # Docker shows this subnet to all hosts: no other one will do.
                return replace(pool, gateway=data.gateway.partition("/")[0], chosen=False)
        raise missing_pool_error(data)

    async def free_network(self, request: NetworkDeletion) -> dict[str, Any]:
        """Unbind a network that the swarm has removed."""
        await self._binder.delete(ALLOCATED + request.network_id)
        return {}

    async def create_network(self, request: NetworkCreation) -> dict[str, Any]:
        """Bind a network of the swarm on the host of a task."""
        return await self._network.create_network(request, of_swarm=True)


def _is_allocated(pool: DockerPool) -> bool:
    return pool.pool_id.startswith(ALLOCATED)
