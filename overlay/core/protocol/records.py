"""The records that nodes write, and their logs: entries, segments, scopes.

A *log* belongs to one origin and one scope. Scope 0 is the cluster's (networks created by the
origin, networks it participates in); every other scope is a network's VNI (endpoints, grants).
Only the origin writes its log, so no key ever has two writers and there is nothing to resolve.

A log is a run of *segments* in version order, each signed by its origin and relayed as the very
bytes that were signed. A segment holds all entries with versions in `(after, upto]` as they were
when it was made; a later entry for the same key replaces an earlier one, and a value of None
(tombstone) deletes it. The `floor` of a segment says that its origin has dropped everything up to
that version: a replica that holds less starts the log afresh.
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
    """The origin participates in a network: it holds its records.

    `forwards` says that the origin has a sandbox for it, and so needs a flood row on the others;
    a network's creator participates without one, because of the address space that it owns.
    """

    vni: int
    forwards: bool


@dataclass(frozen=True, slots=True)
class ForgottenNode:
    """The origin declares that a node is gone permanently.

    The node's address space returns to its granters.

    With the authority's signature it takes effect at once; without, only where the node is not
    considered alive, so that no member can shut out a live one.
    """

    node_id: NodeId
    warrant: bytes = b""  # the authority's signature, or empty


@dataclass(frozen=True, slots=True)
class RemovedNetwork:
    """The origin requests a network's removal from its creator."""

    vni: int
    creator: NodeId


class KeptRun(NamedTuple):
    """A run `[first, last]` of one network's addresses."""

    vni: int
    first: bytes
    last: bytes


@dataclass(frozen=True, slots=True)
class ReclaimStatement:
    """The origin knows that `node_id` is forgotten, and what it keeps.

    `kept`, over all parts, is every address that the origin holds, or has passed on, by way of
    that node's grants; any other grant of that node that reaches the origin later has no effect
    there. Written once, never changed. The space is allocated again only after every member has
    written its statement (`core.ipam.reclaim`).
    """

    node_id: NodeId
    # The origin's vote for the reclaiming node where every granter is forgotten too.
    reclaiming_node: NodeId
    part: int  # from 0; a long `kept` takes several records
    parts: int
    kept: tuple[KeptRun, ...]


@dataclass(frozen=True, slots=True)
class AuthorityHolderRecord:
    """The origin holds the authority's key, as a signature by that key proves."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token as the cluster knows it, without its secret.

    `join_key` seals the first messages exchanged with an applicant that has the token, so that
    any member can direct it to a holder of the authority; only a holder admits it, against the
    preimage of `verifier`. The authority's signature makes the record valid, whichever node
    relays it.
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
    """The token admits no more hosts; signed by the authority."""

    token_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Admission:
    """The origin, a holder of the authority, admitted a node by a token."""

    token_id: bytes
    node_id: NodeId


@dataclass(frozen=True, slots=True)
class CustomRecord:
    """A custom DNS record on the network of its log's scope."""

    name: str
    ips: tuple[Ip, ...]


class KeyId(NamedTuple):
    """Identifies a cluster key. A greater one is newer.

    Two keys of one generation, made on both sides of a partition, are ordered by their marks.
    """

    generation: int
    mark: int  # 16 bits of a hash of the secret


@dataclass(frozen=True, slots=True)
class KeyState:
    """The origin has stored these two cluster keys and seals with the second."""

    newest: KeyId
    sealing: KeyId


@dataclass(frozen=True, slots=True)
class DeclaredObject:
    """The origin's statement about an object that belongs to no host, such as a service.

    Of all origins' statements about one object, one is in force (`core.declared`). An empty body
    says that the object is removed. What the body means depends on `kind`.
    """

    kind: int
    name: str
    version: int  # one more than the highest that the origin knew
    body: bytes


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """Whether an endpoint of the origin passes the health check of a service.

    In the log of the network's scope, and written only when that changes.
    """

    endpoint_id: bytes
    service: str
    is_healthy: bool


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
    | DeclaredObject
    | BackendHealth
)
Key: TypeAlias = tuple[str, bytes]
"""(kind, identity): a record's kind, and its identity within the kind."""

Written: TypeAlias = Value | Key
"""The content of an entry: the value that it wrote, or the key that it deleted."""


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
            return ("name", _name_digest(value.name))
        case DeclaredObject():
            return declared_key(value.kind, value.name)
        case BackendHealth():
            return ("health", value.endpoint_id + _name_digest(value.service))


def declared_key(kind: int, name: str) -> Key:
    """Return the key of a declared object, whatever the case of its name."""
    return ("declared", bytes([kind]) + _name_digest(name))


def _name_digest(name: str) -> bytes:
    """Return what stands for a name in a key: a DNS name can be longer than a key may be."""
    return hashlib.blake2s(name.lower().encode("ascii"), digest_size=16).digest()


class Entry(NamedTuple):
    """One write: at `version`, `key` became `value`, or was deleted (None)."""

    version: int
    key: Key
    value: Value | None

    @property
    def written(self) -> Written:
        """Return the value, or the key of what was deleted."""
        return self.key if self.value is None else self.value


@dataclass(frozen=True, slots=True)
class Segment:
    """All entries of one log with versions in `(after, upto]`: what each of these wrote, in order.

    A host holds very many, so there is no object for an entry: its place says its version, and its
    value its key. `raw` are the bytes that the origin signed.
    """

    origin: NodeId
    scope: Scope
    floor: int
    after: int
    upto: int
    written: tuple[Written, ...]
    raw: bytes = field(default=b"", compare=False, repr=False)
    signature: bytes = field(default=b"", compare=False, repr=False)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return the entries, made anew."""
        return tuple(
            Entry(version, written, None)
            if isinstance(written, tuple)
            else Entry(version, key_of(written), written)
            for version, written in enumerate(self.written, self.after + 1)
        )
