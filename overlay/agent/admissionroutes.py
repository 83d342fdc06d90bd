"""The API's verbs on tokens and the authority, and what they show.

Owns: the shapes of tokens documented in docs/API.md.
"""

from __future__ import annotations

from typing import Any

from overlay import limits
from overlay.agent import request
from overlay.agent.agent import Agent
from overlay.agent.running import Running
from overlay.agent.server import Server
from overlay.agent.web import web
from overlay.errors import UsageError

Json = dict[str, Any]


class AdmissionRoutes:
    """The verbs, bound to one agent. All are root's: a token is the way into the cluster."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def show(self, _request: web.Request, _body: Json) -> Json:
        """GET /v1/token."""
        return {"token": str(self._agent.member().admissions.default_token())}

    async def list(self, _request: web.Request, _body: Json) -> Json:
        """GET /v1/tokens."""
        return {"tokens": tokens(self._agent.member())}

    async def create(self, _request: web.Request, body: Json) -> Json:
        """POST /v1/tokens."""
        request.allow(body, "expires_s", "uses", "label")
        label = request.text(body, "label") or ""
        if len(label) > limits.NAME_LENGTH_MAX or not label.isprintable():
            raise UsageError(f"a label has at most {limits.NAME_LENGTH_MAX} characters, printable")
        admissions = self._agent.member().admissions
        token = admissions.create(
            label=label,
            expires_in_s=request.number(body, "expires_s", 1, limits.TOKEN_LIFE_MAX_S),
            uses=request.number(body, "uses", 1, limits.MEMBER_COUNT_MAX),
        )
        return {"id": token.token_id.hex(), "token": str(token)}

    async def revoke(self, http: web.Request, _body: Json) -> Json:
        """DELETE /v1/tokens/ID."""
        revoked = self._agent.member().admissions.revoke(http.match_info["id"])
        return {"revoked": revoked.token_id.hex()}

    async def promote(self, _request: web.Request, body: Json) -> Json:
        """POST /v1/promote."""
        request.allow(body, "node")
        name = request.required_text(body, "node")
        return {"node": name, "promoted": await self._agent.member().custody.promote(name)}


def register(server: Server, agent: Agent) -> None:
    """Serve the verbs."""
    routes = AdmissionRoutes(agent)
    server.route("GET", "/v1/token", "token", routes.show, root=True)
    server.route("GET", "/v1/tokens", "token-ls", routes.list, root=True)
    server.route("POST", "/v1/tokens", "token-create", routes.create, root=True)
    server.route("DELETE", "/v1/tokens/{id}", "token-revoke", routes.revoke, root=True)
    server.route("POST", "/v1/promote", "promote", routes.promote, root=True)


def tokens(running: Running) -> list[Json]:
    """Show the tokens that the authority made, newest first; never their secrets."""
    admissions = running.admissions
    book = admissions.book()
    shown = []
    for invitation in sorted(book.invitations.values(), key=lambda one: -one.created_s):
        refusal = admissions.refusal(invitation, None)
        admitted = sorted(book.admitted.get(invitation.token_id, set()))
        shown.append(
            {
                "id": invitation.token_id.hex(),
                "label": invitation.label,
                "state": "valid" if refusal is None else refusal.name.lower().replace("_", "-"),
                "created": invitation.created_s,
                "expires": invitation.expires_s or None,
                "uses": len(admitted),
                "uses_max": invitation.uses_max or None,
                "nodes": [running.directory.node_name(node_id) for node_id in admitted],
            }
        )
    return shown
