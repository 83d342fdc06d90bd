"""What is attached already, changed in place: its limits, and its say in the default route.

Owns: what can be changed without a detach, and what became of it. Must not know how something is
attached.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.endpoints.default_route import DefaultRoutes
from overlay.agent.endpoints.spec import AttachSpec, labels_with_rates
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.rate_limits import rates_of
from overlay.core.protocol.records import Scope
from overlay.model import Endpoint, Network


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of an attach that has another value now; None for a limit: there is none."""

    field: str  # as the API calls it
    before: int | bool | None
    after: int | bool | None

    def __str__(self) -> str:
        return f"{self.field} {_text(self.before)} -> {_text(self.after)}"


class UpdateService:
    """Changes the attachments of this node."""

    def __init__(
        self,
        gossip: GossipService,
        reconciler: Reconciler,
        default_routes: DefaultRoutes,
        event_log: EventLog,
        attachments: Attachments,
    ) -> None:
        self._gossip = gossip
        self._reconciler = reconciler
        self._default_routes = default_routes
        self._event_log = event_log
        self._attachments = attachments

    async def update(
        self, network: Network, endpoint: Endpoint, spec: AttachSpec
    ) -> tuple[Endpoint, tuple[FieldChange, ...]]:
        """Make an endpoint of this node as the wish has it; return it and what was changed."""
        changes = await self._prefer(endpoint, spec)
        after, limited = await self._limit(network, endpoint, spec)
        changes += limited
        if changes:
            self._event_log.record(
                "attach",
                f"{self._attachments[endpoint.endpoint_id].target} changed: "
                + ", ".join(str(change) for change in changes),
                network=network.name,
                endpoint=endpoint.name,
            )
        return after, tuple(changes)

    async def _prefer(self, endpoint: Endpoint, spec: AttachSpec) -> list[FieldChange]:
        """Give it another say in the default route, if one is asked for."""
        before = self._attachments[endpoint.endpoint_id]
        wanted = spec.gateway_priority
        if wanted is None or (wanted, True) == (before.gateway_priority, before.gateway):
            return []
        after = replace(before, gateway_priority=wanted, gateway=True)
        documents.ATTACHMENTS.put(self._gossip.state, after)
        self._attachments[endpoint.endpoint_id] = after
        await self._default_routes.reconcile(before.netns_identity)
        found = [
            FieldChange("gateway_priority", before.gateway_priority, after.gateway_priority),
            FieldChange("default_route", before.gateway, after.gateway),
        ]
        return [change for change in found if change.before != change.after]

    async def _limit(
        self, network: Network, endpoint: Endpoint, spec: AttachSpec
    ) -> tuple[Endpoint, list[FieldChange]]:
        """Give it other limits, if others are asked for."""
        after = replace(endpoint, labels=labels_with_rates(endpoint.labels, spec.rates))
        if after == endpoint:
            return endpoint, []
        self._gossip.publish(self._gossip.commit(Scope(network.vni), [after]))
        await self._reconciler.reconcile(network.vni)
        pairs = zip(rates_of(endpoint.labels), rates_of(after.labels), strict=True)
        return after, [
            FieldChange(field, had or None, has or None)
            for field, (had, has) in zip(("rate_in", "rate_out"), pairs, strict=True)
            if had != has
        ]


def _text(value: int | bool | None) -> str:
    return "none" if value is None else str(value).lower()
