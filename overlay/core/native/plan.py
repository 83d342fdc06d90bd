"""Plan what the programs on the underlay's interfaces take out of packets.

Owns: a pure function of plain inputs. Does not: know which networks take the native path (the
planner of their sandboxes does), or the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from overlay.core.dataplane.underlay_filter import ArrivalPath
from overlay.core.native.state import NativeState, NativeVni
from overlay.model import Ip, Vni, ip_text


@dataclass(frozen=True, slots=True)
class NativeInput:
    """The whole input of a node's plan."""

    own: Ip  # this host's VTEP
    members: frozenset[Ip] = frozenset()  # VTEPs of the others
    paths: frozenset[ArrivalPath] = frozenset()  # interfaces by which members' packets may come
    usable: frozenset[int] = frozenset()  # interfaces that can run the program
    shortcuts: Mapping[Vni, int] = field(default_factory=dict)  # ends in the host's namespace


def plan_native(given: NativeInput) -> NativeState:
    """Return the desired state; empty without a shortcut, so that nothing runs for nothing."""
    paths = frozenset(
        path
        for path in given.paths
        if path.interface in given.usable
        and path.member in given.members
        and len(path.member) == len(given.own)
    )
    if not given.shortcuts or not paths:
        return NativeState()
    return NativeState(
        frozenset(path.interface for path in paths),
        frozenset({given.own}),
        paths,
        frozenset(NativeVni(vni, index) for vni, index in given.shortcuts.items()),
    )


def state_texts(state: NativeState, names: Mapping[int, str]) -> Iterator[str]:
    """Return the parts of a state in words, for `overlayd verify`; `names` are interfaces'."""
    from_names = (names.get(index, f"interface {index}") for index in sorted(state.interfaces))
    yield from (f"program on {name}" for name in from_names)
    yield from (f"own address {ip_text(ip)}" for ip in sorted(state.own))
    for index, ip in sorted(state.paths):
        yield f"member {ip_text(ip)} by {names.get(index, f'interface {index}')}"
    yield from (f"VNI {vni} by interface {index}" for vni, index in sorted(state.vnis))
