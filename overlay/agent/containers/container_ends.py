"""Keep the containers' ends of their interfaces as an attach made them.

Each is looked at after the kernel has told of a change in its container, and all of them rarely, as
a notification may be lost. Where the kernel tells this process nothing, all are looked at more
often. An attachment made with `--hands-off` is left to the container.

Owns: when they are looked at, and the events. Does not: recreate an interface (`repair`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence, Sized

from overlay import limits
from overlay.agent.containers.container_changes import ContainerChanges
from overlay.agent.endpoints.attach import EndpointAttacher
from overlay.agent.process import tasks
from overlay.agent.process.controller import Controller
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.errors import OverlayError
from overlay.kernel.containers import container_interface
from overlay.kernel.containers.container_interface import (
    CheckedContainer,
    InterfaceDifference,
    WantedInterface,
)


class ContainerEnds(Controller):
    """The interfaces of this host's containers on networks with a sandbox."""

    name = "container interfaces"
    problem = "containers' interfaces are not checked"
    runs_at_start = False

    def __init__(self, attacher: EndpointAttacher) -> None:
        context = attacher.context
        super().__init__(context.node.event_log)
        self._directory = context.node.directory
        self._kernel = context.node.kernel
        self._attachments = context.attachments
        self._default_routes = context.default_routes
        self._subnet_routes = context.subnet_routes
        self._container_changed = context.container_changed
        self._reported: dict[tuple[int, int], list[str]] = {}  # by container: found last time
        self._changes = ContainerChanges(self._kernel, self.trigger)
        self._all_due_at = 0.0  # when all are looked at; times are those of the event loop
        attacher.attached_again.connect(self.ensure)
        context.container_changed.connect(self._follow)

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Have the kernel tell what changes in containers."""
        self._all_due_at = asyncio.get_running_loop().time() + self._rest_s(self._identities())
        async with self._changes.watched():
            yield

    def next_interval_s(self) -> float:
        """Return the time until all are looked at."""
        if not self._changes.are_told:
            return self._rest_s(self._identities())
        return max(0.0, self._all_due_at - asyncio.get_running_loop().time())

    def mark_stale(self) -> None:
        """Have the next pass look at all: what it is told may not be all that has changed."""
        self._all_due_at = 0.0

    async def reconcile(self) -> None:
        """Look at what may have changed, and at all if that is due, or after a pass that failed."""
        try:
            await self._look(await self._taken())
        except BaseException:
            self.mark_stale()
            raise
        self._reported = {at: self._reported[at] for at in self._identities() & {*self._reported}}

    async def _taken(self) -> list[tuple[int, int]]:
        """Return the containers that this pass looks at."""
        now, everybody = asyncio.get_running_loop().time(), self._identities()
        changed = self._changes.taken()
        await self._changes.keep(everybody)
        told = everybody if changed is None else changed & everybody
        told = told | self._changes.unfollowed(everybody)
        self._changes.rest(self._rest_s(told) - limits.CONTAINER_CHANGE_SETTLE_S)
        # The loop wakes up to a tick before what it waits for.
        if changed is not None and now + tasks.TICK_S < self._all_due_at:
            return list(told)
        self._all_due_at = now + limits.CONTAINER_CHECK_INTERVAL_S
        return list(everybody)

    async def _look(self, identities: Sequence[tuple[int, int]]) -> None:
        """Look at many containers in one call, and again at each that lacks something."""
        for at in range(0, len(identities), limits.CONTAINER_CHECKS_AT_ONCE):
            several = identities[at : at + limits.CONTAINER_CHECKS_AT_ONCE]
            await self._changes.follow(self._places(several))  # before it is seen what they are
            suspects = await self._suspects(several)
            for identity in several:
                async with self._attachments.alone_with(identity):
                    if identity in suspects:
                        await self._ensure_or_report(identity)
                    else:
                        await self._container_changed.emit(identity)

    async def _follow(self, identity: tuple[int, int]) -> None:
        """Have a container followed that has been attached."""
        if self._attachments.of_target(identity) and self._changes.unfollowed({identity}):
            self._changes.hasten()

    def _rest_s(self, looked_at: Sized) -> float:
        """Return a time for which looking at these takes a small part of the kernel thread."""
        share = limits.CONTAINER_CHECK_EACH_S * len(looked_at)
        longest = limits.CONTAINER_CHECK_INTERVAL_S
        return min(max(share, limits.CONTAINER_CHECK_INTERVAL_MIN_S), longest)

    async def _suspects(self, identities: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        """Return those of some containers that lack something, did so before, or were not read."""
        checked = [each for each in map(self._to_check, identities) if each is not None]
        found: list[list[InterfaceDifference]] = []
        try:
            while len(found) < len(checked):  # each call reads as many as time allows
                rest = checked[len(found) :]
                found += await self._kernel.call(container_interface.all_differences, rest)
        except (OverlayError, OSError):  # one of them holds up no other
            return {*identities}
        lacking = {each.identity for each, lacks in zip(checked, found, strict=True) if lacks}
        return lacking | (self._reported.keys() & {*identities})

    async def _ensure_or_report(self, identity: tuple[int, int]) -> None:
        try:
            await self.ensure(identity)
        except (OverlayError, OSError) as error:
            self._report(identity, [str(error)], "the agent retries")

    async def ensure(self, identity: tuple[int, int]) -> None:
        """Restore what a container's interfaces lack; called with the container locked."""
        checked = self._to_check(identity)
        found = (
            []
            if checked is None
            else await self._kernel.call(container_interface.restore, *checked)
        )
        if found:
            await self._subnet_routes.ensure(identity)
            await self._default_routes.reconcile(identity)
        await self._container_changed.emit(identity)  # also a route of another network
        self._report(identity, [each.text for each in found], "repaired")

    async def differences(self) -> list[tuple[str, str]]:
        """Return what containers' interfaces lack, as pairs of network name and description.

        A container that cannot be read is said to be one, and holds up no other.
        """
        found: list[tuple[str, str]] = []
        targets = {each.netns_identity: each for each in self._attachments.values()}
        for identity, first in targets.items():
            try:
                found += await self.differences_of(identity)
            except (OverlayError, OSError) as error:
                network = self._directory.network_by_vni(first.vni)
                name = "" if network is None else network.name
                found.append((name, f"{first.target} cannot be read: {error}"))
        return found

    async def differences_of(self, identity: tuple[int, int]) -> list[tuple[str, str]]:
        """Return what one container's interfaces lack, as `differences` does."""
        checked = self._to_check(identity)
        if checked is None:
            return []
        target = self._attachments.of_target(identity)[0].target  # before it may be detached
        lacking = await self._kernel.call(container_interface.differences, *checked)
        return [(each.network, f"{target}: {each.text}") for each in lacking]

    def _identities(self) -> set[tuple[int, int]]:
        return {each.netns_identity for each in self._attachments.values()}

    def _places(self, identities: Sequence[tuple[int, int]]) -> list[tuple[str, tuple[int, int]]]:
        """Return where containers are that have not been detached meanwhile."""
        found = ((each, self._attachments.of_target(each)) for each in identities)
        return [(mine[0].netns_path, identity) for identity, mine in found if mine]

    def _to_check(self, identity: tuple[int, int]) -> CheckedContainer | None:
        """Return a container's interfaces as an attach made them; None if all are left to it."""
        mine = [
            each
            for each in self._attachments.of_target(identity)
            if each.plugged and not each.hands_off and not each.parent
        ]
        wanted = [each for each in map(self._wanted, mine) if each is not None]
        return CheckedContainer(mine[0].netns_path, identity, wanted) if wanted else None

    def _wanted(self, attachment: Attachment) -> WantedInterface | None:
        network = self._directory.network_by_vni(attachment.vni)
        endpoint = self._directory.endpoint_of(attachment)
        if network is None or endpoint is None or not has_sandbox(network):
            return None
        lengths = {
            ip: subnet.prefix_length
            for ip in endpoint.ips
            for subnet in network.subnets
            if ip in subnet
        }
        families = frozenset(len(ip) for ip in lengths) if attachment.gateway else frozenset[int]()
        return WantedInterface(
            network.name, attachment.ifname, endpoint.mac, tuple(lengths.items()), families
        )

    def _report(self, identity: tuple[int, int], texts: list[str], done: str) -> None:
        """Record what was found, once for a container in which it is the same again and again."""
        before = self._reported.pop(identity, [])
        if not texts:
            return
        self._reported[identity] = texts
        mine = self._attachments.of_target(identity)
        if texts != before and mine:
            text = f"in {mine[0].target}: {'; '.join(texts)}: {done} (--hands-off leaves it so)"
            self._event_log.record("repaired", text, level=logging.WARNING)
