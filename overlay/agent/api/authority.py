"""Handlers for the cluster's authority: who holds it, promotion, export and import."""

from __future__ import annotations

from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.authority import (
    AuthorityExportRequest,
    AuthorityExportResponse,
    AuthorityHolderResponse,
    AuthorityImportRequest,
    AuthorityImportResponse,
    AuthorityResponse,
    PromotedResponse,
    PromoteRequest,
)
from overlay.agent.api.schema.cluster import STATE_NAMES
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.errors import ForbiddenError, TimedOutError
from overlay.model import NodeId, node_text


class AuthorityHandlers:
    """The handlers for the authority, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def show(self) -> AuthorityResponse:
        """GET /v1/authority."""
        components = self._agent.require_components()
        own = components.gossip.node_id
        held = components.gossip.authority is not None
        found = [own] * held + sorted(
            components.administration.holders.others(), key=components.directory.node_name
        )
        return {
            "wanted": components.administration.sharing.choice.wanted,
            "holders": [_holder(components, node_id) for node_id in found],
        }

    async def promote(self, request: PromoteRequest) -> PromotedResponse:
        """POST /v1/promote."""
        sharing = self._agent.require_components().administration.sharing
        return {"node": request.node, "promoted": await sharing.promote(request.node)}

    async def export(self, request: AuthorityExportRequest) -> AuthorityExportResponse:
        """POST /v1/authority/export."""
        components = self._agent.require_components()
        sealed = await components.administration.backup.export(request.passphrase)
        return {"cluster": components.gossip.cluster.cluster_id[:8], "sealed": sealed}

    async def restore(self, request: AuthorityImportRequest) -> AuthorityImportResponse:
        """POST /v1/authority/import."""
        components = self._agent.require_components()
        imported = await components.administration.backup.restore(
            request.sealed, request.passphrase
        )
        return {"cluster": components.gossip.cluster.cluster_id[:8], "imported": imported}


def _holder(components: Components, node_id: NodeId) -> AuthorityHolderResponse:
    is_self = node_id == components.gossip.node_id
    return {
        "id": node_text(node_id),
        "name": components.directory.node_name(node_id),
        "state": STATE_NAMES[components.directory.node_state(node_id)],
        "self": is_self,
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = AuthorityHandlers(agent)
    server.route("GET", "/v1/authority", "authority-ls", handlers.show, response=AuthorityResponse)
    server.route(
        "POST",
        "/v1/promote",
        "promote",
        handlers.promote,
        root=True,
        request=PromoteRequest,
        response=PromotedResponse,
        errors_raised=(TimedOutError,),
    )
    server.route(
        "POST",
        "/v1/authority/export",
        "authority-export",
        handlers.export,
        root=True,
        request=AuthorityExportRequest,
        response=AuthorityExportResponse,
    )
    server.route(
        "POST",
        "/v1/authority/import",
        "authority-import",
        handlers.restore,
        root=True,
        request=AuthorityImportRequest,
        response=AuthorityImportResponse,
        errors_raised=(ForbiddenError,),
    )
