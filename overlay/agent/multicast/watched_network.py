"""One network whose containers' reports this host reads.

Owns: the taps of its bridges, and what they have said. Does not: know what other hosts want.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from overlay import limits
from overlay.core.multicast.memberships import Memberships
from overlay.core.multicast.queries import query_frame
from overlay.core.multicast.reports import read_report
from overlay.kernel.multicast.report_tap import ReportTap
from overlay.model import Mac, Network, Vni, gateway_mac

_REST_MAX_S = limits.MULTICAST_REST_MAX_S


class WatchedNetwork:
    """The memberships of a network's containers here, as they are heard."""

    def __init__(
        self,
        network: Network,
        taps: Sequence[ReportTap],
        local_macs: Callable[[Network], Collection[Mac]],
        changed: Callable[[Vni], None],
    ) -> None:
        """Begin. `changed` is called after frames that may have changed the interest."""
        self._loop = asyncio.get_running_loop()
        self._network = network
        self._taps = taps
        self._local_macs = local_macs
        self._changed = changed
        self._timers: dict[ReportTap, asyncio.TimerHandle] = {}
        self.memberships = Memberships(network.vni, self._loop.time())
        for tap in taps:
            self._loop.add_reader(tap.fileno(), self._read, tap)

    def ask(self, ports: Collection[tuple[str, str]], now: float) -> None:
        """Send the queries that are due to ports, each given with its bridge; takes a while."""
        groups = self.memberships.queries(now)
        if not groups:
            return
        for segment, tap in enumerate(self._taps):
            mac = gateway_mac(self._network.vni, segment)
            frames = []
            for group in groups:
                if group is not None:
                    response_s = limits.MULTICAST_LEAVE_S / 3
                    frames.append(query_frame(mac, len(group), response_s, group))
                else:
                    response_s = limits.MULTICAST_RESPONSE_S
                    frames += [query_frame(mac, size, response_s) for size in (4, 16)]
            tap.send([port for port, bridge in ports if bridge == tap.bridge], frames)

    def close(self) -> None:
        """Stop."""
        for timer in self._timers.values():
            timer.cancel()
        for tap in self._taps:
            self._loop.remove_reader(tap.fileno())
            tap.close()

    def _read(self, tap: ReportTap) -> None:
        """Take a burst of frames, then rest, so that a container's flood costs little."""
        self._loop.remove_reader(tap.fileno())
        started = self._loop.time()
        try:
            self._hear(tap, started)
        finally:
            took_s = self._loop.time() - started
            rest_s = min(max(limits.MULTICAST_REST_S, limits.MULTICAST_REST * took_s), _REST_MAX_S)
            self._timers[tap] = self._loop.call_later(
                rest_s, self._loop.add_reader, tap.fileno(), self._read, tap
            )

    def _hear(self, tap: ReportTap, now: float) -> None:
        reports = map(read_report, tap.frames(limits.MULTICAST_FRAMES_MAX))
        found = [report for report in reports if report is not None]
        is_flooded = tap.has_lost()
        if is_flooded:
            self.memberships.missed(now)
        local = self._local_macs(self._network) if found else ()
        for report in found:
            self.memberships.heard(report, now, is_local=report.sender in local)
        if found or is_flooded:
            self._changed(self._network.vni)
