"""Declared objects in a simulated cluster: any host writes them, all must agree in the end.

Owns: what is written where, and the comparison after the storm.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

from overlay.core.declared.cleaner import DeclaredCleaner
from overlay.core.declared.kinds import POLICY_KIND, SERVICE_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.node import Node
from overlay.core.protocol.records import CLUSTER_SCOPE, DeclaredObject
from overlay.sim.host.host import Host
from overlay.sim.world.world import World

_KINDS: Final = (SERVICE_KIND, POLICY_KIND)
_NAMES: Final = 8
_REMOVED_SHARE: Final = 0.3
_CLEANING_S: Final = 2.0


class Declarations:
    """The declared objects that one scenario writes."""

    def __init__(self, world: World, per_s: float, rng: random.Random) -> None:
        self._world = world
        self._per_s = per_s
        self._rng = rng
        self._writing = False
        self._written = 0
        self._cleaners: dict[Host, tuple[Node, DeclaredCleaner]] = {}  # of each agent's life

    def begin(self) -> None:
        """Write from now on, if the scenario has declared objects."""
        if self._per_s:
            self._writing = True
            self._write()
            self._clean()

    def end(self) -> None:
        """Write nothing more; left-over records are still deleted."""
        self._writing = False

    def _write(self, _: Any = None) -> None:
        if not self._writing:
            return
        self._world.schedule.after(self._rng.expovariate(self._per_s), self._write)
        ready = self._ready()
        if ready:
            host = self._rng.choice(ready)
            host.guarded(self._change, host)

    def _change(self, host: Host) -> None:
        if host.node is None:
            return
        objects = objects_of(host)
        number = self._rng.randrange(_NAMES)
        kind, name = _KINDS[number % len(_KINDS)], f"object{number // len(_KINDS)}"
        version = objects.next_version(kind, name)
        assert version is not None, "no honest host comes near the highest version"
        self._written += 1
        removed = self._rng.random() < _REMOVED_SHARE
        body = b"" if removed else str(self._written).encode()
        host.publish(host.commit(CLUSTER_SCOPE, [DeclaredObject(kind, name, version, body)]))
        host.flush()

    def _clean(self, _: Any = None) -> None:
        self._world.schedule.after(_CLEANING_S, self._clean)
        for host in self._ready():
            host.guarded(self._delete_leftovers, host)

    def _delete_leftovers(self, host: Host) -> None:
        assert host.node is not None
        node, cleaner = self._cleaners.get(host, (None, None))
        if cleaner is None or node is not host.node:
            cleaner = DeclaredCleaner(objects_of(host))
            self._cleaners[host] = (host.node, cleaner)
        states = [member.state for member in host.node.membership.members()]
        keys = cleaner.due(states, host.schedule.now)
        if keys:
            host.publish(host.commit(CLUSTER_SCOPE, [], keys))
            host.flush()

    def _ready(self) -> list[Host]:
        return [
            host
            for host in self._world.hosts
            if host.node is not None and not host.leaving and host.node.may_write(host.schedule.now)
        ]


def objects_of(host: Host) -> DeclaredObjects:
    """Return the declared objects that a host knows."""
    assert host.node is not None
    return DeclaredObjects(host.node.store, host.signer)


def difference(hosts: Iterable[Host]) -> str | None:
    """Return in which declared object two hosts differ, or None."""
    first: tuple[Host, list[object]] | None = None
    for host in hosts:
        found: list[object] = [each for kind in _KINDS for each in objects_of(host).existing(kind)]
        if first is None:
            first = (host, found)
        elif found != first[1]:
            return f"{host.name} and {first[0].name} have other declared objects in force"
    return None


def leftovers(hosts: Iterable[Host]) -> str | None:
    """Return which host keeps a record that another one overrides, or None."""
    for host in hosts:
        if objects_of(host).leftovers(all_present=False):
            return f"{host.name} keeps a declared object that another host has changed"
    return None
