"""Probes of the data path in the simulator: the agent's very prober, over the simulated network.

A frame is a datagram of its own kind, so what a fault does to gossip it does to frames. `lost_from`
adds what gossip does not see: a firewall that drops VXLAN of some hosts.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from typing import Any, Final

from overlay.core.events import PathReported
from overlay.core.paths.prober import PathProber
from overlay.core.paths.view import PathChange, PathView, PeerPath
from overlay.model import NodeId, Vni
from overlay.sim.environment.network import IP_UDP_HEADER_SIZE, Flight, SimProbe
from overlay.sim.host.host import UNDERLAY_MTU, Host

_SMALLEST_SIZE: Final = 94  # UDP payload: VXLAN 8, Ethernet 14, IPv4 20, UDP 8, probe 44


class SimPaths:
    """The data paths of one running host."""

    def __init__(self, host: Host, seed: int) -> None:
        self.lost_from: Collection[NodeId] = ()
        self.lost_above = UNDERLAY_MTU  # larger packets to this host vanish
        self.changes: list[tuple[float, PathChange]] = []
        self._host = host
        self._prober = PathProber(random.Random(seed))
        self._armed = float("inf")
        host.take_frame = self._take_frame

    def probe(self, peers: Collection[NodeId], vni: Vni) -> None:
        """Probe these peers from now on."""
        found = {node_id: PeerPath(vni, UNDERLAY_MTU) for node_id in peers}
        self._prober.set_peers(found, self._host.schedule.now)
        self._flush()

    def views(self) -> Iterator[PathView]:
        """Yield what the host knows of each path."""
        return self._prober.paths()

    def report_received(self, event: PathReported) -> None:
        """Handle a peer's report."""
        self._prober.receive_report(event.sender, event.report, self._host.schedule.now)
        self._flush()

    def _take_frame(self, flight: Flight) -> None:
        probe = flight.content
        if flight.corrupt or flight.sender in self.lost_from:
            return
        if self._prober.key_of(flight.sender) != probe.key:
            return
        if flight.size + IP_UDP_HEADER_SIZE > self.lost_above:
            return
        if self._prober.receive_frame(
            flight.sender,
            probe.sequence,
            self._host.schedule.now,
            is_bare=probe.is_bare,
            is_large=flight.size > _SMALLEST_SIZE,
        ):
            self._flush()

    def _flush(self) -> None:
        host, node = self._host, self._host.node
        if node is None:
            return
        for to, report in self._prober.drain_reports():
            node.send_to(to, report)
            host.later(0.0, lambda _: host.flush())
        for frame in self._prober.drain_frames():
            card = node.store.card(frame.to)
            if card is not None:
                size = max(_SMALLEST_SIZE, frame.size - IP_UDP_HEADER_SIZE)
                probe = SimProbe(frame.sequence, frame.key, frame.is_bare)
                host.environment.network.send(host.node_id, host.address, card.address, probe, size)
        now = host.schedule.now
        self.changes += [(now, change) for change in self._prober.drain_changes()]
        due = self._prober.next_timer()
        if due is not None and due < self._armed:
            self._armed = due
            host.later(max(0.0, due - now), self._on_timer, due)

    def _on_timer(self, due: Any) -> None:
        if due == self._armed:
            self._armed = float("inf")
            self._prober.handle_timer(self._host.schedule.now)
            self._flush()
