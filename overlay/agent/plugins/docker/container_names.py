"""Names, aliases and resolvers of the containers that Docker connects, from Docker's API.

Docker's calls to the plugin tell none of them. While a container starts, Docker answers no question
about it: not before its first instruction. But Docker tells about a network at any time, also which
container an endpoint belongs to and its name; that is known as soon as the container is connected,
a few tenths of a second before its first instruction. What a container was created with is asked
for when it is created, and remembered until it is removed.

Owns: what is asked when, and the endpoint's change. Does not: follow events (`engine_sync`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from overlay import limits
from overlay.agent.components import Components
from overlay.agent.endpoints.edit import EndpointEdit
from overlay.agent.plugins.docker.link_local import LinkLocalReport, link_local_addresses
from overlay.agent.plugins.docker.network_driver import PROVISIONAL_NAME_PREFIX
from overlay.agent.runtimes.engines import given_resolvers, query_docker
from overlay.agent.runtimes.targets import resolve_target
from overlay.agent.state.documents import Attachment
from overlay.errors import ConflictError, OverlayError
from overlay.model import fit_name, valid_name
from overlay.unix_http import quote


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """The settings of a container that concern its names."""

    resolvers: tuple[str, ...]  # of --dns
    aliases: Mapping[str, tuple[str, ...]]  # by Docker's name of the network

    @classmethod
    def of(cls, container: Mapping[str, Any]) -> ContainerSettings:
        """Return the settings in Docker's description of a container."""
        networks = (container["NetworkSettings"].get("Networks") or {}).items()
        return cls(
            given_resolvers(container),
            {str(name): aliases_of(container, each or {}) for name, each in networks},
        )


def aliases_of(container: Mapping[str, Any], connected: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a container's aliases on a network: the name of its swarm's service is one.

    A label can be the image's; but no image chooses the container's name, which repeats it.
    """
    given = tuple(map(str, connected.get("Aliases") or ()))
    labels = (container.get("Config") or {}).get("Labels") or {}
    service = str(labels.get("com.docker.swarm.service.name", ""))
    name = str(container.get("Name", "")).removeprefix("/")
    is_task = bool(service) and labels.get("com.docker.swarm.task.name") == name
    return (*given, service) if is_task and name.startswith(f"{service}.") else given


class DockerContainerNames:
    """Gives endpoints what Docker tells about their containers."""

    def __init__(self, components: Components) -> None:
        self._offered = components.runtime_endpoints
        self._directory = components.directory
        self._event_log = components.event_log
        self._link_local = LinkLocalReport(components.directory, components.event_log)
        self._settings: dict[str, ContainerSettings] = {}  # by container, the oldest first
        self._namespaces: dict[str, tuple[int, int]] = {}  # of those that run
        self._refused: dict[str, str] = {}  # by endpoint: why it keeps its provisional name

    async def created(self, container_id: str) -> None:
        """Learn what a container was created with, if Docker does not start it already."""
        path = f"/containers/{quote(container_id)}/json"
        wait_s = limits.DOCKER_CREATED_WAIT_S
        with contextlib.suppress(OverlayError):  # its start brings the answer
            container = await asyncio.to_thread(query_docker, path, timeout_s=wait_s)
            if container is not None:
                self._learn(container_id, container)

    def removed(self, container_id: str) -> None:
        """Forget a container."""
        self._settings.pop(container_id, None)
        self._namespaces.pop(container_id, None)

    async def rerouted(self, container_id: str) -> None:
        """Check a container whose Docker networks have changed: its routes lead elsewhere now."""
        await self._offered.recheck(container_id, self._namespaces.get(container_id))

    def _learn(self, container_id: str, container: Mapping[str, Any]) -> ContainerSettings:
        self._settings.pop(container_id, None)
        found = self._settings[container_id] = ContainerSettings.of(container)
        if len(self._settings) > limits.DOCKER_NEW_CONTAINERS_MAX:
            self.removed(next(iter(self._settings)))
        return found

    async def connected(self, network_id: str, container_id: str) -> None:
        """Name the endpoint of a container that was connected to a network, also of one to come."""
        if not self._offered.all():
            return
        path = f"/networks/{quote(network_id)}"
        network = await asyncio.to_thread(query_docker, path) or {}
        found = (network.get("Containers") or {}).get(container_id)
        if found is None or self._offered.find(found["EndpointID"]) is None:
            return
        endpoint_id, name = str(found["EndpointID"]), fit_name(found["Name"], container_id[:12])
        settings = self._settings.get(container_id)
        if settings is None:
            await self._rename(endpoint_id, name, None)
        else:
            await self._rename(endpoint_id, name, settings.aliases.get(str(network["Name"]), ()))
            await self._offered.set_resolvers(endpoint_id, settings.resolvers)
        filters = quote(json.dumps({"id": [container_id]}))
        if await asyncio.to_thread(query_docker, f"/containers/json?filters={filters}"):
            await self.assign(container_id)  # it runs: no start will follow

    async def assign(self, container_id: str) -> None:
        """Assign a running container's endpoints to it, with its name, aliases and resolvers."""
        if not self._offered.all():
            return
        path = f"/containers/{quote(container_id)}/json"
        container = await asyncio.to_thread(query_docker, path)
        if container is None or not container["State"]["Pid"]:
            return
        networks = (container["NetworkSettings"]["Networks"] or {}).values()
        offered = [each for each in networks if self._offered.find(each["EndpointID"])]
        if not offered:
            return
        settings = self._learn(container_id, container)
        target = await asyncio.to_thread(resolve_target, f"docker:{container_id}")
        name = fit_name(container["Name"].removeprefix("/"), container_id[:12])
        self._namespaces[container_id] = target.identity
        with contextlib.closing(target):
            for each in offered:
                await self._offered.assign(each["EndpointID"], target)
                await self._rename(each["EndpointID"], name, aliases_of(container, each))
                await self._offered.set_resolvers(each["EndpointID"], settings.resolvers)
                self._report_link_local(each)

    def _report_link_local(self, connected: Mapping[str, Any]) -> None:
        attachment = self._offered.find(connected["EndpointID"])
        endpoint = None if attachment is None else self._directory.endpoint_of(attachment)
        if attachment is not None and endpoint is not None:
            self._link_local.check(attachment, endpoint, link_local_addresses(connected))

    async def _rename(self, endpoint_id: str, name: str, aliases: Iterable[Any] | None) -> None:
        """Give an endpoint its container's name and aliases, as far as they are free.

        Without `aliases` they stay as they are.
        """
        attachment = self._offered.find(endpoint_id)
        endpoint = None if attachment is None else self._directory.endpoint_of(attachment)
        if endpoint is None:
            return
        kept, gone = endpoint.aliases, endpoint.aliases[:0]
        if aliases is not None:
            wanted = {text.lower(): text for text in map(str, aliases) if valid_name(text)}
            wanted.pop(name.lower(), None)
            kept = tuple(wanted.values())[: limits.ALIAS_COUNT_MAX]
            gone = tuple(each for each in endpoint.aliases if each.lower() not in wanted)
        edit = EndpointEdit(name=name, add_aliases=kept, remove_aliases=gone)
        try:
            await self._offered.rename(endpoint_id, edit)
        except ConflictError as error:
            text = f"{name} stays {endpoint.name} in DNS: {error}"
            if self._refused.get(endpoint_id) != text:  # each comparison tries again
                self._refused[endpoint_id] = text
                self._event_log.record(
                    "docker", text, level=logging.WARNING, endpoint=endpoint.name
                )
            await self._offered.rename(
                endpoint_id, EndpointEdit(add_aliases=kept, remove_aliases=gone)
            )

    def provisional(self) -> set[str]:
        """Return the endpoints whose container, or its name, is not known yet."""
        found = {a.runtime_endpoint for a in self._offered.all() if self._is_provisional(a)}
        self._refused = {each: self._refused[each] for each in found & {*self._refused}}
        self._link_local.retain({each.runtime_endpoint for each in self._offered.all()})
        return found

    def _is_provisional(self, attachment: Attachment) -> bool:
        endpoint = self._directory.endpoint_of(attachment)
        if endpoint is None:
            return False
        is_known = attachment.target.startswith("docker:")
        return not is_known or endpoint.name.startswith(PROVISIONAL_NAME_PREFIX)
