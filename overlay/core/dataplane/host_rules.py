"""The host's packet rules as a value: which networks it leads out of, and what leads into them.

Owns what the rules are made from. What they are in the kernel is `kernel.nft`'s business;
a network of any kind may have its interface among them, if the host has one on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from overlay.model import Ip


class ExposedLink(NamedTuple):
    """An interface of the host on a network, and the address ranges that lie behind it."""

    interface: str
    ranges: tuple[tuple[Ip, int], ...]  # (base, prefix length)


class PortForward(NamedTuple):
    """A port of the host that leads to a port of a container."""

    protocol: str  # "tcp" or "udp"
    host_ip: Ip  # empty: every address of the host, of the container's family
    host_port: int
    ip: Ip
    port: int
    borrowed: bool  # the container's way back leads elsewhere: the host stands in for the asker


class ForwardingInterface(NamedTuple):
    """An interface of others that forwards only because we need it (`kernel.host`)."""

    interface: str
    family: int  # 4 or 6


@dataclass(frozen=True, slots=True)
class HostState:
    """All that the host's table depends on."""

    links: frozenset[ExposedLink] = frozenset()
    ports: frozenset[PortForward] = frozenset()
    opened: frozenset[ForwardingInterface] = frozenset()
