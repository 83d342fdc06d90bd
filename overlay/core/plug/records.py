"""The records of a host's plugs, and of the machines behind them.

These are declared objects (`core.declared`) under names that say whose they are: what any other
node writes under such a name counts for nothing. Agents before 0.4.0 ignore them.

Owns: these values, and their bodies. Does not: know which plug is active.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from overlay import limits
from overlay.core.declared import bodies
from overlay.core.declared.objects import PlacedObject
from overlay.model import Ip, Mac, NodeId, Vni, valid_name

PLUG_SOFTWARE: Final = (0, 4, 0)
"""The first version that keeps the addresses of machines outside from containers."""
DEFAULT_SEGMENT: Final = "default"
_MULTICAST: Final = 1
_TEXT_SIZE_MAX: Final = 4 * (limits.PLUG_BUCKET_SIZE_MAX // 3 + 1)


@dataclass(frozen=True, slots=True)
class Plug:
    """An interface of a host that is a port of a network.

    `segment` names the physical segment that it leads to: of all plugs of one network and segment,
    one is active, and a host has one at most. `is_leased`: the kernel closes the port if no agent
    renews it. `is_ready`: the interface is there, and has a carrier.
    """

    vni: Vni
    interface: str
    segment: str = DEFAULT_SEGMENT
    is_active: bool = False
    is_leased: bool = False
    is_ready: bool = False
    term: int = 0  # counts the activations on the segment; of two active plugs the later stays

    def object_name(self, origin: NodeId) -> str:
        """Return the name of the declared object, if this node writes it."""
        digest = hashlib.blake2s(self.segment.encode(), digest_size=8).hexdigest()
        return f"plug-{self.vni}-{origin.hex()}-{digest}"

    def body(self) -> bytes:
        """Return the body of the declared object."""
        states = [self.is_active, self.is_leased, self.is_ready]
        return bodies.encode([self.vni, self.interface, self.segment, *states, self.term], "a plug")


class Machine(NamedTuple):
    """A MAC outside, and an address that it uses."""

    mac: Mac
    ip: Ip


@dataclass(frozen=True, slots=True)
class MachinesSeen:
    """Some of the machines behind a host's plugs of a network: one bucket, by their MAC."""

    vni: Vni
    bucket: int
    machines: tuple[Machine, ...]

    def object_name(self, origin: NodeId) -> str:
        """Return the name of the declared object, if this node writes it."""
        return f"plug-{self.vni}-{origin.hex()}-{self.bucket}"

    def body(self) -> bytes:
        """Return the body of the declared object."""
        packed = b"".join(map(_packed, self.machines))
        return bodies.encode([self.vni, self.bucket, base64.b64encode(packed).decode()], "a plug")


PlugRecord: TypeAlias = Plug | MachinesSeen


def in_buckets(vni: Vni, machines: Iterable[Machine]) -> list[MachinesSeen]:
    """Return machines as records; what does not fit into one is left out."""
    found: dict[int, list[Machine]] = {}
    for each in sorted(set(machines)):
        digest = hashlib.blake2s(each.mac, digest_size=1).digest()
        bucket = found.setdefault(digest[0] % limits.PLUG_BUCKETS, [])
        if sum(len(_packed(known)) for known in (*bucket, each)) <= limits.PLUG_BUCKET_SIZE_MAX:
            bucket.append(each)
    return [MachinesSeen(vni, at, tuple(bucket)) for at, bucket in sorted(found.items())]


def decode(placed: PlacedObject) -> PlugRecord | None:
    """Return the record in a declared object; None for what its host did not write."""
    body = placed.value.body
    found: PlugRecord | None = bodies.decode(body, _plug) or bodies.decode(body, _seen)
    if found is None or found.object_name(placed.origin) != placed.value.name:
        return None
    return found


def _packed(machine: Machine) -> bytes:
    return machine.mac + bytes([len(machine.ip)]) + machine.ip


def _vni(value: Any) -> Vni:
    found = bodies.require(value, int)
    if not 1 <= found <= limits.VNI_MAX:
        raise ValueError(found)
    return Vni(found)


def _plug(
    vni: Any, interface: Any, segment: Any, active: Any, leased: Any, ready: Any, term: Any, *_: Any
) -> Plug:
    name = bodies.require(segment, str)
    if not valid_name(name):
        raise ValueError(name)
    is_active, is_leased, is_ready = (
        bodies.require(each, bool) for each in (active, leased, ready)
    )
    shown = bodies.require(interface, str, limits.INTERFACE_NAME_LENGTH_MAX)
    count = bodies.require(term, int)
    if not 0 <= count <= limits.PLUG_TERM_MAX:
        raise ValueError(count)
    return Plug(_vni(vni), shown, name, is_active, is_leased, is_ready, count)


def _seen(vni: Any, bucket: Any, packed: Any, *_: Any) -> MachinesSeen:
    number = bodies.require(bucket, int)
    if not 0 <= number < limits.PLUG_BUCKETS:
        raise ValueError(number)
    raw = base64.b64decode(bodies.require(packed, str, _TEXT_SIZE_MAX), validate=True)
    machines, at = [], 0
    while at < len(raw):
        size = raw[at + 6] if at + 6 < len(raw) else 0
        mac, ip = Mac(raw[at : at + 6]), Ip(raw[at + 7 : at + 7 + size])
        if size not in (4, 16) or len(ip) != size or mac[0] & _MULTICAST or not any(mac):
            raise ValueError(raw)
        machines.append(Machine(mac, ip))
        at += 7 + size
    return MachinesSeen(_vni(vni), number, tuple(machines))
