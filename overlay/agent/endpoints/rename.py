"""Follow the names of attached Docker and Podman containers.

Owns: what follows a new name: the target that verbs and lists show, and the endpoint's name, unless
that was given by hand. Does not: notice a new name (`runtimes.engine_events`).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from overlay.agent.endpoints.edit import EndpointEdit, EndpointEditor
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.runtimes.targets import endpoint_name, find_container
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import Attachment
from overlay.errors import OverlayError


class ContainerNames:
    """The names of this host's attached containers, as their runtimes have them."""

    def __init__(
        self,
        state: StateDatabase,
        directory: Directory,
        attachments: Attachments,
        editor: EndpointEditor,
        event_log: EventLog,
    ) -> None:
        self._state = state
        self._directory = directory
        self._attachments = attachments
        self._editor = editor
        self._event_log = event_log

    async def follow_all(self, kind: str) -> None:
        """Follow the names of all attached containers of a runtime."""
        attached = [a for a in self._attachments.values() if a.target.startswith(f"{kind}:")]
        for container_id in dict.fromkeys(a.container_id for a in attached):
            if container_id is not None:
                await self.follow(kind, container_id)

    async def follow(self, kind: str, container_id: str) -> None:
        """Follow the name of a container, if it is attached, and runs, and its runtime answers.

        One that has ended keeps the name it ran under, also where its end is not noticed yet:
        another one may be made under that name.
        """
        attached = [a for a in self._attachments.values() if a.container_id == container_id]
        if not attached:
            return
        try:
            found = await asyncio.to_thread(find_container, kind, container_id)
        except OverlayError:
            return
        if found is None or found.pid is None:
            return
        for attachment in attached:
            if attachment.target != f"{kind}:{found.name}":
                await self._rename(attachment, f"{kind}:{found.name}")

    async def _rename(self, attachment: Attachment, target: str) -> None:
        """Rename the endpoint, then the target: a kill in between is made good by the next call."""
        network = self._directory.network_by_vni(attachment.vni)
        endpoint = self._directory.endpoint_of(attachment)
        name = _endpoint_name(attachment, target)
        try:
            if (
                network is not None
                and endpoint is not None
                and (endpoint.name == _endpoint_name(attachment, attachment.target))
            ):
                edit = EndpointEdit(name=name)
                await self._editor.edit(attachment.netns_identity, [network], edit)
            key = bytes.fromhex(attachment.endpoint_id)
            if key in self._attachments:
                renamed = replace(self._attachments[key], target=target)
                documents.ATTACHMENTS.put(self._state, renamed)
                self._attachments[key] = renamed
        except OverlayError as error:
            text = f"{attachment.target} is {target} now, but its endpoint keeps its name: {error}"
            self._event_log.record("attach", text, endpoint=name)


def _endpoint_name(attachment: Attachment, target: str) -> str:
    """Return the name that an endpoint gets from its target."""
    kind, _, name = target.partition(":")
    return endpoint_name(kind, name, attachment.container_id or "")
