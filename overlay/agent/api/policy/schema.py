"""Requests and responses on policies."""

from typing import Annotated, Literal, TypedDict

from msgspec import Meta, field

from overlay import limits
from overlay.agent.api.schema.field_types import Labels, Name, Request, Text, require_labels

ActionName = Literal["allow", "deny"]
BasisName = Literal["policy", "default", "always"]
Peers = Annotated[tuple[Text, ...], Meta(max_length=limits.POLICY_PEERS_MAX)]
PortTexts = Annotated[tuple[Text, ...], Meta(max_length=limits.POLICY_PORTS_MAX)]


class PolicyCreateRequest(Request, frozen=True, kw_only=True):
    """A new policy; peers and ports are texts, as they are typed."""

    name: Name
    network: Text
    action: ActionName = "allow"
    sources: Peers = field(default=(), name="from")
    destinations: Peers = field(default=(), name="to")
    ports: PortTexts = ()
    log: bool = False
    labels: Labels = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise UsageError for labels that are reserved or too long."""
        require_labels(self.labels, "labels")


class PolicySetRequest(Request, frozen=True, kw_only=True):
    """Changes to a policy; a field that is left out keeps its value."""

    action: ActionName | None = None
    sources: Peers | None = field(default=None, name="from")
    destinations: Peers | None = field(default=None, name="to")
    ports: PortTexts | None = None
    log: bool | None = None
    labels: Labels | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for labels that are reserved or too long."""
        require_labels(self.labels or {}, "labels")


class PolicyTestQuery(Request, frozen=True, kw_only=True):
    """Two ends by name or address, and the connection from one to the other."""

    source: Text
    target: Text
    network: Text | None = None
    family: Literal["4", "6"] | None = None
    port: Text | None = None


PolicySidesResponse = TypedDict("PolicySidesResponse", {"from": list[str], "to": list[str]})


class PolicyResponse(PolicySidesResponse):
    """A policy; an empty list of peers or ports means all of them."""

    name: str
    network: str | None  # null: it was removed meanwhile
    action: ActionName
    ports: list[str]
    log: bool
    labels: dict[str, str]


class CountedPolicyResponse(PolicyResponse):
    """A policy, and what it has decided on this host; null without a container of its network."""

    allowed_connections: int | None
    denied_packets: int | None


class PolicyListResponse(TypedDict):
    """All policies, and the networks that deny what no policy allows."""

    policies: list[CountedPolicyResponse]
    default_deny: list[str]


class PolicyCreatedResponse(PolicyResponse):
    """A policy that exists now, whether it was created, and what has no effect now."""

    created: bool
    notes: list[str]


class PolicyChangedResponse(PolicyResponse):
    """A policy after a change, the fields that are others now, and what has no effect now."""

    changed: list[str]
    notes: list[str]


class PolicyEndResponse(TypedDict):
    """One end of a connection; `name` is null for an address that no endpoint has."""

    name: str | None
    ip: str


class DeniedPacketResponse(TypedDict):
    """Packets that a policy denied: ends, protocol, and how many of them there were."""

    source: PolicyEndResponse
    target: PolicyEndResponse
    protocol: str
    port: int | None
    packets: int


class PolicyDetailResponse(CountedPolicyResponse):
    """A policy with the containers that it selects now."""

    sources_now: list[str]
    destinations_now: list[str]
    denied: list[DeniedPacketResponse]
    notes: list[str]


class PolicyDecisionResponse(TypedDict):
    """The decision of a network's policies on a new connection."""

    network: str
    allowed: bool
    basis: BasisName
    policy: str | None
    default: ActionName


class PolicyTestResponse(PolicyDecisionResponse):
    """Whether a new connection is allowed, and what decides it.

    `decisions`: one of each network that it passes; the first that denies counts, else the last.
    """

    source: PolicyEndResponse
    target: PolicyEndResponse
    protocol: str
    port: int | None
    decisions: list[PolicyDecisionResponse]
