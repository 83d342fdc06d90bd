"""The plugin's socket: Docker's calls to the drivers, errors to Docker's form.

Owns: when the socket exists, its permissions, the bounds of a call, and the drivers of the current
membership. Does not: know what a call does.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from overlay import limits
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.plugins.docker import messages
from overlay.agent.plugins.docker.arrivals import ContainerArrivals
from overlay.agent.plugins.docker.bindings import DockerBindings
from overlay.agent.plugins.docker.container_labels import LabeledContainers
from overlay.agent.plugins.docker.engine_sync import EngineSync
from overlay.agent.plugins.docker.ipam_driver import DockerIpamDriver
from overlay.agent.plugins.docker.network_binding import NetworkBinder
from overlay.agent.plugins.docker.network_driver import DockerNetworkDriver
from overlay.agent.plugins.docker.network_mirror import DockerNetworkMirror, MirrorRemoval
from overlay.agent.plugins.docker.port_mappings import DockerPortMappings
from overlay.agent.plugins.docker.swarm import CAPABILITIES, SwarmDrivers
from overlay.agent.process import unix_listener
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.lean_aiohttp import web
from overlay.agent.process.tasks import BackgroundTasks, report_defect
from overlay.agent.runtimes.engines import DOCKER_SOCKET
from overlay.docker_socket import CONSTANT_ANSWERS, PLUGIN_DIR, SOCKET_NAME, SWARM_PREFIX
from overlay.errors import ConflictError, OverlayError, UsageError, defect_error

_CONTENT_TYPE: Final = "application/vnd.docker.plugins.v1.2+json"

Call = Callable[[Any], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Drivers:
    """The drivers of one membership."""

    components: Components
    calls: dict[str, tuple[type[Any], Call]]
    swarm_calls: dict[str, tuple[type[Any], Call]]
    sync: EngineSync
    arrivals: ContainerArrivals
    labeled: LabeledContainers
    mirror: DockerNetworkMirror | MirrorRemoval  # the second where `docker_networks` is off

    async def run(self) -> None:
        """Follow Docker and the cluster until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sync.run(), name="docker names")
            group.create_task(self.arrivals.run(), name="docker arrivals")
            group.create_task(self.labeled.run(), name=self.labeled.name)
            group.create_task(self.mirror.run(), name=self.mirror.name)


def make_drivers(components: Components) -> Drivers:
    """Construct the drivers of a membership, with what Docker created before."""
    bindings = DockerBindings(components.gossip.state)
    binder = NetworkBinder(components, bindings)
    ports = DockerPortMappings(
        components.exposure.published_ports, components.runtime_endpoints, components.directory
    )
    labeled = LabeledContainers(components)
    sync = EngineSync(components, bindings, binder, ports, labeled)
    ipam = DockerIpamDriver(components, bindings, binder, sync.expects_new_container)
    arrivals = ContainerArrivals(components.runtime_endpoints)
    network = DockerNetworkDriver(components, bindings, binder, ports, arrivals)
    calls: dict[str, tuple[type[Any], Call]] = {
        "IpamDriver.RequestPool": (messages.PoolRequest, ipam.request_pool),
        "IpamDriver.ReleasePool": (messages.PoolRelease, ipam.release_pool),
        "IpamDriver.RequestAddress": (messages.AddressRequest, ipam.request_address),
        "IpamDriver.ReleaseAddress": (messages.AddressRelease, ipam.release_address),
        "NetworkDriver.CreateNetwork": (messages.NetworkCreation, network.create_network),
        "NetworkDriver.DeleteNetwork": (messages.NetworkDeletion, network.delete_network),
        "NetworkDriver.CreateEndpoint": (messages.EndpointCreation, network.create_endpoint),
        "NetworkDriver.DeleteEndpoint": (messages.EndpointCall, network.delete_endpoint),
        "NetworkDriver.EndpointOperInfo": (messages.EndpointCall, network.endpoint_info),
        "NetworkDriver.Join": (messages.JoinCall, network.join),
        "NetworkDriver.Leave": (messages.EndpointCall, network.leave),
        "NetworkDriver.ProgramExternalConnectivity": (
            messages.ConnectivityCall,
            network.publish_ports,
        ),
        "NetworkDriver.RevokeExternalConnectivity": (
            messages.EndpointCall,
            network.unpublish_ports,
        ),
    }
    swarm = SwarmDrivers(components, bindings, binder, ipam, network)
    swarm_calls: dict[str, tuple[type[Any], Call]] = {
        **calls,
        "IpamDriver.RequestPool": (messages.PoolRequest, swarm.request_pool),
        "IpamDriver.RequestAddress": (messages.AddressRequest, swarm.request_address),
        "NetworkDriver.AllocateNetwork": (messages.NetworkAllocation, swarm.allocate_network),
        "NetworkDriver.FreeNetwork": (messages.NetworkDeletion, swarm.free_network),
        "NetworkDriver.CreateNetwork": (messages.NetworkCreation, swarm.create_network),
    }
    mirror: DockerNetworkMirror | MirrorRemoval = MirrorRemoval(components.event_log)
    if components.config.docker_networks == "auto":
        mirror = DockerNetworkMirror(components, bindings, sync.docker_changed)
    return Drivers(components, calls, swarm_calls, sync, arrivals, labeled, mirror)


class DockerPlugin(Controller):
    """Serves Docker on PLUGIN_DIR/overlayd.sock, where Docker is installed."""

    name = "docker plugin"
    interval_s = 5.0  # until Docker is found to be installed

    def __init__(self, agent: AgentLifecycle, mode: str, plugin_dir: Path = PLUGIN_DIR) -> None:
        super().__init__(agent.event_log)
        self.path = plugin_dir / SOCKET_NAME
        self._agent = agent
        self._mode = mode
        self._drivers: Drivers | None = None
        self._runner: web.AppRunner | None = None
        self._calls_in_progress = 0
        self._tasks = BackgroundTasks(agent.event_log)
        self._syncing: asyncio.Task[None] | None = None
        self._followed: Drivers | None = None  # those that it is for
        self._mirror_removal = MirrorRemoval(agent.event_log)
        self._has_left = False  # the cluster, and networks that were made for it stay in Docker

    def faults(self) -> Iterator[Fault]:
        """Yield what `overlayd status` shows of this plugin and what it does beside calls."""
        yield from super().faults()
        yield from self._mirror_removal.faults()
        if self._followed is not None:
            yield from self._followed.labeled.faults()
            yield from self._followed.mirror.faults()

    # --- the socket ---------------------------------------------------------------------

    def next_interval_s(self) -> float | None:
        """Return how long to wait for Docker; None if switched off, as another agent may serve."""
        return None if self._mode == "off" else self.interval_s

    def start(self) -> None:
        """Serve in the background from now on, if switched on."""
        self._tasks.start(self.run, self.name)

    async def reconcile(self) -> None:
        """Serve if switched on, and follow Docker's events while this host is in a cluster."""
        if self._mode == "off":
            self.path.unlink(missing_ok=True)
            return
        if not self.path.exists():  # something else has removed it, as a purge of Docker does
            await self._stop_listening()
        if self._runner is None and (self._mode == "on" or _has_docker(self.path.parent)):
            await self._listen()
        if self._runner is not None:
            await self._follow_membership()

    async def _listen(self) -> None:
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if await unix_listener.is_served(self.path):
            raise ConflictError(
                f"another agent already serves Docker on {self.path}",
                hint='Docker has one plugin of a name: set docker_plugin = "off" for this agent',
            )
        listener = unix_listener.bind(self.path)
        application = web.Application(client_max_size=limits.DOCKER_BODY_SIZE_MAX)
        application.router.add_route("POST", "/{call}", self._answer)
        application.router.add_route("POST", SWARM_PREFIX + "{call}", self._answer_of_swarm)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, backlog=limits.DOCKER_CALLS_MAX).start()
        self._event_log.record("docker", f"serving Docker's network driver on {self.path}")

    async def _stop_listening(self) -> None:
        """Stop serving; calls in progress may finish within two seconds."""
        runner, self._runner = self._runner, None
        if runner is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(runner.cleanup(), 2.0)

    async def _follow_membership(self) -> None:
        """Have the events of Docker followed for the current membership alone."""
        components = self._agent.components
        drivers = None if components is None else self._require_drivers()
        former = self._followed
        if former is not drivers or (self._syncing is not None and self._syncing.done()):
            await self._end_sync()
        if drivers is not None:
            self._has_left = False
        elif former is not None or self._has_left:
            await self._mirror_removal.attempt()
            self._has_left = self._mirror_removal.fault is not None
        if drivers is not None and self._syncing is None and DOCKER_SOCKET.exists():
            self._followed = drivers
            self._syncing = asyncio.create_task(drivers.run(), name="docker")

    async def _end_sync(self) -> None:
        if self._syncing is not None:
            self._syncing.cancel()
            (ended,) = await asyncio.gather(self._syncing, return_exceptions=True)
            if isinstance(ended, Exception):
                report_defect("defect while following Docker's events", ended)
            self._syncing = self._followed = None

    async def close(self) -> None:
        """Stop serving; the socket's name stays, so that Docker waits for the next agent."""
        await self._tasks.close()
        await self._end_sync()
        await self._stop_listening()

    # --- calls --------------------------------------------------------------------------

    def _require_drivers(self) -> Drivers:
        """Return the drivers of the current membership; raises ConflictError if there is none."""
        components = self._agent.require_components()
        if self._drivers is None or self._drivers.components is not components:
            self._drivers = make_drivers(components)
        return self._drivers

    async def _answer_of_swarm(self, request: web.Request) -> web.Response:
        constant = CAPABILITIES.get(request.match_info["call"])
        return await self._answer(request) if constant is None else _response(constant)

    async def _answer(self, request: web.Request) -> web.Response:
        name = request.match_info["call"]
        if name in CONSTANT_ANSWERS:
            return _response(CONSTANT_ANSWERS[name])
        if self._calls_in_progress >= limits.DOCKER_CALLS_MAX:
            return _failure(
                OverlayError(
                    f"overlayd already serves {self._calls_in_progress} calls of Docker's",
                    why=f"at most {limits.DOCKER_CALLS_MAX} are served at once",
                    hint="Try again",
                )
            )
        self._calls_in_progress += 1
        try:
            async with asyncio.timeout(limits.DOCKER_CALL_TIMEOUT_S):
                return await self._serve(request, name)
        except OverlayError as error:
            return _failure(error)
        except TimeoutError:
            return _failure(
                OverlayError(
                    f"{name} took too long",
                    why=f"a call of Docker's has {limits.DOCKER_CALL_TIMEOUT_S:.0f} s",
                    hint="Try again; 'overlayd status' shows what is wrong with this host",
                )
            )
        except OSError as error:
            reason = error.strerror or str(error)
            return _failure(OverlayError(f"{name} failed", why=reason, hint="overlayd status"))
        except Exception as error:  # noqa: BLE001 - the boundary to Docker
            report_defect(f"defect while answering {name}", error)
            return _failure(defect_error(name, error))
        finally:
            self._calls_in_progress -= 1

    async def _serve(self, request: web.Request, name: str) -> web.Response:
        drivers = self._require_drivers()
        drivers.sync.wake()
        if self._syncing is None:
            self.trigger()
        is_of_swarm = request.path.startswith(SWARM_PREFIX)
        calls = drivers.swarm_calls if is_of_swarm else drivers.calls
        if name not in calls:  # tells Docker that the method does not exist
            error = UsageError(f"overlayd has no method {name[:64]}")
            return _failure(error, status=404)
        kind, call = calls[name]
        content = b""
        try:
            content = await request.read()
            body = msgspec.json.decode(content or b"{}", type=kind)
        except web.HTTPRequestEntityTooLarge:
            why = f"it is larger than {limits.DOCKER_BODY_SIZE_MAX} bytes"
            return _failure(UsageError(f"the body of {name} is invalid", why=why), status=413)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not content:
                return _failure(_repeated_error(name), status=400)
            why = str(error)
            return _failure(UsageError(f"the body of {name} is invalid", why=why), status=400)
        return _response(await call(body))


def _response(document: dict[str, Any], status: int = 200) -> web.Response:
    body = msgspec.json.encode(document)
    return web.Response(body=body, status=status, content_type=_CONTENT_TYPE)


def _failure(error: OverlayError, status: int = 200) -> web.Response:
    """Return an error under both keys: network drivers have `Err`, IPAM drivers `Error`."""
    return _response({"Err": f"overlayd: {error}", "Error": f"overlayd: {error}"}, status)


def _repeated_error(name: str) -> OverlayError:
    """Return the error for a call that Docker repeats: the content that it read is gone then."""
    return OverlayError(
        f"{name} was interrupted",
        why="the agent was restarted meanwhile, and Docker repeats a call without its content",
        hint="Run the command again",
    )


def _has_docker(plugin_dir: Path) -> bool:
    """Return whether Docker is installed: it need not run yet."""
    return plugin_dir.parent.exists() or DOCKER_SOCKET.exists() or bool(shutil.which("dockerd"))
