"""Attach containers again that ended and were started once more, with the same address.

A Docker or Podman container keeps its id from one start to the next, but not its network
namespace. Owns: the endpoints remembered of ended containers, and when they are forgotten: after a
detach, or when the runtime no longer has the container.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from overlay import limits
from overlay.agent.endpoints.attach import EndpointAttacher
from overlay.agent.endpoints.spec import EndpointOptions
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.runtimes.engine_events import EngineEvents
from overlay.agent.runtimes.targets import Target, resolve_target
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import Attachment, EndedEndpoint
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.model import Mac, parse_ip

RUNTIMES = ("docker", "podman")


class Restart:
    """The containers of this host that ended and may start again."""

    def __init__(
        self,
        state: StateDatabase,
        directory: Directory,
        attacher: EndpointAttacher,
        attachments: Attachments,
        event_log: EventLog,
    ) -> None:
        self._state = state
        self._directory = directory
        self._attacher = attacher
        self._attachments = attachments
        self._event_log = event_log
        self._ended = {each.key: each for each in documents.ENDED.load(state)}
        self._lock = asyncio.Lock()
        self.followers = [EngineEvents(kind, self) for kind in RUNTIMES]

    def needs_events(self, kind: str) -> bool:
        """Return whether containers of a runtime are attached, or ended and may start again."""
        prefix = f"{kind}:"
        return any(a.target.startswith(prefix) for a in self._attachments.values()) or any(
            each.target.startswith(prefix) for each in self._ended.values()
        )

    # --- remembering --------------------------------------------------------------------

    def can_restart(self, attachment: Attachment) -> bool:
        """Return whether an attachment's container may start again under its id."""
        may = attachment.container_id is not None and attachment.target.startswith(RUNTIMES)
        return may and len(self._ended) < limits.ENDPOINTS_PER_NODE_MAX

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

    # --- starting again -----------------------------------------------------------------

    async def stream_opened(self, kind: str) -> None:
        """Attach the containers that have started while there was no event stream."""
        for container_id in {e.container_id for e in self._ended.values()}:
            if any(
                e.container_id == container_id and e.target.startswith(f"{kind}:")
                for e in self._ended.values()
            ):
                await self.container_started(container_id)

    async def container_started(self, container_id: str) -> None:
        """Attach a container again if it is a remembered one and runs."""
        async with self._lock:
            waiting = [e for e in self._ended.values() if e.container_id == container_id]
            if not waiting:
                return
            kind = waiting[0].target.partition(":")[0]
            try:
                target = await asyncio.to_thread(resolve_target, f"{kind}:{container_id}")
            except NotFoundError:
                self._drop(waiting)  # removed: it will not come back
                return
            except OverlayError:
                return  # it does not run, or its runtime does not answer
            with contextlib.closing(target):
                for each in waiting:
                    await self._attach(target, each)

    async def _attach(self, target: Target, ended: EndedEndpoint) -> None:
        network = self._directory.network_by_vni(ended.vni)
        if network is None:
            self._drop([ended])
            return
        options = EndpointOptions(
            name=ended.name,
            ips=(parse_ip(ended.ip),),
            mac=Mac(bytes.fromhex(ended.mac)),
            ifname=ended.ifname or None,
            default_route=ended.gateway,
            aliases=tuple(ended.aliases),
            labels=tuple((key, value) for key, value in ended.labels),
            gateway_priority=ended.gateway_priority,
        )
        try:
            await self._attacher.attach(target, network, options, wait=False)
        except ConflictError as error:
            await self._attach_with_any_address(target, ended, options, error)
        except OverlayError as error:
            self._event_log.record(
                "return", f"{ended.target}: {error}", network=network.name, endpoint=ended.name
            )
        else:
            self._drop([ended])

    async def _attach_with_any_address(
        self, target: Target, ended: EndedEndpoint, options: EndpointOptions, why: OverlayError
    ) -> None:
        """Attach without the address, MAC and interface name that are taken meanwhile."""
        network = self._directory.network_by_vni(ended.vni)
        assert network is not None, "the caller found it"
        self._event_log.record(
            "return", f"{ended.target} cannot have {ended.ip} again: {why}",
            network=network.name, endpoint=ended.name,
        )  # fmt: skip
        try:
            other = replace(options, ips=(), mac=None, ifname=None)
            await self._attacher.attach(target, network, other, wait=False)
        except OverlayError as error:
            self._event_log.record("return", f"{ended.target}: {error}", network=network.name)
        self._drop([ended])
