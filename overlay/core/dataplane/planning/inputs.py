"""The input of a sandbox's plan."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from overlay.core.dataplane.conflicts import OwnerOf
from overlay.core.dataplane.state import PolicyClassRow, VerdictRow
from overlay.core.dataplane.tunnel_devices import DEVICE_BASES
from overlay.core.fabric import NO_FABRIC, FabricRows
from overlay.core.multicast.targets import GroupTargets
from overlay.model import Endpoint, Ip, Network, NodeId, Subnet, Vni


class LocalPort(NamedTuple):
    """The sandbox's end of a local endpoint's veth pair, and its subnet."""

    name: str
    subnet_index: int
    endpoint_id: bytes = b""


class RemoteEndpoint(NamedTuple):
    """An endpoint of another node, and that node's VTEP."""

    origin: NodeId
    vtep: Ip
    endpoint: Endpoint


class HostEndpoints(NamedTuple):
    """All endpoints of another node on a network, and that node's VTEP."""

    origin: NodeId
    vtep: Ip
    endpoints: tuple[Endpoint, ...]


class RemoteEndpoints(Collection[RemoteEndpoint]):
    """All remote endpoints of a network: each is made when it is looked at, as most are known."""

    def __init__(self, hosts: Iterable[HostEndpoints]) -> None:
        self._hosts = tuple(hosts)

    def __iter__(self) -> Iterator[RemoteEndpoint]:
        for origin, vtep, endpoints in self._hosts:
            for endpoint in endpoints:
                yield RemoteEndpoint(origin, vtep, endpoint)

    def __len__(self) -> int:
        return sum(len(each.endpoints) for each in self._hosts)

    def __contains__(self, remote: object) -> bool:
        return any(each == remote for each in self)


class RecordsPosition(NamedTuple):
    """How far remote endpoints were followed: a number of changes, and the VTEPs at that time."""

    change_count: int
    vteps: dict[NodeId, Ip | None]


class RemoteChanges(NamedTuple):
    """The changes of a network's remote endpoints since an earlier position.

    If `is_whole`, those in `present` are all that there are.
    """

    present: Collection[RemoteEndpoint]  # new or changed
    gone: Sequence[tuple[NodeId, bytes]] = ()  # origin and id of the endpoint
    is_whole: bool = True
    position: RecordsPosition | None = None  # where to go on from


@dataclass(frozen=True, slots=True, eq=False)
class PolicyRows:
    """The rows of a network's policies on one host; a new value after each change."""

    rows: tuple[PolicyClassRow | VerdictRow, ...] = ()
    fault: str = ""  # why they are not what was asked for: then nothing new is allowed


class LocalPlug(NamedTuple):
    """An interface of this host that is a port of a network: its port, and its name."""

    port: str
    interface: str


class RoutedNetwork(NamedTuple):
    """A network with a sandbox here that containers of this one reach through a router."""

    vni: Vni
    subnets: tuple[Subnet, ...]
    mtu: int  # of its links


@dataclass(frozen=True, slots=True)
class PlanInput:
    """The whole input of one sandbox's plan."""

    network: Network
    port: int  # UDP, the cluster's VXLAN port
    local: Ip  # this node's VTEP address
    mtu: int  # of the overlay, so that frames fit the underlay's packets
    ports: tuple[LocalPort, ...] = ()
    locals: tuple[Endpoint, ...] = ()  # this node's endpoints on the network
    remotes: tuple[RemoteEndpoint, ...] = ()
    flood: tuple[Ip, ...] = ()  # VTEPs of the nodes that have a sandbox for this network
    owner_of: OwnerOf | None = None  # decides between two claims to one address
    receiving: Ip | None = None  # local address of a second VXLAN device, without rows
    device_base: str = DEVICE_BASES[0]  # of the names of the devices that send
    fabric: FabricRows = NO_FABRIC  # what BGP EVPN has of outside VTEPs; records have precedence
    groups: GroupTargets = ()  # multicast that not all hosts want
    plugged: tuple[LocalPlug, ...] = ()  # ports of the network's first segment
    policy: PolicyRows | None = None  # None: no policy, and new connections are allowed
    routed: tuple[RoutedNetwork, ...] = ()
    is_clear: bool = True  # it is neither encrypted nor being switched
    native: bool = False  # unicast takes the shortcuts, past the VXLAN devices
    zero_checksum: frozenset[NodeId] = frozenset()  # members that accept it over IPv6
    needs_device: bool = False  # what leaves must pass the VXLAN device: priorities, a shared rate

    @property
    def sends(self) -> bool:
        """Return whether unicast to `receivers` leaves by the shortcuts, too.

        The VXLAN device alone copies priorities to the outer header, and has the queue of a shared
        rate.
        """
        is_any = self.receivers is None or bool(self.receivers)
        return self.native and is_any and not self.needs_device

    @property
    def receivers(self) -> frozenset[NodeId] | None:
        """Return the members that accept packets without a UDP checksum; None: all.

        The packets that leave by the shortcuts have none. Over IPv6 a VXLAN device drops them
        (RFC 6936) unless it was made to accept them, and whatever a member's programs leave alone
        would be lost.
        """
        return self.zero_checksum if self.native and len(self.local) == 16 else None
