"""The documents about this node's membership of a cluster: who it is, and what keys it holds.

Owns: kind, key and JSON of each. Does not: write the file (`database`).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from overlay.agent.state.database import Row, StateDatabase
from overlay.agent.state.state_file import LOST_KIND
from overlay.agent.state.table import single
from overlay.core.protocol.records import KeyId
from overlay.errors import OverlayError
from overlay.model import Certificate, Ip
from overlay.wire.identity.authority import Authority
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import ClusterKey, Keyring


@dataclass(frozen=True, slots=True)
class StoredCluster:
    """The cluster that this node belongs to, and how it joined."""

    cluster_id: str  # hex
    anchor: str  # hex; the public half of the authority's key
    gossip_port: int
    vxlan_port: int
    node_name: str
    underlay: str | None  # the value of --underlay
    address: str  # the underlay address last used; empty before the first start
    seeds: tuple[str, ...] = ()  # the peers named at join: contacted while no member is alive


@dataclass(frozen=True, slots=True)
class StoredToken:
    """The permanent join token of an authority holder."""

    token_id: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LostState:
    """The state file is older than what this node has done; stored until it has caught up."""

    why: str
    copied_s: float  # Unix time: what the file has is from then
    found_s: float  # Unix time


def _to_hex(secret: Identity | Authority) -> str:
    return secret.to_bytes().hex()


def _decode_cluster(value: dict[str, Any]) -> StoredCluster:
    if "anchor" not in value or "secret" in value:
        raise OverlayError(
            "the state file describes a cluster without an authority or a keyring",
            why="an earlier development version of overlayd created it",
            hint="Start again: sudo overlayd reset, then sudo overlayd join",
        )
    return StoredCluster(**value)


def _encode_keyring(keyring: Keyring) -> dict[str, Any]:
    keys = [
        {
            "generation": key.generation,
            "made_s": key.made_s,
            "secret": key.secret.hex(),
            "warrant": key.warrant.hex(),
        }
        for key in keyring.keys
    ]
    return {"keys": keys, "sealing": list(keyring.sealing)}


def _decode_keyring(value: dict[str, Any]) -> Keyring:
    keys = [
        ClusterKey(
            key["generation"],
            key["made_s"],
            bytes.fromhex(key["secret"]),
            bytes.fromhex(key["warrant"]),
        )
        for key in value["keys"]
    ]
    return Keyring(keys, KeyId(*value["sealing"]))


def _encode_certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "address": certificate.address.hex(),
        "not_before_s": certificate.not_before_s,
        "not_after_s": certificate.not_after_s,
        "signature": certificate.signature.hex(),
    }


def _decode_certificate(value: dict[str, Any]) -> Certificate:
    return Certificate(
        Ip(bytes.fromhex(value["address"])),
        value["not_before_s"],
        value["not_after_s"],
        bytes.fromhex(value["signature"]),
    )


# --- the kinds, one document each ---------------------------------------------------------

EPOCH = single("epoch", int, int)  # how often this node has started
IDENTITY = single("identity", _to_hex, lambda text: Identity.from_bytes(bytes.fromhex(text)))
CLUSTER = single("cluster", asdict, _decode_cluster)
AUTHORITY = single("authority", _to_hex, lambda text: Authority(bytes.fromhex(text)))
CERTIFICATE = single("certificate", _encode_certificate, _decode_certificate)
KEYRING = single("keyring", _encode_keyring, _decode_keyring)
LOST = single(LOST_KIND, asdict, lambda value: LostState(**value))
TOKEN = single(
    "token",
    lambda token: {"id": token.token_id.hex(), "secret": token.secret.hex()},
    lambda value: StoredToken(bytes.fromhex(value["id"]), bytes.fromhex(value["secret"])),
)


def rows(
    key: ClusterKey,
    *,
    authority: Authority | None = None,
    certificate: Certificate | None = None,
) -> list[Row]:
    """Return the rows that store this node's membership, before it has a cluster document.

    They also delete what an interrupted attempt to create or join another cluster has left.
    """
    return [
        TOKEN.deletion(),
        AUTHORITY.deletion() if authority is None else AUTHORITY.row(authority),
        CERTIFICATE.deletion() if certificate is None else CERTIFICATE.row(certificate),
        KEYRING.row(Keyring([key], key.id)),
    ]


def ensure_identity(state: StateDatabase) -> Identity:
    """Return this node's identity; create and store it if there is none."""
    identity = IDENTITY.find(state)
    if identity is None:
        identity = Identity.generate(os.urandom)
        IDENTITY.put(state, identity)
    return identity


def require_keyring(state: StateDatabase) -> Keyring:
    """Return the cluster's keys; every member has at least one."""
    keyring = KEYRING.find(state)
    assert keyring is not None, "every member has a key"
    return keyring


def next_epoch(state: StateDatabase) -> int:
    """Increment and return the number of starts; it is durable before it is used."""
    epoch = (EPOCH.find(state) or 0) + 1
    EPOCH.put(state, epoch)
    return epoch
