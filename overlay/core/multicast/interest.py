"""The multicast groups that a host wants of a network, as a declared object of that host.

The object's name is derived from host and network, and it counts only from that host's own log.
Agents before 0.4.0 ignore it and write none, so everything is sent to them as before.

Owns: the value and its body. Does not: know who asked for a group.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Self

from overlay import limits
from overlay.core.multicast.groups import is_multicast
from overlay.model import Ip, NodeId

_WANTS_ALL: Final = 1
_HEAD_SIZE: Final = 5  # VNI, flags, number of IPv4 groups


@dataclass(frozen=True, slots=True)
class Interest:
    """The groups that a host has receivers of, or that it wants all; `groups` are sorted."""

    vni: int
    wants_all: bool
    groups: tuple[Ip, ...] = ()

    def body(self) -> bytes:
        """Return the body of the declared object."""
        ipv4 = [group for group in self.groups if len(group) == 4]
        ipv6 = [group for group in self.groups if len(group) == 16]
        head = self.vni.to_bytes(3, "big") + bytes([_WANTS_ALL * self.wants_all, len(ipv4)])
        return head + b"".join(ipv4) + b"".join(ipv6)

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """Return the value of a body; raises ValueError for what no agent writes."""
        if len(body) < _HEAD_SIZE or body[3] & ~_WANTS_ALL:
            raise ValueError("not an interest in multicast")
        end = _HEAD_SIZE + 4 * body[4]
        if len(body) < end or (len(body) - end) % 16:
            raise ValueError("an interest in multicast with half a group")
        groups = [Ip(body[at : at + 4]) for at in range(_HEAD_SIZE, end, 4)]
        groups += [Ip(body[at : at + 16]) for at in range(end, len(body), 16)]
        size = sum(map(len, groups))
        if size > limits.MULTICAST_GROUP_BYTES_MAX or not all(map(is_multicast, groups)):
            raise ValueError("an interest in an address that is not a group, or in too many")
        vni = int.from_bytes(body[:3], "big")
        return cls(vni, bool(body[3] & _WANTS_ALL), tuple(sorted(set(groups))))


def interest_of(vni: int, groups: set[Ip], *, wants_all: bool) -> Interest:
    """Return a host's interest; that in too many groups is in all."""
    kept = tuple(sorted(groups))
    if sum(map(len, kept)) > limits.MULTICAST_GROUP_BYTES_MAX:
        return Interest(vni, wants_all=True)
    return Interest(vni, wants_all, kept)


def object_name(node_id: NodeId, vni: int) -> str:
    """Return the name of the object of a host and network."""
    return hashlib.blake2s(node_id + vni.to_bytes(3, "big"), digest_size=16).hexdigest()
