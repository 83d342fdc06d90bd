"""Attach and detach containers by the names that users give them.

The API's handlers call it, and so will the plugins of container runtimes: none of them resolves a
target or knows the order of an attach.
"""

from __future__ import annotations

import asyncio
import contextlib

from overlay.agent.endpoints.attach import EndpointAttacher, EndpointResult
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.endpoints.restart import Restart
from overlay.agent.endpoints.spec import AttachSpec, DetachSpec
from overlay.agent.runtimes.targets import resolve_target
from overlay.errors import ConflictError, NotFoundError
from overlay.model import Endpoint, Network
from overlay.signals import AsyncSignal


class AttachService:
    """Attaches and detaches containers of this host."""

    def __init__(
        self, attacher: EndpointAttacher, detacher: EndpointDetacher, restart: Restart
    ) -> None:
        self._attacher = attacher
        self._detacher = detacher
        self._restart = restart
        self._directory = attacher.context.node.directory
        self._attachments = attacher.context.attachments
        self.changed: AsyncSignal[[str]] = AsyncSignal()
        """The networks of a container changed; with its name. The verb waits for the handlers."""

    async def attach(self, spec: AttachSpec) -> list[EndpointResult]:
        """Attach a container to all the networks, or to none that it was not attached to before.

        Raises OverlayError.
        """
        target = await asyncio.to_thread(resolve_target, spec.target)
        with contextlib.closing(target):
            named = [self._directory.network(name) for name in spec.networks]
            networks = list({network.vni: network for network in named}.values())
            results = await self._attacher.attach_all(
                target, networks, spec.options, wait=spec.wait
            )
        await self.changed.emit(target.name)
        return results

    async def detach(self, spec: DetachSpec) -> list[tuple[Network, Endpoint]]:
        """Detach a container; return the endpoints that it had. Raises OverlayError."""
        networks = [self._directory.network(name) for name in spec.networks]
        identities = await self._identities(spec.target)
        bare = {
            attachment.target.removeprefix("netns:")
            for attachment in self._attachments.values()
            if attachment.netns_identity in identities
        }
        gone: list[tuple[Network, Endpoint]] = []
        for identity in identities:
            gone += await self._detacher.detach(identity, networks)
        for name in bare:
            await self.changed.emit(name)
        self._restart.forget(spec.target, {network.vni for network in networks})
        return gone

    async def _identities(self, text: str) -> list[tuple[int, int]]:
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
        except NotFoundError:
            return []
        target.close()
        return [target.identity]


def _bare_name(target: str) -> str:
    """Return a target without its kind."""
    return target.partition(":")[2]
