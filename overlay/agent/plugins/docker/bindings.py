"""Docker's pools, networks and endpoints on this host, as documents on disk.

Docker replays nothing after a restart, neither of its own nor of the agent: it names what it has
created before by its ids. Owns: the documents, by id. Does not: know what a network is bound to.
"""

from __future__ import annotations

from dataclasses import replace

from overlay.agent.state import docker_documents
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.docker_documents import DockerEndpoint, DockerNetwork, DockerPool
from overlay.errors import NotFoundError

_RECREATE_HINT = "Create the Docker network anew: docker network rm NAME, docker network create"


class DockerBindings:
    """The pools, networks and endpoints that Docker knows here."""

    def __init__(self, state: StateDatabase) -> None:
        self._state = state
        self.pools = {each.pool_id: each for each in docker_documents.POOLS.load(state)}
        self.networks = {each.network_id: each for each in docker_documents.NETWORKS.load(state)}
        self.endpoints = {each.endpoint_id: each for each in docker_documents.ENDPOINTS.load(state)}

    # --- pools --------------------------------------------------------------------------

    def require_pool(self, pool_id: str) -> DockerPool:
        """Return a pool; raises NotFoundError."""
        found = self.pools.get(pool_id)
        if found is None:
            raise NotFoundError(
                f"there is no address pool {pool_id[:64]!r} on this host",
                why="the host left its cluster since, or the network was made by another driver",
                hint=_RECREATE_HINT,
            )
        return found

    def put_pool(self, pool: DockerPool) -> None:
        """Store a pool."""
        docker_documents.POOLS.put(self._state, pool)
        self.pools[pool.pool_id] = pool

    def drop_pool(self, pool_id: str) -> None:
        """Delete a pool, if it exists."""
        if pool_id in self.pools:
            docker_documents.POOLS.drop(self._state, pool_id)
            del self.pools[pool_id]

    def unbound_pools(self) -> list[DockerPool]:
        """Return the pools that no network has yet."""
        return self.pools_of("")

    def pools_of(self, network_id: str) -> list[DockerPool]:
        """Return the pools of a Docker network."""
        return [pool for pool in self.pools.values() if pool.network_id == network_id]

    # --- networks -----------------------------------------------------------------------

    def require_network(self, network_id: str) -> DockerNetwork:
        """Return a Docker network; raises NotFoundError."""
        found = self.networks.get(network_id)
        if found is None:
            raise NotFoundError(
                f"overlayd has no Docker network {network_id[:12]}",
                why="the host left its cluster since, or the network was removed",
                hint=_RECREATE_HINT,
            )
        return found

    def put_network(self, network: DockerNetwork, pools: list[DockerPool]) -> None:
        """Store a Docker network with its pools, in one transaction."""
        self._state.commit(
            [
                docker_documents.NETWORKS.row(network),
                *map(docker_documents.POOLS.row, pools),
            ]
        )
        self.networks[network.network_id] = network
        self.pools.update((pool.pool_id, pool) for pool in pools)

    def drop_network(self, network_id: str) -> None:
        """Delete a Docker network; its pools stay until Docker releases them."""
        pools = [replace(pool, network_id="") for pool in self.pools_of(network_id)]
        self._state.commit(
            [
                docker_documents.NETWORKS.deletion(network_id),
                *map(docker_documents.POOLS.row, pools),
            ]
        )
        self.networks.pop(network_id, None)
        self.pools.update((pool.pool_id, pool) for pool in pools)

    # --- endpoints ----------------------------------------------------------------------

    def put_endpoint(self, endpoint: DockerEndpoint) -> None:
        """Store an endpoint."""
        docker_documents.ENDPOINTS.put(self._state, endpoint)
        self.endpoints[endpoint.endpoint_id] = endpoint

    def drop_endpoint(self, endpoint_id: str) -> None:
        """Delete an endpoint, if it exists."""
        if endpoint_id in self.endpoints:
            docker_documents.ENDPOINTS.drop(self._state, endpoint_id)
            del self.endpoints[endpoint_id]
