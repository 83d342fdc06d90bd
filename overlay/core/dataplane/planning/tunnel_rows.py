"""The rows that lead to other hosts.

Where two remote endpoints claim one address, all nodes plan the rows of the same winner. A remote
claim to the address or MAC of a local endpoint gets no rows: one that sends a local container's
frames away would conflict with what its bridge port learns.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from overlay.core.dataplane.conflicts import Claim, better_for_ip, better_for_mac
from overlay.core.dataplane.gateways import gateway_macs
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.segments import Segments, segment_count
from overlay.core.dataplane.state import BridgeFdbRow, FdbRow, FloodRow, GroupRow, NeighborRow, Row
from overlay.core.vlan.vlans import vlans_of
from overlay.model import Ip, Mac


def tunnel_rows(given: PlanInput) -> Iterator[Row]:
    """Return the rows of the VXLAN devices, and of what is behind them."""
    own = given.local
    same_family = {vtep for vtep in given.flood if len(vtep) == len(own)} - {own}
    for segment in range(segment_count(given.network)):
        vni = given.network.vni + segment
        outside = {row.vtep for row in given.fabric.floods if row.vni == vni}
        outside = {vtep for vtep in outside if len(vtep) == len(own)} - {own}
        vteps = sorted(same_family | outside)
        yield from (FloodRow(f"{given.device_base}{segment}", vtep) for vtep in vteps)
        yield from _group_rows(given, f"{given.device_base}{segment}", outside)
    yield from _remote_rows(given)


def _group_rows(given: PlanInput, link: str, outside: AbstractSet[Ip]) -> Iterator[Row]:
    """Return the rows of groups that not all hosts want; outside VTEPs (BGP EVPN) want all."""
    size = len(given.local)
    for mac, wanted in given.groups:
        vteps = {vtep for vtep in wanted if len(vtep) == size} - {given.local} | outside
        yield from (GroupRow(mac, link, vtep) for vtep in vteps or {Ip(bytes(size))})


def _remote_rows(given: PlanInput) -> Iterator[Row]:
    vni = given.network.vni
    excluded = gateway_macs(given.network).union(endpoint.mac for endpoint in given.locals)
    local_ips = {ip for endpoint in given.locals for ip in endpoint.ips}
    segments = Segments(given.network)
    by_mac: dict[tuple[int, Mac], RemoteEndpoint] = {}
    by_ip: dict[Ip, tuple[int, RemoteEndpoint]] = {}
    for remote in given.remotes:
        endpoint = remote.endpoint
        if len(remote.vtep) != len(given.local) or remote.vtep == given.local:
            continue  # another underlay family is unreachable; a node's own VTEP is no remote
        if endpoint.mac in excluded:
            continue  # nor a neighbor: frames for that address would arrive here
        for ip in endpoint.ips:
            segment = segments.of(ip)
            if segment is None:
                continue
            current = by_mac.setdefault((segment, endpoint.mac), remote)
            if current is not remote and better_for_mac(
                vni, _claim(remote), _claim(current), given.owner_of
            ):
                by_mac[segment, endpoint.mac] = remote
            # The bridge would answer for a container in a VLAN, and without a tag.
            if ip not in local_ips and not (endpoint.labels and vlans_of(endpoint).is_any):
                _, current = by_ip.setdefault(ip, (segment, remote))
                if current is not remote and better_for_ip(
                    vni, ip, _claim(remote), _claim(current), given.owner_of
                ):
                    by_ip[ip] = (segment, remote)
    # Share one string per segment: 100,000 rows would hold as many strings of 55 bytes.
    segments_there = range(segment_count(given.network))
    names = [(f"{given.device_base}{segment}", f"br{segment}") for segment in segments_there]
    for (segment, mac), remote in by_mac.items():
        vxlan, _ = names[segment]
        yield FdbRow(vxlan, mac, remote.vtep)
        yield BridgeFdbRow(vxlan, mac)
    for ip, (segment, remote) in by_ip.items():
        _, bridge = names[segment]
        yield NeighborRow(bridge, ip, remote.endpoint.mac)
    if given.fabric.macs:
        yield from _fabric_rows(given, by_mac.keys(), local_ips | by_ip.keys(), segments)


def _fabric_rows(
    given: PlanInput,
    recorded_macs: AbstractSet[tuple[int, Mac]],
    recorded_ips: AbstractSet[Ip],
    segments: Segments,
) -> Iterator[Row]:
    """Return the rows of outside VTEPs, but for the MACs and addresses that records have."""
    excluded = gateway_macs(given.network).union(endpoint.mac for endpoint in given.locals)
    count = segment_count(given.network)
    taken: set[tuple[int, Mac]] = set()
    for vni, mac, vtep in given.fabric.macs:
        segment = vni - given.network.vni
        is_reachable = len(vtep) == len(given.local) and vtep != given.local
        is_free = mac not in excluded and (segment, mac) not in recorded_macs
        if 0 <= segment < count and is_reachable and is_free:
            taken.add((segment, mac))
            yield FdbRow(f"{given.device_base}{segment}", mac, vtep)
            yield BridgeFdbRow(f"{given.device_base}{segment}", mac)
    for vni, ip, mac in given.fabric.neighbors:
        segment = vni - given.network.vni
        is_free = ip not in recorded_ips and segments.of(ip) == segment
        if is_free and (segment, mac) in taken:
            yield NeighborRow(f"br{segment}", ip, mac)


def _claim(remote: RemoteEndpoint) -> Claim:
    return Claim(remote.origin, remote.endpoint)
