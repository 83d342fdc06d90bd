"""Responses on the cluster's keys, and on the tunnels of encrypted networks."""

from typing import Literal, TypedDict

from overlay.agent.api.schema.cluster import (
    KeyNameResponse,
    KeyStepName,
    KeyUseResponse,
    MemberStateName,
)
from overlay.agent.api.schema.field_types import Request, Text


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


class EncryptionPeerResponse(TypedDict):
    """A member as this host's WireGuard has it."""

    node: str
    networks: list[str]  # encrypted ones with a sandbox on both hosts
    address: str  # inside the tunnel
    key_epoch: int | None  # None: it has published no key
    device: str | None  # by which packets to it leave; None: it is a peer of none
    configured: bool  # it is a peer of that device
    since_s: float | None  # for how long it has answered by that key; None: it has not yet
    last_handshake_s: float | None  # seconds ago; None: never since the device was made
    received: int  # bytes
    sent: int


class EncryptionKeyResponse(TypedDict):
    """The WireGuard key that this host has in use after a rotation."""

    key_epoch: int


class EncryptionRotationResponse(TypedDict):
    """A rotation of the WireGuard keys that is under way."""

    step: Literal["beginning", "moving", "retiring"]
    waiting_for: list[str]  # each member with the reason


class EncryptionSwitchRequest(Request, frozen=True, kw_only=True):
    """A network to encrypt, or no longer to encrypt, while it is in use."""

    network: Text
    encrypted: bool


class EncryptionSwitchResponse(TypedDict):
    """A network that is now encrypted everywhere, or in clear everywhere."""

    network: str
    encrypted: bool
    changed: bool


class EncryptionSwitchingResponse(TypedDict):
    """A network on its way into the tunnels, or out of them."""

    network: str
    encrypted: bool  # the goal
    phase: Literal["clear", "ready", "both", "sending", "encrypted"]  # of this host
    waiting_for: list[str]  # each member with the reason


class EncryptionStatusResponse(TypedDict):
    """This host's part in encrypted networks, and its peers."""

    backend: Literal["kernel", "wireguard-go"] | None
    why: str | None  # what is missing
    device: str | None  # of the key in use
    device_missing: str | None  # why there is none
    address: str
    port: int
    key_epoch: int | None
    key_age_s: float | None
    rotation: EncryptionRotationResponse | None
    networks: list[str]  # the cluster's encrypted networks
    switching: list[EncryptionSwitchingResponse]
    clear_in: int  # packets of these that came unencrypted, and were dropped
    clear_out: int  # that would have left unencrypted, and were dropped
    peers: list[EncryptionPeerResponse]
