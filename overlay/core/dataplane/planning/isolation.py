"""The addresses that isolated ports of a host do not exchange frames with.

Owns: which MACs and IP addresses count as isolated, from the records. Does not: drop frames
(`kernel.nft.port_security`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from overlay.core.dataplane.planning.inputs import PlanInput
from overlay.core.dataplane.planning.remote_table import RemoteTable
from overlay.core.dataplane.port_security import allowed_addresses, allowed_macs
from overlay.core.dataplane.state import IsolatedRow
from overlay.model import Endpoint, Ip, Mac, is_isolated

ISOLATION_SOFTWARE: Final = (0, 4, 0)  # the first version that isolates ports


def isolates_any(given: PlanInput) -> bool:
    """Return whether any endpoint of this host is isolated."""
    return any(is_isolated(given.network, each) for each in given.locals)


def isolation_rows(given: PlanInput, table: RemoteTable) -> Iterator[IsolatedRow]:
    """Return a row for each address of an isolated endpoint, if one of them is on this host.

    An address that an endpoint may use that is not isolated, such as a virtual one, has none.
    """
    if not isolates_any(given):
        return
    network = given.network
    isolated: set[Mac | Ip] = set()
    reachable: set[Mac | Ip] = set()
    for endpoint in (*given.locals, *(each.endpoint for each in table.remotes())):
        found = isolated if is_isolated(network, endpoint) else reachable
        found.update(_addresses(endpoint))
    yield from map(IsolatedRow, isolated - reachable)


def _addresses(endpoint: Endpoint) -> Iterator[Mac | Ip]:
    yield endpoint.mac
    yield from endpoint.ips
    if endpoint.labels:
        yield from allowed_macs(endpoint)
        yield from allowed_addresses(endpoint)
