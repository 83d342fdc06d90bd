"""The documents about what Docker has created here by its network and IPAM drivers.

Owns: kind, key and JSON of each. Does not: write the file (`database`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

from overlay.agent.state.table import Table, without_empty


@dataclass(frozen=True, slots=True)
class DockerPool:
    """A pool of addresses that Docker asked for: one subnet of a Docker network."""

    pool_id: str
    subnet: str
    chosen: bool  # by overlayd: Docker named none
    ip_range: str = ""
    network_name: str = ""  # of overlayd; empty: not named
    network_id: str = ""  # Docker's; empty: the network is not created yet
    gateway: str = ""
    auxiliary: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DockerNetwork:
    """A Docker network of this host, and the network of the cluster that it is bound to."""

    network_id: str
    name: str  # of overlayd's network; empty: not known yet
    internal: bool = False
    vni: int = 0  # 0: not bound yet
    of_swarm: bool = False  # a manager of Docker's swarm creates and removes it
    freed: bool = False  # removed from the swarm: the cluster's network follows once it is unused
    encrypted: bool = False  # Docker's user asked for that; not stored if not


@dataclass(frozen=True, slots=True)
class DockerEndpoint:
    """An endpoint that Docker has created, joined to a container or not."""

    endpoint_id: str  # Docker's
    network_id: str  # Docker's
    ips: list[str]
    mac: str
    options: dict[str, str] = field(
        default_factory=dict
    )  # of its port, as Docker gave them; not stored if empty


def _encode_docker_network(network: DockerNetwork) -> dict[str, Any]:
    return without_empty(network, "encrypted")


def _encode_docker_endpoint(endpoint: DockerEndpoint) -> dict[str, Any]:
    return without_empty(endpoint, "options")


POOLS: Table[DockerPool] = Table(
    "docker-pool", attrgetter("pool_id"), asdict, lambda _, value: DockerPool(**value)
)
NETWORKS: Table[DockerNetwork] = Table(
    "docker-network",
    attrgetter("network_id"),
    _encode_docker_network,
    lambda _, value: DockerNetwork(**value),
)
ENDPOINTS: Table[DockerEndpoint] = Table(
    "docker-endpoint",
    attrgetter("endpoint_id"),
    _encode_docker_endpoint,
    lambda _, value: DockerEndpoint(**value),
)
