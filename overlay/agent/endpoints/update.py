"""What is attached already, changed in place: its limits, and its say in the default route.

Owns: what can be changed without a detach, and what became of it. Must not know how something is
attached.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from overlay.agent.dataplane.reconciler import Datapath
from overlay.agent.endpoints.default_route import Gateways
from overlay.agent.endpoints.spec import AttachWish, labelled
from overlay.agent.gossip.service import Member
from overlay.agent.process.event_log import Journal
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.rate_limits import rates_of
from overlay.core.protocol.records import Scope
from overlay.model import Endpoint, Network


@dataclass(frozen=True, slots=True)
class Change:
    """One field of an attach that has another value now; None for a limit: there is none."""

    field: str  # as the API calls it
    before: int | bool | None
    after: int | bool | None

    def __str__(self) -> str:
        return f"{self.field} {_text(self.before)} -> {_text(self.after)}"


class Altering:
    """Changes the attachments of this node."""

    def __init__(
        self,
        member: Member,
        datapath: Datapath,
        gateways: Gateways,
        journal: Journal,
        attachments: Attachments,
    ) -> None:
        self._member = member
        self._datapath = datapath
        self._gateways = gateways
        self._journal = journal
        self._attachments = attachments

    async def alter(
        self, network: Network, endpoint: Endpoint, wish: AttachWish
    ) -> tuple[Endpoint, tuple[Change, ...]]:
        """Make an endpoint of this node as the wish has it; return it and what was changed."""
        changes = await self._prefer(endpoint, wish)
        after, limited = await self._limit(network, endpoint, wish)
        changes += limited
        if changes:
            self._journal.record(
                "attach",
                f"{self._attachments[endpoint.endpoint_id].target} changed: "
                + ", ".join(str(change) for change in changes),
                network=network.name,
                endpoint=endpoint.name,
            )
        return after, tuple(changes)

    async def _prefer(self, endpoint: Endpoint, wish: AttachWish) -> list[Change]:
        """Give it another say in the default route, if one is asked for."""
        before = self._attachments[endpoint.endpoint_id]
        wanted = wish.gateway_priority
        if wanted is None or (wanted, True) == (before.gateway_priority, before.gateway):
            return []
        after = replace(before, gateway_priority=wanted, gateway=True)
        with self._member.state.transaction():
            documents.put_attachment(self._member.state, after)
        self._attachments[endpoint.endpoint_id] = after
        await self._gateways.settle(before.netns_identity)
        found = [
            Change("gateway_priority", before.gateway_priority, after.gateway_priority),
            Change("default_route", before.gateway, after.gateway),
        ]
        return [change for change in found if change.before != change.after]

    async def _limit(
        self, network: Network, endpoint: Endpoint, wish: AttachWish
    ) -> tuple[Endpoint, list[Change]]:
        """Give it other limits, if others are asked for."""
        after = replace(endpoint, labels=labelled(endpoint.labels, wish.rates))
        if after == endpoint:
            return endpoint, []
        self._member.publish(self._member.commit(Scope(network.vni), [after]))
        await self._datapath.reconcile(network.vni)
        pairs = zip(rates_of(endpoint.labels), rates_of(after.labels), strict=True)
        return after, [
            Change(field, had or None, has or None)
            for field, (had, has) in zip(("rate_in", "rate_out"), pairs, strict=True)
            if had != has
        ]


def _text(value: int | bool | None) -> str:
    return "none" if value is None else str(value).lower()
