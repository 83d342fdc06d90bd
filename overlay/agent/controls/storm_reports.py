"""Record an event when a container here begins to send more to groups than it may.

Owns: these events. Does not: count; the kernel does.
"""

from __future__ import annotations

import logging

from overlay import limits
from overlay.agent.controls.drops import STORM, DropCounters
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.controls.port_controls import controls_on
from overlay.core.policy.drops import DropStarts, Key
from overlay.model import Endpoint, Network, Vni, ip_text


class StormReports(Controller):
    """Looks for storms as long as a container here has a limit."""

    name = "reports of storms"
    problem = "storms of broadcast cannot be reported"
    level = "warn"
    interval_s = limits.STORM_REPORT_INTERVAL_S

    def __init__(self, context: NodeContext, drops: DropCounters, attachments: Attachments) -> None:
        super().__init__(context.event_log)
        self._context = context
        self._drops = drops
        self._attachments = attachments
        self._starts = DropStarts()

    async def reconcile(self) -> None:
        """Record which containers have begun to exceed their limits since the last pass."""
        limited = dict(self._limited())
        await self._drops.read(Vni(vni) for vni, _ in limited)
        counts = {key: self._drops.of_port(Vni(key[0]), key[1]).get(STORM, 0) for key in limited}
        for key in self._starts.begun(counts, self._context.gossip.transport.now()):
            network, endpoint, limit = limited[key]
            self._context.event_log.record(
                "storm",
                f"{endpoint.name} ({ip_text(endpoint.ips[0])}) sends more than {limit} broadcast "
                "and multicast frames a second; those above are dropped",
                level=logging.WARNING,
                network=network.name,
                endpoint=endpoint.name,
            )

    def _limited(self) -> list[tuple[Key, tuple[Network, Endpoint, int]]]:
        """Return the ports with a limit, by network and name."""
        found = []
        for attachment in self._attachments.values():
            given = self._endpoint(attachment)
            limit = 0 if given is None else controls_on(*given).storm
            if given is not None and limit:
                found.append(((attachment.vni, attachment.port), (*given, limit)))
        return found

    def _endpoint(self, attachment: Attachment) -> tuple[Network, Endpoint] | None:
        directory = self._context.directory
        network = directory.network_by_vni(Vni(attachment.vni))
        endpoint = directory.endpoint_of(attachment)
        return None if network is None or endpoint is None else (network, endpoint)
