"""Attach containers whose labels ask for it: `docker run --label overlayd.network=blue`.

Such a container may be on any of Docker's networks, or on none. Labels of its image do not count:
who makes an image may not choose a network here. Owns: the labels, and the attach
after each start of a container. Does not: listen to Docker (`engine_sync` reports the starts), or
detach: a container that ends is noticed as any other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from overlay import limits
from overlay.agent.components import Components
from overlay.agent.endpoints.runtimes.port_options import (
    PORT_OPTIONS,
    require_known,
    with_port_options,
)
from overlay.agent.endpoints.spec import AttachSpec, DetachSpec, EndpointOptions
from overlay.agent.process.controller import Controller
from overlay.agent.runtimes.engines import query_docker
from overlay.agent.runtimes.targets import find_container
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from overlay.model import LABEL_PREFIX, parse_ip, parse_mac, valid_name
from overlay.unix_http import quote

NETWORK_LABEL = LABEL_PREFIX + "network"
_KIND = "docker"
_KNOWN = ("network", "ip", "mac", "name", "alias", *PORT_OPTIONS)


class LabeledContainers(Controller):
    """Attaches this host's labeled Docker containers, and retries what fails."""

    name = "labeled containers"
    problem = "a container is not attached as its labels ask"
    recovered = "all containers are attached as their labels ask"
    event_kind = "docker"
    runs_at_start = False
    retry_first_s = 0.2  # the former container of the name may not be withdrawn yet
    retry_max_s = limits.RUNTIME_RETRY_MAX_S

    def __init__(self, components: Components) -> None:
        super().__init__(components.event_log)
        self._attach_service = components.attach_service
        self._attachments = components.attachments
        self._restart = components.endpoints.restart
        self._waiting: dict[str, Mapping[str, str]] = {}  # labels by container id
        self._known: set[str] = set()  # containers that have started while this agent ran

    def started(self, container_id: str, labels: Mapping[str, str]) -> None:
        """Attach a container soon, if it has a label for it: it has started."""
        if NETWORK_LABEL in labels and len(self._waiting) < limits.DOCKER_NEW_CONTAINERS_MAX:
            self._known.add(container_id)
            self._waiting[container_id] = labels
            self.trigger()

    def found(self, running: Mapping[str, Mapping[str, str]]) -> None:
        """Attach the running containers whose start was missed."""
        self._known &= running.keys()
        for container_id, labels in running.items():
            if container_id not in self._known:
                self.started(container_id, labels)

    async def reconcile(self) -> None:
        """Attach all containers that wait for it; one that no longer runs is left alone."""
        failures: list[OverlayError] = []
        for container_id, labels in list(self._waiting.items()):
            try:
                await self._attach(container_id, labels)
            except OverlayError as error:
                name = await self._running_name(container_id)
                if name is not None:
                    error.what = f"{name}: {error.what}"
                    failures.append(error)
                    continue
            if self._waiting.get(container_id) is labels:  # else it has started again meanwhile
                del self._waiting[container_id]
        if failures:
            raise failures[0]

    async def _running_name(self, container_id: str) -> str | None:
        found = await asyncio.to_thread(find_container, _KIND, container_id)
        return None if found is None or found.pid is None else found.name

    async def _attach(self, container_id: str, labels: Mapping[str, str]) -> None:
        own = await asyncio.to_thread(own_labels, container_id, labels)
        if NETWORK_LABEL not in own:
            text = f"label {NETWORK_LABEL} of container {container_id[:12]} is ignored: it is its"
            self._event_log.record("docker", f"{text} image's. Give it by docker run --label")
            return
        spec = attach_spec(f"{_KIND}:{container_id}", own)
        # A container that has ended gets its addresses again, unless its labels name others.
        await self._restart.container_started(_KIND, container_id)
        try:
            await self._attach_service.attach(spec)
        except ConflictError:
            # Its labels may differ from those of the container that had its name.
            if not any(a.container_id == container_id for a in self._attachments.values()):
                raise
            await self._attach_service.detach(DetachSpec(spec.target, spec.networks))
            await self._attach_service.attach(spec)


def own_labels(container_id: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that a container does not have from its image alone.

    Blocks. Raises OverlayError if Docker cannot tell.
    """
    try:
        inherited = _image_labels(container_id)
    except (LookupError, TypeError, AttributeError) as error:  # of another version of Docker
        raise OverlayError(
            "Docker's answer is not understood",
            why=f"{type(error).__name__}: {error}",
            hint=f"Attach it by hand: overlayd attach {container_id[:12]} --network NETWORK",
        ) from error
    return {key: value for key, value in labels.items() if inherited.get(key) != value}


def _image_labels(container_id: str) -> Mapping[str, str]:
    """Return the labels of a container's image; without any, Docker may leave the key out."""
    filters = quote(json.dumps({"id": [container_id]}))
    listed = query_docker(f"/containers/json?filters={filters}")
    image = listed and query_docker(f"/images/{quote(str(listed[0]['ImageID']))}/json")
    if not image:
        raise NotFoundError(
            "Docker does not tell which labels are those of the image",
            why="the container, or its image, is gone",
            hint="Make the container anew",
        )
    found: Mapping[str, str] = (image.get("Config") or {}).get("Labels") or {}
    return found


def attach_spec(target: str, labels: Mapping[str, str]) -> AttachSpec:
    """Return the attach that labels ask for; raises UsageError."""
    own = {
        key.removeprefix(LABEL_PREFIX): value
        for key, value in labels.items()
        if key.startswith(LABEL_PREFIX)
    }
    require_known(set(own), _KNOWN, of="label")
    networks = _words(own["network"])
    alone = [key for key in ("ip", "mac", "name", "alias") if own.get(key)]
    if not networks or (len(networks) > 1 and alone):
        label = NETWORK_LABEL if not networks else LABEL_PREFIX + alone[0]
        raise UsageError(
            f"label {label} needs one network",
            why=f"{NETWORK_LABEL} names {len(networks)}",
            hint=f"Make the container anew with one network in {NETWORK_LABEL}",
        )
    try:
        options = EndpointOptions(
            name=_name(own["name"]) if own.get("name") else None,
            ips=tuple(map(parse_ip, _words(own.get("ip", "")))),
            mac=parse_mac(own["mac"]) if own.get("mac") else None,
            aliases=tuple(map(_name, _words(own.get("alias", "")))),
        )
    except ValueError as error:
        raise UsageError(
            "a label is invalid",
            why=str(error),
            hint="Make the container anew with other labels",
        ) from error
    return AttachSpec(target, networks, with_port_options(options, own), wait=False)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def _name(text: str) -> str:
    if not valid_name(text):
        raise ValueError(f"{text[:64]!r} is not a valid name")
    return text
