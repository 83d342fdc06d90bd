"""The gate of a host as a value, both desired and actual (ADR 0019).

A namespace translates what leaves exposed networks, what comes to published ports, and the replies.
Each interface of the host by which such packets pass has a pair of virtual interfaces into that
namespace, and programs that lead the packets there and back. The host's own traffic passes the
programs, and nothing else of overlayd's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from overlay.core.gate.port_block import USUAL_BLOCK, PortBlock
from overlay.model import Ip, Mac

InterfaceKind: TypeAlias = Literal["outside", "network", "loopback"]


class GatedInterface(NamedTuple):
    """An interface of the host that has a gate.

    A network's is the host's own one there; all others but the loopback lead outside.
    """

    name: str
    interface_index: int
    mac: Mac  # of zeros for the loopback
    mtu: int  # bytes
    kind: InterfaceKind


class GatedNetwork(NamedTuple):
    """A range of an exposed network, and the host's interface on it."""

    base: Ip
    length: int  # of the prefix, bits
    interface_index: int


class GatedAddress(NamedTuple):
    """A virtual address of an exposed network, and the host's interface on it.

    The host reaches it through the gate.
    """

    ip: Ip
    interface_index: int


@dataclass(frozen=True, slots=True)
class GateState:
    """What the gate's namespace is connected to, and what the programs lead there.

    `published` are ports of the host by protocol ("tcp" or "udp"), whatever their address, `block`
    those to masquerade with. `virtual` are what the host itself reaches through the gate.
    """

    interfaces: frozenset[GatedInterface] = frozenset()
    own: frozenset[Ip] = frozenset()  # the host's addresses but those of the loopback
    networks: frozenset[GatedNetwork] = frozenset()
    published: frozenset[tuple[str, int]] = frozenset()
    block: PortBlock = USUAL_BLOCK
    virtual: frozenset[GatedAddress] = frozenset()
