"""Requests that create and delete the rows of a sandbox.

Owns: the kind and the flags of the request for each type of row. Does not: know the rows' layout
(`address_rows`, `neighbor_rows`, `routes`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overlay.core.dataplane.state import (
    AddressRow,
    BarrierRow,
    BridgeFdbRow,
    EntryRow,
    FdbRow,
    FloodRow,
    GroupRow,
    NeighborRow,
    RouteRow,
    Row,
    UnexpectedRow,
)
from overlay.kernel.netlink import address_rows, codec, neighbor_rows, routes
from overlay.kernel.netlink.codec import Request

_REPLACE: Final = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
_APPEND: Final = codec.NLM_F_CREATE | codec.NLM_F_APPEND

_ENCODERS: Final[dict[type, tuple[int, int, Callable[..., bytes]]]] = {
    AddressRow: (codec.RTM_NEWADDR, _REPLACE, address_rows.encode_address),
    FdbRow: (codec.RTM_NEWNEIGH, _REPLACE, neighbor_rows.encode_fdb),
    FloodRow: (codec.RTM_NEWNEIGH, _APPEND, neighbor_rows.encode_flood),
    GroupRow: (codec.RTM_NEWNEIGH, _APPEND, neighbor_rows.encode_group),
    BridgeFdbRow: (codec.RTM_NEWNEIGH, _REPLACE, neighbor_rows.encode_bridge_fdb),
    NeighborRow: (codec.RTM_NEWNEIGH, _REPLACE, neighbor_rows.encode_neighbor),
    RouteRow: (codec.RTM_NEWROUTE, _REPLACE, routes.encode_route),
    BarrierRow: (codec.RTM_NEWRULE, codec.NLM_F_CREATE, routes.encode_barrier),
    EntryRow: (codec.RTM_NEWRULE, codec.NLM_F_CREATE | codec.NLM_F_EXCL, routes.encode_entry),
}

ROWS: Final = (*_ENCODERS, UnexpectedRow)
"""The types of rows that `put` or `delete` accept."""


def put(row: Row, index: int) -> Request:
    """Return the request that creates or replaces the row on the link `index`."""
    kind, flags, encode = _ENCODERS[type(row)]
    return (kind, flags, encode(row, index))


def delete(row: Row, index: int) -> Request:
    """Return the request that deletes the row from the link `index`."""
    if type(row) is UnexpectedRow:
        return (codec.RTM_DELNEIGH, 0, row.request)
    kind, _, encode = _ENCODERS[type(row)]
    if type(row) is RouteRow:
        encode = routes.encode_any_route
    return (kind + 1, 0, encode(row, index))  # RTM_DEL... follows RTM_NEW...
