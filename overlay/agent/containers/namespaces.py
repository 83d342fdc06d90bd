"""Bare containers: named network namespaces with their own resolv.conf and hosts files.

For labs, teaching and tests: the parts of a container that a network needs.
Owns: the namespaces made by `container add`, from creation to removal.
Does not: know the contents of their files (`etc_files`) or their modes' options (`modes`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from overlay import limits
from overlay.agent.containers import etc_files, modes
from overlay.agent.containers.modes import NetworkMode, mode_of, sharers
from overlay.agent.endpoints.attach import EndpointResult
from overlay.agent.endpoints.endpoint_management import EndpointManagement
from overlay.agent.endpoints.service import AttachService
from overlay.agent.endpoints.spec import AttachSpec
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.resolvers.resolv_conf import host_search, search_list
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import CONTAINERS, RESTART_ALWAYS, StoredContainer
from overlay.agent.state.membership_documents import LOST
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.kernel import netns
from overlay.kernel.container_files import FILES_DIRECTORY
from overlay.kernel.sandbox import veth
from overlay.model import Endpoint, ip_text

_RESOLVER_OPTIONS_DEFAULT = ["timeout:2", "attempts:2"]


class Membership(Protocol):
    """The parts of a cluster membership that bare containers use."""

    @property
    def directory(self) -> Directory:
        """Lookups by name over the records."""

    @property
    def attachments(self) -> Attachments:
        """The attachments on this host."""

    @property
    def attach_service(self) -> AttachService:
        """Attaches and detaches containers."""

    @property
    def endpoints(self) -> EndpointManagement:
        """The management of endpoints on this host."""


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """A bare container and its endpoints."""

    name: str
    netns: str  # the path of its namespace
    mode: NetworkMode
    restart: str  # as it is stored
    endpoints: tuple[tuple[str, Endpoint, str], ...]  # network's name, endpoint, interface's name


class ContainerService:
    """The bare containers of this host, which need not be in a cluster.

    `membership` returns None while this host is in no cluster; `require_components` raises
    ConflictError then.
    """

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
        self._membership = membership
        self._require_membership = require_components

    def stored(self) -> Mapping[str, StoredContainer]:
        """Return the containers of this host, by name."""
        return {each.name: each for each in CONTAINERS.load(self._state)}

    async def restore(self) -> list[str]:
        """Make containers again that ask for it and whose namespace is gone, as after a reboot.

        Forgets others without one. Returns descriptions of both. Their networks follow when the
        loss of their interfaces is noticed. Does nothing while the state is old: it may list
        containers that were removed.
        """
        done: list[str] = []
        if LOST.find(self._state) is not None:
            return done
        for each in sorted(self.stored().values(), key=lambda each: not mode_of(each).is_own):
            mode = mode_of(each)
            try:
                if await self._kernel.call(_exists, each.name, mode):
                    continue
                if each.restart == RESTART_ALWAYS:
                    await self._make(each.name, mode)
                    done.append(f"container {each.name} was gone: it is made again")
                else:
                    await self._delete(each.name)
                    done.append(f"container {each.name} is gone: its namespace does not exist")
            except (OverlayError, OSError) as error:
                done.append(f"container {each.name} is not restored: {error}")
        return done

    async def present(self) -> list[str]:
        """Return the names of the containers whose namespace exists, or that come back."""
        names = []
        for each in self.stored().values():
            exists = await self._kernel.call(_exists, each.name, mode_of(each))
            if exists or each.restart == RESTART_ALWAYS:
                names.append(each.name)
        return names

    async def configure(
        self,
        name: str,
        resolver: Mapping[str, list[str]],
        spec: AttachSpec,
        *,
        created: bool,
    ) -> list[EndpointResult]:
        """Store a container's resolver settings and attach it to networks.

        If the attach fails, a container that was `created` for it is removed. Raises OverlayError.
        """
        self._store_resolver(name, resolver)
        results: list[EndpointResult] = []
        if spec.networks:
            try:
                results = await self._require_membership().attach_service.attach(spec)
            except BaseException:
                if created:
                    await self._delete(name)
                raise
        else:
            await self.point_resolver(name)
        return results

    async def remove(self, name: str) -> None:
        """Remove a container; raises NotFoundError, or ConflictError if its network is shared."""
        if CONTAINERS.find(self._state, name) is None:
            membership = self._membership()
            elsewhere = "" if membership is None else membership.directory.whereabouts(name)
            raise NotFoundError(
                f"there is no container {name!r} on this host",
                why=elsewhere
                or "this command removes only containers made by 'overlayd container add'",
                hint="To list these: overlayd container ls",
            )
        await self._remove(name)

    async def remove_all(self) -> None:
        """Remove every bare container of this host, for `reset`."""
        for container in sorted(self.stored().values(), key=lambda each: mode_of(each).is_own):
            await self._remove(container.name)  # those that share before those that own

    async def point_resolver(self, name: str) -> None:
        """Write a container's files for the networks that it is on now.

        Does nothing for a target that is not a bare container.
        """
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
            await asyncio.to_thread(_write_files, name, NetworkMode())
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
        if not servers:  # no network serves names: use the host's resolvers
            await asyncio.to_thread(etc_files.write, name, None, hosts)
            return
        search = container.dns_search or search_list(self._dns_domain, host_search())
        resolver = [
            *(f"nameserver {server}" for server in servers[: limits.DNS_SERVERS_MAX]),
            f"search {' '.join(search)}",
            f"options {' '.join(container.dns_options or _RESOLVER_OPTIONS_DEFAULT)}",
        ]
        await asyncio.to_thread(etc_files.write, name, resolver, hosts)

    async def refresh_files(self) -> None:
        """Write the files of all containers that are not as they should be."""
        for name, container in self.stored().items():
            mode = mode_of(container)
            if mode.is_own and self._membership() is not None:
                await self.point_resolver(name)
            elif not mode.shares:  # which has a link to the owner's
                await asyncio.to_thread(_write_files, name, mode)

    def _store_resolver(self, name: str, settings: Mapping[str, list[str]]) -> None:
        """Store the resolver settings that are not empty; the others stay as they were."""
        changes: dict[str, Any] = {field: words for field, words in settings.items() if words}
        if changes:
            container = CONTAINERS.find(self._state, name) or StoredContainer(name)
            CONTAINERS.put(self._state, replace(container, **changes))

    def _namespace_of(self, name: str) -> tuple[str, set[str]]:
        """Return the owner of a container's namespace, and all targets that name the namespace."""
        containers = self.stored()
        owner = (containers[name].shares if name in containers else "") or name
        return owner, {f"netns:{each}" for each in (owner, *sharers(owner, containers.values()))}

    async def create(
        self, name: str, mode: NetworkMode, *, named: bool, restart: str | None = None
    ) -> bool:
        """Create a container's namespace; return False if it exists already with this mode.

        Raises ConflictError if another program uses the name, or if the mode is another one.
        """
        stored = CONTAINERS.find(self._state, name)
        if stored is not None:
            attached = [network for network, _, _ in self.status(name).endpoints]
            modes.require_same(stored, mode, named=named, attached=attached)
            if await self._kernel.call(_exists, name, mode):
                if not await asyncio.to_thread(etc_files.exist, name):  # somebody removed them
                    await asyncio.to_thread(_write_files, name, mode)
                if restart is not None and restart != stored.restart:
                    CONTAINERS.put(self._state, replace(stored, restart=restart))
                return False
        elif await self._kernel.call(netns.exists, name):
            raise ConflictError(
                f"network namespace {name} already exists",
                why="overlayd did not create it",
                hint=f"To attach it as it is: overlayd attach netns:{name} --network NETWORK",
            )
        elif await asyncio.to_thread(etc_files.are_foreign, name):
            raise ConflictError(
                f"{FILES_DIRECTORY / name} already exists",
                why="overlayd did not create it: it has another program's files for a namespace "
                "with this name",
                hint="Choose another name, or move the files away",
            )
        CONTAINERS.put(
            self._state,
            replace(
                stored or StoredContainer(name),
                host=mode.host,
                shares=mode.shares,
                restart=restart or "",
            ),
        )
        try:
            await self._make(name, mode)
        except (OverlayError, OSError):
            if stored is None:
                await self._delete(name)
            raise
        return True

    async def _make(self, name: str, mode: NetworkMode) -> None:
        """Write the files, whose mark shows `reset` whose name this is, and then make it."""
        await asyncio.to_thread(_write_files, name, mode)
        await self._kernel.call(_create, name, mode)

    async def _delete(self, name: str) -> None:
        await self._kernel.call(_remove, name)
        await asyncio.to_thread(etc_files.remove, name)
        CONTAINERS.drop(self._state, name)

    async def _remove(self, name: str) -> None:
        sharing = sharers(name, self.stored().values())
        if sharing:
            raise ConflictError(
                f"the network of container {name} is in use",
                why=f"shared by {', '.join(sharing)}",
                hint=f"Remove them all: overlayd container rm {' '.join(sharing)} {name}",
            )
        components = self._membership()
        if components is not None:
            for attachment in list(components.attachments.values()):
                if attachment.target == f"netns:{name}":
                    await components.endpoints.detacher.remove(attachment)
        await self._delete(name)

    def status(self, name: str) -> ContainerStatus:
        """Return a container with its endpoints."""
        components = self._membership()
        endpoints: list[tuple[str, Endpoint, str]] = []
        _, targets = self._namespace_of(name)
        if components is not None:
            names = {network.vni: network.name for network in components.directory.networks()}
            for attachment in components.attachments.values():
                found = components.directory.endpoint_of(attachment)
                if attachment.target in targets and found is not None:
                    endpoints.append((names.get(found.vni, ""), found, attachment.ifname))
        stored = CONTAINERS.find(self._state, name) or StoredContainer(name)
        return ContainerStatus(
            name,
            str(netns.path_of(name)),
            mode_of(stored),
            stored.restart,
            tuple(endpoints),
        )


def _exists(name: str, mode: NetworkMode) -> bool:
    """Return whether a name leads to the namespace of its mode; call in the kernel thread."""
    return netns.exists(name) if mode.is_own else modes.is_linked(name, mode)


def _create(name: str, mode: NetworkMode) -> None:
    """Create the namespace, or name the one that the mode says; call in the kernel thread."""
    if not mode.is_own:
        modes.link_namespace(name, mode)
    elif not netns.exists(name):
        os.close(veth.create_namespace(name))


def _remove(name: str) -> None:
    """Remove the namespace's name, if it exists; call in the kernel thread."""
    with contextlib.suppress(NotFoundError):
        netns.remove(name)


def _write_files(name: str, mode: NetworkMode) -> None:
    if mode.host:
        etc_files.write_of_host(name)
    elif mode.shares:
        etc_files.link(name, mode.shares)
    else:
        etc_files.write(name)
