"""Change attached endpoints in place: rates, controls of their ports, gateway priority.

Owns: which options can be changed without a detach. Does not: attach.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.endpoints.context import EndpointContext
from overlay.agent.endpoints.spec import EndpointOptions, labels_with_limits
from overlay.agent.state import documents
from overlay.core.dataplane.controls.port_controls import controls_of
from overlay.core.dataplane.rate_limits import rates_of
from overlay.core.protocol.records import Scope
from overlay.model import Endpoint, Network


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One option of an endpoint that has changed; a rate of None is unlimited."""

    field: str  # as the API calls it
    before: int | bool | str | None
    after: int | bool | str | None

    def __str__(self) -> str:
        return f"{self.field} {_text(self.before)} -> {_text(self.after)}"


class UpdateService:
    """Changes the attachments of this node."""

    def __init__(self, context: EndpointContext, reconciler: Reconciler) -> None:
        self._gossip = context.node.gossip
        self._event_log = context.node.event_log
        self._default_routes = context.default_routes
        self._attachments = context.attachments
        self._reconciler = reconciler

    async def update(
        self, network: Network, endpoint: Endpoint, options: EndpointOptions
    ) -> tuple[Endpoint, tuple[FieldChange, ...]]:
        """Give an endpoint of this node the options; return it and what was changed."""
        changes = await self._change_priority(endpoint, options)
        changes += self._change_switches(endpoint, options)
        after, limits = await self._change_limits(network, endpoint, options)
        changes += limits
        if changes:
            self._event_log.record(
                "attach",
                f"{self._attachments[endpoint.endpoint_id].target} changed: "
                + ", ".join(str(change) for change in changes),
                network=network.name,
                endpoint=endpoint.name,
            )
        return after, tuple(changes)

    async def _change_priority(
        self, endpoint: Endpoint, options: EndpointOptions
    ) -> list[FieldChange]:
        """Change the gateway priority, if another one is asked for."""
        before = self._attachments[endpoint.endpoint_id]
        wanted = options.gateway_priority
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

    def _change_switches(self, endpoint: Endpoint, options: EndpointOptions) -> list[FieldChange]:
        """Change what is stored of an attachment and nowhere else: hands_off and keep."""
        before = self._attachments[endpoint.endpoint_id]
        after = replace(
            before,
            hands_off=before.hands_off if options.hands_off is None else options.hands_off,
            keep=before.keep if options.keep is None else options.keep,
        )
        if after == before:
            return []
        documents.ATTACHMENTS.put(self._gossip.state, after)
        self._attachments[endpoint.endpoint_id] = after
        found = [
            FieldChange("hands_off", before.hands_off, after.hands_off),
            FieldChange("keep", before.keep, after.keep),
        ]
        return [change for change in found if change.before != change.after]

    async def _change_limits(
        self, network: Network, endpoint: Endpoint, options: EndpointOptions
    ) -> tuple[Endpoint, list[FieldChange]]:
        """Change rates and controls, if others are asked for."""
        labels = labels_with_limits(endpoint.labels, options.rates, options.controls)
        after = replace(endpoint, labels=labels)
        if after == endpoint:
            return endpoint, []
        self._gossip.publish(self._gossip.commit(Scope(network.vni), [after]))
        await self._reconciler.reconcile_network(network.vni)
        before, now = _limits(endpoint), _limits(after)
        return after, [
            FieldChange(field, before[field], has)
            for field, has in now.items()
            if before[field] != has
        ]


def _limits(endpoint: Endpoint) -> dict[str, int | str | None]:
    """Return an endpoint's own rates and controls by the API's names."""
    rates, controls = rates_of(endpoint.labels), controls_of(endpoint.labels)
    return {
        "rate_in": rates.in_bits or None,
        "rate_out": rates.out_bits or None,
        **controls.shown(),
    }


def _text(value: int | bool | str | None) -> str:
    if isinstance(value, str):
        return value or "none"
    return "none" if value is None else str(value).lower()
