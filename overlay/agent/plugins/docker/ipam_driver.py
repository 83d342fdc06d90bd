"""Docker's IPAM driver: addresses of the cluster's networks, by grants.

Owns: what each call means. Does not: choose an address (`ipam.allocator`) or find the network of a
pool (`network_binding`).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from typing import Any

from overlay import limits
from overlay.agent.components import Components
from overlay.agent.networks.subnets import (
    Range,
    SubnetSpec,
    parse_range,
    subnet_of,
    unique_local_range,
)
from overlay.agent.plugins.docker.bindings import DockerBindings
from overlay.agent.plugins.docker.messages import (
    AddressRelease,
    AddressRequest,
    PoolRelease,
    PoolRequest,
)
from overlay.agent.plugins.docker.network_binding import NetworkBinder
from overlay.agent.state.docker_documents import DockerPool
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.driver_options import NETWORK_OPTION
from overlay.errors import ConflictError, UsageError
from overlay.model import Ip, Network, Subnet, ip_text, parse_ip

_ADDRESS_TYPE = "RequestAddressType"
_GATEWAY_TYPE = "com.docker.network.gateway"


class DockerIpamDriver:
    """Answers Docker's questions for pools and addresses."""

    def __init__(
        self,
        components: Components,
        bindings: DockerBindings,
        binder: NetworkBinder,
        expects_new_container: Callable[[], bool],
    ) -> None:
        self._components = components
        self._directory = components.directory
        self._allocator = components.ipam.allocator
        self._reservations = components.ipam.reservations
        self._bindings = bindings
        self._binder = binder
        self._expects_new_container = expects_new_container

    # --- pools --------------------------------------------------------------------------

    async def request_pool(self, request: PoolRequest, *, may_guess: bool = True) -> dict[str, Any]:
        """Return a pool for a network that Docker is about to create.

        Without `may_guess`, a pool without a subnet is that of no network that was not named.
        """
        name = network_option(request.options)
        pool = DockerPool(
            pool_id=f"overlayd-{os.urandom(8).hex()}",
            subnet=str(parse_range(request.pool)) if request.pool else "",
            chosen=not request.pool,
            ip_range=request.sub_pool,
            network_name=name,
        )
        if not request.pool:
            version = 6 if request.v6 else 4
            candidates = self._candidates(name) if name or may_guess else []
            subnet = await self._choose_subnet(name, candidates, version=version)
            pool = DockerPool(pool.pool_id, str(subnet), chosen=True, network_name=name)
        self._bindings.put_pool(pool)
        return {"PoolID": pool.pool_id, "Pool": pool.subnet, "Data": {}}

    async def _choose_subnet(self, name: str, candidates: list[Network], *, version: int) -> Range:
        """Return the subnet to show for a pool without one.

        It is that of the network with this name, if it exists. Without a name, it is that of the
        cluster's only network that is not in use here yet, because another host has probably
        created it for the same purpose. Otherwise it is a free one. Docker rejects a subnet that
        the host has a route to, unless its user named it, and asks again without end.
        """
        drafts = [parse_range(each.subnet) for each in self._bindings.unbound_pools()]
        if len(drafts) >= limits.DOCKER_POOLS_UNBOUND_MAX:
            raise ConflictError(
                f"Docker has requested {len(drafts)} pools without a network",
                why="it rejects subnets that this host has a route to",
                hint="Choose a subnet: --subnet ADDRESS/LENGTH",
            )
        constraints = await self._components.networks.host_constraints()
        found = [
            subnet.network
            for network in candidates
            for subnet in network.subnets
            if subnet.network.version == version
        ]
        shown = [
            each
            for each in found
            if constraints.overlapping_route(each) is None and each not in drafts
        ]
        if name and found and not shown:
            raise UsageError(
                f"network {name} needs its subnet named",
                why="Docker rejects a subnet that this host has a route to otherwise",
                hint=f"Add --subnet {found[0]}",
            )
        if (name and shown) or len(shown) == 1:
            return shown[0]
        if version == 6:
            return parse_range(unique_local_range(os.urandom(5)))
        return await self._components.networks.free_subnet(drafts)

    def _candidates(self, name: str) -> list[Network]:
        """Return the networks that a pool without a subnet may be for."""
        networks = [each for each in self._directory.networks() if has_sandbox(each)]
        if name:
            return [each for each in networks if each.name.lower() == name.lower()]
        bound = {each.vni for each in self._bindings.networks.values()}
        return [each for each in networks if each.vni not in bound]

    async def release_pool(self, request: PoolRelease) -> dict[str, Any]:
        """Forget a pool; one that is unknown is released already."""
        self._bindings.drop_pool(request.pool_id)
        return {}

    # --- addresses ----------------------------------------------------------------------

    async def request_address(self, request: AddressRequest) -> dict[str, Any]:
        """Return an address: the gateway's without allocating one, else one that is reserved."""
        pool = self._bindings.require_pool(request.pool_id)
        wanted = address_of(request.address) if request.address else None
        if asks_for_gateway(request):
            return address_answer(wanted or self._gateway(pool), pool.subnet)
        if not pool.network_id:  # a network that is not created yet has no containers
            if wanted is None:
                raise UsageError(
                    "the pool has no network yet, so it has no address for a container",
                    hint="Create the network first: docker network create -d overlayd",
                )
            return address_answer(wanted, pool.subnet)  # of --aux-address
        network = await self._binder.network(pool.network_id)
        index = subnet_index(network, pool)
        async with self._allocator.lock(network.vni):
            ip = await self._allocate(network, index, wanted)
            self._reservations.reserve(network.vni, ip)
        return address_answer(ip, str(network.subnets[index]))

    async def _allocate(self, network: Network, index: int, wanted: Ip | None) -> Ip:
        vni = network.vni
        if wanted is not None:
            # A request that Docker repeats finds its own reservation, unless a container has it.
            ips, _ = await self._allocator.allocate(network, (wanted,), is_reserved=True)
            if self._reservations.has(vni, wanted) and self._is_created(wanted):
                raise ConflictError(
                    f"{ip_text(wanted)} is in use",
                    why="another Docker container of this host has it",
                    hint="Choose another address, or omit --ip",
                )
            return ips[0]
        again = None
        if not self._expects_new_container():  # a container that restarts has had one before
            again = self._reservations.last_released(vni, len(network.subnets[index].base))
        if again is not None and again in network.subnets[index]:
            fault = self._allocator.space.fault_of(network, again)
            if fault is None:
                return again
        return await self._allocator.allocate_on(network, index)

    def _is_created(self, ip: Ip) -> bool:
        return any(ip_text(ip) in each.ips for each in self._bindings.endpoints.values())

    async def release_address(self, request: AddressRelease) -> dict[str, Any]:
        """End a reservation; one that does not exist has ended already."""
        pool = self._bindings.pools.get(request.pool_id)
        stored = None if pool is None else self._bindings.networks.get(pool.network_id)
        network = None if stored is None else self._directory.network_by_vni(stored.vni)
        if network is not None and request.address:
            self._reservations.release(network.vni, address_of(request.address))
        return {}

    def _gateway(self, pool: DockerPool) -> Ip:
        """Return the gateway of a pool's subnet: that of the network that has it, if there is one.

        Otherwise it is the one that a new network would have.
        """
        for network in self._directory.networks():
            for subnet in network.subnets:
                if str(subnet) == pool.subnet:
                    return subnet.gateway
        return subnet_of(SubnetSpec(pool.subnet)).gateway


def asks_for_gateway(request: AddressRequest) -> bool:
    """Return whether Docker asks for the address of a gateway."""
    return (request.options or {}).get(_ADDRESS_TYPE) == _GATEWAY_TYPE


def network_option(options: dict[str, Any] | None) -> str:
    """Return the network that options of a pool name, or empty; raises UsageError for unknown ones.

    Docker passes on options of its own, whose names have other prefixes.
    """
    own = {key: value for key, value in (options or {}).items() if key.startswith("overlayd.")}
    unknown = sorted(set(own) - {NETWORK_OPTION})
    if unknown:
        raise UsageError(
            f"unknown option {unknown[0][:64]}",
            why="overlayd knows one option of its IPAM driver",
            hint=f"--ipam-opt {NETWORK_OPTION}=NAME",
        )
    return str(own.get(NETWORK_OPTION, ""))


def subnet_index(network: Network, pool: DockerPool) -> int:
    """Return the subnet of the network that a pool stands for."""
    texts = [str(subnet) for subnet in network.subnets]
    if pool.subnet in texts:
        return texts.index(pool.subnet)
    version = ipaddress.ip_network(pool.subnet).version
    for index, subnet in enumerate(network.subnets):
        if subnet.network.version == version:
            return index
    raise ConflictError(
        f"network {network.name} has no IPv{version} subnet",
        why=f"its subnets are {' '.join(texts)}",
        hint="Create the Docker network anew without --ipv6",
    )


def address_of(text: str) -> Ip:
    """Return an address that Docker sends, with or without a prefix length."""
    try:
        return parse_ip(text.partition("/")[0])
    except ValueError as error:
        raise UsageError(f"{text[:64]!r} is not an IP address") from error


def address_answer(ip: Ip, subnet: Subnet | str) -> dict[str, Any]:
    """Return the answer to a request for an address."""
    length = str(subnet).rpartition("/")[2]
    return {"Address": f"{ip_text(ip)}/{length}", "Data": {}}
