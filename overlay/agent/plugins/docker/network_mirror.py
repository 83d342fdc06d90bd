"""Create a Docker network on this host for each network of the cluster (`docker_networks`).

Networks that Docker has created are left to it: their Docker networks are made host by host. Owns:
which networks are shown, under which names, and the removal of those that are gone. Does not: bind
them, for Docker calls the driver, which does.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from overlay import limits
from overlay.agent.components import Components
from overlay.agent.plugins.docker.bindings import DockerBindings
from overlay.agent.plugins.docker.network_binding import MADE_BY_DOCKER
from overlay.agent.process.controller import Controller
from overlay.agent.runtimes.engines import DOCKER_SOCKET, query_docker, request_docker
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.docker_socket import DRIVER, MADE_BY_OVERLAYD, is_made_by_overlayd, users_query
from overlay.driver_options import NETWORK_OPTION
from overlay.errors import ConflictError, OverlayError
from overlay.model import Network, ip_text
from overlay.signals import Signal
from overlay.unix_http import quote


class DockerNetworkMirror(Controller):
    """Has Docker show the cluster's networks on this host."""

    name = "docker networks"
    problem = "Docker on this host does not show all networks"
    interval_s = limits.DOCKER_SWEEP_S
    settle_s = 0.05  # one pass covers a burst of records
    retry_max_s = limits.RUNTIME_RETRY_MAX_S
    recovered = "Docker shows the networks again"
    event_kind = "docker"
    level = "warn"

    def __init__(
        self, components: Components, bindings: DockerBindings, docker_changed: Signal[[]]
    ) -> None:
        super().__init__(components.event_log)
        self._directory = components.directory
        self._gossip = components.gossip
        self._bindings = bindings
        self._is_behind = False  # the last pass came before all records
        components.networks.changed.connect(self.trigger)
        docker_changed.connect(self.trigger)

    def next_interval_s(self) -> float | None:
        """Return the time to the next pass: soon, while records are missing."""
        return limits.RUNTIME_RETRY_FIRST_S if self._is_behind else self.interval_s

    async def reconcile(self) -> None:
        """Remove the Docker networks whose network is gone, then create those that are missing."""
        self._is_behind = not self._gossip.node.caught_up
        if self._is_behind:
            return  # records are missing: nothing may be taken for gone
        wanted = {network.name: network for network in self._directory.networks()}
        wanted = {name: each for name, each in wanted.items() if self._is_shown(each)}
        listed = await asyncio.to_thread(query_docker, "/networks") or []
        present: dict[str, str] = {}
        failures: list[OverlayError] = []
        for each in listed:
            name, network_id = str(each["Name"]), str(each["Id"])
            if is_made_by_overlayd(each) and not self._is_bound(network_id, wanted.get(name)):
                with _collected(failures):
                    await _remove(network_id)
                    continue
            present[name] = network_id
        for name, network in wanted.items():
            if any(network.vni == each.vni for each in self._bindings.networks.values()):
                continue  # also where a user has named its Docker network otherwise
            with _collected(failures):
                if name in present:
                    raise ConflictError(
                        f"Docker has another network {name}",
                        hint=f"docker network rm {name}, or use a Docker network of another name: "
                        f"docker network create -d overlayd -o {NETWORK_OPTION}={name}",
                    )
                await asyncio.to_thread(
                    request_docker, "POST", "/networks/create", docker_network(network)
                )
        if failures:
            raise failures[0]

    def _is_shown(self, network: Network) -> bool:
        if MADE_BY_DOCKER in network.labels or not has_sandbox(network):
            return False
        with contextlib.suppress(OverlayError):
            self._directory.require_participation(network)
            return True
        return False

    def _is_bound(self, network_id: str, network: Network | None) -> bool:
        bound = self._bindings.networks.get(network_id)
        return bound is not None and network is not None and bound.vni == network.vni


def docker_network(network: Network) -> dict[str, Any]:
    """Return the request to Docker for a network of the cluster."""
    option = {NETWORK_OPTION: network.name}
    return {
        "Name": network.name,
        "CheckDuplicate": True,
        "Driver": DRIVER,
        "Internal": network.internal,
        "EnableIPv6": any(len(each.base) == 16 for each in network.subnets),
        "Options": option,
        "Labels": dict([MADE_BY_OVERLAYD]),
        "IPAM": {
            "Driver": DRIVER,
            "Options": option,
            "Config": [
                {"Subnet": str(each), "Gateway": ip_text(each.gateway)} for each in network.subnets
            ],
        },
    }


class MirrorRemoval(Controller):
    """Removes the Docker networks that were made here, once they are no longer wanted.

    That is after this host has left its cluster, and where `docker_networks` was switched off. One
    that containers use stays until they are gone.
    """

    name = "docker networks"
    problem = "Docker on this host still has networks that overlayd made"
    retry_max_s = limits.RUNTIME_RETRY_MAX_S
    recovered = "the networks that overlayd made are gone from Docker"
    event_kind = "docker"
    level = "warn"

    async def reconcile(self) -> None:
        """Remove those that no container uses; raises ConflictError for the others."""
        if not DOCKER_SOCKET.exists():
            return
        failures: list[OverlayError] = []
        for each in await asyncio.to_thread(query_docker, "/networks") or []:
            if is_made_by_overlayd(each):
                with _collected(failures):
                    await _remove_unused(each)
        if failures:
            raise failures[0]


async def _remove_unused(listed: dict[str, Any]) -> None:
    name = str(listed["Name"])
    found = await asyncio.to_thread(query_docker, users_query(listed)) or []
    users = sorted(str(each["Names"][0]).lstrip("/") for each in found)
    if users:
        raise ConflictError(
            f"{name} is used by {', '.join(users)}",
            hint=f"docker network disconnect -f {name} {users[0]}; once no container uses it, "
            "overlayd removes it",
        )
    await _remove(str(listed["Id"]))


async def _remove(network_id: str) -> None:
    await asyncio.to_thread(request_docker, "DELETE", f"/networks/{quote(network_id)}")


@contextlib.contextmanager
def _collected(failures: list[OverlayError]) -> Any:
    """Collect the error of one network: the others go on."""
    try:
        yield
    except OverlayError as error:
        failures.append(error)
