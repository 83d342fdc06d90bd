"""The routes that this host announces to the fabric: its own endpoints, and nothing else.

FRR announces each static MAC on the shadow's own port, and each permanent neighbor of its bridge.
When the fabric has a newer announcement of a MAC, FRR replaces the row by one that leads there.
That row is written again only for an endpoint that is new: otherwise two places that both claim a
MAC would take it from each other without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from overlay.core.dataplane.gateways import gateway_macs
from overlay.core.dataplane.planning.segments import Segments
from overlay.core.fabric import FabricRows
from overlay.model import Endpoint, Ip, Mac, Network, Vni


class OwnMac(NamedTuple):
    """A MAC of this host on a segment."""

    vni: Vni
    mac: Mac


class OwnNeighbor(NamedTuple):
    """An address of this host on a segment, and its MAC."""

    vni: Vni
    ip: Ip
    mac: Mac


OwnRow: TypeAlias = OwnMac | OwnNeighbor


def announced(network: Network, endpoints: Iterable[Endpoint]) -> dict[OwnRow, bytes]:
    """Return the rows for this host's endpoints on a network, each with its endpoint's id."""
    segments = Segments(network)
    reserved = gateway_macs(network)
    found: dict[OwnRow, bytes] = {}
    for endpoint in endpoints:
        if endpoint.mac in reserved:
            continue
        for ip in endpoint.ips:
            segment = segments.of(ip)  # None for a gateway's address
            if segment is not None:
                vni = Vni(network.vni + segment)
                found[OwnMac(vni, endpoint.mac)] = endpoint.endpoint_id
                found[OwnNeighbor(vni, ip, endpoint.mac)] = endpoint.endpoint_id
    return found


@dataclass(frozen=True, slots=True)
class AnnouncementChange:
    """Rows to write into the shadow, and to delete from it."""

    puts: tuple[OwnRow, ...]
    deletions: tuple[OwnRow, ...]
    yielded: tuple[OwnRow, ...]  # not written: the fabric has them elsewhere by now


def change(
    wanted: Mapping[OwnRow, bytes],
    actual: frozenset[OwnRow],
    fabric: FabricRows,
    before: Mapping[OwnRow, bytes],
) -> AnnouncementChange:
    """Return the difference between what is wanted and what the shadow has.

    `before` has the endpoints that were announced already; `fabric` is what the shadow has of
    others.
    """
    missing = [row for row in wanted if row not in actual]
    yielded = {row for row in missing if before.get(row) == wanted[row]}
    if yielded:
        yielded &= _rows_elsewhere(fabric, wanted)
    return AnnouncementChange(
        tuple(row for row in missing if row not in yielded),
        tuple(sorted(actual - wanted.keys())),
        tuple(sorted(yielded)),
    )


def _rows_elsewhere(fabric: FabricRows, wanted: Iterable[OwnRow]) -> set[OwnRow]:
    """Return the rows whose MAC or address the fabric has."""
    macs = {(row.vni, row.mac) for row in fabric.macs}
    addresses = {(row.vni, row.ip) for row in fabric.neighbors}

    def is_elsewhere(row: OwnRow) -> bool:
        if isinstance(row, OwnMac):
            return (row.vni, row.mac) in macs
        return (row.vni, row.ip) in addresses

    return {row for row in wanted if is_elsewhere(row)}
