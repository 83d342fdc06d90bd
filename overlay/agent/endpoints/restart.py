"""Attach containers again that ended and were started once more, with the same addresses.

A container keeps its id, or its name, from one start to the next, but not its network namespace.
One that is removed and made again under its name, as Compose does, has only the name.
Owns: the endpoints remembered of ended containers, and when they are forgotten: after a detach, or
some time after the runtime said that it does not have the container, unless it is to be kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

from overlay import limits
from overlay.agent.endpoints.attach import EndpointAttacher
from overlay.agent.endpoints.rename import ContainerNames
from overlay.agent.endpoints.spec import EndpointOptions
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.runtimes.engine_events import EngineEvents
from overlay.agent.runtimes.state_polls import StatePolls
from overlay.agent.runtimes.targets import (
    Target,
    endpoint_name,
    find_container,
    is_removed,
    resolve_target,
)
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import RESTART_ALWAYS, Attachment, EndedEndpoint
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.model import Mac, Network
from overlay.signals import AsyncSignal
from overlay.target_kinds import RUNTIME_WORDS

WITH_EVENTS = ("docker", "podman")
_RENAMED_WHILE_RUNNING = ("nerdctl",)  # of those without events


class Restart:
    """The containers of this host that ended and may start again.

    Signal `attached_again`: a container, by name, is attached as it was before it ended.
    """

    def __init__(
        self,
        state: StateDatabase,
        directory: Directory,
        attacher: EndpointAttacher,
        attachments: Attachments,
        names: ContainerNames,
        event_log: EventLog,
    ) -> None:
        self._state = state
        self._directory = directory
        self._attacher = attacher
        self._attachments = attachments
        self._names = names
        self._event_log = event_log
        self._ended = {each.key: each for each in documents.ENDED.load(state)}
        self._gossip = attacher.context.node.gossip
        self._told: dict[str, str] = {}  # the last event of each
        self.attached_again: AsyncSignal[[str]] = AsyncSignal()
        self._lock = asyncio.Lock()
        self.followers: list[EngineEvents | StatePolls] = [
            EngineEvents(kind, self) if kind in WITH_EVENTS else StatePolls(kind, self)
            for kind in RUNTIME_WORDS
        ]

    def needs_events(self, kind: str) -> bool:
        """Return whether containers of a runtime are attached, or ended and may start again."""
        return self._is_attached(kind) or bool(self._of_kind(kind))

    def needs_check(self, kind: str) -> bool:
        """Return whether a runtime's containers may start again, or get a name while they run."""
        renames = kind in _RENAMED_WHILE_RUNNING and self._is_attached(kind)
        return renames or bool(self._of_kind(kind))

    def _is_attached(self, kind: str) -> bool:
        return any(a.target.startswith(f"{kind}:") for a in self._attachments.values())

    # --- remembering --------------------------------------------------------------------

    def can_restart(self, attachment: Attachment) -> bool:
        """Return whether an attachment's container may start again under its id."""
        kind, _, name = attachment.target.partition(":")
        may = attachment.container_id is not None and kind in RUNTIME_WORDS
        may = may or (kind == "netns" and self._is_made_again(name))
        return may and len(self._ended) < limits.ENDPOINTS_PER_NODE_MAX

    def _is_made_again(self, name: str) -> bool:
        """Return whether a start of the agent makes a bare container again."""
        container = documents.CONTAINERS.find(self._state, name)
        return container is not None and container.restart == RESTART_ALWAYS

    def remember(self, ended: EndedEndpoint) -> None:
        """Remember an endpoint whose container ended; it is on disk already."""
        self._ended[ended.key] = ended

    def forget(self, target: str, vnis: set[int]) -> bool:
        """Forget the remembered endpoints of a target, on some networks (none given: on all).

        Returns whether there were any.
        """
        gone = [
            each
            for each in self._ended.values()
            if target in (each.target, each.target.partition(":")[2], each.container_id)
            and (not vnis or each.vni in vnis)
        ]
        self._drop(gone)
        return bool(gone)

    def _drop(self, gone: list[EndedEndpoint]) -> None:
        if not gone:
            return
        self._state.commit(map(documents.ENDED.deletion_of, gone))
        for each in gone:
            self._ended.pop(each.key, None)
            self._told.pop(each.key, None)

    def _note_removed(self, waiting: list[EndedEndpoint]) -> None:
        """Note that the runtime has no such container; forget it if that was some time ago."""
        now_s = time.time()
        limit_s = limits.REMOVED_CONTAINER_KEPT_S
        noted_before = [each for each in waiting if each.removed_s and not each.keep]
        self._drop([e for e in noted_before if not 0 <= now_s - e.removed_s < limit_s])
        noted = [replace(e, removed_s=now_s) for e in waiting if not e.removed_s]
        if noted:
            self._state.commit(map(documents.ENDED.row, noted))
            self._ended.update((each.key, each) for each in noted)

    # --- starting again -----------------------------------------------------------------

    async def stream_opened(self, kind: str) -> None:
        """Do what events were missed for while there was no event stream."""
        await self._names.follow_all(kind)
        await self.attach_remembered(kind)

    async def check(self, kind: str) -> None:
        """Do for a runtime without events what events would bring about."""
        if kind in _RENAMED_WHILE_RUNNING:
            await self._names.follow_all(kind)
        await self.attach_remembered(kind)
        self.quiet(kind)

    async def attach_remembered(self, kind: str) -> bool:
        """Attach the remembered containers of a kind that run; return False if any failed."""
        ids = dict.fromkeys(each.container_id for each in self._of_kind(kind))
        results = [await self.container_started(kind, container_id) for container_id in ids]
        return all(results)

    def _of_kind(self, kind: str) -> list[EndedEndpoint]:
        return [each for each in self._ended.values() if each.target.startswith(f"{kind}:")]

    async def container_started(self, kind: str, container_id: str) -> bool:
        """Attach a container again if it is a remembered one, or has the name of one, and runs.

        Returns False if it should have been attached, and that failed.
        """
        async with self._lock:
            remembered = self._of_kind(kind)
            if not remembered:
                return True
            waiting = [e for e in remembered if e.container_id == container_id]
            try:
                waiting = waiting or await self._made_again(kind, container_id, remembered)
                if not waiting:
                    return True
                target = await asyncio.to_thread(resolve_target, f"{kind}:{container_id}")
            except OverlayError as error:  # it does not run, or its runtime does not answer
                if isinstance(error, NotFoundError):
                    await self._note_not_found(kind, container_id, waiting)
                return True
            with contextlib.closing(target):
                done = [await self._attach(target, each) for each in waiting]
            await self.attached_again.emit(target.name)
            return all(done)

    async def _note_not_found(
        self, kind: str, container_id: str, waiting: list[EndedEndpoint]
    ) -> None:
        """Forget a container that does not come back, or note that its runtime has removed it."""
        if kind not in RUNTIME_WORDS and not self._is_made_again(container_id):
            self._drop(waiting)
        elif await self._is_removed(kind, container_id):
            self._note_removed(waiting)

    async def _is_removed(self, kind: str, container_id: str) -> bool:
        with contextlib.suppress(OverlayError):
            return await asyncio.to_thread(is_removed, kind, container_id)
        return False

    async def _made_again(
        self, kind: str, container_id: str, remembered: list[EndedEndpoint]
    ) -> list[EndedEndpoint]:
        """Return the endpoints of the container that had this one's name and is gone or renamed.

        Raises OverlayError if the runtime cannot tell.
        """
        started = await asyncio.to_thread(find_container, kind, container_id)
        if started is None:
            return []
        found = [each for each in remembered if each.target == f"{kind}:{started.name}"]
        for former in {each.container_id for each in found}:
            same = await asyncio.to_thread(find_container, kind, former)
            if same is not None and (same.pid is not None or same.name == started.name):
                found = [each for each in found if each.container_id != former]
        return found

    async def container_changed(self, kind: str, container_id: str) -> None:
        """Follow a new name, and note the removal of a remembered container.

        One that was made under its name may have started before its end was noticed.
        """
        await self._names.follow(kind, container_id)
        async with self._lock:
            waiting = [e for e in self._of_kind(kind) if e.container_id == container_id]
            if not waiting or not await self._is_removed(kind, container_id):
                return
            self._note_removed(waiting)
        for name in sorted({each.target.partition(":")[2] for each in waiting}):
            with contextlib.suppress(OverlayError):
                found = await asyncio.to_thread(find_container, kind, name)
                if found is not None and found.pid is not None:
                    await self.container_started(kind, found.container_id)

    def quiet(self, kind: str) -> None:
        """Forget the containers that were removed some time ago."""
        self._note_removed([each for each in self._of_kind(kind) if each.removed_s])

    async def _attach(self, target: Target, ended: EndedEndpoint) -> bool:
        """Attach a container to one network; return False if that has to be tried again."""
        network = self._directory.network_by_vni(ended.vni)
        if network is None:
            # Before that, its record may still arrive.
            if self._gossip.node.may_write(self._gossip.transport.now()):
                self._drop([ended])
            return True
        options = EndpointOptions(
            name=_name_now(ended, target),
            ips=ended.ips,
            mac=Mac(bytes.fromhex(ended.mac)),
            ifname=ended.ifname or None,
            default_route=ended.gateway,
            aliases=tuple(ended.aliases),
            labels=tuple((key, value) for key, value in ended.labels),
            gateway_priority=ended.gateway_priority,
            hands_off=ended.hands_off,
            keep=ended.keep,
        )
        try:
            await self._attach_as_before(target, network, options, ended)
        except OverlayError as error:  # such as an address that cannot be had now: tried again
            self._record(ended, network, f"{ended.target}: {error}")
            return False
        self._drop([ended])
        return True

    async def _attach_as_before(
        self, target: Target, network: Network, options: EndpointOptions, ended: EndedEndpoint
    ) -> None:
        """Attach with what the endpoint had, or without what is taken meanwhile."""
        try:
            await self._attacher.attach(target, network, options, wait=False)
        except ConflictError as error:
            other = replace(options, ips=(), mac=None, ifname=None)
            await self._attacher.attach(target, network, other, wait=False)
            self._record(ended, network, f"{ended.target} cannot have {ended.ip} again: {error}")

    def _record(self, ended: EndedEndpoint, network: Network, text: str) -> None:
        """Record an event, unless it is the same as the last one of this endpoint."""
        if self._told.get(ended.key) != text:
            self._told[ended.key] = text
            self._event_log.record("return", text, network=network.name, endpoint=ended.name)


def _name_now(ended: EndedEndpoint, target: Target) -> str:
    """Return the name that an endpoint gets: its container may have been renamed meanwhile.

    A name that was given by hand stays.
    """
    kind, _, former = ended.target.partition(":")
    followed = target.text != ended.target and target.text.startswith(f"{kind}:")
    if followed and ended.name == endpoint_name(kind, former, ended.container_id):
        return target.name
    return ended.name
