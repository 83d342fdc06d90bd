"""Responses on cluster keys."""

from typing import TypedDict

from overlay.agent.api.schema.cluster import (
    KeyNameResponse,
    KeyStepName,
    KeyUseResponse,
    MemberStateName,
)


class HeldKeyResponse(KeyNameResponse):
    """A key with which this host can open datagrams."""

    made: int
    sealing: bool


class KeyPeerResponse(TypedDict):
    """The keys that a member last reported."""

    id: str
    name: str
    state: MemberStateName
    newest: int | None
    sealing: int | None
    self: bool


class KeyStatusResponse(TypedDict):
    """The generation of the key that each member holds and uses."""

    generation: int
    step: KeyStepName
    waiting_for: list[str]
    waiting_s: float | None
    interval_s: float
    next: int | None
    held: list[HeldKeyResponse]
    accepted: list[KeyUseResponse]
    unknown: int
    peers: list[KeyPeerResponse]
