"""Requests and responses on the cluster: status, membership, events, verify.

Owns: fields, types and bounds. docs/API.md explains what the fields mean.
Does not: know where the values come from.
"""

import math
from typing import Annotated, Final, Literal, NotRequired, TypedDict

from msgspec import Meta

from overlay import limits
from overlay.agent.api.plug.schema import PlugResponse
from overlay.agent.api.schema.field_types import Name, Port, Request, SecretText, Text
from overlay.core.protocol.messages import MemberState
from overlay.errors import UsageError

MemberStateName = Literal["alive", "suspect", "dead", "left"]
KeyStepName = Literal["settled", "distributing", "using", "removing"]
SandboxStateName = Literal["ok", "absent", "degraded", "none"]
_WAIT_MS_MAX: Final = int(limits.PATH_LOOK_WAIT_S * 1000)
STATE_NAMES: Final[dict[MemberState, MemberStateName]] = {
    MemberState.ALIVE: "alive",
    MemberState.SUSPECT: "suspect",
    MemberState.DEAD: "dead",
    MemberState.LEFT: "left",
}


class JoinRequest(Request, frozen=True, kw_only=True):
    """How this host becomes a member."""

    peers: Annotated[tuple[Text, ...], Meta(max_length=limits.SEED_COUNT_MAX)] = ()
    token: SecretText | None = None
    underlay: Text | None = None
    name: Name | None = None
    vxlan_port: Port | None = None
    gossip_port: Port | None = None

    def __repr__(self) -> str:
        return f"JoinRequest(peers={self.peers!r})"  # without the token


class LeaveRequest(Request, frozen=True, kw_only=True):
    """How this host stops being a member."""

    force: bool = False


class ForgetRequest(Request, frozen=True, kw_only=True):
    """A node to remove permanently."""

    node: Text
    powered_off: bool = False
    ban: bool = False
    remove_networks: bool = False
    force: bool = False


class EventsRequest(Request, frozen=True, kw_only=True):
    """The earliest event, and whether to continue with new ones."""

    since: Annotated[float, Meta(title="time", description="a time is in seconds since 1970")] = 0.0
    follow: Literal["0", "1"] = "0"

    def __post_init__(self) -> None:
        """Raise UsageError for a time that is not finite."""
        if not math.isfinite(self.since):
            raise UsageError(
                f"since: {self.since} is not a valid time",
                why="a time is in seconds since 1970",
                field="since",
            )


class VerifyRequest(Request, frozen=True, kw_only=True):
    """Whether to apply the differences."""

    repair: Literal["0", "1"] = "0"


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
    """Members that answer, of all members, while this node seems to be cut off."""

    seen: int
    total: int


class ClusterResponse(TypedDict):
    """The cluster, as this node sees it."""

    id: str
    members: MemberStateCounts
    partitioned: PartitionResponse | None
    authority_holders: int


class RowCounts(TypedDict):
    """Desired rows, and the rows in the kernel when it was last read."""

    desired: int
    actual: int


class NetworkStatusResponse(TypedDict):
    """The state of a network on this node."""

    name: str
    vni: int
    subnets: list[str]
    endpoints_local: int
    endpoints_total: int
    driver: str
    parent: str | None
    policies: int
    default_deny: bool
    routers: list[str]
    isolate_ports: bool
    sandbox: SandboxStateName
    rows: RowCounts
    passes: int
    reads: int
    comparisons: int
    operations: int
    failures: list[str]
    plugs: list[PlugResponse]
    data_path: Literal["native", "fast", "bridge"] | None  # None: no sandbox here
    data_path_why: str | None  # why it is not the native path, in both directions


class FastPathResponse(TypedDict):
    """Whether unicast frames bypass the bridge."""

    mode: str
    active: bool
    why: str | None


class NativePathResponse(TypedDict):
    """Whether frames of other hosts bypass the VXLAN device."""

    mode: str
    active: bool
    why: str | None
    interfaces: int  # of the underlay that run its program


class GatePortsResponse(TypedDict):
    """The ports from which containers leave by a gate, both ends included."""

    first: int
    last: int


class GateResponse(TypedDict):
    """Whether this host translates apart from its own traffic (docs/adr/0019)."""

    mode: str
    active: bool  # false as well where nothing is exposed
    why: str | None
    ports: NotRequired[GatePortsResponse | None]  # null without a gate


class ConnectChoiceResponse(TypedDict):
    """Whether TCP connections to virtual addresses are led to a backend as they begin."""

    mode: str
    active: bool
    why: str | None


class UnderlayFilterResponse(TypedDict):
    """Whether only members can reach the VXLAN port."""

    active: bool
    why: str | None
    members: int
    refused: int
    refused_astray: int


class GossipResponse(TypedDict):
    """Datagram counts, and the worst delay of the event loop within the last minute."""

    received: int
    sent: int
    lag_max_ms: float


class KeyNameResponse(TypedDict):
    """The name of a cluster key."""

    generation: int
    mark: str


class KeyUseResponse(KeyNameResponse):
    """The number of datagrams opened with a key."""

    datagrams: int


class KeySummaryResponse(TypedDict):
    """The state of the cluster's key on this host."""

    generation: int
    step: KeyStepName
    accepted: list[KeyUseResponse]


class HealthIssue(TypedDict):
    """A problem that an operator should know about."""

    level: Literal["warn", "error"]
    text: str
    hint: str


class PeerPathResponse(TypedDict):
    """Whether the newest probes of the data path to a peer arrived, and what size it carries."""

    peer: str
    ok: bool | None  # null: not known yet
    size_carried: int | None


class NoticeResponse(TypedDict):
    """A fact to know of: over by now, or about another host; `hint` says what to do."""

    text: str
    hint: str


class LookRequest(Request, frozen=True, kw_only=True):
    """Look at data paths: a check of the packet sizes that they carry goes before the answer.

    `wait_ms` limits how long its outcome is waited for; 0: nothing is checked.
    """

    wait_ms: Annotated[int, Meta(ge=0, le=_WAIT_MS_MAX)] = 0


class StatusResponse(TypedDict):
    """The state of this node and its cluster; `node` and `cluster` are null outside a cluster."""

    version: str
    uptime_s: float
    state_dir: str
    config: str | None
    node: NodeResponse | None
    cluster: ClusterResponse | None
    networks: list[NetworkStatusResponse]
    drops: dict[str, int]
    health: list[HealthIssue]
    notices: NotRequired[list[NoticeResponse]]
    recovery: NotRequired[str | None]  # what was recovered of an old state file at this start
    vxlan_port: NotRequired[int]
    gossip_port: NotRequired[int]
    overlay_mtu: NotRequired[int]
    fast_path: NotRequired[FastPathResponse]
    native_path: NotRequired[NativePathResponse]
    gate: NotRequired[GateResponse]
    services_at_connect: NotRequired[ConnectChoiceResponse]
    underlay_filter: NotRequired[UnderlayFilterResponse]
    paths: NotRequired[list[PeerPathResponse]]
    gossip: NotRequired[GossipResponse]
    key: NotRequired[KeySummaryResponse]


class JoinResponse(TypedDict):
    """This host as a member of the cluster."""

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


class HealthResponse(TypedDict):
    """Whether this agent works; `issues` counts the lines of `health` in the status."""

    status: Literal["ok", "degraded"]
    issues: int


class LeaveResponse(TypedDict):
    """Whether this host was a member, and the number of endpoints that were detached."""

    left: bool
    withdrawn: int


class ResetResponse(TypedDict):
    """Whether this host left its cluster, and what is removed.

    `cleared`: the agent has removed all kernel objects. `removed`: what the command line, which
    continues without the agent, has removed besides. `authority_lost`: this host was the only live
    one that held the authority of a cluster that stays. `fault`: why a member could not leave, as
    its disk refuses that; null otherwise.
    """

    left: bool
    cleared: bool
    authority_lost: bool
    fault: str | None
    removed: list[str]


class LogVersionResponse(TypedDict):
    """One log of a node: the version held here, and the newest version reported."""

    scope: str
    held: int
    origin: int


class LogsResponse(TypedDict):
    """How much of the logs of a node is held here."""

    behind: int
    equal_s: float | None
    versions: list[LogVersionResponse]


class MemberIdentityResponse(TypedDict):
    """The identity of a node."""

    id: str
    name: str
    address: str
    version: str
    authority: bool
    certificate_expires: int


class PathResponse(TypedDict):
    """The data path to a node, as the newest probes found it.

    `sending` and `receiving` are `ok`, `lost` (gossip works, VXLAN does not arrive), `damaged`
    (only packets without checksums arrive), `silent` (the node does not report) or `unknown` (not
    probed yet). `size_carried` is the largest underlay packet proven to arrive, in bytes.
    """

    sending: str
    receiving: str
    since_s: float
    size_expected: int
    size_carried: int | None


class MemberResponse(MemberIdentityResponse):
    """A node and its state."""

    state: MemberStateName
    since_s: float
    incarnation: int
    rtt_ms: float | None
    path: PathResponse | None  # None: no shared overlay network, or this node
    logs: LogsResponse
    self: bool


class MemberListResponse(TypedDict):
    """All known nodes, this one first."""

    members: list[MemberResponse]


class ForgetResponse(TypedDict):
    """The node that was removed, and how many of its networks."""

    forgotten: str
    networks_removed: int
    networks_left: int


class DifferenceResponse(TypedDict):
    """A difference in the kernel, as the operation that removes it."""

    network: str
    operation: str
    text: str


class VerifyResponse(TypedDict):
    """The differences found, and whether a repair removed them."""

    differences: list[DifferenceResponse]
    repaired: bool


class EventResponse(TypedDict):
    """An event."""

    time: float
    kind: str
    text: str
    level: NotRequired[Literal["info", "warning", "error"]]  # an older agent wrote none
    network: NotRequired[str]
    endpoint: NotRequired[str]
    peer: NotRequired[str]


class EventListResponse(TypedDict):
    """Events, the latest last."""

    events: list[EventResponse]
