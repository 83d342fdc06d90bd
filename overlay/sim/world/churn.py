"""Hosts that come and go: killed and started again, joining, leaving for good.

Owns: what is lost with each, and what an operator does about a join that comes to nothing. Must not
know why a host goes (`faults`), nor what is checked.
"""

from __future__ import annotations

from typing import Any, Final

from overlay import limits
from overlay.core.keys.rotation import Ring
from overlay.sim.host.disk import Disk
from overlay.sim.host.host import Host
from overlay.sim.world.faults import Crash, Newcomer
from overlay.sim.world.world import Site, World

_STEP_S: Final = 0.5  # between two looks at whether a goodbye was heard


class Churn:
    """Starts and ends the agents of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def crash(self, fault: Crash) -> None:
        """End an agent, or let it end in its next work; it comes back after a while."""
        host = self._world.hosts[fault.host]
        if host.node is None or host.gone:
            return
        if fault.how == "killed" and fault.after_writes:
            host.schedule_crash(fault.after_writes)
        else:
            self._kill(host, fault.how)
        self._world.schedule.after(fault.down_s, self.revive, host)

    def _kill(self, host: Host, how: str) -> None:
        host.stop()
        if how == "killed":
            return
        self._world.invariants.lost(host)
        host.kernel.lose_all()
        if how == "restored" and host.backup is not None:
            self._world.environment.keys.rolled_back(host, host.disk.ring, host.backup.ring)
            host.disk = host.backup
            host.backup = None

    def revive(self, host: Host) -> None:
        """Start an agent that is down, unless its host has left."""
        if host.node is None and not host.gone:
            self._world.tell(f"{host.name}: the agent starts again")
            host.guarded(lambda _: host.start())
            if host.leaving:  # its operator asks again
                self.leave(self._world.sites[host.index])

    def join(self, fault: Newcomer) -> None:
        """Let a new host join."""
        site = self._world.add_host(len(self._world.sites))
        # A seed that leaves before it has told anything is no seed: name those who stay, too.
        staying = [host for host in self._world.hosts[:-1] if not host.leaving]
        seeds = [self._world.hosts[fault.seed_host], *staying[:2]]
        site.host.disk.seeds = tuple(dict.fromkeys(host.address for host in seeds))
        site.networks += self._world.networks
        site.host.is_holder = False
        self._enter(site.host)

    def _enter(self, host: Host) -> None:
        """Start a newcomer with what its welcome brings: the key that a holder seals with."""
        holders = [
            other for other in self._world.hosts if other.is_holder and other.node is not None
        ]
        ring = (holders or self._world.hosts)[0].disk.ring
        host.disk.ring = Ring(frozenset({ring.sealing}), ring.sealing)
        host.start()
        self._world.schedule.after(limits.JOIN_TIMEOUT_S, self._entered, host)

    def _entered(self, host: Host) -> None:
        """As its operator does: a join that has come to nothing, as whoever answered is gone or
        has forgotten, is undone and asked for again; else the host is a stranger for ever, once
        the key of its welcome is out of use."""
        if host.leaving:
            return
        if host.node is None or self._is_known(host):
            self._world.schedule.after(limits.JOIN_TIMEOUT_S, self._entered, host)
            return
        self._world.tell(f"{host.name}: is known to nobody, joins again")
        self._kill(host, "power")
        host.disk = Disk(host.disk.epoch, host.disk.seeds)
        self._enter(host)

    def _is_known(self, host: Host) -> bool:
        """Say whether any other host knows one, or will when it runs again: to come anew under
        the same identity, without its records, would be a disk rolled back out of reach."""
        others = [other for other in self._world.hosts if other is not host and not other.gone]
        return any(
            host.node_id in other.disk.cards
            or (other.node is not None and other.node.store.card(host.node_id) is not None)
            for other in others
        )

    def leave(self, site: Site) -> None:
        """Let a host leave for good, once somebody who stays knows of it."""
        host = site.host
        if host.node is None or host.gone:
            return
        self._world.tell(f"{host.name}: is leaving")
        site.networks.clear()
        host.leaving = True

        def end(_: Any = None) -> None:
            if host.node is None:  # it crashed while leaving: it is as gone as it will be
                pass
            elif not self._goodbye_heard(host):
                host.later(_STEP_S, end)
                return
            host.stop()
            host.gone = True
            self._world.invariants.lost(host)
            host.kernel.lose_all()
            self._world.wires.unplug(host.address)

        host.guarded(lambda _: site.agent.leave(end))

    def _goodbye_heard(self, leaver: Host) -> bool:
        """Say whether someone who stays knows that the host leaves; until then it stays."""
        for host in self._world.hosts:
            card = None if host.node is None else host.node.store.card(leaver.node_id)
            if host is not leaver and card is not None and card.left:
                return True
        return False
