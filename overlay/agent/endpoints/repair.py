"""Recover endpoints whose interface disappeared: recreate it, or withdraw the endpoint.

Owns: telling a container that ended from an interface that was deleted. Does not: notice the loss.
"""

from __future__ import annotations

import asyncio
import os

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.endpoints.attach import EndpointAttacher
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.endpoints.restart import Restart
from overlay.agent.state import documents
from overlay.agent.state.documents import Attachment, EndedEndpoint
from overlay.core.dataplane.link_state import HOST_PORT_PREFIX
from overlay.errors import OverlayError
from overlay.kernel.sandbox import container_namespace
from overlay.kernel.sandbox.veth import PortExistsError
from overlay.model import Endpoint, Network, Vni


class Repair:
    """Recovers lost ports one after another."""

    def __init__(
        self,
        attacher: EndpointAttacher,
        detacher: EndpointDetacher,
        restart: Restart,
        reconciler: Reconciler,
    ) -> None:
        context = attacher.context
        self._attacher = attacher
        self._detacher = detacher
        self._restart = restart
        self._drivers = context.drivers
        self._attachments = context.attachments
        self._directory = context.node.directory
        self._kernel = context.node.kernel
        self._event_log = context.node.event_log
        self._ports: dict[str, None] = {}  # in order of their loss
        self._working: asyncio.Task[None] | None = None
        reconciler.ports_lost.connect(self._on_ports_lost)
        context.drivers.macvlan_ports.interfaces_lost.connect(self.report)

    def _on_ports_lost(self, _vni: Vni, ports: list[str]) -> None:
        self.report([port for port in ports if not port.startswith(HOST_PORT_PREFIX)])

    def report(self, ports: list[str]) -> None:
        """Note that ports are gone; they are recovered outside the pass that noticed."""
        self._ports.update(dict.fromkeys(ports))
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(
                self._repair_reported(), name="lost"
            )

    async def close(self) -> None:
        """Stop recovering."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def _repair_reported(self) -> None:
        await self._attachments.compared.wait()
        while self._ports:
            ended: list[tuple[Attachment, str]] = []
            while self._ports:
                port = next(iter(self._ports))
                del self._ports[port]
                for attachment in [a for a in self._attachments.values() if a.port == port]:
                    container_id = await self._recover_alone(attachment)
                    if container_id is not None:
                        ended.append((attachment, container_id))
            # A new namespace may have the inode of one that is gone, as after a reboot: so a
            # container is attached again when no attachment is left of those that ended.
            for attachment, container_id in ended:
                await self._attach_again(attachment, container_id)

    async def _recover_alone(self, attachment: Attachment) -> str | None:
        """Return the id of a container that ended and may run again already; else None."""
        try:
            async with self._attachments.alone_with(attachment.netns_identity):
                return await self._recover(attachment.endpoint_id)
        except (OverlayError, OSError) as error:
            self._event_log.record("gone", f"{attachment.target}: {error}")
            return None

    async def _attach_again(self, attachment: Attachment, container_id: str) -> None:
        kind = attachment.target.partition(":")[0]
        try:
            await self._restart.container_started(kind, container_id)
        except (OverlayError, OSError) as error:
            self._event_log.record("gone", f"{attachment.target}: {error}")

    async def _recover(self, endpoint_id: str) -> str | None:
        """Recreate an interface whose container lives, else withdraw the endpoint.

        Returns the id of a container that may start again, and is remembered; else None.
        """
        attachment = self._attachments.get(bytes.fromhex(endpoint_id))
        if attachment is None:
            return None  # detached meanwhile
        network = self._directory.network_by_vni(attachment.vni)
        endpoint = self._directory.endpoint_of(attachment)
        descriptor = await self._kernel.call(
            container_namespace.open_same, attachment.netns_path, attachment.netns_identity
        )
        if descriptor is None or network is None or endpoint is None:
            what = "ended"
            if descriptor is not None:
                os.close(descriptor)
                what = "lives without this endpoint: its record is gone"
            return await self._withdraw(attachment, network, endpoint, what)
        try:
            await self._attacher.connect(network, endpoint, attachment, descriptor)
        except PortExistsError:  # two passes reported it, and the first report was dealt with
            return None
        except BaseException:
            if not self._drivers.of_attachment(attachment).recreates_forever:
                await self._attacher.rollback.undo(attachment, endpoint)
            raise
        finally:
            os.close(descriptor)
        self._event_log.record(
            "repaired",
            f"{attachment.target} is connected again",
            network=network.name,
            endpoint=endpoint.name,
        )
        return None

    async def _withdraw(
        self, attachment: Attachment, network: Network | None, endpoint: Endpoint | None, what: str
    ) -> str | None:
        """Withdraw the endpoint of a container that ended, or of which there is no record.

        Remembers it if its runtime may start the container again, and returns its id then.
        """
        self._event_log.record(
            "gone",
            f"{attachment.target} {what}",
            network=f"vni {attachment.vni}" if network is None else network.name,
            endpoint=attachment.target if endpoint is None else endpoint.name,
        )
        if endpoint is None or not self._restart.can_restart(attachment):
            await self._detacher.remove(attachment, wait=False)
            return None
        ended = EndedEndpoint.of(attachment, endpoint)
        await self._detacher.remove(
            attachment,
            wait=False,
            rows=[documents.ENDED.row(ended)],
            when_durable=lambda: self._restart.remember(ended),
        )
        return ended.container_id
