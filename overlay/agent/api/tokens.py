"""The API's verbs on tokens and the authority, and what they show.

Owns: the shapes of tokens documented in docs/API.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Required, TypedDict

from overlay import limits
from overlay.agent.api.http.server import Server
from overlay.agent.api.schema import fields
from overlay.agent.api.schema.json_schema import Text
from overlay.agent.components import Running
from overlay.agent.lifecycle import Agent
from overlay.agent.process.lean_aiohttp import web
from overlay.errors import TimedOutError, UsageError
from overlay.wire.admission import Refusal

Json = dict[str, Any]
TokenState = Literal["valid", "expired", "used-up", "revoked"]
_STATES: Final[dict[Refusal | None, TokenState]] = {
    None: "valid",
    Refusal.EXPIRED: "expired",
    Refusal.USED_UP: "used-up",
    Refusal.REVOKED: "revoked",
}


class DefaultToken(TypedDict):
    """This holder's own token."""

    token: str


class TokenShown(TypedDict):
    """A token, without its secret."""

    id: str
    label: str
    state: TokenState
    created: int
    expires: int | None
    uses: int
    uses_max: int | None
    nodes: list[str]


class Tokens(TypedDict):
    """The tokens that the authority made."""

    tokens: list[TokenShown]


class TokenAsked(TypedDict, total=False):
    """A new token."""

    expires_s: Annotated[int, {"minimum": 1, "maximum": limits.TOKEN_LIFE_MAX_S}]
    uses: Annotated[int, {"minimum": 1, "maximum": limits.MEMBER_COUNT_MAX}]
    label: Annotated[str, {"minLength": 1, "maxLength": limits.NAME_LENGTH_MAX}]


class TokenMade(TypedDict):
    """A token with its secret, which is nowhere else."""

    id: str
    token: str


class Revoked(TypedDict):
    """The token that lets nobody in any more."""

    revoked: str


class Promote(TypedDict, total=False):
    """Which member is to hold the authority."""

    node: Required[Text]


class Promoted(TypedDict):
    """Who holds the authority now."""

    node: str
    promoted: bool


class AdmissionRoutes:
    """The verbs, bound to one agent. All are root's: a token is the way into the cluster."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def show(self, _request: web.Request, _body: Json) -> DefaultToken:
        """GET /v1/token."""
        return {"token": str(self._agent.member().admissions.default_token())}

    async def list(self, _request: web.Request, _body: Json) -> Tokens:
        """GET /v1/tokens."""
        return {"tokens": tokens(self._agent.member())}

    async def create(self, _request: web.Request, body: Json) -> TokenMade:
        """POST /v1/tokens."""
        label = fields.text(body, "label") or ""
        if len(label) > limits.NAME_LENGTH_MAX or not label.isprintable():
            raise UsageError(
                f"a label has at most {limits.NAME_LENGTH_MAX} characters, printable", field="label"
            )
        admissions = self._agent.member().admissions
        token = admissions.create(
            label=label,
            expires_in_s=fields.number(body, "expires_s", 1, limits.TOKEN_LIFE_MAX_S),
            uses=fields.number(body, "uses", 1, limits.MEMBER_COUNT_MAX),
        )
        return {"id": token.token_id.hex(), "token": str(token)}

    async def revoke(self, http: web.Request, _body: Json) -> Revoked:
        """DELETE /v1/tokens/ID."""
        revoked = self._agent.member().admissions.revoke(http.match_info["id"])
        return {"revoked": revoked.token_id.hex()}

    async def promote(self, _request: web.Request, body: Json) -> Promoted:
        """POST /v1/promote."""
        name = fields.required_text(body, "node")
        return {"node": name, "promoted": await self._agent.member().custody.promote(name)}


def register(server: Server, agent: Agent) -> None:
    """Serve the verbs."""
    routes = AdmissionRoutes(agent)
    server.route("GET", "/v1/token", "token", routes.show, root=True, gives=DefaultToken)
    server.route("GET", "/v1/tokens", "token-ls", routes.list, root=True, gives=Tokens)
    server.route(
        "POST",
        "/v1/tokens",
        "token-create",
        routes.create,
        root=True,
        takes=TokenAsked,
        gives=TokenMade,
    )
    server.route(
        "DELETE", "/v1/tokens/{id}", "token-revoke", routes.revoke, root=True, gives=Revoked
    )
    server.route(
        "POST",
        "/v1/promote",
        "promote",
        routes.promote,
        root=True,
        takes=Promote,
        gives=Promoted,
        fails=(TimedOutError,),
    )


def tokens(running: Running) -> list[TokenShown]:
    """Show the tokens that the authority made, newest first; never their secrets."""
    admissions = running.admissions
    book = admissions.book()
    shown: list[TokenShown] = []
    for invitation in sorted(book.invitations.values(), key=lambda one: -one.created_s):
        refusal = admissions.refusal(invitation, None)
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
                "nodes": [running.directory.node_name(node_id) for node_id in admitted],
            }
        )
    return shown
