"""The rows of the VXLAN devices that no remote endpoint's record is the cause of.

Those of remote endpoints are in `remote_table`.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from overlay.core.dataplane.gateways import gateway_macs
from overlay.core.dataplane.planning.inputs import PlanInput
from overlay.core.dataplane.planning.remote_table import RemoteTable
from overlay.core.dataplane.planning.segments import Segments, segment_count
from overlay.core.dataplane.state import BridgeFdbRow, FdbRow, FloodRow, GroupRow, NeighborRow, Row
from overlay.model import Ip, Mac


def tunnel_rows(given: PlanInput, table: RemoteTable) -> Iterator[Row]:
    """Return the rows for floods, and those of outside VTEPs where no record has precedence."""
    own = given.local
    same_family = {vtep for vtep in given.flood if len(vtep) == len(own)} - {own}
    for segment in range(segment_count(given.network)):
        vni = given.network.vni + segment
        outside = {row.vtep for row in given.fabric.floods if row.vni == vni}
        outside = {vtep for vtep in outside if len(vtep) == len(own)} - {own}
        vteps = sorted(same_family | outside)
        yield from (FloodRow(f"{given.device_base}{segment}", vtep) for vtep in vteps)
        yield from _group_rows(given, f"{given.device_base}{segment}", outside)
    if given.fabric.macs:
        yield from _fabric_rows(given, table)


def _group_rows(given: PlanInput, link: str, outside: AbstractSet[Ip]) -> Iterator[Row]:
    """Return the rows of groups that not all hosts want; outside VTEPs (BGP EVPN) want all."""
    size = len(given.local)
    for mac, wanted in given.groups:
        vteps = {vtep for vtep in wanted if len(vtep) == size} - {given.local} | outside
        yield from (GroupRow(mac, link, vtep) for vtep in vteps or {Ip(bytes(size))})


def _fabric_rows(given: PlanInput, table: RemoteTable) -> Iterator[Row]:
    """Return the rows of outside VTEPs, but for the MACs and addresses that records have."""
    excluded = gateway_macs(given.network).union(endpoint.mac for endpoint in given.locals)
    segments, count = Segments(given.network), segment_count(given.network)
    taken: set[tuple[int, Mac]] = set()
    for vni, mac, vtep in given.fabric.macs:
        segment = vni - given.network.vni
        is_reachable = len(vtep) == len(given.local) and vtep != given.local
        if not 0 <= segment < count or not is_reachable or mac in excluded:
            continue
        if not table.has_mac(segment, mac):
            taken.add((segment, mac))
            yield FdbRow(f"{given.device_base}{segment}", mac, vtep)
            yield BridgeFdbRow(f"{given.device_base}{segment}", mac)
    for vni, ip, mac in given.fabric.neighbors:
        segment = vni - given.network.vni
        if (segment, mac) not in taken or segments.of(ip) != segment:
            continue
        if not table.has_ip(segment, ip):
            yield NeighborRow(f"br{segment}", ip, mac)
