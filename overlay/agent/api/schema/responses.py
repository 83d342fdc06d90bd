"""What answers have, as shapes: the API's document comes from here, and mypy holds views to it.

Owns: fields and types of the core's answers (other families of routes have theirs beside them).
Must not know: where the figures come from. What the fields mean stands in docs/API.md.
"""

from __future__ import annotations

from typing import Final, Literal, NotRequired, TypedDict

from overlay.core.protocol.messages import MemberState

MemberStateName = Literal["alive", "suspect", "dead", "left"]
KeyStepName = Literal["settled", "distributing", "using", "removing"]
SandboxStateName = Literal["ok", "absent", "degraded", "none"]
STATE_NAMES: Final[dict[MemberState, MemberStateName]] = {
    MemberState.ALIVE: "alive",
    MemberState.SUSPECT: "suspect",
    MemberState.DEAD: "dead",
    MemberState.LEFT: "left",
}


class NodeResponse(TypedDict):
    """This node."""

    id: str
    name: str
    epoch: int
    address: str
    interface: str
    underlay_mtu: int


class MemberStateCounts(TypedDict):
    """How many members are in each state."""

    alive: int
    suspect: int
    dead: int
    left: int


class PartitionResponse(TypedDict):
    """How many members of how many answer, where it must be this node that is cut off."""

    seen: int
    total: int


class ClusterResponse(TypedDict):
    """The cluster, as this node sees it."""

    id: str
    members: MemberStateCounts
    partitioned: PartitionResponse | None


class RowCounts(TypedDict):
    """What should be programmed, and what the kernel had when it was last read."""

    desired: int
    actual: int


class NetworkStatusResponse(TypedDict):
    """How a network is on this node."""

    name: str
    vni: int
    subnets: list[str]
    endpoints_local: int
    endpoints_total: int
    driver: str
    parent: str | None
    sandbox: SandboxStateName
    rows: RowCounts
    passes: int
    reads: int
    operations: int
    failures: list[str]


class FastPathResponse(TypedDict):
    """Whether unicast frames are spared the bridge."""

    mode: str
    active: bool
    why: str | None


class UnderlayFilterResponse(TypedDict):
    """Whether only members get at the VXLAN port."""

    active: bool
    why: str | None
    members: int
    refused: int
    refused_astray: int


class GossipResponse(TypedDict):
    """Datagrams, and how late the event loop ran at worst within the last minute."""

    received: int
    sent: int
    lag_max_ms: float


class KeyNameResponse(TypedDict):
    """A cluster key, by what it is called."""

    generation: int
    mark: str


class KeyUseResponse(KeyNameResponse):
    """How many datagrams came under a key."""

    datagrams: int


class KeySummaryResponse(TypedDict):
    """How far this host is with the cluster's key."""

    generation: int
    step: KeyStepName
    accepted: list[KeyUseResponse]


class HealthIssue(TypedDict):
    """What a person should know."""

    level: Literal["warn", "error"]
    text: str
    hint: str


class StatusResponse(TypedDict):
    """How this node and its cluster are; `node` and `cluster` are null in no cluster."""

    version: str
    uptime_s: float
    state_dir: str
    config: str | None
    node: NodeResponse | None
    cluster: ClusterResponse | None
    networks: list[NetworkStatusResponse]
    drops: dict[str, int]
    health: list[HealthIssue]
    vxlan_port: NotRequired[int]
    gossip_port: NotRequired[int]
    overlay_mtu: NotRequired[int]
    fast_path: NotRequired[FastPathResponse]
    underlay_filter: NotRequired[UnderlayFilterResponse]
    gossip: NotRequired[GossipResponse]
    key: NotRequired[KeySummaryResponse]


class JoinResponse(TypedDict):
    """A host that is a member."""

    created: bool
    already: bool
    cluster: str
    via: str | None
    node: NodeResponse
    vxlan_port: int
    gossip_port: int
    overlay_mtu: int
    members: int
    networks: int
    endpoints: int
    elapsed_ms: float
    next: str


class LeaveResponse(TypedDict):
    """How many endpoints were detached."""

    withdrawn: int


class ResetResponse(TypedDict):
    """Whether this host left its cluster, and whether the kernel's part is removed."""

    left: bool
    cleared: bool


class LogVersionResponse(TypedDict):
    """One log of a node: the version held here, and the newest told of."""

    scope: str
    held: int
    origin: int


class LogsResponse(TypedDict):
    """How much of a node's logs is held here."""

    behind: int
    equal_s: float | None
    versions: list[LogVersionResponse]


class MemberIdentityResponse(TypedDict):
    """Who a node is."""

    id: str
    name: str
    address: str
    version: str
    authority: bool
    certificate_expires: int


class MemberResponse(MemberIdentityResponse):
    """A node, and how it is."""

    state: MemberStateName
    since_s: float
    incarnation: int
    rtt_ms: float | None
    logs: LogsResponse
    self: bool


class MemberListResponse(TypedDict):
    """All nodes that are known, this one first."""

    members: list[MemberResponse]


class ForgetResponse(TypedDict):
    """The node that is gone."""

    forgotten: str


class DifferenceResponse(TypedDict):
    """What differs in the kernel, as the operation that removes the difference."""

    network: str
    operation: str
    text: str


class VerifyResponse(TypedDict):
    """What differed, and whether nothing does any more."""

    differences: list[DifferenceResponse]
    repaired: bool


class EventResponse(TypedDict):
    """Something that happened."""

    time: float
    kind: str
    text: str
    network: NotRequired[str]
    endpoint: NotRequired[str]
    peer: NotRequired[str]


class EventListResponse(TypedDict):
    """What happened, the latest last."""

    events: list[EventResponse]
