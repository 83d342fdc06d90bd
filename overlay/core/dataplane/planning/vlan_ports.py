"""Ports in VLANs, and ports that must be shut because nothing here would keep them apart.

Owns: which rows such a port has in place of those of the fast path. Does not: add or remove tags
(`kernel.bpf.vlan`).
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.dataplane.planning.inputs import PlanInput
from overlay.core.dataplane.state import HookRow, VlanRow
from overlay.core.vlan.vlans import Vlans, vlans_of
from overlay.model import is_isolated


def vlan_hooks(segment: int, port_name: str, *, is_policed: bool) -> tuple[HookRow, HookRow]:
    """Return the hooks of a port that is in VLANs: for what it sends, and for what it gets."""
    sent = HookRow(segment, port_name, is_policed, is_vlan=True)
    return sent, sent._replace(is_leaving=True)


def vlan_row(port_name: str, vlans: Vlans) -> VlanRow:
    """Return the row with the VLANs of a port."""
    return VlanRow(vlans.ranges, vlans.is_trunk, port_name)


def shut_endpoints(given: PlanInput, *, guarded: bool, programs: bool) -> Iterator[bytes]:
    """Return the local endpoints whose ports must be on no bridge.

    Isolated ones without port security, and those in VLANs without that or without programs.
    """
    for endpoint in given.locals if not (guarded and programs) else ():
        if vlans_of(endpoint).is_any or (not guarded and is_isolated(given.network, endpoint)):
            yield endpoint.endpoint_id
