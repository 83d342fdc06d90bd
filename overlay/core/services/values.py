"""What a host needs to know of services to translate their connections.

Owns: the values that the control plane derives from records and the data plane programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, TypeAlias

from overlay.model import Ip, NodeId, Vni

ServiceProtocol: TypeAlias = Literal["tcp", "udp"]
IpNetwork: TypeAlias = IPv4Network | IPv6Network
IngressMode: TypeAlias = Literal["ingress", "host"]
"""Whether every host of the cluster answers a published port, or only those with a backend."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One container that answers for a service, at one of its addresses.

    While it rests (drained, failing its check, its host silent) it gets no new connection and
    keeps those that it has; UDP flows move. It keeps its weight then, by which it has a place among
    the others. One that is drained by a weight of 0 has 1: what it had before is not known.
    """

    ip: Ip
    port: int
    node: NodeId
    weight: int = 1  # at least 1
    is_resting: bool = False


@dataclass(frozen=True, slots=True)
class VirtualPort:
    """A port of a virtual address, and the backends that share its connections.

    `vni` is that of the network, also where the address is in one of its further subnets. The
    backends are in order of address and port, so that equal records give equal values.
    """

    vni: Vni
    ip: Ip  # the virtual address
    protocol: ServiceProtocol
    port: int
    backends: tuple[Backend, ...]
    affinity: bool = False  # connections of one client address go to one backend
    local_first: bool = False  # backends on the client's own host, if there are any


@dataclass(frozen=True, slots=True)
class IngressPort:
    """A port of the hosts that leads to a port of a service."""

    protocol: ServiceProtocol
    port: int
    target: VirtualPort
    mode: IngressMode = "ingress"
    sources: tuple[IpNetwork, ...] = ()  # who may ask; empty: anyone
