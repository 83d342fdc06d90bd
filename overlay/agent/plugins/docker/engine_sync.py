"""Learn from Docker's API what its calls leave out: names, and what it no longer has.

Owns: the event stream and the queries, all outside Docker's calls: Docker would wait for itself.
Does not: bind a network or change an endpoint itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from overlay import limits
from overlay.agent.components import Components
from overlay.agent.endpoints.edit import EndpointEdit
from overlay.agent.plugins.docker.bindings import DockerBindings
from overlay.agent.plugins.docker.container_labels import LabeledContainers
from overlay.agent.plugins.docker.network_binding import NetworkBinder
from overlay.agent.plugins.docker.network_driver import DRIVER, PROVISIONAL_NAME_PREFIX
from overlay.agent.plugins.docker.port_mappings import DockerPortMappings
from overlay.agent.process.lean_aiohttp import aiohttp
from overlay.agent.runtimes.engine_events import event_stream
from overlay.agent.runtimes.engines import DOCKER_SOCKET, query_docker
from overlay.agent.runtimes.targets import resolve_target
from overlay.agent.state.documents import Attachment
from overlay.errors import ConflictError, OverlayError
from overlay.model import fit_name, ip_text, valid_name
from overlay.signals import Signal

_FILTERS = json.dumps(
    {
        "type": ["container", "network"],
        "event": ["create", "start", "rename", "destroy", "connect"],
    }
)


class EngineSync:
    """Follows Docker's events, and compares with its lists at their start and now and then."""

    def __init__(
        self,
        components: Components,
        bindings: DockerBindings,
        binder: NetworkBinder,
        ports: DockerPortMappings,
        labeled: LabeledContainers,
    ) -> None:
        self._ports = ports
        self._labeled = labeled
        self._offered = components.runtime_endpoints
        self._directory = components.directory
        self._reservations = components.reservations
        self._event_log = components.event_log
        self._bindings = bindings
        self._binder = binder
        self._new: dict[str, None] = {}  # containers that were created and never started
        self._called = asyncio.Event()
        self.docker_changed: Signal[[]] = Signal()
        """Docker was started, or removed a network."""
        self._missing: set[str] = set()  # what the last comparison did not find in Docker
        self._refused: dict[str, str] = {}  # by endpoint: why it keeps its provisional name

    def expects_new_container(self) -> bool:
        """Return whether a container that never ran may be the next to start."""
        return bool(self._new)

    async def run(self) -> None:
        """Follow the events until cancelled; reconnect whenever the stream ends."""
        pause_s = limits.RUNTIME_RETRY_FIRST_S
        while True:
            with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError, ValueError):
                async with contextlib.aclosing(event_stream(DOCKER_SOCKET, _FILTERS)) as streams:
                    async for reader in streams:
                        pause_s = limits.RUNTIME_RETRY_FIRST_S
                        await self._follow(reader)
            self._called.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._called.wait(), pause_s)
                pause_s = 0.0
                await asyncio.sleep(limits.RUNTIME_RETRY_FIRST_S)  # it may not serve yet
            pause_s = max(
                min(2 * pause_s, limits.RUNTIME_RETRY_MAX_S), limits.RUNTIME_RETRY_FIRST_S
            )

    def wake(self) -> None:
        """Note that Docker calls, so it runs: reconnect without a further pause."""
        self._called.set()

    async def _follow(self, reader: Any) -> None:
        loop = asyncio.get_running_loop()
        self._missing.clear()
        self.docker_changed.emit()
        due = loop.time()
        while True:
            if loop.time() >= due:
                await self._report_errors(self.compare())
                due = loop.time() + limits.DOCKER_SWEEP_S
            try:
                line = await asyncio.wait_for(reader.readline(), max(0.01, due - loop.time()))
            except TimeoutError:
                continue
            if not line:
                return
            await self._report_errors(self._handle(json.loads(line)))

    async def _report_errors(self, work: Any) -> None:
        try:
            await work
        except (LookupError, TypeError, AttributeError) as error:
            text = f"Docker's answer is not understood: {type(error).__name__}: {error}"
            self._event_log.record("docker", text, level=logging.ERROR)
        except OverlayError as error:
            self._event_log.record("docker", str(error), level=logging.ERROR)

    async def _handle(self, event: dict[str, Any]) -> None:
        actor, action = event["Actor"], event["Action"]
        found, attributes = str(actor["ID"]), actor.get("Attributes") or {}
        match event["Type"], action:
            case "network", "create":
                await self._binder.name(found, str(attributes["name"]))
            case "network", "destroy":
                self.docker_changed.emit()
            case "network", "connect":
                await self._assign(str(attributes["container"]))
            case "container", "create":
                self._new[found] = None
                if len(self._new) > limits.DOCKER_NEW_CONTAINERS_MAX:
                    del self._new[next(iter(self._new))]
            case "container", "start" | "rename":
                self._new.pop(found, None)
                await self._assign(found)
                if action == "start":  # Docker lists the labels among the attributes
                    self._labeled.started(found, attributes)
            case "container", "destroy":
                self._new.pop(found, None)

    # --- names --------------------------------------------------------------------------

    async def _assign(self, container_id: str) -> None:
        """Assign a container's endpoints to it, with its name and aliases."""
        if not self._offered.all():
            return
        path = f"/containers/{quote(container_id, safe='')}/json"
        container = await asyncio.to_thread(query_docker, path)
        if container is None or not container["State"]["Pid"]:
            return
        networks = (container["NetworkSettings"]["Networks"] or {}).values()
        offered = [each for each in networks if self._offered.find(each["EndpointID"])]
        if not offered:
            return
        target = await asyncio.to_thread(resolve_target, f"docker:{container_id}")
        name = fit_name(container["Name"].removeprefix("/"), container_id[:12])
        with contextlib.closing(target):
            for each in offered:
                await self._offered.assign(each["EndpointID"], target)
                await self._rename(each["EndpointID"], name, each.get("Aliases") or [])

    async def _rename(self, endpoint_id: str, name: str, aliases: Iterable[Any]) -> None:
        """Give an endpoint its container's name and aliases, as far as they are free."""
        attachment = self._offered.find(endpoint_id)
        endpoint = None if attachment is None else self._directory.endpoint_of(attachment)
        if endpoint is None:
            return
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

    # --- comparison ---------------------------------------------------------------------

    async def compare(self) -> None:
        """Compare with what Docker has: learn names, and remove what it lacks twice in a row.

        What Docker creates it may not list yet, so one comparison is not enough.
        """
        filters = quote(json.dumps({"driver": [DRIVER]}))
        networks = await asyncio.to_thread(query_docker, f"/networks?filters={filters}")
        running = await asyncio.to_thread(query_docker, "/containers/json")
        for each in networks or []:
            await self._binder.name(str(each["Id"]), str(each["Name"]))
        provisional = {a.runtime_endpoint for a in self._offered.all() if self._is_provisional(a)}
        self._refused = {each: self._refused[each] for each in provisional & {*self._refused}}
        endpoint_ids: set[str] = set()
        for each in running or []:
            ids = {
                str(found["EndpointID"])
                for found in ((each["NetworkSettings"] or {}).get("Networks") or {}).values()
            }
            endpoint_ids |= ids
            if ids & provisional:
                await self._assign(str(each["Id"]))
        await self._sweep({str(each["Id"]) for each in networks or []}, endpoint_ids)
        await self._ports.compare(self._bindings.endpoints)
        self._labeled.found({str(each["Id"]): each["Labels"] or {} for each in running or []})

    def _is_provisional(self, attachment: Attachment) -> bool:
        """Return whether an endpoint's container, or its name, is not known yet."""
        endpoint = self._directory.endpoint_of(attachment)
        if endpoint is None:
            return False
        device, _ = attachment.netns_identity
        return device == 0 or endpoint.name.startswith(PROVISIONAL_NAME_PREFIX)

    async def _sweep(self, network_ids: set[str], endpoint_ids: set[str]) -> None:
        """Remove what Docker did not have at this comparison nor at the one before."""
        bindings = self._bindings
        # After an old state file, attachments of adopted containers have no binding.
        endpoints = {*bindings.endpoints, *(each.runtime_endpoint for each in self._offered.all())}
        absent = {
            *(each for each in bindings.networks if each not in network_ids),
            *(endpoints - endpoint_ids),
            *(pool.pool_id for pool in bindings.pools.values() if not pool.network_id),
        }
        held = {ip for each in bindings.endpoints.values() for ip in each.ips}
        unused = {
            f"{vni}/{ip_text(ip)}": (vni, ip)
            for vni, ip in self._reservations.all()
            if ip_text(ip) not in held
        }
        absent |= unused.keys()
        for each in absent & self._missing:
            if each in endpoints:
                await self._offered.detach(each)
                bindings.drop_endpoint(each)
            elif each in bindings.networks:
                await self._binder.delete(each)
            elif each in unused:
                self._reservations.release(*unused[each])
            else:
                bindings.drop_pool(each)
        self._missing = absent
