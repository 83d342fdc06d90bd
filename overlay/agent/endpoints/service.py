"""Attach and detach containers by the names that users give them.

The API's handlers call it, and so do the endpoints that plugins of container runtimes ask for: none
of them knows the order of an attach.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import replace
from typing import Protocol

from overlay.agent.endpoints.attach import EndpointAttacher, EndpointResult
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.endpoints.edit import Edited, EditSpec, EndpointEditor
from overlay.agent.endpoints.restart import Restart
from overlay.agent.endpoints.spec import AttachSpec, DetachSpec
from overlay.agent.paths.controller import PathController
from overlay.agent.runtimes.targets import PLUGIN_KINDS, Target, resolve_target
from overlay.core.dataplane.published_port import PortPair
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from overlay.model import Endpoint, Ip, Network
from overlay.signals import AsyncSignal
from overlay.target_kinds import KIND_BY_WORD, RUNTIME_WORDS


class PortPublisher(Protocol):
    """Maps ports of this host to containers."""

    async def publish(
        self, name: str, network_name: str | None, pairs: list[PortPair], host_ip: Ip
    ) -> object:
        """Publish ports of a container, all or none; raises OverlayError."""


class AttachService:
    """Attaches and detaches containers of this host."""

    def __init__(
        self,
        attacher: EndpointAttacher,
        detacher: EndpointDetacher,
        editor: EndpointEditor,
        restart: Restart,
        publisher: PortPublisher,
        paths: PathController,
    ) -> None:
        self._attacher = attacher
        self._editor = editor
        self._publisher = publisher
        self._detacher = detacher
        self._restart = restart
        self._paths = paths
        self._directory = attacher.context.node.directory
        self._attachments = attacher.context.attachments
        self.changed: AsyncSignal[[str]] = AsyncSignal()
        """The networks of a container changed; with its name. The verb waits for the handlers."""

    async def attach(self, spec: AttachSpec) -> list[EndpointResult]:
        """Attach a container to all the networks, and publish its ports.

        If anything fails, it is attached to none that it was not attached to before, and no port
        is published. Raises OverlayError.
        """
        target = await asyncio.to_thread(resolve_target, spec.target)
        with contextlib.closing(target):
            if spec.options.keep and target.kind not in RUNTIME_WORDS:
                raise UsageError(
                    f"{spec.target} cannot be kept",
                    why="only a container runtime makes a container again under its name",
                    hint="A bare container is made again at each start of the agent with "
                    "'container add --restart always'",
                    field="keep",
                )
            return await self.attach_target(target, spec)

    async def attach_target(self, target: Target, spec: AttachSpec) -> list[EndpointResult]:
        """Attach a container whose namespace is open, whatever `spec` calls it."""
        named = [self._directory.network(name) for name in spec.networks]
        networks = list({network.vni: network for network in named}.values())
        peers = self._paths.probe(network.vni for network in networks) if spec.wait else []
        results = await self._attacher.attach_all(target, networks, spec.options, wait=spec.wait)
        try:
            await self._publish(results, spec.ports)
        except BaseException as error:
            await self._attacher.roll_back(results, error)
            raise
        await self.changed.emit(target.name)
        if peers:
            lost, unanswered = await self._paths.probe_outcome(peers)
            results = [
                replace(result, unreachable=lost, unanswered=unanswered) for result in results
            ]
        return results

    async def _publish(self, results: list[EndpointResult], ports: tuple[PortPair, ...]) -> None:
        """Publish ports of a container that is attached, on the first of its networks."""
        if ports:
            first = results[0]
            name, network = first.endpoint.name, first.network.name
            await self._publisher.publish(name, network, list(ports), Ip(b""))

    async def detach(self, spec: DetachSpec) -> list[tuple[Network, Endpoint]]:
        """Detach a container; return the endpoints that it had, none if it was not attached.

        Raises NotFoundError for a container that this host does not have, and other errors of the
        target.
        """
        networks = [self._directory.network(name) for name in spec.networks]
        forgotten = self._restart.forget(spec.target, {network.vni for network in networks})
        try:
            identities = await self._identities(spec.target)
        except OverlayError:
            if not forgotten:
                raise
            identities = []
        bare = self._bare_names(identities)
        gone: list[tuple[Network, Endpoint]] = []
        for identity in identities:
            gone += await self._detacher.detach(identity, networks)
        for name in bare:
            await self.changed.emit(name)
        return gone

    async def edit(self, spec: EditSpec) -> list[Edited]:
        """Change the name, aliases and labels of a container's endpoints.

        Raises NotFoundError for a container that is not attached, ConflictError for a name that
        is taken.
        """
        networks = [self._directory.network(name) for name in spec.networks]
        identities = await self._identities(spec.target)
        attached = {each.vni for i in identities for each in self._attachments.of_target(i)}
        missing = [network.name for network in networks if network.vni not in attached]
        if missing or not attached:
            raise NotFoundError(
                f"{spec.target} is not attached to {', '.join(missing) or 'any network'}",
                hint=f"Attach it: overlayd attach {spec.target} --network NETWORK",
            )
        edited: list[Edited] = []
        for identity in identities:
            edited += await self._editor.edit(identity, networks, spec.edit)
        for name in self._bare_names(identities):
            await self.changed.emit(name)
        return edited

    async def _identities(self, text: str) -> list[tuple[int, int]]:
        """Return the namespaces that a target names: of attached containers, else of others."""
        attached = list(self._attachments.values())
        same = {a.netns_identity for a in attached if a.target == text}
        if same:
            return sorted(same)
        by_name = {a.target: a.netns_identity for a in attached if _bare_name(a.target) == text}
        if len(by_name) > 1:
            known = ", ".join(sorted(by_name))
            raise ConflictError(
                f"{text!r} names {len(by_name)} containers on this host",
                why=f"attached are {known}",
                hint=f"Use one of them, for example {min(by_name)}",
            )
        if by_name:
            return sorted({a.netns_identity for a in attached if a.target in by_name})
        try:
            target = await asyncio.to_thread(resolve_target, text)
        except NotFoundError as error:
            error.why = self._whereabouts(_bare_name(text)) or error.why
            raise
        target.close()
        return [target.identity]

    def _bare_names(self, identities: Collection[tuple[int, int]]) -> set[str]:
        """Return the names of the bare containers, among others, that have these namespaces."""
        return {
            attachment.target.removeprefix("netns:")
            for attachment in self._attachments.values()
            if attachment.netns_identity in identities
        }

    def _whereabouts(self, name: str) -> str:
        """Return where a name is known that no container of this host has, or an empty text."""
        targets = [
            attachment.target
            for attachment in self._attachments.values()
            if (found := self._directory.endpoint_of(attachment)) is not None
            and found.name.lower() == name.lower()
        ]
        if targets:
            return f"the endpoint {name} of this host is the one of {min(targets)}"
        return self._directory.whereabouts(name)


def _bare_name(target: str) -> str:
    """Return a target without its kind."""
    kind, _, name = target.partition(":")
    return name if kind in KIND_BY_WORD or kind in PLUGIN_KINDS else target
