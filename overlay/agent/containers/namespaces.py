"""Bare "containers": named network namespaces with their own resolv.conf and hosts.

For labs, teaching and tests: all of a container that a network needs. Owns: the namespaces
made by `container add`, and /etc/netns/NAME, where `ip netns exec` looks for files to show
instead of those of /etc (ip-netns(8)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from overlay import failpoint, limits
from overlay.agent.containers import modes
from overlay.agent.containers.modes import NetworkMode, mode_of, sharers
from overlay.agent.endpoints.attach import EndpointResult
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.endpoints.service import AttachService
from overlay.agent.endpoints.spec import AttachSpec
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import CONTAINERS, StoredContainer
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.kernel import netns
from overlay.kernel.reset import FILES_DIRECTORY, HOST_MARK, remove_files
from overlay.kernel.sandbox import veth
from overlay.model import Endpoint, ip_text

Json = dict[str, Any]
_OPTIONS_DEFAULT = ["timeout:2", "attempts:2"]
_OWN = NetworkMode()
_OWN_HOSTS = ("127.0.0.1 localhost", "::1 localhost")  # at the head of each file of hosts of ours


class Membership(Protocol):
    """What a container needs of the cluster that this host is a member of."""

    @property
    def directory(self) -> Directory:
        """Lookups by name over the records."""

    @property
    def attachments(self) -> Attachments:
        """What is attached on this host."""

    @property
    def attach_service(self) -> AttachService:
        """Attaches and detaches containers."""

    @property
    def detacher(self) -> EndpointDetacher:
        """Takes endpoints away."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A bare container, and what it is attached to: network, endpoint and interface of each."""

    name: str
    netns: str
    mode: NetworkMode
    endpoints: tuple[tuple[str, Endpoint, str], ...]


class ContainerService:
    """The bare containers of this host, made whether or not it is in a cluster."""

    def __init__(
        self,
        state: StateDatabase,
        kernel: KernelThread,
        dns_domain: str,
        membership: Callable[[], Membership | None],
        require_components: Callable[[], Membership],
    ) -> None:
        self._state = state
        self._kernel = kernel
        self._dns_domain = dns_domain
        self._membership = membership  # None while this host is in no cluster
        self._gossip = require_components  # the same; raises ConflictError then

    def stored(self) -> Mapping[str, StoredContainer]:
        """Return the containers made here, by name."""
        return {each.name: each for each in CONTAINERS.load(self._state)}

    async def equip(
        self,
        name: str,
        resolver: Mapping[str, list[str]],
        networks: Sequence[str],
        spec: AttachSpec,
        *,
        wait: bool,
        made: bool,
    ) -> list[EndpointResult]:
        """Give a container its resolver's settings and its networks.

        One that was `made` for this goes again if it can't be attached. Raises OverlayError.
        """
        self._keep(name, {key: words for key, words in resolver.items() if words})
        results: list[EndpointResult] = []
        if networks:
            try:
                service = self._gossip().attach_service
                results = await service.attach(f"netns:{name}", networks, spec, wait=wait)
            except BaseException:
                if made:
                    await self._unmake(name)
                raise
        else:
            await self.point_resolver(name)
        return results

    async def remove(self, name: str) -> None:
        """Remove a container made here; raises NotFoundError, or ConflictError if it is shared."""
        if CONTAINERS.find(self._state, name) is None:
            raise NotFoundError(
                f"there is no container {name!r}",
                why="only those made by 'overlayd container add' are removed by this verb",
                hint="'overlayd container ls' lists them",
            )
        await self._remove(name)

    async def remove_all(self) -> None:
        """Remove every container made here: for `reset`."""
        for container in sorted(self.stored().values(), key=lambda each: mode_of(each).is_own):
            await self._remove(container.name)  # sharers before owners

    async def point_resolver(self, name: str) -> None:
        """Lead a container's names to the networks that it is on now; harmless for any other."""
        components = self._membership()
        name, targets = self._namespace_of(name)
        container = CONTAINERS.find(self._state, name)
        if container is None or components is None or container.host:
            return
        found = [
            endpoint
            for attachment in components.attachments.values()
            if attachment.target in targets
            and (endpoint := components.directory.endpoint_of(attachment)) is not None
        ]
        if not found:
            await asyncio.to_thread(_write_files, name)
            return
        servers = [
            ip_text(subnet.gateway)
            for vni in dict.fromkeys(endpoint.vni for endpoint in found)
            if (network := components.directory.network_by_vni(vni)) is not None
            and has_sandbox(network)
            for subnet in network.subnets
        ]
        hosts = [f"{ip_text(ip)} {endpoint.name}" for endpoint in found for ip in endpoint.ips]
        servers = servers or container.dns_servers
        if not servers:  # nobody of ours to ask: the host's own way
            await asyncio.to_thread(_write_files, name, hosts=hosts)
            return
        lines = [f"nameserver {server}" for server in servers[: limits.DNS_SERVERS_MAX]]
        search = container.dns_search or [self._dns_domain]
        lines.append(f"search {' '.join(search)}")
        lines.append(f"options {' '.join(container.dns_options or _OPTIONS_DEFAULT)}")
        await asyncio.to_thread(_write_names, name, lines, hosts)

    def _keep(self, name: str, changes: Json) -> None:
        """Keep what was asked for the container's resolver, for as long as it exists."""
        container = CONTAINERS.find(self._state, name) or StoredContainer(name)
        if changes:
            CONTAINERS.put(self._state, replace(container, **changes))

    def _namespace_of(self, name: str) -> tuple[str, set[str]]:
        """Return the container whose namespace one is in, and all targets that lead there."""
        containers = self.stored()
        owner = containers[name].shares if name in containers else ""
        owner = owner or name
        return owner, {f"netns:{each}" for each in (owner, *sharers(owner, containers.values()))}

    async def make(self, name: str, mode: NetworkMode, *, named: bool) -> bool:
        """Make a container's namespace; False if it is there already, as asked for.

        Raises ConflictError if the name is another namespace's or the container is of another mode.
        """
        kept = CONTAINERS.find(self._state, name)
        if kept is not None:
            attached = [network for network, _, _ in self.show(name).endpoints]
            modes.require_same(kept, mode, named=named, attached=attached)
            if await self._kernel.call(_stands, name, mode):
                if not (FILES_DIRECTORY / name / "hosts").exists():  # a crash came between
                    await asyncio.to_thread(_write_files, name, mode)
                return False
        elif await self._kernel.call(netns.exists, name):
            raise ConflictError(
                f"a network namespace named {name} exists already",
                why="it was not made by overlayd",
                hint=f"Attach it as it is: overlayd attach netns:{name} --network NETWORK",
            )
        elif await asyncio.to_thread(_is_of_others, FILES_DIRECTORY / name):
            raise ConflictError(
                f"{FILES_DIRECTORY / name} exists already",
                why="it was not made by overlayd: somebody has files for a namespace of that name",
                hint="Choose another name, or move them away",
            )
        CONTAINERS.put(
            self._state,
            replace(kept or StoredContainer(name), host=mode.host, shares=mode.shares),
        )
        try:
            await self._kernel.call(_create, name, mode)
            await asyncio.to_thread(_write_files, name, mode)
        except (OverlayError, OSError):
            if kept is None:
                await self._unmake(name)
            raise
        return True

    async def _unmake(self, name: str) -> None:
        await self._kernel.call(_remove, name)
        await asyncio.to_thread(_remove_files, name)
        CONTAINERS.drop(self._state, name)

    async def _remove(self, name: str) -> None:
        sharing = sharers(name, self.stored().values())
        if sharing:
            raise ConflictError(
                f"the network of {name} is in use",
                why=f"shared by {', '.join(sharing)}",
                hint=f"overlayd container rm {' '.join(sharing)} {name}",
            )
        components = self._membership()
        if components is not None:
            for attachment in list(components.attachments.values()):
                if attachment.target == f"netns:{name}":
                    await components.detacher.remove(attachment)
        await self._unmake(name)

    def show(self, name: str) -> Shown:
        """Return a container made here, and what it is attached to."""
        components = self._membership()
        endpoints: list[tuple[str, Endpoint, str]] = []
        _, targets = self._namespace_of(name)
        if components is not None:
            names = {network.vni: network.name for network in components.directory.networks()}
            for attachment in components.attachments.values():
                found = components.directory.endpoint_of(attachment)
                if attachment.target in targets and found is not None:
                    endpoints.append((names.get(found.vni, ""), found, attachment.ifname))
        return Shown(
            name,
            str(netns.path_of(name)),
            mode_of(CONTAINERS.find(self._state, name) or StoredContainer(name)),
            tuple(endpoints),
        )


def _stands(name: str, mode: NetworkMode) -> bool:
    """Say whether a container's name leads to the namespace that is its, in the kernel thread."""
    return netns.exists(name) if mode.is_own else modes.is_linked(name, mode)


def _create(name: str, mode: NetworkMode) -> None:
    """Make the namespace with loopback up, or name another one, in the kernel thread."""
    if not mode.is_own:
        modes.link_namespace(name, mode)
    elif not netns.exists(name):
        os.close(veth.create_namespace(name))


def _remove(name: str) -> None:
    """Take the namespace away, in the kernel thread."""
    with contextlib.suppress(NotFoundError):
        netns.remove(name)


def _remove_files(name: str) -> None:
    failpoint.failpoint("container.remove-files")
    remove_files(FILES_DIRECTORY / name)
    with contextlib.suppress(OSError):
        FILES_DIRECTORY.rmdir()  # only if nobody else keeps something there


def _is_of_others(directory: Path) -> bool:
    """Say whether files for a namespace are somebody else's, not left by a container of ours."""
    if directory.is_symlink():  # ours lead to the files beside them of who shares his network
        return "/" in os.readlink(directory)  # noqa: PTH115 - as it is written there
    if not directory.is_dir():
        return directory.exists()
    found = {entry.name for entry in directory.iterdir()}
    try:
        hosts = (directory / "hosts").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return bool(found)
    ours = hosts.startswith(("\n".join(_OWN_HOSTS), HOST_MARK))
    return not ours or not found <= {"hosts", "resolv.conf"}


def _write_files(name: str, mode: NetworkMode = _OWN, *, hosts: Sequence[str] = ()) -> None:
    if not mode.is_own:
        modes.write_files(name, mode)
        return
    directory = FILES_DIRECTORY / name
    failpoint.failpoint("container.files")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        source = Path("/etc/resolv.conf")
        text = source.read_text(encoding="utf-8") if source.exists() else ""
        (directory / "resolv.conf").write_text(text, encoding="utf-8")
        _write_hosts(name, hosts)
    except OSError as error:
        raise _not_written(directory, error) from error


def _write_names(name: str, resolver: list[str], hosts: list[str]) -> None:
    """Write both files where they are: running commands have them bound over those of /etc."""
    failpoint.failpoint("container.names")
    directory = FILES_DIRECTORY / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "resolv.conf").write_text("\n".join(resolver) + "\n", encoding="utf-8")
        _write_hosts(name, hosts)
    except OSError as error:
        raise _not_written(directory, error) from error


def _not_written(directory: Path, error: OSError) -> OverlayError:
    return OverlayError(
        f"cannot write {directory}", why=str(error.strerror), hint="Is /etc writable?"
    )


def _write_hosts(name: str, more: Sequence[str]) -> None:
    lines = [*_OWN_HOSTS, *more]
    (FILES_DIRECTORY / name / "hosts").write_text("\n".join(lines) + "\n", encoding="utf-8")
