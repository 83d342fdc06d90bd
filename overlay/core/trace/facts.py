"""One host's knowledge of the way between its own container and another, as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from overlay.core.dataplane.state import SandboxState
from overlay.core.paths.view import PathView
from overlay.core.policy.decision import Decision
from overlay.core.vlan.vlans import NO_VLANS, Vlans
from overlay.model import Ip, Mac

_NO_MAC = Mac(b"")


class OwnEnd(NamedTuple):
    """The container of this host; `segment` and `gateway` are those of its address's subnet."""

    name: str
    node: str
    ifname: str
    mac: Mac
    ip: Ip
    port: str  # in the sandbox
    segment: int
    gateway: Ip
    vlans: Vlans = NO_VLANS


class PeerEnd(NamedTuple):
    """The other container; without a VTEP it is on this host, behind `port`."""

    name: str
    node: str
    mac: Mac
    ip: Ip
    segment: int
    vtep: Ip | None
    port: str = ""
    vlans: Vlans = NO_VLANS
    is_outside: bool = False  # behind a VTEP of a BGP EVPN fabric: no agent probes the path


class RouteFacts(NamedTuple):
    """The container's route to the other end."""

    ifname: str
    gateway: Ip | None


class CachedNeighbor(NamedTuple):
    """The container's own entry for its next hop."""

    ip: Ip
    mac: Mac
    is_permanent: bool


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """The container's side, as its kernel has it; `ifname` is empty if the interface is gone."""

    ifname: str = ""
    mac: Mac = _NO_MAC
    is_up: bool = False
    mtu: int = 0
    ips: frozenset[Ip] = frozenset()
    route: RouteFacts | None = None
    cached: CachedNeighbor | None = None
    listens: bool | None = None  # None: not asked, or not known


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """The records' decision on a connection of which one end is here."""

    network: str
    decision: Decision
    is_opened_here: bool  # by the container of this host; else to it


@dataclass(frozen=True, slots=True)
class RouterFacts:
    """The sandbox of the other end's network on this host, and the link that leads there."""

    network: str  # of the other end
    link: str
    local_vtep: Ip  # of this host, in that network
    peer_vtep: Ip | None  # of the other end's host, in the network of the own end
    desired: SandboxState
    actual: SandboxState


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Everything that one host's half is judged by."""

    own: OwnEnd
    peer: PeerEnd
    local_vtep: Ip
    vxlan_port: int
    is_isolated: bool  # subnets of the network are kept apart
    desired: SandboxState
    actual: SandboxState
    container: ContainerFacts | None  # None: its namespace is gone
    fits: int  # bytes of a container's packet that the path carries, as far as known
    path: PathView | None  # None: not probed, or both are here
    admits: bool | None  # the filter of the VXLAN port; None: there is none
    listener: str = ""  # such as "tcp port 80"
    policy: PolicyFacts | None = None  # None: the network has no policies
    router: RouterFacts | None = None  # None: both ends are on one network

    @property
    def is_routed(self) -> bool:
        """Whether the gateway routes between two subnets, or to another network."""
        return self.router is not None or self.own.segment != self.peer.segment

    @property
    def beyond(self) -> HostFacts:
        """The facts behind the gateway: in the sandbox of the other end's network."""
        if self.router is None:
            return self
        router = self.router
        return replace(
            self, desired=router.desired, actual=router.actual, local_vtep=router.local_vtep
        )

    @property
    def arrives_from(self) -> Ip | None:
        """The VTEP that frames of the other end come from; None within this host."""
        return self.peer.vtep if self.router is None else self.router.peer_vtep
