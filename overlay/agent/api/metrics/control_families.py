"""The metric of frames that were dropped at the ports of containers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from overlay.agent.components import Components
from overlay.model import Vni
from overlay.prometheus import Family, Sample

DropFacts = Mapping[tuple[Vni, str], int]
"""Dropped frames by network and reason."""


async def drop_facts(components: Components) -> DropFacts:
    """Return what was dropped at the ports of this host's containers."""
    networks = components.directory.networks()
    await components.forwarding.controls.drops.read(network.vni for network in networks)
    return dict(components.forwarding.controls.drops.totals)


def control_families(facts: DropFacts, networks: Mapping[int, str]) -> Iterator[Family]:
    """Yield the metric; `networks` are the labels of networks, by VNI."""
    yield Family(
        "overlayd_dropped_frames_total",
        "Frames of this host's containers that were dropped at their ports, or above the rate "
        "that they share, by reason.",
        [
            Sample(count, (("network", networks[vni]), ("reason", reason)))
            for (vni, reason), count in sorted(facts.items())
            if vni in networks
        ],
    )
