"""Publish the multicast groups that this host's containers want, so that others send only these.

It reads the reports of each sandbox's containers (IGMP, MLD), asks for them, and writes what they
amount to into a record of this host. A network without any group has no record.

Owns: which networks are watched, and when the record is written. Does not: plan rows.
"""

from __future__ import annotations

import asyncio
import contextlib

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.multicast.open_ports import has_open_port
from overlay.agent.multicast.watched_network import WatchedNetwork
from overlay.agent.process.controller import Controller
from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.planning.segments import segment_count
from overlay.core.dataplane.port_security import allowed_macs
from overlay.core.declared.kinds import INTEREST_KIND
from overlay.core.multicast.interest import Interest, object_name
from overlay.core.protocol.records import Scope
from overlay.errors import OverlayError
from overlay.kernel.multicast.report_tap import ReportTap
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import (
    Endpoint,
    Mac,
    Network,
    NodeId,
    Vni,
)

_RESYNC_S = 60.0


class MulticastController(Controller):
    """This host's part in pruning multicast."""

    name = "multicast"
    problem = "multicast groups cannot be announced, so this host gets those of all hosts"
    level = "warn"

    def __init__(
        self,
        context: NodeContext,
        declared: DeclaredService,
        reconciler: Reconciler,
    ) -> None:
        super().__init__(context.event_log)
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._declared = declared
        assert context.directory.multicast is not None, "it has declared objects"
        self._interests = context.directory.multicast
        self._reconciler = reconciler
        self._networks: dict[Vni, WatchedNetwork] = {}
        self._next_at: dict[Vni, float] = {}
        self._stale: set[Vni] = set()
        self._unheard: set[Vni] = set()  # networks whose reports this process may not read
        self._changes = -1
        self._next_s = 0.0
        reconciler.sandbox_ready.connect(self._sandbox_ready)
        reconciler.sandbox_closing.connect(self._sandbox_closing)
        reconciler.sandbox_changed.connect(self._network_changed)

    def member_changed(self, node_id: NodeId) -> None:
        """Have sandboxes planned again if it matters whether a host is alive."""
        if self._interests.of_host(node_id):
            self._reconciler.mark_dirty()

    def close(self) -> None:
        """Stop reading; what was written stays."""
        for watched in self._networks.values():
            watched.close()
        self._networks.clear()

    # --- the sandboxes --------------------------------------------------------------------

    async def _sandbox_ready(self, network: Network, sandbox: Sandbox) -> None:
        """Read the reports of a network's containers; called again while that is not begun."""
        known = self._networks.keys() | self._unheard
        if network.vni in known or not has_tunnel(network):
            return
        bridges = [f"br{segment}" for segment in range(segment_count(network))]
        try:
            taps = await self._kernel.call(_opened, sandbox, bridges)
        except PermissionError:  # without CAP_NET_RAW, as with `capture_from_peers = false`
            self._unheard.add(network.vni)
            self.trigger()
            return
        except OSError:  # the bridge is not there yet: the next call tries
            return
        runtime = self._reconciler.runtime(network.vni)
        if runtime is None or runtime.sandbox is not sandbox:  # closed meanwhile
            for tap in taps:
                tap.close()
            return
        self._networks[network.vni] = WatchedNetwork(
            network, taps, self._local_macs, self._network_changed
        )
        self._network_changed(network.vni)

    def _sandbox_closing(self, vni: Vni) -> None:
        watched = self._networks.pop(vni, None)
        self._next_at.pop(vni, None)
        self._unheard.discard(vni)
        if watched is not None:
            watched.close()
            self.trigger()

    def _network_changed(self, vni: Vni) -> None:
        if vni in self._networks:
            self._stale.add(vni)
            self.trigger()

    # --- what is wanted -------------------------------------------------------------------

    async def reconcile(self) -> None:
        """Ask the containers, and write what they want."""
        clock = asyncio.get_running_loop().time
        for vni in self._due(clock()):
            watched, runtime = self._networks[vni], self._reconciler.runtime(vni)
            network = self._directory.network_by_vni(vni)
            if runtime is None or network is None:
                continue
            links = runtime.desired.links.values()
            ports = [(link.name, link.master) for link in links if isinstance(link, Port)]
            watched.ask(ports, clock())
            is_guarded = runtime.sandbox.guard is not None
            is_open = not is_guarded or has_open_port(network, self._locals(network), links)
            now = clock()  # one time for both, so that no change falls between them
            self._write(watched.memberships.interest(now, is_open=is_open))
            self._next_at[vni] = watched.memberships.next_at(now)
        self._remove_others()
        next_at = min(self._next_at.values(), default=clock() + _RESYNC_S)
        self._next_s = min(max(limits.MULTICAST_REST_S, next_at - clock()), _RESYNC_S)

    def _due(self, now: float) -> list[Vni]:
        """Return the networks to look at: all, if what hosts want has changed."""
        changes = self._interests.change_number()
        everything = changes != self._changes or not self._gossip.may_write
        self._changes = changes
        stale, self._stale = self._stale, set()
        return [
            vni
            for vni in self._networks
            if everything or vni in stale or self._next_at.get(vni, 0.0) <= now
        ]

    def next_interval_s(self) -> float:
        """Return how long the next pass waits for a report."""
        return self._next_s

    def rest_s(self) -> float:
        """Return the time in which further reports wait, so that a burst is one record."""
        return limits.MULTICAST_REST_S

    def _write(self, interest: Interest) -> None:
        """Write the record if somebody needs it: no network without groups has any."""
        own = self._gossip.node_id
        known = self._interests.of_network(interest.vni)
        is_needed = own in known or interest.groups or any(each.groups for each in known.values())
        if not is_needed or known.get(own) == interest or not self._gossip.may_write:
            return
        try:
            self._declared.put(INTEREST_KIND, object_name(own, interest.vni), interest.body())
        except OverlayError:
            self._changes = -1  # the next try is about all networks
            raise

    def _remove_others(self) -> None:
        """Remove the records of networks without a sandbox, or whose reports are not read."""
        own = self._gossip.node_id
        if not self._gossip.may_write or not self._gossip.node.caught_up:
            return
        for interest in self._interests.of_host(own):
            is_used = own in self._directory.participants(interest.vni, forwarding=True)
            vni = Vni(interest.vni)
            if vni in self._unheard or (not is_used and vni not in self._networks):
                self._declared.remove(INTEREST_KIND, object_name(own, interest.vni))

    # --- the containers -------------------------------------------------------------------

    def _locals(self, network: Network) -> list[Endpoint]:
        store, own = self._gossip.node.store, self._gossip.node_id
        found = store.values_of(own, Scope(network.vni), "endpoint")
        return [each for each in found if isinstance(each, Endpoint)]

    def _local_macs(self, network: Network) -> set[Mac]:
        return {mac for each in self._locals(network) for mac in (each.mac, *allowed_macs(each))}


def _opened(sandbox: Sandbox, bridges: list[str]) -> list[ReportTap]:
    """Open the taps of bridges, all or none; runs in the kernel thread."""
    with contextlib.ExitStack() as undo:
        taps = [undo.enter_context(ReportTap(sandbox.netns_fd, each)) for each in bridges]
        undo.pop_all()
    return taps
