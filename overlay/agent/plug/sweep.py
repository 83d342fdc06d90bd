"""Ask the segments behind active plugs for the addresses that hosts will give out next.

In the background and at a gentle pace, so that an attach need not wait: what answers is seen by the
plug's guard, as all else is that comes from outside.

Owns: when an address is asked for again. Does not: choose addresses (`core.plug.sweep`), or send.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from overlay import limits
from overlay.core.dataplane.planning.segments import segment_of
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.plug.resolution import resolution_frame
from overlay.core.plug.sweep import next_in_line
from overlay.model import Ip, Network, Vni, gateway_mac


@dataclass(slots=True)
class _Progress:
    """How far the sweep of a network is."""

    planned_for: object = None
    planned_at_s: float = 0.0
    due: deque[Ip] = field(default_factory=deque)
    asked_at_s: dict[Ip, float] = field(default_factory=dict)


class AddressSweep:
    """The sweeps of all networks with a plug of this host."""

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self._networks: dict[Vni, _Progress] = {}

    def frames(self, network: Network, known: AbstractSet[Ip], now: float) -> list[bytes]:
        """Return the frames to send now. `known`: addresses outside, which are asked for as well.

        So they stay known as long as their machines answer, although these say nothing else.
        """
        progress = self._networks.setdefault(network.vni, _Progress())
        if not progress.due:
            self._plan(progress, network, known, now)
        batch = [
            progress.due.popleft() for _ in range(min(limits.PLUG_SWEEP_BATCH, len(progress.due)))
        ]
        progress.asked_at_s |= dict.fromkeys(batch, now)
        mac = gateway_mac(network.vni, 0)
        gateways = {
            len(subnet.base): subnet.gateway
            for index, subnet in enumerate(network.subnets)
            if segment_of(network, index) == 0
        }
        return [resolution_frame(mac, gateways[len(ip)], ip) for ip in batch if len(ip) in gateways]

    def forget(self, vni: Vni) -> None:
        """Begin anew: another wire may have other machines."""
        self._networks.pop(vni, None)

    def _plan(
        self, progress: _Progress, network: Network, known: AbstractSet[Ip], now: float
    ) -> None:
        """Note what is due, unless nothing has changed since a moment ago."""
        stamp = (self._space.stamp(network), frozenset(known))
        age_s = now - progress.planned_at_s
        if progress.planned_for == stamp and age_s < limits.PLUG_SWEEP_INTERVAL_S:
            return
        if progress.planned_for is not None and age_s < limits.PLUG_SWEEP_PAUSE_S:
            return
        progress.planned_for, progress.planned_at_s = stamp, now
        claims = self._space.claims(network)
        taken = {ip for _, ips in claims.used for ip in ips}
        taken |= self._space.outside_ips(network.vni) | known
        wanted = dict.fromkeys([*sorted(known), *next_in_line(claims.ownership, taken)])
        lately = {
            ip: when
            for ip, when in progress.asked_at_s.items()
            if now - when < limits.PLUG_SWEEP_INTERVAL_S
        }
        progress.asked_at_s = lately
        progress.due.extend(ip for ip in wanted if ip not in lately)
