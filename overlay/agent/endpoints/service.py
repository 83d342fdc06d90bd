"""Attach and detach a container by what its user calls it: what every entrance has in common.

The API's handlers call it, and so does whatever else plugs containers in: none of them resolves a
target or knows the order of an attach.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from overlay.agent.endpoints.attach import EndpointAttacher, EndpointResult
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.endpoints.restart import Restart
from overlay.agent.endpoints.spec import AttachSpec
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.process.signals import AsyncSignal
from overlay.agent.records.directory import Directory
from overlay.agent.runtimes.targets import resolve_target
from overlay.agent.state.attachments import Attachments
from overlay.errors import ConflictError, NotFoundError
from overlay.model import Endpoint, Network


class AttachService:
    """Attaches and detaches containers of this host."""

    def __init__(
        self,
        directory: Directory,
        attacher: EndpointAttacher,
        detacher: EndpointDetacher,
        restart: Restart,
        attachments: Attachments,
        kernel: KernelThread,
    ) -> None:
        self._directory = directory
        self._attacher = attacher
        self._detacher = detacher
        self._restart = restart
        self._attachments = attachments
        self._kernel = kernel
        self.changed: AsyncSignal[[str]] = AsyncSignal()
        """The networks of a container changed; with its name. Over before the verb answers."""

    async def attach(
        self, text: str, names: Sequence[str], wish: AttachSpec, *, wait: bool
    ) -> list[EndpointResult]:
        """Attach a target to some networks: to all of them, or to none that it was not on before.

        With `wait`, until the live hosts have confirmed. Raises OverlayError.
        """
        target = await asyncio.to_thread(resolve_target, text)
        chosen = [self._directory.network(name) for name in dict.fromkeys(names)]
        results = await self._attacher.attach_all(target, chosen, wish, wait=wait)
        await self.changed.emit(target.name)
        return results

    async def detach(self, text: str, names: Sequence[str]) -> list[tuple[Network, Endpoint]]:
        """Detach a target, also one that is gone, from some networks (none: from all).

        Returns from what it was detached. Raises OverlayError.
        """
        chosen = [self._directory.network(name) for name in names]
        identities = await self._identities(text)
        bare = {
            attachment.target.removeprefix("netns:")
            for attachment in self._attachments.values()
            if attachment.netns_identity in identities
        }
        gone: list[tuple[Network, Endpoint]] = []
        for identity in identities:
            gone += await self._detacher.detach(identity, chosen)
        for name in bare:
            await self.changed.emit(name)
        self._restart.forget(text, {network.vni for network in chosen})
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
                hint=f"Say which, for example {min(by_name)}",
            )
        if by_name:
            return sorted({a.netns_identity for a in attached if a.target in by_name})
        try:
            target = await asyncio.to_thread(resolve_target, text)
        except NotFoundError:
            return []
        return [await self._kernel.call(_identity_of, target.netns_path)]


def _bare_name(target: str) -> str:
    """Return what a target is called without its kind."""
    return target.partition(":")[2]


def _identity_of(path: str) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116 - /proc paths are magic links
    return (found.st_dev, found.st_ino)
