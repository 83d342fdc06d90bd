"""Addresses and MACs that the fabric has elsewhere than the cluster's signed records.

The record wins: the planner gives the fabric's row no effect. Owns: the report.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from overlay.core.dataplane.conflicts import Claim
from overlay.core.dataplane.planning.segments import Segments
from overlay.core.fabric import FabricRows
from overlay.model import Endpoint, Ip, Mac, Network, NodeId, Vni, ip_text, mac_text


class FabricConflict(NamedTuple):
    """An endpoint of the cluster whose address or MAC is behind an outside VTEP as well."""

    vni: Vni  # of the network
    subject: str  # the address or MAC, as text
    vtep: Ip
    origin: NodeId
    endpoint: Endpoint


def fabric_conflicts(
    network: Network, rows: FabricRows, claims: Iterable[Claim]
) -> list[FabricConflict]:
    """Return the conflicts of a network's records with the fabric's rows."""
    vteps: dict[tuple[Vni, Mac], Ip] = {(row.vni, row.mac): row.vtep for row in rows.macs}
    places = {
        (row.vni, row.ip): vteps[row.vni, row.mac]
        for row in rows.neighbors
        if (row.vni, row.mac) in vteps
    }
    if not vteps:
        return []
    segments = Segments(network)
    found: set[FabricConflict] = set()
    for origin, endpoint in claims:
        for ip in endpoint.ips:
            segment = segments.of(ip)
            if segment is None:
                continue
            vni = Vni(network.vni + segment)
            at = (
                (ip_text(ip), places.get((vni, ip))),
                (mac_text(endpoint.mac), vteps.get((vni, endpoint.mac))),
            )
            found.update(
                FabricConflict(network.vni, subject, vtep, origin, endpoint)
                for subject, vtep in at
                if vtep is not None
            )
    return sorted(found, key=lambda each: (each.vni, each.subject, each.endpoint.endpoint_id))
