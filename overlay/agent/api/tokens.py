"""Handlers for join tokens."""

from __future__ import annotations

from typing import Final

from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.tokens import (
    DefaultTokenResponse,
    TokenCreatedResponse,
    TokenCreateRequest,
    TokenListResponse,
    TokenRevokedResponse,
    TokenState,
    TokenSummary,
)
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.wire.admission.messages import JoinRefusal

_STATES: Final[dict[JoinRefusal | None, TokenState]] = {
    None: "valid",
    JoinRefusal.EXPIRED: "expired",
    JoinRefusal.USED_UP: "used-up",
    JoinRefusal.REVOKED: "revoked",
}


class TokenHandlers:
    """The handlers for tokens, bound to one agent: for root only, as a token admits hosts."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def show(self) -> DefaultTokenResponse:
        """GET /v1/token."""
        return {
            "token": str(self._agent.require_components().administration.admission.default_token())
        }

    async def list(self) -> TokenListResponse:
        """GET /v1/tokens."""
        return {"tokens": list_tokens(self._agent.require_components())}

    async def create(self, request: TokenCreateRequest) -> TokenCreatedResponse:
        """POST /v1/tokens."""
        token = self._agent.require_components().administration.admission.create(
            label=request.label or "", expires_in_s=request.expires_s, uses=request.uses
        )
        return {"id": token.token_id.hex(), "token": str(token)}

    async def revoke(self, token_id: str) -> TokenRevokedResponse:
        """DELETE /v1/tokens/ID."""
        revoked = self._agent.require_components().administration.admission.revoke(token_id)
        return {"revoked": revoked.token_id.hex()}


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = TokenHandlers(agent)
    server.route(
        "GET", "/v1/token", "token", handlers.show, root=True, response=DefaultTokenResponse
    )
    server.route(
        "GET", "/v1/tokens", "token-ls", handlers.list, root=True, response=TokenListResponse
    )
    server.route(
        "POST",
        "/v1/tokens",
        "token-create",
        handlers.create,
        root=True,
        request=TokenCreateRequest,
        response=TokenCreatedResponse,
    )
    server.route(
        "DELETE",
        "/v1/tokens/{id}",
        "token-revoke",
        handlers.revoke,
        root=True,
        response=TokenRevokedResponse,
    )


def list_tokens(components: Components) -> list[TokenSummary]:
    """Return the tokens that the authority created, newest first, without their secrets."""
    admission = components.administration.admission
    book = admission.records()
    shown: list[TokenSummary] = []
    for invitation in sorted(book.invitations.values(), key=lambda one: -one.created_s):
        refusal = admission.refusal(invitation, None)
        admitted = sorted(book.admitted.get(invitation.token_id, set()))
        shown.append(
            {
                "id": invitation.token_id.hex(),
                "label": invitation.label,
                "state": _STATES[refusal],
                "created": invitation.created_s,
                "expires": invitation.expires_s or None,
                "uses": len(admitted),
                "uses_max": invitation.uses_max or None,
                "nodes": [components.directory.node_name(node_id) for node_id in admitted],
            }
        )
    return shown
