"""Requests and responses on the cluster's authority."""

from typing import TypedDict

from overlay.agent.api.schema.cluster import MemberStateName
from overlay.agent.api.schema.field_types import Request, SecretText, Text


class PromoteRequest(Request, frozen=True, kw_only=True):
    """The member to give the authority to."""

    node: Text


class AuthorityExportRequest(Request, frozen=True, kw_only=True):
    """The passphrase that seals the exported authority."""

    passphrase: SecretText


class AuthorityImportRequest(Request, frozen=True, kw_only=True):
    """An exported authority, and its passphrase."""

    sealed: SecretText
    passphrase: SecretText


class PromotedResponse(TypedDict):
    """The member, and whether it received the authority by this request."""

    node: str
    promoted: bool


class AuthorityHolderResponse(TypedDict):
    """A member that holds the authority."""

    id: str
    name: str
    state: MemberStateName
    self: bool


class AuthorityResponse(TypedDict):
    """The members that hold the authority, and how many should."""

    wanted: int
    holders: list[AuthorityHolderResponse]


class AuthorityExportResponse(TypedDict):
    """The authority, sealed by a passphrase: the content of a file."""

    cluster: str
    sealed: str


class AuthorityImportResponse(TypedDict):
    """The cluster, and whether this host became a holder by this request."""

    cluster: str
    imported: bool
