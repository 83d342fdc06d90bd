"""Bind Docker networks to networks of the cluster.

Docker tells a driver neither the name of a network that it creates nor that of a pool. The name of
the cluster's network comes from `-o overlayd.network=NAME` or `--ipam-opt overlayd.network=NAME`,
else from the subnet, if a network of the cluster has it, else from the engine's events, after the
creation. Owns: that choice, and the creation and removal of the cluster's network.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

from overlay import limits
from overlay.agent.components import Components
from overlay.agent.networks.spec import NetworkSpec
from overlay.agent.networks.subnets import SubnetSpec, parse_range, subnet_of
from overlay.agent.plugins.docker.bindings import DockerBindings
from overlay.agent.state.docker_documents import DockerNetwork, DockerPool
from overlay.core.dataplane.network_drivers import (
    driver_of,
    has_sandbox,
    is_wanted_encrypted,
)
from overlay.driver_options import clear_network_error
from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.model import LABEL_PREFIX, Network, Subnet, valid_name

ALLOCATED = "swarm-"
"""Prefix of a swarm manager's networks and pools: a task's host has others of the same network."""
MADE_BY_DOCKER = (LABEL_PREFIX + "made-by", "docker")
"""On networks that Docker's plugin created: they are removed with their Docker network."""


class NetworkBinder:
    """Finds, creates and removes the cluster's network of each Docker network."""

    def __init__(self, components: Components, bindings: DockerBindings) -> None:
        self._components = components
        self._directory = components.directory
        self._event_log = components.event_log
        self._bindings = bindings
        self._lock = asyncio.Lock()
        self._bound = asyncio.Event()  # set and replaced whenever a network is bound
        self.failures: dict[str, OverlayError] = {}
        """Why a Docker network is not bound, by its id."""
        self._early_names: dict[str, str] = {}  # told before the network was created, by its id

    async def create(self, network: DockerNetwork, pools: list[DockerPool]) -> None:
        """Store a Docker network, bound if the name of the cluster's network is known.

        Raises OverlayError, with nothing stored, if it cannot be bound.
        """
        async with self._lock:
            early = self._early_names.pop(network.network_id, "")
            name = network.name or self._name_by_subnet(pools) or early
            if name:
                network = await self._bind(replace(network, name=name), pools)
            self._bindings.put_network(
                network, [replace(pool, network_id=network.network_id) for pool in pools]
            )
            self._tell_bound()

    async def name(self, network_id: str, name: str) -> None:
        """Bind a Docker network whose name has become known; nothing, if it is bound."""
        async with self._lock:
            network = self._bindings.networks.get(network_id)
            if network is None and network_id.startswith(ALLOCATED):
                self._early_names[network_id] = name
                while len(self._early_names) > limits.DOCKER_EARLY_NAMES_MAX:
                    del self._early_names[next(iter(self._early_names))]
            if network is None or network.vni:
                return
            try:
                await self._bind_stored(replace(network, name=network.name or name))
            except OverlayError as error:
                if network_id not in self.failures:
                    text = f"the Docker network {name} is not bound: {error}"
                    self._event_log.record("network", text, level=logging.ERROR)
                self.failures[network_id] = error

    async def network(self, network_id: str) -> Network:
        """Return the cluster's network of a Docker network; raises OverlayError.

        Waits a moment for one that has just been created. One that was removed meanwhile, with the
        Docker network of another host, is created again.
        """
        stored = self._bindings.require_network(network_id)
        if not stored.vni:
            stored = await self._wait_bound(stored)
        found = self._directory.network_by_vni(stored.vni)
        if found is not None:
            return found
        async with self._lock:
            stored = await self._bind_stored(self._bindings.require_network(network_id))
        found = self._directory.network_by_vni(stored.vni)
        assert found is not None, "it has just been created"
        return found

    async def _wait_bound(self, network: DockerNetwork) -> DockerNetwork:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.DOCKER_NAME_WAIT_S):
                while not network.vni and network.network_id not in self.failures:
                    await self._bound.wait()
                    network = self._bindings.require_network(network.network_id)
        if network.vni:
            return network
        raise self.failures.get(network.network_id) or ConflictError(
            f"the Docker network {network.network_id[:12]} has no network in the cluster yet",
            why="Docker passes no names to drivers, and its events have not named this one yet",
            hint="Try again in a moment, or create it with -o overlayd.network=NAME",
        )

    async def delete(self, network_id: str) -> None:
        """Unbind a Docker network; remove the cluster's, if Docker made it and nothing is on it."""
        async with self._lock:
            stored = self._bindings.networks.get(network_id)
            if stored is None:
                return
            # first: Docker repeats a call that was interrupted
            if stored.of_swarm or await self._is_removed(stored):
                self._bindings.drop_network(network_id)
                self.failures.pop(network_id, None)
            for freed in [each for each in self._bindings.networks.values() if each.freed]:
                if stored.of_swarm and freed.vni == stored.vni and await self._is_removed(freed):
                    self._bindings.drop_network(freed.network_id)

    async def _is_removed(self, stored: DockerNetwork) -> bool:
        """Remove a Docker network's network of the cluster, if it was made for Docker.

        Returns False if a swarm's is in use: its tasks end after it, on any host.
        """
        found = self._directory.network_by_vni(stored.vni) if stored.vni else None
        if found is None or MADE_BY_DOCKER not in found.labels:
            return True
        is_allocated = stored.network_id.startswith(ALLOCATED)
        bound = [each for each in self._bindings.networks.values() if each.vni == stored.vni]
        if any(each != stored and not (is_allocated and each.of_swarm) for each in bound):
            return True
        try:
            await self._components.networks.remove(found.name)
        except OverlayError as error:  # it is in use on another host
            if not stored.freed:
                text = f"the Docker network is gone, network {found.name} stays: {error}"
                self._event_log.record("network", text)
            if is_allocated and not stored.freed:
                self._bindings.put_network(replace(stored, freed=True), [])
            return not is_allocated
        return True

    # --- binding ------------------------------------------------------------------------

    async def _bind_stored(self, network: DockerNetwork) -> DockerNetwork:
        pools = self._bindings.pools_of(network.network_id)
        network = await self._bind(network, pools)
        self._bindings.put_network(network, pools)
        self.failures.pop(network.network_id, None)
        self._tell_bound()
        return network

    def _tell_bound(self) -> None:
        self._bound.set()
        self._bound = asyncio.Event()

    async def _bind(self, network: DockerNetwork, pools: list[DockerPool]) -> DockerNetwork:
        """Return a Docker network bound to the cluster's network of its name."""
        if not valid_name(network.name):
            raise UsageError(
                f"{network.name[:64]!r} is not a valid network name",
                why="a network's name is part of its containers' names in DNS",
                hint="Choose the name in the cluster: -o overlayd.network=NAME",
            )
        found = self._directory.find_network(network.name)
        if found is None and network.of_swarm:
            raise ConflictError(
                f"network {network.name} of the swarm is not in this host's cluster",
                why="a manager of the swarm creates it, in the cluster of its own host",
                hint="All hosts of the swarm must be members of one cluster: overlayd members",
            )
        if found is None:
            found = await self._create(network, pools)
        else:
            self._directory.require_participation(found)
            _require_match(found, network, pools)
        return replace(network, name=found.name, vni=found.vni)

    async def _create(self, network: DockerNetwork, pools: list[DockerPool]) -> Network:
        subnets = [
            SubnetSpec(
                pool.subnet,
                pool.gateway or None,
                pool.ip_range or None,
                tuple((name, ip) for name, ip in pool.auxiliary),
            )
            for pool in pools
            if not (pool.chosen and self._overlaps_another(pool))
        ]
        spec = NetworkSpec(
            network.name,
            subnets,
            internal=network.internal,
            labels=(MADE_BY_DOCKER,),
            encrypted=network.encrypted,
        )
        made, _ = await self._components.networks.create(spec)
        self._event_log.record(
            "network", f"Docker created it: {made.subnets[0]}", network=made.name
        )
        return made

    def _overlaps_another(self, pool: DockerPool) -> bool:
        """Return whether the subnet that was chosen for a pool is another network's by now."""
        wanted = parse_range(pool.subnet)
        taken = (each for network in self._directory.networks() for each in network.subnets)
        return any(wanted.overlaps(each.network) for each in taken)

    def _name_by_subnet(self, pools: list[DockerPool]) -> str:
        """Return the name of the network that has exactly the subnets that Docker named, if any."""
        asked = {pool.subnet for pool in pools if not pool.chosen}
        for network in self._directory.networks() if asked else ():
            if asked <= {str(subnet) for subnet in network.subnets} and has_sandbox(network):
                return network.name
        return ""


def _require_match(found: Network, network: DockerNetwork, pools: list[DockerPool]) -> None:
    """Raise ConflictError if the cluster's network is not what Docker asked for."""
    if not has_sandbox(found):
        raise ConflictError(
            f"network {found.name} cannot be a Docker network",
            why=f"it uses driver {driver_of(found)}: its containers are on an existing segment",
            hint=f"Use Docker's own driver: docker network create -d {driver_of(found)}",
        )
    subnets = {str(subnet): subnet for subnet in found.subnets}
    for pool in (each for each in pools if not each.chosen):
        has = subnets.get(pool.subnet)
        if has is None or not _is_same(has, pool):
            raise ConflictError(
                f"network {found.name} exists with other subnets",
                why=f"Docker asks for {pool.subnet}; {found.name} has {' '.join(subnets)}",
                hint="Leave --subnet, --gateway, --ip-range and --aux-address out, or repeat those "
                f"of 'overlayd network inspect {found.name}'",
            )
    if network.internal and not found.internal:
        raise ConflictError(
            f"network {found.name} exists and is not internal",
            hint="Leave --internal out, or choose another network: -o overlayd.network=NAME",
        )
    if network.encrypted and not is_wanted_encrypted(found):
        raise clear_network_error(found.name)


def _is_same(subnet: Subnet, pool: DockerPool) -> bool:
    wanted = subnet_of(SubnetSpec(pool.subnet, pool.gateway or None, pool.ip_range or None))
    return wanted.gateway == subnet.gateway and wanted.ip_range in (None, subnet.ip_range)
