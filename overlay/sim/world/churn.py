"""Hosts that are killed and restarted, join, or leave permanently.

Owns: what each of these loses, and repeating a failed join as an operator would.
Does not: decide when a host goes (`faults`), or check anything.
"""

from __future__ import annotations

from typing import Any, Final

from overlay import limits
from overlay.core.keys.rotation import Ring
from overlay.sim.host.disk import Disk
from overlay.sim.host.host import Host
from overlay.sim.world.faults import Crash, Newcomer
from overlay.sim.world.world import Site, World

_STEP_S: Final = 0.5  # between checks whether a goodbye arrived


class Churn:
    """Starts and stops the agents of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def crash(self, fault: Crash) -> None:
        """Kill an agent now or in the middle of its next work.

        It is restarted after a while.
        """
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
        """Restart an agent that is down, unless its host has left."""
        if host.node is None and not host.gone:
            self._world.tell(f"{host.name}: the agent starts again")
            host.guarded(lambda _: host.start())
            if host.leaving:  # its operator repeats the command
                self.leave(self._world.sites[host.index])

    def join(self, fault: Newcomer) -> None:
        """Let a new host join."""
        site = self._world.add_host(len(self._world.sites))
        # A seed may leave before it replies, so hosts that stay are seeds too.
        staying = [host for host in self._world.hosts[:-1] if not host.leaving]
        seeds = [self._world.hosts[fault.seed_host], *staying[:2]]
        site.host.disk.seeds = tuple(dict.fromkeys(host.address for host in seeds))
        site.networks += self._world.networks
        site.host.disk.holds_authority = False
        self._enter(site.host)

    def _enter(self, host: Host) -> None:
        """Start a newcomer with the key of its welcome, a holder's present one."""
        holders = [
            other for other in self._world.hosts if other.is_holder and other.node is not None
        ]
        ring = (holders or self._world.hosts)[0].disk.ring
        host.disk.ring = Ring(frozenset({ring.sealing}), ring.sealing)
        host.start()
        self._world.schedule.after(limits.JOIN_TIMEOUT_S, self._check_joined, host)

    def _check_joined(self, host: Host) -> None:
        """Undo and repeat a failed join, as its operator would.

        A join fails if the host that replied is gone or has forgotten it. Without a repetition the
        host could never join, once the key of its welcome is out of use.
        """
        if host.leaving:
            return
        if host.node is None or self._is_known(host):
            self._world.schedule.after(limits.JOIN_TIMEOUT_S, self._check_joined, host)
            return
        self._world.tell(f"{host.name}: is known to no host, joins again")
        self._kill(host, "power")
        host.disk = Disk(host.disk.epoch, host.disk.seeds)
        self._enter(host)

    def _is_known(self, host: Host) -> bool:
        """Return whether any other host knows this one, or will after its restart.

        In that case, to start again under the same identity without its records would be a disk
        rolled back beyond recovery.
        """
        others = [other for other in self._world.hosts if other is not host and not other.gone]
        return any(
            host.node_id in other.disk.cards
            or (other.node is not None and other.node.store.card(host.node_id) is not None)
            for other in others
        )

    def leave(self, site: Site) -> None:
        """Let a host leave permanently, once a host that stays knows of it."""
        host = site.host
        if host.node is None or host.gone:
            return
        self._world.tell(f"{host.name}: is leaving")
        site.networks.clear()
        host.leaving = True

        def end(_: Any = None) -> None:
            if host.node is None:  # it crashed while leaving, which counts as gone
                pass
            elif not self._goodbye_received(host):
                host.later(_STEP_S, end)
                return
            host.stop()
            host.gone = True
            self._world.invariants.lost(host)
            host.kernel.lose_all()
            self._world.wires.unplug(host.address)

        host.guarded(lambda _: site.agent.leave(end))

    def _goodbye_received(self, leaver: Host) -> bool:
        """Return whether another host knows that this one leaves.

        Until then it stays.
        """
        for host in self._world.hosts:
            card = None if host.node is None else host.node.store.card(leaver.node_id)
            if host is not leaver and card is not None and card.left:
                return True
        return False
