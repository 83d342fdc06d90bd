"""Learn from Docker's API what its calls leave out: names, and what it no longer has.

Owns: the event stream and the comparison, outside Docker's calls: Docker would wait for itself.
Does not: bind a network, or name an endpoint (`container_names`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

from overlay import limits
from overlay.agent.components import Components
from overlay.agent.plugins.docker.bindings import DockerBindings
from overlay.agent.plugins.docker.container_labels import LabeledContainers
from overlay.agent.plugins.docker.container_names import DockerContainerNames
from overlay.agent.plugins.docker.network_binding import ALLOCATED, NetworkBinder
from overlay.agent.plugins.docker.port_mappings import DockerPortMappings
from overlay.agent.plugins.docker.swarm_holdings import SwarmHoldings, swarm_holdings
from overlay.agent.process.lean_aiohttp import aiohttp
from overlay.agent.process.tasks import report_defect
from overlay.agent.runtimes.engine_events import event_stream
from overlay.agent.runtimes.engines import DOCKER_SOCKET, query_docker
from overlay.docker_socket import DRIVER, SWARM_DRIVER
from overlay.errors import OverlayError
from overlay.model import ip_text
from overlay.signals import Signal
from overlay.unix_http import quote

_FILTERS = json.dumps(
    {
        "type": ["container", "network"],
        "event": ["create", "start", "rename", "destroy", "connect", "disconnect"],
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
        self._reservations = components.ipam.reservations
        self._event_log = components.event_log
        self._bindings = bindings
        self._binder = binder
        self._new: dict[str, None] = {}  # containers that were created and never started
        self._called = asyncio.Event()
        self.docker_changed: Signal[[]] = Signal()
        """Docker was started, or removed a network."""
        self._missing: set[str] = set()  # what the last comparison did not find in Docker
        self._names = DockerContainerNames(components)
        self._virtual: frozenset[tuple[str, str]] = frozenset()  # services that are warned of

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
                async with asyncio.timeout(pause_s):
                    await self._called.wait()
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
            wait_s = min(limits.RUNTIME_POLL_S, max(0.01, due - loop.time()))
            try:
                async with asyncio.timeout(wait_s):
                    line = await reader.readline()
            except TimeoutError:
                await self._report_errors(self._name_unbound())
                continue
            if not line:
                return
            await self._report_errors(self._handle_line(line))

    async def _report_errors(self, work: Any) -> None:
        try:
            await work
        except (LookupError, TypeError, AttributeError) as error:
            text = f"Docker's answer is not understood: {type(error).__name__}: {error}"
            self._event_log.record("docker", text, level=logging.ERROR)
        except OverlayError as error:
            self._event_log.record("docker", str(error), level=logging.ERROR)
        except (OSError, ValueError):
            raise  # the stream begins anew
        except Exception as error:  # noqa: BLE001 - no answer of Docker's ends the agent
            report_defect("defect while following Docker", error)

    async def _handle_line(self, line: bytes) -> None:
        await self._handle(json.loads(line))

    async def _handle(self, event: dict[str, Any]) -> None:
        actor, action = event["Actor"], event["Action"]
        found, attributes = str(actor["ID"]), actor.get("Attributes") or {}
        match event["Type"], action:
            case "network", "create":
                await self._binder.name(found, str(attributes["name"]))
                if event.get("scope") == "swarm":
                    await self._binder.name(ALLOCATED + found, str(attributes["name"]))
            case "network", "destroy":
                self.docker_changed.emit()
            case "network", "connect":
                await self._names.connected(found, str(attributes["container"]))
                await self._names.rerouted(str(attributes["container"]))
            case "network", "disconnect":
                await self._names.rerouted(str(attributes["container"]))
            case "container", "create":
                self._new[found] = None
                if len(self._new) > limits.DOCKER_NEW_CONTAINERS_MAX:
                    del self._new[next(iter(self._new))]
                await self._names.created(found)
            case "container", "start" | "rename":
                self._new.pop(found, None)
                await self._names.assign(found)
                if action == "start":  # Docker lists the labels among the attributes
                    self._labeled.started(found, attributes)
            case "container", "destroy":
                self._new.pop(found, None)
                self._names.removed(found)

    async def _name_unbound(self) -> None:
        """Bind networks whose name no event has told: a swarm that is new tells some of none."""
        for network_id, network in list(self._bindings.networks.items()):
            if network.vni or network_id in self._binder.failures:
                continue
            path = f"/networks/{quote(network_id.removeprefix(ALLOCATED))}"
            found = await asyncio.to_thread(query_docker, path)
            if found is not None:
                await self._binder.name(network_id, str(found["Name"]))

    # --- comparison ---------------------------------------------------------------------

    async def compare(self) -> None:
        """Compare with what Docker has: learn names, and remove what it lacks twice in a row.

        What Docker creates it may not list yet, so one comparison is not enough.
        """
        filters = quote(json.dumps({"driver": [DRIVER, SWARM_DRIVER]}))
        networks = await asyncio.to_thread(query_docker, f"/networks?filters={filters}")
        running = await asyncio.to_thread(query_docker, "/containers/json")
        swarm = None
        if any(each.startswith(ALLOCATED) for each in self._bindings.networks):
            swarm = await asyncio.to_thread(swarm_holdings)
            self._warn_of_virtual_ips(swarm)
        for each in networks or []:
            for found in (str(each["Id"]), ALLOCATED + str(each["Id"])):
                if found in self._bindings.networks:
                    await self._binder.name(found, str(each["Name"]))
        provisional = self._names.provisional()
        endpoint_ids: set[str] = set()
        for each in running or []:
            ids = {
                str(found["EndpointID"])
                for found in ((each["NetworkSettings"] or {}).get("Networks") or {}).values()
            }
            endpoint_ids |= ids
            if ids & provisional:
                await self._names.assign(str(each["Id"]))
        await self._sweep({str(each["Id"]) for each in networks or []}, endpoint_ids, swarm)
        await self._ports.compare(self._bindings.endpoints)
        self._labeled.found({str(each["Id"]): each["Labels"] or {} for each in running or []})

    def _warn_of_virtual_ips(self, swarm: SwarmHoldings | None) -> None:
        """Record, once for each service, that no host answers at its virtual IP."""
        found = frozenset() if swarm is None else swarm.virtual
        for service, network_id in sorted(found - self._virtual):
            bound = self._bindings.networks.get(ALLOCATED + network_id)
            if bound is None:
                continue
            text = (
                f"the name of service {service} leads nowhere on network {bound.name}: Docker "
                "answers it with a virtual IP, which only networks of its own overlay driver have; "
                f"docker service update --endpoint-mode dnsrr {service}"
            )
            self._event_log.record("docker", text, level=logging.WARNING, network=bound.name)
        self._virtual = found

    async def _sweep(
        self, network_ids: set[str], endpoint_ids: set[str], swarm: SwarmHoldings | None = None
    ) -> None:
        """Remove what Docker did not have at this comparison nor at the one before."""
        bindings = self._bindings
        # After an old state file, attachments of adopted containers have no binding.
        endpoints = {*bindings.endpoints, *(each.runtime_endpoint for each in self._offered.all())}
        absent = {
            *(
                each
                for each in bindings.networks
                if each.removeprefix(ALLOCATED) not in network_ids
            ),
            *(endpoints - endpoint_ids),
            *(pool.pool_id for pool in bindings.pools.values() if not pool.network_id),
        }
        held = {ip for each in bindings.endpoints.values() for ip in each.ips}
        held |= set() if swarm is None else swarm.addresses
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
                if each.startswith(ALLOCATED) and swarm is None:  # another host is manager now
                    bindings.drop_network(each)
                await self._binder.delete(each)
            elif each in unused:
                self._reservations.release(*unused[each])
            else:
                bindings.drop_pool(each)
        self._missing = absent
