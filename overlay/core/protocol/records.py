"""What a node may write in its own logs, and the logs' units: entry, segment, scope.

A *log* belongs to one origin and one scope. Scope 0 is the cluster's (networks made here,
networks taken part in); every other scope is a network's VNI (endpoints, grants). Only the
origin writes its log, so no key ever has two writers and nothing needs resolving.

A log is a run of *segments* in version order, each signed by its origin and passed on as the
very bytes that were signed. A segment holds all the entries with versions in
`(after, upto]` as they were when it was made; a later entry for the same key replaces an
earlier one, a value of None (tombstone) deletes it. `floor` in a segment says that its origin
has dropped everything up to that version: a replica that holds less starts that log afresh.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple, NewType, TypeAlias

from overlay.model import Endpoint, Grant, Ip, Network, NodeId

Scope = NewType("Scope", int)
CLUSTER_SCOPE = Scope(0)


@dataclass(frozen=True, slots=True)
class Participation:
    """The origin takes part in this network: it holds its records and wants its floods.

    `forwards` says that the origin has a sandbox for it (and so a flood row on the others);
    a network's creator takes part without one, for the sake of the address space it owns.
    """

    vni: int
    forwards: bool


@dataclass(frozen=True, slots=True)
class ForgottenNode:
    """The origin declares a node gone for ever; its space falls to its granters.

    With the authority's signature it counts at once; without, only where the node is not held
    alive, so that no member can shut out another that lives.
    """

    node_id: NodeId
    warrant: bytes = b""  # the authority's signature, or empty


@dataclass(frozen=True, slots=True)
class RemovedNetwork:
    """The origin asks for this network's end; its creator then deletes the definition."""

    vni: int
    creator: NodeId


class KeptRun(NamedTuple):
    """A run `[first, last]` of one network's addresses."""

    vni: int
    first: bytes
    last: bytes


@dataclass(frozen=True, slots=True)
class ReclaimStatement:
    """The origin knows that `node_id` is forgotten. `kept`, over all parts, is every address
    that the origin holds, or has passed on, by way of that node's grants; any other grant of
    that node's that ever reaches it does not count for it. Written once, never changed.

    The space is given out again only after every member has settled (`core.ipam.reclaim`).
    """

    node_id: NodeId
    reclaiming_node: (
        NodeId  # the origin's vote for who inherits where every granter is forgotten too
    )
    part: int  # from 0; a long `kept` takes several records
    parts: int
    kept: tuple[KeptRun, ...]


@dataclass(frozen=True, slots=True)
class AuthorityHolderRecord:
    """The origin holds the authority's key; the signature by that very key proves it."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token, as the cluster knows it: never its secret.

    `door` opens and seals the first words with whoever has the token, so that any member can
    show him the way; only a holder of the authority lets him in, against the preimage of
    `verifier`. It counts by the authority's signature, whoever passes it on.
    """

    token_id: bytes
    join_key: bytes = field(repr=False)
    verifier: bytes
    label: str
    created_s: int  # seconds of Unix time
    expires_s: int  # likewise; 0: never
    uses_max: int  # 0: any number
    signature: bytes


@dataclass(frozen=True, slots=True)
class TokenRevocation:
    """A token lets nobody in any more; signed by the authority."""

    token_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Admission:
    """The origin, a holder of the authority, let this node in by this token."""

    token_id: bytes
    node_id: NodeId


@dataclass(frozen=True, slots=True)
class CustomRecord:
    """A name on the network of its log's scope that is no container's: people gave it."""

    name: str
    ips: tuple[Ip, ...]


class KeyId(NamedTuple):
    """Names one cluster key. Greater is newer; two of one generation, made on both sides of a
    split, are told apart, and put in order, by their marks."""

    generation: int
    mark: int  # 16 bits of a hash of the secret


@dataclass(frozen=True, slots=True)
class KeyState:
    """The origin holds these two cluster keys, durably, and seals with the second."""

    newest: KeyId
    sealing: KeyId


Value: TypeAlias = (
    Network
    | Endpoint
    | Grant
    | Participation
    | ForgottenNode
    | RemovedNetwork
    | ReclaimStatement
    | AuthorityHolderRecord
    | JoinToken
    | TokenRevocation
    | Admission
    | CustomRecord
    | KeyState
)
Key: TypeAlias = tuple[str, bytes]
"""(kind, identity): the kind's letter and what tells two of a kind apart in one log."""


def key_of(value: Value) -> Key:
    """Return the key under which its origin's log holds `value`."""
    match value:
        case Network():
            return ("network", int(value.vni).to_bytes(3, "big"))
        case Endpoint():
            return ("endpoint", value.endpoint_id)
        case Grant():
            return ("grant", value.first + value.request_id)
        case Participation():
            return ("participation", value.vni.to_bytes(3, "big"))
        case ForgottenNode():
            return ("forgotten", value.node_id)
        case RemovedNetwork():
            return ("removed", value.vni.to_bytes(3, "big") + value.creator)
        case ReclaimStatement():
            return ("settled", value.node_id + value.part.to_bytes(2, "big"))
        case AuthorityHolderRecord():
            return ("holder", b"")
        case JoinToken():
            return ("invitation", value.token_id)
        case TokenRevocation():
            return ("revocation", value.token_id)
        case Admission():
            return ("admission", value.token_id + value.node_id)
        case KeyState():
            return ("keys", b"")
        case CustomRecord():
            # A name may be longer than a key.
            name = value.name.lower().encode("ascii")
            return ("name", hashlib.blake2s(name, digest_size=16).digest())


@dataclass(frozen=True, slots=True)
class Entry:
    """One write: at `version`, `key` became `value`, or was deleted (None)."""

    version: int
    key: Key
    value: Value | None


@dataclass(frozen=True, slots=True)
class Segment:
    """All entries of one log with versions in `(after, upto]`, signed by the origin."""

    origin: NodeId
    scope: Scope
    floor: int
    after: int
    upto: int
    entries: tuple[Entry, ...]
    raw: bytes = field(default=b"", compare=False, repr=False)
    signature: bytes = field(default=b"", compare=False, repr=False)
