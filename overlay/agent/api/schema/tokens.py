"""Requests and responses on join tokens."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.schema.field_types import Request

TokenState = Literal["valid", "expired", "used-up", "revoked"]


class TokenCreateRequest(Request, frozen=True, kw_only=True):
    """A new token."""

    expires_s: Annotated[int, Meta(ge=1, le=limits.TOKEN_LIFE_MAX_S)] | None = None
    uses: Annotated[int, Meta(ge=1, le=limits.MEMBER_COUNT_MAX)] | None = None
    label: Annotated[str, Meta(min_length=1, max_length=limits.NAME_LENGTH_MAX)] | None = None


class DefaultTokenResponse(TypedDict):
    """The permanent token of this authority holder."""

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
    """The tokens that the authority created."""

    tokens: list[TokenSummary]


class TokenCreatedResponse(TypedDict):
    """A new token with its secret, which no other response has."""

    id: str
    token: str


class TokenRevokedResponse(TypedDict):
    """The token that was revoked."""

    revoked: str
