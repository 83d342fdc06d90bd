"""The API's verbs on tokens and the authority, and what they show.

Owns: the shapes of tokens documented in docs/API.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Required, TypedDict

from overlay import limits
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import fields
from overlay.agent.api.schema.json_schema import Text
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web
from overlay.errors import TimedOutError, UsageError
from overlay.wire.admission import JoinRefusal

Json = dict[str, Any]
TokenState = Literal["valid", "expired", "used-up", "revoked"]
_STATES: Final[dict[JoinRefusal | None, TokenState]] = {
    None: "valid",
    JoinRefusal.EXPIRED: "expired",
    JoinRefusal.USED_UP: "used-up",
    JoinRefusal.REVOKED: "revoked",
}


class DefaultTokenResponse(TypedDict):
    """This holder's own token."""

    token: str


class TokenSummary(TypedDict):
    """A token, without its secret."""

    id: str
    label: str
    state: TokenState
    created: int
    expires: int | None
    uses: int
    uses_max: int | None
    nodes: list[str]


class TokenListResponse(TypedDict):
    """The tokens that the authority made."""

    tokens: list[TokenSummary]


class TokenCreateRequest(TypedDict, total=False):
    """A new token."""

    expires_s: Annotated[int, {"minimum": 1, "maximum": limits.TOKEN_LIFE_MAX_S}]
    uses: Annotated[int, {"minimum": 1, "maximum": limits.MEMBER_COUNT_MAX}]
    label: Annotated[str, {"minLength": 1, "maxLength": limits.NAME_LENGTH_MAX}]


class TokenCreatedResponse(TypedDict):
    """A token with its secret, which is nowhere else."""

    id: str
    token: str


class TokenRevokedResponse(TypedDict):
    """The token that lets nobody in any more."""

    revoked: str


class PromoteRequest(TypedDict, total=False):
    """Which member is to hold the authority."""

    node: Required[Text]


class PromotedResponse(TypedDict):
    """Who holds the authority now."""

    node: str
    promoted: bool


class TokenRoutes:
    """The verbs, bound to one agent. All are root's: a token is the way into the cluster."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def show(self, _request: web.Request, _body: Json) -> DefaultTokenResponse:
        """GET /v1/token."""
        return {"token": str(self._agent.require_components().admission.default_token())}

    async def list(self, _request: web.Request, _body: Json) -> TokenListResponse:
        """GET /v1/tokens."""
        return {"tokens": list_tokens(self._agent.require_components())}

    async def create(self, _request: web.Request, body: Json) -> TokenCreatedResponse:
        """POST /v1/tokens."""
        label = fields.text(body, "label") or ""
        if len(label) > limits.NAME_LENGTH_MAX or not label.isprintable():
            raise UsageError(
                f"a label has at most {limits.NAME_LENGTH_MAX} characters, printable", field="label"
            )
        admission = self._agent.require_components().admission
        token = admission.create(
            label=label,
            expires_in_s=fields.number(body, "expires_s", 1, limits.TOKEN_LIFE_MAX_S),
            uses=fields.number(body, "uses", 1, limits.MEMBER_COUNT_MAX),
        )
        return {"id": token.token_id.hex(), "token": str(token)}

    async def revoke(self, http: web.Request, _body: Json) -> TokenRevokedResponse:
        """DELETE /v1/tokens/ID."""
        revoked = self._agent.require_components().admission.revoke(http.match_info["id"])
        return {"revoked": revoked.token_id.hex()}

    async def promote(self, _request: web.Request, body: Json) -> PromotedResponse:
        """POST /v1/promote."""
        name = fields.required_text(body, "node")
        return {
            "node": name,
            "promoted": await self._agent.require_components().authority_holder.promote(name),
        }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Serve the verbs."""
    routes = TokenRoutes(agent)
    server.route("GET", "/v1/token", "token", routes.show, root=True, gives=DefaultTokenResponse)
    server.route("GET", "/v1/tokens", "token-ls", routes.list, root=True, gives=TokenListResponse)
    server.route(
        "POST",
        "/v1/tokens",
        "token-create",
        routes.create,
        root=True,
        takes=TokenCreateRequest,
        gives=TokenCreatedResponse,
    )
    server.route(
        "DELETE",
        "/v1/tokens/{id}",
        "token-revoke",
        routes.revoke,
        root=True,
        gives=TokenRevokedResponse,
    )
    server.route(
        "POST",
        "/v1/promote",
        "promote",
        routes.promote,
        root=True,
        takes=PromoteRequest,
        gives=PromotedResponse,
        fails=(TimedOutError,),
    )


def list_tokens(components: Components) -> list[TokenSummary]:
    """Show the tokens that the authority made, newest first; never their secrets."""
    admission = components.admission
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
